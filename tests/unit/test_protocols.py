"""Protocols: their phases and budgets."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.training import protocols


@given(st.integers(2, 9), st.integers(1, 999), st.integers(9, 100))
def test_iterative_goes_to_its_ratio_in_equal_steps_and_spends_all_epochs(steps, thousandths, epochs):
    phases = protocols.phases(f"iterative_{steps}", thousandths / 1000, epochs)
    assert [ratio for ratio, _ in phases] == [Fraction(thousandths * n, 1000 * steps) for n in range(1, steps + 1)]
    lengths = [length for _, length in phases]
    assert sum(lengths) == epochs
    assert set(lengths[:-1]) == {epochs // steps}
    assert lengths[-1] - epochs // steps == epochs % steps


@given(
    st.sampled_from(protocols.REPAIR_CHOICES),
    st.sampled_from([*protocols.CHOICES, "equal_flops", "short_4"]),
    st.integers(9, 60),
)
def test_repairs_change_nothing_of_what_a_protocol_trains(repairs, protocol, epochs):
    name = protocols.repaired(repairs, protocol)
    assert protocols.parted(name) == (tuple(repairs.split("_")) if repairs != "none" else (), protocol)
    assert protocols.repaired(*protocols.parted(name)) == name
    assert protocols.phases(name, 0.4, epochs) == protocols.phases(protocol, 0.4, epochs)
    assert protocols.budget(name, epochs, 40, 90) == protocols.budget(protocol, epochs, 40, 90)
    for of in (protocols.alternates, protocols.is_short, protocols.steps):
        assert of(name) == of(protocol)


def test_fine_tuning_first_takes_half():
    assert protocols.phases("fine_tune_first", 0.4, 21) == [(0, 10), (Fraction(2, 5), 11)]
    assert protocols.phases("one_shot", 0.4, 21) == [(Fraction(2, 5), 21)]


@pytest.mark.parametrize(
    ("protocol", "epochs"),
    # 10 / 4 and 10 · 90 / 40 are halves: up.
    [("one_shot", 10), ("distilled", 10), ("short_4", 3), ("short_30", 1), ("equal_flops", 23)],
)
def test_budgets_are_rounded(protocol, epochs):
    assert protocols.budget(protocol, 10, 40, 90) == epochs


@given(st.integers(1, 100), st.floats(0, 5))
def test_a_recipe_of_as_many_epochs_is_the_same_to_the_last_bit(epochs, warmup):
    recipe = {"epochs": epochs, "warmup_epochs": warmup, "learning_rate": 0.1}
    assert protocols.stretched(recipe, epochs) == recipe
    assert protocols.stretched(recipe, 2 * epochs)["warmup_epochs"] == pytest.approx(2 * warmup)
