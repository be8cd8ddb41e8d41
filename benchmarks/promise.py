"""The answer from 300 photographs, held against what is true of all others: of each draw, the networks that judged.

    python benchmarks/front_door.py --images elpv --weights FILE --draw 0 --keep DIR/0 --set 'models: keep'
    python benchmarks/promise.py --images elpv DIR/0 DIR/1 ...

Each DIR is one that `benchmarks/front_door.py` left, of the same images, with its networks kept. The chosen network of
each seed, and the unpruned one of the same seed, see every photograph of those classes that was not drawn: the
difference, averaged over seeds, is what the answer's interval is about.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from front_door import drawn_name, kinds_of

from winnow.exports import prediction
from winnow.workflow import grid


def others(source: str, folder: Path) -> list[tuple[Path, str]]:
    """The photographs of the drawn kinds that were not drawn, with their class."""
    drawn = {path.name: path.parent.name for path in folder.glob("photos/*/*")}
    kind_of = {path: kind for kind, paths in kinds_of(source).items() for path in paths}
    files = {path: drawn_name(path) for path in kind_of}
    classes = {kind_of[path]: drawn[name] for path, name in files.items() if name in drawn}
    return [
        (path, classes[kind_of[path]]) for path, name in files.items() if name not in drawn and kind_of[path] in classes
    ]


def right(model: Path, photographs: list[tuple[Path, str]], threads: int) -> np.ndarray:
    """(n,) bool, whether a kept network recognises each photograph."""
    opened = prediction.load(model)
    answers = prediction.predict(opened, photographs, lambda item: item[0].read_bytes(), threads)
    return np.array([opened.classes[int(np.argmax(answer))] == item[1] for item, answer in answers])


def main(arguments: argparse.Namespace) -> None:
    for folder in arguments.folders:
        results = folder / "checkout/results"
        found = json.loads((results / "experiments/photos/recommendation.json").read_text(encoding="utf-8"))
        answer = found["answer"][0]
        chosen = answer["chosen"]
        cell = grid.parse_path(chosen["cell"])
        network, unpruned = ((results / "models" / each.path).parent for each in (cell, cell.baseline))
        photographs = others(arguments.images, folder)
        kept = [{path.parent.name for path in place.glob("*/model.safetensors")} for place in (network, unpruned)]
        seeds = sorted(set.intersection(*kept))
        if not seeds:
            raise SystemExit(f"error: {folder} has no networks: run it with --set 'models: keep'")
        drops, pruned = [], []
        for seed in seeds:
            one, other = (right(place / seed, photographs, arguments.threads) for place in (unpruned, network))
            pruned.append(other.mean())
            drops.append(one.mean() - other.mean())
        low, high = 100 * chosen["low"], 100 * chosen["high"]
        drop = 100 * float(np.mean(drops))
        print(
            f"{folder.name}: {answer['verdict']}, ratio {chosen['ratio']}, drop {100 * chosen['drop']:.1f} "
            f"({low:.1f} to {high:.1f}); of {len(photographs)} others {drop:.1f} with {len(drops)} trainings "
            f"({', '.join(f'{100 * each:.1f}' for each in drops)}), {100 * float(np.mean(pruned)):.1f} % right: "
            f"{'within' if low <= drop <= high else 'OUTSIDE'}"
        )


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    result.add_argument("--images", required=True, metavar="DIR")
    result.add_argument("--threads", type=int, default=2)
    return result


if __name__ == "__main__":
    main(parser().parse_args())
