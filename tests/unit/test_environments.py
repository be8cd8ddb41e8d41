"""The environments name the same pinned, hashed packages, and all that the code imports is among them."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ENVS = ROOT / "envs"
INSTALL = "sh envs/install.sh"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(file: Path) -> dict[str, list[str]]:
    """Each requirement with its options: ``name==version ; marker`` → the hashes."""
    text = re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    lines = [line.split(" --") for line in text.splitlines() if line.strip()]
    return {requirement.strip(): [option.strip() for option in options] for requirement, *options in lines}


def name_of(requirement: str) -> str:
    return canonical(re.match(r"[\w.-]+", requirement)[0])


def direct() -> dict[str, str]:
    """What envs/requirements.in asks for: name → the requirement."""
    return {name_of(requirement): requirement for requirement in requirements(ENVS / "requirements.in")}


@pytest.mark.parametrize("file", ["requirements.txt", "uv.txt"])
def test_every_pin_is_exact_and_hashed_and_has_no_address(file):
    assert "://" not in (ENVS / file).read_text()
    pins = requirements(ENVS / file)
    assert pins
    for requirement, options in pins.items():
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.+]+( ; .*)?", requirement), requirement
        assert options, f"{requirement} has no hash"
        assert all(re.fullmatch(r"hash=sha256:[0-9a-f]{64}", option) for option in options), requirement


def test_what_is_asked_for_is_pinned():
    pins = requirements(ENVS / "requirements.txt")
    assert set(direct()) - {name_of(pin) for pin in pins} == set()
    exact = [requirement for requirement in direct().values() if "==" in requirement]
    assert set(exact) - set(pins) == set()


def test_the_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((ENVS / "winnow.yaml").read_text())
    *_, packages = environment["dependencies"]
    assert packages == {"pip": list(requirements(ENVS / "requirements.txt"))}


def imported() -> dict[str, str]:
    """The top-level packages that scripts/ imports, less Python's and its own: name → a file that does."""
    found = {}
    for path in sorted((ROOT / "scripts").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], str(path.relative_to(ROOT)))
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names | {"winnow"}}


# Comes with torch where torch is built for CUDA; where it is not there, it is not needed.
WITH_TORCH = {"triton"}


def test_what_the_code_imports_is_asked_for():
    distributions = importlib.metadata.packages_distributions()
    missing = {
        name: file
        for name, file in imported().items()
        if name not in WITH_TORCH
        and not {canonical(distribution) for distribution in distributions.get(name, [name])} & set(direct())
    }
    assert missing == {}


def test_the_image_is_installed_as_a_checkout_is():
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert INSTALL in dockerfile
    assert INSTALL in (ROOT / "Makefile").read_text()
    assert "pip install" not in dockerfile
    python = re.search(r"^FROM python:([\d.]+)-slim$", dockerfile, re.MULTILINE)[1]
    assert f"python={python}" in yaml.safe_load((ENVS / "winnow.yaml").read_text())["dependencies"]


def test_the_image_leaves_out_what_git_ignores():
    kept_out = (ROOT / ".dockerignore").read_text().splitlines()
    # A pattern without a leading slash is meant at any depth, which docker has to be told.
    for pattern in (ROOT / ".gitignore").read_text().split():
        assert pattern in kept_out or f"/{pattern}" in kept_out or f"**/{pattern}" in kept_out
