"""Copies among a store's images: the same picture, pixel by pixel, and the same picture encoded, resized or mirrored.

Near copies are found by a perceptual hash: of a picture's 64 lowest frequencies, which lie above their median (Zauner
2010, "Implementation and benchmarking of perceptual image hash functions"). Two hashes that differ in at most seven
bits share at least one of their eight bytes, and most that differ in twelve do: only pictures that share one are held
against each other. Those whose small gray pictures then agree are copies, if they agree far better with each other than
with any other picture: what stands in one place under one light, such as one cell of a solar module after the other, is
as much alike as copies are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from winnow.data.preprocessing import LIKENESS
from winnow.data.store import Entry

# Of 64 bits, how many may differ, and how well the small gray pictures have to agree then: their correlation.
BITS, CORRELATION = 12, 0.985
# How many times as far (1 - correlation) a set of copies has to be from every other picture as its members from each
# other. It decides where all pictures are of one kind: of 2,624 solar cells hundreds have another as near as a copy.
APART = 2.5
# Shades of gray, standard deviation, below which a picture is as good as empty and like any other.
EMPTY = 2.0
# Copies are few: where so large a share of a class hangs together, its pictures are just much alike.
SHARE = 1 / 3
# Pairs that are held against each other at a time.
_PAIRS = 2**20
EXAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Copies:
    """What was found.

    Attributes
    ----------
    same, near : (N,) int64
        The first image of each one's set of copies, itself if it has none; ``near`` counts the same ones in.
    alike : list of int
        Classes whose pictures hang together in so great a number that near copies were not looked for in them.
    """

    same: np.ndarray
    near: np.ndarray
    alike: list[int]


def find(likenesses: Sequence[bytes], checksums: Sequence[int], labels: Sequence[int]) -> Copies:
    """Find the copies among images.

    Parameters
    ----------
    likenesses
        As :func:`winnow.data.preprocessing.decode` gives them.
    checksums
        Of their pixels.
    labels
        Their classes.
    """
    count = len(likenesses)
    keys = list(zip(checksums, likenesses, strict=True))
    first: dict[Any, int] = {}
    same = np.array([first.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)
    kept = np.flatnonzero(same == np.arange(count))
    pictures = b"".join(likenesses[row] for row in kept.tolist())
    small = np.frombuffer(pictures, np.uint8).reshape(-1, LIKENESS, LIKENESS)
    pairs = kept[apart(near_pairs(small), small)]
    near = _joined(np.concatenate([np.stack([np.arange(count), same], axis=1), pairs]), count)
    classes = np.asarray(labels, dtype=np.int64)
    sizes = np.bincount(classes, minlength=1) if count else np.zeros(1, np.int64)
    # A set that holds a great share of a class is no set of copies, unless it is one picture.
    alike = set()
    for members in sets(near):
        for label, size in zip(*np.unique(classes[members], return_counts=True), strict=True):
            if size > max(3, SHARE * sizes[label]) and len(np.unique(same[members])) > 1:
                alike.add(int(label))
                near[members] = same[members]
                break
    return Copies(same, near, sorted(alike))


def groups(found: Copies, entries: Sequence[Entry]) -> list[str | None]:
    """What each image stays together with: its copies, and what its source says; None if nothing.

    A group is called as its source calls it or, where it does not, by the first file in it.
    """
    first: dict[str, int] = {}
    pairs = [(row, int(other)) for row, other in enumerate(found.near)]
    pairs += [(row, first.setdefault(entry.group, row)) for row, entry in enumerate(entries) if entry.group is not None]
    joined = _joined(np.array(pairs, dtype=np.int64).reshape(-1, 2), len(entries))
    sizes = np.bincount(joined, minlength=len(entries))
    named = {
        int(joined[row]): entry.group for row, entry in reversed(list(enumerate(entries))) if entry.group is not None
    }
    return [named.get(int(root), entries[root].file if sizes[root] > 1 else None) for root in joined]


def report(found: Copies, entries: Sequence[Entry], classes: Sequence[str]) -> dict[str, Any]:
    """What people should know of the copies.

    Returns
    -------
    dict
        ``same``, ``near``: how many images repeat another one, pixel by pixel and nearly. ``labels``: sets under two
        labels or more. ``across``: sets that lie in two parts or more of the official split. ``alike``: classes of
        which all pictures are much alike, so that near copies cannot be told. Each but the last is a dict of ``count``
        and ``examples``, which are lists of files; of labels, with the class of each.
    """
    repeats = np.arange(len(entries))
    every = [[entries[row] for row in members] for members in sets(found.near)]
    exact = [[entries[row] for row in members] for members in sets(found.same)]
    near = [[entries[row] for row in members] for members in sets(found.near) if len(set(found.same[members])) > 1]
    labelled = [each for each in every if len({entry.label for entry in each}) > 1]
    across = [each for each in every if len({entry.official for entry in each}) > 1]

    def said(count: int, some: Sequence[Sequence[Entry]], labels: bool = False) -> dict[str, Any]:
        shown = [
            [f"{entry.file} ({classes[entry.label]})" if labels else entry.file for entry in each[:EXAMPLES]]
            for each in some[:EXAMPLES]
        ]
        return {"count": count, "examples": shown}

    return {
        "same": said(int((found.same != repeats).sum()), exact),
        "near": said(int((found.near != repeats).sum() - (found.same != repeats).sum()), near),
        "labels": said(len(labelled), labelled, labels=True),
        "across": said(len(across), across),
        "alike": [classes[label] for label in found.alike],
    }


def near_pairs(small: np.ndarray) -> np.ndarray:
    """Pairs of small gray pictures (N, 16, 16) uint8 that show the same, perhaps mirrored: (pairs, 2) int64."""
    values, seen = _normed(small)
    if seen.size < 2:
        return np.zeros((0, 2), np.int64)
    mirrored = _mirrored(values)
    hashes, others = hashed(values), hashed(mirrored)
    found = []
    for left, right, twins in ((hashes, hashes, values), (hashes, others, mirrored)):
        for rows, columns in _candidates(left, right):
            close = np.bitwise_count(left[rows] ^ right[columns]) <= BITS
            rows, columns = rows[close], columns[close]
            agree = np.einsum("ij,ij->i", values[rows], twins[columns]) >= CORRELATION
            found.append(np.stack([rows[agree], columns[agree]], axis=1))
    pairs = np.concatenate(found)
    return seen[pairs[pairs[:, 0] != pairs[:, 1]]]


def apart(pairs: np.ndarray, small: np.ndarray) -> np.ndarray:
    """Of pairs of small gray pictures those that belong to a set which lies apart from everything else.

    Pictures that hang together are joined from the closest pair on (single linkage). A set is of copies where the next
    picture that is not in it is at least :data:`APART` times as far as its own last join; of sets in sets, the largest.

    Parameters
    ----------
    pairs : (pairs, 2) int64
        As :func:`near_pairs` gives them.
    small : (N, 16, 16) uint8

    Returns
    -------
    (pairs, 2) int64
        Each member of such a set with its first one.
    """
    values, seen = _normed(small)
    place = np.zeros(len(small), np.int64)
    place[seen] = np.arange(seen.size)
    pairs = place[pairs]
    mirrored = _mirrored(values)
    agree = np.zeros(len(pairs))
    for at in range(0, len(pairs), _PAIRS // LIKENESS):
        some = slice(at, at + _PAIRS // LIKENESS)
        rows, columns = pairs[some].T
        agree[some] = np.maximum(*(np.einsum("ij,ij->i", values[rows], each[columns]) for each in (values, mirrored)))
    # Each join: the two sets, which are pictures or earlier joins, and how far they are from each other.
    joins: list[tuple[int, int, float]] = []
    parent = list(range(seen.size))
    for pair in np.argsort(-agree, kind="stable").tolist():
        one, other = (_top(parent, row) for row in pairs[pair].tolist())
        if one != other:
            parent[one] = parent[other] = len(parent)
            parent.append(len(parent))
            joins.append((one, other, max(0.0, 1 - float(agree[pair]))))
    kept: list[list[int]] = []
    strangers = _strangers(values, mirrored, _joined(pairs, seen.size))
    waiting = [(_top(parent, first), distance) for first, distance in strangers.items()]
    while waiting:
        root, outside = waiting.pop()
        if root < seen.size:
            continue
        one, other, distance = joins[root - seen.size]
        if outside >= APART * distance:
            kept.append(_members(root, joins, seen.size))
        else:
            waiting += [(one, distance), (other, distance)]
    found = [(min(members), each) for members in kept for each in members]
    return seen[np.array(found, dtype=np.int64).reshape(-1, 2)]


def _members(root: int, joins: Sequence[tuple[int, int, float]], count: int) -> list[int]:
    """The pictures in a join of pictures, of which there are ``count``, and joins."""
    waiting, found = [root], []
    while waiting:
        each = waiting.pop()
        if each < count:
            found.append(each)
        else:
            waiting += joins[each - count][:2]
    return found


def _strangers(values: np.ndarray, mirrored: np.ndarray, together: np.ndarray) -> dict[int, float]:
    """Of each set of two or more, by its first member, how far (1 - correlation) the next picture outside is."""
    nearest: dict[int, float] = {}
    everything = np.concatenate([values, mirrored])
    of = np.tile(together, 2)
    rows = np.concatenate([np.zeros(0, np.int64), *sets(together)])
    step = max(1, _PAIRS // max(1, len(everything)))
    for at in range(0, rows.size, step):
        some = rows[at : at + step]
        agree = values[some] @ everything.T
        agree[together[some][:, None] == of[None]] = -np.inf
        for first, most in zip(together[some].tolist(), agree.max(axis=1).tolist(), strict=True):
            nearest[first] = min(nearest.get(first, np.inf), 1 - most)
    return nearest


def _normed(small: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Small gray pictures (N, 16, 16), less their mean and of length 1, (seen, 256) float32; and which they are, for
    those that are as good as empty are left out."""
    values = small.reshape(len(small), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(values, axis=1)
    seen = np.flatnonzero(norms > EMPTY * LIKENESS)
    return values[seen] / norms[seen, None], seen


def _mirrored(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, LIKENESS, LIKENESS)[:, :, ::-1].reshape(values.shape)


def hashed(values: np.ndarray) -> np.ndarray:
    """Perceptual hashes of small pictures (N, 256) float32: (N,) uint64."""
    position = np.arange(LIKENESS)
    # Of the cosine transform, the eight lowest frequencies each way; the very lowest, the mean, says nothing.
    basis = np.cos(np.pi * (position + 0.5)[None] * np.arange(9)[:, None] / LIKENESS).astype(np.float32)
    cells = basis @ values.reshape(-1, LIKENESS, LIKENESS) @ basis.T
    low = cells.reshape(len(values), -1)[:, 1:65]
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def _candidates(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of both that share a byte, in portions."""
    a, b = (each.view(np.uint8).reshape(-1, 8) for each in (left, right))
    for byte in range(8):
        order = np.argsort(b[:, byte], kind="stable")
        starts = np.searchsorted(b[order, byte], np.arange(257))
        for value in range(256):
            columns = order[starts[value] : starts[value + 1]]
            rows = np.flatnonzero(a[:, byte] == value)
            step = max(1, _PAIRS // max(1, columns.size))
            for at in range(0, rows.size if columns.size else 0, step):
                some = rows[at : at + step]
                pairs = np.repeat(some, columns.size), np.tile(columns, some.size)
                yield pairs


def _joined(pairs: np.ndarray, count: int) -> np.ndarray:
    """The smallest of all that hang together with each, (count,)."""
    parent = list(range(count))
    for one, other in pairs.tolist():
        one, other = _top(parent, one), _top(parent, other)
        parent[max(one, other)] = min(one, other)
    return np.array([_top(parent, row) for row in range(count)], dtype=np.int64)


def _top(parent: list[int], row: int) -> int:
    """The root above one in a forest, whose paths are made shorter on the way."""
    while parent[row] != row:
        parent[row] = row = parent[parent[row]]
    return row


def sets(firsts: np.ndarray) -> Iterator[np.ndarray]:
    """Each set of two or more: its members, of the first of each one's set."""
    order = np.argsort(firsts, kind="stable")
    _, starts, sizes = np.unique(firsts[order], return_index=True, return_counts=True)
    for start, size in zip(starts, sizes, strict=True):
        if size > 1:
            yield order[start : start + size]
