"""What every stage program has in common on its command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
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
