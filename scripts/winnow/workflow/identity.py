"""The identity of a stage's code: a digest that prose, formatting and unrelated modules leave alone.

It covers the stage program and every ``winnow`` module that it imports, directly or through another, anywhere in the
file. It is taken over the syntax tree without comments, docstrings and positions, so only a change that can change a
result changes it. What lies beside a module under its name, such as ``answers/report.html``, the template of
``answers/report.py``, is part of it, byte for byte. :mod:`winnow.runtime` (how a job runs, not what it computes) and
the package's own ``__init__`` (its version) are left out.

What a source comes to is remembered from run to run in ``$XDG_CACHE_HOME/winnow`` (or ``~/.cache/winnow``), by its
bytes: working it out is a third of what a dry run takes.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from winnow.files import InputError, read_json, write_json

PACKAGE = "winnow"
RUNTIME = f"{PACKAGE}.runtime"
# How many findings are remembered: those of some dozen states of all sources.
REMEMBERED = 5000


def code_digest(program: Path, criterion: str | None = None, without: Sequence[str] = ()) -> str:
    """Digest of a stage program and the library modules that it imports.

    Parameters
    ----------
    program
        The stage program; the package ``winnow`` lies beside it.
    criterion
        For the stage that computes one criterion: the other functions registered with ``@criterion("...")`` are left
        out, so that a new criterion does not compute the old ones again.
    without
        Dotted names of modules that the job makes no use of: they, and what only they import, are left out.

    Returns
    -------
    str
        32 hex digits.
    """
    digest = hashlib.sha256()
    for name, path in sorted(sources(program, without).items()):
        digest.update(f"{name}={_file_digest(path, criterion)}\n".encode())
    _memory().keep()
    return digest.hexdigest()[:32]


def sources(program: Path, without: Sequence[str] = ()) -> dict[str, Path]:
    """The program (under its file name) and the modules that its digest covers: dotted name → file.

    A file that goes with a module has the module's name and its own suffix: ``winnow.answers.report.html``.
    """
    found = {program.name: program}
    queue = [program]
    while queue:
        for name in imported_modules(queue.pop(), program.parent):
            if name not in found and name not in without:
                found[name] = module = _module_file(name, program.parent)
                queue.append(module)
                companions = set(module.parent.glob(f"{module.stem}.*")) - {module}
                found |= {f"{name}{path.suffix}": path for path in companions}
    return found


def imported_modules(path: Path, root: Path) -> set[str]:
    """The ``winnow`` modules that one file names in its imports with their rooms, less the runtime and the package."""
    return {
        name
        for named in _named_modules(path.read_bytes(), str(path))
        for name in itertools.accumulate(named.split("."), "{}.{}".format)
        if name.startswith(f"{PACKAGE}.")
        and name != RUNTIME
        and not name.startswith(f"{RUNTIME}.")
        and _module_file(name, root).is_file()
    }


def _module_file(name: str, root: Path) -> Path:
    path = root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


class _Memory:
    """What sources came to, in this process and in earlier ones: stages share most modules, runs nearly all."""

    def __init__(self, path: Path):
        self.path = path
        # Another version of this file may come to something else.
        self.reader = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        self.found: dict[str, Any] = {}
        self.new: dict[str, Any] = {}
        with contextlib.suppress(OSError, InputError, LookupError, TypeError, ValueError):
            kept = read_json(path)
            if kept["reader"] == self.reader:
                self.found = dict(kept["found"])

    def of(self, what: str, source: bytes, work_out: Callable[[], Any]) -> Any:
        key = f"{what} {hashlib.sha256(source).hexdigest()}"
        if key not in self.found:
            self.found[key] = self.new[key] = work_out()
        return self.found[key]

    def keep(self) -> None:
        """Write what is new, where that can be done; of two processes that do one may be forgotten."""
        if self.new:
            if len(self.found) > REMEMBERED:
                self.found = self.new
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.path, {"reader": self.reader, "found": self.found})
            self.new = {}


@functools.cache
def _memory() -> _Memory:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return _Memory(Path(cache) / PACKAGE / "code.json")


def _named_modules(source: bytes, file: str) -> list[str]:
    return _memory().of("imports", source, lambda: _look_for_modules(source, file))


def _look_for_modules(source: bytes, file: str) -> list[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            # "from winnow.importance import masks" names a module, "from winnow.importance.masks import mask" a
            # function: both are tried.
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return sorted(name for name in names if name.split(".")[0] == PACKAGE)


def _file_digest(path: Path, criterion: str | None) -> str:
    source = path.read_bytes()
    if path.suffix != ".py":
        return hashlib.sha256(source).hexdigest()
    what = "tree" if criterion is None else f"tree for {criterion}"
    return _memory().of(what, source, lambda: _tree_digest(source, str(path), criterion))


def _tree_digest(source: bytes, file: str, criterion: str | None) -> str:
    tree = ast.parse(source, file)
    if criterion is not None:
        tree.body = [node for node in tree.body if _registered_criterion(node) in (None, criterion)]
    lines: list[str] = []
    _write(tree, 0, lines)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _registered_criterion(node: ast.stmt) -> str | None:
    """The name under which a function is registered as a criterion, or None for anything else."""
    if isinstance(node, ast.FunctionDef):
        for decorator in node.decorator_list:
            if (
                isinstance(decorator, ast.Call)
                and isinstance(decorator.func, ast.Name)
                and decorator.func.id == "criterion"
                and decorator.args
                and isinstance(decorator.args[0], ast.Constant)
            ):
                return str(decorator.args[0].value)
    return None


def _write(node: ast.AST, depth: int, lines: list[str]) -> None:
    """Add the tree as text, the same under every Python version: empty fields, which versions add, are not written."""
    lines.append(f"{depth} {type(node).__name__}")
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list) and _is_docstring(value):
            value = value[1:]
        if value is None or value == [] or name in ("type_comment", "kind"):
            continue
        lines.append(f"{depth} .{name}")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                _write(item, depth + 1, lines)
            else:
                lines.append(f"{depth} {item!r}")


def _is_docstring(body: list[ast.stmt]) -> bool:
    return (
        bool(body)
        and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    )
