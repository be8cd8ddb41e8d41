"""Downloads: right, wrong, cut and taken up again; nothing half-made is left where a whole file is expected."""

import hashlib
import io
import os
import random
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from winnow.data import downloads
from winnow.data.archives import OFFICIAL, archives
from winnow.data.downloads import download, part_of
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.files import InputError

from . import programs

CONTENT = random.Random(0).randbytes(1_000_000)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "downloads" / "archive.zip"


def left(target):
    """What lies in the target's folder."""
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_whole(server, target):
    server.files["a.zip"] = CONTENT
    download(f"{server.url}/a.zip", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert left(target) == ["archive.zip"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_taken_up_or_started_again(server, target, ranges):
    server.files["a.zip"] = CONTENT
    server.ranges, server.cut, server.cuts = ranges, 100_000, 2
    download(f"{server.url}/a.zip", target, DIGEST, pause=0.01)
    assert target.read_bytes() == CONTENT
    assert left(target) == ["archive.zip"]
    assert server.asked[0] is None
    assert all(asked.startswith("bytes=") for asked in server.asked[1:])
    assert len(server.asked) == 3


def test_a_download_goes_on_in_a_later_run(server, target):
    server.files["a.zip"] = CONTENT
    server.cut, server.cuts = 100_000, downloads.ATTEMPTS
    with pytest.raises(InputError, match="cannot be downloaded"):
        download(f"{server.url}/a.zip", target, DIGEST, pause=0)
    assert not target.exists()
    have = part_of(target, f"{server.url}/a.zip", DIGEST).stat().st_size
    assert have > 0
    server.asked.clear()
    download(f"{server.url}/a.zip", target, DIGEST)
    assert server.asked == [f"bytes={have}-"]
    assert target.read_bytes() == CONTENT


def test_the_whole_part_of_a_killed_run_is_not_read_again(server, target):
    server.files["a.zip"] = CONTENT
    target.parent.mkdir()
    part_of(target, f"{server.url}/a.zip", DIGEST).write_bytes(CONTENT)
    download(f"{server.url}/a.zip", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 1])
def test_a_part_that_does_not_fit_the_digest_is_started_anew(server, target, ranges, size):
    server.files["a.zip"], server.ranges = CONTENT, ranges
    target.parent.mkdir()
    part_of(target, f"{server.url}/a.zip", DIGEST).write_bytes(b"x" * size)
    download(f"{server.url}/a.zip", target, DIGEST, pause=0)
    assert target.read_bytes() == CONTENT
    assert left(target) == ["archive.zip"]


def test_a_server_that_goes_on_with_another_file_is_asked_for_the_whole_once_and_then_named(server, target):
    server.files["a.zip"] = CONTENT[:-1] + b"x"
    target.parent.mkdir()
    part_of(target, f"{server.url}/a.zip", DIGEST).write_bytes(CONTENT[:1000])
    with pytest.raises(InputError, match="is not the expected file"):
        download(f"{server.url}/a.zip", target, DIGEST)
    assert server.asked == ["bytes=1000-", None]
    assert left(target) == []


@pytest.mark.parametrize("other", ["address", "digest"])
def test_what_was_begun_under_another_address_or_digest_is_not_taken_up(server, target, other):
    before = CONTENT[::-1]
    server.files |= {"a.zip": before, "b.zip": CONTENT}
    server.cut, server.cuts = 100_000, downloads.ATTEMPTS
    with pytest.raises(InputError, match="cannot be downloaded"):
        download(f"{server.url}/a.zip", target, f"sha256:{hashlib.sha256(before).hexdigest()}", pause=0)
    server.asked.clear()
    server.files["a.zip"] = CONTENT
    download(f"{server.url}/{'b' if other == 'address' else 'a'}.zip", target, DIGEST)
    assert server.asked == [None]
    assert target.read_bytes() == CONTENT
    assert left(target) == ["archive.zip"]


@pytest.mark.parametrize("first", ["whole", "cut off"])
def test_two_that_want_one_file_read_it_once(server, target, first):
    """The second waits for the first, and takes its file, or goes on where it was left."""
    server.files["a.zip"] = CONTENT
    server.cut, server.cuts = 100_000, 1 if first == "whole" else downloads.ATTEMPTS
    pausing, go_on = threading.Event(), threading.Event()

    def fetch(number):
        try:
            download(f"{server.url}/a.zip", target, DIGEST, pause=number)
        except InputError as error:
            return str(error)
        return ""

    def sleep(pause):
        if pause == 1:  # the first, between its first try and its second
            pausing.set()
            assert go_on.wait(30)

    # Read while it is written: what pytest captures is lost where it comes between its reading and its emptying.
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(downloads.time, "sleep", sleep)
        patch.setattr(downloads.sys, "stderr", said)
        one = pool.submit(fetch, 1)
        assert pausing.wait(30)
        if first == "cut off":
            server.cut = 0
        other = pool.submit(fetch, 7)
        tick = threading.Event()
        for _ in range(3000):
            if "waiting for it" in said.getvalue() or other.done():
                break
            tick.wait(0.01)
        waiting = f"another process downloads {part_of(target, f'{server.url}/a.zip', DIGEST)}: waiting for it"
        assert waiting in said.getvalue()
        assert len(server.asked) == 1
        if first == "cut off":
            server.cuts = downloads.ATTEMPTS - 1
        go_on.set()
        failed, done = one.result(30), other.result(30)
    assert ("cannot be downloaded" in failed) == (first == "cut off")
    assert done == ""
    assert target.read_bytes() == CONTENT
    assert left(target) == ["archive.zip"]
    assert server.asked[1:] == [f"bytes={downloads.CHUNK}-"] * (1 if first == "whole" else downloads.ATTEMPTS)


@pytest.mark.parametrize("cut", [None, 100_000])
def test_a_file_of_no_known_digest_is_held_against_the_one_that_a_hub_says(server, target, cut):
    server.files["a.zip"], server.linked["a.zip"] = CONTENT, DIGEST.partition(":")[2]
    server.cut, server.cuts = cut, bool(cut)
    download(f"{server.url}/a.zip", target, "sha256:", pause=0.01)
    assert target.read_bytes() == CONTENT
    target.unlink()
    server.files["a.zip"] = CONTENT[:-1] + b"x"
    with pytest.raises(InputError, match=rf"is not the expected file: .* expected is {DIGEST.partition(':')[2]}"):
        download(f"{server.url}/a.zip", target, "sha256:")
    assert left(target) == []
    # Who knows better is believed.
    server.linked["a.zip"] = hashlib.sha256(server.files["a.zip"]).hexdigest()
    with pytest.raises(InputError, match="is not the expected file"):
        download(f"{server.url}/a.zip", target, DIGEST)


def test_404_is_final_and_says_how_to_do_without(server, target):
    with pytest.raises(InputError) as error:
        download(f"{server.url}/nothing.zip", target, DIGEST)
    assert "answers 404" in str(error.value)
    assert f"put the file at {target} by hand ({DIGEST})" in str(error.value)
    assert len(server.asked) == 1
    assert left(target) == []


@pytest.mark.parametrize("content", [CONTENT[:-1000], CONTENT[:-1] + b"x", b""])
def test_a_truncated_or_other_file_is_told_and_removed(server, target, content):
    server.files["a.zip"] = content
    with pytest.raises(InputError) as error:
        download(f"{server.url}/a.zip", target, DIGEST)
    assert f"expected is {DIGEST.split(':')[1]}" in str(error.value)
    assert f"its sha256 is {hashlib.sha256(content).hexdigest()}" in str(error.value)
    assert left(target) == []


def test_without_a_network_one_sentence_says_where_to_put_the_file(target):
    with pytest.raises(InputError) as error:
        download("http://127.0.0.1:9/a.zip", target, DIGEST, pause=0)
    assert "cannot be downloaded (ConnectionError" in str(error.value)
    assert f"put the file at {target} by hand" in str(error.value)


def test_a_file_placed_by_hand_is_taken_if_it_is_the_right_one(target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    download("http://127.0.0.1:9/a.zip", target, DIGEST)
    target.write_bytes(b"another")
    with pytest.raises(InputError, match="is not the expected file"):
        download("http://127.0.0.1:9/a.zip", target, DIGEST)
    assert target.read_bytes() == b"another"


@pytest.mark.parametrize("linked", [True, False])
def test_a_file_placed_elsewhere_by_hand_is_taken_without_a_network(tmp_path, target, monkeypatch, linked):
    placed = tmp_path / "placed" / "archive.zip"
    placed.parent.mkdir()
    placed.write_bytes(CONTENT)
    if not linked:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")))
    target.parent.mkdir()
    part_of(target, "http://127.0.0.1:9/a.zip", DIGEST).write_bytes(b"of a cut download")
    download("http://127.0.0.1:9/a.zip", target, DIGEST, placed=placed)
    assert target.read_bytes() == CONTENT
    assert left(target) == ["archive.zip"]
    target.unlink()  # as a workflow does before it makes it again
    assert placed.read_bytes() == CONTENT


def test_a_placed_link_is_followed(tmp_path, target):
    (tmp_path / "disk.zip").write_bytes(CONTENT)
    placed = tmp_path / "placed" / "archive.zip"
    placed.parent.mkdir()
    placed.symlink_to("../disk.zip")
    download("http://127.0.0.1:9/a.zip", target, DIGEST, placed=placed)
    assert target.read_bytes() == CONTENT
    assert not target.is_symlink()


def test_a_wrong_file_placed_by_hand_is_named_and_left_alone(server, tmp_path, target):
    server.files["a.zip"] = CONTENT
    placed = tmp_path / "archive.zip"
    placed.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match=rf"{placed} is not the expected file.*Delete or replace it") as error:
        download(f"{server.url}/a.zip", target, DIGEST, placed=placed)
    assert DIGEST.split(":")[1] in str(error.value)
    assert server.asked == []
    assert placed.read_bytes() == CONTENT[:-1]
    assert left(target) == []


def test_the_message_names_the_place_for_a_file_by_hand(server, tmp_path, target):
    placed = tmp_path / "placed" / "archive.zip"
    for url in ("http://127.0.0.1:9/a.zip", f"{server.url}/nothing", "file:///nowhere"):
        with pytest.raises(InputError) as error:
            download(url, target, DIGEST, pause=0, placed=placed)
        assert f"put the file at {placed} by hand ({DIGEST})" in str(error.value)


@pytest.mark.parametrize("form", ["file://{}", "{}"])
def test_a_file_on_disk_is_copied(tmp_path, target, form):
    source = tmp_path / "mirror é.zip"
    source.write_bytes(CONTENT)
    download(form.format(source), target, f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assert target.read_bytes() == source.read_bytes() == CONTENT
    with pytest.raises(InputError, match="nowhere does not exist"):
        download("/nowhere", target.with_name("other"), DIGEST)


def test_official_archives_and_their_mirrors():
    flowers = archives({"source": "flowers102"})
    assert [archive.name for archive in flowers] == ["102flowers.tgz", "imagelabels.mat", "setid.mat"]
    assert flowers[0].digest == "md5:52808999861908f626f3c1f4e79d11fa"
    mirrored = archives({"source": "flowers102", "urls": {"setid.mat": "file:///x"}})
    assert mirrored[2].url == "file:///x"
    assert mirrored[2].digest == OFFICIAL["flowers102"][2].digest
    other = archives(
        {"source": "cats_vs_dogs", "urls": {"kagglecatsanddogs_5340.zip": {"url": "u", "digest": "md5:0"}}}
    )
    assert (other[0].url, other[0].digest) == ("u", "md5:0")
    assert archives({"source": "digits"}) == []
    with pytest.raises(InputError, match=r"unknown archive 'x.zip'; allowed: 102flowers.tgz"):
        archives({"source": "flowers102", "urls": {"x.zip": "u"}})


def picture(color):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 26), color).save(buffer, "JPEG")
    return buffer.getvalue()


def mat(**variables):
    buffer = io.BytesIO()
    savemat(buffer, variables)
    return buffer.getvalue()


def official(source):
    """Small archives in a source's official layout, {name: bytes}."""
    buffer = io.BytesIO()
    if source == "cats_vs_dogs":
        with zipfile.ZipFile(buffer, "w") as archive:
            for kind in ("Cat", "Dog"):
                for number in range(10):
                    archive.writestr(f"PetImages/{kind}/{number}.jpg", picture((number, 0, 0)))
        return {"kagglecatsanddogs_5340.zip": buffer.getvalue()}
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(1, 13):
            content = picture((number, 0, 0))
            member = tarfile.TarInfo(f"jpg/image_{number:05d}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    rows = np.arange(1, 13, dtype=np.uint16)
    return {
        "102flowers.tgz": buffer.getvalue(),
        "imagelabels.mat": mat(labels=np.array([[1, 2] * 6], dtype=np.uint8)),
        "setid.mat": mat(trnid=rows[None, :2], valid=rows[None, 2:4], tstid=rows[None, 4:]),
    }


def made(server, tmp_path, source, contents):
    """A data set made by the programs from what the server has, as the workflow makes it."""
    urls = {
        name: {"url": f"{server.url}/{name}", "digest": f"md5:{hashlib.md5(content).hexdigest()}"}
        for name, content in contents.items()
    }
    dataset = {"source": source, "store_size": 8, "image_size": 8, "urls": urls}
    paths = []
    for archive in archives(dataset):
        paths.append(tmp_path / "archives" / archive.name)
        spec = {"url": archive.url, "digest": archive.digest, "dataset": "set", "archive": archive.name}
        programs.run("download", spec, "--output", paths[-1], "--place", tmp_path / "placed")
    programs.run("decode", {"name": "set", "dataset": dataset}, "--archives", *paths, "--output", tmp_path / "store")
    where = ["--dataset", tmp_path / "store", "--output", tmp_path / "split.parquet"]
    programs.run("split", {"dataset": {}, "fold": None}, *where)
    return Split.open(tmp_path / "split.parquet", Store.open(tmp_path / "store"))


SOURCES = {"flowers102": {"train": 2, "val": 2, "test": 8}, "cats_vs_dogs": {"train": 12, "val": 4, "test": 4}}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("how", ["right", "cut, taken up", "cut, started again", "by hand"])
def test_official_archives_from_the_server_to_the_store(server, tmp_path, source, how, monkeypatch):
    monkeypatch.setattr(downloads.time, "sleep", lambda _: None)
    contents = official(source)
    server.files |= contents
    if how.startswith("cut"):
        server.cut, server.cuts, server.ranges = 700, 2, how == "cut, taken up"
    if how == "by hand":
        server.files.clear()
        (tmp_path / "placed").mkdir()
        for name, content in contents.items():
            (tmp_path / "placed" / name).write_bytes(content)
    assert made(server, tmp_path, source, contents).counts == SOURCES[source]
    assert sorted(path.name for path in (tmp_path / "archives").iterdir()) == sorted(contents)
    assert (how == "by hand") == (not server.asked)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("how", "says"),
    [("truncated", "is not the expected file"), ("other", "is not the expected file"), ("absent", "answers 404")],
)
def test_bad_official_archives_leave_nothing(server, tmp_path, source, how, says):
    contents = official(source)
    name = next(iter(contents))
    server.files |= contents
    if how == "truncated":
        server.files[name] = contents[name][:-50]
    elif how == "other":
        server.files[name] = contents[name][:-1] + b"x"
    else:
        del server.files[name]
    with pytest.raises(InputError, match=f"{name}.*{says}.*put the file at {tmp_path / 'placed' / name} by hand"):
        made(server, tmp_path, source, contents)
    assert list((tmp_path / "archives").iterdir()) == []
    assert not (tmp_path / "store").exists()
