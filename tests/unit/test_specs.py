"""What each job depends on: every key of a spec, and nothing that leaves the result alone."""

from __future__ import annotations

import copy
import json

import pytest

from winnow.workflow import config, specs

from .programs import SCRIPTS

RAW = {
    "targets": ["tiny"],
    "datasets": {
        name: {"source": "digits", "store_size": 8, "image_size": 8, "recipe": "quick"} for name in ("digits", "other")
    },
    "backbones": {
        "net": {
            "architecture": "vgg_digits",
            "head": "gap",
            "pretrain": {"dataset": "other", "recipe": "long", "seed": 0},
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        }
    },
    "recipes": {
        "quick": {"epochs": 3, "batch_size": 8, "learning_rate": 0.05},
        "long": {"epochs": 9, "batch_size": 8, "learning_rate": 0.05},
    },
    "experiments": {
        "tiny": {
            "datasets": ["digits"],
            "backbones": ["net"],
            "criteria": ["apoz"],
            "scopes": ["layer"],
            "ratios": [0.5],
            "seeds": [0],
        }
    },
}
PLACE = {"dataset": "digits", "backbone": "net", "criterion": "apoz", "scope": "layer", "ratio": "0.500"}
CELL = PLACE | {"init": "inherited", "seed": "0"}
TRUNK = {"dataset": "digits", "backbone": "net", "criterion": "apoz", "scope": "layer"}
TRUNK |= {"share": "1_4", "epochs": "1", "seed": "0"}
JOBS = {
    "decode": (specs.decode, {"dataset": "digits"}),
    "split": (specs.split, {"dataset": "digits", "fold": "only"}),
    "pretrain": (specs.pretrain, {"backbone": "net"}),
    "import_backbone": (specs.import_backbone, {"backbone": "net"}),
    "measure": (specs.measure, {"dataset": "digits", "backbone": "net"}),
    "score": (specs.score, {"dataset": "digits", "backbone": "net", "criterion": "apoz"}),
    "mask": (specs.mask, PLACE),
    "price": (specs.price, {"dataset": "digits", "backbone": "net", "measure": "macs"}),
    "time_layers": (specs.time_layers, {"dataset": "digits", "backbone": "net"}),
    "latency": (specs.latency, PLACE),
    "cell": (specs.cell, CELL),
    "tune": (specs.tune, PLACE | {"init": "inherited"}),
    "trunk": (specs.trunk, TRUNK),
    "grow": (specs.grow, {"experiment": "tiny", "step": "0"}),
    "summarize": (specs.summarize, {"experiment": "tiny"}),
    "recommend": (specs.recommend, {"experiment": "tiny"}),
    "plot": (specs.plot, {"experiment": "tiny"}),
    "track": (specs.track, {"experiment": "tiny"}),
    "report": (specs.report, {"experiment": "tiny"}),
}


def texts(raw) -> dict[str, str]:
    checked = config.load(raw)
    return {name: function(checked, **names).text(SCRIPTS) for name, (function, names) in JOBS.items()}


BEFORE = texts(RAW)
ANSWERS = {"grow", "summarize", "recommend", "plot", "track", "report"}

# An edit of the configuration → whose specs it changes.
EDITS = {
    "warm-up of the recipe": (
        lambda raw: raw["recipes"]["quick"].update(warmup_epochs=1),
        {"cell", "tune", "trunk", "report"},
    ),
    "precision of the recipe": (
        lambda raw: raw["recipes"]["quick"].update(precision="fp32"),
        {"cell", "tune", "trunk", "latency", "time_layers", "report"},
    ),
    "distillation, where nothing is distilled": (
        lambda raw: raw["recipes"]["quick"].update(distillation={"temperature": 2.0}),
        set(),
    ),
    "recipe of the pretraining": (lambda raw: raw["recipes"]["long"].update(epochs=8), {"pretrain", "report"}),
    # Of the same steps, but more of them: a trunk has its own number of epochs, by its path.
    "data set of another recipe": (
        lambda raw: raw["datasets"]["digits"].update(recipe="long"),
        {"cell", "tune", "report"},
    ),
    "classes of a data set": (lambda raw: raw["datasets"]["digits"].update(classes=[0, 1]), {"decode", "report"}),
    "seed of a data set's split": (lambda raw: raw["datasets"]["digits"].update(seed=1), {"split", "report"}),
    "images to train on": (lambda raw: raw["datasets"]["digits"].update(train_per_class=9), {"split", "report"}),
    # Answers are of cells with other images.
    "folds": (lambda raw: raw["datasets"]["digits"].update(folds=3), {"split"} | ANSWERS),
    "mean of the backbone": (
        lambda raw: raw["backbones"]["net"].update(mean=[0.4, 0.5, 0.5]),
        {"pretrain", "import_backbone", "report"},
    ),
    "min_filters": (lambda raw: raw["backbones"]["net"].update(min_filters=2), {"mask", "trunk", "report"}),
    "another ratio": (lambda raw: raw["experiments"]["tiny"]["ratios"].append(0.25), ANSWERS),
    "kept networks": (lambda raw: raw["experiments"]["tiny"].update(models="keep"), set()),
    "tolerance": (lambda raw: raw.update(tolerance=3.0), {"grow", "recommend"}),
    "class_margin": (lambda raw: raw.update(class_margin=5.0), {"grow", "recommend"}),
    # The page shows them with the rest of the experiment's entry.
    "measure": (lambda raw: raw["experiments"]["tiny"].update(measure="bytes"), {"grow", "recommend", "report"}),
    "budget": (lambda raw: raw["experiments"]["tiny"].update(budget={"macs": 9}), {"grow", "recommend", "report"}),
    "an experiment more": (
        lambda raw: raw["experiments"].update(more=raw["experiments"]["tiny"] | {"models": "keep"}),
        set(),
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_the_specs_of_the_jobs_that_depend_on_it_and_no_others(edit):
    change, expected = EDITS[edit]
    raw = copy.deepcopy(RAW)
    change(raw)
    after = texts(raw)
    assert {name for name in JOBS if after[name] != BEFORE[name]} == expected


def test_a_spec_is_one_text_whatever_the_order_of_keys():
    raw = {key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in RAW.items()}
    assert texts(raw) == BEFORE
    assert all(set(json.loads(text)) > {"code"} for text in BEFORE.values())


def test_a_reversed_criterion_and_one_on_other_images_are_the_same_function():
    checked = config.load(RAW)
    names = {"dataset": "digits", "backbone": "net"}
    plain, turned, foreign = (
        specs.score(checked, **names, criterion=name) for name in ("apoz", "reversed_apoz", "apoz@other")
    )
    assert plain.criterion == turned.criterion == foreign.criterion == "apoz"
    assert len({each.text(SCRIPTS) for each in (plain, turned, foreign)}) == 3
    seeded = specs.score(checked, **names, criterion="random~3")
    assert seeded.contents == {"criterion": "random", "source": None, "seed": 3}


def test_only_a_cell_that_prunes_while_it_trains_depends_on_min_filters():
    checked = config.load(RAW)
    assert "min_filters" not in specs.cell(checked, **CELL).contents
    alternating = specs.cell(checked, **CELL | {"init": "inherited~iterative_2"})
    assert alternating.contents["min_filters"] == 1
    assert alternating.criterion == "apoz"
    # What measures filters between phases is no code of a cell of one. A trunk has the floor of its mask, if any.
    assert specs.cell(checked, **CELL).without == (specs.BETWEEN_PHASES, specs.REPAIR)
    assert alternating.without == (specs.REPAIR,)
    assert specs.trunk(checked, **TRUNK).contents["min_filters"] == 1
    unpruned = specs.trunk(checked, **TRUNK | {"criterion": "unpruned", "scope": "none", "share": "0"})
    assert "min_filters" not in unpruned.contents
