"""Screening: which networks of a grid are worth training in full, by successive halving.

Every candidate is trained for a fourth of the epochs with one seed, the better ones for half of them, and only what is
left in full, with all seeds [Jamieson & Talwalkar 2016; Li et al., *Hyperband*, 2018]. The rule, for each data set and
backbone, on validation images only:

* Of the candidates of a ratio and scope the better half stays, rounded up: by validation accuracy, among equals those
  with fewer multiply-accumulates, in the order of :mod:`winnow.answers.preference`. Scopes are apart since at one ratio
  they leave networks of different sizes, and the verdict weighs size.
* After the last rung, of several ratios whose best drop, against the equally short unpruned network, is more than
  :data:`HOPELESS` tolerances (of at least :data:`LEAST_TOLERANCE` points) the smallest stays, to show that it fails;
  the larger ones go.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.answers import preference
from winnow.files import InputError, read_json
from winnow.training import protocols
from winnow.workflow import grid
from winnow.workflow.grid import UNPRUNED, Cell

# Each rung's protocol, the shortest first; after the last one the survivors are trained in full.
RUNGS = ("short_4", "short_2")
# Drops of more tolerances than this are given up on; tolerances below so many points count as that.
HOPELESS, LEAST_TOLERANCE = 5.0, 2.0
TOO_MUCH = "its ratio loses too much, and so does a smaller one"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a rung made of a candidate.

    Attributes
    ----------
    cell : Cell
        The candidate, as it would be trained in full with the first seed.
    rung : str
        The last one that it was trained on.
    val_accuracy, drop : float or None
        On that rung; the drop is against the equally short unpruned network. None where a training diverged.
    reason : str or None
        Why it goes; None if it stays.
    """

    cell: Cell
    rung: str
    val_accuracy: float | None
    drop: float | None
    reason: str | None


def candidates(experiment: Mapping[str, Any]) -> list[Cell]:
    """The pruned networks that an experiment chooses from, each with its first seed; controls are none."""
    choosable = [name for name in experiment["criteria"] if not grid.is_control(name)]
    cells = grid.cells({**experiment, "criteria": choosable, "seeds": [min(experiment["seeds"])]})
    return [cell for cell in cells if cell.criterion != UNPRUNED]


def shortened(cell: Cell, rung: str) -> Cell:
    """The cell as a rung trains it."""
    return grid.canonical(
        dataclasses.replace(cell, protocol=protocols.repaired(protocols.repairs(cell.protocol), rung))
    )


def rung_cells(cells: Iterable[Cell], rung: str) -> list[Cell]:
    """What a rung trains: the candidates that are left and their unpruned baselines, which come first."""
    short = [shortened(cell, rung) for cell in cells]
    return list(dict.fromkeys([cell.baseline for cell in short] + short))


def in_full(experiment: Mapping[str, Any], survivors: Iterable[Cell]) -> list[Cell]:
    """The cells of a screened experiment: those of the survivors, with all seeds, and the unpruned ones."""
    kept, first = set(survivors), min(experiment["seeds"])
    return [
        cell
        for cell in grid.cells(experiment)
        if cell.criterion == UNPRUNED or dataclasses.replace(cell, seed=first) in kept
    ]


def epochs_of(metrics: Mapping[str, Any]) -> int:
    """For how many epochs a ``one_shot`` or ``short_N`` network was meant to be trained."""
    spec = metrics["spec"]
    return protocols.budget(spec["cell"]["protocol"], spec["recipe"]["epochs"], 1, 1)


def judge(
    cells: Sequence[Cell], metrics: Mapping[Cell, Mapping[str, Any]], rung: str, tolerance: float
) -> list[Outcome]:
    """What a rung makes of the candidates that are left: the rule of this module.

    Parameters
    ----------
    cells
        The candidates that are left, as of :func:`candidates`.
    metrics
        Those of :func:`rung_cells`, of which ``val_accuracy`` and ``macs`` are looked at.
    rung
        One of :data:`RUNGS`.
    tolerance
        How many points of accuracy a smaller network may cost.
    """
    outcomes = []
    for place in dict.fromkeys((cell.dataset, cell.backbone) for cell in cells):
        there = [cell for cell in cells if (cell.dataset, cell.backbone) == place]
        short = {cell: shortened(cell, rung) for cell in there}
        found = {cell: metrics[short[cell]] for cell in there}
        accuracy = {cell: found[cell]["val_accuracy"] for cell in there}
        reference = {cell: metrics[short[cell].baseline]["val_accuracy"] for cell in there}
        drops = {
            cell: reference[cell] - accuracy[cell]
            for cell in there
            if reference[cell] is not None and accuracy[cell] is not None
        }
        staying = _better_half(there, accuracy, {cell: found[cell]["macs"] for cell in there})
        given_up = _hopeless_ratios(there, drops, tolerance) if rung == RUNGS[-1] else set()
        for cell in there:
            reason = None
            if cell.ratio in given_up:
                reason = TOO_MUCH
            elif cell not in staying:
                reason = f"not in the better half of its ratio and scope with {protocols.share(rung)} of the epochs"
            outcomes.append(Outcome(cell, rung, accuracy[cell], drops.get(cell), reason))
    return outcomes


def survivors(outcomes: Iterable[Outcome]) -> list[Cell]:
    """The candidates that stay."""
    return [outcome.cell for outcome in outcomes if outcome.reason is None]


def record(
    experiment: Mapping[str, Any],
    rung: str,
    metrics: Mapping[Cell, Mapping[str, Any]],
    tolerance: float,
    previous: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a rung's file says.

    Parameters
    ----------
    experiment
        The grid's axes.
    rung, metrics, tolerance
        As in :func:`judge`.
    previous
        What the previous rung's file says; None for the first.

    Returns
    -------
    dict
        ``survivors``: paths of the candidates that stay, as cells of the first seed. ``candidates``: a record each of
        all of them, those that went before too. ``epochs``: of all rungs' trainings up to here (``screening``), of the
        survivors' in full (``in_full``) and of the whole grid's (``whole_grid``), controls included.
    """
    outcomes = judge(left(experiment, previous), metrics, rung, tolerance)
    gone = [row for row in previous["candidates"] if row["reason"]] if previous else []
    epochs = {(cell.dataset, cell.backbone): found["spec"]["recipe"]["epochs"] for cell, found in metrics.items()}

    def total(cells: Iterable[Cell]) -> int:
        return sum(epochs[cell.dataset, cell.backbone] for cell in cells)

    stay = survivors(outcomes)
    return {
        "rung": rung,
        "tolerance": tolerance,
        "survivors": [cell.path for cell in stay],
        "candidates": gone
        + [
            {
                name: value
                for name, value in dataclasses.asdict(outcome.cell).items()
                if name not in ("seed", "protocol")
            }
            | {name: getattr(outcome, name) for name in ("rung", "val_accuracy", "drop", "reason")}
            for outcome in outcomes
        ],
        "epochs": {
            "screening": sum(map(epochs_of, metrics.values())) + (previous["epochs"]["screening"] if previous else 0),
            "in_full": total(in_full(experiment, stay)),
            "whole_grid": total(grid.cells(experiment)),
        },
    }


def left(experiment: Mapping[str, Any], previous: Mapping[str, Any] | None) -> list[Cell]:
    """The candidates that a rung trains, by the previous rung's :func:`record`, or all."""
    return candidates(experiment) if previous is None else [grid.parse_path(path) for path in previous["survivors"]]


def read(path: Path) -> dict[str, Any]:
    """Read a rung's file.

    Raises
    ------
    InputError
        If it is missing, damaged, or does not say what one says; the message names it.
    """
    found = read_json(path)
    try:
        for name in found["survivors"]:
            grid.parse_path(name)
        if {"screening", "in_full", "whole_grid"} - set(found["epochs"]) or not found["candidates"]:
            raise KeyError("epochs, candidates")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a screening ({error}): delete it and run again to make it anew") from None
    return found


def experiment_cells(experiment: Mapping[str, Any], path: Path | None) -> list[Cell]:
    """An experiment's cells: all of its grid, or, where it is screened, those that the last rung's file leaves.

    Raises
    ------
    InputError
        If it is screened and there is no file, or as :func:`read`.
    """
    if not experiment.get("screening"):
        return grid.cells(experiment)
    if path is None:
        raise InputError("the experiment is screened: --screening FILE has to say what is left of it")
    return in_full(experiment, left(experiment, read(path)))


def add_argument(parser: argparse.ArgumentParser) -> None:
    """The option by which programs are given the last rung's file."""
    parser.add_argument(
        "--screening",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="what the last rung of its screening made, if it has one",
    )


def sentence(found: Mapping[str, Any]) -> str:
    """What a rung's file says, as a sentence."""
    epochs = found["epochs"]
    share = (epochs["screening"] + epochs["in_full"]) / epochs["whole_grid"]
    return (
        f"Screened: of {len(found['candidates'])} networks, short trainings chose the {len(found['survivors'])} that "
        f"were trained in full: {100 * share:.0f} % of the whole grid's epochs."
    )


NOTE = (
    "Screening: networks were dropped by their validation accuracy after a fourth and after half of the epochs, with "
    "one seed; one that only catches up later may be among them. Controls were left out. The test images had no part "
    "in it."
)


def _better_half(cells: Sequence[Cell], accuracy: Mapping[Cell, float | None], macs: Mapping[Cell, int]) -> set[Cell]:
    """The better half of each ratio and scope."""

    def rank(cell: Cell) -> tuple:
        value = accuracy[cell]
        return preference.rank(None if value is None else -value, (macs[cell],), cell.path)

    ranked: dict[tuple[float, str], list[Cell]] = {}
    for cell in sorted(cells, key=rank):
        ranked.setdefault((cell.ratio, cell.scope), []).append(cell)
    return {cell for rivals in ranked.values() for cell in rivals[: math.ceil(len(rivals) / 2)]}


def _hopeless_ratios(cells: Iterable[Cell], drops: Mapping[Cell, float], tolerance: float) -> set[float]:
    """The ratios that lose too much, save the smallest such one. Where all diverged nothing is known: it is not one."""
    best: dict[float, float] = {}
    for cell in cells:
        if cell in drops:
            best[cell.ratio] = min(drops[cell], best.get(cell.ratio, math.inf))
    limit = HOPELESS * max(tolerance, LEAST_TOLERANCE)
    lost = sorted(ratio for ratio, drop in best.items() if not preference.within(drop, limit))
    return set(lost[1:])
