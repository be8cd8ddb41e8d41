"""Pages of documentation whose code is carried out: its blocks of Python and the output that a page shows of each.

Run by itself it renews the output: ``python tests/pages.py docs/tour.md`` runs the page's code in the present folder,
where a run has made what the page reads, and writes what each block prints below it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# A block, and below it, where it prints something, the output.
_BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```\n(.*?)```\n)?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of Python.

    Attributes
    ----------
    output : str
        What the page says that it prints; empty where it says nothing.
    """

    code: str
    output: str

    @property
    def title(self) -> str:
        """The comment in its first line."""
        return self.code.partition("\n")[0].removeprefix("# ")


def blocks(page: str) -> list[Block]:
    return [Block(code, output) for code, output in _BLOCK.findall(page)]


def printed(codes: Sequence[str]) -> list[str]:
    """What pieces of code print that are run one after the other, with the names that those before them have made."""
    names: dict[str, Any] = {}
    outputs = []
    for code in codes:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, names)
        outputs.append(output.getvalue())
    return outputs


def renew(path: Path) -> None:
    page = path.read_text()
    found = iter(printed([block.code for block in blocks(page)]))

    def written(match: re.Match[str]) -> str:
        output = "\n".join(line.rstrip() for line in next(found).splitlines())
        return f"```python\n{match[1]}```\n" + (f"\n```\n{output}\n```\n" if output else "")

    path.write_text(_BLOCK.sub(written, page))


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
