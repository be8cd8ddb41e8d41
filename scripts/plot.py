"""Draw an experiment's figures, each as SVG, PNG and Vega-Lite JSON, and list them in index.json.

Needs the experiment's summary and, below the folder of results, the scores and masks of its cells, their metrics and,
where a criterion looks at activations, the statistics. A figure that has no data is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
import pandas as pd

from winnow import cli, tables
from winnow.answers import analysis, growth, preference, summary
from winnow.answers.figures import accuracy, activations, classes, filters, look, weights
from winnow.files import InputError, atomic_path, file_digest, read_json, write_json
from winnow.importance import sums
from winnow.training.metrics import Metrics
from winnow.training.protocols import EQUAL_FLOPS, ONE_SHOT
from winnow.workflow import grid
from winnow.workflow.grid import UNPRUNED, Cell


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    frame = summary.read(arguments.summary)
    finished = finished_cells(frame, growth.experiment_cells(spec["grid"], arguments.growth))
    figures: dict[str, look.Figure] = {}
    places: dict[str, tuple[str, str]] = {}
    pruned = spec["grid"]["backbones"]
    for place in dict.fromkeys((cell.dataset, cell.backbone) for cell in finished if cell.backbone in pruned):
        cells = [cell for cell in finished if (cell.dataset, cell.backbone) == place]
        if all(cell.criterion == UNPRUNED for cell in cells):
            continue
        for figure in drawn(frame, cells, arguments.results, spec["folds"], spec["activations"]):
            if figure.name in figures:
                raise InputError(
                    f"data set and backbone {places[figure.name]} and {place} give figures of the same name, "
                    f"{figure.name}: rename one"
                )
            figures[figure.name], places[figure.name] = figure, place
    listed = sorted(figures.values(), key=lambda figure: list(look.Group).index(figure.group))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for figure in listed:
        look.write(figure, arguments.output)
    index = [{key: getattr(figure, key) for key in ("name", "group", "title", "caption")} for figure in listed]
    write_json(arguments.output / "index.json", index)
    if arguments.archive:
        pack(arguments.output, arguments.archive)
    if arguments.digests:
        write_json(arguments.digests, {path.name: file_digest(path) for path in sorted(arguments.output.iterdir())})
    print(f"{spec['experiment']}: {len(listed)} figures", file=sys.stderr)


def pack(folder: Path, path: Path) -> None:
    """Write the index, the SVGs and the specifications as one file: a storage knows files better than folders."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            if file.suffix in (".json", ".svg"):
                # Without its time: the same figures are the same file.
                archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes(), zipfile.ZIP_DEFLATED)


def finished_cells(frame: pd.DataFrame, cells: list[Cell]) -> list[Cell]:
    """Those cells that the summary counts: neither diverged nor missing."""
    failed = {
        dataclasses.replace(preference.cell_of(row), seed=int(seed))
        for row in summary.records(frame[frame["failed_seeds"] != ""])
        for seed in row["failed_seeds"].split(", ")
    }
    return [cell for cell in cells if cell not in failed]


def drawn(
    frame: pd.DataFrame, cells: list[Cell], results: Path, folds: grid.Folds, with_activations: bool
) -> Iterator[look.Figure]:
    """The figures of one data set and backbone, from its finished cells: one of a pruned network is among them.

    What differs by fold is shown of one: scores and masks of the first seed's, statistics of the first.
    """
    dataset, backbone = place = cells[0].dataset, cells[0].backbone
    scopes = [scope for scope in summary.SCOPE_NAMES if any(cell.scope == scope for cell in cells)]
    metrics: dict[Cell, Metrics]
    metrics = {cell: read_json(results / "cells" / cell.path / "metrics.json") for cell in cells}
    for scope in scopes:
        yield accuracy.against_ratio(frame, *place, scope)
    for cost in accuracy.COSTS:
        if cost in frame:
            yield from present(accuracy.against_cost(frame, *place, cost))
    for scope in scopes:
        row = summary.headline_rows(frame, *place, scope).iloc[0]
        yield from present(classes.class_losses(*accuracies_by_class(metrics, scope, row), row, *place, scope))
    gains = gains_from_weights(metrics)
    if (gains["scope"] != grid.NO_SCOPE).any():
        yield weights.inherited_less_random(gains, *place)

    shown = min(cells, key=lambda cell: cell.seed).images(folds)
    masked = [cell for cell in cells if cell.masked and (cell.criterion == grid.RANDOM or cell.images(folds) == shown)]
    if not masked:
        return
    scores = {}
    for cell in masked:
        path = cell.scores_path(folds)
        if path is not None and cell.mask_criterion not in scores:
            table = tables.read_table(results / "scores" / path, "scores")
            scores[cell.mask_criterion] = table["score"].to_numpy()
    layers = np.array(table["layer"].to_pylist())
    for scope in (scope for scope in scopes if any(cell.scope == scope for cell in masked)):
        masks = read_masks(results, [cell for cell in masked if cell.scope == scope], folds)
        yield filters.kept_by_layer(layers, masks, *place, scope)
        yield from present(filters.overlap(layers, masks, *place, scope))
    plain = {criterion: found for criterion, found in scores.items() if grid.parse_criterion(criterion)[1] is None}
    yield from present(filters.rank_correlation(layers, plain, *place))

    if with_activations:
        statistics = results / "statistics" / grid.first_images(dataset, folds) / backbone / "activations.json"
        responses = analysis.responses(sums.read(statistics, "activations"))
        names = read_json(results / "datasets" / dataset / "manifest.json")["classes"]
        yield from present(activations.class_specificity(responses, *place))
        yield from present(activations.activation_map(responses, names, *place))


def present(figure: look.Figure | None) -> list[look.Figure]:
    return [] if figure is None else [figure]


def read_masks(results: Path, cells: list[Cell], folds: grid.Folds) -> dict[tuple[str, float], list[np.ndarray]]:
    """(criterion, ratio) → the masks of its cells, each once."""
    masks: dict[tuple[str, float], dict[str, np.ndarray]] = {}
    for cell in cells:
        found = masks.setdefault((cell.criterion, cell.ratio), {})
        path = cell.mask_path(folds)
        if path is not None and path not in found:
            table = tables.read_table(results / "masks" / path, "mask")
            found[path] = table["keep"].to_numpy(zero_copy_only=False)
    return {key: list(found.values()) for key, found in masks.items()}


def accuracies_by_class(
    metrics: Mapping[Cell, Metrics], scope: str, row: pd.Series
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy a seed and class, of the summary's row of pruned networks and of their unpruned baselines."""
    same = ("criterion", "ratio", "init", "protocol")
    wanted = {
        cell: found["per_class"]
        for cell, found in metrics.items()
        if cell.scope == scope and all(getattr(cell, name) == row[name] for name in same)
    }
    pairs = {cell.seed: (found, metrics.get(cell.baseline)) for cell, found in wanted.items()}
    pruned = {seed: found for seed, (found, _) in pairs.items()}
    unpruned = {seed: baseline["per_class"] for seed, (_, baseline) in pairs.items() if baseline}
    return pd.DataFrame.from_dict(pruned, orient="index"), pd.DataFrame.from_dict(unpruned, orient="index")


def gains_from_weights(metrics: Mapping[Cell, Metrics]) -> pd.DataFrame:
    """Accuracy with inherited weights less that with random ones, in points: a row a network, over its seeds.

    The one's protocol is ``one_shot``, the other's what ``scratch_budget`` makes of that.
    """
    gains: dict[Cell, list[float]] = {}
    for cell, found in metrics.items():
        drawn = dataclasses.replace(cell, init="random")
        twins = [grid.canonical(dataclasses.replace(drawn, protocol=name)) for name in (ONE_SHOT, EQUAL_FLOPS)]
        after = next((metrics[twin]["accuracy"] for twin in twins if twin in metrics), None)
        before = found["accuracy"]
        if (cell.init, cell.protocol) == ("inherited", ONE_SHOT) and before is not None and after is not None:
            gains.setdefault(dataclasses.replace(cell, seed=0), []).append(100 * (before - after))
    rows = []
    for cell, values in gains.items():
        low, high = summary.interval(values)
        row = {"criterion": cell.criterion, "scope": cell.scope, "ratio": cell.ratio, "gain": float(np.mean(values))}
        rows.append(row | {"low": low, "high": high, "seeds": len(values)})
    columns = ["criterion", "scope", "ratio", "gain", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--summary", type=Path, required=True, metavar="FILE", help="the experiment's summary.parquet")
    cli.add_results(result)
    growth.add_argument(result)
    result.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the figures go")
    result.add_argument("--archive", type=Path, metavar="FILE", help="gets what a page needs of them, as one ZIP file")
    result.add_argument("--digests", type=Path, metavar="FILE", help="gets the SHA-256 of each file in there")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
