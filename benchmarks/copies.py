"""What finding copies costs, beside decoding: python benchmarks/copies.py [--images 25000]

Draws photographs in memory, of which one in a hundred is there again: half of them byte by byte, the others encoded
anew, at another size or mirrored. Decodes them as a store does, and finds the copies; in turn, so that a machine's
drift falls on both. What each image's small gray picture costs is counted with the finding.

Then, where elpv-dataset is installed, the same of pictures that are all of one kind: 2,624 solar cells, of which 50
were photographed twice and are known, and of which 100 are added once more, changed as above. What is said of them at
several values of copies.APART, 0 being any pair that agrees.
"""

from __future__ import annotations

import argparse
import io
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from paired import Comparison, seconds
from PIL import Image

from winnow.data import copies, datasets
from winnow.data.preprocessing import LIKENESS, Decoded, Form, decode
from winnow.files import InputError

LARGEST = 0.2
SHARE = 0.01
SIDES, STORED = (400, 300), 256
CHANGES = (
    lambda image: image,
    lambda image: image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.BICUBIC),
    lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
)


def photograph(seed: int) -> Image.Image:
    """Soft blobs of color under noise."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        SIDES, Image.Resampling.BICUBIC
    )
    noise = Image.fromarray(generator.integers(0, 24, (SIDES[1] // 2, SIDES[0] // 2, 3), dtype=np.uint8)).resize(SIDES)
    return Image.blend(coarse, noise, 0.1)


def encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def drawn(count: int) -> tuple[list[bytes], list[int]]:
    """Files, and of each the first that shows the same."""
    repeated = round(count * SHARE)
    with ThreadPoolExecutor() as pool:
        files = list(pool.map(lambda seed: encoded(photograph(seed), 90), range(count - repeated)))
    first = [*range(count - repeated), *range(repeated)]
    for number in range(repeated):
        change = CHANGES[number % len(CHANGES)]
        files.append(files[number] if number % 2 else encoded(change(photograph(number)), 70))
    return files, first


def of_one_kind(threads: int) -> None:
    """What is found among solar cells."""
    try:
        cells = list(datasets.SOURCES["elpv"]({}, []).candidates)
    except InputError as error:
        print(error)
        return
    form = Form(STORED, 1)
    again = np.random.default_rng(0).choice(len(cells), 100, replace=False)
    contents = [cell.read() for cell in cells]
    for number, row in enumerate(again):
        contents.append(encoded(CHANGES[number % len(CHANGES)](Image.open(io.BytesIO(contents[row]))), 70))
    with ThreadPoolExecutor(threads) as pool:
        decoded = list(pool.map(lambda content: decode(content, form), contents))
    likenesses, checksums = [each.likeness for each in decoded], [zlib.crc32(each.pixels) for each in decoded]
    labels = [cell.label for cell in cells] + [cells[row].label for row in again]
    twice: dict[str, list[int]] = {}
    for row, cell in enumerate(cells):
        if cell.group is not None:
            twice.setdefault(cell.group, []).append(row)
    print(f"{'APART':>6} {'twice':>7} {'changed':>8} {'others':>7} {'largest set':>12} {'two labels':>11}")
    for factor in (0, 1.5, 2, 2.5, 3, 4, 6):
        copies.APART = factor
        near = copies.find(likenesses, checksums, labels).near
        sets = list(copies.sets(near))
        known = {*again.tolist(), *range(len(cells), len(near)), *(row for rows in twice.values() for row in rows)}
        print(
            f"{factor:>6} {sum(near[one] == near[two] for one, two in twice.values()):>3}/{len(twice)}"
            f" {sum(near[row] == near[len(cells) + number] for number, row in enumerate(again)):>4}/{len(again)}"
            f" {len({row for members in sets for row in members.tolist()} - known):>7}"
            f" {max(map(len, sets), default=0):>12} {sum(len({labels[row] for row in each}) > 1 for each in sets):>11}"
        )


def main(arguments: argparse.Namespace) -> None:
    files, first = drawn(arguments.images)
    form = Form(STORED)
    found: list[copies.Copies] = []
    decoded: list[Decoded] = []

    def decoding() -> None:
        decoded.clear()
        with ThreadPoolExecutor(arguments.threads) as pool:
            for at in range(0, len(files), 1000):
                for each in pool.map(lambda content: decode(content, form), files[at : at + 1000]):
                    checksum = zlib.crc32(each.pixels)
                    # Of the pixels no more than one thousand are held: a store writes them.
                    kept = each.pixels if len(decoded) < 1000 else np.full(1, checksum)
                    decoded.append(each._replace(pixels=kept, width=checksum))

    def finding() -> None:
        small = [Image.fromarray(each.pixels) for each in decoded[:1000]]
        with ThreadPoolExecutor(arguments.threads) as pool:
            for _ in range(0, len(files), len(small)):
                list(pool.map(lambda image: image.convert("L").resize((LIKENESS,) * 2, Image.Resampling.BOX), small))
        labels = [0] * len(decoded)
        found.append(copies.find([each.likeness for each in decoded], [each.width for each in decoded], labels))

    pairs = []
    for _ in range(arguments.repeats):
        spent = seconds(decoding)
        pairs.append((seconds(finding), spent))
    comparison = Comparison(f"finding copies / decoding, {len(files)} files", pairs)
    right = sum(int(near == wanted) for near, wanted in zip(found[-1].near, first, strict=True))
    print(comparison)
    verdict = "met" if comparison.ratio <= LARGEST else "missed"
    print(f"{right} of {len(files)} as they were drawn; {verdict}: ≤ {LARGEST}")
    of_one_kind(arguments.threads)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=25_000, metavar="N", help="files (default: 25000)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="that decode (default: 2)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="pairs (default: 3)")
    main(parser.parse_args())
