"""What all programs have in common on their command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow import cli


@pytest.fixture
def parser():
    result = cli.parser(None)
    result.add_argument("--dataset", action=cli.Folder, required=True)
    result.add_argument("--trunk", action=cli.Folder, nargs="*")
    cli.add_results(result)
    return result


def parsed(parser, *arguments):
    return parser.parse_args(["--spec", "{}", *map(str, arguments)])


def test_a_folder_is_given_by_its_name_or_by_files_of_it(parser, tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "manifest.json").touch()
    for given in ([folder], [folder / "manifest.json"], [folder / "manifest.json", folder / "images.npy"]):
        assert parsed(parser, "--dataset", *given, "--results", tmp_path).dataset == folder
    # What is not there yet is a folder if it is one name, and its error will name it.
    assert parsed(parser, "--dataset", tmp_path / "new", "--results", tmp_path).dataset == tmp_path / "new"


def test_what_a_job_may_do_without_is_given_as_nothing(parser, tmp_path):
    given = ["--dataset", tmp_path, "--results", tmp_path]
    assert parsed(parser, *given).trunk is parsed(parser, *given, "--trunk").trunk is None
    assert parsed(parser, *given, "--trunk", tmp_path / "a" / "x", tmp_path / "a" / "y").trunk == tmp_path / "a"


def test_files_of_two_folders_are_refused(parser, tmp_path, capsys):
    with pytest.raises(SystemExit):
        parsed(parser, "--dataset", tmp_path / "a" / "x", tmp_path / "b" / "y", "--results", tmp_path)
    assert "--dataset: one folder, or files of one folder, not of 2 of them" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["results", "results/cells/x/results", "storage/fs/results"])
def test_the_results_are_found_from_any_cells_file(parser, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    file = Path(place, "cells/d/n/unpruned/none/0.000/inherited/0/metrics.json")
    file.parent.mkdir(parents=True)
    file.touch()
    for given in (place, file):
        assert parsed(parser, "--dataset", ".", "--results", given).results == Path(place)


def test_a_file_that_is_no_cells_is_refused(parser, tmp_path, capsys):
    (tmp_path / "metrics.json").touch()
    with pytest.raises(SystemExit):
        parsed(parser, "--dataset", ".", "--results", tmp_path / "metrics.json")
    assert "no file of a cell below results/" in capsys.readouterr().err
