"""docs/tour.md: its code runs as it stands there on what a run has made, and prints what the page shows."""

from __future__ import annotations

import re

import pytest

from ..pages import blocks, printed
from .checkout import ROOT

PAGE = blocks((ROOT / "docs/tour.md").read_text())
# What the small grid has in the place of the demo's.
PLACES = {
    "digits/vgg_digits": "digits/net",
    "experiments/demo": "experiments/small",
    "0.400": "0.500",
    "ratio == 0.4": "ratio == 0.5",
    "global": "layer",
    "inherited/1/": "inherited/0/",
    "runs.drop(index=0)": "runs",  # its one seed chooses and judges
}


@pytest.fixture(scope="module")
def outputs(finished) -> list[str]:
    """What the blocks print of the finished small grid."""
    codes = [block.code for block in PAGE]
    for demo, small in PLACES.items():
        assert any(demo in code for code in codes), demo
        codes = [code.replace(demo, small) for code in codes]
    with pytest.MonkeyPatch.context() as here:
        here.chdir(finished.path)
        return printed(codes)


def words(output: str) -> set[str]:
    """The words of a table's head or of a sentence, without what differs from grid to grid: numbers and names."""
    return set(re.findall(r"[a-z][a-z_]+", output.splitlines()[0].lower()))


def test_every_block_prints_what_the_page_shows(outputs):
    for block, output in zip(PAGE, outputs, strict=True):
        assert bool(block.output) == bool(output), block.code
        if output and "sentence" not in block.code:
            assert words(block.output) == words(output), block.code


def test_what_is_worked_out_by_hand_is_what_the_run_found(outputs):
    output = "".join(outputs)
    assert "largest difference: 0.0\n" in output
    by_hand, summary = re.search(r"by hand: (\S+)\nsummary: (\S+) from", output).groups()
    assert float(by_hand) == float(summary)
