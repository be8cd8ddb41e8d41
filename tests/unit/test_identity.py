"""The code digest: what changes it, what does not, and that it misses no module that a program loads."""

import ast
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from winnow.importance.criteria import CRITERIA
from winnow.workflow import identity
from winnow.workflow.identity import code_digest, sources

SCRIPTS = Path(__file__).parents[2] / "scripts"
PROGRAMS = sorted(path.name for path in SCRIPTS.glob("*.py"))


@pytest.fixture
def program(tmp_path):
    """A program that uses ``winnow.helper``, which uses ``winnow.deep``; and a module that nobody uses."""
    package = tmp_path / "winnow"
    (package / "runtime").mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '1'\n")
    (package / "runtime" / "__init__.py").write_text("")
    (package / "runtime" / "devices.py").write_text("x = 1\n")
    (package / "helper.py").write_text("def f(x):\n    from winnow.deep import g\n    return g(x)\n")
    (package / "deep.py").write_text('"""Prose."""\n\ndef g(x):\n    """More."""\n    return x + 1\n')
    (package / "deep.html").write_text("<p>{{ x }}</p>")
    (package / "deeper.html").write_text("<p>{{ y }}</p>")
    (package / "unused.py").write_text("y = 1\n")
    (package / "criteria.py").write_text(
        textwrap.dedent("""
        def criterion(name): return lambda f: f
        @criterion("a")
        def a(): return shared() + 1
        @criterion("b")
        def b(): return shared() + 2
        def shared(): return 0
        """)
    )
    path = tmp_path / "stage.py"
    path.write_text("from winnow import criteria, helper\nfrom winnow.runtime import devices\nprint(helper.f(1))\n")
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage.py", "print(helper.f(1))", "print(helper.f(2))"),
        ("winnow/helper.py", "return g(x)", "return g(x) * 2"),
        ("winnow/deep.py", "x + 1", "x + 2"),
        ("winnow/deep.py", "x + 1", "x - 1"),
        ("winnow/deep.py", "def g(x)", "def g(x=0)"),
        ("winnow/deep.html", "<p>", "<p class='x'>"),
        ("winnow/criteria.py", "return shared() + 1", "return shared() + 5"),
        ("winnow/criteria.py", "return 0", "return 9"),
    ],
)
def test_an_edit_of_code_that_the_program_uses_changes_it(program, file, old, new):
    before = code_digest(program)
    edit(program.parent / file, old, new)
    assert code_digest(program) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("winnow/deep.py", "Prose", "Other prose"),
        ("winnow/deep.py", '    """More."""\n', ""),
        ("winnow/deep.py", "return x + 1", "# why\n    return (x  +\n        1)"),
        ("winnow/unused.py", "y = 1", "y = 2"),
        ("winnow/deeper.html", "y", "z"),
        ("winnow/runtime/devices.py", "x = 1", "x = 2"),
        ("winnow/__init__.py", "'1'", "'2'"),
        ("winnow/__init__.py", "'1'", "'1'"),
    ],
)
def test_prose_runtime_and_foreign_modules_leave_it_alone(program, file, old, new):
    before = code_digest(program)
    edit(program.parent / file, old, new)
    assert code_digest(program) == before


def test_a_criterions_digest_covers_it_and_what_the_criteria_share(program):
    criteria = program.parent / "winnow" / "criteria.py"
    before = {name: code_digest(program, name) for name in "ab"}
    edit(criteria, "shared() + 2", "shared() + 3")
    assert code_digest(program, "a") == before["a"]
    assert code_digest(program, "b") != before["b"]
    edit(criteria, "return 0", "return 1")
    assert code_digest(program, "a") != before["a"]


def test_one_decorator_names_every_criterion_so_that_a_new_one_scores_nothing_again(tmp_path):
    scripts = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, scripts)
    names = [name for name, each in CRITERIA.items() if not each.reverse]
    before = {name: code_digest(scripts / "score.py", name) for name in names}
    with open(scripts / "winnow" / "importance" / "criteria.py", "r+") as file:
        file.seek(0, os.SEEK_END)
        file.write('\n\n@criterion("new", needs="weights")\ndef new(weights):\n    return weights.sum()\n')
    assert {name: code_digest(scripts / "score.py", name) for name in names} == before
    assert len(set(before.values())) == len(names)


def test_the_walk_finds_every_module_that_a_program_loads():
    # One process loads all programs, each with the library anew: torch and the like take seconds to load.
    code = """
        import runpy, sys
        sys.path.insert(0, ".")
        for program in sys.argv[1:]:
            for module in [name for name in sys.modules if name.split(".")[0] == "winnow"]:
                del sys.modules[module]
            runpy.run_path(program, run_name="stage")
            print(program, *(name for name in sys.modules if name.startswith("winnow.")))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *PROGRAMS]
    done = subprocess.run(command, cwd=SCRIPTS, check=True, capture_output=True, text=True)
    loaded = {program: set(modules) for program, *modules in map(str.split, done.stdout.splitlines())}
    assert set(loaded) == set(PROGRAMS)
    assert all(len(modules) > 1 for modules in loaded.values())
    for program, modules in loaded.items():
        missed = {name for name in modules if not name.startswith("winnow.runtime")} - set(sources(SCRIPTS / program))
        assert not missed, f"{program} loads {sorted(missed)}"


def test_the_packages_own_file_has_nothing_but_its_version():
    import ast

    tree = ast.parse((SCRIPTS / "winnow" / "__init__.py").read_text())
    assert [type(node).__name__ for node in tree.body] == ["Expr", "Assign"]


class TestMemory:
    """What a source comes to is worked out once, and nothing rests on it."""

    @pytest.fixture
    def kept(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        identity._memory.cache_clear()
        yield tmp_path / "cache/winnow/code.json"
        identity._memory.cache_clear()

    @pytest.fixture
    def worked_out(self, monkeypatch) -> list[str]:
        """The sources that were looked at, from here on; what this process knows it has forgotten."""
        seen = []
        parse = ast.parse
        monkeypatch.setattr(
            identity.ast, "parse", lambda source, file: seen.append(Path(file).name) or parse(source, file)
        )
        return seen

    def test_another_process_works_nothing_out_but_what_was_edited(self, program, kept, worked_out):
        before = code_digest(program)
        assert {"stage.py", "helper.py", "deep.py"} <= set(worked_out)
        for file, expected in ((None, []), ("deep.py", ["deep.py", "deep.py"])):
            if file:
                edit(program.parent / "winnow" / file, "x + 1", "x + 2")
            worked_out.clear()
            identity._memory.cache_clear()
            assert (code_digest(program) == before) == (file is None)
            assert worked_out == expected

    @pytest.mark.parametrize("content", ["{", "[]", '{"reader": 1, "found": {}}', '{"found": {}}'])
    def test_what_is_damaged_or_was_written_by_another_version_is_not_believed(
        self, program, kept, worked_out, content
    ):
        before = code_digest(program)
        kept.write_text(content)
        worked_out.clear()
        identity._memory.cache_clear()
        assert code_digest(program) == before
        assert "deep.py" in worked_out

    def test_where_nothing_can_be_written_it_is_the_same(self, program, kept):
        before = code_digest(program)
        shutil.rmtree(kept.parent)
        kept.parent.write_text("a file in the folder's place")
        identity._memory.cache_clear()
        assert code_digest(program) == before

    def test_it_does_not_grow_without_end(self, program, kept, monkeypatch):
        monkeypatch.setattr(identity, "REMEMBERED", 12)
        for number in range(20):
            program.write_text(f"from winnow import helper\nprint({number})\n")
            code_digest(program)
            assert len(json.loads(kept.read_text())["found"]) <= 12
