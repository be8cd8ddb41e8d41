"""Which of a data set's images train, which choose and which judge: one split, or folds, of which each judges with
other images.

A split is a file of its own beside the store. Images of a group (copies, a scene, a patient) stay together.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow import tables
from winnow.data.store import Store
from winnow.files import InputError, read_json

PARTS = ("train", "val", "test")
DEFAULT = {"val": 0.15, "test": 0.15}


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a store.

    Attributes
    ----------
    path : Path
    parts : (N,) str
        Of each image of the store; empty for one that is left out.
    """

    path: Path
    parts: np.ndarray

    @classmethod
    def open(cls, path: Path, store: Store) -> Split:
        """Read a split of a store.

        Raises
        ------
        InputError
            If the file is missing or broken, or is of another store.
        """
        table = tables.read_table(path, "split")
        if tables.read_provenance(path).get("index_sha256") != store.manifest["index_sha256"]:
            raise InputError(f"{path} is no split of {store.directory}: delete it and run again to make it anew")
        parts = np.full(store.labels.size, "", dtype="<U5")
        parts[table["image"].to_numpy()] = table["split"].to_numpy(zero_copy_only=False)
        return cls(path, parts)

    def rows(self, part: str) -> np.ndarray:
        """Rows of a part's images, in the store's order."""
        return np.flatnonzero(self.parts == part)

    @property
    def counts(self) -> dict[str, int]:
        """How many images each part has."""
        return {part: int(np.count_nonzero(self.parts == part)) for part in PARTS}


def write(path: Path, parts: Sequence[str | None], manifest: Mapping[str, Any], spec: dict[str, Any]) -> dict[str, int]:
    """Write a split of the store that has this manifest, and count its parts; None stands for what is left out."""
    rows = [row for row, part in enumerate(parts) if part is not None]
    named = [parts[row] for row in rows]
    counts = {part: named.count(part) for part in PARTS}
    provenance = {"spec": spec, "counts": counts, "index_sha256": manifest["index_sha256"]}
    tables.write_table(path, {"image": rows, "split": named}, "split", provenance)
    return counts


@dataclasses.dataclass(frozen=True)
class Images:
    """What is known of a data set's N images before any is looked at.

    Attributes
    ----------
    classes : list of str
    labels : (N,) int
        Positions in ``classes``.
    official : list of str or None
        Each image's part as its source has it; None where that has none.
    groups : list of str or None
        What stays together; None for an image that belongs to no other.
    strata : list of str or None
        Kinds of images within a class, of which every part gets its share.
    """

    classes: Sequence[str]
    labels: np.ndarray
    official: Sequence[str | None]
    groups: Sequence[str | None]
    strata: Sequence[str | None] = ()

    @classmethod
    def of_store(cls, directory: Path) -> Images:
        """Those of a store, of which its manifest and its index are read."""
        manifest = read_json(directory / "manifest.json")
        index = tables.read_table(directory / "index.parquet", "index")
        known = (index[name].to_pylist() for name in ("official", "group", "stratum"))
        return cls(manifest["classes"], index["label"].to_numpy(), *known)

    def order(self, label: int, seed: int) -> np.ndarray:
        """The rows of a class in a seeded order, in which each stratum comes as often as every other one for its size:
        wherever the order is cut, a stratum's images lie before and after in its share, within one."""
        rows = np.random.default_rng((seed, label)).permutation(np.flatnonzero(self.labels == label))
        strata = np.array([self.strata[row] or "" for row in rows] if len(self.strata) else [""] * rows.size)
        place = np.empty(rows.size)
        for stratum in np.unique(strata):
            own = strata == stratum
            place[own] = (np.arange(np.count_nonzero(own)) + 0.5) / np.count_nonzero(own)
        return rows[np.argsort(place, kind="stable")]


def assign(dataset: Mapping[str, Any], images: Images, fold: int | None = None) -> list[str | None]:
    """The part of every image, None for one that is left out.

    Official splits stay as they are; where one lacks its test or validation, that is cut from its training images;
    with folds, one without a test counts as none. Else each class is put into a seeded order and cut: test, validation,
    training.
    With ``folds: K`` it is cut into K tests, within one image as large as each other, and ``fold`` says which of them
    judges; validation is cut from the rest, first from the fold that follows. ``train_per_class`` takes the first of a
    class's training images in the seeded order, so a smaller subset lies within a larger one. With
    ``train_on: train+val`` the validation images train too.

    Groups are shared out first, the largest before the others, each to the part that it fits best; images of no group
    then make up what is missing. Strata are shared out evenly.

    Parameters
    ----------
    dataset
        Of its configuration ``split``, ``seed``, ``folds``, ``train_per_class``, ``val_per_class`` and ``train_on``.
    images
        Of the store.
    fold
        Below ``folds``; None without folds.

    Raises
    ------
    InputError
        If a class has too few images; the message names the class, its count and the need. Or if there are to be folds
        of images that their source has split.
    """
    seed, classes = dataset.get("seed", 0), images.classes
    orders = [images.order(label, seed) for label in range(len(classes))]
    parts: list[str | None] = list(images.official)
    if fold is not None and "test" in parts:
        raise InputError("folds: these images come with a test part of their own, which judges; remove the key")
    if fold is None and any(part is not None for part in parts):
        for part in ("test", "val"):
            if part not in parts:
                _carve_official(dataset, images, orders, parts, part)
    elif fold is None:
        _carve(dataset, images, orders, parts)
    else:
        _carve_fold(dataset, images, orders, parts, fold)
    for name, rows in zip(classes, orders, strict=True):
        if dataset.get("train_on") == "train+val":
            for row in rows:
                parts[row] = "train" if parts[row] == "val" else parts[row]
        trains = [row for row in rows if parts[row] == "train"]
        wanted = dataset.get("train_per_class")
        if len(trains) < (wanted or 1):
            raise InputError(
                f"class {name!r} has {len(trains)} readable images to train on, {wanted or 1} are needed"
                f"{_of(images, rows)}"
            )
        for row in trains[wanted:] if wanted else ():
            parts[row] = None
        if not any(parts[row] == "test" for row in rows):
            raise InputError(f"class {name!r} has no readable image to test{_of(images, rows)}")
    return parts


def _carve(dataset: Mapping[str, Any], images: Images, orders: list[np.ndarray], parts: list[str | None]) -> None:
    quotas = np.zeros((3, len(orders)), dtype=int)
    for label, (name, rows) in enumerate(zip(images.classes, orders, strict=True)):
        train, val, test = _shares(dataset, rows.size)
        if rows.size < train + val + test:
            raise InputError(
                f"class {name!r} has {rows.size} readable images, {train + val + test} are needed: "
                f"{train} to train on, {val} for validation, {test} to test"
            )
        quotas[:, label] = test, val, rows.size - test - val
    cut = _cut(images, orders, quotas)
    _require_validation(images, orders, quotas[1], cut == 1)
    for row, part in enumerate(cut):
        parts[row] = ("test", "val", "train")[part]


def _carve_official(
    dataset: Mapping[str, Any], images: Images, orders: list[np.ndarray], parts: list[str | None], part: str
) -> None:
    """Of official training images, where there are none for validation, or none to test.

    Those that belong to images of another part stay where they are.
    """
    bound = {images.groups[row] for row, own in enumerate(parts) if own not in (None, "train")} - {None}
    free = [
        np.array([row for row in rows if parts[row] == "train" and images.groups[row] not in bound], dtype=int)
        for rows in orders
    ]
    why = {"val": "for validation, since there is no folder val", "test": "to test, since there is no folder test"}[
        part
    ]
    quotas = np.zeros((2, len(orders)), dtype=int)
    for label, (name, rows) in enumerate(zip(images.classes, free, strict=True)):
        wanted = _share(_fractions(dataset)[part], rows.size)
        if rows.size <= wanted:
            raise InputError(
                f"class {name!r} has {rows.size} readable images in train, {wanted + 1} are needed: {wanted} of them "
                f"{why}"
            )
        quotas[:, label] = wanted, rows.size - wanted
    cut = _cut(images, free, quotas)
    if part == "val":
        _require_validation(images, free, quotas[0], cut == 0)
    for row in np.flatnonzero(cut == 0):
        parts[row] = part


def _carve_fold(
    dataset: Mapping[str, Any], images: Images, orders: list[np.ndarray], parts: list[str | None], fold: int
) -> None:
    folds = dataset["folds"]
    quotas = np.zeros((folds, len(orders)), dtype=int)
    first = 0
    for label, (name, rows) in enumerate(zip(images.classes, orders, strict=True)):
        if rows.size < folds:
            raise InputError(
                f"class {name!r} has {rows.size} readable images, {folds} are needed: one to test in each of {folds} "
                "folds"
            )
        # What is over goes to the folds in turn, class after class: then all of them are of one size.
        quotas[:, label] = np.bincount((first + np.arange(rows.size)) % folds, minlength=folds)
        first += rows.size
    tests = _cut(images, orders, quotas)
    for label, (name, rows) in enumerate(zip(images.classes, orders, strict=True)):
        there = np.bincount(tests[rows], minlength=folds)
        if not there.all():
            raise InputError(
                f"class {name!r} has {rows.size} readable images{_of(images, rows)}, too few for one to test in each "
                f"of {folds} folds"
            )
        # Of all folds, so that the first to be split says what another would.
        train, val, _ = _shares(dataset, rows.size)
        left = rows.size - there.max()
        if left < train + val:
            raise InputError(
                f"class {name!r} has {rows.size} readable images, of which {left} are left where {there.max()} test in "
                f"one of {folds} folds; {train + val} are needed: {train} to train on, {val} for validation"
            )
        quotas[:2, label] = val, rows.size - there[fold] - val

    def rest(rows: np.ndarray) -> np.ndarray:
        away = (tests[rows] - fold - 1) % folds
        return rows[np.argsort(away, kind="stable")][: np.count_nonzero(tests[rows] != fold)]

    others = [rest(rows) for rows in orders]
    cut = _cut(images, others, quotas[:2])
    _require_validation(images, others, quotas[0], cut == 0)
    for row, test in enumerate(tests):
        parts[row] = "test" if test == fold else "val" if cut[row] == 0 else "train"


def _cut(images: Images, orders: Sequence[np.ndarray], quotas: np.ndarray) -> np.ndarray:
    """Share images out among parts.

    Parameters
    ----------
    orders
        Each class's rows, in the order in which they are shared out.
    quotas : (parts, C) int
        How many of a class each part is to have: as many in all as the class has rows.

    Returns
    -------
    (N,) int
        The part of each image; −1 for one that is in no order.
    """
    found = np.full(images.labels.size, -1)
    lacking = quotas.copy()
    members = collections.defaultdict(list)
    for row in np.concatenate(orders):
        if images.groups[row] is not None:
            members[images.groups[row]].append(row)
    for rows in sorted(members.values(), key=len, reverse=True):
        counts = np.bincount(images.labels[rows], minlength=len(orders))
        too_many = np.maximum(counts - np.maximum(lacking, 0), 0).sum(axis=1)
        room = (counts * lacking / np.maximum(quotas, 1)).sum(axis=1)
        part = min(range(len(quotas)), key=lambda part: (too_many[part], -room[part], part))
        found[rows] = part
        lacking[part] -= counts
    for label, order in enumerate(orders):
        alone = [row for row in order if images.groups[row] is None]
        start = 0
        for part, count in enumerate(_even(lacking[:, label], quotas[:, label])):
            found[alone[start : start + count]] = part
            start += count
    return found


def _even(lacking: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """How many further images each part gets: what it lacks or, where groups gave others too much, its share of it."""
    if (lacking >= 0).all():
        return lacking
    given = np.zeros_like(lacking)
    for _ in range(lacking.sum()):
        given[np.argmax((lacking - given) / np.maximum(quotas, 1))] += 1
    return given


def _require_validation(images: Images, orders: Sequence[np.ndarray], wanted: np.ndarray, there: np.ndarray) -> None:
    for label, rows in enumerate(orders):
        if wanted[label] and not there[rows].any():
            name = images.classes[label]
            raise InputError(f"class {name!r} has no readable image for validation{_of(images, rows)}")


def _of(images: Images, rows: np.ndarray) -> str:
    """That a class's images are in groups, where they are."""
    groups = [images.groups[row] for row in rows]
    together = set(groups) - {None}
    count = len(together) + groups.count(None)
    return f" (its {len(groups)} are of {count} groups, which stay together)" if together else ""


def _fractions(dataset: Mapping[str, Any]) -> dict[str, float]:
    return dataset.get("split") or DEFAULT


def _share(fraction: float, images: int) -> int:
    """Number of images of a class in a part: at least one, if there is to be such a part."""
    return max(1, round(fraction * images)) if fraction else 0


def _shares(dataset: Mapping[str, Any], images: int) -> tuple[int, int, int]:
    """Numbers of images of a class: at least to train on, for validation, to test where there are no folds."""
    fractions = _fractions(dataset)
    if not dataset.get("val_per_class"):
        return 1, _share(fractions["val"], images), _share(fractions["test"], images)
    val, train = dataset["val_per_class"], dataset.get("train_per_class")
    if not train:
        return 1, val, _share(fractions["test"], images)
    # The small target task: what is not needed to train or to choose is there to judge.
    return train, val, max(1, images - val - train)
