"""How small can the network be? The choice on validation, and what the test images say about it.

The drop of a pruned network is the unpruned network's test accuracy less its own, both fine-tuned with the same recipe
and seed. Its interval speaks of new seeds and new test images at once: both are random, crossed (every network sees
every image), and the differences are paired by both.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from winnow.answers import summary
from winnow.training.protocols import ONE_SHOT
from winnow.workflow.grid import UNPRUNED, Cell, is_control

CONFIDENCE = summary.CONFIDENCE
# The claim that the method is known for: at this ratio, the best criterion loses less than so many points.
CLAIM_RATIO, CLAIM_TOLERANCE = summary.HEADLINE_RATIO, 2.0
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
# What "small" may mean, and how a sentence names it.
MEASURES = {"macs": "MACs", "params": "parameters", "latency_ms": "latency"}


def paired_interval(baseline: np.ndarray, pruned: np.ndarray) -> tuple[float, float, float]:
    """The drop of accuracy and its interval at the level :data:`CONFIDENCE`, over seeds and test images.

    The differences d(s, i) = baseline(s, i) − pruned(s, i) are taken as μ + seed + image + rest, each random. The mean
    squares give the variance of their mean, V = (MS_seed + MS_image − MS_rest) / (S n) [Searle, Casella & McCulloch,
    Variance Components, 1992], Satterthwaite's formula its degrees of freedom, and Student's t the interval. V is at
    least half of what the images alone give. Two made-up images, one lost and one won by pruning, widen the images'
    part, so that networks that agree on every one of a few images are not taken for equal [Agresti & Min, Statistics
    in Medicine 24, 2005].

    Resampling both seeds and images by the bootstrap estimates the same variance, but three seeds resampled are three
    points: its percentiles cover too little where seeds matter and too much where they don't.

    Parameters
    ----------
    baseline, pruned : (S, n) bool
        Whether network s is right on test image i: the unpruned networks, and the pruned ones of the same seeds.

    Returns
    -------
    (drop, low, high)
        As shares of 1. With one seed the interval speaks of images alone.
    """
    differences = np.asarray(baseline, dtype=float) - np.asarray(pruned, dtype=float)
    seeds, images = differences.shape
    drop = differences.mean()
    by_image = differences.mean(axis=0)
    padded = np.append(by_image, [1.0, -1.0])
    image_part = padded.var(ddof=1) / padded.size
    variance, freedom = image_part, float(images - 1)
    if seeds > 1 and images > 1:
        by_seed = differences.mean(axis=1)
        rest = differences - by_seed[:, None] - by_image + drop
        seed_part = by_seed.var(ddof=1) / seeds
        rest_part = (rest**2).sum() / ((seeds - 1) * (images - 1)) / (seeds * images)
        variance = max(seed_part + image_part - rest_part, image_part / 2)
        freedom = variance**2 / (
            seed_part**2 / (seeds - 1) + image_part**2 / (images - 1) + rest_part**2 / ((seeds - 1) * (images - 1))
        )
    half = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, max(freedom, 1.0)) * np.sqrt(variance)
    return float(drop), float(drop - half), float(drop + half)


def verdict(low: float, high: float, tolerance: float) -> str:
    """``holds`` where the whole interval of the drop is within the tolerance, ``fails`` where all of it is above.

    Parameters
    ----------
    low, high
        Bounds of the drop, as shares of 1.
    tolerance
        In points, of which 100 make 1.
    """
    if 100 * high <= tolerance:
        return HOLDS
    return FAILS if 100 * low > tolerance else UNDECIDED


@dataclasses.dataclass(frozen=True)
class Judge:
    """Judges rows of a summary on the test images.

    Attributes
    ----------
    cells : sequence of Cell
        The experiment's.
    correct : callable
        Cell → (n,) bool: whether its network is right on each test image; None where its training failed.
    """

    cells: Sequence[Cell]
    correct: Callable[[Cell], np.ndarray | None]

    def seeds_of(self, row: dict[str, Any]) -> list[Cell]:
        """The cells that a row of the summary stands for."""
        same = ("dataset", "backbone", "criterion", "scope", "ratio", "round_to", "init", "protocol")
        return [cell for cell in self.cells if all(getattr(cell, name) == row[name] for name in same)]

    def __call__(self, row: dict[str, Any], tolerance: float) -> dict[str, Any]:
        """``drop``, ``drop_low``, ``drop_high`` and ``verdict`` of a row, over the seeds that both have finished."""
        pairs = [(self.correct(cell.baseline), self.correct(cell)) for cell in self.seeds_of(row)]
        pairs = [(baseline, pruned) for baseline, pruned in pairs if baseline is not None and pruned is not None]
        if not pairs:
            return {"seeds": 0} | dict.fromkeys(("drop", "drop_low", "drop_high", "verdict"))
        drop, low, high = paired_interval(*(np.array(side) for side in zip(*pairs, strict=True)))
        found = {"drop": drop, "drop_low": low, "drop_high": high, "verdict": verdict(low, high, tolerance)}
        return {"seeds": len(pairs)} | found


def recommend(frame: pd.DataFrame, judge: Judge, tolerance: float) -> dict[str, list]:
    """What an experiment answers, for each of its data sets and backbones.

    Parameters
    ----------
    frame
        The experiment's summary.
    judge
        Knows the test images' outcomes.
    tolerance
        How many points of accuracy a smaller network may cost.

    Returns
    -------
    dict
        ``verdicts``: one row a measure of size, the smallest network whose drop on *validation* is within the
        tolerance (or, where none is, the one that loses least there), judged on the test images. ``ladder``: one row
        a ratio, the network that loses least on validation, judged likewise. ``claims``: the same at ratio
        :data:`CLAIM_RATIO` with the tolerance of the claim. ``chosen``: the row to take home, see
        :func:`to_take_home`. ``lines``: all that in sentences. ``notes``: how it was found. No row where there is no
        validation accuracy to choose with.
    """
    answer: dict[str, list] = {"verdicts": [], "ladder": [], "claims": [], "chosen": [], "lines": []}
    for (dataset, backbone), rows in frame.groupby(["dataset", "backbone"], sort=False):
        records = rows.astype(object).where(rows.notna(), None).to_dict("records")
        unpruned = next(row for row in records if row["criterion"] == UNPRUNED and row["init"] == "inherited")
        subject = f"{summary.title(dataset)}, {backbone}"
        candidates = [row for row in records if row["criterion"] != UNPRUNED and not is_control(row["criterion"])]
        if not candidates:
            answer["lines"].append(f"{subject}: nothing to judge, the grid has no criterion but controls.")
            continue
        candidates = [row for row in candidates if row["val_drop"] is not None]
        if not candidates:
            answer["lines"].append(f"{subject}: no verdict, for want of validation accuracies to choose with.")
            continue

        def judged(row: dict, measure: str, limit: float, unpruned: dict = unpruned) -> dict:
            sizes = {"measure": measure, "size": row[measure], "baseline_size": unpruned[measure]}
            return row | sizes | {"baseline_accuracy": unpruned["accuracy"]} | judge(row, limit)

        chosen = []
        for measure in MEASURES:
            within = [row for row in candidates if row[measure] is not None]
            if not within or unpruned[measure] is None:
                continue
            row = judged(choose(within, measure, tolerance), measure, tolerance)
            chosen.append(row | {"sentence": f"{subject}: {_smallest(row, tolerance)}"})
        ladder = []
        for ratio in sorted({row["ratio"] for row in candidates}):
            best = least_loss([row for row in candidates if row["ratio"] == ratio])
            row = judged(best, "macs", tolerance)
            ladder.append(row | {"sentence": _outcome(row)})
        answer["verdicts"] += chosen
        answer["ladder"] += ladder
        answer["chosen"].append(to_take_home(chosen[0], ladder))
        answer["lines"] += [*_headline(chosen), f"{subject}: {_steps(ladder, tolerance)}"]
        plain = ("inherited", ONE_SHOT)
        at_ratio = [row for row in candidates if row["ratio"] == CLAIM_RATIO]
        claimed = [row for row in at_ratio if (row["init"], row["protocol"]) == plain]
        if claimed:
            row = judged(least_loss(claimed), "macs", CLAIM_TOLERANCE)
            sentence = f"{subject}: {_claim(row)}"
            answer["claims"].append(row | {"sentence": sentence})
            answer["lines"].append(sentence)
    return answer | {"notes": notes(frame, tolerance)}


def choose(rows: Sequence[dict], measure: str, tolerance: float) -> dict:
    """The smallest of those that stay within the tolerance on validation; failing that, the one that loses least."""
    within = [row for row in rows if round(100 * row["val_drop"], 6) <= tolerance]
    return min(within, key=lambda row: (row[measure], row["val_drop"])) if within else least_loss(rows)


def least_loss(rows: Sequence[dict]) -> dict:
    """The one that loses least on validation, and among equals the one with the fewest MACs."""
    return min(rows, key=lambda row: (round(row["val_drop"], 9), row["macs"]))


def describe(row: dict[str, Any]) -> str:
    """A network in words: "apoz, by layer, ratio 0.4"."""
    words = [summary.label(row["criterion"]), summary.SCOPE_NAMES[row["scope"]], f"ratio {row['ratio']:g}"]
    if row["round_to"]:
        words.append(f"rounded to {row['round_to']}")
    return ", ".join(words + summary.beginnings(row["init"], row["protocol"]))


def _outcome(row: dict[str, Any]) -> str:
    low, high = (summary.percent(row[name]) for name in ("drop_low", "drop_high"))
    unequal = "; not trained alike" if row["unequal_seeds"] else ""
    return f"{summary.points(row['drop'])} (drop {low} to {high}{unequal})"


def _smallest(row: dict[str, Any], tolerance: float) -> str:
    share = 100 * row["size"] / row["baseline_size"]
    measure, word = MEASURES[row["measure"]], row["verdict"].upper()
    relation = {
        HOLDS: f"within the tolerance of {tolerance:g}",
        FAILS: f"more than the tolerance of {tolerance:g}",
        UNDECIDED: f"and the tolerance of {tolerance:g} lies in between",
    }[row["verdict"]]
    beyond = "" if round(100 * row["val_drop"], 6) <= tolerance else " No network is within it on validation."
    return f"{word}. {describe(row)} needs {share:.0f} % of the {measure} and {_outcome(row)}, {relation}.{beyond}"


def _headline(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence a network, which names the other measures by which it is the smallest too."""
    lines, seen = [], []
    for row in rows:
        name = describe(row)
        if name in seen:
            continue
        seen.append(name)
        others = [MEASURES[other["measure"]] for other in rows if other is not row and describe(other) == name]
        lines.append(row["sentence"] + (f" Smallest by {' and '.join(others)} too." if others else ""))
    return lines


def steps(ladder: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The choices that hold when they are tested in turn, from the smallest ratio on, until one does not.

    Tested in an order that was fixed beforehand, each at its full level, the chance that any of them holds wrongly is
    that of a single test [Maurer, Hothorn & Lehmacher 1995].
    """
    return list(itertools.takewhile(lambda row: row["verdict"] == HOLDS, ladder))


def to_take_home(choice: dict[str, Any], ladder: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The smallest network on validation if it holds; else the smallest that does, tested in turn; else the first."""
    held = steps(ladder)
    return held[-1] if choice["verdict"] != HOLDS and held else choice


def _steps(ladder: Sequence[dict[str, Any]], tolerance: float) -> str:
    held = steps(ladder)
    if not held:
        first = ladder[0]
        return (
            f"already at ratio {first['ratio']:g} the tolerance of {tolerance:g} does not hold: it {_outcome(first)}."
        )
    last = held[-1]
    share = 100 * last["size"] / last["baseline_size"]
    said = f"every ratio up to {last['ratio']:g} holds ({describe(last)}: {share:.0f} % of the MACs)"
    if len(held) == len(ladder):
        return f"{said}, the largest that was judged."
    following = ladder[len(held)]
    return f"{said}; at {following['ratio']:g}, the best {_outcome(following)}."


def _claim(row: dict[str, Any]) -> str:
    claim = f"the claim that the best criterion loses less than {CLAIM_TOLERANCE:g} points at ratio {CLAIM_RATIO:g}"
    outcome = {HOLDS: "holds", FAILS: "fails", UNDECIDED: "is undecided"}[row["verdict"]]
    return (
        f"{claim} {outcome}: {summary.label(row['criterion'])}, {summary.SCOPE_NAMES[row['scope']]}, {_outcome(row)}."
    )


def notes(frame: pd.DataFrame, tolerance: float) -> list[str]:
    """How the answer was found, in sentences."""
    chosen = "ratio and weights" if frame["protocol"].nunique() == 1 else "ratio, weights and protocol"
    text = [
        f"Criterion, scope, {chosen} are chosen by validation accuracy; the test images only judge.",
        f"Drop: the unpruned network's test accuracy less the pruned one's, in points, paired by seed and image, with "
        f"its {100 * CONFIDENCE:.0f} % interval over seeds and test images. Holds: the whole interval is within the "
        f"tolerance of {tolerance:g}; fails: all of it is above; else undecided.",
        "Each ratio's own choice is judged by itself. Read from the smallest ratio to the first that does not hold, "
        "they err in about one of 40 cases; picked out from the middle, they may err more often.",
    ]
    if (frame["seeds"] == 1).any():
        text.append("Where there is one seed, the interval is over images alone: it speaks of that one training.")
    if (frame["failed_seeds"] != "").any():
        text.append("Seeds whose training diverged are left out.")
    if unequal := summary.unequal_remark(frame):
        text.append(unequal)
    return text


def markdown(answer: dict[str, list], experiment: str) -> str:
    """The answer as a page: sentences, then tables of verdicts and of each ratio's choice, then the notes."""
    lines = [f"# How small can it be? {experiment}", ""]
    lines += [f"- {line}" for line in answer["lines"]] + [""]
    for title, key in ("The smallest network", "verdicts"), ("Each ratio's choice", "ladder"):
        if answer[key]:
            lines += [f"## {title}", "", *_markdown_table(answer[key], measured=key == "verdicts"), ""]
    return "\n".join([*lines, "## How it was found", "", *(f"- {note}" for note in answer["notes"]), ""])


def _markdown_table(rows: Sequence[dict[str, Any]], measured: bool) -> list[str]:
    header = ["data set", "backbone", *(["by"] if measured else []), "network", "size", "drop, points", "verdict"]
    body = []
    for row in rows:
        share = f"{100 * row['size'] / row['baseline_size']:.0f} % of the {MEASURES[row['measure']]}"
        drop = summary.marked(summary.bracketed(row["drop"], row["drop_low"], row["drop_high"]), row["unequal_seeds"])
        measure = [MEASURES[row["measure"]]] if measured else []
        body.append([row["dataset"], row["backbone"], *measure, describe(row), share, drop, row["verdict"]])
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *body)]
