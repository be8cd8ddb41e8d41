"""What a user types first, and the demo that answers."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from winnow.answers import words
from winnow.tables import read_table
from winnow.workflow import config, grid

from .checkout import ROOT, SMALL_GRID, Checkout, jobs
from .test_rerun_contract import report

CRITERIA = ("apoz", "mean_activation", "average_weight")
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Checkout:
    """A checkout with the project's own configuration, in which nothing has run."""
    return Checkout(tmp_path_factory.mktemp("fresh") / "checkout", CONFIG)


# A bare run is that of all targets; what is none of them is asked for by name.
@pytest.mark.parametrize("target", ["", *(name for name in CONFIG["experiments"] if name not in CONFIG["targets"])])
def test_a_dry_run_of_every_target_lists_its_cells_and_the_disk_they_take(fresh, target):
    output = fresh.snakemake("-n", *([target] if target else []))
    experiments = CONFIG["targets"] if not target else [target]
    checked = config.load(CONFIG).experiments
    axes = [checked[name].model_dump() for name in experiments]
    # Of a grid that grows those are known that choose.
    cells, keeps = {cell for each in axes for cell in grid.cells(each)}, grid.keeps(axes)
    assert {job for job in jobs(output) if job.startswith("finetune")} == {
        f"{'finetune_kept' if keeps(cell) else 'finetune'} {cell.path}" for cell in cells
    }
    assert re.search(rf"Disk: about [\d.]+ [kMGT]B for {len(cells)} cells", output)
    # How fast the machine is, and how many images there are, is known of none of them yet.
    assert f"Time: not known for {len(cells)} trainings" in output.replace(" that are planned so far", "")
    assert re.search(r"snakemake results/statistics/\w+(~0)?/\w+/speed\.json$", output, re.MULTILINE)
    assert "test images: no drop" not in output
    assert not (fresh.path / "results").exists()


def test_kept_models_count_in_the_forecast(tmp_path):
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    raw["experiments"]["global"] |= {"models": "keep", "datasets": ["flowers102"], "ratios": [0.4], "seeds": [0]}
    output = Checkout(tmp_path / "checkout", raw).snakemake("-n", "global")
    # 4 networks of 84 M parameters, a baseline of 134 M, and 8,189 images of 256×256 pixels.
    size = float(re.search(r"Disk: about ([\d.]+) GB", output)[1])
    assert size == pytest.approx((4 * 84.1e6 * 4 + 134.7e6 * 4 + 8189 * 256 * 256 * 3) / 1e9, rel=0.05)


@pytest.mark.parametrize(
    "arguments", [["--lint"], ["demo", "--rulegraph"], ["demo", "--dag"], ["demo", "-n", "--until", "mask"], ["--list"]]
)
def test_snakemakes_habits_work(fresh, arguments):
    output = fresh.snakemake(*arguments)
    if arguments == ["--lint"]:
        assert "Congratulations" in output
    if "--until" in arguments:
        assert {job.split()[0] for job in jobs(output)} == {
            "decode", "split", "pretrain", "import_backbone", "measure", "score", "mask"
        }  # fmt: skip


def test_snakefiles_are_formatted():
    command = [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "rules"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_snakefile_loads_nothing_like_torch(fresh):
    code = "import sys; from snakemake.cli import main; sys.argv[1:] = ['-n', 'demo', '-q', '--cores', '1']\n"
    code += "try: main()\nexcept SystemExit: pass\nprint('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=fresh.path, capture_output=True, text=True)
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert loaded
    assert not loaded & {"torch", "torchvision", "safetensors", "sklearn", "scipy", "altair"}


@pytest.mark.slow("the whole demo is run")
def test_the_demo_answers(tmp_path):
    fresh = Checkout(tmp_path / "checkout", CONFIG)
    output = fresh.snakemake("demo")
    summary = read_table(fresh.path / "results/experiments/demo/summary.parquet", "summary").to_pylist()
    # Each once, and a few to judge.
    assert len(list((fresh.path / "results/cells").rglob("metrics.json"))) >= 25 + 6
    (baseline,) = [row for row in summary if row["criterion"] == "unpruned"]
    assert baseline["accuracy"] > 0.9
    assert all(row["latency_ms"] > 0 and row["latency_32_ms"] > 0 for row in summary)
    # Which criterion does best and whether it holds differs by processor; that cutting by chance costs dearly where the
    # best criterion costs little does not: at ratio 0.6 some 50 points against 1, seldom 10, with one seed.
    for scope in ("global", "layer"):
        drop = {(row["criterion"], row["ratio"]): row["drop"] for row in summary if row["scope"] == scope}
        best = {ratio: min(drop[name, ratio] for name in CRITERIA) for ratio in (0.4, 0.6)}
        assert best[0.4] < 0.08
        assert best[0.6] < 0.2
        assert drop["random", 0.6] > best[0.6] + 0.03
        assert (fresh.path / f"results/experiments/demo/figures/digits-vgg_digits-{scope}.svg").exists()
    # The summary, the places of its files and the verdict are the last thing that a run prints.
    assert "digits, vgg_digits" in output
    assert "results/experiments/demo/summary.csv" in output
    last = output[output.index("How small can it be?") :]
    answer = json.loads((fresh.path / "results/experiments/demo/recommendation.json").read_text())
    assert re.match(
        r"Digits, vgg_digits: (HOLDS|UNDECIDED|FAILS)[.:] .* \(drop -?[\d.]+ to -?[\d.]+; averaged over classes ",
        answer["lines"][0],
    )
    plain, detail = last.split("In detail:")
    (first_lines,) = words.opening(answer["answer"])
    assert " ".join(plain.split()) == f"How small can it be? {first_lines}"
    assert first_lines.startswith(("Your network can be ", "We cannot say yet ", "Your network should stay as it is"))
    assert all(line in " ".join(detail.split()) for line in answer["lines"])
    assert len(last.splitlines()) < 20
    # And of a run that has nothing to do.
    again = fresh.snakemake("demo")
    assert "results/experiments/demo/summary.csv" in again
    assert answer["lines"][0] in " ".join(again.split())


@pytest.mark.slow("a grid is answered and drawn twice")
def test_the_verdict_turns_with_the_tolerance_and_nothing_is_trained_for_it(checkout):
    # Predictions made for it: every pruned network errs on each tenth test image, the unpruned ones nowhere. What the
    # networks lost that were trained here may be more or less on another processor.
    for path in (checkout.path / "results/cells").rglob("predictions.parquet"):
        table = pq.read_table(path)
        correct = pa.array([number % 10 > 0 or "unpruned" in path.parts for number in range(len(table))])
        pq.write_table(table.set_column(table.column_names.index("correct"), "correct", correct), path)
    said = {}
    for tolerance in (20, 0):
        checkout.configure(checkout.config | {"tolerance": tolerance})
        assert checkout.run() <= report()
        said[tolerance] = checkout.snakemake()
    for tolerance, word, other in ((20, "HOLDS", "FAILS"), (0, "FAILS", "HOLDS")):
        assert said[tolerance].count(word) == 2, "one a data set"
        assert other not in said[tolerance]


@pytest.mark.slow("a grid is run twice, once without workers")
def test_workers_on_and_off_give_the_same_bytes(tmp_path):
    # Globally at a low ratio some layers lose nothing: their tensors are the kept backbone's, which no cell may change.
    raw = copy.deepcopy(SMALL_GRID)
    axes = {"datasets": ["digits"], "criteria": ["apoz"], "scopes": ["global", "layer"], "ratios": [0.02, 0.5]}
    raw["experiments"]["small"] |= axes
    finished, off = (Checkout(tmp_path / name, raw) for name in ("on", "off"))
    finished.run(WINNOW_WORKERS="on")
    off.run(WINNOW_WORKERS="off")
    cells = sorted(path.parent.relative_to(finished.path) for path in finished.path.rglob("metrics.json"))
    assert len(cells) == 5
    for cell in cells:
        for name in ("predictions.parquet",):
            assert (finished.path / cell / name).read_bytes() == (off.path / cell / name).read_bytes()
        warm, cold = (json.loads((place.path / cell / "metrics.json").read_text()) for place in (finished, off))
        for times in ("seconds", "images_per_second", "peak_mb"):
            warm.pop(times), cold.pop(times)
        # A history has its seconds.
        warm["files"].pop("history.parquet"), cold["files"].pop("history.parquet")
        assert warm == cold
    for pattern in ("results/masks/**/*.parquet", "results/scores/**/*.parquet", "results/statistics/**/*.*"):
        for path in finished.path.glob(pattern):
            if path.name == "speed.json":
                continue  # How long it took.
            assert path.read_bytes() == (off.path / path.relative_to(finished.path)).read_bytes()
