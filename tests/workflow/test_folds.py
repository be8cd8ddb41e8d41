"""A data set with folds: every image judges in one of them, and a change of what splits decodes nothing again."""

from __future__ import annotations

import copy
import json

import pytest

from winnow.tables import read_table

from .checkout import SMALL_GRID, Checkout

CELLS = ("unpruned/none/0.000/inherited", "apoz/global/0.500/inherited", "apoz/global/0.500/inherited~iterative_2")
ANSWERS = {f"{rule} small" for rule in ("summarize", "recommend", "plot", "write_report")}


def folded() -> dict:
    """Three folds and as many seeds: cells, and a trunk each; timed, and exported."""
    raw = copy.deepcopy(SMALL_GRID)
    del raw["datasets"]["others"], raw["recipes"]["brief"]
    raw["datasets"]["digits"] |= {"folds": 3, "train_per_class": 20}
    axes = {"datasets": ["digits"], "criteria": ["apoz"], "scopes": ["global"], "seeds": [0, 1, 2]}
    raw["experiments"]["small"] |= axes | {"protocols": ["one_shot", "iterative_2"], "latency": True}
    return raw


def splits(folds: int) -> set[str]:
    return {f"split digits/{fold}" for fold in range(folds)}


def of_fold(fold: int) -> set[str]:
    """The jobs that look at a fold's training images, and what follows from them before cells."""
    images = f"digits~{fold}/net"
    return {f"measure {images}", f"score {images}/apoz", f"mask {images}/apoz/global/0.500"}


def trained(seed: int) -> set[str]:
    cells = {f"finetune digits/net/{cell}/{seed}" for cell in CELLS}
    return cells | {f"trunk digits~{seed % 3}/net/apoz/global/1_4/1/{seed}"}


@pytest.fixture(scope="module")
def finished(shared) -> Checkout:
    return shared("folds", folded(), "all", "export")


@pytest.fixture
def checkout(finished, tmp_path) -> Checkout:
    return finished.copy(tmp_path / "checkout")


def changed(checkout: Checkout, **keys: object) -> set[str]:
    """The jobs that a data set of other keys has; None takes one away."""
    config = checkout.config
    config["datasets"]["digits"] |= keys
    config["datasets"]["digits"] = {key: value for key, value in config["datasets"]["digits"].items() if value}
    checkout.configure(config)
    return checkout.planned()


def test_every_image_is_judged_by_one_seed_of_a_round(finished):
    results = finished.path / "results"
    images = json.loads((results / "datasets/digits/manifest.json").read_text())["images"]
    for cell in CELLS:
        judged = []
        for seed in range(3):
            folder = results / f"cells/digits/net/{cell}/{seed}"
            judged += read_table(folder / "predictions.parquet", "predictions")["image"].to_pylist()
            assert json.loads((folder / "metrics.json").read_text())["split"] == str(seed)
        assert sorted(judged) == list(range(images))
    assert {path.name for path in (results / "masks").iterdir()} == {"digits~0", "digits~1", "digits~2"}
    recommended = json.loads((results / "experiments/small/recommendation.json").read_text())
    (chosen,) = recommended["chosen"]
    assert (results / "experiments/small/models/digits-net/model.onnx").exists()
    # The files are certified on the images of the fold that judged, by the weights that did.
    (model,) = json.loads((results / "experiments/small/certificates.json").read_text())["models"]
    judged = json.loads((results / "cells" / chosen["cell"] / "metrics.json").read_text())
    tested = read_table(results / "cells" / chosen["cell"] / "predictions.parquet", "predictions").num_rows
    for each in model["certificates"]:
        assert (each["weights_sha256"], each["images"]) == (judged["weights_sha256"], tested)


def test_a_seed_more_takes_its_cells_only(checkout):
    config = checkout.config
    config["experiments"]["small"]["seeds"].append(3)
    checkout.configure(config)
    # It is of the first fold, whose mask is there.
    assert checkout.planned() == trained(3) | ANSWERS


def test_other_folds_decode_nothing_again(checkout):
    every = set().union(*(trained(seed) for seed in range(3)))
    again = splits(3) | set().union(*map(of_fold, range(3))) | every | ANSWERS
    assert changed(checkout, train_per_class=18) == again | {"latency digits/net/apoz/global/0.500"}
    # Three seeds ask for three of four folds, all of them new.
    assert changed(checkout, folds=4) == again | {"latency digits/net/apoz/global/0.500"}
    found = changed(checkout, folds=None)
    assert {job for job in found if job.startswith(("split", "measure"))} == {"split digits/only", "measure digits/net"}
    assert not any(job.startswith(("decode", "import_backbone")) for job in found)


def test_a_data_set_that_folds_cannot_be_made_of_is_refused(checkout):
    config = checkout.config
    config["datasets"]["digits"]["split"] = {"val": 0.2, "test": 0.2}
    checkout.configure(config)
    output = checkout.snakemake(status=1)
    assert "datasets.digits: split.test is for one split, with folds each of them is a test: remove it" in output
