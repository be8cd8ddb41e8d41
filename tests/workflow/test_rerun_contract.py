"""The re-run contract: an edit, and exactly the jobs that run after it.

Each row asks a dry run on a copy of a finished small grid: data sets ``digits`` and ``others``, criteria ``apoz`` and
``average_weight``, by layer, ratio 0.5, seed 0, and the two baselines. A few rows run for real, to see that what was
planned is what runs, and that it settles.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import pytest

from .checkout import ROOT, Checkout

DATASETS = ("digits", "others")
CRITERIA = ("apoz", "average_weight")


def masks(datasets: Iterable = DATASETS, criteria: Iterable = CRITERIA, ratio: str = "0.500") -> set[str]:
    return {f"mask {d}/net/{c}/layer/{ratio}" for d, c in itertools.product(datasets, criteria)}


def scores(datasets: Iterable = DATASETS, criteria: Iterable = CRITERIA) -> set[str]:
    return {f"score {d}/net/{c}" for d, c in itertools.product(datasets, criteria)}


def pruned(
    datasets: Iterable = DATASETS, criteria: Iterable = CRITERIA, ratio: str = "0.500", seed: int = 0
) -> set[str]:
    return {f"finetune {d}/net/{c}/layer/{ratio}/inherited/{seed}" for d, c in itertools.product(datasets, criteria)}


def baselines(datasets: Iterable = DATASETS, seed: int = 0) -> set[str]:
    return {f"finetune {d}/net/unpruned/none/0.000/inherited/{seed}" for d in datasets}


def latencies(datasets: Iterable = DATASETS) -> set[str]:
    """By layer all criteria share one."""
    return {f"latency {d}/net/{mask}" for d in datasets for mask in ("any/layer/0.500", "unpruned/none/0.000")}


def report(experiment: str = "small") -> set[str]:
    return {f"{rule} {experiment}" for rule in ("summarize", "recommend", "plot", "write_report")}


def configured(change: Callable[[dict], None]) -> Callable[[Checkout], None]:
    def edit(checkout: Checkout) -> None:
        config = checkout.config
        change(config)
        checkout.configure(config)

    return edit


def edited(file: str, old: str, new: str) -> Callable[[Checkout], None]:
    return lambda checkout: checkout.edit(file, old, new)


def appended(file: str, code: str) -> Callable[[Checkout], None]:
    def edit(checkout: Checkout) -> None:
        with open(checkout.path / file, "r+") as source:
            source.seek(0, os.SEEK_END)
            source.write(code)

    return edit


def touched(checkout: Checkout) -> None:
    for path in [checkout.path / "Snakefile", checkout.path / "config.yaml"]:
        os.utime(path)
    for folder in ("rules", "scripts", "envs"):
        for path in (checkout.path / folder).rglob("*.*"):
            os.utime(path)


def touched_masks(checkout: Checkout) -> None:
    for path in (checkout.path / "results" / "masks").rglob("*.parquet"):
        os.utime(path)


def swapped(config: dict) -> None:
    recipe = config["recipes"]["quick"]
    recipe["epochs"], recipe["batch_size"] = recipe["batch_size"], recipe["epochs"]


def reordered(config: dict) -> None:
    def turned(node):
        return {key: turned(node[key]) for key in reversed(node)} if isinstance(node, dict) else node

    config.update(turned(config))
    for key in sorted(config):
        config[key] = config.pop(key)


def renamed(config: dict) -> None:
    config["experiments"]["tiny"] = config["experiments"].pop("small")
    config["targets"] = ["tiny"]


def removed(*names: str) -> Callable[[Checkout], None]:
    def edit(checkout: Checkout) -> None:
        for name in names:
            path = checkout.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    return edit


def freshly_cloned(checkout: Checkout) -> None:
    """The sources as a clone leaves them, newer than the kept results; no record of Snakemake's."""
    time.sleep(0.01)
    touched(checkout)
    shutil.rmtree(checkout.path / ".snakemake")


STATISTIC_CELLS = pruned(criteria=["apoz"])
ALL_OF_A_DATASET = (("decode", ""), ("split", "/only"), ("measure", "/net"))
CODE = "\n\ndef an_added_function():\n    return 1\n"
CELL = "results/cells/digits/net/apoz/layer/0.500/inherited/0"

TABLE = {
    "nothing": (lambda checkout: None, set()),
    "sources and configuration touched": (touched, set()),
    "masks touched": (touched_masks, set()),
    "fresh clone over kept results": (freshly_cloned, set()),
    ".snakemake deleted": (removed(".snakemake"), set()),
    "YAML keys reordered": (configured(reordered), set()),
    "ratio added": (
        configured(lambda c: c["experiments"]["small"]["ratios"].append(0.25)),
        masks(ratio="0.250") | pruned(ratio="0.250") | report(),
    ),
    "criterion added": (
        configured(lambda c: c["experiments"]["small"]["criteria"].append("mean_activation")),
        scores(criteria=["mean_activation"])
        | masks(criteria=["mean_activation"])
        | pruned(criteria=["mean_activation"])
        | report(),
    ),
    "a reversed criterion added": (
        configured(lambda c: c["experiments"]["small"]["criteria"].append("reversed_apoz")),
        scores(criteria=["reversed_apoz"])
        | masks(criteria=["reversed_apoz"])
        | pruned(criteria=["reversed_apoz"])
        | report(),
    ),
    # On the data set itself it is the plain criterion; the other's statistics are there.
    "a criterion on another data set added": (
        configured(lambda c: c["experiments"]["small"]["criteria"].append("apoz@others")),
        scores(["digits"], ["apoz@others"])
        | masks(["digits"], ["apoz@others"])
        | pruned(["digits"], ["apoz@others"])
        | report(),
    ),
    "taylor added": (
        configured(lambda c: c["experiments"]["small"]["criteria"].append("taylor")),
        {"differentiate digits/net", "differentiate others/net"}
        | scores(criteria=["taylor"])
        | masks(criteria=["taylor"])
        | pruned(criteria=["taylor"])
        | report(),
    ),
    "helper of gradients edited": (appended("scripts/winnow/importance/gradients.py", CODE), set()),
    "a new criterion's function": (
        appended(
            "scripts/winnow/importance/criteria.py",
            '\n\n@criterion("new", needs="weights")\ndef new(weights):\n    return weights.sum(axis=(1, 2, 3))\n',
        ),
        set(),
    ),
    "a new criterion used": (
        lambda checkout: [
            appended(
                "scripts/winnow/importance/criteria.py",
                '\n\n@criterion("new", needs="weights")\ndef new(weights):\n    return weights.sum(axis=(1, 2, 3))\n',
            )(checkout),
            configured(lambda c: c["experiments"]["small"]["criteria"].append("reversed_new"))(checkout),
        ],
        scores(criteria=["reversed_new"])
        | masks(criteria=["reversed_new"])
        | pruned(criteria=["reversed_new"])
        | report(),
    ),
    "scope added": (
        configured(lambda c: c["experiments"]["small"]["scopes"].append("global_normalized")),
        {f"mask {d}/net/{c}/global_normalized/0.500" for d in DATASETS for c in CRITERIA}
        | {f"finetune {d}/net/{c}/global_normalized/0.500/inherited/0" for d in DATASETS for c in CRITERIA}
        | report(),
    ),
    "seed added": (
        configured(lambda c: c["experiments"]["small"]["seeds"].append(1)),
        pruned(seed=1) | baselines(seed=1) | report(),
    ),
    "learning rate of one data set's recipe": (
        configured(lambda c: c["recipes"]["quick"].update(learning_rate=0.06)),
        pruned(["digits"]) | baselines(["digits"]) | report(),
    ),
    "a recipe that no cell uses": (configured(lambda c: c["recipes"]["unused"].update(epochs=3)), set()),
    "latency switched on": (
        configured(lambda c: c["experiments"]["small"].update(latency=True)),
        scores(criteria=["any"]) | masks(criteria=["any"]) | latencies() | report(),
    ),
    "epochs swapped with batch size": (configured(swapped), pruned(["digits"]) | baselines(["digits"]) | report()),
    "experiment renamed": (configured(renamed), report("tiny")),
    "helper of masks edited": (appended("scripts/winnow/importance/masks.py", CODE), masks() | pruned() | report()),
    "helper of statistics edited": (
        appended("scripts/winnow/importance/statistics.py", CODE),
        {"measure digits/net", "measure others/net"}
        | scores(criteria=["apoz"])
        | masks(criteria=["apoz"])
        | STATISTIC_CELLS
        | report(),
    ),
    "one criterion's function edited": (
        edited("scripts/winnow/importance/criteria.py", "return np.abs(weights", "return 2 * np.abs(weights"),
        scores(criteria=["average_weight"])
        | masks(criteria=["average_weight"])
        | pruned(criteria=["average_weight"])
        | report(),
    ),
    "helper of all criteria edited": (
        appended("scripts/winnow/importance/criteria.py", CODE),
        scores() | masks() | pruned() | report(),
    ),
    "helper of data sets edited": (
        appended("scripts/winnow/data/datasets.py", CODE),
        {f"{rule} {d}{more}" for d in DATASETS for rule, more in ALL_OF_A_DATASET}
        | scores(criteria=["apoz"])
        | masks(criteria=["apoz"])
        | pruned()
        | baselines()
        | report(),
    ),
    # The images are what they were, and are not decoded again.
    "fewer images to train on": (
        configured(lambda c: c["datasets"]["digits"].update(train_per_class=7)),
        {"split digits/only", "measure digits/net"}
        | scores(["digits"], ["apoz"])
        | masks(["digits"], ["apoz"])
        | pruned(["digits"])
        | baselines(["digits"])
        | report(),
    ),
    "helper of splits edited": (
        appended("scripts/winnow/data/splits.py", CODE),
        {f"{rule} {d}{more}" for d in DATASETS for rule, more in ALL_OF_A_DATASET[1:]}
        | scores(criteria=["apoz"])
        | masks(criteria=["apoz"])
        | pruned()
        | baselines()
        | report(),
    ),
    "helper of backbones edited": (
        appended("scripts/winnow/networks/backbones.py", CODE),
        {"import_backbone net", "measure digits/net", "measure others/net"}
        | scores()
        | masks()
        | pruned()
        | baselines()
        | report(),
    ),
    "helper of training edited": (
        appended("scripts/winnow/training/loop.py", CODE),
        pruned() | baselines() | report(),
    ),
    "helper of summaries edited": (appended("scripts/winnow/answers/summary.py", CODE), report()),
    "helper of figures edited": (
        appended("scripts/winnow/answers/figures/look.py", CODE),
        {"plot small", "write_report small"},
    ),
    "analysis behind figures edited": (
        appended("scripts/winnow/answers/analysis.py", CODE),
        {"plot small", "write_report small"},
    ),
    "stage program edited": (appended("scripts/plot.py", CODE), {"plot small", "write_report small"}),
    "template of the report edited": (
        appended("scripts/winnow/answers/report.html", "<!-- -->"),
        {"write_report small"},
    ),
    "how jobs run edited": (appended("scripts/winnow/runtime/devices.py", CODE), set()),
    "comment, docstring and formatting edited": (
        lambda checkout: [
            appended(f"scripts/winnow/{name}.py", "\n\n# A comment.\n\n\n")(checkout)
            for name in ("training/loop", "importance/masks", "importance/statistics", "files", "tables")
        ],
        set(),
    ),
    "one cell's metrics deleted": (
        removed(f"{CELL}/metrics.json"),
        {"finetune digits/net/apoz/layer/0.500/inherited/0"} | report(),
    ),
    "one cell deleted": (removed(CELL), {"finetune digits/net/apoz/layer/0.500/inherited/0"} | report()),
    # A mask that finished cells were made from is not needed again.
    "mask deleted": (removed("results/masks/digits/net/apoz/layer/0.500.parquet"), set()),
    # But figures show it; and what a mask is made for again is made again from it.
    "mask deleted and figures edited": (
        lambda checkout: [
            removed("results/masks/digits/net/apoz/layer/0.500.parquet")(checkout),
            appended("scripts/plot.py", CODE)(checkout),
        ],
        masks(["digits"], ["apoz"]) | pruned(["digits"], ["apoz"]) | report(),
    ),
}


# One of each kind: the configuration has more, the code of a stage in the middle has changed, and a file that was made
# is gone.
FOR_REAL = ("ratio added", "helper of statistics edited", "mask deleted and figures edited")


@pytest.mark.parametrize("row", TABLE)
def test_after_an_edit_exactly_these_jobs_are_planned(checkout, row):
    edit, expected = TABLE[row]
    edit(checkout)
    assert checkout.planned() == expected


@pytest.mark.parametrize("row", FOR_REAL)
def test_what_is_planned_runs_and_then_there_is_nothing_to_do(checkout, row):
    edit, expected = TABLE[row]
    edit(checkout)
    assert checkout.run() == expected
    assert checkout.planned() == set()


def test_without_snakemakes_records_a_change_is_told_though_nothing_runs(checkout, finished):
    shutil.rmtree(checkout.path / ".snakemake")
    configured(lambda c: c["recipes"]["quick"].update(learning_rate=0.06))(checkout)
    output = checkout.snakemake()
    assert "WARNING: 3 results were made with another configuration or code" in output
    assert "results/cells/digits/net" in output
    assert checkout.run("--forcerun", "finetune") == pruned() | baselines() | report()
    assert "WARNING" not in checkout.snakemake()
    # And of both folders of results it is said what changed.
    folders = [each.path / "results" for each in (finished, checkout)]
    said = subprocess.check_output([sys.executable, ROOT / "scripts/compare_runs.py", *folders], text=True)
    assert "\ncells: recipe.learning_rate 0.05 → 0.06\n3 cells, " in said
    assert said.endswith("\n3 cells are the same.\n")


@pytest.mark.slow("a grid is run there and back")
def test_there_and_back_is_free_with_snakemakes_cache(checkout, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    cached = (f"{CELL}/metrics.json", "--cache", "finetune")
    first, second = checkout.config, checkout.config
    second["recipes"]["quick"]["learning_rate"] = 0.06
    checkout.run(*cached, "--forcerun", "finetune", SNAKEMAKE_OUTPUT_CACHE=str(cache))
    stored = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    checkout.configure(second)
    checkout.run(*cached, SNAKEMAKE_OUTPUT_CACHE=str(cache))
    checkout.configure(first)
    checkout.run(*cached, SNAKEMAKE_OUTPUT_CACHE=str(cache))
    # Nothing was computed on the way back: the cell is the first run's files.
    metrics = checkout.path / CELL / "metrics.json"
    assert metrics.is_symlink()
    assert stored[metrics.resolve().name] == metrics.resolve().stat().st_mtime_ns
    assert 'learning_rate": 0.05' in metrics.read_text()

    other = Checkout(tmp_path / "other")
    other.run(*cached, SNAKEMAKE_OUTPUT_CACHE=str(cache))
    assert (other.path / CELL / "metrics.json").resolve() == metrics.resolve()
