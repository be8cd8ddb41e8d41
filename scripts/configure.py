"""Write the configuration of a grid on your own images: a folder with one folder a class, perhaps below train/, val/
and test/ under any of their common names, or a folder with a table of labels. What was found is said; the recipe is
chosen from the number of images; every choice stands in the file.

A configuration that is there already stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from winnow import cli
from winnow.answers import growth, procedure
from winnow.data import folders, overview
from winnow.files import InputError, atomic_path
from winnow.workflow import config, defaults, grid, promises, wiring

BACKBONE = "vgg16"
# Keys of a data set that say how its images are read.
RULES = ("splits", "ignore", "table", "group", "range", "channels", "megapixels")


def main(arguments: argparse.Namespace) -> None:
    base = Path(__file__).resolve().parents[1] / "config.yaml"
    raw = yaml.safe_load(base.read_text(encoding="utf-8"))
    known = config.load(raw)
    name = arguments.name or defaults.name_of(arguments.data)
    limits = defaults.budget(arguments.budget) if arguments.budget else None
    path = arguments.folder / f"{name}.yaml"
    if path.exists():
        hold_against(path, name, arguments, limits)
        print(f"{path} is used as it is; delete it to have the defaults again", file=sys.stderr)
    else:
        backbone = arguments.backbone or BACKBONE
        size, rules = arguments.size, arguments.rules or {}
        found = defaults.survey(arguments.data, folders.Rules.of(rules))
        text = defaults.configuration(arguments.data, name, backbone, known, size, limits, rules, found)
        print("\n".join(overview.of_tree(found.tree)), file=sys.stderr)
        if found.most > defaults.UNEVEN * found.least:
            print(f"the largest class has {found.most} images: sampling: balanced in the recipe", file=sys.stderr)
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"{path} written", file=sys.stderr)
    print(promised(raw, path, name), file=sys.stderr)
    print(name)


def promised(raw: dict[str, Any], path: Path, name: str) -> str:
    """What the grid can find out and how many trainings that takes, before it begins.

    Raises
    ------
    InputError
        If the configuration, laid over ``raw``, is not one.
    """
    whole = config.load(config.laid_over(raw, path))
    axes, folds = whole.experiments[name].model_dump(), whole.datasets[name].folds
    searched = promises.of_searches(len(wiring.rates_of(whole, growth.asked(axes, None))))
    if growth.grows(axes):
        looks = procedure.looks(folds)
        compared, judged = growth.most(axes, lambda dataset: looks[-1])
        choosing = "short trainings choose" if axes["screening"] else "trainings choose"
        trained = (
            f"{compared} {choosing}, then two networks and the unpruned one are trained {looks[0]} times each, and "
            f"more where that is not enough; {judged} more at most"
        )
    else:
        trained = f"{len(grid.cells(axes))} trainings"
    lines = [promises.of_data_set(whole, name), searched and f"{name}: {searched}", f"{name}: {trained}"]
    return "\n".join(filter(None, lines))


def hold_against(path: Path, name: str, arguments: argparse.Namespace, limits: dict[str, float] | None) -> None:
    """What is asked for has to be what a configuration that is there already says."""
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
        dataset, experiment = written["datasets"][name], written["experiments"][name]
        backbones, budget = experiment["backbones"], experiment.get("budget")
        images, size = Path(dataset["path"]), dataset["image_size"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a configuration of {name!r} ({error}): mend it or delete it") from None
    if images.resolve() != arguments.data.resolve():
        raise InputError(f"{path} is of the images in {images}: give these another name (--name, or NAME= of make)")
    asked = arguments.backbone and defaults.entry_of(arguments.backbone)
    if asked not in (None, *backbones) or arguments.size not in (None, size):
        raise InputError(
            f"{path} says backbones: {backbones} and image_size: {size}: edit it, delete it, or give another name"
            " (--name, or NAME= of make)"
        )
    for key, value in (arguments.rules or {}).items():
        if dataset.get(key) != value:
            raise InputError(
                f"{path} has {key}: {dataset.get(key)}, --rules (RULES= of make) says {value}: edit it, delete it, or "
                "give another name (--name, or NAME= of make)"
            )
    if limits not in (None, budget):
        raise InputError(
            f"{path} says budget: {budget}, and --budget (BUDGET= of make) asks for {limits}: edit it, delete it, or "
            "give another name (--name, or NAME= of make)"
        )


def _mapping(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"not YAML: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"keys and values are needed, got {text!r}")
    for key in found:
        if key not in RULES:
            raise argparse.ArgumentTypeError(f"unknown key {key!r}; allowed: {', '.join(RULES)}")
    return found


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("data", type=Path, metavar="DIR", help="the images")
    result.add_argument(
        "--backbone", metavar="NAME", help=f"of config.yaml, torchvision's, or timm/NAME (default: {BACKBONE})"
    )
    result.add_argument("--name", metavar="NAME", help="of the experiment (default: the folder's)")
    result.add_argument("--size", type=int, metavar="PIXELS", help="side of what the network sees (default: 224)")
    result.add_argument(
        "--budget",
        metavar="AMOUNT",
        help="what the network may take, such as '5 ms', '0.5 MB', '100 kparams', '30 MMACs': the most accurate within "
        "is looked for (default: the smallest that loses no more than the tolerance)",
    )
    result.add_argument(
        "--rules",
        type=_mapping,
        metavar="YAML",
        help="how to read the images, as keys of a data set: 'splits: {train: a, test: b}', 'ignore: [c]', 'table: …'",
    )
    result.add_argument(
        "--folder", type=Path, default=Path("own"), metavar="DIR", help="where the configuration goes (default: own)"
    )
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
