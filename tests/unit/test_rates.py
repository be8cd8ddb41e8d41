"""Learning rates that are searched: which is tried next, which is taken, and the program that trains with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow import tables
from winnow.files import InputError, read_json, write_json
from winnow.training import checkpoints, loop, rates
from winnow.training.rates import Try

from . import programs
from .test_finetune import RECIPE, comparable, finetuned, inputs, job, stored  # noqa: F401 - inputs is a fixture

AUTO = RECIPE | {"learning_rate": "auto", "epochs": 8, "augmentation": None}
IMAGES, CHANCE = 60, 0.2


def searched(outcome, recipe=AUTO):
    """The tries of a search in which a learning rate comes to (right images, loss), or None where it diverges."""
    tries = []
    while rate := rates.wanted(tries, recipe, False, IMAGES, CHANCE):
        assert len(tries) < rates.MOST
        right = outcome(rate)
        tries.append(Try(rate, right[0] / IMAGES, right[1]) if right else Try(rate, None, None, "loss is nan"))
    return tries


def taken(tries):
    return rates.best(tries, IMAGES, CHANCE)


def peak(place):
    """Right images and loss as they fall off to both sides of a best rate."""

    def outcome(rate):
        away = abs(np.log(rate / place))
        return round(55 - 10 * away), away

    return outcome


def test_the_first_rate_follows_from_optimizer_batch_and_batch_norm():
    assert rates.base({"optimizer": "sgd", "batch_size": 32}, False) == 0.003
    assert rates.base({"optimizer": "sgd", "batch_size": 16}, False) == 0.0015
    assert rates.base({"optimizer": "adamw", "batch_size": 128}, False) == 0.0006
    # With batch norm.
    assert rates.base({"optimizer": "sgd", "batch_size": 16}, True) == 0.015
    assert rates.base({"optimizer": "adamw", "batch_size": 32}, True) == 0.0003


@pytest.mark.parametrize(("epochs", "short"), [(1, 1), (3, 2), (8, 2), (10, 3), (40, 10)])
def test_a_search_trains_for_a_part_of_the_epochs_as_short_cells_do(epochs, short):
    assert rates.epochs({"epochs": epochs}) == short


@pytest.mark.parametrize(
    ("place", "steps"), [(1, [0, 1, -1]), (3, [0, 1, 2]), (9, [0, 1, 2, 3]), (1 / 9, [0, 1, -1, -2, -3])]
)
def test_from_the_first_rate_up_and_down_until_the_best_has_a_worse_one_on_either_side(place, steps):
    base = rates.base(AUTO, False)
    tries = searched(peak(place * base))
    assert [each.learning_rate for each in tries] == pytest.approx([base * 3.0**step for step in steps], rel=0.04)
    assert taken(tries).learning_rate == pytest.approx(place * base, rel=0.04)


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, IMAGES), st.floats(0, 5))), min_size=5, max_size=5))
def test_a_search_ends_and_takes_the_best_that_it_has_tried(outcomes):
    left = iter(outcomes)
    tries = searched(lambda rate: next(left))
    assert 1 < len(tries) <= rates.MOST
    tried = [each.learning_rate for each in tries]
    assert len(set(tried)) == len(tried)
    found = taken(tries)
    known = [each for each in tries if each.reason is None]
    if not known:
        assert found.learning_rate == min(tried)
        return
    above = [each for each in known if each.val_accuracy > CHANCE]
    if not above:
        assert found == known[0]
        return
    # At most a standard error behind or one image, and of those the nearest to the first.
    right = {each: round(each.val_accuracy * IMAGES) for each in above}
    share = max(right.values()) / IMAGES
    behind = max(1, IMAGES * (share * (1 - share) / IMAGES) ** 0.5)
    close = [each for each, count in right.items() if count >= max(right.values()) - behind - 1e-9]
    away = {each: round(abs(np.log(each.learning_rate / tried[0])), 1) for each in close}
    assert found == min(close, key=lambda each: (away[each], each.learning_rate))
    if len(tries) < rates.MOST:
        assert min(tried) < found.learning_rate < max(tried)


def test_what_trains_is_preferred_to_what_stays_at_chance_or_diverges():
    chance, trains = Try(0.1, CHANCE, 0.1), Try(0.3, CHANCE + 1 / IMAGES, 9.0)
    diverged = Try(0.9, None, None, "loss is nan")
    assert taken([chance, trains, diverged]) == trains
    assert taken([chance, diverged]) == chance
    assert taken([Try(0.3, CHANCE, 9.0), chance]).learning_rate == 0.3
    assert taken([diverged, Try(2.7, None, None, "loss is nan")]) == diverged
    # Where the first diverges it goes down at once.
    tries = searched(lambda rate: None if rate > 0.0001 else (40 if rate > 0.00005 else 30, 0.0))
    assert [each.learning_rate for each in tries[:2]] == [0.00075, 0.00025]
    assert taken(tries).learning_rate == 8.3e-05


def test_the_first_rate_is_left_only_for_one_that_is_told_apart():
    """Seen: 300 photographs of flowers, SqueezeNet whose last layer was fitted, 60 images for validation."""
    tries = [
        Try(0.0015, 57 / 60, 0.10),
        Try(0.0045, 56 / 60, 0.16),
        Try(0.0005, 58 / 60, 0.10),
        Try(5.7e-5, 57 / 60, 0.2),
    ]
    assert taken(tries).learning_rate == 0.0015
    assert taken([Try(0.0015, 50 / 60, 0.1), *tries[1:]]).learning_rate == 0.0005


def tune(inputs, output, recipe=AUTO, protocol="one_shot", mask=True, seconds=1e9):  # noqa: F811
    spec, *arguments = job(inputs, output, mask=mask, recipe=recipe, protocol=protocol, checkpoint_seconds=seconds)
    place = arguments.index("--output")
    del arguments[place : place + 7]
    programs.run("tune", spec, *arguments, "--output", output / "rate.json")
    return read_json(output / "rate.json")


def test_each_try_is_the_short_cell_of_that_rate(inputs, tmp_path):  # noqa: F811
    found = tune(inputs, tmp_path)
    assert found.keys() == rates.Rate.__annotations__.keys()
    assert found["learning_rate"] in [each["learning_rate"] for each in found["tries"]]
    assert (found["epochs"], found["val_images"], found["chance"]) == (2, 6, pytest.approx(1 / 3))
    assert found["spec"]["recipe"] == AUTO
    assert not (tmp_path / "checkpoint.pt").exists()
    for number, each in enumerate(found["tries"][:2]):
        recipe = AUTO | {"learning_rate": each["learning_rate"]}
        finetuned(inputs, tmp_path / str(number), recipe=recipe, protocol="short_4")
        history = tables.read_table(tmp_path / str(number) / "history.parquet", "history").to_pylist()
        assert len(history) == found["epochs"]
        assert (each["val_accuracy"], each["val_loss"]) == (history[-1]["val_accuracy"], history[-1]["val_loss"])


@pytest.mark.parametrize("normalised", [True, False])
def test_a_search_begins_where_the_networks_kind_says(inputs, tmp_path, monkeypatch, normalised):  # noqa: F811
    monkeypatch.setattr(loop, "normalises", lambda network: normalised)
    found = tune(inputs, tmp_path)
    assert found["tries"][0]["learning_rate"] == rates.base(AUTO, normalised)


def test_a_cell_is_trained_with_the_rate_that_was_found_and_says_so(inputs, tmp_path):  # noqa: F811
    write_json(tmp_path / "rate.json", {"learning_rate": 0.02})
    spec, *arguments = job(inputs, tmp_path / "auto", recipe=AUTO)
    with pytest.raises(InputError, match="learning_rate: auto: give the rate that was found with --rate"):
        programs.run("finetune", spec, *arguments)
    programs.run("finetune", spec, *arguments, "--rate", tmp_path / "rate.json")
    metrics = read_json(tmp_path / "auto" / "metrics.json")
    assert metrics["learning_rate"] == read_json(tmp_path / "auto" / "model.json")["learning_rate"] == 0.02
    number = finetuned(inputs, tmp_path / "number", recipe=AUTO | {"learning_rate": 0.02})
    assert comparable(metrics) | {"spec": None} == comparable(number) | {"spec": None}
    write_json(tmp_path / "rate.json", {"learning_rate": None})
    with pytest.raises(InputError, match=r"rate.json has no learning rate \(None\)"):
        programs.run("finetune", spec, *arguments, "--rate", tmp_path / "rate.json")


def test_a_killed_search_goes_on_and_ends_with_the_same_rate(inputs, tmp_path, monkeypatch):  # noqa: F811
    def told(found):
        return {name: found[name] for name in ("learning_rate", "tries", "epochs")}

    reference = tune(inputs, tmp_path / "a")
    write, written = checkpoints.Checkpoint.write, []

    class Killed(BaseException):
        pass

    def mortal(self, *arguments):
        write(self, *arguments)
        written.append(self.before["phase"])
        # Amid the second training.
        if written.count(1) == 2:
            raise Killed

    monkeypatch.setattr(checkpoints.Checkpoint, "write", mortal)
    with pytest.raises(Killed):
        tune(inputs, tmp_path / "b", seconds=0)
    assert not (tmp_path / "b" / "rate.json").exists()
    first = len(written)
    monkeypatch.setattr(checkpoints.Checkpoint, "write", lambda self, *a: written.append(self.before["phase"]))
    assert told(tune(inputs, tmp_path / "b")) == told(reference)
    # The first training was not begun anew.
    assert 0 not in written[first:]


def test_a_search_needs_validation_images(inputs, tmp_path):  # noqa: F811
    stored(tmp_path / "store", ["train"] * 7 + ["test"] * 4)
    for name in ("net", "mask.parquet"):
        (tmp_path / name).symlink_to(inputs / name)
    with pytest.raises(InputError, match="d has no validation images to choose a learning rate by"):
        tune(tmp_path, tmp_path / "out")
