"""Stage programs, run in this process: as a job runs them, less the four seconds of importing torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from winnow.files import canonical_json

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(name: str, spec: dict[str, Any], *arguments: object) -> None:
    """Run ``scripts/{name}.py`` with a spec and further arguments; its errors come out as exceptions."""
    place = importlib.util.spec_from_file_location(f"program_{name}", SCRIPTS / f"{name}.py")
    program = importlib.util.module_from_spec(place)
    place.loader.exec_module(program)
    program.main(program.parser().parse_args(["--spec", canonical_json(spec), *map(str, arguments)]))
