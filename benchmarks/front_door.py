"""From a folder of photographs to an answer and a file: what `make run` does, on 300 photographs.

    python benchmarks/front_door.py --images DIR --weights FILE [--draw 0] [--set 'criteria: [apoz]' ...]

DIR has {train,val,test}/{class}/image.jpg, as Flowers-102, or Cats vs. Dogs; or it is `elpv`, the solar cells of the
package elpv-dataset. FILE has SqueezeNet 1.1's ImageNet weights. ``--draw`` says which photographs: where there are ten
classes or more, ten of them, two to a class, so that there are five of 60 photographs each; else 300 of all classes
alike. SqueezeNet sees 128 pixels, in float32. ``--set`` and ``--recipe`` put keys of the experiment and the recipe that
`make run` writes in place of their own, to hold other settings against them; ``--keep DIR`` leaves everything there.
With ``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`` before the command a processor computes as one without
AVX-512.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import yaml
from demo import snakemake

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from winnow.data import datasets

CLASSES, PHOTOGRAPHS = 5, 300
ELPV = "elpv"


def kinds_of(source: str) -> dict[str, list[Path]]:
    """All photographs of each kind, in a fixed order."""
    found: dict[str, list[Path]] = {}
    if source == ELPV:
        cells = datasets.SOURCES[ELPV]({}, [])
        for cell in cells.candidates:
            found.setdefault(cells.classes[cell.label], []).append(cell.content)
    else:
        for path in sorted(Path(source).glob("*/*/*.jpg")):
            found.setdefault(path.parent.name, []).append(path)
    return {kind: found[kind] for kind in sorted(found)}


def draw(source: str, folder: Path, seed: int) -> None:
    """Photographs of five classes, each of two kinds, or of as many classes as there are kinds, without parts."""
    generator = np.random.default_rng(seed)
    kinds = kinds_of(source)
    classes = [[kind] for kind in kinds]
    if len(kinds) >= 2 * CLASSES:
        classes = generator.choice(list(kinds), (CLASSES, 2), replace=False).tolist()
    for number, together in enumerate(classes):
        files = sorted(path for kind in together for path in kinds[kind])
        place = folder / f"kind_{number}"
        place.mkdir(parents=True)
        for file in generator.choice(len(files), PHOTOGRAPHS // len(classes), replace=False):
            shutil.copyfile(files[file], place / drawn_name(files[file]))


def drawn_name(path: Path) -> str:
    """What a drawn photograph is called: two kinds of a class may have files of one name."""
    return f"{path.parent.name}_{path.name}"


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.keep or Path(name)
        draw(arguments.images, folder / "photos", arguments.draw)
        checkout = folder / "checkout"
        checkout.mkdir()
        start = time.perf_counter()
        # What configure.py writes is laid over config.yaml; the weights are a file's in place of torchvision's.
        command = [sys.executable, ROOT / "scripts/configure.py", folder / "photos", "--backbone", "squeezenet1_1"]
        # What it foretells is of its own settings.
        other = subprocess.DEVNULL if arguments.set or arguments.recipe else None
        command += ["--size", "128", "--folder", folder / "own"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=other)
        own = folder / "own/photos.yaml"
        config = yaml.safe_load(own.read_text(encoding="utf-8"))
        backbone = config["backbones"]["squeezenet1_1"]
        del backbone["weights"]
        backbone["weights_file"] = str(arguments.weights.resolve())
        config["recipes"]["photos"]["precision"] = "fp32"
        for setting in arguments.set:
            config["experiments"]["photos"] |= yaml.safe_load(setting)
        for setting in arguments.recipe:
            config["recipes"]["photos"] |= yaml.safe_load(setting)
        own.write_text(yaml.safe_dump(config), encoding="utf-8")
        targets = ("photos", "results/experiments/photos/models", "--configfile", str(own))
        snakemake(checkout, arguments.cores, "on", *targets)
        print(f"from the folder to the file: {time.perf_counter() - start:.0f} s")
        results = checkout / "results"
        found = json.loads((results / "experiments/photos/recommendation.json").read_text(encoding="utf-8"))
        print("\n".join(found["lines"]))
        trained = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob("cells/**/metrics.json")]
        shares = Counter("".join(re.findall(r"short_\d+", each["spec"]["cell"]["protocol"])) for each in trained)
        print("trainings:", ", ".join(f"{count} {share or 'in full'}" for share, count in sorted(shares.items())))
        print(f"computed for {sum(each['seconds']['total'] for each in trained):.0f} s in trainings")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--images", required=True, metavar="DIR")
    result.add_argument("--weights", type=Path, required=True, metavar="FILE")
    result.add_argument("--draw", type=int, default=0)
    result.add_argument("--set", action="append", default=[], metavar="KEY: VALUE")
    result.add_argument("--recipe", action="append", default=[], metavar="KEY: VALUE")
    result.add_argument("--keep", type=Path, metavar="DIR")
    result.add_argument("--cores", type=int, default=2)
    return result


if __name__ == "__main__":
    main(parser().parse_args())
