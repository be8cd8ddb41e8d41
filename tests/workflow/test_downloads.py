"""torchvision's weights in the workflow: a download once for all backbones that use them, an input of their import."""

import copy
import os
import shutil

import pytest
import torch

from winnow.files import file_digest, read_json
from winnow.networks import backbones

from .checkout import SMALL_GRID, Checkout
from .test_own_network import SOURCE

pytestmark = pytest.mark.slow("grids are run with files that are downloaded")

TARGETS = ("results/backbones/one/manifest.json", "results/backbones/other/manifest.json")
# So that times decide, as they do for files above Snakemake's limit.
BIG = ("--max-checksum-file-size", "1")


def test_two_backbones_with_the_same_weights_at_a_time(tmp_path):
    torch.save(backbones.initialised("vgg_digits", "gap", 6, 3).state_dict(), tmp_path / "w.pth")
    name = f"net-{file_digest(tmp_path / 'w.pth')[:8]}.pth"
    net = SMALL_GRID["backbones"]["net"] | {"weights": "IMAGENET1K_V1"}
    config = copy.deepcopy(SMALL_GRID)
    config["backbones"] |= {"one": net | {"weights_url": f"file://{tmp_path}/w.pth"}, "other": net}
    checkout = Checkout(tmp_path / "checkout", config)
    # torchvision publishes none for so small a network.
    edits = {
        "_FILES = {": f'_FILES = {{"vgg_digits": {{"IMAGENET1K_V1": "{name}"}},',
        "_OTHERS = {": f'_OTHERS = {{"{name}": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),',
    }
    for old, new in edits.items():
        checkout.edit("scripts/winnow/networks/published.py", old, new)

    assert checkout.run(*TARGETS) == {f"download weights/{name}", "import_backbone one", "import_backbone other"}
    for target in TARGETS:
        assert read_json(checkout.path / target)["source"] == f"torchvision vgg_digits IMAGENET1K_V1 ({name})"
    file = checkout.path / "results" / "downloads" / "weights" / name
    assert [path.name for path in file.parent.iterdir()] == [name]
    assert file.read_bytes() == (tmp_path / "w.pth").read_bytes()

    os.utime(file)
    assert checkout.run(*TARGETS, *BIG) == set()
    file.unlink()
    assert checkout.run(*TARGETS, *BIG) == set()
    # A file placed by hand is taken for it, without a network.
    (checkout.path / "downloads").mkdir()
    shutil.move(tmp_path / "w.pth", checkout.path / "downloads" / name)
    shutil.rmtree(checkout.path / "results" / "backbones")
    assert checkout.run(*TARGETS, *BIG) == {f"download weights/{name}", "import_backbone one", "import_backbone other"}


def test_a_file_of_weights_and_a_factorys_source_are_inputs_whose_content_counts(tmp_path):
    config = copy.deepcopy(SMALL_GRID)
    config["backbones"]["one"] = {"factory": "mine.py:network", "weights_file": "mine.pt"}
    checkout, target = Checkout(tmp_path / "checkout", config), TARGETS[0]
    (checkout.path / "mine.py").write_text(SOURCE)
    assert "mine.pt" in checkout.snakemake("-n", target, status=1).partition("affected files:")[2]

    def save(seed):
        architecture = f"{checkout.path / 'mine.py'}:network"
        architecture += f"@{file_digest(checkout.path / 'mine.py')[:16]}"
        torch.save(backbones.initialised(architecture, "classifier", 6, seed).state_dict(), checkout.path / "mine.pt")

    save(0)
    assert checkout.run(target) == {"import_backbone one"}
    for name in ("mine.pt", "mine.py"):
        os.utime(checkout.path / name)
    assert checkout.run(target, *BIG) == set()
    save(1)
    assert checkout.run(target, *BIG) == {"import_backbone one"}
    checkout.edit("mine.py", "nn.AdaptiveAvgPool2d(1)", "nn.AdaptiveAvgPool2d((1, 1))")
    assert checkout.run(target, *BIG) == {"import_backbone one"}
