"""How long a run's trainings take, from how fast a pass was: what is counted, what is known, and what is said."""

from __future__ import annotations

import dataclasses
import re

import pytest

from winnow.files import write_json
from winnow.tables import write_table
from winnow.workflow import config, grid, hours, wiring
from winnow.workflow.resources import Machine

from .test_specs import RAW

CONFIG = config.load(RAW)
MACHINE = Machine(cores=4, gpus=0, memory_mb=None)
SPEED = {"images": 100, "seconds": 10.0, "threads": 2, "gpu": False, "device": "a processor"}
UNPRUNED, PRUNED = grid.cells(CONFIG.experiments["tiny"].model_dump())
EPOCHS = CONFIG.recipe("digits", "net").epochs


def test_a_training_is_counted_in_passes_of_the_unpruned_network():
    found = hours.of_cell(CONFIG, UNPRUNED)
    assert (found.train, found.val, found.test) == (3 * EPOCHS, EPOCHS, 1)
    left = (1 - PRUNED.ratio) ** 2
    found = hours.of_cell(CONFIG, PRUNED)
    assert (found.train, found.val, found.test) == pytest.approx((3 * EPOCHS * left, EPOCHS * left, left))
    budget = dataclasses.replace(PRUNED, scope="budget_macs")
    assert hours.of_cell(CONFIG, budget).val == pytest.approx(EPOCHS * (1 - PRUNED.ratio))
    # Trained for as many operations as the unpruned one.
    equal = dataclasses.replace(PRUNED, init="random", protocol="equal_flops")
    assert hours.of_cell(CONFIG, equal).val == pytest.approx(EPOCHS)


def test_a_cell_that_begins_with_a_trunk_leaves_it_its_part():
    cell = dataclasses.replace(PRUNED, protocol="iterative_2")
    trunk = grid.trunk(cell, EPOCHS, {})
    early, late = (1 - cell.ratio / 2) ** 2, (1 - cell.ratio) ** 2
    assert hours.of_trunk(trunk).val == pytest.approx(EPOCHS // 2 * early)
    assert hours.of_cell(CONFIG, cell).val == pytest.approx((EPOCHS - EPOCHS // 2) * late)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A folder in which a data set is split, and a function that writes what a pass has measured."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / wiring.split("digits", None)
    path.parent.mkdir(parents=True)
    columns = {"image": [0], "split": ["train"]}
    write_table(path, columns, "split", {"counts": {"train": 1000, "val": 500, "test": 200}})

    def measure(place: str = "digits/net", **changes) -> None:
        write_json(tmp_path / "results/statistics" / place / "speed.json", SPEED | changes)

    return measure


def said(machine: Machine = MACHINE, processor: str | None = "a processor", more: bool = False) -> str:
    works = [hours.of_cell(CONFIG, cell) for cell in (UNPRUNED, UNPRUNED)]
    return hours.forecast(CONFIG, works, machine, processor, more)


def seconds_of(text: str) -> float:
    number, unit = re.search(r"about ([\d.]+) (s|min|h) ", text).groups()
    return float(number) * {"s": 1, "min": 60, "h": 3600}[unit]


def test_nothing_is_said_of_a_speed_that_nothing_has_measured(measured):
    text = said()
    assert text.startswith("Time: not known for 2 trainings before a pass has measured how fast this machine is: ")
    assert text.endswith("snakemake results/statistics/digits/net/speed.json")
    assert hours.forecast(CONFIG, [], MACHINE, "a processor", False) == ""


def test_hours_follow_from_what_a_pass_has_measured(measured):
    measured()
    # Ten images a second of two threads, twice as many of four.
    wanted = 2 * (EPOCHS * (3 * 1000 + 500) + 200) / 20
    text = said()
    assert seconds_of(text) == pytest.approx(wanted, rel=0.02)
    assert "on this machine for 2 trainings: net saw 10 images of digits a second (a processor)." in text
    assert seconds_of(said(dataclasses.replace(MACHINE, cores=2))) == pytest.approx(2 * wanted, rel=0.02)
    assert "2 trainings that are planned so far: " in said(more=True)
    # Of jobs that are submitted nobody knows how many run at a time.
    assert "of one of the machines that jobs are submitted to for 2" in said(processor=None)


def test_what_was_measured_elsewhere_does_not_count(measured):
    measured(device="another processor")
    assert "not known" in said()
    assert "not known" not in said(processor=None)
    measured(gpu=True, device="a GPU")
    assert "not known" in said()
    fast = dataclasses.replace(MACHINE, gpus=2)
    assert seconds_of(said(fast)) == pytest.approx(2 * (EPOCHS * 3500 + 200) / (10 * 2), rel=0.02)


def test_cells_that_have_finished_say_it_better(measured, tmp_path):
    measured()
    # In all three times as fast as the pass would have it; one was trained for longer, one on a GPU.
    for cell, epochs, lease in ((UNPRUNED, EPOCHS, None), (PRUNED, EPOCHS + 9, None), (PRUNED, EPOCHS, "0")):
        images = hours.of_cell(CONFIG, cell).images({"train": 1000, "val": 500, "test": 200})
        metrics = {"device": "a processor", "lease": lease, "threads": 1, "seconds": {"total": images / 15}}
        place = f"{cell.path.rpartition('/')[0]}/{epochs + len(lease or '')}"
        write_json(
            tmp_path / "results/cells" / place / "metrics.json", metrics | {"spec": {"recipe": {"epochs": epochs}}}
        )
    text = said()
    assert ": as 1 of net on digits took (a processor)." in text
    assert seconds_of(text) == pytest.approx(2 * (EPOCHS * 3500 + 200) / 60, rel=0.02)


def test_a_damaged_record_is_no_speed(measured, tmp_path):
    measured()
    (tmp_path / "results/statistics/digits/net/speed.json").write_text("{")
    assert "not known" in said()
