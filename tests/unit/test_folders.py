"""Folders as people have them: what is a class, a part, a label, a group, what is passed over, and what is refused."""

from __future__ import annotations

import base64
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from winnow.answers import procedure
from winnow.data import folders, overview, splits
from winnow.data.folders import Rules
from winnow.data.preprocessing import Form
from winnow.data.store import Store
from winnow.exports import prediction
from winnow.files import InputError
from winnow.tables import read_table
from winnow.workflow import defaults, promises

from . import programs

CASES = Path(__file__).parents[3] / "shared" / "cases" / "make.py"
DOT = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


def draw(root: Path, *files: str, content: bytes = DOT) -> Path:
    """Image files; ``a/{3}.png`` stands for three of them."""
    for pattern in files:
        start, _, rest = pattern.partition("{")
        count, _, end = rest.partition("}")
        for name in [f"{start}{number}{end}" for number in range(int(count))] if rest else [pattern]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
    return root


def read(root: Path, **rules) -> folders.Tree:
    return folders.read(root, Rules.of(rules))


def of_parts(tree: folders.Tree) -> dict[str | None, int]:
    return {part: sum(counts) for part, counts in tree.counts().items()}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "valid", "test"),
        ("Train", "Validation", "Test"),
        ("TRAINING", "VAL", "TESTING"),
        ("training", "dev", "testing"),
        ("x_train", "x_val", "x_test"),
        ("birds-train-v2", "birds-valid-v2", "birds-test-v2"),
        ("TrainSet", "ValSet", "TestSet"),
        ("train_images", "val_images", "test_images"),
        ("train2017", "val2017", "test2017"),
        ("trainset", "valset", "testset"),
        ("Training Set", "Validation Set", "Test images"),
        ("01_train", "02_val", "03_test"),
    ],
)
def test_parts_are_known_by_the_names_that_people_give_them(tmp_path, train, val, test):
    draw(tmp_path, *(f"{part}/{kind}/{{2}}.png" for part in (train, val, test) for kind in ("cat", "dog")))
    tree = read(tmp_path)
    assert tree.classes == ["cat", "dog"]
    assert of_parts(tree) == {"train": 4, "val": 4, "test": 4}
    assert {picture.part for picture in tree.pictures if val in picture.file.parts} == {"val"}


@pytest.mark.parametrize("names", [("test_tube", "train_station"), ("valise", "trainer"), ("testify", "develop")])
def test_what_only_begins_like_a_part_is_a_class(tmp_path, names):
    assert read(draw(tmp_path, *(f"{name}/{{2}}.png" for name in names))).classes == sorted(names)


@pytest.mark.parametrize("above", ["", "photos/", "photos/photos/", "train/"])
def test_folders_that_only_wrap_are_seen_through(tmp_path, above):
    tree = read(draw(tmp_path, f"{above}cat/{{3}}.png", f"{above}dog/{{3}}.png"))
    assert tree.classes == ["cat", "dog"]
    assert of_parts(tree) == {None: 6}
    assert any("only wraps" in note for note in tree.notes) == bool(above)


def test_a_part_within_itself_is_seen_through(tmp_path):
    kinds = [f"seg_{part}/seg_{part}/{kind}/{{2}}.png" for part in ("train", "test") for kind in "ab"]
    assert of_parts(read(draw(tmp_path, *kinds))) == {"train": 4, "test": 4}


def test_parts_within_classes_are_parts(tmp_path):
    tree = read(draw(tmp_path, *(f"{kind}/{part}/{{2}}.png" for part in ("Train", "Test") for kind in ("cat", "dog"))))
    assert (tree.classes, of_parts(tree)) == (["cat", "dog"], {"train": 4, "test": 4})


def test_parts_within_classes_can_be_named(tmp_path):
    draw(tmp_path, *(f"photos/{kind}/{part}/{{2}}.png" for part in ("learn", "exam") for kind in ("cat", "dog")))
    draw(tmp_path, "photos/cat/old/{3}.png")
    with pytest.raises(InputError, match="one folder deeper than classes do"):
        read(tmp_path)
    tree = read(tmp_path, splits={"train": "*/learn", "test": "*/exam"})
    assert (tree.classes, of_parts(tree)) == (["cat", "dog"], {"train": 4, "test": 4})
    assert len(tree.passed["in no part that is named by splits"]) == 3
    with pytest.raises(InputError, match=r'splits: \{train: "\*/learn", test: "\*/exam"\} if each class has'):
        read(tmp_path, ignore=["old"])


def test_a_folder_that_stands_among_classes_or_parts_without_an_image_is_named(tmp_path):
    draw(tmp_path, "train/cat/{3}.png", "train/dog/{3}.png")
    draw(tmp_path, "train/owl/film{3}.mp4", content=b"\0\0\0\x18ftypmp42" + bytes(99))
    for bare in ("train/fox", "test", ".cache", "train/@eaDir"):
        (tmp_path / bare).mkdir()
    assert "no image is in test, train/fox, train/owl" in read(tmp_path).notes
    assert "no image is in test, train/owl" in read(tmp_path, ignore=["fox"]).notes


@pytest.mark.parametrize("inside", ["test/{4}.png", "test/unknown/{4}.png", "test/test/{4}.png"])
def test_a_test_folder_without_labels_is_said_and_not_used(tmp_path, inside):
    tree = read(draw(tmp_path, "train/cat/{3}.png", "train/dog/{3}.png", inside))
    assert of_parts(tree) == {None: 6}
    assert len(tree.passed["without a label"]) == 4
    assert any("no labels: it is not used" in note for note in tree.notes)


def test_training_and_validation_alone_leave_the_test_to_be_carved(tmp_path):
    tree = read(draw(tmp_path, *(f"{part}/{kind}/{{4}}.png" for part in ("train", "val") for kind in "ab")))
    assert of_parts(tree) == {"train": 8, "val": 8}
    assert "no part is to test: the test images are taken from the training images" in tree.notes


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["in/chair/{2}.png", "in/table/{2}.png", "out/chair/{2}.png", "out/table/{2}.png"], "one folder deeper than"),
        (["cat/{2}.png", "cat/old/{2}.png", "dog/{2}.png"], "one folder deeper than classes do, in cat/old"),
        (["train/cat/x/{2}.png", "train/dog/{2}.png", "test/cat/{2}.png"], "in train/cat/x"),
        (["train/cat/{2}.png", "train/dog/{2}.png", "test/cat/{2}.png", "more/cat/{2}.png"], "more beside them do not"),
        (["train/{2}.png", "bus/{2}.png", "car/{2}.png"], "train look like parts .* bus, car beside them do not"),
        (["valid/{2}.png", "invalid/{2}.png"], "invalid beside them do not"),
        (["val/cat/{2}.png", "val/dog/{2}.png", "test/cat/{2}.png", "test/dog/{2}.png"], "none is for training"),
        (["train/{2}.png", "test/{2}.png"], "no image in a folder of its class below .* no table"),
        (["{2}.png"], "no image in a folder of its class, and no table"),
        (["cat/{2}.png"], "has one class, 'cat': there is nothing to tell apart"),
        (["cat/{2}.png", "dog/notes.txt"], "has one class"),
        (
            ["train/cat/{2}.png", "train/dog/{2}.png", "test/owl/{2}.png", "test/cat/{2}.png"],
            "class 'owl' has no images",
        ),
        (
            ["train/cat/{2}.png", "train/dog/{2}.png", "train/owl/{2}.png", "test/cat/{2}.png", "test/dog/{2}.png"],
            "class 'owl' has no readable image to test, others have",
        ),
        (["a/notes.txt", "b/more.txt"], "has no image in it: a/notes.txt, for one of 2 files, is not an image in a"),
    ],
)
def test_what_can_be_read_in_two_ways_or_none_is_an_error_that_shows_it(tmp_path, files, says):
    for name in files:
        draw(tmp_path, name, content=b"text" if name.endswith(".txt") else DOT)
    with pytest.raises(InputError, match=says):
        read(tmp_path)


def test_the_error_draws_the_tree_and_says_what_to_write(tmp_path):
    draw(tmp_path, *(f"{place}/{kind}/{{2}}.png" for place in ("in", "out") for kind in ("chair", "table")))
    with pytest.raises(InputError) as error:
        read(tmp_path)
    assert "    in/  4 images\n      chair/  2 images\n" in str(error.value)
    # Each of the ways that it names can be taken.
    assert "splits: {train: in, test: out}" in str(error.value)
    tree = read(tmp_path, splits={"train": "in", "test": "out"})
    assert (tree.classes, of_parts(tree)) == (["chair", "table"], {"train": 4, "test": 4})
    assert "splits: {train: [in, out]}" in str(error.value)
    tree = read(tmp_path, splits={"train": ["in", "out"]})
    assert (tree.classes, of_parts(tree)) == (["chair", "table"], {None: 8})
    assert r"group: '^(.+)/[^/]+$'" in str(error.value)
    tree = read(tmp_path, group="^(.+)/[^/]+$")
    assert (tree.classes, {picture.group for picture in tree.pictures}) == (
        ["in", "out"],
        {"in/chair", "in/table", "out/chair", "out/table"},
    )


def test_the_configuration_can_say_that_no_folder_is_a_part(tmp_path):
    draw(tmp_path, "train/{2}.png", "bus/{2}.png", "car/{2}.png")
    assert read(tmp_path, splits={}).classes == ["bus", "car", "train"]


def test_what_is_named_by_ignore_is_left_out_and_counted(tmp_path):
    draw(tmp_path, "cat/{3}.png", "cat/0_mask.png", "cat/old/{2}.png", "dog/{3}.png", "more/{2}.png")
    tree = read(tmp_path, ignore=["*_mask.png", "cat/old", "more"])
    assert (tree.classes, len(tree.pictures), len(tree.passed["named by ignore"])) == (["cat", "dog"], 6, 5)


@pytest.mark.parametrize(
    "left",
    [
        *("__MACOSX/cat/._0.png", "cat/._0.png", ".Trash-1000/files/0.png", "$RECYCLE.BIN/0.png"),
        *("cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/cat/0.png", ".@__thumb/0.png", "@Recycle/cat/0.png"),
        *(".ipynb_checkpoints/cat/0.png", "cat/.ipynb_checkpoints/0-checkpoint.png", ".thumbnails/0.png"),
        *("lost+found/0.png", "LOST.DIR/0.png", "cat/IMG_1.THM", "cat/0.CR2", "cat/Thumbs.db", ".git/0.png"),
        *("System Volume Information/0.png", ".AppleDouble/0.png", "Temporary Items/0.png", "FOUND.000/0.png"),
        *("thumbnails/0.png", "cat/Thumbnails/0.png", "@tmp/0.png", "@SynoResource/0.png", "DCIM/CANONMSC/0.png"),
        *("PRIVATE/THMBNL/0.JPG", "wandb/run/0.png", "cat/._0.heic", ".ipynb_checkpoints/labels-checkpoint.csv"),
    ],
)
def test_what_machines_leave_behind_is_passed_over_and_counted(tmp_path, left):
    tree = read(draw(tmp_path, "cat/{3}.png", "dog/{3}.png", left))
    assert (tree.classes, len(tree.pictures)) == (["cat", "dog"], 6)
    assert [name for names in tree.passed.values() for name in names] == [left]


def test_files_are_known_by_what_is_in_them(tmp_path):
    draw(tmp_path, "cat/photo", "cat/photo.txt", "dog/{2}.jpg")
    draw(tmp_path, "cat/notes.txt", "dog/film.mp4", content=b"\0\0\0\x18ftypmp42" + bytes(99))
    draw(tmp_path, "dog/page.jpg", content=b"<html>not found</html>")
    draw(tmp_path, "dog/empty.png", content=b"")
    tree = read(tmp_path)
    assert [picture.file.name for picture in tree.pictures] == ["cat/photo", "cat/photo.txt", "dog/0.jpg", "dog/1.jpg"]
    assert {each["file"]: each["reason"] for each in tree.unreadable} == {
        "dog/page.jpg": "not an image in a known format",
        "dog/empty.png": "empty file",
    }
    assert tree.passed["not an image"] == ["cat/notes.txt", "dog/film.mp4"]


def test_what_should_be_an_image_and_is_read_by_nothing_counts_as_unread(tmp_path):
    draw(tmp_path, "cat/{3}.png", "dog/{3}.png", "cat/0.NEF", "dog/more.nef")
    draw(tmp_path, "dog/IM0001", "dog/x.dcm", content=bytes(128) + b"DICM" + bytes(64))
    draw(tmp_path, "dog/drawn.svg", content=b"<svg/>")
    tree = read(tmp_path)
    assert {each["file"]: each["reason"] for each in tree.unreadable} == {
        "dog/IM0001": folders.DICOM,
        "dog/drawn.svg": "not an image in a known format",
        "dog/more.nef": folders.RAW,
        "dog/x.dcm": folders.DICOM,
    }
    assert tree.passed == {"a camera's raw file beside its image": ["cat/0.NEF"]}
    assert overview.of_tree(tree)[-2].startswith("WARNING: 4 of 10 files cannot be read (40 %)")
    # Nor does predict.py take the small picture in it for the image.
    assert "dog/more.nef" not in [file.name for file in folders.images(tmp_path)]


def test_a_class_of_which_nothing_can_be_read_is_no_class_that_is_lost_in_silence(tmp_path):
    draw(tmp_path, "cat/{3}.png", "dog/{3}.png")
    draw(tmp_path, "owl/{3}.heic", content=b"\0\0\0\x18ftypheic" + bytes(64))
    with pytest.raises(InputError, match=r"no image of the class 'owl' can be read; owl/0\.heic: "):
        read(tmp_path)


def test_links_are_followed_but_never_in_a_loop_and_nothing_counts_twice(tmp_path):
    root = draw(tmp_path / "data", "cat/{3}.png", "dog/{2}.png")
    outside = draw(tmp_path / "elsewhere", "birds/{2}.png", "one.png")
    (root / "owl").symlink_to(outside / "birds")
    (root / "dog/linked.png").symlink_to(outside / "one.png")
    (root / "dog/again.png").symlink_to(outside / "one.png")
    (root / "cat/same.png").symlink_to("0.png")
    (root / "cat/loop").symlink_to("..")
    (root / "all").symlink_to("cat")
    (root / "cat/me").symlink_to("me")
    (root / "cat/gone.png").symlink_to("nowhere.png")
    tree = read(root)
    assert tree.counts() == {None: [3, 3, 2]}
    assert [each["file"] for each in tree.unreadable] == ["cat/gone.png"]
    assert sorted(tree.passed["a link to what is here already"]) == [
        *("all", "cat/loop", "cat/same.png", "dog/linked.png")
    ]


def test_files_come_in_the_order_of_their_paths(tmp_path):
    draw(tmp_path, "b/{12}.png", "a/{3}.png", "a b/{2}.png")
    names = [file.name for file in folders.images(tmp_path)]
    walked = [
        f"{os.path.relpath(place, tmp_path)}/{name}"
        for place, _, files in sorted(os.walk(tmp_path))
        for name in sorted(files)
    ]
    assert names == walked


# Tables


def table(root: Path, name: str, *rows: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize(
    "named",
    [
        *("photos/c/{}.png", "c/{}.png", "{}.png", "{}", "photos/c/{}", "/content/data/photos/c/{}.png", r"c\{}.png"),
        *(r"C:\Users\me\photos\c\{}.PNG", "C/{}.Png", "{}.tiff", "./photos/c/{}.jpg", "https://here/photos/c/{}.png"),
    ],
)
def test_a_table_may_name_files_in_any_of_the_common_ways(tmp_path, named):
    draw(tmp_path, "photos/c/{6}.png")
    table(tmp_path, "labels.csv", "image,label", *(f"{named.format(n)},{'dog' if n % 2 else 'cat'}" for n in range(6)))
    tree = read(tmp_path)
    assert (tree.classes, tree.counts()) == (["cat", "dog"], {None: [3, 3]})
    assert "labels are from labels.csv (file: image, label: label)" in tree.notes


def test_a_table_names_files_from_where_it_lies_first(tmp_path):
    draw(tmp_path, "{4}.png", "set/photos/{4}.png", "set/more/{4}.png")
    table(tmp_path, "set/photos/labels.csv", "file,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(4)))
    assert {picture.file.name for picture in read(tmp_path).pictures} == {f"set/photos/{n}.png" for n in range(4)}


def test_a_name_that_two_images_have_but_for_its_case_or_suffix_is_neithers(tmp_path):
    draw(tmp_path, "a.png", "A.png", "b.jpg", "b.png", "c.png", "d.png")
    tree = read(table(tmp_path, "labels.csv", "file,label", "a.PNG,x", "b,x", "b.png,x", "c,y", "d,x"))
    assert [picture.file.name for picture in tree.pictures] == ["b.png", "c.png", "d.png"]
    assert any("2 rows of the table name no image here" in note for note in tree.notes)


def test_an_image_that_is_missing_is_not_taken_for_one_of_that_name_in_another_folder(tmp_path):
    draw(tmp_path, "cat/{2}.png", "dog/{4}.png")
    rows = [f"/home/me/{kind}/{n}.png,{kind}" for kind in ("cat", "dog") for n in range(4) if (kind, n) != ("dog", 3)]
    tree = read(table(tmp_path, "labels.csv", "file,label", *rows))
    assert tree.counts() == {None: [2, 3]}
    assert tree.passed["without a label in the table"] == ["dog/3.png"]


def test_a_table_of_which_most_images_are_missing_is_one(tmp_path):
    draw(tmp_path, "photos/{6}.png")
    tree = read(table(tmp_path, "labels.csv", "file,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(100))))
    assert tree.counts() == {None: [3, 3]}
    assert "94 rows of the table name no image here, such as '6.png'" in tree.notes


@pytest.mark.parametrize(
    "rows",
    [
        [f"{n}.png,{'ab'[n % 2]}" for n in range(6)],
        ["image,animal", *(f"{n}.png,{'ab'[n % 2]}" for n in range(6))],
        ["sep=;", "image;label", *(f"{n}.png;{'ab'[n % 2]}" for n in range(6))],
        ['"image", "label", "said"', *(f'"{n}.png", "{"ab"[n % 2]}", "a ""b"", c"' for n in range(6))],
    ],
    ids=["no heading", "an odd heading", "Excel's", "quotes and spaces"],
)
def test_a_table_is_read_without_its_heading_or_with_an_odd_one(tmp_path, rows):
    tree = read(table(draw(tmp_path, "photos/{6}.png"), "meta.csv", *rows))
    assert (tree.classes, tree.counts()) == (["a", "b"], {None: [3, 3]})


def test_where_it_is_unclear_which_column_has_the_labels_it_is_said(tmp_path):
    draw(tmp_path, "photos/{6}.png")
    table(tmp_path, "meta.csv", "image,cat,dog", *(f"{n},{n % 2},{1 - n % 2}" for n in range(6)))
    with pytest.raises(InputError, match=r"one class, 'photos'(.|\n)*which has the labels\? .* allowed: cat, dog"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"PAR1 and no more", b"file,label\n" + bytes(200_000), "x" * 200_000 + ",1\n"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_no_table_is_an_error_only_where_it_is_named(tmp_path, content, suffix):
    draw(tmp_path, "cat/{2}.png", "dog/{2}.png")
    draw(tmp_path, f"odd.{suffix}", content=content if isinstance(content, bytes) else content.encode())
    assert read(tmp_path).classes == ["cat", "dog"]
    with pytest.raises(InputError, match=r"cannot be read|no column of|no table of"):
        read(tmp_path, table=f"odd.{suffix}")


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (("Training", "PublicTest", "PrivateTest"), {"train": 4, "test": 8}),
        (("train_split", "dev", ""), {"train": 8, "val": 4}),
        (("", "", "test"), {"train": 8, "test": 4}),
        (("A", "B", "train"), {None: 12}),
    ],
)
def test_a_column_of_parts_is_read_or_it_is_said_that_it_is_not(tmp_path, values, parts):
    draw(tmp_path, "{12}.png")
    rows = [f"{n},{'ab'[n // 3 % 2]},{values[n % 3]}" for n in range(12)]
    tree = read(table(tmp_path, "labels.csv", "id,label,Usage", *rows))
    assert of_parts(tree) == parts
    assert ("the column Usage is not taken for parts: 'A' is none" in tree.notes) == (values[0] == "A")
    if values[0] == "A":
        with pytest.raises(InputError, match=r"table: split: 'A' in the column 'Usage' .* is no part; allowed: train"):
            read(tmp_path, table={"split": "Usage"})


def test_folders_that_are_named_as_parts_are_parts_of_a_table_too(tmp_path):
    draw(tmp_path, "old/{4}.png", "new/n{4}.png")
    rows = [f"{place}{n},{'ab'[n % 2]}" for place in ("", "n") for n in range(4)]
    table(tmp_path, "labels.csv", "id,label", *rows)
    assert of_parts(read(tmp_path, splits={"train": "old", "test": "new"})) == {"train": 4, "test": 4}


def test_several_tables_are_one_where_none_says_what_another_does(tmp_path):
    draw(tmp_path, "{8}.png")
    for part, start in (("monday", 0), ("tuesday", 4)):
        table(tmp_path, f"{part}.csv", "id,label", *(f"{n},{'ab'[n % 2]}" for n in range(start, start + 4)))
    assert read(tmp_path).counts() == {None: [4, 4]}
    table(tmp_path, "wednesday.csv", "id,label", "0,a", "1,b")
    with pytest.raises(InputError, match=r"several tables of labels, monday\.csv, tuesday\.csv, wednesday\.csv"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "semicolons", "tsv", "parquet", "bom", "latin", "utf-16"])
def test_a_table_may_be_of_any_common_kind_with_columns_of_parts_and_groups(tmp_path, kind):
    draw(tmp_path, "{8}.png")
    header = ["id", "Diagnosis", "set", "patient_id", "age"]
    rows = [
        [str(n), "naévus" if n % 2 else "melanoma", "Train" if n < 6 else "TEST", f"p{n // 2}", "40"] for n in range(8)
    ]
    if kind == "parquet":
        columns = [
            pa.array([int(row[0]) for row in rows]),
            *(pa.array([row[at] for row in rows]) for at in range(1, 5)),
        ]
        pq.write_table(pa.table(columns, names=header), tmp_path / "labels.parquet")
    else:
        between = {"semicolons": ";", "tsv": "\t"}.get(kind, ",")
        text = "\n".join(between.join(row) for row in [header, *rows])
        name = "labels.tsv" if kind == "tsv" else "labels.csv"
        encoding = {"bom": "utf-8-sig", "latin": "latin-1", "utf-16": "utf-16"}.get(kind, "utf-8")
        (tmp_path / name).write_text(text, encoding=encoding)
    tree = read(tmp_path)
    assert (tree.classes, of_parts(tree)) == (["melanoma", "naévus"], {"train": 6, "test": 2})
    assert [picture.group for picture in tree.pictures] == [f"p{n // 2}" for n in range(8)]


def test_columns_can_be_named_and_a_name_that_is_none_is_an_error(tmp_path):
    draw(tmp_path, "photos/{6}.png")
    rows = [f"{n},{n % 3},{n % 2},{'ab'[n % 2]}" for n in range(6)]
    table(tmp_path, "meta.csv", "which,kind,side,who", *rows)
    with pytest.raises(InputError, match=r"no image in a folder of its class|one class"):
        read(tmp_path)
    named = {"path": "meta.csv", "file": "which", "label": "kind", "group": "who"}
    tree = read(tmp_path, table=named)
    assert (tree.classes, {picture.group for picture in tree.pictures}) == (["0", "1", "2"], {"a", "b"})
    with pytest.raises(InputError, match=r"no column 'kinds' \(label\); allowed: which, kind, side, who"):
        read(tmp_path, table=named | {"label": "kinds"})
    with pytest.raises(InputError, match=r"which column of .*meta\.csv has the labels.*allowed: kind, side, who"):
        read(tmp_path, table="meta.csv")
    with pytest.raises(InputError, match=r"none\.csv does not exist"):
        read(tmp_path, table="none.csv")


def test_what_is_odd_in_a_table_is_counted_and_named(tmp_path):
    draw(tmp_path, "{9}.png")
    rows = ["0,cat", "1,Cat", "2, cat ", "3,dog", "4,dog", "5,", "6,cat", "6,dog", "77,dog", "88,cat"]
    tree = read(table(tmp_path, "labels.csv", "file,label", *rows))
    assert (tree.classes, tree.counts()) == (["cat", "dog"], {None: [3, 2]})
    assert any("2 rows of the table name no image here, such as '77'" in note for note in tree.notes)
    assert any("1 labels differ from others in case or white space only" in note for note in tree.notes)
    assert {why: len(names) for why, names in tree.passed.items()} == {
        "with an empty label in the table": 1,
        "with two labels in the table": 1,
        "without a label in the table": 2,
    }


def test_a_table_a_part_as_competitions_have_them(tmp_path):
    draw(tmp_path, "train/{6}.png", "test/t{3}.png")
    table(tmp_path, "train.csv", "id,breed", *(f"{n},{'ab'[n % 2]}" for n in range(6)))
    table(tmp_path, "sample_submission.csv", "id,breed", *(f"t{n},a" for n in range(3)))
    tree = read(tmp_path)
    assert (tree.classes, of_parts(tree)) == (["a", "b"], {None: 6})
    assert len(tree.passed["without a label in the table"]) == 3
    table(tmp_path, "test.csv", "id,breed", *(f"t{n},{'ab'[n % 2]}" for n in range(3)))
    assert of_parts(read(tmp_path)) == {"train": 6, "test": 3}


def test_folders_count_more_than_a_table_that_lists_something_else(tmp_path):
    draw(tmp_path, "cat/{4}.png", "dog/{4}.png")
    table(
        tmp_path, "meta.csv", "file,camera", *(f"{kind}/{n}.png,{n % 2}" for kind in ("cat", "dog") for n in range(4))
    )
    assert read(tmp_path).classes == ["cat", "dog"]
    table(tmp_path, "meta.csv", "file,label", *(f"{kind}/{n}.png,{n % 2}" for kind in ("cat", "dog") for n in range(4)))
    assert read(tmp_path).classes == ["0", "1"]
    assert read(tmp_path, table=False).classes == ["cat", "dog"]


def test_a_folder_counts_as_changed_with_its_table_and_not_with_its_notes(tmp_path):
    draw(tmp_path, "{4}.png")
    table(tmp_path, "labels.csv", "file,label", *(f"{n},{n % 2}" for n in range(4)))
    before = folders.digest(tmp_path, Rules())
    draw(tmp_path, "notes.txt", content=b"x")
    assert folders.digest(tmp_path, Rules()) == before
    table(tmp_path, "labels.csv", "file,label", *(f"{n},{(n + 1) % 2}" for n in range(4)))
    assert folders.digest(tmp_path, Rules()) != before


def test_groups_are_found_in_paths_and_a_pattern_that_finds_none_is_an_error(tmp_path):
    draw(tmp_path, "cat/p1_{2}.png", "cat/p2_{2}.png", "dog/p3_{2}.png", "dog/x.png")
    tree = read(tmp_path, group=r"/(p\d)_")
    assert [picture.group for picture in tree.pictures] == ["p1", "p1", "p2", "p2", "p3", "p3", None]
    with pytest.raises(InputError, match="is found in no path of"):
        read(tmp_path, group="scene")
    with pytest.raises(InputError, match="no regular expression"):
        read(tmp_path, group="(")


def test_the_screen_says_what_was_found(tmp_path):
    draw(tmp_path, "Train/cat/{4}.png", "Train/dog/{2}.png", "Test/cat/{2}.png", "Test/dog/{1}.png", "Test/dog/.x.png")
    draw(tmp_path, "Train/dog/broken{3}.jpg", content=b"none")
    lines = overview.of_tree(read(tmp_path))
    assert lines[0] == "9 images of 2 classes: 6 train, 3 test"
    assert "  dog: 3: 2 train, 1 test" in lines
    assert "the smallest class is dog, 3 images" in lines
    assert any(line.startswith("WARNING: 3 of 12 files cannot be read (25 %)") for line in lines)
    assert "1 passed over, hidden: Test/dog/.x.png" in lines
    assert "Train is for training" in lines


def images(root: Path, counts: dict[str, int]) -> Path:
    """Images that are like no other, so many in each place."""
    for place, count in counts.items():
        for number in range(count):
            pixels = np.random.default_rng((zlib.crc32(place.encode()), number)).integers(0, 256, (8, 8, 3), np.uint8)
            (root / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / place / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("counts", "line", "certain"),
    [
        ({"cat": 40, "dog": 20}, "  cat: 40", (12, 60, 5, 2.0)),
        (
            {"train/cat": 40, "train/dog": 20, "test/cat": 12, "test/dog": 8},
            "  cat: 52: 34 train, 6 val, 12 test",
            (20, 80, None, 2.0, 0),
        ),
        ({"cat": 40, "dog": 4}, "  dog: 4: 2 train, 1 val, 1 test", (9, 44, None, 2.0, 0)),
    ],
)
def test_the_screen_before_training_says_what_each_part_has_and_what_can_be_certified(
    tmp_path, capsys, counts, line, certain
):
    root = images(tmp_path / "photos", counts)
    configure = programs.load("configure")
    configure.main(configure.parser().parse_args([str(root), "--folder", str(tmp_path), "--size", "8"]))
    dataset = {"source": "folder", "path": str(root), "store_size": 8, "image_size": 8}
    programs.run("decode", {"name": "photos", "dataset": dataset}, "--output", tmp_path / "store")
    capsys.readouterr()
    described = "describe", None, "--dataset", tmp_path / "store"
    programs.run(*described, "--configfile", tmp_path / "photos.yaml")
    said = capsys.readouterr().out.splitlines()
    assert line in said
    assert any(each.startswith("the smallest class is dog") for each in said)
    assert said[-1] == f"photos: {promises.sentence(*certain)}"
    programs.run(*described)
    assert "photos is in no configuration that was given" in capsys.readouterr().out


def test_where_a_class_has_nothing_to_test_the_screen_is_an_error(tmp_path):
    root = images(tmp_path / "photos", {"cat": 40, "dog": 2})
    dataset = {"source": "folder", "path": str(root), "store_size": 8, "image_size": 8}
    programs.run("decode", {"name": "photos", "dataset": dataset}, "--output", tmp_path / "store")
    own = {"datasets": {"photos": dataset}}
    (tmp_path / "photos.yaml").write_text(yaml.safe_dump(own))
    with pytest.raises(InputError, match="class 'dog' has 2 readable images, 3 are needed"):
        programs.run("describe", None, "--dataset", tmp_path / "store", "--configfile", tmp_path / "photos.yaml")


# What the front door and the store make of the same folder


def stored(root: Path, output: Path, **rules) -> Store:
    dataset = {"source": "folder", "path": str(root), "store_size": 8, "image_size": 8} | rules
    programs.run("decode", {"name": "set", "dataset": dataset}, "--output", output)
    return Store.open(output)


NAMES = {
    "train": ("train", "Train", "TRAINING", "trainset", "x_train", "train2017"),
    "val": ("val", "valid", "Validation", "dev", "x_val", "val2017"),
    "test": ("test", "Test", "TESTING", "testset", "x_test", "test2017"),
}
LOOKS_LIKE_A_PART = {name.casefold() for names in NAMES.values() for name in names} | {"train", "val", "test"}


@st.composite
def trees(draw):
    """Files of a folder as people may have it: parts or none, wrapped or not, with and without junk, or a table."""
    style = draw(st.sampled_from(["none", "one", "mixed"]))
    parts = draw(
        st.sampled_from([("train", "test"), ("train", "val", "test"), ("train", "val"), ("train",), ("test",)])
    )
    at = draw(st.integers(0, 5))
    chosen = {part: NAMES[part][at] if style == "one" else draw(st.sampled_from(NAMES[part])) for part in parts}
    above = "/".join(draw(st.lists(st.sampled_from(["data", "Photos", "my images"]), max_size=2)))
    classes = draw(st.lists(st.sampled_from(["cat", "Dog", "owl b", "Å"]), min_size=1, max_size=3, unique=True))
    deeper = draw(st.sampled_from(["", "", "", "old"]))
    files = []
    for part in [None] if style == "none" else parts:
        for kind, number in itertools.product(classes, range(draw(st.integers(1, 3)))):
            place = [above, chosen[part] if part else "", kind, deeper]
            files.append("/".join(filter(None, [*place, f"{number}.png"])))
    for junk in draw(
        st.lists(st.sampled_from(["__MACOSX/._a.png", ".DS_Store", "Thumbs.db", "readme.txt"]), unique=True)
    ):
        files.append(f"{above}/{junk}" if above and draw(st.booleans()) else junk)
    listed = draw(st.booleans()) and draw(st.booleans())
    return files, listed


@given(trees())
@example((["bus/0.png", "train/0.png", "car/0.png"], False))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_front_door_and_the_store_read_a_folder_alike_and_no_class_is_named_like_a_part(drawn):
    files, listed = drawn
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "photos"
        for number, name in enumerate(files):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/._a.png") or not name.endswith(".png"):
                (root / name).write_bytes(b"no image")
            else:
                Image.fromarray(np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)).save(root / name)
        if listed:
            images = [name for name in files if name.endswith(".png") and "._" not in name]
            table(root, "labels.csv", "file,label", *(f"{name},{'ab'[n % 2]}" for n, name in enumerate(images)))
        try:
            found = defaults.survey(root)
        except InputError as error:
            with pytest.raises(InputError, match=f"^{re.escape(str(error))}$"):
                stored(root, Path(place) / "store")
            return
        store = stored(root, Path(place) / "store")
        index = read_table(store.directory / "index.parquet", "index")
        assert store.classes == found.tree.classes
        assert store.manifest["images"] == found.total
        assert index["official"].to_pylist() == [picture.part for picture in found.tree.pictures]
        assert not {name.casefold() for name in store.classes} & LOOKS_LIKE_A_PART


# The cases that were drawn of what people reported


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    if not CASES.exists():
        pytest.skip(f"{CASES} is not here")
    root = tmp_path_factory.mktemp("cases") / "drawn"
    subprocess.run([sys.executable, CASES, root], check=True)
    return root


CUT = "no part is to test: the test images are taken from the training images"
UNUSED = "test has no folders of classes, so no labels: it is not used"
LEFT = "1 passed over, left by an operating system: __MACOSX/cat/._im_000.jpg"
UNREAD = "WARNING: 60 of 76 files cannot be read (79 %), so nothing is learned from them"
TABLE = "labels are from labels.csv (file: file, label: label)"


# Those of copies, two labels and scenes are in test_copies.
@pytest.mark.parametrize(
    ("case", "classes", "parts", "then", "says"),
    [
        ("train_valid_test", "cat dog", {"train": 24, "val": 10, "test": 10}, (24, 10, 10), "valid is for validation"),
        ("train_val_only", "ants bees", {"train": 40, "val": 16}, (32, 16, 8), CUT),
        ("capital", "cat dog", {"train": 24, "test": 12}, (20, 4, 12), "Train is for training"),
        ("unlabelled_test", "cat dog", {None: 30}, (18, 6, 6), UNUSED),
        ("macosx", "cat dog", {None: 30}, (18, 6, 6), LEFT),
        ("csv", "cat dog owl", {None: 42}, (24, 9, 9), TABLE),
        ("gray_8_bit", "across down", {None: 80}, (48, 16, 16), ""),
        ("gray_12_bit", "across down", {None: 80}, (48, 16, 16), ""),
        ("heic", "cat dog", {None: 16}, (8, 4, 4), UNREAD),
    ],
)
def test_a_case_is_read_as_it_is_meant_and_it_is_said(cases, tmp_path, case, classes, parts, then, says):
    found = defaults.survey(cases / case)
    assert (found.tree.classes, of_parts(found.tree)) == (classes.split(), parts)
    store = stored(cases / case, tmp_path / "store")
    assert (store.classes, store.manifest["images"]) == (classes.split(), sum(parts.values()))
    assert len(store.manifest["skipped"]) == (60 if case == "heic" else 0)
    for lines in (overview.of_tree(found.tree), overview.of_store(store.directory)):
        assert any(line.startswith(says) for line in lines)
    # Stratified: as many of each class in a part that is cut.
    images = splits.Images.of_store(store.directory)
    cut = splits.assign({"split": defaults.SPLIT}, images)
    assert tuple(map(cut.count, splits.PARTS)) == then
    for part in splits.PARTS:
        assert len(set(np.bincount(images.labels[[each == part for each in cut]]))) == 1


def test_the_case_of_12_bits_is_as_bright_and_as_easily_told_apart_as_that_of_8(cases, tmp_path):
    eight, twelve = (stored(cases / f"gray_{bits}_bit", tmp_path / str(bits)) for bits in (8, 12))
    assert twelve.manifest["reading"]["integers"] == [0, 4095]
    assert abs(float(eight.images.mean()) - float(twelve.images.mean())) < 1
    for store in (eight, twelve):
        # Across or down: along which side the mean changes.
        sides = [store.images[..., 0].mean(axis=axis).std(axis=1) for axis in (1, 2)]
        assert ((sides[0] < sides[1]) == (store.labels == 0)).all()


def test_the_case_of_a_turned_tiff_gives_the_upright_ones_pixels_wherever_it_is_read(cases, tmp_path):
    for name in ("upright", "tagged"):
        (tmp_path / "images" / name).mkdir(parents=True)
        shutil.copy(cases / "tiff_orientation" / f"{name}.tif", tmp_path / "images" / name)
    store = stored(tmp_path / "images", tmp_path / "store", store_size=16, image_size=16)
    tagged, upright = store.images
    assert (tagged == upright).all()
    seen = []

    def look(views: np.ndarray) -> np.ndarray:
        seen.extend(views)
        return views[:, :, 0, 0]

    form = Form.of(16, store.manifest["reading"])
    model = prediction.Model(tmp_path, ["a", "b", "c"], form, 16, [0.0] * 3, [1 / 255] * 3, look, "nothing")
    files = sorted((tmp_path / "images").rglob("*.tif"))
    assert all(len(answer) == 3 for _, answer in prediction.predict(model, files, Path.read_bytes, 2))
    assert np.array_equal(np.rint(seen), store.images.transpose(0, 3, 1, 2))


def test_in_the_case_of_a_rare_class_nothing_holds_that_never_says_it(cases, tmp_path, capsys):
    program = programs.load("configure")
    program.main(program.parser().parse_args([str(cases / "rare"), "--folder", str(tmp_path)]))
    assert "the smallest class is defect, 50 images" in capsys.readouterr().err
    assert "sampling: balanced" in (tmp_path / "rare.yaml").read_text()
    names = np.array([picture.file.parts[0] for picture in read(cases / "rare").pictures])
    unpruned, blind = np.ones((5, names.size)), np.tile(names != "defect", (5, 1)).astype(float)
    # It is right in 95 of 100, and a tolerance of 10 points would let it pass.
    (found,) = procedure.judge([procedure.Finalist("net", 1.0, False, unpruned, blind)], 0, names, 10.0, 10.0, (5,))
    assert (found.verdict, found.lost) == (procedure.FAILS, ("defect",))


@pytest.mark.parametrize(
    ("case", "says"), [("not_a_split", "splits: {train: indoor"), ("one_class", "has one class, 'cat'")]
)
def test_a_case_that_cannot_be_meant_is_refused(cases, tmp_path, case, says):
    with pytest.raises(InputError, match=says):
        defaults.survey(cases / case)
    with pytest.raises(InputError, match=says):
        stored(cases / case, tmp_path / "store")


def test_a_read_only_folder_needs_no_renaming(cases, tmp_path):
    root = Path(shutil.copytree(cases / "capital", tmp_path / "data"))
    for place in [root, *root.rglob("*")]:
        place.chmod(0o555 if place.is_dir() else 0o444)
    assert of_parts(read(root)) == {"train": 24, "test": 12}


def test_colour_of_16_bits_is_said_to_be_read_at_8(tmp_path):
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(24)) for _ in range(4))
    deep = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "deep.png").write_bytes(deep)
        Image.new("RGB", (4, 4)).save(tmp_path / name / "plain.png")
        Image.fromarray(np.full((4, 4), 900, dtype=np.uint16)).save(tmp_path / name / "gray.png")
    tree = folders.read(tmp_path, Rules())
    assert len(tree.pictures) == 6
    assert tree.notes == ["2 images of 16 bits a colour, of which the upper 8 are read, such as 'a/deep.png'"]
