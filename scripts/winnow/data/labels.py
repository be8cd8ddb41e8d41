"""Labels from a table beside the images: CSV, TSV or Parquet, a row an image.

One column names the file, with or without its suffix, by its path from the table, from any folder, or by its name
alone; another one the label. There may be columns of parts (train, val, test) and of groups. Which column is which is
guessed by what is in it and by its name, and said; the configuration can name them.
"""

from __future__ import annotations

import codecs
import collections
import csv
import dataclasses
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.data import part_names
from winnow.files import InputError, first_line

Parts = tuple[str, ...]

SUFFIXES = (".csv", ".tsv", ".parquet")
# How deep below the root a table may lie to be found.
_DEPTH = 3
COLUMNS = ("file", "label", "split", "group")
# What columns are called, best first.
_LABELS = (
    *("label", "labels", "class", "class_name", "classname", "category", "target", "species", "breed", "diagnosis"),
    *("dx", "label_name", "class_label", "category_name", "tag", "name", "y", "class_id", "label_id"),
)
_SPLITS = ("split", "part", "subset", "set", "partition", "dataset", "phase", "usage", "is_valid", "is_test")
_GROUPS = (
    *("group", "patient", "patient_id", "patientid", "subject", "subject_id", "scene", "scene_id", "video", "video_id"),
    *("session", "case", "case_id", "lesion_id", "module", "module_id", "plant_id", "specimen", "individual", "site"),
)
# Answers that somebody is asked to fill in, as competitions have them.
_TEMPLATES = ("submission",)
# Share of a table's rows that name an image or, where many are missing, of the images that it names.
_NAMES_IMAGES = 0.5
_GUESSED_BY = 500
# A first row with one of these is a heading, even if an image is called like another of its names.
_KNOWN = frozenset((*_LABELS, *_SPLITS, *_GROUPS))


@dataclasses.dataclass(frozen=True)
class Row:
    label: str
    part: str | None
    group: str | None


@dataclasses.dataclass(frozen=True)
class Labels:
    """What tables say.

    Attributes
    ----------
    tables : tuple of paths below the root
    rows : dict of image to Row
    missing : dict of image to str
        Images that a table names and that have no label all the same, with the reason.
    notes : list of str
    sure : bool
        Whether the labels' column was named, or is called one, so that it counts for more than folders do.
    has_parts : bool
        Whether the tables say which part images are of.
    """

    tables: tuple[Parts, ...]
    rows: Mapping[Parts, Row]
    missing: Mapping[Parts, str]
    notes: tuple[str, ...]
    sure: bool
    has_parts: bool


def may_be_table(parts: Parts) -> bool:
    """Whether a file is looked at for labels, by its name."""
    return len(parts) <= _DEPTH and os.path.splitext(parts[-1])[1].lower() in SUFFIXES


def elsewhere(root: Path, rule: Mapping[str, str] | str | bool | None) -> Path | None:
    """The table that the configuration names; None if it names none."""
    named = rule.get("path") if isinstance(rule, Mapping) else rule
    return root / named if isinstance(named, str) else None


def find(
    root: Path,
    images: Sequence[Parts],
    others: Sequence[Parts],
    rule: Mapping[str, str] | str | bool | None,
) -> Labels | None:
    """What the tables of a folder say of its images; None if none says anything.

    Parameters
    ----------
    images, others
        Paths below the root.
    rule
        The table's path, or a mapping of ``path``, ``file``, ``label``, ``split`` and ``group``; False for no table.

    Raises
    ------
    InputError
        If a table that is named does not exist, cannot be read or names no images, or several tables differ.
    """
    if rule is False:
        return None
    named = elsewhere(root, rule)
    columns = {key: rule[key] for key in COLUMNS if rule.get(key)} if isinstance(rule, Mapping) else {}
    if named:
        if not named.is_file():
            raise InputError(f"table: {named} does not exist")
        places = [named]
    else:
        places = _candidates(root, others)
    lookup = _Lookup(images)
    found = []
    for place in places:
        try:
            table = _read(root, place, lookup)
        except InputError:
            if named:
                raise
            continue  # What nobody has named need not be a table.
        if table is None or not table.rows:
            continue
        understood = _understand(place, table, lookup, columns, insist=bool(named or columns))
        if understood:
            found.append((place, table, understood))
    if not found:
        if named or columns:
            raise InputError(f"table: no table of {root} names its images in the columns {columns}")
        return None
    parts_of = part_names.side_by_side([place.stem for place, _, _ in found])
    if len(found) > 1 and len(parts_of) < len(found):
        parts_of = {}
        found = [each for each in found if each[2].sure] or found
        if len(found) > 1 and _overlap(found, lookup):
            names = ", ".join(str(place.relative_to(root)) for place, _, _ in found)
            raise InputError(f"{root} has several tables of labels, {names}: say which with table: {{path: …}}")
    elif len(found) == 1:
        parts_of = {}
    return _combined(root, found, parts_of, lookup)


def _candidates(root: Path, others: Sequence[Parts]) -> list[Path]:
    return [
        root.joinpath(*parts)
        for parts in others
        if may_be_table(parts) and not any(word in parts[-1].lower() for word in _TEMPLATES)
    ]


def _overlap(found: Iterable[tuple[Path, _Table, _Understood]], lookup: _Lookup) -> bool:
    """Whether an image stands in two of some tables."""
    named = [{lookup(row[at.file], table.place) for row in table.rows} - {None} for _, table, at in found]
    return sum(map(len, named)) > len(set().union(*named))


def unclear(root: Path, images: Sequence[Parts], others: Sequence[Parts]) -> str:
    """Which tables name images, of which no column has to be the labels, as a sentence; empty if there is none."""
    lookup, said = _Lookup(images), []
    for place in _candidates(root, others):
        try:
            table = _read(root, place, lookup)
        except InputError:
            continue
        if table is None or not table.rows:
            continue
        at = _file_column(table, lookup)
        if at is not None:
            columns = [name for each, name in enumerate(table.columns) if each != at]
            said.append(
                f"{_below(root, place)} names them in the column {table.columns[at]!r}; which has the labels? "
                f"Say table: {{path: {_below(root, place)}, label: …}}; allowed: {', '.join(columns)}"
            )
    return "; ".join(said)


@dataclasses.dataclass(frozen=True)
class _Table:
    columns: list[str]
    rows: list[list[str]]
    place: Parts


@dataclasses.dataclass(frozen=True)
class _Understood:
    """Positions of a table's columns, None for one that it does not have, and what is to be said of them."""

    file: int
    label: int
    split: int | None
    group: int | None
    sure: bool
    notes: tuple[str, ...]


def _read(root: Path, place: Path, lookup: _Lookup) -> _Table | None:
    """A table's columns and rows; None for one without any.

    Raises
    ------
    InputError
        If it is no table.
    """
    below = place.parent.relative_to(root).parts if place.is_relative_to(root) else ()
    if place.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(place)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{place} cannot be read: {first_line(error)}") from None
        columns = [map(_text, column.to_pylist()) for column in table.columns]
        return _Table(table.column_names, [list(row) for row in zip(*columns, strict=True)], below)
    text = _decoded(place.read_bytes())
    first, _, rest = text.lstrip().partition("\n")
    if said := re.fullmatch(r"sep=(.)", first.strip()):  # as Excel writes it
        text, delimiter = rest, said[1]
    else:
        # The one that the heading has most of; of two, the one that text has less of.
        delimiter = max("\t;|,", key=first.count)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        rows = [row for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{place} cannot be read: {error}") from None
    if not rows:
        return None
    width = len(rows[0])
    heading = [name.strip() for name in rows[0]]
    if not {_plain(name) for name in heading} & _KNOWN and any(map(lookup, heading)):
        heading = [f"column {number}" for number in range(1, width + 1)]
    else:
        del rows[0]
    return _Table(heading, [(row + [""] * width)[:width] for row in rows], below)


def _decoded(content: bytes) -> str:
    for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if content.startswith(mark):
            return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _plain(column: str) -> str:
    return column.casefold().replace(" ", "_")


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


_Reading = Callable[[Parts], Parts]


def _as_it_is(names: Parts) -> Parts:
    return names


def _bare(names: Parts) -> Parts:
    return (*names[:-1], os.path.splitext(names[-1])[0])


def _folded(names: Parts) -> Parts:
    """Without regard to case, and to how a file system writes accents."""
    return tuple(unicodedata.normalize("NFC", name).casefold() for name in names)


def _folded_bare(names: Parts) -> Parts:
    return _folded(_bare(names))


def _other_suffix(names: Parts) -> Parts:
    """Less the suffix of another format: the images may have been converted."""
    return _folded_bare(names) if re.fullmatch(r"\.[A-Za-z]\w{2,3}", os.path.splitext(names[-1])[1]) else ()


# How a table's value is read, and an image's path; the closest first.
_READINGS: tuple[tuple[_Reading, _Reading], ...] = (
    (_as_it_is, _as_it_is),
    (_as_it_is, _bare),
    (_folded, _folded),
    (_folded, _folded_bare),
    (_other_suffix, _folded_bare),
)


class _Lookup:
    """Images by what a table may call them."""

    def __init__(self, images: Sequence[Parts]):
        self._images, self.images = images, len(images)
        self._folders = {name for image in images for name in image[:-1]}
        # By how many of the last names of its path, and by what of them counts.
        self._by: dict[tuple[int, _Reading], dict[Parts, Parts | None]] = {}

    def __call__(self, value: str, place: Parts = ()) -> Parts | None:
        """The one image that a value names, in a table that lies in the folder ``place``.

        A path may begin with folders of another machine, but for those that are here and are not the image's.
        """
        names = tuple(name for name in value.strip().replace("\\", "/").split("/") if name not in ("", "."))
        tails = [(*place, *names)] if place and names else []
        for tail in (*tails, *(names[start:] for start in range(len(names)))):
            for of_value, of_image in _READINGS:
                found = self._index(len(tail), of_image).get(of_value(tail))
                if found and self._folders.intersection(names[: -len(tail)]) <= set(found):
                    return found
        return None

    def _index(self, length: int, reading: _Reading) -> dict[Parts, Parts | None]:
        if (length, reading) not in self._by:
            index: dict[Parts, Parts | None] = {}
            for image in self._images:
                if len(image) >= length:
                    tail = reading(image[-length:])
                    # Two of that name: it names neither.
                    index[tail] = None if tail in index else image
            self._by[length, reading] = index
        return self._by[length, reading]


def _understand(
    place: Path,
    table: _Table,
    lookup: _Lookup,
    named: Mapping[str, str],
    insist: bool,
) -> _Understood | None:
    """Which column is which; None for a table of something else."""
    positions = {}
    for key, column in named.items():
        if column not in table.columns:
            raise InputError(f"table: {place} has no column {column!r} ({key}); allowed: {', '.join(table.columns)}")
        positions[key] = table.columns.index(column)
    by_name = {_plain(name): at for at, name in reversed(list(enumerate(table.columns)))}
    if "file" not in positions:
        at = _file_column(table, lookup)
        if at is None:
            if insist:
                raise InputError(f"table: no column of {place} names images of the folder: {', '.join(table.columns)}")
            return None
        positions["file"] = at
    free = [at for at in range(len(table.columns)) if at not in positions.values()]
    notes = []
    for key, names in (("split", _SPLITS), ("group", _GROUPS)):
        at = positions.get(key, next((by_name[name] for name in names if by_name.get(name) in free), None))
        if at is None:
            continue
        if key == "split" and (odd := _no_part(table, at)):
            if key in positions:
                raise InputError(
                    f"table: split: {odd!r} in the column {table.columns[at]!r} of {place} is no part; allowed: train, "
                    "val, test, under any of their names"
                )
            notes.append(f"the column {table.columns[at]} is not taken for parts: {odd!r} is none")
            continue
        positions[key] = at
        free = [each for each in free if each != at]
    sure = "label" in positions
    if not sure:
        called = next((by_name[name] for name in _LABELS if by_name.get(name) in free), None)
        several = [
            at for at in free if 2 <= len({row[at].strip() for row in table.rows}) <= max(2, len(table.rows) // 2)
        ]
        sure = called is not None
        if called is None and len(several) != 1:
            if insist:
                raise InputError(
                    f"table: which column of {place} has the labels? Say table: {{label: …}}; allowed: "
                    f"{', '.join(table.columns[at] for at in free)}"
                )
            return None
        positions["label"] = several[0] if called is None else called
    return _Understood(
        positions["file"],
        positions["label"],
        positions.get("split"),
        positions.get("group"),
        sure or insist,
        tuple(notes),
    )


def _file_column(table: _Table, lookup: _Lookup) -> int | None:
    """The column that names images; None if none does."""
    some = table.rows[:: max(1, len(table.rows) // _GUESSED_BY)]
    shares = [sum(lookup(row[at], table.place) is not None for row in some) for at in range(len(table.columns))]
    best = max(range(len(shares)), key=shares.__getitem__)
    if shares[best] >= _NAMES_IMAGES * len(some):
        return best
    there = {lookup(row[best], table.place) for row in table.rows} - {None} if shares[best] else ()
    return best if len(there) >= _NAMES_IMAGES * lookup.images else None


def _no_part(table: _Table, at: int) -> str | None:
    """What stands in a column and is no part, if anything does."""
    cells = {row[at].strip() for row in table.rows} - {""}
    return min((cell for cell in cells if not _part(table.columns[at], cell)), default=None)


def _part(column: str, value: str) -> str | None:
    """The part that a cell names; ``is_valid`` and ``is_test`` are true or not."""
    plain, name = value.strip().casefold(), _plain(column)
    if name in ("is_valid", "is_test"):
        if plain in ("true", "1", "yes"):
            return "val" if name == "is_valid" else "test"
        return "train" if plain in ("false", "0", "no") else None
    return part_names.named(value)


def _combined(
    root: Path,
    found: list[tuple[Path, _Table, _Understood]],
    parts_of: Mapping[str, str],
    lookup: _Lookup,
) -> Labels:
    """The rows of one table, or of one a part, with what is odd in them counted and named."""
    said: dict[Parts, list[Row]] = collections.defaultdict(list)
    gone, bare, notes = [], [], []
    for place, table, at in found:
        names = {key: table.columns[position] for key in COLUMNS if (position := getattr(at, key)) is not None}
        which = ", ".join(f"{key}: {name}" for key, name in names.items())
        notes += [f"labels are from {_below(root, place)} ({which})", *at.notes]
        whole = parts_of.get(place.stem)
        for row in table.rows:
            image = lookup(row[at.file], table.place)
            label = row[at.label].strip()
            if image is None:
                gone.append(row[at.file].strip())
            elif not label:
                bare.append(image)
            else:
                part = whole if at.split is None else _part(table.columns[at.split], row[at.split])
                group = row[at.group].strip() or None if at.group is not None else None
                said[image].append(Row(label, part, group))
    if gone:
        notes.append(f"{len(gone)} rows of the table name no image here, such as {gone[0]!r}")
    spelled = _spelling(row.label for rows in said.values() for row in rows)
    changed = sorted({label for label, name in spelled.items() if label != name})
    if changed:
        pairs = ", ".join(f"{label!r} for {spelled[label]!r}" for label in changed[:5])
        notes.append(
            f"{len(changed)} labels differ from others in case or white space only, and count as these: {pairs}"
        )
    rows, missing = {}, {}
    for image, several in said.items():
        several = [dataclasses.replace(row, label=spelled[row.label]) for row in several]
        if len({row.label for row in several}) > 1:
            missing[image] = "with two labels in the table"
        else:
            rows[image] = several[0]
    for image in bare:
        missing.setdefault(image, "with an empty label in the table")
    has_parts = any(row.part for row in rows.values())
    tables = tuple(place.relative_to(root).parts for place, _, _ in found if place.is_relative_to(root))
    return Labels(tables, rows, missing, tuple(notes), all(at.sure for _, _, at in found), has_parts)


def _below(root: Path, place: Path) -> str:
    return str(place.relative_to(root) if place.is_relative_to(root) else place)


def _spelling(labels: Iterable[str]) -> dict[str, str]:
    """Each label as most of those write it that differ in case and white space only."""
    counts = collections.Counter(labels)
    alike = collections.defaultdict(list)
    for label in counts:
        alike[" ".join(label.split()).casefold()].append(label)
    best = {key: max(names, key=lambda name: (counts[name], name)) for key, names in alike.items()}
    return {label: best[key] for key, names in alike.items() for label in names}
