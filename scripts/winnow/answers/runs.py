"""Two folders of results side by side: which verdicts and cells differ between them, and why.

Why is what the results say themselves: each carries the spec that its job was given. A cell's own is held against the
other's, and the specs of what it was made from, from the images to its mask. Where all of them are the same and numbers
are not, what is left are the libraries' versions, the machine, and what the images and the weights are.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.answers import verdict
from winnow.files import InputError, read_json
from winnow.importance.criteria import CRITERIA
from winnow.training import protocols
from winnow.workflow import grid, provenance
from winnow.workflow.grid import Cell

# What of a cell's metrics is its result, and not how long it took or where.
NUMBERS = (
    *("status", "accuracy", "class_accuracy", "per_class", "val_accuracy", "test_loss", "epoch", "learning_rate"),
    *("params", "macs", "bytes", "achieved_ratio"),
)
# Where and with what a cell was trained, and on what: numbers may follow from it.
SURROUNDINGS = ("versions", "device", "precision", "threads", "micro_batch")
CONTENTS = {"datasets": ("images_sha256", "index_sha256"), "backbones": ("weights_sha256",)}
# What recommendations of earlier versions do not say of a network.
LATER = {"control": None, "round_to": None, "init": "inherited", "protocol": protocols.ONE_SHOT}
MISSING = "missing"
# Digests say that something is another, not what.
DIGESTS = ("code", "digest", "listing", "sha256")
# So many cells are named on the terminal.
NAMED_CELLS = 5


@dataclasses.dataclass(frozen=True)
class Change:
    """A key that two results differ in.

    Attributes
    ----------
    stage : str
        Whose spec has the key: a folder below ``results/``, such as ``cells`` or ``backbones``.
    key : str
        With dots where it is nested: ``recipe.learning_rate``.
    before, after : str
        As JSON; :data:`MISSING` where it is not there.
    """

    stage: str
    key: str
    before: str
    after: str

    def __str__(self) -> str:
        values = "is another" if self.key.endswith(DIGESTS) else f"{self.before} → {self.after}"
        return f"{self.stage}: {self.key} {values}"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A cell that both folders have.

    Attributes
    ----------
    cell : str
        Its path.
    specs : tuple of Change
        In its own spec, and in those of what it was made from.
    numbers, surroundings : tuple of Change
        In :data:`NUMBERS`; in :data:`SURROUNDINGS` and :data:`CONTENTS`.
    accuracies : tuple of float or None
        Before and after, of the test images; None where a training diverged.
    """

    cell: str
    specs: tuple[Change, ...]
    numbers: tuple[Change, ...]
    surroundings: tuple[Change, ...]
    accuracies: tuple[float | None, float | None]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """An answer that differs, or that one folder has alone: network and verdict, before and after; None: no answer.

    ``question`` is ``verdicts`` (the headline of a data set and backbone), ``ladder`` (a network) or ``claims``.
    """

    experiment: str
    question: str
    place: str
    before: tuple[str, str] | None
    after: tuple[str, str] | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What differs between two folders of results.

    Attributes
    ----------
    verdicts : list of Verdict
    questions : dict of str to tuple of Change
        Experiment → what else is asked: keys of its recommendation's spec.
    alone : tuple of list of str
        Experiments that one folder has alone, before and after.
    only : tuple of list of str
        Cells likewise, by their paths.
    pairs : list of Pair
        Of all cells that both have, those that differ in spec or number.
    alike : int
        How many do not.
    """

    verdicts: list[Verdict]
    questions: dict[str, tuple[Change, ...]]
    alone: tuple[list[str], list[str]]
    only: tuple[list[str], list[str]]
    pairs: list[Pair]
    alike: int

    @property
    def explained(self) -> dict[tuple[str, ...], list[Pair]]:
        """Cells by what differs in specs, most cells first, and of these those first that have other numbers."""
        return _grouped((pair.specs, pair) for pair in self.pairs if pair.specs)

    @property
    def unexplained(self) -> dict[tuple[str, ...], list[Pair]]:
        """Cells of one spec and other numbers, by what differs in where they were trained, and on what."""
        return _grouped((pair.surroundings, pair) for pair in self.pairs if not pair.specs)


class Run:
    """One folder of results.

    Raises
    ------
    InputError
        If it has no cells.
    """

    def __init__(self, results: Path):
        self.results = results
        folder = results / "cells"
        files = sorted(folder.rglob("metrics.json"))
        if not files:
            raise InputError(f"{results} has no results: there is no cells/**/metrics.json in it")
        # Path → the cell's metrics.
        self.cells = {file.parent.relative_to(folder).as_posix(): file for file in files}
        # Masks and backbones are those of many cells.
        self.spec = functools.cache(self._spec)
        self.contents = functools.cache(self._contents)

    def _spec(self, file: str) -> dict[str, Any] | None:
        """The spec of a result, by its path below the folder; None where it is not there, or carries none."""
        text = provenance.spec_of(str(self.results / file))
        return None if text is None else json.loads(text)

    def _contents(self, file: str) -> dict[str, Any]:
        """The digests in a manifest, by its path below the folder; none where it is not there."""
        path = self.results / file
        manifest = read_json(path) if path.exists() else {}
        return {name: manifest[name] for name in CONTENTS[file.partition("/")[0]] if name in manifest}

    def recommendations(self) -> dict[str, Mapping[str, Any]]:
        """Experiment → its recommendation."""
        return {file.parent.name: read_json(file) for file in self.results.glob("experiments/*/recommendation.json")}


def compare(before: Run, after: Run) -> Comparison:
    """Hold two folders of results against each other."""
    pairs = [_pair(path, before, after) for path in sorted(before.cells.keys() & after.cells.keys())]
    different = [pair for pair in pairs if pair.specs or pair.numbers]
    answers = before.recommendations(), after.recommendations()
    both = sorted(answers[0].keys() & answers[1].keys())
    verdicts = [change for name in both for change in _verdicts(name, answers[0][name], answers[1][name])]
    asked = {name: (answers[0][name].get("spec", {}), answers[1][name].get("spec", {})) for name in both}
    questions = {name: changes(*pair, "experiments") for name, pair in asked.items()}
    return Comparison(
        verdicts,
        {name: found for name, found in questions.items() if found},
        (sorted(answers[0].keys() - answers[1].keys()), sorted(answers[1].keys() - answers[0].keys())),
        (sorted(before.cells.keys() - after.cells.keys()), sorted(after.cells.keys() - before.cells.keys())),
        different,
        len(pairs) - len(different),
    )


def changes(before: Mapping[str, Any], after: Mapping[str, Any], stage: str) -> tuple[Change, ...]:
    """The keys that two specs, or other nested dicts, differ in."""
    sides = provenance.keys(before), provenance.keys(after)
    pairs = {key: tuple(side.get(key, MISSING) for side in sides) for key in sorted(sides[0].keys() | sides[1].keys())}
    return tuple(Change(stage, key, *map(_text, pair)) for key, pair in pairs.items() if pair[0] != pair[1])


def made_from(cell: Cell, split: str, epochs: int) -> list[str]:
    """The results that a cell was made from, below the folder of results; not all of them need be there.

    Parameters
    ----------
    cell
    split
        Its name: ``only``, or the number of a fold.
    epochs
        Of its recipe: they name the trunk of a cell that prunes what it has trained.
    """
    fold = int(split) if split.isdigit() else None
    # How many folds there are is not known here, and any number will do by which this one judges the cell.
    folds = {} if fold is None else {cell.dataset: cell.seed - fold or cell.seed + 1}
    images = cell.images(folds)
    found = [f"datasets/{cell.dataset}/manifest.json", f"splits/{cell.dataset}/{split}.parquet"]
    found += [f"backbones/{cell.backbone}/{name}.json" for name in ("pretrained", "manifest")]
    if protocols.repairs(cell.protocol):
        found.append(f"statistics/{images}/{cell.backbone}/moments.json")
    if cell.masked:
        name, source = grid.parse_source(cell.criterion)
        needs = CRITERIA[name].needs
        if needs in ("activations", "gradients"):
            places = (source, grid.images(source, 0)) if source else (images,)
            found += [f"statistics/{place}/{cell.backbone}/{needs}.json" for place in places]
        found += [f"scores/{cell.scores_path(folds)}", f"masks/{cell.mask_path(folds)}"]
    trunk = grid.trunk(cell, epochs, folds)
    return [*found, f"rates/{cell.rate_path}"] + ([f"trunks/{trunk.path}/trunk.json"] if trunk else [])


def lines(comparison: Comparison) -> list[str]:
    """A comparison as the terminal shows it."""
    sides = "before", "after"
    said = []
    for name, found in comparison.questions.items():
        said += [f"{name}, what is asked:", *(f"  {str(change).removeprefix('experiments: ')}" for change in found)]
    for each in comparison.verdicts:
        said.append(f"{each.experiment}, {_QUESTIONS[each.question]}{each.place}: {_answer(each)}")
    if not comparison.verdicts:
        said.append("No verdict changed.")
    for side, names, cells in zip(sides, comparison.alone, comparison.only, strict=True):
        said += [f"{name}: only {side}" for name in names]
        if cells:
            said += ["", f"{_count(cells)} only {side}:", *_named(cells)]
    for texts, pairs in comparison.explained.items():
        said += ["", *texts, *_listed(pairs)]
    for texts, pairs in comparison.unexplained.items():
        what = "; ".join(text.removeprefix("cells: ") for text in texts) or "nothing says why"
        said += ["", f"The same specs and other numbers: {what}", *_listed(pairs)]
    return [*said, "", f"{comparison.alike} cells are the same." if comparison.alike else "No cell is the same."]


def _pair(path: str, before: Run, after: Run) -> Pair:
    cell, metrics = grid.parse_path(path), (read_json(before.cells[path]), read_json(after.cells[path]))
    own = metrics[0].get("spec", {}), metrics[1].get("spec", {})
    split, epochs = metrics[1].get("split", "only"), own[1].get("recipe", {}).get("epochs", 1)
    specs = list(changes(*own, "cells"))
    for file in made_from(cell, split, epochs):
        old, new = before.spec(file), after.spec(file)
        if old is not None and new is not None:
            specs += changes(old, new, file.partition("/")[0])
    numbers, surroundings = (
        changes({name: metrics[0].get(name) for name in names}, {name: metrics[1].get(name) for name in names}, "cells")
        for names in (NUMBERS, SURROUNDINGS)
    )
    contents = [
        change
        for file in (f"datasets/{cell.dataset}/manifest.json", f"backbones/{cell.backbone}/manifest.json")
        for change in changes(before.contents(file), after.contents(file), file.partition("/")[0])
    ]
    accuracies = metrics[0].get("accuracy"), metrics[1].get("accuracy")
    return Pair(path, tuple(dict.fromkeys(specs)), numbers, (*surroundings, *contents), accuracies)


def _verdicts(experiment: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Verdict]:
    for question in ("verdicts", "ladder", "claims"):
        found = _answers(question, before), _answers(question, after)
        for place in dict.fromkeys([*found[0], *found[1]]):
            pair = found[0].get(place), found[1].get(place)
            if pair[0] != pair[1]:
                yield Verdict(experiment, question, place, *pair)


def _answers(question: str, recommendation: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What is answered, place by place: a place is a data set and backbone and, on the ladder, a network."""
    found: dict[str, tuple[str, str]] = {}
    for row in recommendation.get(question, []):
        network = verdict.describe(LATER | row)
        place = f"{row['dataset']}, {row['backbone']}" + (f", {network}" if question == "ladder" else "")
        found.setdefault(place, (network, row["verdict"]))
    return found


def _grouped(pairs: Iterable[tuple[tuple[Change, ...], Pair]]) -> dict[tuple[str, ...], list[Pair]]:
    found: dict[tuple[str, ...], list[Pair]] = collections.defaultdict(list)
    for key, pair in pairs:
        found[tuple(dict.fromkeys(map(str, key)))].append(pair)
    listed = sorted(found.items(), key=lambda item: -len(item[1]))
    return {key: sorted(group, key=lambda pair: not pair.numbers) for key, group in listed}


def _text(value: Any) -> str:
    return value if value == MISSING else json.dumps(value, ensure_ascii=False, sort_keys=True)


_QUESTIONS = {"verdicts": "", "ladder": "on the ladder, ", "claims": "the claim for "}


def _answer(change: Verdict) -> str:
    # On the ladder the place names the network.
    texts = [
        each and each[1].upper() + (f", {each[0]}" if change.question != "ladder" else "")
        for each in (change.before, change.after)
    ]
    return f"{texts[0] or 'no answer'} → {texts[1] or 'no answer'}"


def _listed(pairs: Sequence[Pair]) -> list[str]:
    changed = sum(bool(pair.numbers) for pair in pairs)
    counted = f"{_count(pairs)}, {changed or 'none'} of them with other numbers:"
    return [counted if pairs[0].specs else f"{_count(pairs)}:", *_named([_line(pair) for pair in pairs])]


def _line(pair: Pair) -> str:
    if not pair.numbers:
        return f"{pair.cell}  the same numbers"
    before, after = ("diverged" if each is None else f"{each:.4f}" for each in pair.accuracies)
    if before != after:
        return f"{pair.cell}  accuracy {before} → {after}"
    return f"{pair.cell}  " + ", ".join(dict.fromkeys(change.key.partition(".")[0] for change in pair.numbers))


def _named(texts: Sequence[str]) -> list[str]:
    more = len(texts) - NAMED_CELLS
    return [f"  {text}" for text in texts[:NAMED_CELLS]] + [f"  and {more} more"] * (more > 0)


def _count(cells: Sequence[Any]) -> str:
    return f"{len(cells)} cell{'s' * (len(cells) > 1)}"
