"""Cells as runs of MLflow, read back with it."""

from __future__ import annotations

import json
import sys

import pytest

from winnow import tables
from winnow.answers import tracking
from winnow.files import InputError, read_json, write_json
from winnow.workflow import grid

from . import programs
from .fabricated import metrics_of

EXPERIMENT = {
    **{"datasets": ["digits"], "backbones": ["net"], "criteria": ["apoz", "random"], "scopes": ["layer"]},
    **{"ratios": [0.2, 0.4], "inits": ["inherited"], "seeds": [0, 1]},
}
CELLS = grid.cells(EXPERIMENT)
SPEC = {"experiment": "tiny", "grid": EXPERIMENT}
RECIPE = {"epochs": 2, "learning_rate": 0.05, "augmentation": {"scale": [0.5, 1.0]}}
HISTORY = {
    **{"epoch": [1, 2], "train_loss": [2.0, 1.0], "val_loss": [None, 1.5], "val_accuracy": [None, 0.75]},
    **{"learning_rate": [0.05, 0.01], "seconds": [3.0, 4.0], "images_per_second": [10.0, 20.0]},
}
DIVERGED = CELLS[-1]


@pytest.fixture
def results(tmp_path):
    """Finished cells, and one that diverged; their names of classes are not MLflow's."""
    root = tmp_path / "results"
    for cell in CELLS:
        place = {name: getattr(cell, name) for name in ("dataset", "criterion", "ratio", "seed")}
        found = metrics_of(cell, ["a/b", "a:b", "花"]) | {"spec": {"cell": place, "recipe": RECIPE, "code": "c" * 32}}
        history = HISTORY
        if cell == DIVERGED:
            found |= {"status": "diverged", "reason": "the loss is nan", "accuracy": None, "per_class": {}}
            history = {name: [] for name in HISTORY}
        folder = root / "cells" / cell.path
        write_json(folder / "metrics.json", found | {"device": "a card", "versions": {"torch": "2.14.1"}})
        tables.write_table(folder / "history.parquet", history, "history", {})
        columns = {"layer": ["a"], "filter": [0], "keep": [True], "rank": [0]}
        tables.write_table(folder / "mask.parquet", columns, "mask", {})
    return root


def track(results):
    folder = results / "experiments" / "tiny"
    programs.run("track", SPEC, "--results", results, "--store", folder / "mlflow", "--output", folder / "mlflow.json")
    return read_json(folder / "mlflow.json")


def read_back(uri):
    """Cell → its runs."""
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed: make install EXTRAS=mlflow")
    client = mlflow.MlflowClient(uri)
    found = {}
    for run in client.search_runs([client.get_experiment_by_name("tiny").experiment_id]):
        found.setdefault(run.data.tags["winnow.cell"], []).append(run)
    return client, found


@pytest.fixture
def installed(monkeypatch):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed: make install EXTRAS=mlflow")
    monkeypatch.delenv(tracking.URI, raising=False)


def test_there_are_as_many_runs_as_cells_with_the_same_numbers(results, installed, tmp_path):
    written = track(results)
    store = results / "experiments/tiny/mlflow"
    assert written["uri"] == f"sqlite:///{store / 'mlflow.db'}"
    client, found = read_back(written["uri"])
    assert {path: [run.info.run_id] for path, (run,) in zip(found, found.values(), strict=True)} == {
        path: [run] for path, run in written["runs"].items()
    }
    assert set(found) == {cell.path for cell in CELLS}
    for cell in CELLS:
        (run,) = found[cell.path]
        metrics = read_json(results / "cells" / cell.path / "metrics.json")
        assert run.info.run_name == cell.path
        assert run.info.status == ("FAILED" if cell == DIVERGED else "FINISHED")
        for name in ("accuracy", "val_accuracy", "params", "macs", "bytes", "achieved_ratio"):
            assert run.data.metrics.get(name) == metrics[name], name
        assert run.data.metrics["seconds.total"] == 1.0
        assert run.info.end_time - run.info.start_time == 1000
        assert run.data.params["recipe.learning_rate"] == "0.05"
        assert run.data.params["recipe.augmentation.scale"] == "[0.5, 1.0]"
        assert (run.data.params["criterion"], run.data.params["seed"]) == (cell.criterion, str(cell.seed))
        assert run.data.tags["winnow.device"] == "a card"
        assert run.data.tags["winnow.versions.torch"] == "2.14.1"
        assert run.data.tags["winnow.spec.code"] == "c" * 32
        # Where they were written the folder had another name.
        kept = client.download_artifacts(run.info.run_id, "", str(tmp_path / "kept"))
        for name in ("metrics.json", "mask.parquet"):
            original = results / "cells" / cell.path / name
            assert (tmp_path / "kept" / name).read_bytes() == original.read_bytes(), kept
        steps = {
            name: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, f"history.{name}")]
            for name in ("train_loss", "val_accuracy")
        }
        known = {"train_loss": [(1, 2.0), (2, 1.0)], "val_accuracy": [(2, 0.75)]}
        assert steps == ({name: [] for name in known} if cell == DIVERGED else known)
    (run,) = found[CELLS[0].path]
    assert {name for name in run.data.metrics if name.startswith("per_class")} == {
        *("per_class.a_b", "per_class.a_b_2", "per_class.花")
    }


@pytest.mark.slow("has MLflow make a database, and write three experiments into it")
def test_a_server_gets_each_cell_once_and_a_changed_one_anew(results, installed, tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'server.db'}"
    monkeypatch.setenv(tracking.URI, uri)
    # Artefacts of a server's own lie where it wants them: here below the working directory.
    monkeypatch.chdir(tmp_path)
    first = track(results)
    assert first["uri"] == uri
    assert list((results / "experiments/tiny/mlflow").iterdir()) == []
    assert track(results)["runs"] == first["runs"]
    changed = results / "cells" / CELLS[0].path / "metrics.json"
    write_json(changed, read_json(changed) | {"accuracy": 0.5})
    again = track(results)
    assert {path for path, run in again["runs"].items() if run != first["runs"][path]} == {CELLS[0].path}
    client, found = read_back(uri)
    assert {path: len(runs) for path, runs in found.items()} == {cell.path: 1 + (cell == CELLS[0]) for cell in CELLS}
    new = client.get_run(again["runs"][CELLS[0].path])
    assert new.data.metrics["accuracy"] == 0.5
    assert {each.path for each in client.list_artifacts(new.info.run_id)} == {"metrics.json", "mask.parquet"}


def test_without_mlflow_the_error_says_how_to_get_it(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"MLflow is not installed: make install EXTRAS=mlflow"):
        track(results)
    assert not (results / "experiments/tiny/mlflow").exists()


def test_numbers_have_names_that_mlflow_takes_each_its_own():
    found = {"accuracy": 0.5, "resumed": True, "reason": None, "status": "finished", "loss": float("nan")}
    found |= {"per_class": {"a/b": 0.1, "a:b": 0.2, "a b.c-d": 0.3}, "spec": {"seed": 1}}
    assert tracking.numbers(json.loads(json.dumps(found))) == {
        **{"accuracy": 0.5, "per_class.a_b": 0.1, "per_class.a_b_2": 0.2, "per_class.a b.c-d": 0.3}
    }
