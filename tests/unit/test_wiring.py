"""Which files a job needs."""

from __future__ import annotations

import copy

import pytest

from winnow.workflow import config, grid, wiring

from .test_specs import CELL, PLACE, RAW

CONFIG = config.load(RAW)
UNPRUNED = {"criterion": "unpruned", "scope": "none", "ratio": "0.000"}


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("apoz", ["results/statistics/digits/net/activations.json"]),
        ("reversed_taylor", ["results/statistics/digits/net/gradients.json"]),
        ("apoz@other", ["results/statistics/other/net/activations.json"]),
        ("average_weight", []),
        ("random~3", []),
    ],
)
def test_a_score_needs_the_statistics_of_the_images_that_it_looks_at(criterion, expected):
    found = wiring.statistics(CONFIG, "digits", "net", criterion)
    assert found == expected
    assert wiring.arrays(found) == [file.replace(".json", ".npz") for file in expected]


def test_a_cell_needs_its_mask_or_makes_its_own():
    mask = ["results/masks/digits/net/apoz/layer/0.500.parquet"]
    assert wiring.mask(CONFIG, **CELL) == wiring.latency_mask(CONFIG, **PLACE) == mask
    assert wiring.mask(CONFIG, **CELL | UNPRUNED) == wiring.latency_mask(CONFIG, **PLACE | UNPRUNED) == []
    assert wiring.trunks(CONFIG, **CELL) == []
    for protocol, trunk, scores in (
        ("iterative_2", "apoz/layer/1_4/1/0", ["results/scores/digits/net/apoz.parquet"]),
        ("fine_tune_first", "unpruned/none/0/1/0", []),
    ):
        place = CELL | {"init": f"inherited~{protocol}"}
        assert wiring.mask(CONFIG, **place) == []
        assert wiring.trunks(CONFIG, **place) == [f"results/trunks/digits/net/{trunk}"]
        names = dict(zip(("criterion", "scope", "share", "epochs", "seed"), trunk.split("/"), strict=True))
        assert wiring.scores(CONFIG, dataset="digits", backbone="net", **names) == scores


def test_a_learning_rate_is_waited_for_only_where_the_recipe_leaves_it_to_a_search():
    trunk = {"dataset": "digits", "backbone": "net", "criterion": "unpruned", "scope": "none"}
    trunk |= {"share": "0", "epochs": "1", "seed": "4"}
    assert wiring.rates(CONFIG, **CELL) == wiring.rates(CONFIG, **trunk) == []
    raw = copy.deepcopy(RAW)
    raw["recipes"]["quick"]["learning_rate"] = "auto"
    raw["datasets"]["digits"]["folds"] = 3
    searching = config.load(raw)
    place = "results/rates/digits/net"
    assert wiring.rates(searching, **CELL) == [f"{place}/mean_activation/layer/0.500/inherited/rate.json"]
    unpruned = [f"{place}/unpruned/none/0.000/inherited/rate.json"]
    assert wiring.rates(searching, **trunk | {"dataset": "digits~1"}) == unpruned
    # What searches has no seed, and is of the first fold.
    searched = PLACE | {"criterion": "mean_activation", "init": "inherited~compensated"}
    assert wiring.cell_split(searching, **searched) == ["results/splits/digits/0.parquet"]
    assert wiring.mask(searching, **searched) == ["results/masks/digits~0/net/mean_activation/layer/0.500.parquet"]
    assert wiring.moments(searching, **searched) == ["results/statistics/digits~0/net/moments.json"]
    cells = grid.cells(searching.experiments["tiny"].model_dump() | {"criteria": ["apoz", "random"], "seeds": [0, 1]})
    assert len(wiring.rates_of(searching, cells)) == 2


def test_a_distilled_cell_learns_from_the_unpruned_one():
    assert wiring.teachers(CONFIG, **CELL) == []
    (teacher,) = wiring.teachers(CONFIG, **CELL | {"init": "random~distilled"})
    assert teacher.path == "digits/net/unpruned/none/0.000/inherited/0"


def test_figures_need_each_file_once_and_none_of_the_unpruned():
    axes = CONFIG.experiments["tiny"].model_dump() | {"criteria": ["apoz", "random"], "seeds": [0, 1]}
    cells = grid.cells(axes)
    assert wiring.masks(cells, {}) == [
        f"results/masks/digits/net/{criterion}/layer/0.500.parquet" for criterion in ("apoz", "random~0", "random~1")
    ]
    assert wiring.scores_of(cells, {}) == [
        f"results/scores/digits/net/{criterion}.parquet" for criterion in ("apoz", "random~0", "random~1")
    ]
    assert wiring.activations(cells, {}) == ["results/statistics/digits/net/activations.json"]
    assert wiring.manifests(cells) == ["results/datasets/digits/manifest.json"]
    unpruned = [cell for cell in cells if cell.criterion == grid.UNPRUNED]
    assert wiring.masks(unpruned, {}) == []
    # The verdict names classes, whatever is pruned.
    assert wiring.manifests(unpruned) == wiring.manifests(cells)
    assert wiring.looks_at_activations(CONFIG, "tiny")


def test_with_folds_the_seed_says_what_judges_and_masks_are_of_the_fold():
    raw = copy.deepcopy(RAW)
    for name in raw["datasets"]:
        raw["datasets"][name]["folds"] = 3
    folded = config.load(raw)
    cell = CELL | {"seed": "5"}
    assert wiring.cell_split(CONFIG, **cell) == ["results/splits/digits/only.parquet"]
    assert wiring.cell_split(folded, **cell) == ["results/splits/digits/2.parquet"]
    assert wiring.mask(folded, **cell) == ["results/masks/digits~2/net/apoz/layer/0.500.parquet"]
    (trunk,) = wiring.trunks(folded, **cell | {"init": "inherited~iterative_2"})
    assert trunk == "results/trunks/digits~2/net/apoz/layer/1_4/1/5"
    assert wiring.training_split(folded, "digits~2") == ["results/splits/digits/2.parquet"]
    assert wiring.training_split(CONFIG, "digits") == wiring.cell_split(CONFIG, **cell)
    assert wiring.statistics(folded, "digits~2", "net", "apoz") == ["results/statistics/digits~2/net/activations.json"]
    # What stands for a data set whatever the seed is of the first fold.
    foreign = wiring.statistics(folded, "digits~2", "net", "apoz@other")
    assert foreign == ["results/statistics/other~0/net/activations.json"]
    assert wiring.pretraining_split(folded, "net") == ["results/splits/other/0.parquet"]
    assert wiring.pretraining_split(CONFIG, "net") == ["results/splits/other/only.parquet"]
    assert wiring.latency_mask(folded, **PLACE) == ["results/masks/digits~0/net/apoz/layer/0.500.parquet"]
    cells = grid.cells(folded.experiments["tiny"].model_dump() | {"seeds": [0, 1, 2, 3]})
    assert len(wiring.masks(cells, folded.folds)) == len(wiring.scores_of(cells, folded.folds)) == 3
    assert wiring.activations(cells, folded.folds) == ["results/statistics/digits~0/net/activations.json"]


def test_a_budget_is_kept_by_prices_and_nothing_else_is():
    place = PLACE | {"scope": "budget_latency", "dataset": "digits~2"}
    assert wiring.prices(CONFIG, **place) == ["results/prices/digits/net/latency.json"]
    assert wiring.prices(CONFIG, **PLACE) == wiring.prices_between(CONFIG, **CELL) == []
    cell = CELL | {"scope": "budget_macs"}
    # Where masks are made between phases the cell needs them, and a trunk that begins with one.
    assert wiring.prices_between(CONFIG, **cell) == []
    alternating = cell | {"init": "inherited~iterative_2"}
    assert wiring.prices_between(CONFIG, **alternating) == ["results/prices/digits/net/macs.json"]
    trunk = PLACE | {"scope": "budget_params", "share": "1_4", "epochs": "1", "seed": "0"}
    assert wiring.prices_between(CONFIG, **trunk) == ["results/prices/digits/net/params.json"]


def test_only_a_folder_is_the_users_own_images():
    raw = copy.deepcopy(RAW)
    raw["datasets"]["mine"] = {"source": "folder", "path": "photos", "store_size": 8, "image_size": 8}
    assert wiring.own_images(config.load(raw), "mine") == ["photos"]
    assert wiring.own_images(CONFIG, "digits") == []


def test_weights_come_from_the_pretraining_with_its_digest():
    assert wiring.weights(CONFIG, "net") == ["results/backbones/net/pretrained.safetensors"]
    assert wiring.weights_manifest(CONFIG, "net") == ["results/backbones/net/pretrained.json"]


def test_a_target_asks_for_networks_only_where_they_are_kept():
    cells = grid.cells(CONFIG.experiments["tiny"].model_dump())
    dropped, kept = (wiring.finished(cells, keep) for keep in (False, True))
    assert len(dropped) == len(cells) * len(wiring.CELL_FILES)
    assert set(kept) - set(dropped) == {f"results/models/{c.path}/{name}" for c in cells for name in wiring.MODEL_FILES}
    assert "results/experiments/tiny/report.html" in wiring.answers("tiny")
