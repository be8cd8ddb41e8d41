"""The examples of CONTRIBUTING.md, carried out as they stand there, in a copy of the programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from ..pages import blocks
from .programs import SCRIPTS

PAGE = (SCRIPTS.parent / "CONTRIBUTING.md").read_text()
# Heading → its blocks of Python: the comment in the first line, and the code with it.
SECTIONS = {
    heading: [(block.title, block.code) for block in blocks(text)]
    for heading, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}
TRIED = "Try it"


def carried_out(heading, folder, changes=True):
    """The exit status of a section's trial and what it printed, with the section's changes or without them."""
    shutil.copytree(SCRIPTS, folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    trials = []
    for place, code in SECTIONS[heading]:
        if place == TRIED:
            trials.append(code)
        elif changes:
            with open(folder / place, "a", encoding="utf-8") as file:
                file.write(f"\n\n{code}")
    environment = os.environ | {"PYTHONPATH": str(folder / "scripts")}
    command = [sys.executable, "-c", "\n".join(trials)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_there_is_an_example_of_each_kind():
    assert list(SECTIONS) == ["A criterion", "A backbone", "A source", "A format of images", "A format to take home"]
    for section in SECTIONS.values():
        places = [place for place, _ in section]
        assert places.count(TRIED) == 1
        assert len(places) > 1
        assert all((SCRIPTS.parent / place).is_file() for place in places if place != TRIED)


@pytest.mark.parametrize("heading", SECTIONS)
def test_an_example_does_what_the_page_says(heading, tmp_path):
    status, said = carried_out(heading, tmp_path)
    assert status == 0, said


def test_without_the_change_the_example_fails(tmp_path):
    status, said = carried_out("A criterion", tmp_path, changes=False)
    assert status != 0
    assert "max_activation" in said
