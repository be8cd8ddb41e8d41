"""Data sets: every source in its official layout, every kind of image file, and the split."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from winnow.data import datasets, decoding, preprocessing
from winnow.data.folders import Rules, digest, images
from winnow.data.preprocessing import Form
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.files import InputError, file_digest

from . import programs

SIZES = {"store_size": 16, "image_size": 12}


def picture(color, size=(20, 26), mode="RGB", **save):
    """An encoded image of one color."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).convert(mode).save(buffer, save.pop("format", "PNG"), **save)
    return buffer.getvalue()


def speckled(seed, size=(20, 26)):
    """An encoded image that is like no other."""
    generator = np.random.default_rng(list(str(seed).encode()))
    return encoded(Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)))


def encoded(image, format="PNG", **save):
    buffer = io.BytesIO()
    image.save(buffer, format, **save)
    return buffer.getvalue()


def decoded(tmp_path, dataset, archives=(), threads=2):
    spec = {"name": "set", "dataset": SIZES | dataset, "code": "0"}
    programs.run(
        "decode",
        spec,
        "--output",
        tmp_path / "store",
        "--threads",
        threads,
        *(["--archives", *archives] if archives else []),
    )
    return Store.open(tmp_path / "store")


def split(store, dataset, fold=None):
    """The store's split, of the same configuration."""
    path = store.directory.with_suffix(".parquet")
    programs.run("split", {"dataset": dataset, "fold": fold}, "--dataset", store.directory, "--output", path)
    return Split.open(path, store)


def files_of(store):
    from winnow.tables import read_table

    return read_table(store.directory / "index.parquet", "index").to_pylist()


@pytest.fixture
def flowers(tmp_path):
    """A small Flowers-102 in its official layout: 3 classes, 12 images, and its configuration."""
    labels = [1, 2, 3] * 4
    split = {"trnid": [1, 2, 3], "valid": [4, 5, 6], "tstid": [7, 8, 9, 10, 11, 12]}
    folder = tmp_path / "downloads"
    folder.mkdir()
    with tarfile.open(folder / "102flowers.tgz", "w:gz") as archive:
        for number, label in enumerate(labels, 1):
            content = picture((80 * label - 1, 0, number), format="JPEG", quality=95)
            member = tarfile.TarInfo(f"jpg/image_{number:05d}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    savemat(folder / "setid.mat", {key: np.array([rows], dtype=np.uint16) for key, rows in split.items()})
    paths = [folder / name for name in ("102flowers.tgz", "imagelabels.mat", "setid.mat")]
    urls = {path.name: {"url": str(path), "digest": f"md5:{file_digest(path, 'md5')}"} for path in paths}
    return {"source": "flowers102", "urls": urls}, paths


def test_flowers102_in_its_official_split(tmp_path, flowers):
    dataset, paths = flowers
    store = decoded(tmp_path, dataset, paths)
    assert store.classes == ["001", "002", "003"]
    parts = split(store, dataset)
    assert parts.counts == {"train": 3, "val": 3, "test": 6}
    for row in files_of(store):
        number = int(row["file"][-9:-4])
        assert row["label"] == (number - 1) % 3
        part = "train" if number <= 3 else "val" if number <= 6 else "test"
        assert (row["official"], parts.parts[row["image"]]) == (part, part)
        assert abs(int(store.images[row["image"], 8, 8, 0]) - (80 * (row["label"] + 1) - 1)) <= 3


@pytest.fixture
def solar(tmp_path, monkeypatch):
    """A small elpv-dataset: twelve gray cells, three of each grade, every third one of them monocrystalline."""
    data = tmp_path / "packages" / "elpv_dataset" / "data"
    (data / "images").mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    lines = []
    for number in range(12):
        grade, kind = (
            (0.0, 0.3333333333333333, 0.6666666666666666, 1.0)[number % 4],
            ("mono", "poly", "poly")[number // 4],
        )
        (data / "images" / f"cell{number:04d}.png").write_bytes(picture((20 * number,) * 3, mode="L"))
        lines.append(f"images/cell{number:04d}.png  {grade!r:<20} {kind}")
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(data.parents[1])
    return data


def test_solar_cells_are_graded_and_stratified(tmp_path, solar):
    store = decoded(tmp_path, {"source": "elpv", "channels": 1})
    assert store.classes == ["functional", "defective"]
    rows = files_of(store)
    assert [row["label"] for row in rows] == [0, 0, 1, 1] * 3
    assert [row["stratum"] for row in rows[:5]] == [
        *("functional mono", "possibly_defective mono", "likely_defective mono", "defective mono"),
        "functional poly",
    ]
    assert int(store.images[5, 8, 8, 0]) == 100
    grades = decoded(tmp_path / "grades", {"source": "elpv_grades", "channels": 1})
    assert grades.classes == ["functional", "possibly_defective", "likely_defective", "defective"]
    assert grades.labels.tolist() == [0, 1, 2, 3] * 3


def test_solar_cells_that_are_there_twice_are_a_group(tmp_path, solar):
    lines = []
    for place, number in enumerate((1734, 1735, 1784, 1785, 2276, 2277, 2326, 2327)):
        shades = np.random.default_rng(place).integers(0, 256, (6, 6), dtype=np.uint8)
        Image.fromarray(shades).resize((64, 64)).save(solar / "images" / f"cell{number}.png")
        lines.append(f"images/cell{number}.png 0.0 poly\n")
    (solar / "labels.csv").write_text("".join(lines))
    groups = [row["group"] for row in files_of(decoded(tmp_path, {"source": "elpv", "channels": 1}))]
    assert groups == [None, "cell 1735", "cell 1784", None, None, "cell 1735", "cell 1784", None]


def test_a_broken_list_of_solar_cells_is_named(tmp_path, solar):
    (solar / "labels.csv").write_text("images/cell0000.png 0.5 mono\n")
    with pytest.raises(InputError, match=r"labels\.csv is not the list of elpv-dataset: '0\.50'"):
        decoded(tmp_path, {"source": "elpv"})


def test_without_the_package_of_solar_cells_one_is_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="no package elpv_dataset is installed: make photos"):
        decoded(tmp_path, {"source": "elpv"})


@pytest.mark.parametrize(
    ("last", "says"), [(13, "lacks 1 images of .*number 13"), (11, "image_00012.jpg is not in .*setid.mat")]
)
def test_an_archive_that_does_not_fit_its_split_is_an_error(tmp_path, flowers, last, says):
    dataset, paths = flowers
    keys = {"trnid": [1, 2, 3], "valid": [4, 5, 6], "tstid": list(range(7, last + 1))}
    savemat(paths[2], {key: np.array([rows], dtype=np.uint16) for key, rows in keys.items()})
    dataset["urls"]["setid.mat"]["digest"] = f"md5:{file_digest(paths[2], 'md5')}"
    with pytest.raises(InputError, match=says):
        decoded(tmp_path, dataset, paths)
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_train_plus_val_leaves_nothing_to_choose_with(tmp_path, flowers):
    dataset, paths = flowers
    store = decoded(tmp_path, dataset, paths)
    assert split(store, dataset | {"train_on": "train+val"}).counts == {"train": 6, "val": 0, "test": 6}


def test_a_damaged_archive_is_named(tmp_path, flowers):
    dataset, paths = flowers
    paths[0].write_bytes(paths[0].read_bytes()[:-200])
    with pytest.raises(InputError, match=r"102flowers\.tgz is not the expected file"):
        decoded(tmp_path, dataset, paths)
    dataset["urls"]["102flowers.tgz"]["digest"] = f"md5:{file_digest(paths[0], 'md5')}"
    with pytest.raises(InputError, match=r"102flowers\.tgz cannot be read"):
        decoded(tmp_path, dataset, paths)
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_cats_vs_dogs_skips_bad_files_and_names_them(tmp_path):
    path = tmp_path / "kagglecatsanddogs_5340.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme[1].txt", "hello")
        for kind in ("Cat", "Dog"):
            archive.writestr(f"PetImages/{kind}/", "")
            for number in range(10):
                archive.writestr(f"PetImages/{kind}/{number}.jpg", speckled(f"{kind} {number}"))
        archive.writestr("PetImages/Cat/666.jpg", b"")
        archive.writestr("PetImages/Dog/11702.jpg", picture((9, 9, 9), format="JPEG")[:300])
        archive.writestr("PetImages/Dog/Thumbs.db", b"\xd0\xcf\x11\xe0 not an image")
    urls = {path.name: {"url": str(path), "digest": f"md5:{file_digest(path, 'md5')}"}}
    store = decoded(tmp_path, {"source": "cats_vs_dogs", "urls": urls}, [path])
    assert store.classes == ["Cat", "Dog"]
    assert split(store, {"split": {"val": 0.2, "test": 0.3}}).counts == {"train": 10, "val": 4, "test": 6}
    skipped = {bad["file"]: bad["reason"] for bad in store.manifest["skipped"]}
    assert set(skipped) == {"PetImages/Cat/666.jpg", "PetImages/Dog/11702.jpg", "PetImages/Dog/Thumbs.db"}
    assert skipped["PetImages/Cat/666.jpg"] == "empty file"
    assert skipped["PetImages/Dog/Thumbs.db"] == "not an image in a known format"
    assert "runcated" in skipped["PetImages/Dog/11702.jpg"]


def test_digits_5_to_9_with_20_to_train_10_to_choose_and_the_rest_to_judge(tmp_path):
    dataset = {"source": "digits", "classes": [5, 6, 7, 8, 9], "train_per_class": 20, "val_per_class": 10}
    store = decoded(tmp_path, dataset | {"store_size": 8, "image_size": 8})
    assert split(store, dataset).counts == {"train": 100, "val": 50, "test": 746}
    from sklearn.datasets import load_digits

    original = load_digits()
    for row in files_of(store)[::97]:
        number = int(row["file"])
        assert store.classes[row["label"]] == str(original.target[number])
        expected = np.rint(original.images[number] * 255 / 16)
        assert (store.images[row["image"]] == expected[..., None]).all()


@pytest.fixture
def folder(tmp_path):
    """A function that makes a folder of images, {"class/name": bytes}."""

    def make(files):
        root = tmp_path / "images"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return {"source": "folder", "path": str(root), "split": {"val": 0.2, "test": 0.2}}

    return make


def turned(angle_tag, **kwargs):
    """A JPEG with a red left and a green right half, marked as turned."""
    image = Image.new("RGB", (32, 32), (255, 0, 0))
    image.paste((0, 255, 0), (16, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = angle_tag
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


KINDS = {
    "rgb.jpg": picture((200, 100, 50), format="JPEG"),
    "RGB.PNG": picture((200, 100, 50)),
    "gray.jpeg": picture((200, 100, 50), mode="L", format="JPEG"),
    "cmyk.jpg": picture((200, 100, 50), mode="CMYK", format="JPEG"),
    "palette.gif": picture((200, 100, 50), mode="P", format="GIF"),
    "bits.bmp": picture((200, 100, 50), format="BMP"),
    "Über größe 花.webp": picture((200, 100, 50), format="WEBP", lossless=True),
    "tiff.TIF": picture((200, 100, 50), format="TIFF"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_read(name):
    pixels, width, height, _ = preprocessing.decode(KINDS[name], Form(8))
    assert (width, height) == (20, 26)
    assert pixels.shape == (8, 8, 3)
    expected = (124, 124, 124) if name == "gray.jpeg" else (200, 100, 50)
    assert np.abs(pixels[4, 4].astype(int) - expected).max() <= 6


def test_16_bit_gray_is_scaled_not_clipped():
    values = np.full((20, 20), 40_000, dtype=np.uint16)
    pixels, *_ = preprocessing.decode(encoded(Image.fromarray(values)), Form(8))
    assert abs(int(pixels[4, 4, 0]) - round(40_000 / 65_535 * 255)) <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_a_dark_16_bit_image_stays_dark(format):
    dark = Image.fromarray(np.full((20, 20), 200, dtype=np.uint16))
    assert (
        preprocessing.decode(encoded(dark.convert("I") if format == "PPM" else dark, format), Form(8))[0] == 1
    ).all()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (encoded(Image.fromarray(np.full((9, 9), 0.5, dtype=np.float32)), "TIFF"), "have no fixed range"),
        (encoded(Image.fromarray(np.full((9, 9), 70_000, dtype=np.int32)), "TIFF"), "more than 16 bits hold"),
    ],
)
def test_what_has_no_meaning_as_an_image_is_refused(content, says):
    with pytest.raises(ValueError, match=says):
        preprocessing.decode(content, Form(8))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_on_white(mode):
    image = Image.new(mode, (10, 10), (0,) * len(mode))
    assert (preprocessing.decode(encoded(image), Form(8))[0] == 255).all()


@pytest.mark.parametrize(("tag", "left_top"), [(1, "red"), (3, "green"), (6, "red"), (8, "green"), (2, "green")])
def test_orientation_follows_the_exif_tag(tag, left_top):
    from PIL import ImageOps

    content = turned(tag)
    pixels, *_ = preprocessing.decode(content, Form(16))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).resize((16, 16)).convert("RGB"))
    assert np.abs(pixels.astype(int) - expected).mean() < 12
    assert (pixels[2, 2, 0] > pixels[2, 2, 1]) == (left_top == "red")


@pytest.mark.parametrize("tag", range(10))
def test_every_orientation_is_as_pillow_has_it(tag):
    from PIL import ImageOps

    image = Image.fromarray(np.random.default_rng(tag).integers(0, 256, (24, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = tag
    content = encoded(image, exif=exif)
    pixels, width, height, _ = preprocessing.decode(content, Form(16))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert (width, height) == expected.size
    left, top = (width - 16) // 2, (height - 16) // 2
    assert (pixels == np.asarray(expected.crop((left, top, left + 16, top + 16)))).all()


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 98}),
        ("AVIF", {"quality": 98}),
        ("HEIF", {"quality": 98}),
    ],
)
def test_orientation_is_applied_once_in_every_format(format, options, tag):
    coarse = np.random.default_rng(tag).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = tag
    upright = image if tag == 1 else image.transpose(preprocessing.TURNS[tag])
    found = preprocessing.decode(encoded(image, format, exif=exif.tobytes(), **options), Form(32))
    expected = preprocessing.decode(encoded(upright, format, **options), Form(32))
    assert (found.width, found.height) == upright.size == (expected.width, expected.height)
    # A square that is turned after it was resized is off by what rounding takes.
    exact = 0 if format == "TIFF" else 1 if format in ("PNG", "WEBP") else 12
    assert np.abs(found.pixels.astype(int) - expected.pixels).max() <= exact
    assert np.abs(found.pixels.astype(int) - preprocessing.decode(upright, Form(32)).pixels).mean() < 4


def test_an_image_that_is_too_large_is_read_smaller_or_skipped_with_the_limit():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((1600, 1200))
    expected = preprocessing.decode(image, Form(64)).pixels.astype(int)
    for format in ("JPEG", "JPEG2000"):
        found = preprocessing.decode(encoded(image, format), Form(64, megapixels=0.5))
        assert (found.width, found.height) == (1600, 1200)
        assert np.abs(found.pixels - expected).mean() < 3
    for format in ("PNG", "TIFF", "WEBP"):
        with pytest.raises(
            ValueError, match=r"1600 × 1200 pixels, more than the limit of 0\.5 million: raise it by mega"
        ):
            preprocessing.decode(encoded(image, format), Form(64, megapixels=0.5))
        assert preprocessing.decode(encoded(image, format), Form(64, megapixels=2)).pixels.shape == (64, 64, 3)


def test_what_pillow_takes_for_a_bomb_is_ours_to_judge():
    wide = encoded(Image.new("1", (20_000, 9_500)), "TIFF", compression="group4")
    with pytest.raises(ValueError, match="20000 × 9500 pixels, more than the limit of 178 million"):
        preprocessing.decode(wide, Form(8))
    assert preprocessing.decode(wide, Form(8, megapixels=200)).width == 20_000


def test_damaged_exif_tags_cost_no_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = picture((9, 200, 9), format="WEBP", lossless=True, exif=exif.tobytes())
    for whole, damaged in ((b"MM\x00*", b"MMx*"), (b"II*\x00", b"IIx\x00")):
        content = content.replace(whole, damaged)
    with pytest.raises(SyntaxError):
        Image.open(io.BytesIO(content)).getexif()
    assert preprocessing.decode(content, Form(8))[0][4, 4].tolist() == [9, 200, 9]


@pytest.mark.parametrize("side", [150, 300, 900])
def test_a_large_jpeg_comes_out_as_a_small_one(side):
    # Hard edges between random colors are the worst case: decoded to just the size, they would be off by 3 and more.
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        (side * 4 // 3, side), Image.BICUBIC
    )
    content = encoded(image, "JPEG", quality=95)
    small, width, height, _ = preprocessing.decode(content, Form(64))
    left = (width - side) // 2
    whole = Image.open(io.BytesIO(content)).crop((left, 0, left + side, side))
    assert (width, height) == image.size
    assert np.abs(small - np.asarray(whole.resize((64, 64), Image.BILINEAR), dtype=int)).mean() < 2


def test_the_centre_square_is_kept():
    image = Image.new("RGB", (60, 20), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 20))
    assert (preprocessing.decode(image, Form(10))[0][:, :, 2] > 200)[:, 1:-1].all()


def test_a_folder_of_classes_with_unreadable_and_odd_files(tmp_path, folder):
    files = {f"{kind}/{number}.png": picture((number, 0, 0)) for kind in ("b é", "a") for number in range(10)}
    files |= {"a/broken.jpg": b"no", "a/notes.txt": b"x", "a/.hidden.png": b"x", "stray.png": picture((0, 0, 0))}
    dataset = folder(files)
    store = decoded(tmp_path, dataset)
    assert store.classes == ["a", "b é"]
    assert split(store, dataset).counts == {"train": 12, "val": 4, "test": 4}
    assert store.manifest["skipped"] == [{"file": "a/broken.jpg", "reason": "not an image in a known format"}]


def test_a_folder_with_its_own_split(tmp_path, folder):
    files = {
        f"{split}/{kind}/{number}.png": picture((0, 0, 0))
        for split, count in (("train", 4), ("val", 2), ("test", 3))
        for kind in "ab"
        for number in range(count)
    }
    dataset = folder(files)
    store = decoded(tmp_path, dataset)
    parts = split(store, dataset)
    assert parts.counts == {"train": 8, "val": 4, "test": 6}
    assert all(row["file"].startswith(parts.parts[row["image"]]) for row in files_of(store))
    with pytest.raises(InputError, match="folds: these images come with a test part of their own"):
        split(store, dataset | {"folds": 2}, 0)


def test_validation_is_carved_from_training_where_a_folder_has_none(tmp_path, folder):
    files = {f"{s}/{k}/{n}.png": speckled(f"{s}{k}{n}") for s in ("train", "test") for k in "ab" for n in range(10)}
    dataset = folder(files)
    assert split(decoded(tmp_path, dataset), dataset).counts == {"train": 16, "val": 4, "test": 20}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({f"a/{n}.png": speckled(n) for n in range(5)} | {"b/0.png": speckled(9)}, "class 'b' has 1 readable"),
        (
            {f"{s}/{k}/0.png": speckled(s + k) for s in ("train", "test") for k in "ab"},
            "class 'a' has 1 readable images in train, 2",
        ),
        (
            {f"train/{k}/{n}.png": speckled(k + str(n)) for k in "ab" for n in range(5)}
            | {"test/a/0.png": speckled(7)},
            "class 'b' has no readable image to test",
        ),
        (
            {f"a/{n}.png": speckled(n) for n in range(5)} | {f"b/{n}.png": speckled("the same") for n in range(5)},
            r"class 'b' .*its 5 are of 1 groups, which stay together",
        ),
    ],
)
def test_a_folder_that_cannot_be_split_is_an_error_that_says_so(tmp_path, folder, files, says):
    dataset = folder(files)
    with pytest.raises(InputError, match=says):
        split(decoded(tmp_path, dataset), dataset)


def test_a_folder_with_its_own_split_gives_no_validation_if_none_is_wanted(tmp_path, folder):
    files = {f"{s}/{k}/{n}.png": speckled(f"{s}{k}{n}") for s in ("train", "test") for k in "ab" for n in range(3)}
    dataset = folder(files) | {"split": {"val": 0.0, "test": 0.2}}
    assert split(decoded(tmp_path, dataset), dataset).counts == {"train": 6, "val": 0, "test": 6}


def test_dangling_links_and_names_that_are_not_utf8_are_handled(tmp_path, folder):
    dataset = folder({f"{kind}/{n}.png": picture((n, 0, 0)) for kind in "ab" for n in range(5)})
    root = tmp_path / "images"
    (root / "a/gone.png").symlink_to("nowhere.png")
    os.rename(os.fsencode(root / "b/4.png"), os.fsencode(root / "b") + b"/caf\xe9.png")
    assert len(digest(root, Rules())) == 32
    store = decoded(tmp_path, dataset)
    assert "b/caf\\xe9.png" in [row["file"] for row in files_of(store)]
    assert store.manifest["skipped"] == [{"file": "a/gone.png", "reason": "No such file or directory"}]


def test_a_missing_folder_is_named():
    with pytest.raises(InputError, match="/nowhere/at/all is not a folder"):
        digest(Path("/nowhere/at/all"), Rules())


def test_a_folders_digest_is_of_paths_and_sizes(folder, tmp_path):
    folder({"a/1.png": b"12", "b/2.JPG": b"123"})
    root = tmp_path / "images"
    before = digest(root, Rules())
    assert len(images(root)) == 2
    (tmp_path / "images/a/1.png").touch()
    assert digest(root, Rules()) == before
    (tmp_path / "images/a/1.png").write_bytes(b"123")
    assert digest(root, Rules()) != before


def test_threads_do_not_change_the_store(tmp_path, folder):
    dataset = folder({f"{kind}/{n}.png": picture((n, n, 9)) for kind in "abc" for n in range(15)} | {"a/x.jpg": b""})
    stores = [decoded(tmp_path / str(threads), dataset, threads=threads) for threads in (1, 4)]
    first, second = (json.loads((store.directory / "manifest.json").read_text()) for store in stores)
    assert first["images_sha256"] == second["images_sha256"]
    assert first["index_sha256"] == second["index_sha256"]
    assert files_of(stores[0]) == files_of(stores[1])


def test_processes_do_not_change_the_store(tmp_path, folder, monkeypatch):
    files = {f"{kind}/{n}.png": picture((n, n, 9), (20 + n, 26)) for kind in "abc" for n in range(15)}
    dataset = folder(files | {"a/x.jpg": b"", "b/é\udce9.png": b"none", "c/y.png": picture((1, 2, 3))[:60]})
    used = []
    real = decoding.Process

    class Seen(real):
        def __init__(self, form):
            used.append(self)
            super().__init__(form)

    monkeypatch.setattr(decoding, "Process", Seen)
    by_threads = decoded(tmp_path / "threads", dataset, threads=4)
    assert used == []
    monkeypatch.setattr(datasets, "IMAGES", 10)
    by_processes = decoded(tmp_path / "processes", dataset, threads=4)
    assert 0 < len(used) <= 4
    assert all(process._process.returncode == 0 for process in used)
    assert by_threads.manifest == by_processes.manifest
    assert len(by_threads.manifest["skipped"]) == 3
    for name in ("images.npy", "manifest.json"):
        assert (by_threads.directory / name).read_bytes() == (by_processes.directory / name).read_bytes()
    assert files_of(by_threads) == files_of(by_processes)


def test_processes_decode_contents_in_order_and_few_at_a_time():
    done = most = 0

    def items():
        nonlocal most
        for number in range(100):
            most = max(most, number - done)
            yield number

    stream = decoding.decode_all(items(), lambda number: picture((number, 0, 0)) if number != 50 else b"", Form(4), 2)
    for number, result in stream:
        assert number == done
        assert result == "empty file" if number == 50 else (result[0] == (number, 0, 0)).all()
        done += 1
    assert done == 100
    assert most <= 2 * decoding.CHUNK * 2


def test_a_process_that_dies_is_told_and_the_others_end():
    def content(number):
        if number == 30:
            for process in started:
                process._process.kill()
        return picture((0, 0, 0))

    started = []
    real = decoding.Process.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding.Process, "__init__", lambda self, form: (real(self, form), started.append(self))[0])
        with pytest.raises(RuntimeError, match="a process that decodes images ended with status -9"):
            list(decoding.decode_all(range(100), content, Form(4), 2))
    assert all(process._process.returncode is not None for process in started)


def test_few_images_are_in_memory_at_a_time():
    done = most = 0

    def candidates():
        nonlocal most
        for number in range(200):
            most = max(most, number - done)
            yield datasets.Candidate(str(number), 0, None, lambda: Image.new("RGB", (4, 4)))

    for _ in datasets.decoded(datasets.Source([], candidates(), 200), Form(4), 2, [], []):
        done += 1
    assert done == 200
    assert most <= 4 * 2
