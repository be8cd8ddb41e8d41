"""What is said of a run before and beside it: the disk that it fills, and results of another making."""

from __future__ import annotations

import dataclasses

from winnow.files import canonical_json, readable, write_json
from winnow.workflow import config, disk, grid, provenance

from .test_specs import RAW

CONFIG = config.load(RAW)


def test_the_forecast_counts_cells_kept_networks_and_stores():
    first, second = grid.cells(CONFIG.experiments["tiny"].model_dump())
    text = disk.forecast(CONFIG, [(first, False), (second, True)], ["digits"])
    size = 2 * disk.cell_bytes("vgg_digits", "gap", 0, False) + disk.model_bytes("vgg_digits", "gap", second.ratio)
    size += 1_797 * 8 * 8 * 3
    assert text == f"Disk: about {readable(size)} for 2 cells (1 keep their model) and 1 stores."
    assert disk.forecast(CONFIG, [], []) == ""
    # Of two that are judged, of one size, one is kept, by three trainings, and as many of the unpruned one.
    other = dataclasses.replace(second, criterion="random")
    sizes = [disk.model_bytes("vgg_digits", "gap", ratio) for ratio in (0, second.ratio)]
    assert disk.forecast(CONFIG, [(first, False)], [], [first, second, other]).endswith(
        f"Up to {readable(3 * sum(sizes))} more for networks that are judged, 3 of each."
    )


def test_results_of_another_spec_are_told_and_those_without_one_are_not(tmp_path):
    write_json(tmp_path / "a.json", {"spec": {"code": "0"}})
    write_json(tmp_path / "b.json", {})
    results = [(str(tmp_path / name), canonical_json({"code": code})) for name in ("a.json", "b.json") for code in "01"]
    assert provenance.others(results) == [str(tmp_path / "a.json")]
    assert provenance.others([(str(tmp_path / "missing.json"), "{}")]) == []
