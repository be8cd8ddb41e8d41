"""What a data set is, on one screen: its classes and parts, what was skipped and why, copies, and what looks odd.

The same for a folder that nobody has decoded yet and for a store.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.data import folders
from winnow.files import read_json
from winnow.tables import read_table

# Share of files that cannot be read above which it is a warning.
LARGE = 0.1
# Classes of a data set that are shown one by one; of more, so many of the smallest.
CLASSES, SMALLEST = 12, 5
EXAMPLES = 3
_PARTS = ("train", "val", "test")


def passed(tree: folders.Tree | None) -> dict[str, dict[str, Any]]:
    """What was passed over in a folder, by reason: how many files, and examples."""
    found = tree.passed if tree else {}
    return {why: {"count": len(names), "examples": names[:EXAMPLES]} for why, names in sorted(found.items())}


def of_tree(tree: folders.Tree) -> list[str]:
    """A folder that has not been decoded, as lines of text."""
    counts = tree.counts()
    return [
        *_images(tree.classes, counts),
        *_skipped(len(tree.pictures), tree.unreadable, passed(tree)),
        *tree.notes,
    ]


def of_store(directory: Path, parts: Sequence[str | None] | None = None) -> list[str]:
    """A store, as lines of text: by the part of each image, or by those that its source has."""
    manifest = read_json(directory / "manifest.json")
    index = read_table(directory / "index.parquet", "index")
    counts: dict[str | None, list[int]] = {}
    for part, label in zip(parts or index["official"].to_pylist(), index["label"].to_pylist(), strict=True):
        counts.setdefault(part, [0] * len(manifest["classes"]))[label] += 1
    return [*_images(manifest["classes"], counts), *remarks(manifest)]


def remarks(manifest: Mapping[str, Any]) -> list[str]:
    """What a store's manifest has to say beside its images: what was skipped, copies, ranges of values, notes."""
    return [
        *_skipped(manifest["images"], manifest["skipped"], manifest["passed"]),
        *copies(manifest["copies"]),
        *_ranges(manifest["ranges"], manifest["reading"]),
        *manifest["notes"],
    ]


def unread(images: int, unreadable: Sequence[Mapping[str, str]]) -> list[str]:
    """How many files cannot be read, and why, where there are any; a warning where it is a large share."""
    if not unreadable:
        return []
    whole = images + len(unreadable)
    text = f"{len(unreadable)} of {whole} files cannot be read"
    if len(unreadable) > LARGE * whole:
        text = (
            f"WARNING: {text} ({100 * len(unreadable) / whole:.0f} %), so nothing is learned from them, and nothing is "
            "known of images like them"
        )
    return [f"{text}: {_reasons(unreadable)}"]


def _images(classes: Sequence[str], counts: Mapping[str | None, Sequence[int]]) -> list[str]:
    totals = [sum(of_class) for of_class in zip(*counts.values(), strict=True)]
    parts = [part for part in _PARTS if part in counts]
    lines = [f"{sum(totals)} images of {len(classes)} classes{_by_part(counts, parts)}"]
    order = sorted(range(len(classes)), key=totals.__getitem__)
    shown = order[:SMALLEST] if len(classes) > CLASSES else range(len(classes))
    for label in shown:
        own: dict[str | None, list[int]] = {part: [counts[part][label]] for part in parts}
        lines.append(f"  {classes[label]}: {totals[label]}{_by_part(own, parts)}")
    if len(classes) > CLASSES:
        lines.append(f"  and {len(classes) - SMALLEST} larger ones, up to {totals[order[-1]]} ({classes[order[-1]]})")
    return lines + smallest(classes, totals)


def smallest(classes: Sequence[str], totals: Sequence[int]) -> list[str]:
    """The smallest class, where there is one."""
    least = min(totals)
    return [] if least == max(totals) else [f"the smallest class is {classes[totals.index(least)]}, {least} images"]


def _by_part(counts: Mapping[str | None, Sequence[int]], parts: Sequence[str]) -> str:
    return ": " + ", ".join(f"{sum(counts[part])} {part}" for part in parts) if parts else ""


def _skipped(images: int, unreadable: Sequence[Mapping[str, str]], over: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return unread(images, unreadable) + [
        f"{found['count']} passed over, {why}: {_shown(found['examples'], found['count'])}"
        for why, found in over.items()
    ]


def _reasons(unreadable: Iterable[Mapping[str, str]]) -> str:
    by_reason = collections.defaultdict(list)
    for bad in unreadable:
        by_reason[bad["reason"]].append(bad["file"])
    most = sorted(by_reason.items(), key=lambda item: -len(item[1]))[:EXAMPLES]
    return "; ".join(f"{len(files)} × {why} ({files[0]})" for why, files in most)


def _shown(names: Sequence[str], count: int) -> str:
    return ", ".join(names[:EXAMPLES]) + (", …" if count > len(names[:EXAMPLES]) else "")


def copies(found: Mapping[str, Any] | None) -> list[str]:
    """What is to be said of a store's copies, as :func:`winnow.data.copies.report` has found them."""
    if found is None:
        return []
    lines = []
    for key, text in (
        ("same", "repeat another image, pixel by pixel; copies stay in one part"),
        ("near", "nearly repeat another image (encoded, resized or mirrored anew); these stay in one part too"),
        ("labels", "pictures are there under two labels"),
        ("across", "pictures lie in two parts of the official split, which is left as it is"),
    ):
        if found[key]["count"]:
            examples = "; ".join(" = ".join(each[:EXAMPLES]) for each in found[key]["examples"][:EXAMPLES])
            lines.append(f"{found[key]['count']} {text}: {examples}")
    if found["alike"]:
        lines.append(
            f"the pictures of {', '.join(found['alike'])} are all much alike, so that near copies cannot be told from "
            "others: say by group what belongs together"
        )
    return lines


def _ranges(found: Mapping[str, Any], reading: Mapping[str, Any]) -> list[str]:
    if "stated" in found:
        return [f"pixels of more than 8 bits: {found['stated'][0]:g} … {found['stated'][1]:g}, as range says"]
    names = {"integers": "of more than 8 bits", "floats": "of floating point"}
    return [
        f"pixels {names[kind]}: {reading[kind][0]:g} … {reading[kind][1]:g} become 0 … 255, found over "
        f"{found[kind]['images']} images"
        for kind in found
    ]
