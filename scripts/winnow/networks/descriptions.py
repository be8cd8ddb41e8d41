"""What a kept network's files say of it, and whether they still say the same. Imports no torch.

The weights, as safetensors or as ONNX, carry the description in their metadata under the key ``winnow``, so that each
file can be used alone. ``model.json`` beside them is the same for people, with the size and digest of each file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypedDict

from winnow.files import InputError, canonical_json, file_digest, read_json

KEY = "winnow"
DESCRIPTION = "model.json"
# What is said of a file stands in model.json alone, under the key: no file carries its own digest.
FILES = {"weights": "model.safetensors", "onnx": "model.onnx", "int8": "model.int8.onnx"}
_KINDS = {name: kind for kind, name in FILES.items()}
# And what was found of the files once they were written.
CERTIFICATES: Final = "certificates"
CORRUPTIONS: Final = "corruptions"


def pack(description: Mapping[str, Any]) -> str:
    """A description as the text that a file of weights carries."""
    return canonical_json(description)


def unpack(text: str | None, path: Path) -> dict[str, Any]:
    """The description that a file carries.

    Raises
    ------
    InputError
        If the file carries none.
    """
    try:
        description = json.loads(text or "")
    except ValueError:
        description = None
    if not isinstance(description, dict):
        raise InputError(f"{path} carries no description of its network: Winnow did not write it, or it was changed")
    return description


class Written(TypedDict):
    """What tells a file from any other."""

    file: str
    sha256: str
    bytes: int


def written(path: Path) -> Written:
    return {"file": path.name, "sha256": file_digest(path), "bytes": path.stat().st_size}


def check_file(path: Path) -> None:
    """Hold a network's file against what ``model.json``, if it lies beside the file, says of its bytes.

    Parameters
    ----------
    path
        A file of another name than the one it was written under is alone, whatever lies beside it.

    Raises
    ------
    InputError
        If it is not the file that was written, or ``model.json`` is damaged; the message names both.
    """
    said = _beside(path)
    found: Mapping[str, object] = written(path)
    if said is not None and (not isinstance(said, dict) or not _says(said.get(_KINDS[path.name]), found)):
        raise _changed(path)


def check_description(path: Path, description: dict[str, Any]) -> None:
    """Hold the description that a file carries against ``model.json``, as :func:`check_file` does with its bytes."""
    said = _beside(path)
    of_files = (*FILES, CERTIFICATES, CORRUPTIONS)
    if said is not None and {name: value for name, value in said.items() if name not in of_files} != description:
        raise _changed(path)


def _beside(path: Path) -> Any:
    beside = path.with_name(DESCRIPTION)
    return read_json(beside) if path.name in _KINDS and beside.exists() else None


def _says(said: Any, found: Mapping[str, object]) -> bool:
    return isinstance(said, dict) and found.items() <= said.items()


def _changed(path: Path) -> InputError:
    return InputError(
        f"{path} is not the file that {path.with_name(DESCRIPTION)} describes: one of them was changed or cut short"
    )
