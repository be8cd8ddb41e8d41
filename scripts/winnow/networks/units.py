"""Units by name: the layer and the filter that each is named after. Needs the channel table, and no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def named(layers: Sequence[Mapping[str, Any]], channels: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Layer and filter, (units,) each, that a unit is named after: its first member in network order."""
    unit, layer, index = members(channels, layers)
    _, first = np.unique(unit, return_index=True)
    return np.array([each["layer"] for each in layers])[layer[first]], index[first]


def members(channels: pa.Table, layers: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every unit's members: unit, position of the layer in ``layers``, filter; by unit, then layer, then filter."""
    place = {each["layer"]: position for position, each in enumerate(layers)}
    names = channels["layer"].combine_chunks().dictionary_encode()
    layer = np.array([place[name] for name in names.dictionary.to_pylist()])[names.indices.to_numpy()]
    rows = np.stack([channels["unit"].to_numpy(), layer, channels["filter"].to_numpy()])
    unit, layer, index = np.unique(rows, axis=1)
    return unit, layer, index
