"""What is kept from job to job: the same as long as its manifest is the same file, and not too much of it."""

import os

import pytest

from winnow.runtime import memory


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(memory, "_kept", type(memory._kept)())


def folder(tmp_path, name="a"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "manifest.json").write_text("{}")
    return tmp_path / name


def test_it_is_made_once_and_again_when_its_manifest_changes(tmp_path):
    place, made = folder(tmp_path), []

    def get(*details):
        return memory.kept("store", place, lambda: made.append(1) or len(made), *details)

    assert [get(), get(), get("cuda"), get("cuda"), get()] == [1, 1, 2, 2, 1]
    os.utime(place / "manifest.json", ns=(1, 1))
    assert get() == 3


def test_the_least_recently_used_goes_first(tmp_path):
    places = [folder(tmp_path, str(number)) for number in range(memory.LIMIT + 1)]
    for place in places:
        memory.kept("store", place, lambda: "old")
    assert memory.kept("store", places[-1], lambda: "new") == "old"
    assert memory.kept("store", places[0], lambda: "new") == "new"


def test_a_folder_without_a_manifest_is_not_kept(tmp_path):
    assert [memory.kept("store", tmp_path, lambda n=n: n) for n in (1, 2)] == [1, 2]
