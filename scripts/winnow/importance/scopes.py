"""The scopes: among which units it is decided who goes, and what a ratio is a share of. Imports nothing of ours."""

from __future__ import annotations

from typing import Literal, get_args

Ranked = Literal["global", "global_normalized", "layer"]
Scope = Literal[Ranked, "budget_macs", "budget_params", "budget_latency"]
RANKED: tuple[Ranked, ...] = get_args(Ranked)
# Of these a ratio is the share of what the network costs, not of its units. Scope → what it costs: see
# winnow.networks.prices.
BUDGETS = {"budget_macs": "macs", "budget_params": "params", "budget_latency": "latency"}
SCOPES: tuple[Scope, ...] = get_args(Scope)
# What a ratio of a scope is a share of, in words; of those that are not here, of filters.
SHARES = {"budget_macs": "MACs", "budget_params": "parameters", "budget_latency": "latency"}


def share_of(scope: str) -> str:
    """What a scope's ratio is a share of: "filters", "MACs"."""
    return SHARES.get(scope, "filters")
