"""The tables and figures of docs/study.md, from the cells, masks and statistics of its experiments.

    make study                               runs what of the study is not done, then this
    python benchmarks/study.py               renews the tables from the cells that are kept, in any checkout
    python benchmarks/study.py --needs       names the files that the tables need beside the experiments

What results/ has of the study's cells goes to docs/study/cells.csv first, a line a cell: so a study of hours may be run
in parts and on several machines, each with results of its own, which are taken for newer than the lines. Tables stand
in docs/study.md between `<!-- table NAME -->` and `<!-- end -->`, and are replaced there, but for one that says what is
not kept: who wants it smaller empties it. Figures are those of the experiments' reports, copied to docs/study/. A drop
is the unpruned network's test accuracy less the pruned one's, in points, paired by seed and image, with its 95 %
interval (winnow.answers.intervals).
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import functools
import itertools
import math
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
import yaml
from snakemake.utils import update_config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from winnow import tables
from winnow.answers import analysis, intervals, outcomes, procedure, verdict
from winnow.importance import criteria, masks, sums
from winnow.training import protocols
from winnow.workflow import config, grid
from winnow.files import InputError, read_json

RESULTS = ROOT / "results"
DOCUMENT = ROOT / "docs/study.md"
CELLS = ROOT / "docs/study/cells.csv"
TABLE = re.compile(r"<!-- table (.*?) -->(.*?)<!-- end -->", re.S)
SUBSETS = {1: "flowers_1", 2: "flowers_2", 5: "flowers_5"}
RATIO = 0.4
RANKED = ("apoz", "mean_activation")
# What the names of experiments begin with that repair: in all ways, trained before the cut, between cuts or by a
# teacher, and with gradients that are cut. A word for the place follows, and one for what is tried there; a table joins
# those of a place.
REPAIRING = ("study_repairs_", "study_trained_", "study_clipped_")
# What columns of a table without drops say of a row's networks; the others say which they are.
FOUND = {
    *("seeds", "accuracy %", "by seed", "95 % interval over images", "validation accuracy %"),
    *("kept units in common %", "by chance %", "global", "global_normalized", "layer", "all"),
}
SEEDS = re.compile(r"\((\d+) of \d+ seeds\)")
# Those that the document shows, of each experiment.
FIGURES = {
    "study_flowers": ("flowers-squeezenet-global", "flowers-squeezenet-layer"),
    "study_googlenet": ("flowers-googlenet-global", "flowers-googlenet-layer"),
    "study_digits": ("few_digits-vgg_digits-global", "few_digits-vgg_digits-layer"),
}


def configuration() -> config.Config:
    """The study's configuration over that of the checkout, as Snakemake reads the two."""
    merged = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    update_config(merged, yaml.safe_load((ROOT / "docs/study/config.yaml").read_text(encoding="utf-8")))
    return config.load(merged)


class Measured(NamedTuple):
    """What is kept of a cell that has ended: what the tables need, and where it comes from.

    Attributes
    ----------
    status : str
        finished, or why it has no accuracy.
    val_accuracy : float or None
    correct : (n,) bool
        Whether each test image was recognised; none unless the cell is finished.
    params : int
        How many parameters it has.
    device : str
        What it was trained on.
    torch : str
        The version that it was trained with.
    """

    status: str
    val_accuracy: float | None
    correct: np.ndarray
    params: int
    device: str
    torch: str


COLUMNS = ("cell", "status", "val_accuracy", "test_images", "correct", "params", "device", "torch")


@functools.cache
def asked() -> set[str]:
    """The paths of all cells of the study."""
    settings = configuration()
    cells = cells_of(settings, *(name for name in settings.experiments if name.startswith("study_")))
    return {each.path for cell in cells for each in (cell, cell.baseline)}


@functools.cache
def measured() -> dict[str, Measured]:
    """Every cell of the study that :data:`CELLS` keeps or :data:`RESULTS` has, by its path; the latter are newer."""
    found = {path: each for path, each in read_cells().items() if path in asked()}
    for path in asked():
        if (RESULTS / "cells" / path / "metrics.json").exists():
            found[path] = stored(RESULTS / "cells" / path)
    return found


def stored(folder: Path) -> Measured:
    """What a cell's folder in the results says."""
    metrics = read_json(folder / "metrics.json")
    right = np.zeros(0, bool)
    if metrics["status"] == outcomes.FINISHED:
        predictions = tables.read_table(folder / "predictions.parquet", "predictions")
        right = predictions["correct"].to_numpy(zero_copy_only=False)
    version = metrics["versions"]["torch"].partition("+")[0]
    return Measured(metrics["status"], metrics["val_accuracy"], right, metrics["params"], metrics["device"], version)


def read_cells() -> dict[str, Measured]:
    """What :data:`CELLS` keeps."""
    if not CELLS.exists():
        return {}
    found = {}
    kept = pd.read_csv(
        CELLS, dtype={"correct": str, "torch": str}, na_values={"val_accuracy": ""}, keep_default_na=False
    )
    for row in kept.itertuples():
        bits = np.frombuffer(base64.b64decode(row.correct), np.uint8)
        right = np.unpackbits(bits, count=row.test_images).astype(bool)
        val_accuracy = None if np.isnan(row.val_accuracy) else row.val_accuracy
        found[row.cell] = Measured(row.status, val_accuracy, right, row.params, row.device, row.torch)
    return found


def write_cells(found: Mapping[str, Measured]) -> None:
    """Keep cells, in the order of their paths; what was right as bits in base64."""
    lines = []
    for path, each in sorted(found.items()):
        bits = base64.b64encode(np.packbits(each.correct).tobytes()).decode()
        trained = (each.params, each.device, each.torch)
        lines.append((path, each.status, each.val_accuracy, each.correct.size, bits, *trained))
    if gone := read_cells().keys() - found.keys():
        print(f"{CELLS.name}: {len(gone)} lines go, of cells that no experiment asks for, such as {min(gone)}")
    pd.DataFrame(lines, columns=COLUMNS).to_csv(CELLS, index=False, lineterminator="\n")


def correct(cell: grid.Cell) -> np.ndarray | None:
    """(n,) bool, whether each test image was recognised; None unless the cell is finished."""
    found = measured().get(cell.path)
    return found.correct if found and found.status == outcomes.FINISHED else None


def rows(cells: list[grid.Cell]) -> dict[grid.Cell, list[grid.Cell]]:
    """Cells that differ by their seed alone, under the first of them."""
    found: dict[grid.Cell, list[grid.Cell]] = {}
    for cell in cells:
        found.setdefault(dataclasses.replace(cell, seed=0), []).append(cell)
    return found


def accuracy(cells: list[grid.Cell]) -> str:
    """Mean test accuracy in per cent over the finished cells."""
    found = [correct(cell).mean() for cell in cells if correct(cell) is not None]
    return f"{100 * np.mean(found):.1f}" if found else ""


def drop(cells: list[grid.Cell]) -> str:
    """The drop and its interval, and how many pairs it is of where some are missing."""
    pairs = [(correct(cell.baseline), correct(cell)) for cell in cells]
    pairs = [(baseline, pruned) for baseline, pruned in pairs if baseline is not None and pruned is not None]
    if not pairs:
        return ""
    mean, low, high = intervals.paired_interval(*(np.array(side) for side in zip(*pairs, strict=True)))
    text = f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    return text if len(pairs) == len(cells) else f"{text} ({len(pairs)} of {len(cells)} seeds)"


def cells_of(settings: config.Config, *names: str) -> list[grid.Cell]:
    """Experiments' cells, each once."""
    return list(dict.fromkeys(cell for name in names for cell in grid.cells(settings.experiments[name].model_dump())))


def unpruned(settings: config.Config, *names: str) -> pd.DataFrame:
    """Each unpruned network of some experiments: accuracy a seed, and the interval over the test images; what its last
    layer begins with, where they differ in that."""
    lines = []
    for row, cells in rows(cells_of(settings, *names)).items():
        found = [correct(cell) for cell in cells if correct(cell) is not None]
        if row.criterion != grid.UNPRUNED or not found:
            continue
        images = found[0].size
        # Trainings of the same images are no independent trials: the interval is of one network's accuracy.
        interval = scipy.stats.binomtest(round(np.mean(found) * images), images).proportion_ci(method="wilson")
        recipe = settings.recipe(row.dataset, row.backbone)
        lines.append(
            {
                "data set": row.dataset,
                "backbone": row.backbone,
                "pixels": settings.datasets[row.dataset].image_size,
                "epochs": recipe.epochs,
                "last layer": protocols.FITTED if protocols.repairs(row.protocol) else "drawn",
                "seeds": len(found),
                "test images": images,
                "accuracy %": f"{100 * np.mean(found):.1f}",
                "by seed": ", ".join(f"{100 * each.mean():.1f}" for each in found),
                "95 % interval over images": f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
            }
        )
    frame = pd.DataFrame(lines)
    return frame if frame.empty or frame["last layer"].nunique() > 1 else frame.drop(columns="last layer")


def recipes(settings: config.Config, name: str) -> pd.DataFrame:
    """Each recipe that an experiment's unpruned networks were trained with, and their validation accuracy."""
    lines = []
    for row, cells in rows(grid.cells(settings.experiments[name].model_dump())).items():
        found = [measured()[cell.path] for cell in cells if cell.path in measured()]
        if row.criterion != grid.UNPRUNED or not found:
            continue
        recipe = settings.recipe(row.dataset, row.backbone)
        judged = [each.val_accuracy for each in found if each.status == outcomes.FINISHED]
        lines.append(
            {
                "backbone": row.backbone,
                "optimizer": recipe.optimizer,
                "learning rate": f"{recipe.learning_rate:g}",
                "epochs": recipe.epochs,
                "validation accuracy %": f"{100 * np.mean(judged):.1f}" if judged else "diverged",
            }
        )
    return pd.DataFrame(sorted(lines, key=lambda line: line["backbone"]))


def drops(settings: config.Config, *names: str) -> pd.DataFrame:
    """Experiments' pruned networks: a line a criterion, scope, init, repair and protocol, a column a ratio."""
    lines: dict[tuple, dict[str, str]] = {}
    for row, cells in rows(cells_of(settings, *names)).items():
        if row.criterion == grid.UNPRUNED:
            continue
        head = {"data set": row.dataset, "backbone": row.backbone, "scope": row.scope, "criterion": row.criterion}
        repairs, protocol = protocols.parted(row.protocol)
        head |= {"weights": row.init, "repairs": ", ".join(repairs) or protocols.NO_REPAIR, "protocol": protocol}
        line = lines.setdefault(tuple(head.values()), head)
        line[f"drop at {row.ratio:g}"] = drop(cells)
    frame = pd.DataFrame(lines.values())
    ratios = [column for column in frame if column.startswith("drop")]
    # Of a ratio that nothing is known of yet there is no column.
    frame = frame.drop(columns=[column for column in ratios if not frame[column].fillna("").any()])
    ratios = sorted((column for column in ratios if column in frame), key=lambda column: float(column.split()[-1]))
    frame = frame[(frame[ratios].fillna("") != "").any(axis=1)]
    constant = [column for column in frame if column not in ratios and frame[column].nunique() == 1]
    return frame[[column for column in frame if column not in (*constant, *ratios)] + ratios].fillna("")


def claims(settings: config.Config) -> pd.DataFrame:
    """Of each place the network at the claim's ratio that validation finds best, and whether the claim holds for it."""
    places: dict[tuple[str, str], dict[grid.Cell, list[grid.Cell]]] = {}
    for name in (name for name in settings.experiments if name.startswith(REPAIRING)):
        for row, cells in rows(grid.cells(settings.experiments[name].model_dump())).items():
            if row.ratio == verdict.CLAIM_RATIO and all(correct(each) is not None for each in cells):
                places.setdefault((row.dataset, row.backbone), {})[row] = cells
    lines = []
    for (dataset, backbone), found in places.items():
        # With the seeds that all of them were trained with accuracies compare as drops do.
        common = set.intersection(*({cell.seed for cell in cells} for cells in found.values()))
        best = max(found, key=lambda row: np.mean([val_accuracy(cell) for cell in found[row] if cell.seed in common]))
        pairs = [(correct(cell.baseline), correct(cell)) for cell in found[best]]
        if any(baseline is None for baseline, _ in pairs):
            continue
        bounds = intervals.paired_interval(*(np.array(side) for side in zip(*pairs, strict=True)))
        mean, low, high = (100 * each for each in bounds)
        judged = procedure.UNDECIDED
        if not low <= verdict.CLAIM_TOLERANCE < high:
            judged = procedure.FAILS if low > verdict.CLAIM_TOLERANCE else procedure.HOLDS
        lines.append(
            {
                "data set": dataset,
                "backbone": backbone,
                "networks": len(found),
                "best on validation": f"{best.criterion}, {best.scope}, {best.protocol}",
                "drop": f"{mean:.1f} [{low:.1f}, {high:.1f}]",
                f"under {verdict.CLAIM_TOLERANCE:g} points": judged,
            }
        )
    return pd.DataFrame(lines)


def val_accuracy(cell: grid.Cell) -> float:
    found = measured()[cell.path].val_accuracy
    assert found is not None
    return found


def wins(settings: config.Config, name: str) -> pd.DataFrame:
    """How often each criterion has the smallest drop among the data-driven ones, over scopes, ratios and seeds; nothing
    before all cells are there, since those that are missing may have won.
    """
    if not all(cell.path in measured() for cell in cells_of(settings, name)):
        return pd.DataFrame()
    best: dict[tuple, list[tuple[float, str]]] = {}
    for cell in grid.cells(settings.experiments[name].model_dump()):
        if cell.criterion == grid.UNPRUNED or grid.is_control(cell.criterion) or correct(cell) is None:
            continue
        best.setdefault((cell.scope, cell.ratio, cell.seed), []).append((correct(cell).mean(), cell.criterion))
    counts: dict[str, dict[str, float]] = {}
    for (scope, _, _), found in best.items():
        winners = [criterion for accuracy, criterion in found if accuracy == max(found)[0]]
        for winner in winners:
            counts.setdefault(winner, {}).setdefault(scope, 0)
            counts[winner][scope] += 1 / len(winners)
    frame = pd.DataFrame(counts).T.fillna(0)
    frame["all"] = frame.sum(axis=1)
    return frame.sort_values("all", ascending=False).round(1).rename_axis("criterion").reset_index()


def mask_of(dataset: str, backbone: str, criterion: str, scope: str) -> tuple[np.ndarray, np.ndarray]:
    """Layer and decision of each unit in a stored mask of :data:`RATIO`."""
    path = RESULTS / f"masks/{dataset}/{backbone}/{criterion}/{scope}/{RATIO:.3f}.parquet"
    table = tables.read_table(path, "mask")
    return table["layer"].to_numpy(zero_copy_only=False), table["keep"].to_numpy(zero_copy_only=False)


def shared(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> tuple[str, str]:
    """Per cent of the kept units that two masks have in common, and per cent if they were drawn at random."""
    (layers, one), (_, other) = first, second
    return f"{100 * analysis.overlap(one, other):.1f}", f"{100 * analysis.chance_overlap(one, other, layers):.1f}"


def needs() -> list[str]:
    """The masks and statistics that the tables are made from and no experiment makes."""
    subsets = [f"{criterion}@{dataset}" for criterion in RANKED for dataset in SUBSETS.values()]
    found = [
        f"results/masks/flowers/squeezenet/{criterion}/{scope}/{RATIO:.3f}.parquet"
        for scope in ("layer", "global")
        for criterion in (*RANKED, *subsets)
    ]
    return [
        *found,
        *(f"results/statistics/{dataset}/squeezenet/activations.json" for dataset in ("flowers", "cats")),
    ]


def stability() -> pd.DataFrame:
    """How much of the mask of all training images do few images find?"""
    lines = []
    for scope in ("layer", "global"):
        for criterion in RANKED:
            whole = mask_of("flowers", "squeezenet", criterion, scope)
            for count, dataset in SUBSETS.items():
                found, chance = shared(mask_of("flowers", "squeezenet", f"{criterion}@{dataset}", scope), whole)
                lines.append(
                    {
                        "criterion": criterion,
                        "scope": scope,
                        "images a class": count,
                        "images": 102 * count,
                        "kept units in common %": found,
                        "by chance %": chance,
                    }
                )
    return pd.DataFrame(lines)


def specificity() -> pd.DataFrame:
    """Do other images keep other filters? Masks by layer of apoz from parts of the images."""
    lines = []

    def compare(what: str, one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> None:
        found, chance = shared(one, other)
        lines.append({"masks compared": what, "kept units in common %": found, "by chance %": chance})

    cats, flowers = (part_of("squeezenet", dataset) for dataset in ("cats", "flowers"))
    half = np.random.default_rng(0).permutation(102)
    compare("the cats' and the dogs' images", cats([0]), cats([1]))
    compare("flowers of 51 classes and those of the 51 others", flowers(half[:51]), flowers(half[51:]))
    compare("flowers, and cats and dogs", flowers(range(102)), cats([0, 1]))
    one, other = (mask_of("flowers", "squeezenet", name, "layer") for name in ("apoz", "average_weight"))
    compare("apoz and average_weight on flowers", one, other)
    one, other = (mask_of("flowers", "squeezenet", name, "layer") for name in ("apoz", "taylor"))
    compare("apoz and taylor on flowers", one, other)
    return pd.DataFrame(lines)


def part_of(backbone: str, dataset: str) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """A function from classes to the by-layer mask of apoz from their images alone."""
    found = sums.read(RESULTS / f"statistics/{dataset}/{backbone}/activations.json", "activations")
    sizes = {layer["layer"]: layer["filters"] for layer in found.layers}

    def mask(wanted: object) -> tuple[np.ndarray, np.ndarray]:
        values = [criteria.apoz(found.over_classes(name, size, list(wanted))) for name, size in sizes.items()]
        layers = np.repeat(list(sizes), list(sizes.values()))
        return layers, masks.mask(layers, 1 - np.concatenate(values), "layer", RATIO).keep

    return mask


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table, numbers and what begins with one to the right."""
    right = [frame[column].map(lambda text: bool(re.match(r"^[-\d]|^$", str(text)))).all() for column in frame]
    lines = [
        list(map(str, frame.columns)),
        ["---:" if each else "---" for each in right],
        *frame.astype(str).to_numpy(),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables_of(settings: config.Config) -> dict[str, Callable[[], pd.DataFrame]]:
    """What makes each table that the document may ask for, by its name."""
    made: dict[str, Callable[[], pd.DataFrame]] = {"stability": stability, "specificity": specificity}
    made["claims"] = functools.partial(claims, settings)
    for kind in REPAIRING:
        for place, names in itertools.groupby(
            sorted(name for name in settings.experiments if name.startswith(kind)),
            lambda name, kind=kind: name.removeprefix(kind).partition("_")[0],
        ):
            together = tuple(names)
            made[f"{kind}{place} all"] = functools.partial(drops, settings, *together)
            made[f"{kind}{place} whole"] = functools.partial(unpruned, settings, *together)
    for name in (name for name in settings.experiments if name.startswith("study_")):
        made[f"{name} unpruned"] = functools.partial(unpruned, settings, name)
        made[f"{name} recipes"] = functools.partial(recipes, settings, name)
        made[f"{name} drops"] = functools.partial(drops, settings, name)
        made[f"{name} wins"] = functools.partial(wins, settings, name)
    return made


class Entry(NamedTuple):
    """What a table says of some networks: of which, by the names of columns, in which column, and of how many seeds."""

    networks: dict[str, str]
    column: str
    seeds: float

    def within(self, others: Sequence[Entry]) -> bool:
        """Whether one of ``others`` says it, of no fewer seeds. What has no column is the same in all of a table."""
        return any(
            other.column == self.column
            and other.seeds >= self.seeds
            and all(other.networks.get(name, value) == value for name, value in self.networks.items())
            for other in others
        )


def entries(table: str) -> list[Entry]:
    """A Markdown table's drops; of one without drops, its rows."""
    head, *lines = [[field.strip() for field in line.strip("|").split("|")] for line in table.strip().splitlines()] or [
        []
    ]
    found = []
    for line in lines[1:]:
        row = dict(zip(head, line, strict=True))
        drops = {name: row.pop(name) for name in head if name.startswith("drop")}
        if drops:
            for column, text in drops.items():
                part = SEEDS.search(text)
                if text:
                    found.append(Entry(row, column, int(part[1]) if part else math.inf))
        else:
            networks = {name: text for name, text in row.items() if name not in FOUND}
            found.append(Entry(networks, "", float(row.get("seeds", math.inf))))
    return found


def joined(old: str, new: str) -> str:
    """Two tables of :func:`claims` as one: of a place the line that chose from more networks, else the newer one."""
    found: dict[tuple[str, ...], str] = {}
    networks: dict[tuple[str, ...], int] = {}
    head, rule, *rows = new.splitlines()
    for row in old.strip().splitlines()[2:] + rows:
        *place, count = (field.strip() for field in row.strip("|").split("|")[:3])
        if int(count) >= networks.get(tuple(place), 0):
            found[tuple(place)], networks[tuple(place)] = row, int(count)
    return "\n".join([head, rule, *found.values()])


def main() -> None:
    write_cells(measured())
    made = tables_of(configuration())
    text = DOCUMENT.read_text(encoding="utf-8")

    def replaced(match: re.Match) -> str:
        name, old = match.groups()
        if name not in made:
            raise SystemExit(f"{DOCUMENT.name} asks for a table {name!r}; there are {', '.join(made)}")
        try:
            frame = made[name]()
            reason = "none of it is kept"
        except InputError as error:
            frame, reason = pd.DataFrame(), str(error)
        if not frame.empty:
            new = markdown(frame)
            if name == "claims":
                new = joined(old, new)
            else:
                before, after = entries(old), entries(new)
                reason = f"{sum(each.within(after) for each in before)} of its {len(before)} entries are kept"
            if name == "claims" or all(each.within(after) for each in before):
                return f"<!-- table {name} -->\n\n{new}\n\n<!-- end -->"
        print(f"table {name} stays as it is: {reason}")
        return match.group(0)

    DOCUMENT.write_text(TABLE.sub(replaced, text), encoding="utf-8")


def copy_figures() -> None:
    """Put the figures of :data:`FIGURES` that are drawn beside the study's configuration."""
    for experiment, names in FIGURES.items():
        for name in names:
            drawn = RESULTS / "experiments" / experiment / "figures" / f"{name}.svg"
            if drawn.exists():
                shutil.copyfile(drawn, DOCUMENT.parent / "study" / drawn.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--needs", action="store_true")
    if parser.parse_args().needs:
        print(*needs())
    else:
        main()
        copy_figures()
