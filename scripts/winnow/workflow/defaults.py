"""Sensible settings for somebody's own images: the grid to run, and a recipe that fits the size of the data set."""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.data import folders
from winnow.files import InputError
from winnow.networks import zoo
from winnow.networks.architectures import NAMES as ARCHITECTURES
from winnow.training.rates import AUTO
from winnow.workflow.certainty import smallest_drop
from winnow.workflow.config import NAME, RESERVED_TARGETS, Config

SPLIT = {"val": 0.2, "test": 0.2}
FOLDS = 5
# One test part decides where drops of so much of the tolerance can be told from none: a network that loses nothing is
# then all but sure to be found to hold (docs/verdict.md, the rows of 750 images).
DECIDES = 0.56
# How many times the images of the smallest class the largest one may have before it is drawn less often.
UNEVEN = 3
IMAGE_SIZE = 224
# A training of so many images in all, within these bounds, is what networks of this size take to settle; and where
# there are few, of so many at least, within another.
IMAGES_TO_SEE, EPOCHS = 60_000, (10, 15)
LEAST_IMAGES_TO_SEE, MOST_EPOCHS = 3_000, 40
BATCH_SIZES = (8, 16, 32, 64)


@dataclasses.dataclass(frozen=True)
class Images:
    """What a folder looks like before it is decoded.

    Attributes
    ----------
    train, test : int
        How many images train and judge, about; without folds.
    least, most : int
        Images of the smallest and of the largest class.
    official : bool
        Whether the folder brings parts of its own.
    tree : Tree
        All of it.
    """

    classes: int
    total: int
    train: int
    test: int
    least: int
    most: int
    official: bool
    tree: folders.Tree


def survey(folder: Path, rules: folders.Rules = folders.Rules()) -> Images:  # noqa: B008 - frozen
    """Understand a folder as its store will, and count its images, of which nothing but the headers is read.

    Raises
    ------
    InputError
        If it cannot be understood, or there is one class only.
    """
    tree = folders.read(folder, rules)
    counts = tree.counts()
    parts = {part: sum(of_classes) for part, of_classes in counts.items()}
    total, official = len(tree.pictures), None not in parts
    if official:
        test = parts.get("test") or round(parts["train"] * SPLIT["test"])
        train = parts["train"] - (0 if "test" in parts else test)
    else:
        train, test = (round(total * share) for share in (1 - sum(SPLIT.values()), SPLIT["test"]))
    sizes = [sum(of_class) for of_class in zip(*counts.values(), strict=True)]
    return Images(len(tree.classes), total, train, test, min(sizes), max(sizes), official, tree)


def folds(found: Images, tolerance: float) -> int | None:
    """How many folds a folder is given: none where its test part decides, or where a class has too few for a test each.

    Parameters
    ----------
    tolerance
        How many points of accuracy a smaller network may cost.
    """
    if found.official or found.least < FOLDS or smallest_drop(max(found.test, 1))[1] <= DECIDES * tolerance:
        return None
    return FOLDS


def recipe(images: int) -> dict[str, Any]:
    """How to fine-tune on so many training images.

    Parameters
    ----------
    images
        Number of training images.

    Returns
    -------
    dict
        ``epochs``: about :data:`IMAGES_TO_SEE` images in all, within :data:`EPOCHS`, or, if that is more,
        :data:`LEAST_IMAGES_TO_SEE` within :data:`MOST_EPOCHS`. ``batch_size``: the largest that leaves eight steps or
        more an epoch. ``learning_rate``: left to a search. ``warmup_epochs``.
    """
    epochs = min(max(round(IMAGES_TO_SEE / images), EPOCHS[0]), EPOCHS[1])
    epochs = max(epochs, min(round(LEAST_IMAGES_TO_SEE / images), MOST_EPOCHS))
    batch_size = max((size for size in BATCH_SIZES if size * 8 <= images), default=BATCH_SIZES[0])
    return {"epochs": epochs, "batch_size": batch_size, "learning_rate": AUTO, "warmup_epochs": 1}


def name_of(folder: Path) -> str:
    """A folder's name as a name of the configuration: ASCII letters, digits, hyphens and underscores."""
    plain = unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_-")
    return words if words[:1].isalpha() else f"images_{words}".rstrip("_")


# Units that a budget is said in, and of which measure they are: "5 ms", "0.5 MB", "100 kparams", "30 MMACs".
_UNITS = {"B": "bytes", "params": "params", "MACs": "macs"}
_PREFIXES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}


def budget(text: str) -> dict[str, float]:
    """What a network may take, as an experiment's ``budget`` has it: "0.5 MB" → ``{"bytes": 500000}``.

    Raises
    ------
    InputError
        If it is no amount above 0 of what networks are measured by.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(?:(ms)|([kMG]?)(B|params|MACs))\s*", text)
    amount = float(found[1]) if found else 0.0
    if not found or not amount:
        raise InputError(
            f"the budget {text!r} is none; allowed: a number and its unit, ms, B, params or MACs with k, M or G before "
            "it, such as 5 ms, 0.5 MB, 100 kparams, 30 MMACs"
        )
    measure, amount = ("latency_ms", amount) if found[2] else (_UNITS[found[4]], amount * _PREFIXES[found[3]])
    return {measure: int(amount) if amount.is_integer() else amount}


def configuration(
    folder: Path,
    name: str,
    backbone: str,
    known: Config,
    image_size: int | None = None,
    limits: Mapping[str, float] | None = None,
    rules: Mapping[str, Any] | None = None,
    found: Images | None = None,
) -> str:
    """The configuration of a grid on a folder of images, as YAML with a remark beside every choice.

    Parameters
    ----------
    folder
        ``class/image`` or ``train/class/image``, …
    name
        Of the new data set, recipe and experiment.
    backbone
        One of the configuration's, or an architecture, torchvision's or ``timm/`` and timm's, which is then taken with
        its ImageNet weights.
    known
        The configuration that this one is laid over.
    image_size
        Side of what the network sees, in pixels; None for what the backbone was made for.
    limits
        The experiment's budget, as of :func:`budget`; None for none.
    rules
        Further keys of the data set: how the folder is to be read.
    found
        What a survey by these rules has found; None to have one.

    Raises
    ------
    InputError
        If the name is taken, or the backbone or the folder is of no use; the message says what is allowed.
    """
    if not re.fullmatch(NAME, name):
        raise InputError(
            f"the name {name!r} is none for a data set: a letter, then letters, digits, hyphens, underscores"
        )
    if name in {*known.datasets, *known.recipes, *known.experiments, *RESERVED_TARGETS}:
        raise InputError(f"the name {name!r} is taken in config.yaml; give another with --name")
    architecture = backbone
    if zoo.is_name(architecture):
        zoo.check(architecture)
        backbone = entry_of(architecture)
    elif backbone not in known.backbones and backbone not in ARCHITECTURES:
        allowed = ", ".join(sorted({*known.backbones, *ARCHITECTURES}))
        raise InputError(f"unknown backbone {backbone!r}; allowed: {allowed}, or timm/ and one of timm's names")
    found = found or survey(folder, folders.Rules.of(rules or {}))
    entry = known.backbones.get(backbone)
    small = entry.pretrain if entry else None
    timms = entry.timm if entry else zoo.configuration(architecture) if zoo.is_name(architecture) else None
    usual = known.datasets[small.dataset].image_size if small else timms.side if timms else IMAGE_SIZE
    size = image_size or usual
    # As ImageNet's 256 to its 224, or as timm says: room for the random crops.
    store_size = size if small else round(size / (timms.crop if timms else 7 / 8))
    training = recipe(found.train)
    count = folds(found, known.tolerance)
    split = "" if found.official else f"\n    split: {_flow(SPLIT)} # shares of each class; the rest is for training"
    if count:
        alone, together = smallest_drop(max(found.test, 1)), smallest_drop(found.total, count)
        split = f"""
    # Every image judges: seed 0 trains on all but the first fifth, which tests it, seed 1 on all but the second, ...
    # {found.test} test images alone tell no drop below {alone[0]:.1f} points from none, all {found.total} none below \
{together[0]:.1f} to {together[1]:.1f}; the tolerance is {known.tolerance:g}.
    folds: {count}
    split: {_flow({"val": SPLIT["val"]})} # share of each class that chooses; the rest is for training"""
    # A backbone of one channel takes gray images.
    reading = ({"channels": 1} if entry and len(entry.mean) == 1 else {}) | dict(rules or {})
    read = "".join(f"\n    {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in reading.items())
    weights = f"{zoo.tags(architecture)[0]} # timm's own choice" if timms and not entry else "IMAGENET1K_V1"
    head = "its own" if timms else "torchvision's; or gap: global average pooling and one linear layer"
    new_backbone = (
        ""
        if entry
        else f"""
backbones:
  {backbone}:
    architecture: {architecture}
    weights: {weights}
    head: classifier # {head}
"""
    )
    sampling = ""
    if found.most > UNEVEN * found.least:
        sampling = f"""
    # The largest class has {found.most} images, the smallest {found.least}: an epoch has as many of each.
    sampling: balanced"""
    asked = f"\n    budget: {_flow(limits)} # at most; then the most accurate within is asked for" if limits else ""
    scale = [0.8, 1.0] if small else [0.35, 1.0]
    return f"""\
# {found.total} images of {found.classes} classes, about {found.train} of them to train on. Laid over config.yaml:
# change what you like, run the same command again, and just what depends on it is computed anew.

datasets:
  {name}:
    source: folder
    path: {json.dumps(str(folder.resolve()), ensure_ascii=False)}
    store_size: {store_size} # side of the stored squares, pixels
    image_size: {size} # side of what the network sees{split}{read}
    recipe: {name}
{new_backbone}
recipes:
  {name}: # for about {found.train} training images
    epochs: {training["epochs"]} # {EPOCHS[0]} to {EPOCHS[1]}, up to {MOST_EPOCHS} where there are few images
    batch_size: {training["batch_size"]}
    learning_rate: {training["learning_rate"]} # short trainings of the network of each size find it; or a number
    weight_decay: 0.0005
    warmup_epochs: {training["warmup_epochs"]}
    clip_norm: 5.0 # the longest gradient of a step: without, single trainings of few images fall to chance{sampling}
    augmentation: {_flow({"scale": scale, "flip": not small})} # flip: false where left and right differ, as in text

experiments:
  {name}:
    datasets: [{name}]
    backbones: [{backbone}]
    criteria: [taylor] # what removing a filter would change of the loss; or average_weight, mean_activation, apoz, ...
    # Ranks all layers' filters together, by scores over their layer's norm; or global: as they are; layer: each layer
    # loses as many; budget_macs: as much of the multiply-accumulates, where it is missed least.
    scopes: [global_normalized]
    ratios: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8] # share of the filters to remove
    repairs: [compensated_recalibrated_fitted] # what a cut broke is mended before any training; [none]: as it is
    seeds: auto # one chooses, as many as it takes judge the best; or a list: all networks with all of them
    screening: true # short trainings choose; false: full ones
    latency: true # how fast each network is on this machine
    models: drop # the one that is worth keeping is trained once more and exported{asked}

tolerance: {known.tolerance:g} # how many points of accuracy a smaller network may cost
"""


def entry_of(backbone: str) -> str:
    """The name of the entry that a backbone has in a configuration: timm's have none with a slash."""
    return backbone.replace("/", "_") if zoo.is_name(backbone) else backbone


def _flow(values: Mapping[str, Any]) -> str:
    """A mapping as YAML on one line."""
    return "{" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items()) + "}"
