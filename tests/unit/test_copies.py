"""Copies: the same pixels and nearly the same, in one part; pictures under two labels; what is just alike."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winnow.data import copies, overview
from winnow.data.preprocessing import Form, decode
from winnow.data.splits import Split
from winnow.data.store import Entry, Store
from winnow.tables import read_table

from . import programs
from .test_folders import CASES, cases  # noqa: F401 - a fixture

FORM = Form(64)


def photograph(seed: int, size: int = 96, noise: float = 8) -> Image.Image:
    """Soft blobs of color, under noise: like a photograph as far as its frequencies go."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((size * 4 // 3, size), Image.Resampling.BICUBIC), dtype=float)
    return Image.fromarray(np.clip(pixels + generator.normal(0, noise, pixels.shape), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def found(contents: list[bytes], labels: list[int] | None = None) -> copies.Copies:
    squares = [decode(content, FORM) for content in contents]
    checksums = [zlib.crc32(square.pixels) for square in squares]
    return copies.find([square.likeness for square in squares], checksums, labels or [0] * len(contents))


CHANGES = {
    "worse": lambda image: encoded(image, quality=50),
    "smaller": lambda image: encoded(image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)),
    "larger": lambda image: encoded(image.resize((image.width * 2, image.height * 2)), "PNG"),
    "mirrored": lambda image: encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "brighter": lambda image: encoded(image.point(lambda value: min(255, round(value * 1.15)))),
    "webp": lambda image: encoded(image, "WEBP", quality=60),
    "as bad as it gets": lambda image: encoded(image, quality=5),
    "a mirrored thumbnail": lambda image: encoded(
        image.resize((image.width // 4, image.height // 4), Image.Resampling.NEAREST).transpose(
            Image.Transpose.FLIP_LEFT_RIGHT
        ),
        quality=40,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_copies_are_found_and_strangers_are_not(change):
    images = [photograph(seed) for seed in range(60)]
    contents = [encoded(image, quality=92) for image in images] + [CHANGES[change](image) for image in images[:10]]
    seen = found(contents)
    assert seen.near.tolist() == [*range(60), *range(10)]
    assert seen.same.tolist() == list(range(70))
    assert seen.alike == []


def with_something_in_it(seed: int, size: int) -> Image.Image:
    """The same view as :func:`photograph`'s, with a thing of so many pixels a side that was not there."""
    pixels = np.asarray(photograph(seed)).copy()
    top, left = np.random.default_rng(seed).integers(0, (pixels.shape[0] - size, pixels.shape[1] - size))
    pixels[top : top + size, left : left + size] ^= 255
    return Image.fromarray(pixels)


def another_shines_through(seed: int) -> Image.Image:
    return Image.blend(photograph(seed), photograph(seed + 500), 0.25)


@pytest.mark.parametrize(
    "alike", [lambda seed: with_something_in_it(seed, 28), another_shines_through], ids=["something in it", "blended"]
)
def test_views_that_are_much_alike_are_no_copies(alike):
    images = [photograph(seed) for seed in range(30)] + [alike(seed) for seed in range(30)]
    assert found([encoded(image, quality=92) for image in images]).near.tolist() == list(range(60))


@pytest.mark.parametrize(("agreement", "copied"), [(0.98, False), (0.984, False), (0.986, True), (0.99, True)])
def test_small_pictures_are_copies_where_they_agree_to_985_in_a_thousand(agreement, copied):
    # What differs are the finest stripes, of which the hash knows nothing; on a scale on which rounding is nothing.
    generator = np.random.default_rng(0)
    coarse = np.asarray(Image.fromarray(generator.uniform(0, 1, (4, 4)).astype(np.float32)).resize((16, 16)))
    stripes = np.tile([1.0, -1.0], (16, 8))
    stripes -= (stripes * (coarse - coarse.mean())).mean() / coarse.var() * (coarse - coarse.mean())
    share = np.sqrt(1 / agreement**2 - 1) * coarse.std() / stripes.std()
    pair = np.stack([coarse, coarse + share * stripes])
    small = np.rint(20 + 200 * (pair - pair.min()) / np.ptp(pair)).astype(np.uint8)
    assert np.corrcoef(small.reshape(2, -1))[0, 1] == pytest.approx(agreement, abs=0.0008)
    assert (len(copies.near_pairs(small)) > 0) == copied


def test_the_same_pixels_are_the_same_picture_whatever_the_file():
    image = photograph(0)
    contents = [encoded(image, "PNG"), encoded(photograph(1)), encoded(image, "BMP"), encoded(image, "TIFF")]
    assert found(contents).same.tolist() == [0, 1, 0, 0]


def test_empty_pictures_are_no_near_copies_of_each_other():
    grays = [encoded(Image.new("RGB", (64, 64), (value,) * 3), "PNG") for value in range(0, 250, 10)]
    assert found(grays).near.tolist() == list(range(len(grays)))


def test_a_class_whose_pictures_are_all_much_alike_is_said_and_not_taken_for_copies():
    base = np.asarray(photograph(0), dtype=float)
    noise = [np.random.default_rng(number).normal(0, 3, base.shape) for number in range(9)]
    shots = [Image.fromarray(np.clip(base + each, 0, 255).astype(np.uint8)) for each in noise]
    contents = [encoded(shot, "PNG") for shot in shots] + [encoded(photograph(seed)) for seed in range(1, 10)]
    seen = found(contents, [0] * 9 + [1] * 9)
    assert seen.alike == [0]
    assert seen.near.tolist() == list(range(18))


def of_one_kind(seed: int) -> Image.Image:
    """What stands in one place under one light, one after the other: as much alike as copies are."""
    return Image.blend(photograph(0, noise=0), photograph(seed + 1, noise=0), 0.12)


def test_pictures_of_one_kind_are_no_copies_but_a_copy_among_them_is():
    images = [of_one_kind(seed) for seed in range(40)]
    contents = [encoded(image, quality=92) for image in images] + [CHANGES["worse"](image) for image in images[:5]]
    seen = found(contents, [0, 1] * 20 + [0] * 5)
    assert seen.near.tolist() == [*range(40), *range(5)]
    assert seen.alike == []


def test_of_a_set_in_a_set_the_largest_that_lies_apart_is_one_of_copies():
    # Two copies and a worse third one, which is nearer to them than anything else is; and a fourth that is not.
    generator = np.random.default_rng(0)
    base, *noise = generator.normal(0, 1, (30, 16, 16))

    def at(distance: float, other: np.ndarray) -> np.ndarray:
        return base + np.sqrt(2 * distance) * other

    small = [base, at(0.0005, noise[0]), at(0.004, noise[1]), at(0.02, noise[2]), *noise[3:]]
    small = np.stack([np.rint(128 + 25 * each).clip(0, 255).astype(np.uint8) for each in small])
    pairs = np.array([[0, 1], [1, 2], [0, 2]])
    assert sorted(copies.apart(pairs, small).tolist()) == [[0, 0], [0, 1], [0, 2]]
    crowded = np.concatenate([small, np.stack([np.rint(128 + 25 * at(0.006, noise[4])).clip(0, 255)]).astype(np.uint8)])
    assert sorted(copies.apart(pairs, crowded).tolist()) == [[0, 0], [0, 1]]


def test_hashes_that_differ_in_seven_bits_meet(monkeypatch):
    # Whatever the bits are: pairs that share a byte are candidates, and seven bits cannot spoil eight bytes.
    generator = np.random.default_rng(0)
    left = generator.integers(0, 2**63, 200).astype(np.uint64)
    right = left.copy()
    for row in range(200):
        for bit in generator.choice(64, 7, replace=False):
            right[row] ^= np.uint64(1) << np.uint64(bit)
    monkeypatch.setattr(copies, "_PAIRS", 64)
    met = {pair for pairs in copies._candidates(left, right) for pair in zip(*pairs, strict=True)}
    assert {(row, row) for row in range(200)} <= met


def test_groups_join_what_is_copied_and_what_the_source_says():
    entries = [Entry(f"{n}.png", 0, None, group, 1, 1) for n, group in enumerate([None, "p1", None, "p1", "p2", None])]
    near = np.array([0, 1, 1, 3, 4, 0])
    seen = copies.Copies(np.arange(6), near, [])
    assert copies.groups(seen, entries) == ["0.png", "p1", "p1", "p1", "p2", "0.png"]
    assert copies.groups(copies.Copies(np.arange(6), np.arange(6), []), entries) == [None, "p1", None, "p1", "p2", None]


def stored(folder: Path, tmp_path: Path, fold: int | None = None, **rules) -> tuple[Store, Split, list[dict]]:
    dataset = {"source": "folder", "path": str(folder), "store_size": 48, "image_size": 48} | rules
    programs.run("decode", {"name": "set", "dataset": dataset}, "--output", tmp_path / "store")
    store = Store.open(tmp_path / "store")
    path = tmp_path / "split.parquet"
    programs.run("split", {"dataset": dataset, "fold": fold}, "--dataset", store.directory, "--output", path)
    return store, Split.open(path, store), read_table(store.directory / "index.parquet", "index").to_pylist()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_copies_stay_in_one_part_and_are_reported(tmp_path):
    files = {}
    for label, kind in enumerate("ab"):
        for number in range(20):
            image = photograph(100 * label + number)
            files[f"{kind}/{number:02d}.png"] = encoded(image, "PNG")
            if number < 8:
                files[f"{kind}/{number:02d} copy.png"] = encoded(image, "PNG")
            elif number < 12:
                files[f"{kind}/{number:02d} small.jpg"] = CHANGES["mirrored"](image)
    files["b/wrong.png"] = files["a/00.png"]
    for fold, rules in ((None, {}), (1, {"folds": 3})):
        store, split, index = stored(write(tmp_path / "images", files), tmp_path / f"{fold}", fold, **rules)
        parts = {}
        for row in index:
            parts.setdefault(row["group"] or row["file"], set()).add(split.parts[row["image"]])
        assert all(len(of_group) == 1 for of_group in parts.values())
        assert sum(row["group"] is not None for row in index) == 2 * 2 * 12 + 1
    said = store.manifest["copies"]
    assert (said["same"]["count"], said["near"]["count"], said["labels"]["count"]) == (17, 8, 1)
    assert said["labels"]["examples"] == [["a/00 copy.png (a)", "a/00.png (a)", "b/wrong.png (b)"]]
    lines = overview.of_store(store.directory)
    assert any(line.startswith("17 repeat another image, pixel by pixel; copies stay in one part: ") for line in lines)
    assert any(line.startswith("8 nearly repeat another image") for line in lines)
    assert any(line.startswith("1 pictures are there under two labels: a/00 copy.png (a) = ") for line in lines)


def test_an_official_split_is_left_alone_and_its_overlaps_are_named(tmp_path):
    files = {
        f"{part}/{kind}/{number}.png": encoded(
            photograph(1000 * (part == "test") + 100 * (kind == "b") + number), "PNG"
        )
        for part in ("train", "test")
        for kind in "ab"
        for number in range(8)
    }
    files["test/a/copy.png"] = files["train/a/3.png"]
    store, split, index = stored(write(tmp_path / "images", files), tmp_path)
    assert all(split.parts[row["image"]] == "test" for row in index if row["official"] == "test")
    across = store.manifest["copies"]["across"]
    assert across == {"count": 1, "examples": [["test/a/copy.png", "train/a/3.png"]]}
    assert any("lie in two parts of the official split" in line for line in overview.of_store(store.directory))


@pytest.mark.skipif(not CASES.exists(), reason=f"{CASES} is not here")
def test_the_cases_of_copies(cases, tmp_path):  # noqa: F811
    store, split, index = stored(cases / "copies", tmp_path / "copies")
    assert any(line.startswith("20 repeat another image, pixel") for line in overview.of_store(store.directory))
    where = {row["file"]: split.parts[row["image"]] for row in index}
    assert all(where[f"cat/im_{n:03d}.jpg"] == where[f"cat/im_{n:03d} (copy).jpg"] for n in range(10))
    store, *_ = stored(cases / "two_labels", tmp_path / "two")
    assert any(line.startswith("5 pictures are there under two") for line in overview.of_store(store.directory))
    for rules in ({}, {"group": r"[^/]+/scene\d+"}):
        store, split, index = stored(cases / "scenes", tmp_path / f"scenes{len(rules)}", **rules)
        assert any(line.startswith("100 nearly repeat another") for line in overview.of_store(store.directory))
        parts = {}
        for row in index:
            parts.setdefault(row["file"].rpartition("_shot")[0], set()).add(split.parts[row["image"]])
        assert len(parts) == 20
        assert all(len(of_scene) == 1 for of_scene in parts.values())
