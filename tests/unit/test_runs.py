"""Two folders of results side by side: what differs between them is named by its key, with the cells and verdicts."""

from __future__ import annotations

import copy
import json

import pytest

from winnow import tables
from winnow.answers import runs
from winnow.files import InputError, read_json, write_json
from winnow.training import protocols
from winnow.workflow import config, grid, specs, wiring

from . import programs
from .fabricated import metrics_of

CONFIG = {
    "targets": ["small"],
    "datasets": {
        "digits": {"source": "digits", "classes": [5, 6], "store_size": 8, "image_size": 8, "recipe": "quick"},
        "others": {"source": "digits", "classes": [0, 1], "store_size": 8, "image_size": 8, "recipe": "brief"},
    },
    "backbones": {"net": {"architecture": "vgg_digits", "head": "gap", "weights": "random"}},
    "recipes": {
        "quick": {"epochs": 4, "batch_size": 8, "learning_rate": 0.05},
        "brief": {"epochs": 4, "batch_size": 4, "learning_rate": 0.02},
    },
    "experiments": {
        "small": {
            **{"datasets": ["digits", "others"], "backbones": ["net"], "criteria": ["apoz", "average_weight"]},
            **{"scopes": ["layer"], "ratios": [0.5], "inits": ["inherited"], "seeds": [0]},
        }
    },
}
SURROUNDINGS = {
    **{"device": "a processor", "precision": "fp32", "threads": 1, "micro_batch": 8, "split": "only"},
    "versions": {"torch": "2.14.1", "torchvision": "0.29.1", "winnow": "0.1.0"},
}
OTHERS = [cell.path for cell in grid.cells(CONFIG["experiments"]["small"]) if cell.dataset == "others"]


def place_of(cell: grid.Cell) -> dict[str, str]:
    names = ("dataset", "backbone", "criterion", "scope", "ratio", "init", "seed")
    return dict(zip(names, cell.path.split("/"), strict=True))


def spec_of(found: specs.Spec) -> dict:
    return json.loads(found.text(programs.SCRIPTS))


def verdict_of(dataset: str, verdict: str, criterion: str = "apoz") -> dict:
    network = {"control": None, "criterion": criterion, "scope": "layer", "ratio": 0.5, "round_to": None}
    return (
        {"dataset": dataset, "backbone": "net", "verdict": verdict}
        | network
        | {"init": "inherited", "protocol": "one_shot"}
    )


@pytest.fixture
def results(tmp_path):
    """Write what a configuration's experiment leaves, with the specs that its jobs have; accuracies are invented."""

    def write(name, raw=CONFIG, verdicts=("holds", "undecided"), better=lambda cell: 0.0, **surroundings):
        known, root = config.load(raw), tmp_path / name / "results"
        for cell in grid.cells(known.experiments["small"].model_dump()):
            metrics = metrics_of(cell) | SURROUNDINGS | surroundings
            metrics["accuracy"] += better(cell)
            spec = spec_of(specs.cell(known, **place_of(cell)))
            write_json(root / "cells" / cell.path / "metrics.json", metrics | {"spec": spec})
            if cell.masked:
                place = {key: text for key, text in place_of(cell).items() if key not in ("init", "seed")}
                columns = {"layer": ["a"], "filter": [0], "keep": [True], "rank": [0]}
                file = root / "masks" / cell.mask_path({})
                tables.write_table(file, columns, "mask", {"spec": spec_of(specs.mask(known, **place))})
        rows = [verdict_of(dataset, verdict) for dataset, verdict in zip(("digits", "others"), verdicts, strict=True)]
        spec = spec_of(specs.recommend(known, "small"))
        answer = {"verdicts": rows, "ladder": rows, "claims": [], "spec": spec}
        write_json(root / "experiments/small/recommendation.json", answer)
        return root

    return write


def changed(**keys) -> dict:
    """The configuration with other values: ``recipes__brief__learning_rate=0.01``."""
    raw = copy.deepcopy(CONFIG)
    for key, value in keys.items():
        *parents, last = key.split("__")
        entry = raw
        for parent in parents:
            entry = entry[parent]
        entry[last] = value
    return raw


def compared(before, after):
    return runs.compare(runs.Run(before), runs.Run(after))


def test_one_learning_rate_names_its_key_and_the_cells_and_verdicts_that_changed(results, tmp_path, capsys):
    before = results("a")
    other = changed(recipes__brief__learning_rate=0.01)
    after = results("b", other, ("holds", "holds"), lambda cell: 0.01 * (cell.dataset == "others"))
    programs.run("compare_runs", None, before, after, "--json", tmp_path / "found.json")
    said = capsys.readouterr().out
    assert "small, others, net: UNDECIDED, apoz, by layer, ratio 0.5 → HOLDS, apoz, by layer, ratio 0.5\n" in said
    assert "\ncells: recipe.learning_rate 0.02 → 0.01\n3 cells, 3 of them with other numbers:\n" in said
    for path in OTHERS:
        assert f"  {path}  accuracy " in said
    assert "digits/net" not in said
    assert said.endswith("\n3 cells are the same.\n")

    found = read_json(tmp_path / "found.json")
    change = {"stage": "cells", "key": "recipe.learning_rate", "before": "0.02", "after": "0.01"}
    assert [(pair["cell"], pair["specs"]) for pair in found["pairs"]] == [(path, [change]) for path in sorted(OTHERS)]
    assert {(each["question"], each["place"].split(",")[0]) for each in found["verdicts"]} == {
        ("verdicts", "others"),
        ("ladder", "others"),
    }


def test_an_earlier_versions_recommendation_has_fewer_keys(results):
    before = results("a")
    path = before / "experiments/small/recommendation.json"
    answer = read_json(path)
    for row in answer["ladder"] + answer["verdicts"]:
        for key in ("control", "round_to", "protocol"):
            row.pop(key, None)
    write_json(path, {key: answer[key] for key in ("ladder", "verdicts")})
    found = compared(before, results("b"))
    assert found.verdicts == []
    assert {change.before for change in found.questions["small"]} == {"missing"}


def test_the_same_results_differ_in_nothing(results):
    found = compared(results("a"), results("b"))
    assert (found.verdicts, found.questions, found.pairs, found.alike) == ([], {}, [], 6)
    assert runs.lines(found) == ["No verdict changed.", "", "6 cells are the same."]


def test_cells_and_answers_of_one_folder_alone_are_named(results):
    more = results("b", changed(experiments__small__ratios=[0.5, 0.25]))
    found = compared(results("a"), more)
    new = {cell.path for cell in grid.cells(CONFIG["experiments"]["small"] | {"ratios": [0.25]}) if cell.ratio}
    assert (found.only[0], set(found.only[1]), found.alike) == ([], new, 6)
    assert [change.key for change in found.questions["small"]] == ["grid.ratios"]
    assert "4 cells only after:" in runs.lines(found)
    (more / "experiments/small/recommendation.json").rename(more / "experiments/else.json")
    assert "small: only before" in runs.lines(compared(results("c"), more))


def test_a_change_of_what_a_cell_was_made_from_is_found_there(results):
    found = compared(results("a"), results("b", changed(backbones__net__min_filters=2)))
    assert list(found.explained) == [("masks: min_filters 1 → 2",)]
    assert {pair.cell.split("/")[2] for pair in found.pairs} == {"apoz", "average_weight"}
    assert found.alike == 2


def test_of_one_spec_and_other_numbers_versions_and_device_are_named(results):
    versions = SURROUNDINGS["versions"] | {"torch": "2.15.0"}
    after = results("b", better=lambda cell: 0.01 * (cell.criterion == "apoz"), device="a card", versions=versions)
    found = compared(results("a"), after)
    assert found.explained == {}
    ((reasons, pairs),) = found.unexplained.items()
    assert set(reasons) == {'cells: versions.torch "2.14.1" → "2.15.0"', 'cells: device "a processor" → "a card"'}
    assert len(pairs) == 2
    assert [change.key for change in pairs[0].numbers] == ["accuracy"]
    assert "The same specs and other numbers: nothing says why" in runs.lines(
        compared(results("c"), results("d", better=lambda cell: 0.01))
    )


def test_another_code_is_told_without_its_digest(results):
    before, after = results("a"), results("b")
    path = after / "cells" / OTHERS[0] / "metrics.json"
    metrics = read_json(path)
    write_json(path, metrics | {"spec": metrics["spec"] | {"code": "0" * 32}})
    found = compared(before, after)
    assert list(found.explained) == [("cells: code is another",)]
    assert f"  {OTHERS[0]}  the same numbers" in runs.lines(found)


@pytest.mark.parametrize("folds", [None, 3])
def test_what_a_cell_is_made_from_is_what_the_workflow_makes_it_from(folds):
    recipes = CONFIG["recipes"] | {"quick": CONFIG["recipes"]["quick"] | {"learning_rate": "auto"}}
    experiment = CONFIG["experiments"]["small"] | {"seeds": [0, 4, 5], "repairs": ["none", "compensated"]}
    experiment |= {"criteria": ["apoz", "taylor", "random", "average_weight"]}
    foreign = CONFIG["experiments"]["small"] | {"criteria": ["apoz@others"], "seeds": [0, 4]}
    experiments = {"small": experiment | {"protocols": ["one_shot", "iterative_2"]}, "foreign": foreign}
    raw = CONFIG | {"recipes": recipes, "experiments": experiments}
    if folds:
        raw["datasets"] = {name: entry | {"folds": folds} for name, entry in CONFIG["datasets"].items()}
    known = config.load(raw)
    for cell in [cell for each in known.experiments.values() for cell in grid.cells(each.model_dump())]:
        place, split = place_of(cell), wiring.split(cell.dataset, cell.fold(known.folds))
        wanted = [split, *wiring.rates(known, **place), *wiring.moments(known, **place), *wiring.mask(known, **place)]
        wanted += [f"{folder}/trunk.json" for folder in wiring.trunks(known, **place)]
        if cell.masked:
            images = cell.images(known.folds)
            wanted += wiring.statistics(known, images, cell.backbone, cell.mask_criterion)
            wanted += wiring.scores_of([cell], known.folds)
        name = split.rpartition("/")[2].removesuffix(".parquet")
        found = {f"results/{file}" for file in runs.made_from(cell, name, known.recipe(cell.dataset, "net").epochs)}
        assert set(wanted) <= found, cell
        # A protocol that trains first has moments of its own; a foreign data set may have folds or not.
        assert len(found - set(wanted)) <= 4 + ("@" in cell.criterion) + bool(protocols.repairs(cell.protocol)), cell


def test_a_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(InputError, match="has no results"):
        runs.Run(tmp_path)
