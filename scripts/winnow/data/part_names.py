"""The parts of a data set, train, val and test, as people name them: folders, tables, what stands in their columns."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable

PARTS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
# What may be said along with a part and says nothing.
_FILLERS = frozenset(
    (
        *("set", "sets", "data", "dataset", "split", "folder", "images", "image", "imgs", "img"),
        *("pictures", "picture", "photos", "photo"),
    )
)
_GLUED = re.compile(rf"({'|'.join(PARTS)})(?:{'|'.join(sorted(_FILLERS, key=len, reverse=True))})")


def named(name: str) -> str | None:
    """The one part that a name speaks of, whatever else it says; None for none, or for several."""
    said = [word for word in _words(name) if word in PARTS]
    return PARTS[said[0]] if len(said) == 1 else None


def side_by_side(names: Iterable[str]) -> dict[str, str]:
    """Which of some names, side by side, look like parts of a data set, and which parts: name → part.

    ``Train``, ``validation``, ``test_images``, ``TrainSet``, ``val2017``; and with something in common, which must be
    two or more, ``birds-train`` and ``birds-test``.
    """
    plain: dict[str, str] = {}
    shared: dict[tuple[str, ...], dict[str, str]] = collections.defaultdict(dict)
    for name in names:
        if part := named(name):
            rest = tuple(
                word for word in _words(name) if word not in PARTS and word not in _FILLERS and not word.isdigit()
            )
            (shared[rest] if rest else plain)[name] = part
    for found in shared.values():
        if len(set(found.values())) > 1:
            plain |= found
    return plain


def _words(name: str) -> list[str]:
    words = re.findall(r"\d+|[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    words = [word.casefold() for word in words]
    return [match[1] if (match := _GLUED.fullmatch(word)) else word for word in words]
