"""An experiment's summary: cells over seeds, their drop against the unpruned baseline, and how people read it."""

from __future__ import annotations

import collections
import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.stats

from winnow import tables
from winnow.answers import intervals, preference
from winnow.answers.intervals import CONFIDENCE
from winnow.files import InputError, read_json
from winnow.importance.scopes import BUDGETS, share_of
from winnow.training.metrics import Metrics
from winnow.training.protocols import DISTILLED, EQUAL_FLOPS, FINE_TUNE_FIRST, ONE_SHOT, parted, steps, whole
from winnow.workflow.grid import ANY, RANDOM, UNPRUNED, Beside, Cell, is_control, own, parse_source

# The ratio of the claim that the method is known for; headlines speak of the grid's nearest one.
HEADLINE_RATIO = 0.4

_SCHEMA = tables.SCHEMAS["summary"]
# Cells that finished on both sides, with different seeds, and the backbone whose unpruned networks they are held
# against → whether these and they are right on test images, (S, n) each, as of winnow.answers.intervals.parts, and the
# images' classes.
Sides = Callable[[Sequence[Cell], str], tuple[np.ndarray, np.ndarray, np.ndarray]]
# Integers with gaps: NumPy's have no null.
_PANDAS_TYPES = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
# Images a pass → column.
LATENCY_COLUMNS = {1: "latency_ms", 32: "latency_32_ms"}
_NUMBERS = ("accuracy", "class_accuracy", "achieved_ratio", "params", "macs", "bytes")

# Headings of the columns with latencies, and of their section of the page.
LATENCY, LATENCY_32 = "ms", "ms, 32 images"
LATENCY_SECTION = "## Latency"
# What a comparison is marked with whose networks were not trained alike.
UNEQUAL = "≠"
SCOPE_NAMES = {
    **{"global": "globally", "global_normalized": "globally, normalised by layer", "layer": "by layer"},
    **{scope: f"within a budget of {share_of(scope)}" for scope in BUDGETS},
}
INIT_NAMES = {"inherited": "inherited weights", "random": "random weights"}
_PROTOCOL_NAMES = {
    ONE_SHOT: "pruned, then fine-tuned",
    FINE_TUNE_FIRST: "fine-tuned before and after pruning",
    DISTILLED: "distilled",
    EQUAL_FLOPS: "trained for equal operations",
}
REPAIR_NAMES = {"compensated": "compensated", "recalibrated": "recalibrated", "fitted": "last layer fitted"}
_CRITERION_NAMES = {RANDOM: "random control", ANY: "any criterion"}


class Row(preference.Named):
    """A row of the table "summary", see :data:`winnow.tables.SCHEMAS`: None where a value is not known."""

    seeds: int
    accuracy: float | None
    accuracy_std: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    class_accuracy: float | None
    val_accuracy: float | None
    val_drop: float | None
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    class_drop: float | None
    class_drop_low: float | None
    class_drop_high: float | None
    achieved_ratio: float | None
    params: int | None
    macs: int | None
    bytes: int | None
    latency_ms: float | None
    latency_32_ms: float | None
    seconds: float | None
    failed_seeds: str
    unequal_seeds: str


def read_metrics(path: str | os.PathLike[str]) -> Metrics:
    """Read one cell's ``metrics.json``.

    Raises
    ------
    InputError
        If the file is missing, is not JSON, or lacks a number that the summary needs; the message names the file.
    """
    metrics: Metrics = read_json(path)
    fault = _fault(metrics)
    if fault:
        raise InputError(f"{path} is not a cell's metrics ({fault}): delete it and run again to make it anew")
    return metrics


def _fault(metrics: Any) -> str | None:
    if not isinstance(metrics, dict):
        return f"a JSON object is needed, got {type(metrics).__name__}"
    if metrics.get("status") not in ("finished", "diverged"):
        return f"status is {metrics.get('status')!r}; allowed: finished, diverged"
    if metrics["status"] == "diverged":
        return None
    for name in _NUMBERS:
        if not _is_number(metrics.get(name)):
            return f"{name} is {metrics.get(name)!r}, a finite number is needed"
    if metrics.get("val_accuracy") is not None and not _is_number(metrics["val_accuracy"]):
        return f"val_accuracy is {metrics['val_accuracy']!r}, a finite number or null is needed"
    seconds = metrics.get("seconds")
    if not isinstance(seconds, dict) or not _is_number(seconds.get("total")):
        return "seconds.total is missing"
    return None


def read_latency(path: str | os.PathLike[str]) -> dict[int, tuple[float, float]]:
    """Read a network's latency: images a pass → the unpruned network's median milliseconds, and the speed-up over it.

    Raises
    ------
    InputError
        If the file is missing, is not JSON, or lacks a number that the summary needs; the message names the file.
    """
    found = read_json(path)
    try:
        batches = {batch: found["batches"][str(batch)] for batch in LATENCY_COLUMNS}
        result = {batch: (part["unpruned_ms"]["median"], part["speedup"]["median"]) for batch, part in batches.items()}
    except (KeyError, TypeError):
        result = {}
    if not result or not all(_is_number(value) and value > 0 for pair in result.values() for value in pair):
        raise InputError(f"{path} is not a network's latency: delete it and run again to make it anew")
    return result


# The libraries whose versions change numbers: the same cell comes out otherwise under another one.
NUMERIC_LIBRARIES = ("torch", "torchvision")


def mixed_versions(metrics: Iterable[Mapping[str, Any] | None]) -> str | None:
    """A remark where cells were made with several versions of torch or torchvision, since those change numbers.

    Parameters
    ----------
    metrics
        Of the cells, with their ``versions``; None where a cell has none.

    Returns
    -------
    str or None
        None where all cells are of one version.
    """
    counts = collections.Counter(
        ", ".join(f"{name} {found.get('versions', {}).get(name, 'unknown')}" for name in NUMERIC_LIBRARIES)
        for found in metrics
        if found is not None
    )
    if len(counts) < 2:
        return None
    listed = "; ".join(f"{count} with {versions}" for versions, count in sorted(counts.items()))
    return (
        f"Cells were made with several versions of libraries that change numbers: {listed}. "
        "A difference between them may be the libraries'."
    )


def batch_normalised(metrics: Mapping[str, Any]) -> int | None:
    """Over how many images at most a network's batch norms took their statistics in training; None without any.

    Where memory runs out a batch is trained in parts. Without batch norm that changes last bits and what dropout draws.
    """
    return metrics["micro_batch"] if metrics.get("batch_norm") else None


def unequal_remark(frame: pd.DataFrame) -> str | None:
    """A remark where some networks and their baselines were not trained alike; None where all were."""
    rows = frame[frame["unequal_seeds"] != ""]
    if rows.empty:
        return None
    listed = "; ".join(
        f"{row.dataset}, {row.backbone}, {label(row.criterion)}, {row.scope}, ratio {row.ratio:g}, "
        f"{', '.join([row.init, *([] if row.protocol == ONE_SHOT else [row.protocol])])}: seed {row.unequal_seeds}"
        for row in rows.itertuples()
    )
    return (
        f"Not trained alike ({UNEQUAL}): for want of memory the batch norms of a network and of its baseline had "
        "batches of different sizes, `micro_batch` in their metrics. A difference between them may be the batches'. "
        f"{listed}."
    )


def comparable(latencies: Mapping[str, Mapping[int, tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Milliseconds a pass, by file and column of the summary, that can be held against each other.

    A machine's speed drifts from job to job by more than what a small ratio saves. What does not drift is the speed-up
    over the unpruned network, timed in turn with each: milliseconds are the median of what the unpruned network took,
    over all files of the data set and backbone, divided by the file's own speed-up.
    """
    taken: dict[tuple[str | int, ...], list[float]] = {}
    for path, batches in latencies.items():
        for batch, (unpruned, _) in batches.items():
            taken.setdefault((*path.split("/")[:2], batch), []).append(unpruned)
    return {
        path: {
            LATENCY_COLUMNS[batch]: float(np.median(taken[*path.split("/")[:2], batch])) / speedup
            for batch, (_, speedup) in batches.items()
        }
        for path, batches in latencies.items()
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Student's t interval of the mean, at the level :data:`CONFIDENCE`.

    mean ± t(n − 1) · s / √n with the sample standard deviation s (n − 1 in its denominator). It rests on normally
    distributed values and is not clipped: with two seeds it may well leave [0, 1].

    Returns
    -------
    tuple
        Lower and upper bound; (None, None) for fewer than two values, which say nothing about their spread.
    """
    n = len(values)
    if n < 2:
        return None, None
    half = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    mean = np.mean(values)
    return float(mean - half), float(mean + half)


def summarise(
    rows: Iterable[tuple[Cell, Mapping[str, Any] | None]],
    latencies: Mapping[str, Mapping[int, tuple[float, float]]] | None = None,
    choosers: Collection[Cell] = (),
    sides: Sides | None = None,
    beside: Beside = own,
) -> pd.DataFrame:
    """Cells to one row per cell less its seed, with the columns of the schema "summary".

    Parameters
    ----------
    rows
        Cells and their metrics; None where a cell has none. A seed without metrics or whose training diverged is
        listed in ``failed_seeds`` and left out of every mean; where none is left, the numbers are null.
    latencies
        :attr:`winnow.workflow.grid.Cell.latency` → what :func:`read_latency` found there. A row has its first seed's,
        made :func:`comparable`.
    choosers
        Cells by which networks were chosen: of one that was judged, a row is of the cells that judged it.
    sides
        Test outcomes; without them drops have no intervals.
    beside
        Of which backbones a cell is: it has a row for each.

    Returns
    -------
    pandas.DataFrame
        Baselines first, then by scope, ratio, criterion, init and protocol; the same whatever the order of ``rows``.
        ``drop`` is the accuracy of the unpruned network with inherited weights less the accuracy, over the seeds that
        both have finished, ``class_drop`` that of the mean over classes. Their intervals are of
        :mod:`winnow.answers.intervals`, at the level :data:`CONFIDENCE`; how trainings scatter is pooled over the rows
        of a data set and backbone.
    """
    metrics = dict(rows)
    finished = {cell: found for cell, found in metrics.items() if found and found["status"] == "finished"}
    groups: dict[_Group, list[Cell]] = {}
    for cell in sorted(metrics, key=lambda cell: cell.seed):
        for backbone in beside(cell):
            groups.setdefault((backbone, dataclasses.replace(cell, seed=0)), []).append(cell)
    groups = {group: [cell for cell in cells if cell not in choosers] or cells for group, cells in groups.items()}
    drops = _drops(groups, finished, sides) if sides else {}
    measured = comparable(latencies or {})
    records = [
        _record(cells, group[0], finished, drops.get(group), measured.get(cells[0].latency or "", {}))
        for group, cells in sorted(groups.items(), key=lambda item: _order(item[0]))
    ]
    return pa.Table.from_pylist(records, schema=_SCHEMA).to_pandas(types_mapper=_PANDAS_TYPES.get)


# A row's backbone, and its cells less their seeds.
_Group = tuple[str, Cell]


def _drops(
    groups: Mapping[_Group, Sequence[Cell]], finished: Mapping[Cell, Mapping[str, Any]], sides: Sides
) -> dict[_Group, list[intervals.Interval]]:
    """Of each row but the baseline's the intervals of its drops, of accuracy and of the mean over classes."""
    places: dict[tuple[str, str], dict[_Group, tuple[intervals.Parts, ...]]] = {}
    for (backbone, group), cells in groups.items():
        both = [cell for cell in cells if cell in finished and cell.baseline_of(backbone) in finished]
        if both and group != group.baseline_of(backbone):
            baseline, pruned, labels = sides(both, backbone)
            found = intervals.parts(baseline, pruned), intervals.parts(baseline, pruned, labels)
            places.setdefault((group.dataset, backbone), {})[backbone, group] = found
    drops: dict[_Group, list[intervals.Interval]] = collections.defaultdict(list)
    for there in places.values():
        for number in range(2):
            prior = intervals.pooled([parts[number] for parts in there.values()])
            for place, parts in there.items():
                drops[place].append(intervals.interval(parts[number], prior=prior))
    return drops


def _order(group: _Group) -> tuple[Any, ...]:
    backbone, cell = group
    return (
        *(cell.dataset, backbone, cell.criterion != UNPRUNED, cell.backbone != backbone, cell.backbone),
        *(cell.scope, cell.ratio, cell.round_to or 0),
        *(cell.criterion == ANY or is_control(cell.criterion), cell.criterion, cell.init),
        *(cell.protocol != ONE_SHOT, cell.protocol),
    )


def _record(
    cells: list[Cell],
    backbone: str,
    finished: Mapping[Cell, Mapping[str, Any]],
    drops: Sequence[intervals.Interval] | None,
    latency: Mapping[str, float],
) -> Row:
    """One row of the summary from cells that differ in their seed only, in the order of their seeds."""
    done = [cell for cell in cells if cell in finished]
    control = None if cells[0].backbone == backbone else cells[0].backbone

    def values(name: str) -> list[float]:
        found = (finished[cell].get(name) for cell in done)
        return [value for value in found if value is not None]

    def drops_of(name: str) -> list[float]:
        both = ((cell.baseline_of(backbone), cell) for cell in done)
        pairs = (tuple(finished[each].get(name) for each in pair) for pair in both if pair[0] in finished)
        return [baseline - value for baseline, value in pairs if baseline is not None and value is not None]

    accuracy = values("accuracy")
    accuracy_low, accuracy_high = interval(accuracy)
    drop: tuple[float | None, float | None, float | None]
    drop, class_drop = drops or ((_mean(drops_of(name)), None, None) for name in ("accuracy", "class_accuracy"))
    return {
        "dataset": cells[0].dataset,
        "backbone": backbone,
        "control": control,
        "criterion": cells[0].criterion,
        "scope": cells[0].scope,
        "ratio": cells[0].ratio,
        "round_to": cells[0].round_to,
        "init": cells[0].init,
        "protocol": cells[0].protocol,
        "seeds": len(done),
        "accuracy": _mean(accuracy),
        "accuracy_std": float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else None,
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "class_accuracy": _mean(values("class_accuracy")),
        "val_accuracy": _mean(values("val_accuracy")),
        "val_drop": _mean(drops_of("val_accuracy")),
        "drop": drop[0],
        "drop_low": drop[1],
        "drop_high": drop[2],
        "class_drop": class_drop[0],
        "class_drop_low": class_drop[1],
        "class_drop_high": class_drop[2],
        "achieved_ratio": _mean(values("achieved_ratio")),
        # The control's masks differ by seed, and with them the sizes.
        "params": _rounded_mean(values("params")),
        "macs": _rounded_mean(values("macs")),
        "bytes": _rounded_mean(values("bytes")),
        "latency_ms": latency.get("latency_ms"),
        "latency_32_ms": latency.get("latency_32_ms"),
        "seconds": _mean([finished[cell]["seconds"]["total"] for cell in done]),
        "failed_seeds": ", ".join(str(cell.seed) for cell in cells if cell not in finished),
        "unequal_seeds": ", ".join(
            str(cell.seed)
            for cell in done
            # A control's is itself: networks of different kinds are never trained alike.
            if cell.baseline in finished
            and batch_normalised(finished[cell]) != batch_normalised(finished[cell.baseline])
        ),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _rounded_mean(values: Sequence[float]) -> int | None:
    return round(sum(values) / len(values)) if values else None


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a ``summary.parquet`` with the types that :func:`summarise` gives.

    Raises
    ------
    InputError
        As :func:`winnow.tables.read_table`.
    """
    return tables.read_table(path, "summary").to_pandas(types_mapper=_PANDAS_TYPES.get)


def records(frame: pd.DataFrame) -> list[Row]:
    """A summary's rows, None where a value is not known."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def label(criterion: str) -> str:
    """A criterion as figures and sentences name it: "mean activation", "reversed apoz", "apoz on cats vs dogs"."""
    name, source = parse_source(criterion)
    words = _CRITERION_NAMES.get(name, name.replace("_", " "))
    return words if source is None else f"{words} on {source.replace('_', ' ')}"


def protocol_name(protocol: str) -> str:
    """A protocol as figures and sentences name it: "distilled", "compensated, pruned in 3 steps"."""
    repairs, plain = parted(protocol)
    if steps(plain):
        words = f"pruned in {steps(plain)} steps"
    else:
        words = _PROTOCOL_NAMES.get(plain, plain.replace("_", " "))
    return ", ".join([*(REPAIR_NAMES[name] for name in repairs), *([] if repairs and plain == ONE_SHOT else [words])])


def beginnings(init: str, protocol: str) -> list[str]:
    """What of init and protocol is worth a word: not inherited weights and ``one_shot``."""
    weights = [INIT_NAMES[init]] if init != "inherited" else []
    return weights + ([protocol_name(protocol)] if protocol != ONE_SHOT else [])


def plainest(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one init and protocol: inherited weights and ``one_shot`` if there are any, else the first there is."""
    rows = rows[rows["init"] == rows["init"].min()]
    found = set(rows["protocol"])
    return rows[rows["protocol"] == (ONE_SHOT if ONE_SHOT in found else min(found, default=ONE_SHOT))]


def points(drop: float) -> str:
    """What a drop of accuracy says in words: "loses 0.8 points", "gains 0.3 points"."""
    return f"{'gains' if round(100 * drop, 1) < 0 else 'loses'} {abs(100 * drop):.1f} points"


def finished_unpruned(
    frame: pd.DataFrame, dataset: str, backbone: str, init: str, protocols: Iterable[str]
) -> pd.DataFrame:
    """The rows of the unpruned network that networks of some protocols are held against, if any has finished."""
    names = {whole(protocol) for protocol in protocols}  # noqa: F841 - the query's
    rows = frame.query(
        "dataset == @dataset and backbone == @backbone and criterion == @UNPRUNED and init == @init "
        "and protocol in @names and seeds > 0"
    )
    return rows[rows["control"].isna()]


def finished_controls(frame: pd.DataFrame, dataset: str, backbone: str) -> pd.DataFrame:
    """The smaller networks that were never pruned, of which at least one seed has finished."""
    rows = frame.query("dataset == @dataset and backbone == @backbone and seeds > 0")
    return rows[rows["control"].notna()]


def network_name(row: Mapping[str, Any]) -> str:
    """A row's criterion as tables name it; a control's own name."""
    return row["criterion"] if pd.isna(row["control"]) else f"{row['control']}, {UNPRUNED}"


def finished_rows(frame: pd.DataFrame, dataset: str, backbone: str, scope: str) -> pd.DataFrame:
    """The pruned networks of one data set, backbone and scope, of which at least one seed has finished."""
    return frame.query("dataset == @dataset and backbone == @backbone and scope == @scope and seeds > 0")


def headline_ratio(ratios: Iterable[float]) -> float:
    """The ratio nearest to :data:`HEADLINE_RATIO`, of two that are as near the smaller."""
    # Ratios have three decimals; without rounding, 0.5 would be nearer to 0.4 than 0.3 is.
    return min(ratios, key=lambda ratio: (round(abs(ratio - HEADLINE_RATIO), 3), ratio))


def headline_rows(frame: pd.DataFrame, dataset: str, backbone: str, scope: str) -> pd.DataFrame:
    """The rows that headlines speak of, the criterion that scores best on the test images first, the controls last.

    Equals are in the order of :mod:`winnow.answers.preference`. They are of the ratio nearest to
    :data:`HEADLINE_RATIO`, of networks that :func:`plainest` picks. At least one row of that data set, backbone and
    scope must have finished.
    """
    rows = plainest(finished_rows(frame, dataset, backbone, scope))
    ratio = headline_ratio(rows["ratio"])
    rows = rows[rows["ratio"] == ratio]
    order = []
    for row in records(rows):
        loss = None if row["accuracy"] is None else -row["accuracy"]
        rank = preference.rank(loss, (row["macs"] or 0,), preference.name_of(row))
        order.append((_aside(row["criterion"]), rank))
    return rows.iloc[sorted(range(len(rows)), key=order.__getitem__)]


def _aside(criterion: str) -> int:
    """How far behind a criterion stands: 0, or 1 for a control, or 2 for the random one."""
    return is_control(criterion) + (criterion == RANDOM)


def headline(frame: pd.DataFrame, dataset: str, backbone: str, scope: str) -> tuple[str, str]:
    """What the rows of one data set, backbone and scope say, as a sentence and a remark.

    It speaks of the first of :func:`headline_rows`. That describes the table; it is no choice of a model, which would
    have to be made on validation images.

    Returns
    -------
    tuple
        "Digits, by layer: apoz loses 0.8 points at ratio 0.4" and "the random control loses 22.0 points there"; the
        second is empty without a control.
    """
    rows = headline_rows(frame, dataset, backbone, scope)
    best, last = rows.iloc[0], rows.iloc[-1]
    where = ", ".join([title(dataset), SCOPE_NAMES[scope], *beginnings(best["init"], best["protocol"])])
    sentence = f"{where}: {label(best['criterion'])} {outcome(best)}"
    remark = ""
    if last["criterion"] == RANDOM and not is_control(best["criterion"]):
        remark = f"the {label(RANDOM)} {outcome(last)} there"
    return f"{sentence} at ratio {best['ratio']:g}", remark


def outcome(row: pd.Series) -> str:
    """What a row says in words: "loses 0.8 points", or "reaches 94.0 %" where no baseline has finished."""
    return f"reaches {100 * row['accuracy']:.1f} %" if pd.isna(row["drop"]) else points(row["drop"])


def title(name: str) -> str:
    """A name as a title begins: ``cats_vs_dogs`` → "Cats vs dogs"."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def quantity(count: float) -> str:
    """A count with three digits and its prefix: 84100000 → "84.1 M", 5620000000 → "5.62 G"."""
    for prefix, factor in ("G", 1e9), ("M", 1e6), ("k", 1e3):
        # What would round to 1000 of the smaller unit is one of the larger.
        if count >= 0.9995 * factor:
            return f"{count / factor:#.3g}".rstrip(".") + f" {prefix}"
    return f"{count:.0f}"


def formatted(frame: pd.DataFrame) -> pd.DataFrame:
    """The summary as text for people, one row a row: accuracies in %, drops in points, sizes with their prefix.

    ± holds the 95 % interval over seeds, brackets that over seeds and test images, "–" stands for what is not known.
    Latency, of one image in milliseconds, is a column where at least one row has it; the protocol where at least one is
    not ``one_shot``.
    """
    text = pd.DataFrame(
        {
            "scope": frame["scope"],
            "ratio": [
                f"{ratio:g}" if pd.isna(step) else f"{ratio:g}~{step}"
                for ratio, step in zip(frame["ratio"], frame["round_to"], strict=True)
            ],
            "criterion": [network_name(row) for row in frame.to_dict("records")],
            "init": frame["init"],
            "accuracy %": [_plus_minus(*row) for row in frame[["accuracy", "accuracy_high"]].itertuples(index=False)],
            "drop, points": [
                # The baseline's drop against itself says nothing.
                "–"
                if criterion == UNPRUNED and init == "inherited" and pd.isna(control)
                else marked(bracketed(*drop), unequal)
                for criterion, init, control, unequal, *drop in frame[
                    ["criterion", "init", "control", "unequal_seeds", "drop", "drop_low", "drop_high"]
                ].itertuples(index=False)
            ],
            "removed": ["–" if pd.isna(share) else f"{100 * share:.1f} %" for share in frame["achieved_ratio"]],
            "params": ["–" if pd.isna(count) else quantity(count) for count in frame["params"]],
            "MACs": ["–" if pd.isna(count) else quantity(count) for count in frame["macs"]],
            "seeds": [
                f"{seeds} of {seeds + len(failed.split(', '))}" if failed else f"{seeds}"
                for seeds, failed in zip(frame["seeds"], frame["failed_seeds"], strict=True)
            ],
            "failed seeds": frame["failed_seeds"],
        },
        index=frame.index,
        dtype=object,
    )
    if (frame["protocol"] != ONE_SHOT).any():
        text.insert(text.columns.get_loc("init") + 1, "protocol", frame["protocol"])
    if frame["latency_ms"].notna().any():
        text.insert(text.columns.get_loc("seeds"), LATENCY, [milliseconds(value) for value in frame["latency_ms"]])
    return text


def milliseconds(value: float) -> str:
    """Three digits, and all of those before the point."""
    if pd.isna(value):
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def percent(value: float) -> str:
    """A share in %, without the sign."""
    return f"{round(100 * value, 1) + 0.0:.1f}"  # + 0.0: no "-0.0"


def _plus_minus(mean: float, high: float) -> str:
    if pd.isna(mean):
        return "–"
    return percent(mean) + ("" if pd.isna(high) else f" ± {percent(high - mean)}")


def bracketed(mean: float | None, low: float | None, high: float | None) -> str:
    """A mean and its interval, shares in points: "0.8 [-0.2, 1.8]"; "–" where the mean is not known."""
    if mean is None or math.isnan(mean):
        return "–"
    if low is None or high is None or math.isnan(low):
        return percent(mean)
    return f"{percent(mean)} [{percent(low)}, {percent(high)}]"


def marked(text: str, unequal_seeds: str) -> str:
    """A comparison's text, with a mark where it is of networks that were not trained alike."""
    return f"{text} {UNEQUAL}" if unequal_seeds else text


_RIGHT = frozenset(["ratio", "accuracy %", "removed", "params", "MACs", LATENCY, LATENCY_32])


def aligned(text: pd.DataFrame) -> list[list[str]]:
    """A table of texts as lines of fields, header first, each column padded to one width; numbers to the right."""
    columns = []
    for name in text.columns:
        fields = [name, *text[name]]
        width = max(map(len, fields))
        columns.append([field.rjust(width) if name in _RIGHT else field.ljust(width) for field in fields])
    return [list(line) for line in zip(*columns, strict=True)]


def markdown(frame: pd.DataFrame, experiment: str, missing: int = 0, remark: str | None = None) -> str:
    """The summary as a page: a table per data set, backbone, scope, init and protocol, each led by its baseline.

    Within a table, the highest accuracy of each ratio is bold (controls aside). Times stand only in the last
    section, which begins with :data:`LATENCY_SECTION`: up to there two runs of the same grid give the same page.

    Parameters
    ----------
    missing
        How many cells have no metrics yet; the page says so.
    remark
        What has to be known before the numbers are read: see :func:`mixed_versions`.
    """
    lines = [f"# Summary of {experiment}", ""]
    if missing:
        lines += [f"**Not complete: {missing} cells have no result.** They count as failed seeds below.", ""]
    if remark:
        lines += [f"**{remark}**", ""]
    lines += [
        "Accuracy on the test images, mean over seeds ± half of the 95 % interval (Student's t). Drop: accuracy of the "
        "unpruned network with inherited weights, fine-tuned with the same recipe and seed, less the accuracy; paired "
        "by seed and image, with its 95 % interval over both. Bold: the best criterion of a ratio. Removed: share of "
        "filters, or of what a budget is of. MACs: multiply-accumulates of one image. Failed seeds are left out of the "
        "means.",
        "",
    ]
    if unequal := unequal_remark(frame):
        lines += [f"**{unequal}**", ""]
    if (frame["criterion"] == ANY).any():
        lines += [
            "Criterion any: by layer every criterion keeps equally many filters, and random weights forget which.",
            "",
        ]
    for (dataset, backbone), rows in frame.groupby(["dataset", "backbone"], sort=False):
        lines += [f"## {dataset}, {backbone}", ""]
        pruned = rows[rows["criterion"] != UNPRUNED]
        unpruned = rows[rows["criterion"] == UNPRUNED]
        if pruned.empty:
            lines += [_markdown_table(unpruned), ""]
        for (scope, init, protocol), section in pruned.groupby(["scope", "init", "protocol"], sort=False):
            references = unpruned[
                unpruned["init"].isin(["inherited", init]) & (unpruned["protocol"] == whole(protocol))
            ]
            said = "" if protocol == ONE_SHOT else f", {protocol_name(protocol)}"
            lines += [f"### {title(SCOPE_NAMES[scope])}, {INIT_NAMES[init]}{said}", ""]
            lines += [_markdown_table(pd.concat([references, section])), ""]
    return "\n".join(lines + _latency_section(frame))


def _latency_section(frame: pd.DataFrame) -> list[str]:
    """The page's lines on latency; none where nothing was timed."""
    timed = frame[frame["latency_ms"].notna()]
    if timed.empty:
        return []
    lines = [
        LATENCY_SECTION,
        "",
        f"Milliseconds of a forward pass of one image ({LATENCY}) and of 32 ({LATENCY_32}): what the unpruned network "
        "takes, by the speed-up over it, timed in turn. The machine, the precision and the spread are in "
        "`results/latency/`. By layer all criteria keep equally many filters and share a measurement; the control is "
        "timed at its first seed.",
        "",
    ]
    for (dataset, backbone), rows in timed.groupby(["dataset", "backbone"], sort=False):
        text = formatted(rows)[["scope", "ratio", "criterion", "removed", "params", "MACs", LATENCY]]
        text[LATENCY_32] = [milliseconds(value) for value in rows["latency_32_ms"]]
        text.loc[rows["scope"] == "layer", "criterion"] = ANY
        text = text.drop_duplicates(["scope", "ratio", "criterion"])
        lines += [f"### {dataset}, {backbone}", "", _markdown_lines(text), ""]
    return lines


def _markdown_table(rows: pd.DataFrame) -> str:
    text = formatted(rows).drop(columns=LATENCY, errors="ignore")
    text["criterion"] = [
        "unpruned, random weights" if (criterion, init) == (UNPRUNED, "random") else criterion
        for criterion, init in zip(text["criterion"], rows["init"], strict=True)
    ]
    contest = rows[(rows["criterion"] != UNPRUNED) & ~rows["criterion"].map(is_control) & rows["accuracy"].notna()]
    for _, ratio in contest.groupby("ratio"):
        accuracy = ratio["accuracy"].map(preference.exact)
        if len(ratio) > 1:
            for position in ratio.index[accuracy == accuracy.max()]:
                text.loc[position, "accuracy %"] = f"**{text.loc[position, 'accuracy %']}**"
    if not text["failed seeds"].any():
        text = text.drop(columns="failed seeds")
    return _markdown_lines(text.drop(columns=["scope", "init", "protocol"], errors="ignore"))


def _markdown_lines(text: pd.DataFrame) -> str:
    header, *body = aligned(text)
    rule = [
        "-" * (len(field) - 1) + (":" if name in _RIGHT else "-")
        for name, field in zip(text.columns, header, strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *body))
