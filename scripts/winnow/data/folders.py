"""What a folder of images is: its classes, parts, labels and groups, and what in it is none of these.

One reading for all who ask: the front door, which counts; the Snakefile, which only wants to know whether anything
changed; and the store, which decodes.

Folders mean what people mean by them. Images lie in a folder a class; above these there may be folders of parts under
any of their common names, in any case, with a prefix or suffix in common, and folders that only wrap all others. What
looks like a part is never a class. Where a folder can be read in two ways the error shows what was found and what to
write in the configuration: ``splits``, ``ignore``, ``group`` or ``table``.
"""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from winnow.data import labels, part_names
from winnow.files import InputError, file_digest

# Files that have one of these are images, or say why they are not; others are looked into.
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "bmp", "dib", "gif", "tif", "tiff", "webp", "avif", "avifs"),
        *("heic", "heif", "hif", "heics", "jp2", "j2k", "jpf", "jpx", "ppm", "pgm", "pbm", "pnm", "tga", "qoi"),
        # Nothing here reads these, which has to be said.
        *("dcm", "dicom", "exr", "svg"),
    )
)
# What Pillow knows by name, but is no picture that it can decode.
_NO_PICTURES = ("HDF5", "GRIB", "BUFR", "WMF", "EPS", "MPEG")
# Pillow would read the small picture within, if any. Where a camera has put a JPEG beside it, that is the image.
_RAW = frozenset(
    f".{name}"
    for name in (
        *("cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "dng", "raf", "orf", "rw2", "pef", "srw", "x3f"),
        *("3fr", "iiq", "rwl"),
    )
)

# Names of folders that nobody means, without regard to case, and whose they are.
_SYSTEM = "left by an operating system"
_SERVER = "left by a file server"
_CAMERA = "left by a camera"
_TOOLS = "left by a program"
_FOLDERS = {
    **dict.fromkeys(
        (
            *("__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found", "lost.dir"),
            *("network trash folder", "temporary items", "recycled", "found.000", "thumbs", "thumbnails"),
        ),
        _SYSTEM,
    ),
    **dict.fromkeys(
        (
            *("@eadir", "@tmp", "@synoresource", "@sharebin", "#recycle", "#snapshot", "@recycle"),
            *("@recently-snapshot", "_gsdata_"),
        ),
        _SERVER,
    ),
    **dict.fromkeys(("canonmsc", "thmbnl", "avf_info"), _CAMERA),
    **dict.fromkeys(("__pycache__", "node_modules", "site-packages", "ipynb_checkpoints", "wandb", "mlruns"), _TOOLS),
}
_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini", "zbthumbnail.info")
)

DICOM = "a DICOM file, which is not read: convert it"
RAW = "a camera's raw file, which is not developed: convert it"

# Entries of a level, and levels, of the tree that an error shows.
_SHOWN, _LEVELS = 6, 3
# Headers that are read side by side: it is the disk, or the network, that is waited for.
_READERS = 8


@dataclasses.dataclass(frozen=True)
class Rules:
    """What the configuration says of a folder; all of it may be left out.

    Attributes
    ----------
    splits : dict of part to list of patterns, or None
        The folders that are parts, by their paths below the root; an empty dict: none is, whatever its name.
    ignore : tuple of patterns
        What is left out: paths, or names of files and folders.
    table : dict, str, False or None
        Where labels are listed: see :mod:`winnow.data.labels`. False: nowhere.
    group : str or None
        A regular expression that finds an image's group in its path; its first bracket, if it has one.
    """

    splits: Mapping[str, Sequence[str]] | None = None
    ignore: tuple[str, ...] = ()
    table: Mapping[str, str] | str | bool | None = None
    group: str | None = None

    @classmethod
    def of(cls, dataset: Mapping[str, Any]) -> Rules:
        splits = dataset.get("splits")
        if splits is not None:
            splits = {part: [each] if isinstance(each, str) else list(each) for part, each in splits.items() if each}
        ignore = dataset.get("ignore") or ()
        return cls(splits, tuple(ignore), dataset.get("table"), dataset.get("group"))


@dataclasses.dataclass(frozen=True)
class File:
    """A file below the root: where it is, the names on the way there, and its size; None for a link to nowhere."""

    path: Path
    parts: tuple[str, ...]
    size: int | None

    @property
    def name(self) -> str:
        """Its path below the root as text; bytes that are not UTF-8 are written as ``\\xe9``."""
        return name_text("/".join(self.parts))

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.parts[-1])[1].lower()


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image of a class.

    Attributes
    ----------
    file : File
    label : int
        Position in the tree's classes.
    part : str or None
        train, val or test, where the folder says so.
    group : str or None
        What stays together in one part.
    depth : str or None
        Which bounds its pixels need: see :func:`winnow.data.preprocessing.depth`.
    """

    file: File
    label: int
    part: str | None
    group: str | None
    depth: str | None


@dataclasses.dataclass(frozen=True)
class Tree:
    """A folder, understood.

    Attributes
    ----------
    classes : list of str
    pictures : list of Picture
        In the order of their paths.
    unreadable : list of dict
        ``file`` and ``reason`` of those that should be images.
    passed : dict of reason to list of str
        What was passed over, by its path.
    notes : list of str
        What was understood and might not have been meant, as sentences.
    """

    classes: list[str]
    pictures: list[Picture]
    unreadable: list[dict[str, str]]
    passed: dict[str, list[str]]
    notes: list[str]

    def counts(self) -> dict[str | None, list[int]]:
        """Images by part and class."""
        found: dict[str | None, list[int]] = {}
        for picture in self.pictures:
            found.setdefault(picture.part, [0] * len(self.classes))[picture.label] += 1
        return found


def name_text(name: str) -> str:
    """A file's name as text; bytes that are not UTF-8 are written as ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def junk(name: str, folder: bool) -> str | None:
    """Whose leavings a file or folder is by its name; None if it may be anybody's picture."""
    plain = name.lower()
    if name.startswith("._"):
        return _SYSTEM
    if name.startswith("."):
        return "hidden"
    if folder:
        return _FOLDERS.get(plain) or (_TOOLS if plain.endswith((".lrdata", ".photoslibrary")) else None)
    if plain in _FILES or name.startswith("~$"):
        return _SYSTEM
    suffix = os.path.splitext(plain)[1]
    return "a camera's small copy" if suffix == ".thm" else None


def listing(root: Path, ignore: Sequence[str] = ()) -> tuple[list[File], dict[str, list[str]]]:
    """The files below a folder in the order of their paths, and what is passed over, by reason.

    Links are followed, but nothing is listed twice: what a link shows counts under its own name, if it has one here.

    Raises
    ------
    InputError
        If the folder is missing or cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder")
    files: list[File] = []
    links: list[tuple[os.DirEntry[str], tuple[str, ...]]] = []
    passed: dict[str, list[str]] = collections.defaultdict(list)
    seen = {_identity(os.stat(root))}
    # Which file is which matters only where there are links.
    following = False

    def take(entry: os.DirEntry[str], parts: tuple[str, ...]) -> None:
        folder = os.path.isdir(entry.path)
        if why := junk(entry.name, folder) or ("named by ignore" if _ignored(parts, ignore) else None):
            _pass_over(Path(entry.path), "/".join(map(name_text, parts)), why, folder, passed)
            return
        try:
            found = entry.stat()
        except OSError:  # A link to nowhere is listed all the same: reading it says what is wrong.
            files.append(File(Path(entry.path), parts, None))
            return
        if folder or following:
            if _identity(found) in seen:
                passed["a link to what is here already"].append(name_text("/".join(parts)))
                return
            seen.add(_identity(found))
        if folder:
            walk(entry.path, parts)
        else:
            files.append(File(Path(entry.path), parts, found.st_size))

    def walk(place: str, above: tuple[str, ...]) -> None:
        try:
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}") from None
        for entry in found:
            if entry.is_symlink():
                links.append((entry, (*above, entry.name)))
            else:
                take(entry, (*above, entry.name))

    walk(str(root), ())
    if links:
        following = True
        seen |= {_identity(os.stat(file.path)) for file in files}
    for link in links:  # There may be more of them behind them.
        take(*link)
    files.sort(key=lambda file: (*((1, name) for name in file.parts[:-1]), (0, file.parts[-1])))
    return files, dict(passed)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _ignored(parts: tuple[str, ...], patterns: Sequence[str]) -> bool:
    path = "/".join(parts)
    return any(
        fnmatch.fnmatchcase(path, pattern.rstrip("/")) or fnmatch.fnmatchcase(parts[-1], pattern.rstrip("/"))
        for pattern in patterns
    )


def _pass_over(path: Path, name: str, why: str, folder: bool, passed: dict[str, list[str]]) -> None:
    if not folder:
        passed[why].append(name)
        return
    inside = [Path(place, file) for place, _, files in os.walk(path) for file in files]
    passed[why] += sorted(f"{name}/{name_text(file.relative_to(path).as_posix())}" for file in inside)


def images(root: Path, ignore: Sequence[str] = ()) -> list[File]:
    """The files below a folder that are images: by their suffix or, where that says nothing, by their content.

    Raises
    ------
    InputError
        If the folder is missing or cannot be read.
    """
    files, _ = listing(root, ignore)
    return [file for file in files if file.suffix not in _RAW and _is_image(file)]


def digest(root: Path, rules: Rules) -> str:
    """Of a folder's images by path and size, and of its tables: what has to change for it to be decoded again.

    A touched file is the same file. So is an image edited in place to exactly the same size: delete the store after
    that.
    """
    found = hashlib.sha256()
    files, _ = listing(root, rules.ignore)
    for file in files:
        if labels.may_be_table(file.parts) and rules.table is not False:
            found.update(f"{'/'.join(file.parts)}\0{file_digest(file.path)}\n".encode(errors="surrogateescape"))
        elif file.suffix in _RAW or _is_image(file):
            # A dangling link is listed too: decoding skips it by name, and does so again once it points somewhere.
            size = "missing" if file.size is None else file.size
            found.update(f"{'/'.join(file.parts)}\0{size}\n".encode(errors="surrogateescape"))
    if place := labels.elsewhere(root, rules.table):
        found.update(file_digest(place).encode())
    return found.hexdigest()[:32]


def _is_image(file: File, head: Header | str | None = None) -> bool:
    """Whether a file is one, or should be."""
    if file.suffix in SUFFIXES:
        return True
    head = head or header(file.path)
    return not isinstance(head, str) or head == DICOM


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image says of itself before it is decoded.

    Attributes
    ----------
    depth : str or None
        As of :func:`winnow.data.preprocessing.depth`.
    shortened : bool
        Whether it has more than 8 bits a colour, of which Pillow gives the upper 8.
    """

    depth: str | None
    shortened: bool


def header(path: Path) -> Header | str:
    """An image's header or, if it is none that can be read, why."""
    # Here, so that the Snakefile, which has little to look into, is spared its import.
    from PIL import Image

    from winnow.data.preprocessing import depth, reason

    try:
        if not path.stat().st_size:
            return "empty file"
        with Image.open(path, formats=_formats()) as image:
            needs = depth(image)
            # How its pixels lie in the file, as "RGB;16B"; what is gray has a mode of its own.
            stored = (tile[3] for tile in getattr(image, "tile", ()))
            texts = [args if isinstance(args, str) else args[0] for args in stored if args]
            return Header(needs, needs is None and any(isinstance(text, str) and ";16" in text for text in texts))
    except Exception as error:  # Pillow's plugins raise what they like; a bad file is never more than a bad file
        return DICOM if _is_dicom(path) else reason(error)


def _is_dicom(path: Path) -> bool:
    """Whether a file begins as those of scanners do, which often have no suffix."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


@functools.cache
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.ID if name not in _NO_PICTURES)


def read(root: Path, rules: Rules) -> Tree:
    """Understand a folder.

    Raises
    ------
    InputError
        If it can be read in no way, or in two; the message shows what was found and says what to write.
    """
    files, passed = listing(root, rules.ignore)
    with ThreadPoolExecutor(_READERS) as pool:
        headers = dict(zip(files, pool.map(lambda file: header(file.path), files, chunksize=64), strict=True))
    raw = {file for file in files if file.suffix in _RAW}
    headers |= dict.fromkeys(raw, RAW)
    candidates = [file for file in files if file in raw or _is_image(file, headers[file])]
    developed = {_shot(file) for file in candidates if file not in raw}
    beside = {file for file in raw if _shot(file) in developed}
    if beside:
        passed["a camera's raw file beside its image"] = [file.name for file in files if file in beside]
    candidates = [file for file in candidates if file not in beside]
    taken = {*candidates, *beside}
    others = [file for file in files if file not in taken]
    if not candidates:
        seen = f": {others[0].name}, for one of {len(others)} files, is {headers[others[0]]}" if others else ""
        raise InputError(f"{root} has no image in it{seen}")
    paths = [file.parts for file in candidates], [file.parts for file in others]
    labelled = labels.find(root, *paths, rules.table)
    if labelled and labelled.sure:
        arranged = _by_table(root, labelled, candidates, rules)
    else:
        try:
            arranged = _by_folders(root, candidates, rules)
            _require_classes(root, {place.label for place in arranged.places.values()})
        except InputError as error:
            if labelled:
                arranged = _by_table(root, labelled, candidates, rules)
            elif rules.table is not False and (hint := labels.unclear(root, *paths)):
                raise InputError(f"{error}\n{hint}") from None
            else:
                raise
    tables = set(labelled.tables) if labelled and arranged.labelled else set()
    passed = collections.defaultdict(list, passed)
    passed["not an image"] += [file.name for file in others if file.parts not in tables]
    for why, names in arranged.passed.items():
        passed[why] += names

    pattern = _pattern(rules.group)
    found, unreadable = [], []
    for file, place in arranged.places.items():
        head = headers[file]
        if isinstance(head, str):
            unreadable.append({"file": file.name, "reason": head})
        elif pattern:
            match = pattern.search(file.name)
            group = None if match is None else match[1 if pattern.groups else 0]
            found.append((file, place._replace(group=group)))
        else:
            found.append((file, place))
    if pattern and all(place.group is None for _, place in found):
        raise InputError(f"group: {rules.group!r} is found in no path of {root}, such as {candidates[0].name!r}")
    notes = [*arranged.notes]
    found, classes = _classes(root, found, arranged, unreadable, notes)
    found = _parts(root, found, notes)
    readable = {file: head for file, head in headers.items() if not isinstance(head, str)}
    if shortened := [file.name for file, _ in found if readable[file].shortened]:
        notes.append(
            f"{_count(len(shortened))} of 16 bits a colour, of which the upper 8 are read, such as {shortened[0]!r}"
        )
    return Tree(
        [name_text(name) for name in classes],
        [
            Picture(file, classes.index(place.label), place.part, place.group, readable[file].depth)
            for file, place in found
        ],
        unreadable,
        {why: names for why, names in passed.items() if names},
        notes,
    )


def _shot(file: File) -> tuple[str, ...]:
    """What a camera's files of one picture share: all but the suffix."""
    return (*file.parts[:-1], os.path.splitext(file.parts[-1])[0].casefold())


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise InputError(f"group: {text!r} is no regular expression: {error}") from None


class _Place(NamedTuple):
    """A file's class, part and group."""

    label: str
    part: str | None
    group: str | None = None


@dataclasses.dataclass(frozen=True)
class _Arranged:
    """Where each file belongs; what belongs nowhere; and whether a table says so."""

    places: dict[File, _Place]
    passed: dict[str, list[str]]
    notes: list[str]
    labelled: bool = False


def _by_table(root: Path, found: labels.Labels, files: list[File], rules: Rules) -> _Arranged:
    roles = {} if found.has_parts else _folder_parts(root, files, rules)
    places, passed = {}, collections.defaultdict(list)
    for file in files:
        row = found.rows.get(file.parts)
        if row is None:
            passed[found.missing.get(file.parts, "without a label in the table")].append(file.name)
        else:
            places[file] = _Place(row.label, row.part or roles.get(file), row.group)
    return _Arranged(places, dict(passed), list(found.notes), labelled=True)


def _folder_parts(root: Path, files: list[File], rules: Rules) -> dict[File, str]:
    """The parts that files lie in by their folders, as far as these look like parts or are named as such."""
    whole = _node(files)
    tree, above = _unwrapped(whole, ())
    if rules.splits is None:
        places = {(*above, name): part for name, part in part_names.side_by_side(tree.folders).items()}
    else:
        places = _named_parts(root, whole, above, rules.splits)
    return {file: part for file in files for folder, part in places.items() if file.parts[: len(folder)] == folder}


def _named_parts(
    root: Path, whole: _Node, above: tuple[str, ...], splits: Mapping[str, Sequence[str]]
) -> dict[tuple[str, ...], str]:
    """The folders that the configuration names as parts."""
    places: dict[tuple[str, ...], str] = {}
    for part, patterns in splits.items():
        found = [folder for folder in _folders(whole) if _matches(folder, above, patterns)]
        if not found:
            raise InputError(
                f"splits: {part}: no folder of {root} is {', '.join(patterns)}. Found:\n{_drawn(root, whole)}"
            )
        places |= dict.fromkeys(found, part)
    return places


def _without_images(root: Path, levels: Iterable[tuple[str, ...]], whole: _Node, ignore: Sequence[str]) -> list[str]:
    """Folders that stand where those of parts and classes do, and have no image in them."""
    found = []
    for level in levels:
        with os.scandir(root.joinpath(*level)) as entries:
            names = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        for name in names - set(_at(whole, level).folders):
            if not junk(name, folder=True) and not _ignored((*level, name), ignore):
                found.append("/".join((*level, name)))
    return sorted(found)


def _by_folders(root: Path, files: list[File], rules: Rules) -> _Arranged:
    whole = _node(files)
    tree, above = _unwrapped(whole, ())
    notes: list[str] = []
    if rules.splits is None:
        roles = part_names.side_by_side(tree.folders)
        places = {(*above, name): part for name, part in roles.items()}
        if places and (rest := sorted(set(tree.folders) - set(roles))):
            raise _unclear(
                root,
                whole,
                f"{_listed(roles)} look like parts of a data set, {_listed(rest)} beside them do not",
                [
                    _write("ignore", f"[{', '.join(rest)}]", f"to leave {_listed(rest)} out"),
                    _write("splits", "{}", "if all of them are classes"),
                    _write("splits", "{train: …, test: …}", "to say which are parts"),
                ],
            )
        inverted = {} if places else _inverted(tree, above)
    else:
        places = _named_parts(root, whole, above, rules.splits)
        inverted = places if _within_classes(whole, places) else {}
    if above:
        notes.append(f"{'/'.join(map(name_text, above))} only wraps the folders within it")
    for folder, part in places.items():
        if name_text(folder[-1]) != part:
            notes.append(f"{'/'.join(map(name_text, folder))} is {_SAID[part]}")

    # Where classes begin: below the parts, less what wraps them there; else below what wraps all.
    starts: dict[tuple[str, ...], tuple[str | None, _Node]] = {}
    for folder, part in places.items():
        within, inner = _unwrapped(_at(whole, folder), folder)
        starts[inner] = part, within
    if not places:
        starts[above] = None, tree
    if places and "train" not in places.values():
        raise _unclear(
            root,
            whole,
            f"{_listed('/'.join(folder) for folder in places)} look like parts of a data set, and none is for training",
            [_write("splits", "{train: …}", "to say which is"), _write("splits", "{}", "if all of them are classes")],
        )
    if inverted:
        starts = {above: (None, tree)}
    known = {name for role, within in starts.values() if role in (None, "train") for name in within.folders}
    unlabelled = {
        start for start, (role, within) in starts.items() if role not in (None, "train") and _bare(within, known)
    }
    for folder in unlabelled:
        notes.append(f"{'/'.join(map(name_text, folder))} has no folders of classes, so no labels: it is not used")
    taken, passed, deeper = {}, collections.defaultdict(list), []
    for file in files:
        start = next((start for start in starts if file.parts[: len(start)] == start), None)
        if start is None:
            passed["in no part that is named by splits" if rules.splits else "beside the folders of classes"].append(
                file.name
            )
            continue
        role, below = starts[start][0], file.parts[len(start) :]
        if start in unlabelled:
            passed["without a label"].append(file.name)
        elif len(below) == 1:
            passed["beside the folders of classes"].append(file.name)
        elif part_within := inverted.get(file.parts[:-1]):
            taken[file] = _Place(below[0], part_within)
        elif inverted and rules.splits:
            passed["in no part that is named by splits"].append(file.name)
        else:
            taken[file] = _Place(below[0], role)
            if len(below) > 2:
                deeper.append(file)
    if deeper and not rules.group:
        raise _nested(root, whole, deeper, starts)
    if not taken:
        at = (
            "a folder of its class"
            if not places
            else f"a folder of its class below {_listed('/'.join(p) for p in places)}"
        )
        raise InputError(
            f"{root} has no image in {at}, and no table that names their classes. Found:\n{_drawn(root, whole)}\n"
            "Needed: class/image, or train/class/image and test/class/image, or a table with a row an image: "
            f"{_write('table', '{path: labels.csv, file: …, label: …}', 'names it and its columns')}"
        )
    if inverted:
        notes.append("each class has its own folders of parts")
    if bare := _without_images(
        root, {*(above[:level] for level in range(len(above) + 1)), *starts}, whole, rules.ignore
    ):
        notes.append(f"no image is in {_listed(bare)}")
    return _Arranged(taken, dict(passed), notes)


_SAID = {"train": "for training", "val": "for validation", "test": "to test"}


@dataclasses.dataclass
class _Node:
    """A folder with images somewhere below it: how many lie in it, and its folders."""

    images: int = 0
    folders: dict[str, _Node] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.images + sum(node.total for node in self.folders.values())


def _node(files: Iterable[File]) -> _Node:
    root = _Node()
    for file in files:
        node = root
        for name in file.parts[:-1]:
            node = node.folders.setdefault(name, _Node())
        node.images += 1
    return root


def _at(node: _Node, folder: tuple[str, ...]) -> _Node:
    for name in folder:
        node = node.folders[name]
    return node


def _folders(node: _Node, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    return [
        folder
        for name, within in node.folders.items()
        for folder in ((*above, name), *_folders(within, (*above, name)))
    ]


def _matches(folder: tuple[str, ...], above: tuple[str, ...], patterns: Sequence[str]) -> bool:
    """Whether patterns name a folder, by its path below the root or below what wraps all folders."""
    paths = ["/".join(folder)]
    if above and folder[: len(above)] == above:
        paths.append("/".join(folder[len(above) :]))
    return any(fnmatch.fnmatchcase(path, each.rstrip("/")) for path in paths for each in patterns)


def _unwrapped(node: _Node, above: tuple[str, ...]) -> tuple[_Node, tuple[str, ...]]:
    """The first folder that holds more than one folder, or images alone."""
    while len(node.folders) == 1:
        ((name, within),) = node.folders.items()
        if not within.folders:
            break
        node, above = within, (*above, name)
    return node, above


def _bare(node: _Node, known: set[str]) -> bool:
    """Whether a part has no labels: no folders of classes, or just one that is no class."""
    return not node.folders or (len(node.folders) == 1 and not known & set(node.folders))


def _inverted(tree: _Node, above: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    """The parts, where each class's folder holds folders of parts."""
    names = {name for node in tree.folders.values() for name in node.folders}
    roles = part_names.side_by_side(names)
    whole = names and set(roles) == names and not any(node.images for node in tree.folders.values())
    if not whole or len(tree.folders) < 2 or "train" not in roles.values():
        return {}
    return {(*above, name, within): roles[within] for name, node in tree.folders.items() for within in node.folders}


def _within_classes(whole: _Node, places: Iterable[tuple[str, ...]]) -> bool:
    """Whether folders that are named as parts hold images alone, and lie in several folders, which then are classes."""
    return len({folder[:-1] for folder in places}) > 1 and not any(_at(whole, folder).folders for folder in places)


def _nested(root: Path, whole: _Node, deeper: list[File], starts: Mapping[tuple[str, ...], Any]) -> InputError:
    """Images that lie one folder deeper than classes do."""
    start = next(start for start in starts if deeper[0].parts[: len(start)] == start)
    tops = list(dict.fromkeys(file.parts[len(start)] for file in deeper))
    folder = "/".join(deeper[0].parts[:-1])
    ways = [_write("ignore", f"[{folder}]", "to leave folders out")]
    if () in starts or None in [part for part, _ in starts.values()]:
        last = tops[1] if len(tops) > 1 else "…"
        ways = [
            _write("splits", f"{{train: {tops[0]}, test: {last}}}", "if these are parts of the data set"),
            _write("splits", f"{{train: [{', '.join(tops[:_SHOWN])}]}}", "if the folders within them are the classes"),
            *ways,
        ]
    within = [sorted(_at(whole, (*start, top)).folders) for top in tops]
    if len(tops) > 1 and len(within[0]) > 1 and within.count(within[0]) == len(tops):
        first, last = within[0][-1], within[0][0]
        ways.append(_write("splits", f'{{train: "*/{first}", test: "*/{last}"}}', "if each class has these parts"))
    ways.append(
        _write("group", r"'^(.+)/[^/]+$'", f"if {_listed(tops)} are classes, and what is within them are scenes, say")
    )
    return _unclear(root, whole, f"images lie one folder deeper than classes do, in {name_text(folder)} for one", ways)


def _unclear(root: Path, whole: _Node, what: str, ways: list[str]) -> InputError:
    return InputError(
        f"{root}: {what}. Found:\n{_drawn(root, whole)}\nSay what they are, in the data set's configuration or by "
        "RULES of make run:\n" + "\n".join(f"  {way}" for way in ways)
    )


def _write(key: str, value: str, why: str) -> str:
    return f"{key}: {value} {why}"


def _listed(names: Iterable[str]) -> str:
    names = [name_text(name) for name in names]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _drawn(root: Path, node: _Node) -> str:
    """A tree with the images of each folder, as text."""
    lines = [f"  {name_text(root.name)}/  {_count(node.total)}"]

    def draw(node: _Node, level: int) -> None:
        for number, (name, within) in enumerate(sorted(node.folders.items())):
            if number == _SHOWN:
                lines.append(f"{'  ' * level}… and {len(node.folders) - _SHOWN} more folders")
                break
            lines.append(f"{'  ' * level}{name_text(name)}/  {_count(within.total)}")
            if level <= _LEVELS:
                draw(within, level + 1)

    draw(node, 2)
    return "\n".join(lines)


def _count(images: int) -> str:
    return f"{images} image{'s' * (images != 1)}"


_Found = list[tuple[File, _Place]]


def _classes(
    root: Path, found: _Found, arranged: _Arranged, unreadable: list[dict[str, str]], notes: list[str]
) -> tuple[_Found, list[str]]:
    """The classes that there are to learn; those of other parts are called as these are, in any case of letters.

    Raises
    ------
    InputError
        If there is one class only, or a class has no image to train on, or none to test where there is a test part.
    """
    learned = {place.label for _, place in found if place.part in (None, "train")}
    if found and not learned:
        named = ", ".join(sorted({place.part for _, place in found if place.part is not None}))
        raise InputError(f"{root} has parts, {named}, and none for training")
    if lost := {place.label for place in arranged.places.values() if place.part in (None, "train")} - learned:
        raise InputError(
            f"{root}: no image of the class {name_text(min(lost))!r} can be read; {unreadable[0]['file']}: "
            f"{unreadable[0]['reason']}"
        )
    alike = collections.defaultdict(list)
    for name in sorted(learned):
        alike[name.strip().casefold()].append(name)
    for names in alike.values():
        if len(names) > 1:
            notes.append(f"the classes {_listed(names)} differ in case or white space only")
    called = []
    for file, place in found:
        names = [place.label] if place.label in learned else alike.get(place.label.strip().casefold(), [])
        if len(names) != 1:
            raise InputError(
                f"{file.path}: the class {name_text(place.label)!r} has no images to train on; classes are "
                f"{_listed(sorted(learned))}"
            )
        called.append((file, place._replace(label=names[0])))
    _require_classes(root, learned)
    tested = {place.label for _, place in called if place.part == "test"}
    if tested and (lost := learned - tested):
        raise InputError(
            f"{root}: class {name_text(min(lost))!r} has no readable image to test, others have: leave the test out by "
            "ignore, and it is taken from the training images"
        )
    return called, sorted(learned)


def _require_classes(root: Path, names: set[str]) -> None:
    if len(names) < 2:
        what = f"one class, {name_text(min(names))!r}" if names else "no image that can be read"
        raise InputError(
            f"{root} has {what}: there is nothing to tell apart. Needed: class/image or train/class/image, with two "
            "classes or more, or a table of labels"
        )


def _parts(root: Path, found: _Found, notes: list[str]) -> _Found:
    """The same with parts as they will be used: for all images, or for none."""
    counts = collections.Counter(place.part for _, place in found)
    named = set(counts) - {None}
    if not named or named == {"train"}:
        if named:
            notes.append("all images are for training: those for validation and to test are taken from them")
        return [(file, place._replace(part=None)) for file, place in found]
    if counts[None]:
        notes.append(f"{_count(counts[None])} of no part: for training")
    if "test" not in named:
        notes.append("no part is to test: the test images are taken from the training images")
    return [(file, place._replace(part=place.part or "train")) for file, place in found]
