"""Every table's schema, in one place, and the only two functions that write and read tables.

Units: counts are images or positions (height × width cells of one channel's map), never batches; ``seconds`` are
wall-clock seconds; probabilities and accuracies lie in [0, 1]; ``learning_rate`` is the one of the epoch's last step.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from winnow.files import InputError, atomic_path, canonical_json

_NAME = pa.string()
# Which networks a row is of: a cell less its seed, and how many seeds have finished. backbone: the experiment's;
# control: the one whose unpruned network it is where that is another, else null.
_PLACE = [("dataset", _NAME), ("backbone", _NAME)]
_NETWORKS = [
    ("control", _NAME),
    ("criterion", _NAME),
    ("scope", _NAME),
    ("ratio", pa.float64()),
    ("round_to", pa.int32()),
    ("init", _NAME),
    ("protocol", _NAME),
    ("seeds", pa.int32()),
]
_DROP = [(f"{name}{end}", pa.float64()) for name in ("drop", "class_drop") for end in ("", "_low", "_high")]
_FAILED = ("failed_seeds", pa.string())

SCHEMAS: dict[str, pa.Schema] = {
    # One row an image of the store, in the store's order. label: position in the manifest's list of classes.
    # official: train, val or test, as the source brings it; null where it brings no split. group: of images that stay
    # together; null for one that belongs to no other. width, height: pixels of the original. crc32: of the image's
    # bytes in the store.
    "index": pa.schema(
        [
            ("image", pa.int32()),
            ("file", pa.string()),
            ("label", pa.int16()),
            ("official", _NAME),
            ("group", _NAME),
            ("stratum", _NAME),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("crc32", pa.uint32()),
        ]
    ),
    # One row an image that trains, chooses or judges. image: row of the store's index. split: train, val or test.
    "split": pa.schema([("image", pa.int32()), ("split", _NAME)]),
    # One row a slice of a tensor that goes when the unit goes: indices first, first + stride, ... (length of them).
    "channels": pa.schema(
        [
            ("unit", pa.int32()),
            ("layer", _NAME),
            ("filter", pa.int32()),
            ("tensor", _NAME),
            ("dimension", pa.int8()),
            ("first", pa.int32()),
            ("length", pa.int32()),
            ("stride", pa.int32()),
        ]
    ),
    # value: the criterion's own value; score: the same, turned so that higher means keep.
    "scores": pa.schema([("layer", _NAME), ("filter", pa.int32()), ("value", pa.float64()), ("score", pa.float64())]),
    # rank: position in the scope's order of removal, 0 goes first.
    "mask": pa.schema([("layer", _NAME), ("filter", pa.int32()), ("keep", pa.bool_()), ("rank", pa.int32())]),
    # One row a test image. image: row of the store's index.
    "predictions": pa.schema(
        [
            ("image", pa.int32()),
            ("label", pa.int16()),
            ("predicted", pa.int16()),
            ("probability", pa.float32()),
            ("correct", pa.bool_()),
        ]
    ),
    # One row an epoch, counted from 1; val_* are null where the epoch was not evaluated.
    "history": pa.schema(
        [
            ("epoch", pa.int32()),
            ("train_loss", pa.float64()),
            ("val_loss", pa.float64()),
            ("val_accuracy", pa.float64()),
            ("learning_rate", pa.float64()),
            ("seconds", pa.float64()),
            ("images_per_second", pa.float64()),
        ]
    ),
    # One row a cell less its seed. drop: baseline accuracy minus accuracy, paired by seed and image; class_drop: that
    # of the mean over classes of their accuracies; val_drop: as drop, on the validation images. *_low, *_high: 95 %
    # interval, of accuracy over seeds, of drops over seeds and test images. macs: multiply-accumulates of one image.
    # latency_ms, latency_32_ms: of a forward pass of 1 and of 32 images, null where not measured. failed_seeds:
    # null-free, "" or "3, 5". unequal_seeds: likewise, those whose batch norms had other batches than their baseline's,
    # for want of memory.
    "summary": pa.schema(
        [
            *_PLACE,
            *_NETWORKS,
            ("accuracy", pa.float64()),
            ("accuracy_std", pa.float64()),
            ("accuracy_low", pa.float64()),
            ("accuracy_high", pa.float64()),
            ("class_accuracy", pa.float64()),
            ("val_accuracy", pa.float64()),
            ("val_drop", pa.float64()),
            *_DROP,
            ("achieved_ratio", pa.float64()),
            ("params", pa.int64()),
            ("macs", pa.int64()),
            ("bytes", pa.int64()),
            ("latency_ms", pa.float64()),
            ("latency_32_ms", pa.float64()),
            ("seconds", pa.float64()),
            _FAILED,
            ("unequal_seeds", pa.string()),
        ]
    ),
    # One row an answer. question: verdicts, ladder or claims. size, baseline_size: in the unit of the measure.
    # class_drop: of the mean over classes of their accuracies. *_low, *_high: interval over seeds and test images, at
    # ``level``. wanted: trainings that it should have next. images: more test images that would decide, null where
    # that is not known.
    # failed_seeds, unequal_seeds: as in the summary. verdict: holds, fails or undecided.
    "recommendation": pa.schema(
        [
            ("question", _NAME),
            *_PLACE,
            ("measure", _NAME),
            *_NETWORKS,
            ("size", pa.float64()),
            ("baseline_size", pa.float64()),
            ("accuracy", pa.float64()),
            ("baseline_accuracy", pa.float64()),
            ("val_drop", pa.float64()),
            *_DROP,
            ("lost_classes", pa.list_(pa.string())),
            _FAILED,
            ("unequal_seeds", pa.string()),
            ("level", pa.float64()),
            ("wanted", pa.int32()),
            ("images", pa.int64()),
            ("verdict", _NAME),
            ("sentence", pa.string()),
        ]
    ),
}

_METADATA_KEY = b"winnow"


def write_table(path: str | os.PathLike[str], rows: Any, schema: str, provenance: dict[str, Any]) -> None:
    """Write a table atomically as Parquet, its provenance in the file's metadata.

    Parameters
    ----------
    path
        The file to make.
    rows
        A ``pandas.DataFrame``, a ``pyarrow.Table`` or a mapping of column name to values.
    schema
        A name in :data:`SCHEMAS`. Columns are cast to it and put in its order; a missing one raises ``KeyError``.
    provenance
        What made the table: a JSON value, read back by :func:`read_provenance`.
    """
    wanted = SCHEMAS[schema]
    if isinstance(rows, pa.Table):
        table = rows.select(wanted.names).cast(wanted)
    elif isinstance(rows, dict):
        table = pa.table({name: rows[name] for name in wanted.names}, schema=wanted)
    else:
        table = pa.Table.from_pandas(rows[wanted.names], schema=wanted, preserve_index=False)
    table = table.replace_schema_metadata({_METADATA_KEY: canonical_json(provenance).encode()})
    # Rows of a store go up: as differences they take next to nothing, and the split of a million images stays below the
    # size up to which Snakemake compares contents.
    rows = {"image": "DELTA_BINARY_PACKED"} if "image" in wanted.names else None
    others = [name for name in wanted.names if name != "image"]
    with atomic_path(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", use_dictionary=others if rows else True, column_encoding=rows
        )


def read_table(path: str | os.PathLike[str], schema: str) -> pa.Table:
    """Read a table and check it against its schema.

    Raises
    ------
    InputError
        If the file is missing, unreadable (truncated, not Parquet) or has other columns or types; the message names
        the file and the difference.
    """
    table = _read(path)
    wanted = SCHEMAS[schema]
    if not table.schema.equals(wanted, check_metadata=False):
        found = {field.name: str(field.type) for field in table.schema}
        expected = {field.name: str(field.type) for field in wanted}
        raise InputError(f"{path} is not a table of {schema}: it has the columns {found}, expected are {expected}")
    return table


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The provenance that :func:`write_table` stored in the file's metadata.

    Raises
    ------
    InputError
        If the file is missing, unreadable or was not written by :func:`write_table`.
    """
    try:
        return json.loads(pq.read_schema(path).metadata[_METADATA_KEY])
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} carries no provenance ({error}): delete it and run again to make it anew") from None


def _read(path: str | os.PathLike[str]) -> pa.Table:
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read ({reason}): delete it and run again to make it anew") from None
