"""The library's rooms: an import goes down or sideways in its room, never up, and what the Snakefile reads is light."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from .programs import SCRIPTS

LIBRARY = SCRIPTS / "winnow"
# From the ground up. The ground itself is the files beside the rooms and the runtime: all rooms stand on it.
ROOMS = ("data", "networks", "importance", "training", "workflow", "answers", "exports")
GROUND = ("__init__", "files", "tables", "cli", "runtime")
MODULES = sorted(LIBRARY.rglob("*.py"))


def level(module: str) -> int:
    """How high up a module is, by its dotted name below ``winnow``."""
    room = module.split(".")[0]
    return ROOMS.index(room) + 1 if room in ROOMS else 0


def imports(path) -> set[str]:
    """Dotted names below ``winnow`` that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "winnow":
            names = [f"winnow.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [node.module]
        else:
            continue
        found |= {name.removeprefix("winnow.") for name in names if name.startswith("winnow.")}
    return found


def test_every_module_is_in_a_room_and_every_room_says_what_comes_in_and_what_goes_out():
    assert {path.name for path in LIBRARY.iterdir() if path.name != "__pycache__"} == {
        *ROOMS,
        "runtime",
        *(f"{name}.py" for name in GROUND if name != "runtime"),
    }
    for room in ROOMS:
        text = ast.get_docstring(ast.parse((LIBRARY / room / "__init__.py").read_bytes()))
        assert "In come" in text, room
        assert "Out go" in text, room


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_no_import_runs_from_a_lower_room_to_a_higher_one(path):
    own = ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
    higher = {name for name in imports(path) if level(name) > level(own)}
    assert not higher


def test_what_the_snakefile_reads_imports_no_heavy_library():
    read = set()
    for path in [SCRIPTS.parent / "Snakefile", *(SCRIPTS.parent / "rules").glob("*.smk")]:
        for line in path.read_text().splitlines():
            if line.startswith(("from winnow", "import winnow")):
                read.add(line)
    assert any("winnow.workflow" in line for line in read)
    heavy = {"torch", "torchvision", "pandas", "scipy"}
    rooms = [f"import winnow.workflow.{path.stem}" for path in (LIBRARY / "workflow").glob("*.py")]
    check = "\n".join([*sorted(read), *rooms, "import sys", f"print(*({heavy} & set(sys.modules)))"])
    done = subprocess.run([sys.executable, "-c", check], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_only_snakemake_can_do_is_little():
    common = (SCRIPTS.parent / "rules/common.smk").read_text().splitlines()
    assert len(common) <= 150
