"""Write what config.yaml may say where others look for it: workflow/schemas/config.schema.json, and the tables of keys
in config/README.md. Both are made from the models in scripts/winnow/workflow/config.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow import cli
from winnow.files import atomic_path
from winnow.workflow import schema

ROOT = Path(__file__).resolve().parents[1]
SCHEMA, PAGE = Path("workflow/schemas/config.schema.json"), Path("config/README.md")
# Below this line the page is made.
MARK = "<!-- From here on the page is made by scripts/schema.py. -->\n"


def main(arguments: argparse.Namespace) -> None:
    found = schema.schema()
    written, _, _ = (ROOT / PAGE).read_text(encoding="utf-8").partition(MARK)
    for place, text in {SCHEMA: schema.text(found), PAGE: f"{written}{MARK}\n{schema.tables(found)}"}.items():
        with atomic_path(arguments.output / place) as temporary:
            temporary.write_text(text, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--output", type=Path, default=ROOT, metavar="FOLDER", help="default: this checkout")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
