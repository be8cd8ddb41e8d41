"""``make`` installs what is pinned where it is not there, and empties nothing that is another checkout's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# In the place of Python, pip and uv: each writes its command down; `venv --clear` empties .venv as the real one does,
# through a symbolic link too.
STUB = """#!/bin/sh
echo "$*" >> commands
case "$*" in
    "-m venv --clear .venv") mkdir -p .venv/bin && rm -rf .venv/* && mkdir .venv/bin && cp "$0" .venv/bin/python ;;
    *"-r envs/uv.txt") cp "$0" .venv/bin/uv ;;
    *"-r envs/requirements.txt") test ! -e fails ;;
esac
"""


class Place:
    """A checkout with an installer, whose Python is a stub."""

    def __init__(self, path: Path):
        self.path = path
        (path / "envs").mkdir(parents=True)
        for name in ("Makefile", "envs/install.sh"):
            shutil.copy2(ROOT / name, path / name)
        (path / "envs/requirements.txt").write_text("torch==1\n")
        (path / "envs/uv.txt").write_text("uv==1\n")
        self.python = path / "python"
        self.python.write_text(STUB)
        self.python.chmod(0o755)

    def make(self, status: int = 0) -> tuple[list[str], str]:
        """Make the environment; return the commands that it took, and what was said."""
        commands = self.path / "commands"
        commands.write_text("")
        done = subprocess.run(
            ["make", "install", f"PYTHON={self.python}"],
            cwd=self.path,
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        return commands.read_text().splitlines(), done.stdout + done.stderr


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def place(tmp_path) -> Place:
    """A checkout with an environment."""
    result = Place(tmp_path / "checkout")
    commands, _ = result.make()
    assert [command for command in commands if "venv --clear" in command or "requirements.txt" in command] == [
        "-m venv --clear .venv",
        "pip install --python .venv/bin/python --compile-bytecode --require-hashes -r envs/requirements.txt",
    ]
    return result


def linked(place: Place, path: Path) -> Place:
    """Another checkout, whose environment is a link to that one's."""
    result = Place(path)
    (path / ".venv").symlink_to(place.path / ".venv")
    return result


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_installed_twice_and_nothing_is_said(place):
    assert place.make() == ([], "")


def test_times_install_nothing(place):
    for path in place.path.rglob("*"):
        os.utime(path)
    os.utime(place.path / ".venv/installed", (0, 0))
    assert place.make()[0] == []


@pytest.mark.parametrize("file", ["requirements.txt", "uv.txt"])
def test_another_pin_makes_the_environment_anew_whatever_the_times(place, file):
    path = place.path / "envs" / file
    path.write_text(path.read_text().replace("==1", "==2"))
    os.utime(path, (0, 0))
    assert "-m venv --clear .venv" in place.make()[0]
    assert place.make()[0] == []


def test_an_environment_that_was_not_finished_is_made_anew(tmp_path):
    place = Place(tmp_path / "checkout")
    (place.path / "fails").touch()
    place.make(status=2)
    (place.path / "fails").unlink()
    assert "-m venv --clear .venv" in place.make()[0]
    assert place.make()[0] == []


def test_an_environment_that_does_not_say_what_it_has_is_made_anew(place):
    (place.path / ".venv/installed").write_text("")
    assert "-m venv --clear .venv" in place.make()[0]


def test_a_linked_environment_with_the_same_pins_is_used(place, tmp_path):
    before = contents(place.path / ".venv")
    assert linked(place, tmp_path / "other").make() == ([], "")
    assert contents(place.path / ".venv") == before


def test_a_linked_environment_with_other_pins_is_left_alone_and_the_ways_out_are_said(place, tmp_path):
    other = linked(place, tmp_path / "other")
    (other.path / "envs/requirements.txt").write_text("torch==2\n")
    before = contents(place.path / ".venv")
    commands, said = other.make(status=2)
    assert commands == []
    assert contents(place.path / ".venv") == before
    assert f"{other.path / '.venv'} is a symbolic link to {place.path / '.venv'}" in said
    # The first way out: an environment of its own.
    assert "rm .venv" in said
    (other.path / ".venv").unlink()
    assert "-m venv --clear .venv" in other.make()[0]
    assert contents(place.path / ".venv") == before
    # The second: the environment renewed where it belongs.
    (other.path / "envs/requirements.txt").write_text("torch==3\n")
    (place.path / "envs/requirements.txt").write_text("torch==3\n")
    shutil.rmtree(other.path / ".venv")
    (other.path / ".venv").symlink_to(place.path / ".venv")
    other.make(status=2)
    place.make()
    assert other.make() == ([], "")


def test_a_link_to_nothing_is_left_alone(place, tmp_path):
    other = linked(place, tmp_path / "other")
    shutil.rmtree(place.path / ".venv")
    assert "is a symbolic link" in other.make(status=2)[1]
    assert not (place.path / ".venv").exists()
