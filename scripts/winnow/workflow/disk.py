"""How much disk a grid will take, estimated before anything runs and without torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from winnow.data import folders
from winnow.files import readable
from winnow.workflow import costs
from winnow.workflow.config import Config
from winnow.workflow.grid import TAKEN, Cell

# Parameters of the convolutions by VGG depth, as torchvision's networks have them; batch norm adds under 0.1 %.
_VGG_CONVOLUTIONS = {11: 9_220_480, 13: 9_404_992, 16: 14_714_688, 19: 20_024_384}
_VGG_FIRST_LINEAR = 512 * 49 * 4096
_VGG_OTHER_LINEARS = 4096 * 4096 + 4096 * 100
_IMAGES = {"digits": 1_797, "flowers102": 8_189, "cats_vs_dogs": 24_998, "elpv": 2_624, "elpv_grades": 2_624}
# Metrics, history and a log; predictions come on top, about 8 bytes a test image once compressed.
_CELL_BYTES = 12_000


def model_bytes(architecture: str, head: str, ratio: float) -> int:
    """Estimated bytes of one pruned network in float32.

    Pruning a share ``ratio`` of all filters leaves (1 - ratio)² of the convolutions' weights and (1 - ratio) of those
    of the first linear layer, whose outputs are not pruned.
    """
    vgg = re.fullmatch(r"vgg(\d+)(_bn)?", architecture)
    if vgg is None:
        return round(4 * costs.parameters(architecture) * (1 - ratio) ** 2)
    parameters = _VGG_CONVOLUTIONS[int(vgg[1])] * (1 - ratio) ** 2
    if head == "classifier":
        parameters += _VGG_FIRST_LINEAR * (1 - ratio) + _VGG_OTHER_LINEARS
    return round(4 * parameters)


def cell_bytes(architecture: str, head: str, ratio: float, keep_model: bool) -> int:
    """Estimated bytes of a finished cell."""
    return _CELL_BYTES + (model_bytes(architecture, head, ratio) if keep_model else 0)


def store_bytes(source: str, store_size: int, images: int | None = None, channels: int = 3) -> int:
    """Bytes of a data set's store; ``images`` is needed for a folder."""
    return (_IMAGES[source] if images is None else images) * store_size**2 * channels


def forecast(
    config: Config, cells: Iterable[tuple[Cell, bool]], datasets: Iterable[str], judged: Iterable[Cell] = ()
) -> str:
    """What a run will fill, as a sentence; empty where it makes nothing that is worth one.

    Parameters
    ----------
    cells
        Those that it trains, each with whether its network is kept.
    datasets
        Those whose stores it makes.
    judged
        Networks of grids that grow which may be judged later in the run. Those of one ratio are of about one size, and
        of a size one is judged.
    """
    cells, stores = list(cells), [config.datasets[name] for name in datasets]
    if not cells and not stores:
        return ""
    size = 0
    for store in stores:
        images = len(folders.images(Path(store.path), store.ignore)) if store.path else None
        size += store_bytes(store.source, store.store_size, images, store.channels)
    for cell, keep in cells:
        size += cell_bytes(*_network(config, cell.backbone), cell.ratio, keep)
    kept = sum(keep for _, keep in cells)
    text = f"Disk: about {readable(size)} for {len(cells)} cells ({kept} keep their model) and {len(stores)} stores."
    ratios = {(cell.dataset, cell.backbone, cell.ratio) for cell in judged}
    if not ratios:
        return text
    more = TAKEN * sum(model_bytes(*_network(config, backbone), ratio) for _, backbone, ratio in ratios)
    return f"{text} Up to {readable(more)} more for networks that are judged, {TAKEN} of each."


def _network(config: Config, backbone: str) -> tuple[str, str]:
    found = config.backbones[backbone]
    return found.network, found.head
