"""MLflow is a target of its own: nothing else asks for it, and it asks for the cells."""

from __future__ import annotations

import importlib.util
import json

STORE = "results/experiments/small/mlflow"


def test_cells_are_given_to_mlflow_where_that_is_asked_for(checkout):
    assert checkout.planned() == set()
    assert checkout.planned(STORE) == {"track small"}
    if importlib.util.find_spec("mlflow"):
        assert checkout.run(STORE) == {"track small"}
        written = json.loads((checkout.path / f"{STORE}.json").read_text())
        assert len(written["runs"]) == 6
        assert {file.name for file in (checkout.path / STORE).iterdir()} >= {"mlflow.db", "artifacts"}
        assert checkout.planned(STORE) == set()
    else:
        checkout.snakemake(STORE, status=1)
        log = (checkout.path / "results/logs/track/small.log").read_text()
        assert log == "error: MLflow is not installed: make install EXTRAS=mlflow\n"
