"""A small directed graph as an SVG drawing: layers from top to bottom, after Sugiyama, Tagawa & Toda (1981)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from html import escape

# Pixels.
_WIDTH, _HEIGHT = 132, 30
_LEVEL = 64
_GAP, _LANE = 22, 14
_SWEEPS = 24
# Of a link between two stops, by how many of them are nodes.
_WEIGHTS = (8, 2, 1)

# A node, or the place where an edge passes a level on its way: (source, target, level).
_Stop = str | tuple[str, str, int]


def drawing(needs: Mapping[str, Sequence[str]], title: str) -> str:
    """An SVG element with a box a node and a curve an edge, from what is needed down to what needs it.

    Parameters
    ----------
    needs
        Node → the nodes that it needs, each of which is a node itself. Without cycles.
    title
        What a screen reader says.
    """
    levels = _levels(needs)
    routes = [
        [source, *((source, node, level) for level in range(levels[source] + 1, levels[node])), node]
        for node, sources in needs.items()
        for source in sources
    ]
    places = _places(needs, levels, routes)
    left = min(places[node] for node in needs) - _WIDTH / 2 - 2
    right = max(places[node] for node in needs) + _WIDTH / 2 + 2
    left, right = min(left, *places.values()), max(right, *places.values())
    height = max(levels.values()) * _LEVEL + _HEIGHT + 4
    lines = [
        f'<svg class="graph" role="img" viewBox="{left:.0f} -2 {right - left:.0f} {height}" width="{right - left:.0f}"'
        f' height="{height}" xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>'
    ]
    lines += [f'<path d="{_curve(route, places, levels)}"/>' for route in routes]
    for node, level in levels.items():
        x, y = places[node], level * _LEVEL
        lines.append(
            f'<rect x="{x - _WIDTH / 2:.1f}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>'
            f'<text x="{x:.1f}" y="{y + _HEIGHT / 2}">{escape(node)}</text>'
        )
    return "".join([*lines, "</svg>"])


def _levels(needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Each node's distance from the top: one more than the lowest that it needs."""
    levels: dict[str, int] = {}
    while len(levels) < len(needs):
        ready = [node for node in needs if node not in levels and all(source in levels for source in needs[node])]
        if not ready:
            raise ValueError(f"a cycle or an unknown node among {sorted(set(needs) - set(levels))}")
        levels |= {node: 1 + max((levels[source] for source in needs[node]), default=-1) for node in ready}
    return levels


def _places(
    needs: Mapping[str, Sequence[str]], levels: Mapping[str, int], routes: Sequence[Sequence[_Stop]]
) -> dict[_Stop, float]:
    """Where the middle of each stop is, from left to right: near the stops that it is joined with, none on another."""
    rows: dict[int, list[_Stop]] = {level: [] for level in range(max(levels.values()) + 1)}
    for stop in dict.fromkeys([*needs, *itertools.chain(*routes)]):
        rows[levels[stop] if isinstance(stop, str) else stop[2]].append(stop)
    # Links with weights: an edge on its way is to be straight more than a node is to be near its neighbours.
    joined: dict[_Stop, dict[_Stop, int]] = {stop: {} for row in rows.values() for stop in row}
    for route in routes:
        for one, other in itertools.pairwise(route):
            joined[one][other] = joined[other][one] = _WEIGHTS[isinstance(one, str) + isinstance(other, str)]
    places = {stop: float(position * _WIDTH) for row in rows.values() for position, stop in enumerate(row)}
    for sweep in range(_SWEEPS):
        for level in sorted(rows, reverse=bool(sweep % 2)):
            row = rows[level]
            wanted = {
                stop: sum(weight * places[other] for other, weight in links.items()) / sum(links.values())
                if (links := joined[stop])
                else places[stop]
                for stop in row
            }
            row.sort(key=wanted.get)
            for before, stop in zip([None, *row], row, strict=False):
                least = places[before] + _distance(before, stop) if before is not None else wanted[stop]
                places[stop] = max(wanted[stop], least)
            # The row was pushed to the right: back, so that on the whole it is where it wants to be.
            shift = sum(places[stop] - wanted[stop] for stop in row) / len(row)
            for stop in row:
                places[stop] -= shift
    return places


def _distance(one: _Stop, other: _Stop) -> float:
    """Least distance between the middles of two neighbours."""
    return sum(_WIDTH / 2 if isinstance(stop, str) else 0 for stop in (one, other)) + (
        _GAP if isinstance(one, str) or isinstance(other, str) else _LANE
    )


def _curve(route: Sequence[_Stop], places: Mapping[_Stop, float], levels: Mapping[str, int]) -> str:
    """An edge as an SVG path: from below its source, straight past the levels between, to its target from above."""
    source, *stops = route
    x, y = places[source], levels[source] * _LEVEL + _HEIGHT
    path = f"M{x:.1f} {y}"
    for stop in stops:
        to = places[stop]
        top = (levels[stop] if isinstance(stop, str) else stop[2]) * _LEVEL
        middle = (y + top) / 2
        path += f"C{x:.1f} {middle:g} {to:.1f} {middle:g} {to:.1f} {top}"
        if not isinstance(stop, str):
            path += f"V{top + _HEIGHT}"
        x, y = to, top + _HEIGHT
    return path
