"""Print an experiment's summary on the terminal, where its files are, and its answer: plainly, then in detail."""

from __future__ import annotations

import argparse
import io
import sys
import textwrap
from pathlib import Path

from winnow import cli
from winnow.answers import summary, words
from winnow.files import read_json
from winnow.training.protocols import ONE_SHOT

WIDTH = 100  # columns


def main(arguments: argparse.Namespace) -> None:
    # A terminal that has no "±" still gets its table.
    if isinstance(sys.stdout, io.TextIOWrapper):
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
        for row in rows[rows["failed_seeds"] != ""].to_dict("records"):
            start = row["init"] if row["protocol"] == ONE_SHOT else f"{row['init']} {row['protocol']}"
            name = f"{row['scope']} {row['ratio']:g} {summary.network_name(row)}"
            print(f"failed: {name} {start}, seed {row['failed_seeds']}")
        if unequal := summary.unequal_remark(rows):
            print(filled(unequal))
        # The best on the test images describes the table; where there is an answer, one headline is enough.
        for scope in () if arguments.verdict else summary.SCOPE_NAMES:
            if not summary.finished_rows(frame, dataset, backbone, scope).empty:
                print(filled("; ".join(filter(None, summary.headline(frame, dataset, backbone, scope)))))
    print("\n±: 95 % interval over seeds. [ ]: over seeds and test images.")
    print("Drop: against the unpruned baseline, paired by seed and image.")

    made = sorted(arguments.summary.parent.glob(f"{arguments.summary.stem}.*"))
    if arguments.verdict:
        made += sorted(arguments.verdict.parent.glob(f"{arguments.verdict.stem}.*"))
    if arguments.figures:
        made.append(arguments.figures)
    made += sorted(arguments.summary.parent.glob("report*.html"))
    made += sorted(arguments.summary.parent.glob("models/*"))
    print()
    for path in made:
        print(path)
    if arguments.verdict:
        found = read_json(arguments.verdict)
        print("\nHow small can it be?")
        for paragraph in words.opening(found["answer"]):
            print(filled(paragraph))
        print("\nIn detail:")
        for line in found["lines"]:
            print(filled(line))


def filled(text: str) -> str:
    lines = textwrap.fill(words.unbroken(text), WIDTH, subsequent_indent="  ")
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__)
    result.add_argument("--summary", type=Path, required=True, metavar="FILE", help="a summary.parquet")
    result.add_argument("--verdict", type=Path, metavar="FILE", help="the experiment's recommendation.json")
    result.add_argument("--figures", type=Path, metavar="DIR", help="the folder with the experiment's figures")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
