"""Downloads: right, wrong, cut and taken up again; nothing half-made is left where a whole file is expected."""

import hashlib
import random

import pytest

from winnow import downloads
from winnow.archives import OFFICIAL, archives
from winnow.downloads import download
from winnow.files import InputError

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
    have = target.with_name(".archive.zip.part").stat().st_size
    assert have > 0
    server.asked.clear()
    download(f"{server.url}/a.zip", target, DIGEST)
    assert server.asked == [f"bytes={have}-"]
    assert target.read_bytes() == CONTENT


def test_the_whole_part_of_a_killed_run_is_not_read_again(server, target):
    server.files["a.zip"] = CONTENT
    target.parent.mkdir()
    target.with_name(".archive.zip.part").write_bytes(CONTENT)
    download(f"{server.url}/a.zip", target, DIGEST)
    assert target.read_bytes() == CONTENT


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
