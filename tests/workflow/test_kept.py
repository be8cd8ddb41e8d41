"""Whether a network is kept is a target, and no part of a cell: what it makes run, and what it does not."""

from __future__ import annotations

import copy

import pytest

from .checkout import Checkout
from .test_rerun_contract import configured, report

pytestmark = pytest.mark.slow("grids are run that keep networks")

PLACES = ("digits/net/apoz/layer/0.500/inherited/0", "digits/net/unpruned/none/0.000/inherited/0")


def test_keeping_networks_trains_what_is_missing_and_dropping_them_nothing(checkout: Checkout):
    plain = checkout.config
    keeping = copy.deepcopy(plain)
    keeping["experiments"]["kept"] = plain["experiments"]["small"] | {
        "datasets": ["digits"],
        "criteria": ["apoz"],
        "models": "keep",
    }
    checkout.configure(keeping)
    assert checkout.run("kept") == {f"finetune_kept {place}" for place in PLACES} | report("kept")
    checkout.run("small")
    # An experiment that kept networks goes, or keeps them no more: the cells that it shares stay as they are.
    checkout.configure(plain)
    assert checkout.run() == set()
    configured(lambda raw: raw["experiments"].update(kept=keeping["experiments"]["kept"] | {"models": "drop"}))(
        checkout
    )
    assert checkout.run("kept", "small") == set()
    checkout.configure(keeping)
    assert checkout.run("kept", "small") == set()
    # A kept network that was deleted is missed.
    (checkout.path / "results/models" / PLACES[0] / "model.safetensors").unlink()
    assert f"finetune_kept {PLACES[0]}" in checkout.run("kept")
    assert checkout.run("kept") == set()
