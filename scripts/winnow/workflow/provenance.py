"""What a result says of its own making: the spec that its job was given, stored with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from winnow.files import InputError, canonical_json, read_json
from winnow.tables import read_provenance


def spec_of(path: str) -> str | None:
    """The spec that a result carries, as canonical text; None for a result that carries none.

    Parameters
    ----------
    path
        A JSON file with the key ``spec``, or a table with a ``spec`` in its provenance.
    """
    try:
        if path.endswith(".json"):
            return canonical_json(read_json(path)["spec"])
        if path.endswith(".parquet"):
            return canonical_json(read_provenance(path)["spec"])
    except (InputError, KeyError, TypeError):
        return None
    if path.endswith(".safetensors"):
        return _of_weights(Path(path))
    return None


def others(results: Iterable[tuple[str, str]]) -> list[str]:
    """Those results that carry another spec than the one given beside each; one that carries none is not among them."""
    return [path for path, spec in results if spec_of(path) not in (None, spec)]


def keys(contents: Mapping[str, Any]) -> dict[str, Any]:
    """A spec key by key, with dots where it is nested, ``recipe.learning_rate``; a list is one value."""
    found: dict[str, Any] = {}
    for name, value in contents.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": each for key, each in keys(value).items()}
        else:
            found[name] = value
    return found


def _of_weights(path: Path) -> str | None:
    """The spec in a safetensors file's header, read without the tensors."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return canonical_json(json.loads(header["__metadata__"]["winnow"])["spec"])
    except (OSError, ValueError, KeyError, OverflowError, MemoryError):
        return None
