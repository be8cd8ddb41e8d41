"""The tables of the study, on invented cells: what stands in them, and that only finished cells do."""

import dataclasses
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from winnow import tables
from winnow.answers import intervals
from winnow.files import InputError, write_json
from winnow.workflow import grid

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("study", ROOT / "benchmarks/study.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "study", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "DOCUMENT", tmp_path / "study.md")
    monkeypatch.setattr(module, "CELLS", tmp_path / "cells.csv")
    return module


def write_cell(results, cell, correct, status="finished", val_accuracy=None):
    folder = results / "cells" / cell.path
    folder.mkdir(parents=True)
    count = len(correct)
    rows = {"image": np.arange(count), "label": np.zeros(count, int), "predicted": np.where(correct, 0, 1)}
    rows |= {"probability": np.full(count, 0.5), "correct": correct}
    tables.write_table(folder / "predictions.parquet", rows, "predictions", {})
    trained = {"params": 1000, "device": "Some, CPU", "versions": {"torch": "2.11.0+cpu"}}
    write_json(folder / "metrics.json", {"status": status, "val_accuracy": val_accuracy, **trained})


def test_the_studys_configuration_is_sound(study):
    settings = study.configuration()
    for name in settings.targets:
        assert name.startswith("study_")
        assert grid.cells(settings.experiments[name].model_dump())


def test_tables_have_the_drops_of_finished_cells_and_replace_those_that_stood_there(study):
    settings = study.configuration()
    cells = grid.cells(settings.experiments["study_digits_init"].model_dump())
    generator = np.random.default_rng(0)
    answers = {}
    for cell in cells:
        if cell.criterion == "apoz" and cell.ratio == 0.8:
            continue
        answers[cell] = generator.random(50) < (0.9 if cell.criterion == grid.UNPRUNED else 0.6)
        failed = cell.criterion == "average_weight" and cell.ratio == 0.2 and cell.seed == 4
        write_cell(study.RESULTS, cell, answers[cell], "diverged" if failed else "finished")
    study.DOCUMENT.write_text(
        "before\n<!-- table study_digits_init drops -->\nold\n<!-- end -->\nafter\n"
        "<!-- table study_flowers drops -->\nkept\n<!-- end -->\n"
    )
    study.main()
    text = study.DOCUMENT.read_text()
    assert text.startswith("before\n<!-- table study_digits_init drops -->\n\n| scope | criterion | weights |")
    assert "old" not in text
    assert "\nkept\n" in text
    assert "\nafter\n" in text
    chosen = [c for c in cells if (c.criterion, c.scope, c.ratio, c.init) == ("apoz", "layer", 0.4, "inherited")]
    baseline, pruned = (np.array([answers[c] for c in side]) for side in ([c.baseline for c in chosen], chosen))
    mean, low, high = (100 * each for each in intervals.paired_interval(baseline, pruned))
    (line,) = [line for line in text.splitlines() if line.startswith("| layer | apoz | inherited ")]
    assert f"| {mean:.1f} [{low:.1f}, {high:.1f}] |" in line
    assert line.endswith("|  |")
    assert "(4 of 5 seeds)" in next(x for x in text.splitlines() if x.startswith("| layer | average_weight | inher"))


def test_repairs_of_a_place_stand_in_one_table_and_the_claim_is_judged_of_what_validation_finds_best(study):
    settings = study.configuration()
    names = ("study_repairs_flowers", "study_repairs_flowers_fitted", "study_trained_flowers")
    cells = dict.fromkeys(cell for name in names for cell in grid.cells(settings.experiments[name].model_dump()))
    generator, shares = np.random.default_rng(0), {}
    for cell in cells:
        best = (cell.scope, cell.protocol) == ("layer", "compensated_recalibrated_iterative_3")
        # Validation knows nothing of it where a training failed, and nobody asks at another ratio.
        failed = (cell.scope, cell.protocol, cell.seed) == ("global", "compensated", 1)
        shares[cell] = 0.9 if cell.criterion == grid.UNPRUNED else 0.7 if best else 0.5
        val_accuracy = 1.0 if failed or cell.ratio == 0.2 else shares[cell]
        answers, status = generator.random(400) < shares[cell], "diverged" if failed else "finished"
        write_cell(study.RESULTS, cell, answers, status, val_accuracy)
    asked = ("study_repairs_flowers all", "study_trained_flowers all", "claims")
    study.DOCUMENT.write_text("".join(f"<!-- table {name} -->\n<!-- end -->\n" for name in asked))
    study.main()
    text = study.DOCUMENT.read_text()
    repaired, trained, claimed = (match[1].strip().splitlines() for match in study.TABLE.findall(text))
    assert repaired[0] == "| scope | criterion | repairs | drop at 0.2 | drop at 0.4 |"
    assert len(repaired) == 2 + 2 * 4 + 3
    assert "(2 of 3 seeds)" in next(line for line in repaired if "| global | average_weight | compensated |" in line)
    assert trained[0] == "| scope | criterion | protocol | drop at 0.2 | drop at 0.4 |"
    # One of taylor's is a cell of repairs, too.
    assert len(trained) == 2 + 2 * 4 + 1
    (line,) = claimed[2:]
    assert line.startswith(
        "| flowers | squeezenet | 16 | average_weight, layer, compensated_recalibrated_iterative_3 |"
    )
    assert line.endswith("| fails |")


def test_ratios_stand_in_their_order_whichever_experiment_comes_first(study):
    settings, names = study.configuration(), ("study_clipped_cats", "study_clipped_cats_fitted")
    for cell in study.cells_of(settings, *names):
        write_cell(study.RESULTS, cell, np.ones(4, bool))
    assert list(study.drops(settings, *names))[-2:] == ["drop at 0.2", "drop at 0.4"]


def test_a_claim_is_judged_of_what_is_best_with_the_seeds_that_all_have(study):
    settings = study.configuration()
    names = ("study_repairs_cats", "study_repairs_cats_scopes")
    cells = dict.fromkeys(cell for name in names for cell in grid.cells(settings.experiments[name].model_dump()))
    generator = np.random.default_rng(0)
    for cell in cells:
        best = (cell.criterion, cell.scope, cell.protocol) == ("average_weight", "layer", "compensated")
        # Two seeds that three trainings know nothing of.
        val_accuracy = 1.0 if cell.seed > 2 else 0.8 if best else 0.7
        write_cell(study.RESULTS, cell, generator.random(400) < 0.8, val_accuracy=val_accuracy)
    (line,) = study.claims(settings).to_dict("records")
    assert line["best on validation"] == "average_weight, layer, compensated"


def test_what_is_kept_makes_the_same_tables_where_there_are_no_results(study, capsys):
    settings = study.configuration()
    generator = np.random.default_rng(0)
    for cell in grid.cells(settings.experiments["study_protocols"].model_dump()):
        failed = (cell.protocol, cell.seed) == ("distilled", 1)
        write_cell(study.RESULTS, cell, generator.random(401) < 0.8, "diverged" if failed else "finished", 0.1 + 0.7)
    # One of another configuration, and one that was kept once.
    other = study.RESULTS / "cells" / dataclasses.replace(cell, dataset="own").path
    other.mkdir(parents=True)
    (other / "metrics.json").write_text("damaged")
    study.write_cells({"gone/squeezenet": study.Measured("finished", 0.5, np.ones(9, bool), 7, "CPU", "2.11.0")})
    asked = (
        "<!-- table study_protocols drops -->\n<!-- end -->\n<!-- table study_protocols unpruned -->\n<!-- end -->\n"
    )
    study.DOCUMENT.write_text(asked)
    study.main()
    text, kept, found = study.DOCUMENT.read_text(), study.CELLS.read_bytes(), study.measured()
    assert "(2 of 3 seeds)" in text
    assert "1 lines go, of cells that no experiment asks for, such as gone/squeezenet" in capsys.readouterr().out
    shutil.rmtree(study.RESULTS)
    study.measured.cache_clear()
    study.DOCUMENT.write_text(asked)
    study.main()
    assert study.DOCUMENT.read_text() == text
    assert study.CELLS.read_bytes() == kept
    assert set(study.measured()) == set(found)
    for path, each in study.measured().items():
        assert np.array_equal(each.correct, found[path].correct)
        assert each._replace(correct=found[path].correct) == found[path]


def test_of_two_words_for_a_cell_that_of_the_results_is_the_newer_one(study):
    cell, *_ = grid.cells(study.configuration().experiments["study_protocols"].model_dump())
    write_cell(study.RESULTS, cell, np.zeros(5, bool))
    study.write_cells(study.measured())
    shutil.rmtree(study.RESULTS)
    write_cell(study.RESULTS, cell, np.ones(5, bool))
    study.measured.cache_clear()
    assert study.correct(cell).all()


ROWS = "| protocol | drop at 0.2 |\n| --- | ---: |\n"
ONE_SHOT = "| one_shot | 3.0 [2.0, 4.0]{} |\n"
UNPRUNED = "| data set | backbone | seeds |\n| --- | --- | ---: |\n| flowers | squeezenet | {} |\n"


@pytest.mark.parametrize(
    ("name", "old", "stays"),
    [
        ("drops", ROWS + ONE_SHOT.format(""), True),
        ("drops", ROWS + ONE_SHOT.format(" (2 of 3 seeds)"), False),
        ("drops", ROWS + ONE_SHOT.format(" (3 of 5 seeds)"), True),
        ("drops", ROWS + "| iterative_3 | 4.0 |\n", True),
        ("drops", ROWS + ONE_SHOT.format(" (1 of 3 seeds)") + "| iterative_3 | 4.0 |\n", True),
        ("drops", ROWS + ONE_SHOT.format(" (1 of 3 seeds)") + "| iterative_3 |  |\n", False),
        # Where all rows were of one protocol nothing says which.
        ("drops", "| drop at 0.2 |\n| ---: |\n| 4.0 (1 of 3 seeds) |\n", False),
        ("drops", "| drop at 0.4 |\n| ---: |\n| 4.0 |\n", True),
        ("unpruned", UNPRUNED.format(2), False),
        ("unpruned", UNPRUNED.format(3), True),
        ("unpruned", "", False),
    ],
)
def test_a_table_that_says_more_than_what_is_kept_stays(name, old, stays, study, capsys):
    for cell in grid.cells(study.configuration().experiments["study_protocols"].model_dump()):
        if cell.protocol in ("one_shot", "fine_tune_first") and cell.seed < 2:
            write_cell(study.RESULTS, cell, np.ones(5, bool))
    document = f"<!-- table study_protocols {name} -->\n\n{old}\n<!-- end -->\n"
    study.DOCUMENT.write_text(document)
    study.main()
    assert (study.DOCUMENT.read_text() == document) == stays
    assert ("stays as it is" in capsys.readouterr().out) == stays


def test_a_table_of_which_nothing_is_kept_is_named(study, capsys):
    study.DOCUMENT.write_text("<!-- table study_protocols drops -->\n<!-- end -->\n")
    study.main()
    assert "table study_protocols drops stays as it is: none of it is kept" in capsys.readouterr().out


def test_no_other_configuration_has_data_sets_of_the_studys_names(study):
    own = yaml.safe_load((ROOT / "docs/study/config.yaml").read_text())["datasets"]
    for path in (ROOT / "config.yaml", *(ROOT / "config").glob("*.yaml")):
        assert not own.keys() & yaml.safe_load(path.read_text())["datasets"].keys()


def test_of_each_place_the_claim_is_that_of_most_networks(study):
    head = "| data set | backbone | networks | drop |\n| --- | --- | ---: | ---: |\n"
    old, new = (
        "| a | x | 3 | 1 |\n| b | x | 2 | 2 |\n| c | x | 2 | 3 |",
        "| b | x | 2 | 4 |\n| c | x | 1 | 5 |\n| c | y | 1 | 6 |",
    )
    rows = study.joined("\n\n" + head + old + "\n\n", head + new).removeprefix(head).splitlines()
    assert rows == ["| a | x | 3 | 1 |", "| b | x | 2 | 4 |", "| c | x | 2 | 3 |", "| c | y | 1 | 6 |"]
    assert study.joined("\n", head + new) == head + new


def test_recipes_are_held_against_each_other_on_validation_images(study):
    settings = study.configuration()
    cells = grid.cells(settings.experiments["study_recipes"].model_dump())
    right = np.ones(3, bool)
    write_cell(study.RESULTS, cells[0], right, val_accuracy=0.25)
    write_cell(study.RESULTS, cells[1], right, status="diverged")
    table = study.recipes(settings, "study_recipes")
    assert sorted(table["validation accuracy %"]) == ["25.0", "diverged"]
    assert set(table["learning rate"]) <= {"0.001", "0.003", "0.01", "0.03", "0.0001", "0.0003"}


def test_figures_are_those_of_the_reports(study):
    drawn = study.RESULTS / "experiments/study_digits/figures/few_digits-vgg_digits-layer.svg"
    drawn.parent.mkdir(parents=True)
    drawn.write_text("<svg/>")
    (study.DOCUMENT.parent / "study").mkdir()
    study.copy_figures()
    assert [path.name for path in (study.DOCUMENT.parent / "study").iterdir()] == [drawn.name]
    assert (study.DOCUMENT.parent / "study" / drawn.name).read_text() == "<svg/>"


def test_nothing_of_the_documents_tables_and_figures_is_made_by_hand(study):
    text = (ROOT / "docs/study.md").read_text()
    asked = [name for name, _ in study.TABLE.findall(text)]
    assert set(asked) <= set(study.tables_of(study.configuration()))
    assert len(asked) == len(set(asked)) == text.count("<!-- table ") == text.count("<!-- end -->") > 0
    left = study.TABLE.sub("", text)
    assert not re.findall(r"^\s*\|.*", left, re.MULTILINE)
    drawn = {f"study/{name}.svg" for names in study.FIGURES.values() for name in names}
    assert set(re.findall(r"!\[.*?\]\((.*?)\)", text, re.DOTALL)) == drawn
    assert {path.name for path in (ROOT / "docs/study").glob("*.svg")} == {Path(each).name for each in drawn}


def test_an_unknown_table_is_named(study):
    study.DOCUMENT.write_text("<!-- table nonsense --><!-- end -->")
    with pytest.raises((SystemExit, InputError), match="nonsense"):
        study.main()
