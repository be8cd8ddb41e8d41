"""Two networks on the same photographs, of which nobody has labels: where they disagree, what that says of the second's
accuracy, and a page on which somebody can say what those photographs show.

Imports no torch, but for networks that need it.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from winnow.answers import disagreement, gallery, pages
from winnow.answers.disagreement import Counts
from winnow.answers.intervals import CONFIDENCE, Interval
from winnow.data import copies, preprocessing
from winnow.data.preprocessing import Decoded
from winnow.data.store import Store
from winnow.exports import prediction
from winnow.exports.prediction import Model
from winnow.files import InputError

_HERE = Path(__file__)

# What a label says of a photograph that shows none of the classes.
NONE = "(none of these)"
COLUMNS = ("file", "label")
# Photographs are drawn in an order that anybody can draw again.
SEED = 0
# Photographs on a page at most, 10 kB each: enough to know a drop to a few percent of the disagreements.
MOST = 300
# Side of a photograph on the page, in pixels; more classes than so many are not all offered to be clicked on.
SIDE, BUTTONS = 224, 12
JPEG_QUALITY = 80


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A photograph and what the two networks say that it shows."""

    name: str
    path: Path
    first: str
    second: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two networks say of a folder.

    Attributes
    ----------
    classes : list of str
    photographs : list of Photograph
        In the order of their names: those that both read, each picture once.
    disagreeing : list of Photograph
        Of these, in an order drawn at random.
    unreadable : list of (name, reason)
    repeats : int
        Pictures that were left out since they are in the folder before, pixel by pixel.
    alike : int
        Of the photographs, those that are nearly the same picture as another one.
    seen : int or None
        Pictures that were left out since they are in the data set; None where none was given.
    """

    classes: list[str]
    photographs: list[Photograph]
    disagreeing: list[Photograph]
    unreadable: list[tuple[str, str]]
    repeats: int
    alike: int
    seen: int | None


def compare(
    models: tuple[Model, Model],
    images: Sequence[tuple[str, Path]],
    threads: int,
    dataset: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Comparison:
    """Ask two networks about photographs.

    Parameters
    ----------
    images
        Name and path of each.
    dataset
        Folder of a store whose images are to be left out.
    advance
        Called for each photograph.

    Raises
    ------
    InputError
        If the networks do not tell the same classes, the store has images that are prepared otherwise than either
        network's, or no photograph is left.
    """
    first, second = models
    if set(first.classes) != set(second.classes):
        raise InputError(
            f"{first.path} and {second.path} do not tell the same classes: "
            f"{_only(first, second)}; {_only(second, first)}"
        )
    known = _known(dataset, models)
    found, unreadable, checksums, likenesses, seen = [], [], [], [], 0
    for (name, path), answers, decoded in _answers(models, images, threads):
        advance()
        if isinstance(answers, str):
            unreadable.append((name, answers))
            continue
        checksum = [zlib.crc32(np.ascontiguousarray(each.pixels).data) for each in decoded]
        if known and checksum[known[0]] in known[1]:
            seen += 1
            continue
        found.append(Photograph(name, path, *answers))
        checksums.append(checksum[0])
        likenesses.append(decoded[0].likeness)
    if not found:
        raise InputError(
            f"of {len(images)} photographs none is left: {len(unreadable)} could not be read, {seen} known"
        )
    # One class of all: what they show is not known.
    sets = copies.find(likenesses, checksums, [0] * len(found))
    own = np.arange(len(found))
    photographs = [found[row] for row in np.flatnonzero(sets.same == own)]
    disagreeing = [each for each in photographs if each.first != each.second]
    order = np.random.default_rng(SEED).permutation(len(disagreeing))
    return Comparison(
        first.classes,
        photographs,
        [disagreeing[number] for number in order],
        unreadable,
        int((sets.same != own).sum()),
        int(((sets.near != own) & (sets.same == own)).sum()),
        seen if dataset else None,
    )


def _only(one: Model, other: Model) -> str:
    names = [name for name in one.classes if name not in other.classes]
    return (
        f"only in {one.path.name}: {', '.join(names[:5])}{' …' * (len(names) > 5)}" if names else "the rest is in both"
    )


def _known(dataset: Path | None, models: tuple[Model, Model]) -> tuple[int, set[int]] | None:
    """Which of the models prepares its images as a store did, and the checksums of that one's images."""
    if dataset is None:
        return None
    store = Store.open(dataset)
    form = store.manifest["store_size"], store.manifest["reading"]
    for number, model in enumerate(models):
        # As JSON has it: pairs are lists there.
        reading = {key: list(value) if isinstance(value, tuple) else value for key, value in model.form.reading.items()}
        if form == (model.form.size, reading):
            return number, set(store.checksums.tolist())
    raise InputError(f"{dataset} has images of another size or reading than either network: they cannot be found again")


def _answers(
    models: tuple[Model, Model], images: Sequence[tuple[str, Path]], threads: int
) -> Iterator[tuple[tuple[str, Path], tuple[str, str] | str, tuple[Decoded, ...]]]:
    """Each photograph with both answers and what both were given; or with the reason why it could not be read."""

    def read(image: tuple[str, Path]) -> bytes:
        return image[1].read_bytes()

    first, second = models
    size = min(prediction.batch_size(model.image_size) for model in models)
    stream: Iterator[tuple[tuple[str, Path], tuple[Decoded | str, Decoded | str]]]
    stream = ((image, (one, one)) for image, one in preprocessing.decode_all(images, read, first.form, threads))
    if first.form != second.form:
        others = preprocessing.decode_all(images, read, second.form, threads)
        stream = ((image, (one, other)) for (image, (one, _)), (_, other) in zip(stream, others, strict=True))
    while batch := list(itertools.islice(stream, size)):
        good = [(one, other) for _, (one, other) in batch if not isinstance(one, str) and not isinstance(other, str)]
        named = []
        for number, model in enumerate(models):
            squares = [decoded[number].pixels for decoded in good]
            best = model.probabilities(np.stack(squares)).argmax(axis=1) if squares else ()
            named.append([model.classes[place] for place in best])
        answers = zip(*named, good, strict=True)
        for image, given in batch:
            reason = next((each for each in given if isinstance(each, str)), None)
            if reason is not None:
                yield image, reason, ()
            else:
                one_name, other_name, decoded = next(answers)
                yield image, (one_name, other_name), decoded


def labelled(path: Path, compared: Comparison) -> Counts:
    """What a CSV with the columns file and label says of the photographs on which two networks disagree.

    Of those in the order that was drawn, up to the last that has a label: they are a random sample. A label that is
    empty is none.

    Raises
    ------
    InputError
        If it has other columns, a label that is no class, or none for a photograph on which they disagree.
    """
    said = _read_labels(path, compared)
    labels = [said.get(each.name) for each in compared.disagreeing]
    last = max((place for place, label in enumerate(labels, 1) if label), default=0)
    if compared.disagreeing and not last:
        raise InputError(f"{path} has a label for none of the photographs on which the two disagree")
    sample = list(zip(labels[:last], compared.disagreeing[:last], strict=True))
    return Counts(
        len(compared.photographs),
        len(compared.disagreeing),
        last,
        sum(label == each.first for label, each in sample),
        sum(label == each.second for label, each in sample),
        sum(not label for label, _ in sample),
    )


def _read_labels(path: Path, compared: Comparison) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if not set(COLUMNS) <= set(rows.fieldnames or ()):
        raise InputError(f"{path} has the columns {', '.join(rows.fieldnames or ())}: needed are {', '.join(COLUMNS)}")
    allowed = {*compared.classes, NONE}
    said: dict[str, str] = {}
    for row in rows:
        name, label = row["file"], (row["label"] or "").strip()
        if label and label not in allowed:
            shown = ", ".join([*compared.classes[:10], *(["…"] if len(compared.classes) > 10 else []), NONE])
            raise InputError(f"{path}, line {rows.line_num}: {label!r} is none of the classes: allowed are {shown}")
        if label and said.setdefault(name, label) != label:
            raise InputError(f"{path}, line {rows.line_num}: {name} has two labels, {said[name]} and {label}")
    return said


def sentences(compared: Comparison, counts: Counts | None = None) -> list[str]:
    """What a comparison of a first network, A, with a second one, B, says in plain words."""
    images, differ = len(compared.photographs), len(compared.disagreeing)
    lines = [f"A and B disagree on {differ} of {images} photographs, {100 * differ / images:.1f} %."]
    if counts is None or not differ:
        return [
            *lines,
            f"Without a label: on these photographs the accuracies of A and B are at most {_points(differ / images)} "
            f"apart. On photographs like these they are at most {_points(disagreement.most(differ, images), up=True)} "
            f"apart; of that we are {100 - 100 * disagreement.TAIL:g} % sure.",
        ]
    drawn = f"these {differ}" if counts.labelled == differ else f"{counts.labelled} of them, drawn at random,"
    neither = counts.labelled - counts.first - counts.second - counts.unknown
    unknown = f", and {counts.unknown} without a label" if counts.unknown else ""
    here, like = disagreement.pool(counts), disagreement.population(counts)
    sure = "that is known" if here.low == here.high else _bounds(here)
    lines += [
        f"Of {drawn} A is right on {counts.first}, B on {counts.second}, neither on {neither}{unknown}.",
        f"On these photographs B {_loses(here.drop)}: {sure}.",
        f"On photographs like these B {_loses(like.drop)}: {_bounds(like)}.",
    ]
    if counts.unknown:
        lines.append(
            "Those without a label count against either bound: label from the page's top on, one photograph after the "
            "other."
        )
    return lines


def cautions(compared: Comparison) -> list[str]:
    """What has to be so for the sentences to hold, and what was done that they do."""
    lines = [
        "This speaks of photographs of which these are a random sample. If they were picked, if all are of one day or "
        "camera, or if a network has learned from them, it says nothing about others."
    ]
    if compared.seen is None:
        lines.append(
            "Whether some are images that the networks have learned from was not looked at: --dataset does, and "
            "leaves them out."
        )
    elif compared.seen:
        lines.append(f"{compared.seen} photographs are images of the data set, and were left out.")
    if compared.repeats:
        lines.append(f"{compared.repeats} photographs are in the folder more than once, and count once.")
    if compared.alike:
        lines.append(
            f"WARNING: {compared.alike} photographs are nearly the same picture as another one: what they say is less "
            "than that of as many different ones, and the bounds are too narrow."
        )
    if compared.unreadable:
        lines.append(f"{len(compared.unreadable)} photographs could not be read, and are left out.")
    return lines


def page(compared: Comparison, models: tuple[Model, Model], names: tuple[str, str], shown: int = MOST) -> str:
    """The page with photographs to label, as HTML that loads nothing.

    It does not say which network answered what: nobody's label should lean to either.
    """
    photographs = compared.disagreeing[:shown]
    environment = pages.environment(_HERE.parent)
    every = len(compared.classes) <= BUTTONS
    return environment.get_template(f"{_HERE.stem}.html").render(
        names=names,
        sentences=sentences(compared),
        cautions=cautions(compared),
        photographs=[
            {
                "name": each.name,
                "image": _thumbnail(each.path, models[0]),
                "choices": compared.classes if every else sorted({each.first, each.second}),
            }
            for each in photographs
        ],
        more=len(compared.disagreeing) - len(photographs),
        classes=[] if every else compared.classes,
        nothing=NONE,
        columns=COLUMNS,
        style=Path(gallery.__file__).with_name("report.css").read_text(encoding="utf-8"),
    )


def _thumbnail(path: Path, model: Model) -> str:
    """What the network sees of a file, larger, as a data URI."""
    form = dataclasses.replace(model.form, size=SIDE)
    pixels, buffer = preprocessing.decode(path.read_bytes(), form).pixels, io.BytesIO()
    Image.fromarray(pixels.squeeze(axis=2) if form.channels == 1 else pixels).save(
        buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True
    )
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _points(share: float, up: bool = False) -> str:
    """A share in points; a bound is rounded ``up``."""
    value = np.ceil(1000 * share - 1e-9) / 10 if up else 100 * share
    return f"{value:.1f} points"


def _loses(drop: float) -> str:
    if round(1000 * drop) == 0:
        return "is as often right as A, to a tenth of a point"
    return f"is right {_points(abs(drop))} {'less' if drop > 0 else 'more'} often than A"


def _bounds(interval: Interval) -> str:
    low, high = np.floor(1000 * interval.low + 1e-9) / 10, np.ceil(1000 * interval.high - 1e-9) / 10
    return f"the drop's {100 * CONFIDENCE:g} % interval is {low:.1f} to {high:.1f} points".replace("-", "−")
