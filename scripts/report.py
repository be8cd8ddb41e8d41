"""Write an experiment's report: from its summary, recommendation and figures to one HTML page that needs no network."""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.answers import growth, report
from winnow.files import InputError, atomic_path


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = unpacked(arguments.figures, Path(folder)) if arguments.figures else arguments.experiment / "figures"
        told = arguments.experiment, figures, arguments.results, arguments.spec
        text = report.page(*told, arguments.growth, arguments.certificates)
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{arguments.spec['experiment']}: {len(text.encode()) / 1e6:.1f} MB", file=sys.stderr)


def unpacked(archive: Path, folder: Path) -> Path:
    """The folder with the archive's files.

    Raises
    ------
    InputError
        If it is missing or damaged; the message names it.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
    except FileNotFoundError:
        raise InputError(f"{archive} does not exist") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive} cannot be read ({error}): delete it and run again to make it anew") from None
    return folder


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--experiment", action=cli.Folder, required=True, help="the experiment's files, or its folder")
    cli.add_results(result)
    result.add_argument(
        "--figures", type=Path, metavar="FILE", help="its figures.zip (default: the folder figures/ of the experiment)"
    )
    growth.add_argument(result)
    result.add_argument(
        "--certificates", type=Path, nargs="?", metavar="FILE", help="of the networks that were exported, if they were"
    )
    result.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page to make")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
