"""The store: written as a stream, compacted, and every damage named."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.data.store import Entry, Store, write_store
from winnow.files import InputError


def write(directory, splits, size=4):
    """A store of random images with these splits, None for images that are not stored; and the images."""
    images = np.random.default_rng(0).integers(0, 256, (len(splits), size, size, 3), dtype=np.uint8)
    stream = ((Entry(f"{n}.png", n % 2, None, 10 + n, 20), images[n]) for n in range(len(splits)))
    manifest = {"classes": ["a", "b"], "store_size": size, "image_size": size, "spec": {}}
    write_store(directory, stream, lambda entries: splits, manifest)
    return images


@given(st.lists(st.sampled_from(["train", "val", "test", None]), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_what_is_kept_comes_back_in_order(tmp_path_factory, splits):
    directory = tmp_path_factory.mktemp("store")
    images = write(directory, splits)
    store = Store.open(directory)
    kept = [row for row, split in enumerate(splits) if split is not None]
    assert (store.images == images[kept]).all()
    assert store.labels.tolist() == [row % 2 for row in kept]
    assert store.splits.tolist() == [splits[row] for row in kept]
    assert (store.read(np.arange(len(kept))) == images[kept]).all()
    assert store.manifest["counts"] == {split: splits.count(split) for split in ("train", "val", "test")}
    assert (np.load(directory / "images.npy") == images[kept]).all()


@pytest.fixture
def store(tmp_path):
    write(tmp_path, ["train", "val", "test", "train"])
    return tmp_path


def test_a_changed_image_is_named(store):
    path = store / "images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    opened = Store.open(store)
    opened.read(np.array([0, 1, 2]))
    with pytest.raises(InputError, match=r"images\.npy: image 3 is not what was written"):
        opened.read(np.array([2, 3]))


@pytest.mark.parametrize("cut", [1, 48, 10_000])
def test_a_store_that_was_cut_short_is_named(store, cut):
    path = store / "images.npy"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError, match=r"images\.npy"):
        Store.open(store)


@pytest.mark.parametrize("name", ["images.npy", "index.parquet", "manifest.json"])
def test_a_missing_file_is_named(store, name):
    (store / name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        Store.open(store)


def test_files_of_two_stores_are_told_apart(store, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write(other, ["train"] * 5)
    (store / "index.parquet").write_bytes((other / "index.parquet").read_bytes())
    with pytest.raises(InputError, match="its index 5 rows"):
        Store.open(store)


def test_a_manifest_that_is_not_json_is_named(store):
    (store / "manifest.json").write_text(json.dumps({"counts": {}})[:-3])
    with pytest.raises(InputError, match=r"manifest\.json is not valid JSON"):
        Store.open(store)


def test_what_a_killed_writer_left_is_removed(store):
    (store / ".images.npy.abc.tmp").write_bytes(b"as large as the store")
    write(store, ["train", "test"])
    assert sorted(path.name for path in store.iterdir()) == ["images.npy", "index.parquet", "manifest.json"]


def test_a_writer_that_fails_leaves_no_manifest(tmp_path):
    def stream():
        yield Entry("a", 0, None, 1, 1), np.zeros((4, 4, 3), dtype=np.uint8)
        raise OSError(28, "No space left on device")

    manifest = {"classes": ["a"], "store_size": 4, "image_size": 4, "spec": {}}
    with pytest.raises(OSError, match="No space left"):
        write_store(tmp_path, stream(), lambda entries: ["train"] * len(entries), manifest)
    assert list(tmp_path.iterdir()) == []
