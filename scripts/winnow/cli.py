"""What every stage program has in common on its command line.

A rule tells a program its files, all of them, as Snakemake knows them: behind a storage provider or under a prefix they
lie elsewhere than by hand, where naming the folder is enough.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from winnow.files import InputError


def parser(description: str | None, leases: bool = False) -> argparse.ArgumentParser:
    """A parser with ``--spec``: the part of the configuration that the job depends on, as JSON or as ``@FILE``.

    A stage that ``leases`` a device also has ``--gpu``.
    """
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--spec",
        type=_spec,
        required=True,
        metavar="JSON",
        help="what the job depends on, as a JSON object or as @FILE; it is stored with the output as its provenance",
    )
    if leases:
        result.add_argument(
            "--gpu", type=int, default=0, metavar="N", help="1 to lease a GPU, if there is one (default: 0)"
        )
    return result


class Folder(argparse.Action):
    """Takes one folder, or files that lie in one folder, and stores that folder as a Path.

    ``--dataset manifest.json images.npy`` and ``--dataset .`` are the same. With ``nargs="*"`` nothing, which stands
    for None, is as good as a folder.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, nargs: str = "+", **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=nargs, type=Path, metavar="PATH", **options)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        paths: list[Path] = values
        if not paths:
            return
        folders = {path.parent for path in paths}
        if len(paths) == 1 and not paths[0].is_file():
            folders = set(paths)
        if len(folders) > 1:
            raise argparse.ArgumentError(self, f"one folder, or files of one folder, not of {len(folders)} of them")
        setattr(namespace, self.dest, folders.pop())


def results(text: str) -> Path:
    """The folder of results, given as such or by a cell's file below it: ``…/results`` of ``…/results/cells/…``.

    An argument has room for 128 KiB, less than the names of a grid's files take.
    """
    path = Path(text)
    if not path.is_file():
        return path
    parts = path.parts
    below = {("results", "cells"), ("results", "models")}
    ends = [place for place, pair in enumerate(itertools.pairwise(parts), 1) if pair in below]
    if not ends:
        raise argparse.ArgumentTypeError(f"{text} is no folder, and no file of a cell below results/")
    return Path(*parts[: ends[-1]])


def add_results(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The option by which programs that read many cells are given the folder of results."""
    parser.add_argument(
        "--results",
        type=results,
        required=required,
        metavar="PATH",
        help="the folder of results, or a cell's file below it",
    )


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """The options by which programs are given a store, and which of its images train, choose and judge."""
    parser.add_argument("--dataset", action=Folder, required=True)
    parser.add_argument("--split", type=Path, required=True, metavar="FILE", help="what trains, chooses and judges")


def run(parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> None:
    """Parse the command line and run ``main``; an :class:`InputError` becomes one line and exit status 2."""
    try:
        main(parser.parse_args())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno is None:
            raise
        print(f"error: {error.strerror}: {error.filename or 'while writing'}", file=sys.stderr)
        sys.exit(1)


def _spec(text: str) -> dict[str, Any]:
    try:
        if text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        spec = json.loads(text)
    except (OSError, json.JSONDecodeError) as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(spec, dict):
        raise argparse.ArgumentTypeError(f"a JSON object is needed, got {type(spec).__name__}")
    return spec
