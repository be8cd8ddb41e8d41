"""Networks of somebody's own: a function in a Python file that is called with the number of classes. Needs no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from winnow.files import InputError, file_digest

_DIGITS = 16


def identity(factory: str) -> str:
    """What stands for an architecture where a factory makes it: its place and the digest of its source.

    Parameters
    ----------
    factory
        ``path/module.py:Function``, the path relative to the working directory.

    Returns
    -------
    str
        ``path/module.py:Function@digest``, so that an edit makes another architecture.

    Raises
    ------
    InputError
        If there is no such file.
    """
    path = Path(factory.rpartition(":")[0])
    if not path.is_file():
        raise InputError(f"{factory}: {path} does not exist")
    return f"{factory}@{file_digest(path)[:_DIGITS]}"


def is_identity(architecture: str) -> bool:
    """Whether an architecture is a factory's identity, rather than a name."""
    return ".py:" in architecture


def load(architecture: str) -> Callable[[int], Any]:
    """The function that an identity names. Its file is run, once a process.

    Raises
    ------
    InputError
        If the file is gone, is not the one that the identity was made of, cannot be run, or has no such function.
    """
    factory = architecture.rpartition("@")[0]
    if identity(factory) != architecture:
        raise InputError(f"{factory} was changed since its network was imported: run the workflow again")
    return _load(architecture)


@cache
def _load(architecture: str) -> Callable[[int], Any]:
    factory = architecture.rpartition("@")[0]
    place, _, name = factory.rpartition(":")
    path = Path(place)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # as for any file that is called .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{place} cannot be run: {type(error).__name__}: {error}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{place} has no function or class {name!r}")
    return function
