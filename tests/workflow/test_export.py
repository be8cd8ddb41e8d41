"""Exports: which cells they are of is known at run time, and the grid's own cells stay as they are."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from winnow.networks import models

from .checkout import Checkout, jobs

pytestmark = pytest.mark.slow("cells are trained again and exported")

CELL = "digits/net/apoz/layer/0.500/inherited/0"
OTHER = "others/net/unpruned/none/0.000/inherited/0"
MODELS = "results/experiments/small/models"


def recommend(checkout: Checkout, *cells: str) -> None:
    """Let these be the cells that the experiment recommends, whatever it found."""
    path = checkout.path / "results/experiments/small/recommendation.json"
    chosen = [{"dataset": cell.split("/")[0], "backbone": cell.split("/")[1], "cell": cell} for cell in cells]
    # A later time than the files that it was made from, and than what was made from it.
    time.sleep(0.01)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chosen": chosen}))


def state(checkout: Checkout) -> dict[str, tuple[int, bytes]]:
    """The files of the grid's cells, their times and contents."""
    files = sorted((checkout.path / "results/cells").rglob("*.*"))
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files if path.is_file()}


def exported(checkout: Checkout) -> dict[str, Path]:
    """The exported folders by name; Snakemake leaves a hidden file beside them."""
    return {folder.name: folder for folder in (checkout.path / MODELS).glob("[!.]*")}


def digest_of(folder: Path) -> str:
    return models.digest(models.load(folder)[0].state_dict())


@pytest.fixture
def recommended(checkout):
    recommend(checkout, CELL, OTHER)
    return checkout


def test_a_chosen_cell_that_was_not_kept_is_trained_again_and_exported(recommended):
    before = state(recommended)
    planned = recommended.snakemake("-n", "export")
    assert {job.split()[0] for job in jobs(planned)} == {"choose", "export_chosen", "write_certified"}
    assert recommended.run("export") == {
        "choose small", f"retrain {CELL}", f"retrain {OTHER}", "export_chosen small", "write_certified small"
    }  # fmt: skip
    assert state(recommended) == before
    assert not any(name.endswith(".safetensors") for name in before)
    folders = exported(recommended)
    assert set(folders) == {"digits-net", "others-net"}
    for cell in (CELL, OTHER):
        dataset = cell.split("/")[0]
        model = json.loads((folders[f"{dataset}-net"] / "model.json").read_text())
        again = recommended.path / "results/models" / cell
        assert {path.name for path in again.glob("[!.]*")} == {"model.safetensors", "model.json"}
        metrics = json.loads((recommended.path / "results/cells" / cell / "metrics.json").read_text())
        # The same network as the grid's, to the last bit, and to the last image in what it answers.
        assert digest_of(folders[f"{dataset}-net"]) == metrics["weights_sha256"] == digest_of(again)
        for each in model["certificates"]:
            assert each["weights_sha256"] == metrics["weights_sha256"]
            assert each["images"] == model["images"]["test"]
            assert each["as_judged"] == each["images"] or each["file"] == "model.int8.onnx"
        assert (model["certificates"][0]["drop"] is None) == (cell == OTHER)
        # No network is trained again to be held against it.
        assert model["corruptions"] is None
        assert model["accuracy"] == metrics["accuracy"]
        assert model["provenance"]["cell"]["cell"] == metrics["spec"]["cell"]
        assert (folders[f"{dataset}-net"] / "README.md").read_text().startswith(f"# {dataset}-net\n")
    page = (recommended.path / "results/experiments/small/report_models.html").read_text()
    assert all(f'id="table-certificates-{name}"' in page for name in folders)
    assert recommended.run("export") == set()


def test_what_is_gone_or_chosen_anew_is_exported_again_and_no_more(recommended):
    recommended.run(MODELS)
    shutil.rmtree(recommended.path / MODELS)
    assert recommended.run(MODELS) == {"export_chosen small"}
    recommend(recommended, CELL)
    assert recommended.run(MODELS) == {"choose small", "export_chosen small"}
    assert set(exported(recommended)) == {"digits-net"}
    # Said again, it is the same choice: Snakemake sees that the small file did not change.
    recommend(recommended, CELL)
    assert recommended.run(MODELS) == set()
    # The network trained again is no more than a step on the way: it is made anew when an export needs it.
    (recommended.path / "results/models" / CELL / "model.safetensors").unlink()
    assert recommended.run(MODELS) == set()
    shutil.rmtree(recommended.path / MODELS)
    assert recommended.run(MODELS) == {f"retrain {CELL}", "export_chosen small"}


def test_any_cell_is_exported_by_its_path_and_a_kept_one_is_not_trained_again(checkout):
    assert checkout.run(f"results/exports/{CELL}") == {f"retrain {CELL}", f"export_cell {CELL}"}
    config = checkout.config
    config["experiments"]["small"]["models"] = "keep"
    checkout.configure(config)
    ran = checkout.run(f"results/exports/{OTHER}")
    assert ran == {f"finetune_kept {OTHER}", f"export_cell {OTHER}"}
    assert (checkout.path / "results/exports" / OTHER / "model.onnx").exists()


def test_a_network_that_came_out_otherwise_is_not_exported(checkout):
    metrics = checkout.path / "results/cells" / CELL / "metrics.json"
    judged = json.loads(metrics.read_text())["weights_sha256"]
    metrics.write_text(metrics.read_text().replace(judged, "0" * 64))
    output = checkout.snakemake(f"results/exports/{CELL}", status=1)
    assert f"FAILED export_cell {CELL}" in output
    assert (
        f"is not the one that was judged: its weights have the SHA-256 {judged[:16]}…, the judged ones 0000" in output
    )
    assert not (checkout.path / "results/exports" / CELL).exists()


def test_the_grid_knows_of_no_export(finished):
    planned = finished.snakemake("-n", "--forceall")
    assert "checkpoint" not in planned
    # How long they took.
    told = r"^Time: about .* on this machine for \d+ trainings: .*as \d+ of net on digits took"
    assert re.search(told, planned, re.MULTILINE)


def test_a_recommendation_of_nothing_says_so(checkout):
    recommend(checkout)
    output = checkout.snakemake("export", status=1)
    assert "FAILED choose small" in output
    assert "recommends no cell: there is nothing to export until some have finished" in output
