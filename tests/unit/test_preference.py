"""The order in which networks are preferred: what is a tie, and what breaks it."""

import itertools

import numpy as np

from winnow.answers import preference, summary

from .test_summary import cell, metrics


def test_a_tie_of_validation_accuracies_is_one_whatever_the_order_of_the_sum():
    sums = {sum(order) / 3 for order in itertools.permutations([0.1, 0.2, 0.3])}
    assert len(sums) > 1
    assert len({preference.exact(each) for each in sums}) == 1
    # Rounding would tear some apart: 1/1024 has its last digit just where nine end.
    one, other = np.nextafter(1 / 1024, 0), np.nextafter(1 / 1024, 1)
    assert round(one, 9) != round(other, 9)
    assert preference.exact(one) == preference.exact(other)
    assert preference.exact(1 / 999_983) < preference.exact(1 / 999_979)
    assert preference.within(np.nextafter(0.02, 1), 2.0)
    assert not preference.within(0.0201, 2.0)


def test_the_order_is_diverged_then_loss_then_size_then_name():
    ranks = [
        preference.rank(-0.9, (5,), "a"),
        preference.rank(-0.8, (1,), "b"),
        preference.rank(-0.8, (2,), "a"),
        preference.rank(-0.8, (2,), "b"),
        preference.rank(-0.9, (1,), "a", diverged=True),
        preference.rank(-0.7, (1,), "a", diverged=True),
    ]
    assert sorted([*ranks[3:], *ranks[:3]]) == ranks
    assert preference.rank(None, (0,), "") > ranks[3]


def test_the_headline_of_a_tie_is_of_the_smaller_network():
    """Of the mean over seeds, which was summed in another order."""
    rows = [(cell().baseline, metrics(0.9))]
    for name, values, macs in ("apoz", (0.1, 0.2, 0.3), 6), ("mean_activation", (0.3, 0.2, 0.1), 5):
        rows += [(cell(name, seed), metrics(value, macs=macs)) for seed, value in enumerate(values)]
    frame = summary.summarise(rows)
    assert frame["accuracy"][1:].nunique() == 2
    best = summary.headline_rows(frame, "digits", "vgg_digits", "layer")["criterion"].iloc[0]
    assert best == "mean_activation"
    # On the page both are the best of their ratio.
    assert summary.markdown(frame, "demo").count("**20.0") == 2
