"""From a folder of photographs to an answer and a file: what `make run` does, on 300 photographs of flowers.

    python benchmarks/front_door.py --images DIR --weights FILE [--draw 0] [--cores 2]

DIR is Flowers-102 as {train,val,test}/{class}/image.jpg, FILE SqueezeNet 1.1's ImageNet weights. Ten of the flowers are
drawn, two to a class, and 60 images of each class; ``--draw`` says which. SqueezeNet sees 128 pixels, in float32. With
``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`` before the command a processor computes as one without AVX-512.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from demo import snakemake

CLASSES, IMAGES = 5, 60


def draw(source: Path, folder: Path, seed: int) -> None:
    """Photographs of five classes, each of two kinds of flowers, without parts."""
    generator = np.random.default_rng(seed)
    kinds = sorted(path.name for path in (source / "train").iterdir())
    chosen = generator.choice(kinds, (CLASSES, 2), replace=False).tolist()
    for number, pair in enumerate(chosen):
        files = sorted(path for kind in pair for path in source.glob(f"*/{kind}/*.jpg"))
        place = folder / f"kind_{number}"
        place.mkdir(parents=True)
        for file in generator.choice(len(files), IMAGES, replace=False):
            shutil.copyfile(files[file], place / f"{files[file].parent.name}_{files[file].name}")


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(arguments.images, folder / "photos", arguments.draw)
        checkout = folder / "checkout"
        checkout.mkdir()
        start = time.perf_counter()
        # What configure.py writes is laid over config.yaml; the weights are a file's in place of torchvision's.
        root = Path(__file__).resolve().parents[1]
        command = [sys.executable, root / "scripts/configure.py", folder / "photos", "--backbone", "squeezenet1_1"]
        subprocess.run([*command, "--size", "128", "--folder", folder / "own"], check=True)
        own = folder / "own/photos.yaml"
        text = own.read_text(encoding="utf-8")
        for old, new in (
            ("weights: IMAGENET1K_V1", f"weights_file: {json.dumps(str(arguments.weights.resolve()))}"),
            ("    weight_decay:", "    precision: fp32\n    weight_decay:"),
        ):
            if old not in text:
                sys.exit(f"{own} has no {old!r}")
            text = text.replace(old, new)
        own.write_text(text, encoding="utf-8")
        targets = ("photos", "results/experiments/photos/models", "--configfile", str(own))
        snakemake(checkout, arguments.cores, "on", *targets)
        print(f"from the folder to the file: {time.perf_counter() - start:.0f} s")
        found = json.loads((checkout / "results/experiments/photos/recommendation.json").read_text(encoding="utf-8"))
        print("\n".join(found["lines"]))


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--images", type=Path, required=True, metavar="DIR")
    result.add_argument("--weights", type=Path, required=True, metavar="FILE")
    result.add_argument("--draw", type=int, default=0)
    result.add_argument("--cores", type=int, default=2)
    return result


if __name__ == "__main__":
    main(parser().parse_args())
