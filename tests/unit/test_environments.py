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
EXTRAS = sorted(path.stem for path in (ENVS / "extras").glob("*.in"))
# What everybody gets, and what one has the choice of.
PINS = ["requirements.txt", "torch.txt", "uv.txt", *(f"extras/{extra}.txt" for extra in EXTRAS)]
# Of an interpreter that runs no test, whatever else it is for.
RUNTIME = [name for name in PINS if name not in ("uv.txt", "extras/dev.txt")]
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


def direct(extra: str | None = None) -> dict[str, str]:
    """What envs/requirements.in asks for, or an extra: name → the requirement."""
    file = ENVS / (f"extras/{extra}.in" if extra else "requirements.in")
    return {name_of(requirement): requirement for requirement in requirements(file)}


def pinned(files: list[str]) -> dict[str, set[str]]:
    """The pins of several files, by name: one for each Python that needs its own. Those of two files are the same."""
    found: dict[str, set[str]] = {}
    for file in files:
        own: dict[str, set[str]] = {}
        for pin in requirements(ENVS / file):
            own.setdefault(name_of(pin), set()).add(pin)
        for name, pins in own.items():
            assert found.setdefault(name, pins) == pins, file
    return found


@pytest.mark.parametrize("file", PINS)
def test_every_pin_is_exact_and_hashed_and_has_no_address(file):
    assert "://" not in (ENVS / file).read_text()
    pins = requirements(ENVS / file)
    assert pins
    for requirement, options in pins.items():
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.+]+( ; .*)?", requirement), requirement
        assert options, f"{requirement} has no hash"
        assert all(re.fullmatch(r"hash=sha256:[0-9a-f]{64}", option) for option in options), requirement


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_what_is_asked_for_is_pinned(extra):
    pins = pinned(["requirements.txt", "torch.txt", *([f"extras/{extra}.txt"] if extra else [])])
    assert set(direct(extra)) - set(pins) == set()
    exact = {name: {requirement} for name, requirement in direct(extra).items() if "==" in requirement}
    assert {name: pins[name] for name in exact} == exact


def test_files_of_pins_do_not_overlap_but_among_extras_where_they_agree():
    base, torch = set(pinned(["requirements.txt"])), set(pinned(["torch.txt"]))
    assert base & torch == set()
    for extra in EXTRAS:
        assert set(pinned([f"extras/{extra}.txt"])) & (base | torch) == set(), extra
    pinned(PINS)


def test_the_wheels_for_cpus_are_of_the_same_torch():
    pins = direct()
    cpu = requirements(ENVS / "torch-cpu.txt")
    assert {pin.split(" ;")[0] for pin in cpu} == {f"{pins[name]}+cpu" for name in ("torch", "torchvision")}
    assert all(re.fullmatch(r"hash=sha256:[0-9a-f]{64}", option) for options in cpu.values() for option in options)


def test_nothing_of_cuda_is_among_what_everybody_gets():
    assert not [
        name for name in pinned(["requirements.txt"]) if re.match("torch$|torchvision$|triton$|nvidia-|cuda-", name)
    ]


def test_the_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((ENVS / "winnow.yaml").read_text())
    *_, packages = environment["dependencies"]
    assert packages == {"pip": sorted(set().union(*pinned(RUNTIME).values()))}


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


# Imported by another name than its own; where the extra is not installed, nothing says so.
OTHERWISE_NAMED = {"mlflow": ["mlflow-skinny"]}


def test_what_the_code_imports_is_asked_for():
    distributions = importlib.metadata.packages_distributions() | OTHERWISE_NAMED
    asked = {name for extra in [None, *EXTRAS] if extra != "dev" for name in direct(extra)}
    missing = {
        name: file
        for name, file in imported().items()
        if name not in WITH_TORCH
        and not {canonical(distribution) for distribution in distributions.get(name, [name])} & asked
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
