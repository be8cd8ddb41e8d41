"""Print an experiment's summary on the terminal, and where its files are."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

from winnow import cli, summary

WIDTH = 100  # columns


def main(arguments: argparse.Namespace) -> None:
    # A terminal that has no "±" still gets its table.
    sys.stdout.reconfigure(errors="replace")
    frame = summary.read(arguments.summary)
    for (dataset, backbone), rows in frame.groupby(["dataset", "backbone"], sort=False):
        # To stay within the width; what the longer ones say is in the other files.
        text = summary.formatted(rows).drop(columns=["removed", "failed seeds"])
        heading = f"{dataset}, {backbone}"
        if (text["init"] == "inherited").all():
            text = text.drop(columns="init")
        if text["seeds"].nunique() == 1:
            heading += f", seeds: {text['seeds'].iloc[0]}"
            text = text.drop(columns="seeds")
        print(f"\n{heading}")
        header, *body = summary.aligned(text)
        for line in header, ["-" * len(field) for field in header], *body:
            print("  ".join(line).rstrip())
        for row in rows[rows["failed_seeds"] != ""].itertuples():
            print(f"failed: {row.scope} {row.ratio:g} {row.criterion} {row.init}, seed {row.failed_seeds}")
        for scope in summary.SCOPE_NAMES:
            if not summary.finished_rows(frame, dataset, backbone, scope).empty:
                sentence, remark = summary.headline(frame, dataset, backbone, scope)
                print(textwrap.fill(f"{sentence}; {remark}" if remark else sentence, WIDTH, subsequent_indent="  "))
    print("\n± and [ ]: 95 % interval over seeds. Drop: against the unpruned baseline, paired by seed.")

    made = sorted(arguments.summary.parent.glob(f"{arguments.summary.stem}.*"))
    if arguments.figures:
        made.append(arguments.figures)
    print()
    for path in made:
        print(path)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__)
    result.add_argument("--summary", type=Path, required=True, metavar="FILE", help="a summary.parquet")
    result.add_argument("--figures", type=Path, metavar="DIR", help="the folder with the experiment's figures")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
