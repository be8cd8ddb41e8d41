"""How a grid grows: a step at a time, until its question is answered.

With ``seeds: auto`` an experiment first trains every network once, with one seed, and compares them on validation
images. The *finalists*, of each size the best and others that :func:`choose` names, are then judged on the test images
by trainings with fresh seeds, as many as :mod:`winnow.answers.procedure` wants. A step reads what the one before it
asked for and says what is trained next, all of it side by side; the last one is ``done``.

With ``screening`` the first comparisons are of short trainings, by successive halving [Jamieson & Talwalkar 2016; Li et
al., *Hyperband*, 2018]: every network that may be chosen is trained for a fourth of the epochs; of those of a ratio and
scope the better half, rounded up, for half of them; and these are what the finalists are chosen from. Better is what
validation accuracy says, of equals what :mod:`winnow.answers.preference` does. Scopes are apart since at one ratio they
leave networks of different sizes.

A grid with a list of seeds does not grow: its first third of them, rounded up, chooses, the others judge. A single seed
does both.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from winnow.answers import preference
from winnow.files import InputError, read_json
from winnow.importance.scopes import BUDGETS
from winnow.training import protocols
from winnow.training.protocols import ONE_SHOT
from winnow.workflow import grid
from winnow.workflow.grid import AUTO, UNPRUNED, Beside, Cell

# Each rung's protocol, the shortest first.
RUNGS = ("short_4", "short_2")
# Networks are of one size where none of them is more than so many times as large as the smallest.
SIZE_STEP = 1.2
# The claim that the method is known for is of this ratio.
CLAIM_RATIO = 0.4


class Finalist(TypedDict):
    """A finalist in a step's file: a cell of its network, what it lost on validation images and what it takes, whether
    that is within the tolerance; and, once it is judged, by how many trainings, how many are wanted, and the verdict.
    """

    cell: str
    drop: float | None
    size: float
    allowed: bool
    seeds: NotRequired[int]
    wanted: NotRequired[int]
    verdict: NotRequired[str]


class Place(preference.Place):
    """A data set and backbone in a step's file: see :class:`Choice`. ``budget``: whether there is one."""

    finalists: list[Finalist]
    proposal: int | None
    rival: int | None
    budget: bool


class Compared(preference.Named):
    """A candidate in a step's file: its network, by what it was compared, and why it goes; None where it does not."""

    trained: str
    val_accuracy: float | None
    drop: float | None
    reason: str | None


class Judging(TypedDict):
    """What is asked for to judge.

    ``asked`` is what the next step reads, by path; ``cells``: the experiment's, up to here and the next step's.
    """

    done: bool
    asked: list[str]
    cells: list[str]
    places: list[Place]


class Step(Judging):
    """A step's file. ``rung``: what its next one reads trainings of; ``compared``: how many trainings have chosen."""

    rung: str | None
    compared: int
    candidates: list[Compared]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What the trainings that choose made of a network.

    Attributes
    ----------
    cell : Cell
        The network, as it is trained in full with the first seed.
    trained : str
        The protocol that it was compared by: its own, or a rung.
    val_accuracy, drop : float or None
        Means over the seeds that choose; the drop is against the unpruned network, trained as long. None where no
        training finished on both sides.
    sizes : tuple of float
        By the measure that is asked for, and multiply-accumulates; infinite where none finished.
    diverged : bool
        Whether any of these trainings did.
    backbone : str or None
        Whose unpruned network it is held against; None for its own.
    limit : float
        It is smaller than this, the unpruned network's size; or else no candidate. Infinite where it is pruned.
    """

    cell: Cell
    trained: str
    val_accuracy: float | None
    drop: float | None
    sizes: tuple[float, float]
    diverged: bool
    backbone: str | None = None
    limit: float = math.inf

    @property
    def place(self) -> tuple[str, str]:
        """Data set and backbone."""
        return self.cell.dataset, self.backbone or self.cell.backbone

    @property
    def rank(self) -> preference.Rank:
        """What candidates are sorted by, the preferred one first."""
        return preference.rank(self.drop, self.sizes, self.cell.path, self.diverged)


def grows(experiment: Mapping[str, Any]) -> bool:
    """Whether which cells an experiment has depends on what cells come to."""
    return experiment["seeds"] == AUTO


def choosing_seeds(experiment: Mapping[str, Any]) -> tuple[int, ...]:
    """The seeds that choose."""
    seeds = grid.seeds(experiment)
    return seeds[: math.ceil(len(seeds) / 3)]


def judging_seeds(experiment: Mapping[str, Any]) -> tuple[int, ...]:
    """The seeds that judge in a grid that does not grow: those that did not choose; a single one does both."""
    seeds = grid.seeds(experiment)
    return seeds[math.ceil(len(seeds) / 3) :] or seeds


def networks(experiment: Mapping[str, Any]) -> list[Cell]:
    """The networks that an experiment chooses from, pruned ones and unpruned ones of its controls, each with the first
    seed that chooses; criteria that are controls are none."""
    first = choosing_seeds(experiment)[0]
    pruned = [
        cell
        for cell in grid.cells({**experiment, "seeds": [first]})
        if cell.criterion != UNPRUNED and not grid.is_control(cell.criterion)
    ]
    return pruned + grid.controls(experiment, first)


def shortened(cell: Cell, rung: str) -> Cell:
    """The cell as a rung trains it."""
    short = protocols.repaired(protocols.repairs(cell.protocol), rung)
    return grid.canonical(dataclasses.replace(cell, protocol=short))


def rung_cells(cells: Iterable[Cell], rung: str, beside: Beside = grid.own) -> list[Cell]:
    """What a rung trains: the networks that are left and the unpruned ones, which come first."""
    short = [shortened(cell, rung) for cell in cells]
    return list(dict.fromkeys([cell.baseline_of(name) for cell in short for name in beside(cell)] + short))


def first_rung(experiment: Mapping[str, Any]) -> str | None:
    """What the first step reads trainings of: a rung, or None for full ones."""
    return RUNGS[0] if experiment.get("screening") else None


def asked(experiment: Mapping[str, Any], previous: Step | None) -> list[Cell]:
    """The cells that a step reads: those that the one before it asked for; the first one's follow from the grid.

    Without screening that is all of it, controls too: they choose nothing, but the summary has them.
    """
    if previous is not None:
        return _cells(previous["asked"])
    rung = first_rung(experiment)
    return rung_cells(networks(experiment), rung, grid.beside(experiment)) if rung else grid.cells(experiment)


def better_half(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The better half, rounded up, of each ratio and scope of a data set and backbone; a control stays."""

    def rank(candidate: Candidate) -> preference.Rank:
        loss = None if candidate.val_accuracy is None else -candidate.val_accuracy
        return preference.rank(loss, candidate.sizes, candidate.cell.path)

    ranked: dict[tuple[Any, ...], list[Candidate]] = {}
    for candidate in sorted(candidates, key=rank):
        cell = candidate.cell
        ranked.setdefault((*_rivals(cell), candidate.place), []).append(candidate)
    staying = {each.cell for rivals in ranked.values() for each in rivals[: math.ceil(len(rivals) / 2)]}
    return [candidate for candidate in candidates if candidate.cell in staying]


def _rivals(cell: Cell) -> tuple[str, str, float, str]:
    """What networks have alike of which a rung keeps half."""
    return cell.dataset, cell.backbone, cell.ratio, cell.scope


@dataclasses.dataclass(frozen=True)
class Choice:
    """What validation chooses among the networks of one data set and backbone.

    Attributes
    ----------
    finalists : tuple of Candidate
        Those that may be judged, the largest first.
    proposal : int
        Which of them is tested first.
    rival : int or None
        Within a budget: which is the next best.
    """

    finalists: tuple[Candidate, ...]
    proposal: int
    rival: int | None = None


def choose(
    candidates: Iterable[Candidate], tolerance: float, limit: float | None = None, claim: bool = False
) -> Choice | None:
    """The finalists and which of them is proposed.

    Of each size (:data:`SIZE_STEP`) the best is a finalist. Of those whose drop is within the tolerance the second
    smallest is proposed: one training judged on few images flatters some of them, the smallest most likely, and that
    one's turn comes when the other one holds. Where one alone is within, it is proposed; where none is, the one that
    loses least. Where networks of one size differ by their ratio alone it is chance that prefers one: those of them
    that are smaller than the proposal and within the tolerance are finalists too, whose turn comes when it holds.

    With a limit, those that take no more are compared, whatever their size: the best is proposed, and the next best is
    its rival. A control that is not smaller than the unpruned network is left out.

    Parameters
    ----------
    candidates
        Of one data set and backbone. Those of which nothing is known are left out.
    tolerance
        How many points of accuracy a smaller network may cost.
    limit
        What a network may take, by the measure asked for.
    claim
        Whether the best with inherited weights, pruned at once at ratio :data:`CLAIM_RATIO`, is a finalist too.

    Returns
    -------
    Choice or None
        None where there is nothing to choose from.
    """
    known = [each for each in candidates if each.drop is not None and each.sizes[0] < each.limit]
    ranked = sorted(known, key=lambda each: each.rank)
    if limit is not None:
        best = [each for each in ranked if each.sizes[0] <= limit][:2]
        if not best:
            return None
        listed = _by_size(best)
        return Choice(listed, listed.index(best[0]), listed.index(best[1]) if best[1:] else None)
    if not ranked:
        return None
    steps = of_one_size(ranked, SIZE_STEP)
    best = [min(step, key=lambda each: each.rank) for step in steps]
    within = [each for each in best if allowed(each, tolerance)]
    proposed = within[:2][-1] if within else min(best, key=lambda each: each.rank)
    best += [
        other
        for first, step in zip(list(best), steps, strict=True)
        for other in _finer(first, step)
        if other.sizes[0] < proposed.sizes[0] and allowed(other, tolerance)
    ]
    if claim:
        plain = (CLAIM_RATIO, "inherited", ONE_SHOT)
        named = [
            each
            for each in ranked
            if (each.cell.ratio, each.cell.init, each.cell.protocol) == plain and each.cell.scope not in BUDGETS
        ]
        best += [each for each in named[:1] if each not in best]
    listed = _by_size(best)
    return Choice(listed, listed.index(proposed))


def of_one_size(candidates: Iterable[Candidate], step: float) -> list[list[Candidate]]:
    """Candidates, the smallest first, apart where one is more than ``step`` times as large as the first beside it."""
    found: list[list[Candidate]] = []
    for each in sorted(candidates, key=lambda each: each.sizes[0]):
        if found and each.sizes[0] <= step * found[-1][0].sizes[0]:
            found[-1].append(each)
        else:
            found.append([each])
    return found


def _finer(first: Candidate, others: Iterable[Candidate]) -> list[Candidate]:
    """Those that differ from the first by their ratio alone; of networks that take the same the preferred one."""
    found = {first.sizes[0]: first}
    for each in sorted(others, key=lambda each: each.rank):
        if dataclasses.replace(each.cell, ratio=first.cell.ratio) == first.cell:
            found.setdefault(each.sizes[0], each)
    return list(found.values())[1:]


def allowed(candidate: Candidate, tolerance: float) -> bool:
    """Whether validation allows it: it loses no more than so many points there, and no training of it diverged."""
    return not candidate.diverged and candidate.drop is not None and preference.within(candidate.drop, tolerance)


def _by_size(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The largest first; of one size the preferred one, which is therefore tested before the other."""
    return tuple(sorted(candidates, key=lambda each: (-each.sizes[0], each.rank)))


def places(
    candidates: Sequence[Candidate], tolerance: float, limit: float | None, claim: bool = False
) -> tuple[list[Place], list[Compared]]:
    """What a step's file says of each data set and backbone, and of each candidate, with why it is no finalist.

    The arguments are those of :func:`choose`. Where there is nothing to choose from there are no finalists.
    """
    found: list[Place] = []
    rows: list[Compared] = []
    for dataset, backbone in dict.fromkeys(each.place for each in candidates):
        there = [each for each in candidates if each.place == (dataset, backbone)]
        choice = choose(there, tolerance, limit, claim)
        finalists = choice.finalists if choice else ()
        rows += [row(each, None if each in finalists else _reason(each, limit)) for each in there]
        found.append(
            {
                "dataset": dataset,
                "backbone": backbone,
                "finalists": [_finalist(each, tolerance) for each in finalists],
                "proposal": choice.proposal if choice else None,
                "rival": choice.rival if choice else None,
                "budget": limit is not None,
            }
        )
    return found, rows


def _finalist(candidate: Candidate, tolerance: float) -> Finalist:
    return {
        "cell": candidate.cell.path,
        "drop": candidate.drop,
        "size": candidate.sizes[0],
        "allowed": allowed(candidate, tolerance),
    }


def _reason(candidate: Candidate, limit: float | None) -> str:
    """Why a candidate is no finalist."""
    if candidate.drop is None:
        return "a training diverged"
    if candidate.sizes[0] >= candidate.limit:
        return "not smaller than the unpruned network"
    if limit is None:
        return "another one of its size is preferred"
    return "others within the budget are preferred" if candidate.sizes[0] <= limit else "more than the budget"


def row(candidate: Candidate, reason: str | None) -> Compared:
    """What a step's file says of a candidate; ``reason``: why it goes."""
    cell, (_, backbone) = candidate.cell, candidate.place
    return {
        "dataset": cell.dataset,
        "backbone": backbone,
        "control": None if backbone == cell.backbone else cell.backbone,
        "criterion": cell.criterion,
        "scope": cell.scope,
        "ratio": cell.ratio,
        "round_to": cell.round_to,
        "init": cell.init,
        "protocol": cell.protocol,
        "trained": candidate.trained,
        "val_accuracy": candidate.val_accuracy,
        "drop": candidate.drop,
        "reason": reason,
    }


def fresh(cell: Cell, wanted: int) -> list[Cell]:
    """A network's trainings that judge it, so many: with the seeds after the one that chose."""
    return [dataclasses.replace(cell, seed=cell.seed + number) for number in range(1, wanted + 1)]


def judging(experiment: Mapping[str, Any], cells: Iterable[Cell]) -> list[Cell]:
    """Those of an experiment's cells that judge."""
    if grows(experiment):
        (first,) = choosing_seeds(experiment)
        return [cell for cell in cells if cell.seed != first and not protocols.is_short(cell.protocol)]
    seeds = judging_seeds(experiment)
    return [cell for cell in cells if cell.seed in seeds]


def choosers(experiment: Mapping[str, Any], cells: Iterable[Cell]) -> set[Cell]:
    """Those of a growing experiment's cells that chose: no mean is taken over them and the ones that judge."""
    return set(cells) - set(judging(experiment, cells)) if grows(experiment) else set()


def read(path: Path) -> Step:
    """Read a step's file.

    Raises
    ------
    InputError
        If it is missing, damaged, or does not say what one says; the message names it.
    """
    found: Step = read_json(path)
    try:
        for name in (*found["asked"], *found["cells"], *(each["cell"] for each in finalists_of(found))):
            grid.parse_path(name)
        if bool(found["asked"]) == found["done"] or found["rung"] not in (None, *RUNGS):
            raise KeyError("done, asked, rung")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no step of a grid ({error}): delete it and run again to make it anew") from None
    return found


def finalists_of(record: Step) -> list[Finalist]:
    """The finalists of all places of a step's file."""
    return [each for place in record["places"] for each in place["finalists"]]


def experiment_cells(experiment: Mapping[str, Any], path: Path | None) -> list[Cell]:
    """An experiment's cells: all of its grid, or, where it grows, those that its last step's file names.

    Raises
    ------
    InputError
        If it grows and there is no such file, or as :func:`read`.
    """
    if not grows(experiment):
        return grid.cells(experiment)
    if path is None:
        raise InputError(f"the experiment has seeds: {AUTO}: --growth FILE has to say which cells came of it")
    return in_full(read(path))


def in_full(record: Step) -> list[Cell]:
    """The cells that a step's file names: those that are trained in full, the unpruned ones first."""
    return _cells(record["cells"])


def _cells(paths: Iterable[str]) -> list[Cell]:
    return [grid.parse_path(path) for path in paths]


def add_argument(parser: argparse.ArgumentParser) -> None:
    """The option by which programs are given the last step's file."""
    parser.add_argument(
        "--growth",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="what the last step of a grid with seeds: auto made",
    )


def most(experiment: Mapping[str, Any], last: Callable[[str], int]) -> tuple[int, int]:
    """How many trainings choose in a grid that grows, and how many judge at most.

    By layer the networks of a ratio are of one size, whatever the criterion; elsewhere each may be a finalist.

    Parameters
    ----------
    last
        Data set → after how many trainings a network is looked at last.
    """
    compared = len(asked(experiment, None))
    if experiment.get("screening"):
        left = networks(experiment)
        rivals = collections.Counter(map(_rivals, left))
        halves = sum(math.ceil(count / 2) for count in rivals.values())
        of = grid.beside(experiment)
        compared += halves + len({cell.baseline_of(name) for cell in left for name in of(cell)} - set(left))
    return compared, sum(last(cell.dataset) for cell in may_be_judged(experiment))


def may_be_judged(experiment: Mapping[str, Any]) -> list[Cell]:
    """The networks of a grid that grows of which the most are judged that may be: the unpruned one, and one a size."""
    sizes: dict[tuple[Any, ...], Cell] = {}
    for cell in networks(experiment):
        size = (cell.ratio, cell.scope, None if cell.scope == "layer" else (cell.criterion, cell.init, cell.protocol))
        for backbone in grid.beside(experiment)(cell):
            if cell != cell.baseline_of(backbone):
                sizes.setdefault((cell.dataset, backbone, cell.backbone, *size), cell)
    unpruned = {(dataset, backbone): cell.baseline_of(backbone) for (dataset, backbone, *_), cell in sizes.items()}
    return [*unpruned.values(), *sizes.values()]


def sentence(record: Step) -> str:
    """What the last step's file says, as a sentence."""
    short = any(protocols.is_short(row["trained"]) for row in record["candidates"])
    judged = len(record["cells"]) - (0 if short else record["compared"])
    return (
        f"{len(record['candidates'])} networks were compared on validation images, by {record['compared']} "
        f"{'short ' if short else ''}trainings; {judged} more judged the best of them and the unpruned network."
    )


NOTE = (
    "Networks were dropped by their validation accuracy after a fourth and after half of the epochs, with one seed; "
    "one that only catches up later may be among them. Controls were left out. The test images had no part in it."
)
