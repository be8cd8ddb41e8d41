"""An experiment's report: one HTML page that holds all that it shows, to be read anywhere, without a network."""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import vl_convert
import yaml

from winnow import tables
from winnow.answers import gallery, growth, pages, preference, summary, verdict, words
from winnow.answers.figures import answer as answers_figure
from winnow.answers.figures import confusion, look
from winnow.data import overview
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.files import InputError, read_json
from winnow.networks import descriptions
from winnow.training import protocols
from winnow.training.protocols import ONE_SHOT
from winnow.workflow import grid, promises, provenance, wiring

_HERE = Path(__file__)

LATENCIES = {"latency_ms": "latency, ms", "latency_32_ms": "latency of 32, ms"}
MISSING = "–"
# Columns that are sorted as numbers, and stand to the right.
_NUMBERS = frozenset(
    [
        *(
            "ratio",
            "size",
            "accuracy %",
            "drop, points",
            "averaged over classes",
            "removed",
            "params",
            "MACs",
            *LATENCIES.values(),
        ),
        *("validation accuracy %", "validation drop, points", "seeds", "threads", "cells", "results"),
        *("smaller network %", "your network %", "files"),
    ]
)


class Field(NamedTuple):
    """A table's field: what it shows and, in a column of numbers, what it is sorted by."""

    text: str
    value: float | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes
    ----------
    name, caption : str
    rows : list of dict
        Column → field, the same columns in each.
    common : dict of str to str
        What all rows share, and has therefore no column.
    """

    name: str
    caption: str
    rows: list[dict[str, Field]]
    common: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def columns(self) -> dict[str, bool]:
        """Name → whether it holds numbers."""
        return {name: name in _NUMBERS for row in self.rows[:1] for name in row}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure: its entry in ``figures/index.json``, its Vega-Lite specification, and the SVG as a data URI."""

    name: str
    group: str
    title: str
    caption: str
    chart: dict[str, Any]
    image: str

    @classmethod
    def drawn(cls, figure: look.Figure) -> Figure:
        svg = io.StringIO()
        figure.chart.save(svg, format="svg")
        fields = {name: getattr(figure, name) for name in ("name", "group", "title", "caption")}
        return cls(**fields, chart=figure.chart.to_dict(), image=_uri("svg+xml", svg.getvalue().encode()))


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """An image of a data set: its data URI, its class and, where a network errs on it, what it is taken for."""

    image: str
    label: str
    taken_for: str | None = None


@dataclasses.dataclass(frozen=True)
class Cases:
    """Images on which two networks differ: those that are shown, and how many there are."""

    heading: str
    shown: list[Thumbnail]
    count: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer as the page opens with it, and what the two networks say of the user's images.

    Attributes
    ----------
    subject : str
    sentences : list of str
    picture, confusion : Figure or None
    cases : list of Cases
    confusions : Table
    files : list of str
        What is certified of the files that were exported, in sentences; none where none were.
    certificates, spoiled : Table or None
        The latter of what they lose on corrupted images.
    """

    subject: str
    sentences: list[str]
    picture: Figure | None = None
    cases: list[Cases] = dataclasses.field(default_factory=list)
    confusion: Figure | None = None
    confusions: Table | None = None
    files: list[str] = dataclasses.field(default_factory=list)
    certificates: Table | None = None
    spoiled: Table | None = None


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set, some images of each class, by the class's name, and what was skipped.

    ``remarks`` are sentences on what else was found in it, and on what so many images can tell.
    """

    name: str
    overview: gallery.Overview
    examples: dict[str, list[str]]
    skipped: Table | None
    remarks: list[str]


def page(
    experiment: Path,
    figures: Path,
    results: Path,
    spec: Mapping[str, Any],
    grown: Path | None = None,
    exported: Path | None = None,
) -> str:
    """The page of an experiment, as HTML.

    Parameters
    ----------
    experiment
        The experiment's folder, with ``summary.parquet`` and ``recommendation.json``.
    figures
        The folder of its figures.
    results
        The folder with ``cells/``, ``datasets/`` and ``splits/``: the metrics of its cells, the predictions of those
        that the answer speaks of, their stores, and the splits of those that have no folds.
    spec
        ``experiment``, its name; ``configuration``, the part of ``config.yaml`` that it uses; ``code``.
    grown
        What its last step made; None where it has a list of seeds.
    exported
        ``certificates.json`` of the networks that were exported; None where none were.

    Raises
    ------
    InputError
        If one of the files is missing, damaged or lacks what the page shows; the message names it.
    """
    name, configuration = spec["experiment"], spec["configuration"]
    frame = summary.read(experiment / "summary.parquet")
    needed = ("answer", "lines", "notes", "chosen", "tolerance", *_VERDICTS)
    recommendation = _with_keys(experiment / "recommendation.json", needed)
    drawn = read_figures(figures)
    cells = {
        cell: read_json(path) if (path := results / "cells" / cell.path / "metrics.json").exists() else None
        for cell in growth.experiment_cells(configuration["experiments"][name], grown)
    }
    stores = {dataset: Store.open(results / "datasets" / dataset) for dataset in {cell.dataset: None for cell in cells}}
    splits = {
        name: Split.open(results / "splits" / name / f"{wiring.ONLY}.parquet", store)
        for name, store in stores.items()
        if not configuration["datasets"][name].get("folds")
    }
    others = judged(recommendation["ladder"], frame)
    models = {(each["dataset"], each["backbone"]): each for each in (read_json(exported)["models"] if exported else ())}
    answers = [
        certified(answered(each, others, results / "cells", cells, stores[each["dataset"]], models), each, models)
        for each in recommendation["answer"]
    ]
    shown = [figure for each in answers for figure in (each.picture, each.confusion) if figure]
    environment = pages.environment(_HERE.parent)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment.get_template(f"{_HERE.stem}.html").render(
        name=name,
        answers=answers,
        pictured=any(answer.cases for answer in answers),
        certified=any(answer.certificates for answer in answers),
        datasets=[
            data_set(
                name,
                store,
                splits.get(name),
                gallery.EXAMPLES // len(stores),
                configuration["datasets"][name].get("folds"),
                recommendation["tolerance"],
            )
            for name, store in stores.items()
        ],
        recommendation=recommendation,
        verdicts=verdict_tables(recommendation),
        groups=_grouped(drawn),
        charts={figure.name: figure.chart for figure in [*shown, *drawn]},
        candidates=candidates_table(growth.read(grown)) if grown else None,
        summary=summary_table(frame),
        failed=failed_seeds(frame),
        configuration=yaml.safe_dump(
            {section: configuration[section] for section in ("experiments", "datasets", "backbones", "recipes")},
            allow_unicode=True,
            sort_keys=False,
            default_flow_style=None,
            width=100,
        ),
        facts=facts(results, cells),
        environments=environments_table(cells.values()),
        codes=codes_table(experiment, cells.values(), spec["code"]),
        style=_beside("css"),
        script=_beside("js"),
        # The stub asks for what is left out here.
        vega=_unclosed(vl_convert.javascript_bundle()) if shown or drawn else "",  # type: ignore[call-arg]
        vega_version=vl_convert.get_vega_version(),
    )


def read_figures(folder: Path) -> list[Figure]:
    """The figures that ``index.json`` names, in its order.

    Raises
    ------
    InputError
        If the index or a file of a figure is missing or damaged.
    """
    figures = []
    for entry in read_json(folder / "index.json"):
        path = folder / f"{entry['name']}.svg"
        try:
            image = _uri("svg+xml", path.read_bytes())
        except FileNotFoundError:
            raise InputError(f"{path} does not exist, but {folder / 'index.json'} names it") from None
        chart = read_json(path.with_suffix(".json"))
        fields = {name: entry[name] for name in ("name", "group", "title", "caption")}
        figures.append(Figure(**fields, chart=chart, image=image))
    return figures


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


class Judged(summary.Row):
    """A network that was judged: a row of the summary, the bounds that its drops were judged by, and its name."""

    low: float | None
    high: float | None
    class_low: float | None
    class_high: float | None
    cell: str


def judged(ladder: Iterable[verdict.Record], frame: pd.DataFrame) -> list[Judged]:
    """The networks of a ladder as :mod:`winnow.answers.words` has them, each with its data set and backbone.

    What they take of memory and time is the summary's.
    """
    rows = {(row["backbone"], preference.name_of(row)): row for row in summary.records(frame)}
    found: list[Judged] = []
    for record in ladder:
        name = preference.name_of(record)
        if (row := rows.get((record["backbone"], name))) is not None:
            found.append(
                {
                    **row,
                    "low": record["drop_low"],
                    "high": record["drop_high"],
                    "class_low": record["class_drop_low"],
                    "class_high": record["class_drop_high"],
                    "cell": name,
                }
            )
    return found


def answered(
    answer: Mapping[str, Any],
    others: Iterable[Mapping[str, Any]],
    folder: Path,
    cells: Mapping[grid.Cell, Mapping[str, Any] | None],
    store: Store,
    models: Mapping[tuple[str, str], Mapping[str, Any]],
) -> Answer:
    """An answer's words and pictures.

    Parameters
    ----------
    answer
        An object of ``recommendation.json``.
    others
        All networks that were judged, as :func:`judged` gives them.
    folder
        Has the cells' predictions.
    cells
        The experiment's, with their metrics.
    store
        Of the answer's data set.
    models
        Data set and backbone → an object of ``certificates.json``.
    """
    subject, sentences = words.subject(answer), [words.unbroken(each) for each in words.sentences(answer)]
    if answer["chosen"] is None or answer["chosen"]["accuracy"] is None:
        return Answer(subject, sentences)
    place = answer["dataset"], answer["backbone"]
    beside = [each for each in others if (each["dataset"], each["backbone"]) == place]
    certified = models.get(place, {"certificates": ()})["certificates"]
    int8 = next((each for each in certified if each["file"] == descriptions.FILES["int8"]), None)
    picture = _drawn(answers_figure.picture(answer, beside, int8))
    chosen = dataclasses.replace(grid.parse_path(answer["chosen"]["cell"]), seed=0)
    trained = [cell for cell, metrics in cells.items() if metrics and metrics["status"] == "finished"]
    whole = {cell: cell.baseline_of(answer["backbone"]) for cell in trained}
    pairs = [cell for cell in trained if dataclasses.replace(cell, seed=0) == chosen and whole[cell] in trained]
    if not pairs:
        return Answer(subject, sentences, picture)
    unpruned, pruned = (
        gallery.Outcomes.of([_predictions(folder, cell) for cell in each])
        for each in ([whole[cell] for cell in pairs], pairs)
    )
    lost, gained, losses, gains = gallery.changed(unpruned, pruned)
    before, after = (each.shares(len(store.classes)) for each in (unpruned, pruned))
    drawn = confusion.confusion(after, store.classes, f"{'-'.join(place)}-confusion", subject)
    return Answer(
        subject,
        sentences,
        picture,
        [
            Cases("Wrong with the smaller network, right with yours", _thumbnails(lost, store), losses),
            Cases("Right with the smaller network, wrong with yours", _thumbnails(gained, store), gains),
        ],
        _drawn(drawn),
        _confusions_table(gallery.confusions(before, after), store.classes, "-".join(place)),
    )


def certified(answer: Answer, told: Mapping[str, Any], models: Mapping[tuple[str, str], Mapping[str, Any]]) -> Answer:
    """An answer with what is certified of the files of its network, where it was exported.

    Parameters
    ----------
    told
        The answer as ``recommendation.json`` has it.
    models
        Data set and backbone → an object of ``certificates.json``.
    """
    model = models.get((told["dataset"], told["backbone"]))
    if model is None:
        return answer
    found = model["certificates"]
    sentences = [*words.certificates(found), words.two_intervals(told, found[0])]
    rows = [
        {
            "file": Field(each["file"]),
            "accuracy %": _number(each["accuracy"], summary.percent),
            "drop, points": _with_interval(each),
            "as judged": Field(f"{each['as_judged']} of {each['images']}"),
            "run by": Field(each["runtime"]),
            "SHA-256": Field(each["sha256"]),
        }
        for each in found
    ]
    caption = f"The files in models/{model['folder']}, on all test images"
    table = Table(f"certificates-{model['folder']}", caption, rows)
    corrupted = model["corruptions"]
    if corrupted:
        sentences += words.spoiled(corrupted)
    return dataclasses.replace(
        answer,
        files=list(map(words.unbroken, sentences)),
        certificates=table,
        spoiled=spoiled_table(corrupted, f"spoiled-{model['folder']}") if corrupted else None,
    )


def spoiled_table(found: Mapping[str, Any], name: str) -> Table:
    """What files lose on corrupted images, of :func:`winnow.exports.robustness.measured`."""
    rows = [
        {
            "images": Field(words.SPOILED.get(each["name"], "as they are")),
            "file": Field(file["file"]),
            "your network %": _number(each["accuracy"][0], summary.percent),
            "accuracy %": _number(accuracy, summary.percent),
            "drop, points": _with_interval(drop),
        }
        for each in found["corruptions"]
        for file, accuracy, drop in zip(found["networks"][1:], each["accuracy"][1:], each["drops"], strict=True)
    ]
    return Table(name, f"{found['images']} test images, as they are and spoiled", rows)


def _predictions(folder: Path, cell: grid.Cell) -> dict[str, np.ndarray]:
    table = tables.read_table(folder / cell.path / "predictions.parquet", "predictions")
    return {name: table[name].to_numpy() for name in ("image", "label", "predicted", "probability")}


def _drawn(figure: look.Figure | None) -> Figure | None:
    return None if figure is None else Figure.drawn(figure)


def _thumbnails(cases: Iterable[gallery.Case], store: Store) -> list[Thumbnail]:
    return [
        Thumbnail(gallery.thumbnail(store.images[case.image]), store.classes[case.label], store.classes[case.taken_for])
        for case in cases
    ]


def _confusions_table(found: Sequence[gallery.Confusion], classes: Sequence[str], name: str) -> Table:
    rows = [
        {
            "images of": Field(classes[each.label]),
            "taken for": Field(classes[each.taken_for]),
            "smaller network %": Field(summary.percent(each.pruned), each.pruned),
            "your network %": Field(summary.percent(each.unpruned), each.unpruned),
        }
        for each in found
    ]
    return Table(f"confusions-{name}", "What is taken for what most, and where that has changed", rows)


def data_set(
    name: str, store: Store, split: Split | None, examples: int, folds: int | None, tolerance: float
) -> DataSet:
    """What a data set is, with so many of its images at most; there is no one split of it where it has folds."""
    parts = None if split is None else split.parts
    found = gallery.overview(store.classes, store.labels, parts, store.manifest["skipped"], examples)
    images = {each.name: [gallery.thumbnail(store.images[row]) for row in each.images] for each in found.classes}
    rows = [
        {"reason": Field(reason), "files": Field(str(count), count), "such as": Field(first)}
        for reason, count, first in found.skipped
    ]
    skipped = Table(f"skipped-{name}", "What was skipped, and why", rows) if rows else None
    tests = split.counts["test"] if split else 0
    told = promises.sentence(tests, store.labels.size, folds, tolerance, suggested=0)
    remarks = overview.smallest(store.classes, np.bincount(store.labels, minlength=len(store.classes)).tolist())
    return DataSet(name, found, images, skipped, [*remarks, *overview.remarks(store.manifest), told])


def _grouped(figures: Iterable[Figure]) -> dict[str, list[Figure]]:
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.group, []).append(figure)
    return groups


def _with_keys(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    content = read_json(path)
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(f"{path} has no {missing[0]!r}: delete it and run again to make it anew")
    return content


# Key in recommendation.json → heading of its table.
_VERDICTS = {
    "verdicts": "The smallest network",
    "ladder": "The networks that were judged",
    "claims": "Claims",
}


def verdict_tables(recommendation: Mapping[str, Any]) -> list[Table]:
    """The recommendation's records as tables; those without records are left out."""
    return [
        _verdict_table(name, caption, recommendation[name])
        for name, caption in _VERDICTS.items()
        if recommendation[name]
    ]


def _verdict_table(name: str, caption: str, records: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for record in records:
        place = {"data set": Field(record["dataset"]), "backbone": Field(record["backbone"])}
        outcome = {
            "verdict": _text(record["verdict"]),
            "accuracy %": _number(record["accuracy"], summary.percent),
            "drop, points": _interval(record, "drop"),
            "averaged over classes": _interval(record, "class_drop"),
            "lost classes": _text(", ".join(record["lost_classes"]) or None),
            "seeds": _number(record["seeds"], str),
            "failed seeds": _text(record["failed_seeds"] or None),
        }
        if name == "claims":
            rows.append(place | {"claim": _text(record["sentence"])} | outcome)
            continue
        network = {
            "measure": _text(verdict.MEASURES.get(record["measure"], record["measure"])),
            "criterion": _text(summary.network_name(record)),
            "scope": _text(summary.SCOPE_NAMES.get(record["scope"])),
            "ratio": _ratio(record["ratio"], record["round_to"]),
            "init": _text(record["init"]),
            "protocol": _text(record["protocol"]),
            "size": _size(record),
        }
        # The sentence is among the lines above the tables, or says no more than the fields.
        rows.append(place | network | outcome)
    return _compact(Table(name, caption, rows))


def summary_table(frame: pd.DataFrame) -> Table:
    """The summary's rows with the texts that the other forms of the summary have, and the numbers behind them."""
    text = summary.formatted(frame)
    numbers = {
        "ratio": "ratio",
        "accuracy %": "accuracy",
        "drop, points": "drop",
        "removed": "achieved_ratio",
        "params": "params",
        "MACs": "macs",
    }
    latencies = {name: column for column, name in LATENCIES.items() if column in frame}
    rows = []
    for shown, row in zip(text.to_dict("records"), frame.to_dict("records"), strict=True):
        fields = {
            "data set": Field(row["dataset"]),
            "backbone": Field(row["backbone"]),
            "scope": _text(summary.SCOPE_NAMES.get(row["scope"])),
            "criterion": Field(shown["criterion"]),
            "init": Field(row["init"]),
            "protocol": Field(row["protocol"]),
        }
        for name, column in numbers.items():
            # Where there is nothing to read there is nothing to sort by: the baseline's drop against itself.
            fields[name] = Field(shown[name], None if shown[name] == MISSING else float(row[column]))
        for name, column in latencies.items():
            fields[name] = _number(None if pd.isna(row[column]) else row[column], summary.milliseconds)
        fields["seeds"] = Field(shown["seeds"], float(row["seeds"]))
        fields["failed seeds"] = _text(row["failed_seeds"] or None)
        rows.append(fields)
    return _compact(Table("summary", "One row a network and its seeds", rows))


def candidates_table(record: growth.Step) -> Table:
    """The networks of a grid that grew, with what they were compared by and why those were not judged that were not."""
    rows = [
        {
            "data set": Field(row["dataset"]),
            "backbone": Field(row["backbone"]),
            "scope": _text(summary.SCOPE_NAMES.get(row["scope"])),
            "criterion": Field(summary.network_name(row)),
            "init": Field(row["init"]),
            "protocol": Field(row["protocol"]),
            "ratio": _ratio(row["ratio"], row["round_to"]),
            "epochs": _text(protocols.share(row["trained"]) if protocols.is_short(row["trained"]) else None),
            "validation accuracy %": _number(row["val_accuracy"], summary.percent),
            "validation drop, points": _number(row["drop"], summary.percent),
            "why no finalist": _text(row["reason"]),
        }
        for row in record["candidates"]
    ]
    return _compact(Table("candidates", growth.sentence(record), rows))


def failed_seeds(frame: pd.DataFrame) -> list[str]:
    """The seeds that have no result, in words."""
    return [
        f"{row['dataset']}, {row['backbone']}: {summary.network_name(row)}, {row['scope']}, ratio {row['ratio']:g}, "
        + ", ".join([row["init"], *([] if row["protocol"] == ONE_SHOT else [row["protocol"]])])
        + f": seed {row['failed_seeds']}"
        for row in frame[frame["failed_seeds"] != ""].to_dict("records")
    ]


def _compact(table: Table) -> Table:
    """The table without the columns in which nothing is known, or in which all rows say the same."""
    kept, common = [], {}
    for name in table.columns:
        known = {row[name].text for row in table.rows} - {MISSING}
        if name == "protocol" and known <= {ONE_SHOT}:
            continue
        if name in ("data set", "backbone", "measure", "init", "protocol") and len(known) == 1:
            common[name] = known.pop()
        elif known:
            kept.append(name)
    return dataclasses.replace(table, rows=[{name: row[name] for name in kept} for row in table.rows], common=common)


def _size(record: Mapping[str, Any]) -> Field:
    size, whole = record["size"], record["baseline_size"]
    if size is None:
        return Field(MISSING)
    share = f" ({100 * size / whole:.0f} %)" if whole else ""
    return Field(
        (f"{summary.milliseconds(size)} ms" if record["measure"] == "latency_ms" else summary.quantity(size)) + share,
        size,
    )


def _text(value: str | None) -> Field:
    return Field(MISSING if value is None else value)


def _number(value: float | None, shown: Callable[[Any], str]) -> Field:
    return Field(MISSING) if value is None else Field(shown(value), value)


def _with_interval(found: Mapping[str, Any]) -> Field:
    """A ``drop`` with its interval from ``low`` to ``high``."""
    return _number(found["drop"], lambda drop: summary.bracketed(drop, found["low"], found["high"]))


def _ratio(ratio: float | None, round_to: int | None) -> Field:
    return _number(ratio, lambda ratio: f"{ratio:g}" if round_to is None else f"{ratio:g}~{round_to}")


def _interval(record: Mapping[str, Any], name: str) -> Field:
    bounds = record[f"{name}_low"], record[f"{name}_high"]
    return _number(record[name], lambda drop: summary.marked(summary.bracketed(drop, *bounds), record["unequal_seeds"]))


def facts(results: Path, cells: Mapping[grid.Cell, Mapping[str, Any] | None]) -> dict[str, str]:
    """What there is to say of the experiment's cells as a whole."""
    found = {cell: metrics for cell, metrics in cells.items() if metrics is not None}
    finished = sum(metrics["status"] == "finished" for metrics in found.values())
    counts = f"{len(cells)}, of which {finished} finished"
    if len(found) > finished:
        counts += f", {len(found) - finished} diverged"
    if len(cells) > len(found):
        counts += f", {len(cells) - len(found)} have no result"
    told = {"Cells": counts}
    if found:
        times = [(results / "cells" / cell.path / "metrics.json").stat().st_mtime for cell in found]
        first, last = _moment(min(times)), _moment(max(times))
        told["Cells made"] = first if first == last else f"{first} to {last}"
        seconds = sum(metrics["seconds"]["total"] for metrics in found.values())
        told["Time in them"] = str(datetime.timedelta(seconds=round(seconds)))
    told["Page made"] = _moment(datetime.datetime.now().timestamp())
    return told


def _moment(timestamp: float) -> str:
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def environments_table(cells: Iterable[Mapping[str, Any] | None]) -> Table:
    """On what the cells were made: a row a combination of device, precision, threads and versions."""
    found = [metrics for metrics in cells if metrics is not None]
    packages = list(dict.fromkeys(name for metrics in found for name in metrics["versions"]))
    counts = collections.Counter(
        (
            metrics["device"],
            metrics["precision"],
            metrics["threads"],
            *(metrics["versions"].get(name) for name in packages),
        )
        for metrics in found
    )
    rows = [
        {"device": _text(device), "precision": _text(precision), "threads": _number(threads, str)}
        | dict(zip(packages, map(_text, versions), strict=True))
        | {"cells": _number(count, str)}
        for (device, precision, threads, *versions), count in counts.most_common()
    ]
    return Table("environments", "Where the cells were made", rows)


def codes_table(experiment: Path, cells: Iterable[Mapping[str, Any] | None], code: str) -> Table:
    """A row a kind of result that the page reads, with the digests of the code that made it, as the results say."""
    made = {
        "cells": [metrics["spec"]["code"] for metrics in cells if metrics is not None],
        "summary": [_code_of(experiment / "summary.parquet")],
        "verdict": [_code_of(experiment / "recommendation.json")],
        "page": [code],
    }
    rows = [
        {
            "what": Field(name),
            "results": _number(len(found), str),
            "digest of the code": Field(", ".join(sorted({*found}))),
        }
        for name, found in made.items()
        if found
    ]
    return Table("codes", "The code that made them", rows)


def _code_of(path: Path) -> str:
    spec = provenance.spec_of(str(path))
    return json.loads(spec)["code"] if spec else "unknown"


def _beside(suffix: str) -> str:
    return _unclosed(_HERE.with_suffix(f".{suffix}").read_text(encoding="utf-8"))


def _unclosed(code: str) -> str:
    """Code that cannot end the <script> or <style> in which it stands; in a string, <\\/ says the same as </."""
    return re.sub(r"<(?=/(?:script|style)|!--)", r"<\\", code, flags=re.IGNORECASE)
