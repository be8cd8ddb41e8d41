"""A network of one's own as the backbone of a grid: it runs, and an edit of its source runs all that depends on it."""

import copy

from .checkout import SMALL_GRID, Checkout

SOURCE = """
from torch import nn


def network(classes):
    body = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""
CELLS = {
    "finetune digits/net/apoz/layer/0.500/inherited/0",
    "finetune digits/net/unpruned/none/0.000/inherited/0",
}


def test_an_edit_of_the_source_runs_what_depends_on_it(tmp_path):
    config = copy.deepcopy(SMALL_GRID)
    config["backbones"]["net"] = {"factory": "mine.py:network", "weights": "random"}
    config["experiments"]["small"] |= {"datasets": ["digits"], "criteria": ["apoz"]}
    checkout = Checkout(tmp_path / "checkout", config)
    assert "mine.py" in checkout.snakemake("-n", status=1).partition("affected files:")[2]
    (checkout.path / "mine.py").write_text(SOURCE)
    ran = checkout.run()
    assert CELLS | {"import_backbone net", "measure digits/net", "mask digits/net/apoz/layer/0.500"} <= ran
    assert checkout.planned() == set()
    checkout.edit("mine.py", "nn.Conv2d(8, 8, 3)", "nn.Conv2d(8, 8, 1)")
    assert checkout.planned() == {job for job in ran if not job.startswith(("decode", "download", "split"))}
