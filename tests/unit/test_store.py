"""The store: written as a stream, compacted, and every damage named."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import types
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.data import store as store_module
from winnow.data.images import load_images
from winnow.data.store import Entry, Store, write_store
from winnow.files import InputError, file_digest
from winnow.runtime import verification
from winnow.tables import read_table

from . import programs


def write(directory, count, expected=None, size=4, seed=0):
    """A store of so many random images; and the images."""
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    stream = ((Entry(f"{n}.png", n % 2, None, "g" if n % 3 else None, 10 + n, 20), images[n]) for n in range(count))
    manifest = {"classes": ["a", "b"], "store_size": size, "image_size": size, "spec": {}}
    write_store(directory, stream, manifest, expected)
    return images


@given(st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_what_is_stored_comes_back_in_order(tmp_path_factory, count):
    directory = tmp_path_factory.mktemp("store")
    images = write(directory, count)
    store = Store.open(directory)
    assert (store.images == images).all()
    assert store.labels.tolist() == [row % 2 for row in range(count)]
    assert (store.read(np.arange(count)) == images).all()
    assert store.manifest["images"] == count
    assert (np.load(directory / "images.npy") == images).all()
    index = read_table(directory / "index.parquet", "index").to_pylist()
    assert [(row["file"], row["official"], row["group"]) for row in index] == [
        (f"{n}.png", None, "g" if n % 3 else None) for n in range(count)
    ]


@pytest.fixture
def store(tmp_path):
    write(tmp_path, 4)
    return tmp_path


def change(path):
    """Change the last byte where it lies, and have the file say that it was not changed."""
    before = path.stat()
    with open(path, "rb+") as file:
        file.seek(-1, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


NAMED = r"images\.npy: image 3 is not what was written"


def test_a_changed_image_is_named(store):
    opened = Store.open(store)
    opened.read(np.arange(4))
    change(store / "images.npy")
    for again in (opened, Store.open(store)):
        for _ in range(2):  # what was damaged once is not forgotten
            with pytest.raises(InputError, match=NAMED):
                again.read(np.array([2, 3]))


def test_checksums_of_another_store_are_not_those_that_were_verified(store, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write(other, 4, seed=1)
    (store / "index.parquet").write_bytes((other / "index.parquet").read_bytes())
    with pytest.raises(InputError, match="image 0 is not what was written"):
        Store.open(store).verify()


class TestVerifiedOnce:
    """How often a store's images are read to be held against their checksums: 4 times each time all of them are."""

    @pytest.fixture
    def reads(self, monkeypatch):
        """Of how many images checksums were taken."""
        count = [0]

        def crc32(content):
            count[0] += content.ndim == 3  # and not the checksum of the checksums
            return zlib.crc32(content)

        monkeypatch.setattr(store_module, "zlib", types.SimpleNamespace(crc32=crc32))
        return count

    @staticmethod
    def as_another_process(monkeypatch):
        monkeypatch.setattr(verification, "_verified", {})

    def load(self, directory, monkeypatch):
        self.as_another_process(monkeypatch)
        load_images(Store.open(directory), [0.5] * 3, [0.5] * 3, "cpu")

    def test_where_it_was_written_nobody_reads_it(self, store, reads, monkeypatch):
        self.load(store, monkeypatch)
        assert reads == [0]

    def test_a_process_elsewhere_does_not_either(self, store):
        script = (
            "import sys, zlib, pathlib, winnow.data.store as s; real, n = zlib.crc32, []\n"
            "s.zlib.crc32 = lambda x: n.append(len(x)) or real(x)\n"
            "s.Store.open(pathlib.Path(sys.argv[1])).verify(); print(n)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, store], cwd=programs.SCRIPTS, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[4]"

    @pytest.mark.parametrize("how", ["copied", "touched", "copied with its times", "on another node"])
    def test_a_file_in_another_state_is_read_once(self, store, tmp_path_factory, reads, monkeypatch, how):
        if how == "touched":
            (store / "images.npy").touch()
        elif how == "on another node":
            monkeypatch.setenv("WINNOW_VERIFIED", str(tmp_path_factory.mktemp("node")))
        else:
            copy = tmp_path_factory.mktemp("copy") / "store"
            shutil.copytree(store, copy, copy_function=shutil.copy2 if "times" in how else shutil.copy)
            store = copy
        for _ in range(3):
            self.load(store, monkeypatch)
        assert reads == [4]

    def test_the_same_process_takes_its_own_word_where_nothing_can_be_written(self, store, reads, monkeypatch):
        monkeypatch.setenv("WINNOW_VERIFIED", "/dev/null/nothing")
        self.as_another_process(monkeypatch)
        opened = Store.open(store)
        for _ in range(3):
            opened.read(np.array([1]))
        assert reads == [4]
        self.load(store, monkeypatch)
        assert reads == [8]
        change(store / "images.npy")
        with pytest.raises(InputError, match=NAMED):
            opened.read(np.array([1]))

    def test_a_record_that_is_damaged_is_no_record(self, store, reads, monkeypatch, tmp_path_factory):
        monkeypatch.setenv("WINNOW_VERIFIED", str(folder := tmp_path_factory.mktemp("node")))
        self.load(store, monkeypatch)
        (record,) = folder.iterdir()
        record.write_bytes(record.read_bytes()[:-1])
        self.load(store, monkeypatch)
        assert reads == [8]

    def test_those_who_come_together_wait_for_the_one_that_reads(self, tmp_path, monkeypatch):
        path, calls = tmp_path / "file", []
        path.write_bytes(b"content")
        together = threading.Barrier(4)

        def check():
            calls.append(1)
            time.sleep(0.3)

        def ask():
            together.wait()
            verification.once(path, "digest", check)
            assert calls == [1]

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(ask) for _ in range(4)]:
                future.result()
        assert calls == [1]


@pytest.mark.parametrize("expected", [None, 4, 5])
def test_what_the_disk_did_not_keep_is_named_by_the_writer(tmp_path, monkeypatch, expected):
    class Forgetful(store_module._Digest):
        def read(self, checksums):
            change(self._path)
            super().read(checksums)

    monkeypatch.setattr(store_module, "_Digest", Forgetful)
    with pytest.raises(InputError, match="image 3 is not what was written"):
        write(tmp_path, 4, expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("expected", [None, 75, 74, 80])
def test_a_store_is_digested_as_it_is_whether_or_not_its_images_were_counted_before(tmp_path, expected):
    images = write(tmp_path, 75, expected)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["images_sha256"] == file_digest(tmp_path / "images.npy")
    assert (Store.open(tmp_path).images == images).all()


def test_a_file_is_read_back_once_where_its_images_were_counted_before(tmp_path, monkeypatch):
    made = []

    class Counted(store_module._Digest):
        def __init__(self, *arguments):
            made.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(store_module, "_Digest", Counted)
    write(tmp_path / "a", 40, 40)
    assert len(made) == 1
    write(tmp_path / "b", 40, 41)
    assert len(made) == 3


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
    write(other, 5)
    (store / "index.parquet").write_bytes((other / "index.parquet").read_bytes())
    with pytest.raises(InputError, match="its index 5 rows"):
        Store.open(store)


def test_a_manifest_that_is_not_json_is_named(store):
    (store / "manifest.json").write_text(json.dumps({"images": 0})[:-3])
    with pytest.raises(InputError, match=r"manifest\.json is not valid JSON"):
        Store.open(store)


def test_what_a_killed_writer_left_is_removed(store):
    (store / ".images.npy.abc.tmp").write_bytes(b"as large as the store")
    write(store, 2)
    assert sorted(path.name for path in store.iterdir()) == ["images.npy", "index.parquet", "manifest.json"]


def test_a_writer_that_fails_leaves_no_manifest(tmp_path):
    def stream():
        yield Entry("a", 0, None, None, 1, 1), np.zeros((4, 4, 3), dtype=np.uint8)
        raise OSError(28, "No space left on device")

    manifest = {"classes": ["a"], "store_size": 4, "image_size": 4, "spec": {}}
    with pytest.raises(OSError, match="No space left"):
        write_store(tmp_path, stream(), manifest)
    assert list(tmp_path.iterdir()) == []
