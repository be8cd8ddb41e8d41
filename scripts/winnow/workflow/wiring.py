"""Which files a job needs: paths below the working directory, as the Snakefile's opening lists them."""

from __future__ import annotations

from collections.abc import Iterable

from winnow.data import archives
from winnow.importance.criteria import CRITERIA
from winnow.importance.scopes import BUDGETS
from winnow.training import protocols
from winnow.workflow import grid
from winnow.workflow.config import WEIGHTS, Config
from winnow.workflow.grid import Cell, Folds, Trunk

MASK = "{dataset}/{backbone}/{criterion}/{scope}/{ratio}"
NETWORK = f"{MASK}/{{init}}"
CELL = f"{NETWORK}/{{seed}}"
TRUNK = "{dataset}/{backbone}/{criterion}/{scope}/{share}/{epochs}/{seed}"

# The name of the split of a data set without folds.
ONLY = "only"

CELL_FILES = ("metrics.json", "history.parquet", "predictions.parquet", "mask.parquet")
MODEL_FILES = ("model.safetensors", "model.json")


def cell_of(dataset: str, backbone: str, criterion: str, scope: str, ratio: str, init: str, seed: str = "0") -> Cell:
    """The cell that the parts of a path name; that of a searched learning rate has no seed, which is 0."""
    return grid.parse_path("/".join([dataset, backbone, criterion, scope, ratio, init, seed]))


def downloads(config: Config, dataset: str) -> list[str]:
    """The archives that a data set is decoded from."""
    found = archives.archives(config.datasets[dataset].model_dump())
    return [f"results/downloads/{dataset}/{archive.name}" for archive in found]


def own_images(config: Config, dataset: str) -> list[str]:
    """The user's own folder of images, wherever it lies."""
    path = config.datasets[dataset].path
    return [path] if path else []


def split(dataset: str, fold: int | None) -> str:
    """Which images of a data set train, choose and judge: its only split, or one of its folds."""
    return f"results/splits/{dataset}/{ONLY if fold is None else fold}.parquet"


def training_split(config: Config, dataset: str, **place: str) -> list[str]:
    """The split whose training images a pass looks at, or a trunk trains on: of ``photos``, of ``photos~2``."""
    return [split(*grid.parse_images(dataset))]


def cell_split(config: Config, **place: str) -> list[str]:
    """The split that a cell is trained and judged by."""
    cell = cell_of(**place)
    return [split(cell.dataset, cell.fold(config.folds))]


def pretraining_split(config: Config, backbone: str) -> list[str]:
    """The split that a backbone is pretrained by: the first."""
    dataset = config.pretraining(backbone).dataset
    return [split(*grid.parse_images(grid.first_images(dataset, config.folds)))]


def weights(config: Config, backbone: str) -> list[str]:
    """The file that a backbone's weights come from: its pretraining's or a download; none for drawn or own ones."""
    found = config.backbones[backbone]
    if found.pretrain:
        return [f"results/backbones/{backbone}/pretrained.safetensors"]
    return [f"results/downloads/{WEIGHTS}/{found.download.name}"] if found.download else []


def own_weights(config: Config, backbone: str) -> list[str]:
    """The user's own file of a backbone's weights, wherever it lies."""
    found = config.backbones[backbone]
    return [archives.of_package(found.weights_file)] if found.weights_file else []


def factory_source(config: Config, backbone: str) -> list[str]:
    """The user's own file that has the factory of a backbone's network, if that is where the network comes from."""
    factory = config.backbones[backbone].factory
    return [factory.rpartition(":")[0]] if factory else []


def weights_manifest(config: Config, backbone: str) -> list[str]:
    """What has the digest of a pretraining's weights."""
    return [f"results/backbones/{backbone}/pretrained.json"] if config.backbones[backbone].pretrain else []


def statistics(config: Config, dataset: str, backbone: str, criterion: str) -> list[str]:
    """The manifest of what a score is a query over: none for a criterion that looks at no images."""
    name, source = grid.parse_source(grid.parse_criterion(criterion)[0])
    needs = CRITERIA[name].needs
    looks = needs in ("activations", "gradients")
    place = grid.first_images(source, config.folds) if source else dataset
    return [f"results/statistics/{place}/{backbone}/{needs}.json"] if looks else []


def arrays(manifests: Iterable[str]) -> list[str]:
    """The sums themselves that lie beside manifests of statistics, which have their digests."""
    return [f"{manifest.removesuffix('.json')}.npz" for manifest in manifests]


def statistics_arrays(config: Config, dataset: str, backbone: str, criterion: str) -> list[str]:
    """The sums themselves, beside the manifest."""
    return arrays(statistics(config, dataset, backbone, criterion))


def mask(config: Config, **place: str) -> list[str]:
    """A cell's mask: none for the unpruned one, and none for a cell that makes its own."""
    return masks([cell_of(**place)], config.folds)


def latency_mask(config: Config, dataset: str, criterion: str, **place: str) -> list[str]:
    """The mask whose widths are timed: none for the unpruned network."""
    found = MASK.format(dataset=grid.first_images(dataset, config.folds), criterion=criterion, **place)
    return [f"results/masks/{found}.parquet"] * (criterion != grid.UNPRUNED)


def scores(config: Config, **place: str) -> list[str]:
    """The scores that a trunk's mask is made from: none for the unpruned one."""
    pruned = place["criterion"] != grid.UNPRUNED
    return ["results/scores/{dataset}/{backbone}/{criterion}.parquet".format(**place)] * pruned


def trunks(config: Config, **place: str) -> list[str]:
    """The folder of what a cell begins with that prunes what it has trained; none for a cell of one phase."""
    cell = cell_of(**place)
    found = grid.trunk(cell, config.recipe(cell.dataset, cell.backbone).epochs, config.folds)
    return [f"results/trunks/{found.path}"] if found else []


def rates(config: Config, **place: str) -> list[str]:
    """The learning rate that a cell or a trunk is trained with, where its recipe leaves that to a search."""
    return rates_of(config, [cell_of(**place) if "init" in place else grid.parse_trunk(TRUNK.format(**place))])


def rates_of(config: Config, trained: Iterable[Cell | Trunk]) -> list[str]:
    """The learning rates that cells and trunks wait for, each once."""
    searching = [each for each in trained if config.recipe(each.dataset, each.backbone).searches]
    return list(dict.fromkeys(f"results/rates/{each.rate_path}" for each in searching))


def teachers(config: Config, **place: str) -> list[Cell]:
    """The cell that a distilled one learns from: the unpruned network."""
    cell = cell_of(**place)
    return [cell.baseline] if protocols.plain(cell.protocol) == protocols.DISTILLED else []


def moments(config: Config, **place: str) -> list[str]:
    """The manifest of the moments that a cell, or a trunk, is repaired by; none for one that measures its own."""
    if "init" in place:
        cell = cell_of(**place)
        images, repairs = cell.images(config.folds), () if cell.alternates else protocols.repairs(cell.protocol)
    else:
        trunk = grid.parse_trunk(TRUNK.format(**place))
        images, repairs = place["dataset"], trunk.repairs if trunk.share else ()
    looks = protocols.COMPENSATED in repairs or protocols.RECALIBRATED in repairs
    return [f"results/statistics/{images}/{place['backbone']}/moments.json"] * looks


def moments_arrays(config: Config, **place: str) -> list[str]:
    """The moments themselves, beside the manifest."""
    return arrays(moments(config, **place))


def prices(config: Config, dataset: str, backbone: str, scope: str, **place: str) -> list[str]:
    """What a mask's budget is kept by; none where the scope is none."""
    folder = f"results/prices/{grid.parse_images(dataset)[0]}/{backbone}"
    return [f"{folder}/{BUDGETS[scope]}.json"] if scope in BUDGETS else []


def prices_between(config: Config, **place: str) -> list[str]:
    """The same for a trunk, and for a cell that makes its own masks; none for one that is given its mask."""
    return prices(config, **place) if "share" in place or cell_of(**place).alternates else []


def masks(cells: Iterable[Cell], folds: Folds) -> list[str]:
    """The masks of cells, each once."""
    return list(dict.fromkeys(f"results/masks/{cell.mask_path(folds)}" for cell in cells if cell.masked))


def scores_of(cells: Iterable[Cell], folds: Folds) -> list[str]:
    """The scores that masks of cells were made from, each once."""
    return list(dict.fromkeys(f"results/scores/{cell.scores_path(folds)}" for cell in cells if cell.masked))


def activations(cells: Iterable[Cell], folds: Folds) -> list[str]:
    """The manifests of activation statistics of each data set and backbone that has a cell with a mask."""
    places = dict.fromkeys((grid.first_images(cell.dataset, folds), cell.backbone) for cell in cells if cell.masked)
    return [f"results/statistics/{images}/{backbone}/activations.json" for images, backbone in places]


def manifests(cells: Iterable[Cell]) -> list[str]:
    """The manifests of the cells' data sets."""
    return [f"results/datasets/{name}/manifest.json" for name in dict.fromkeys(cell.dataset for cell in cells)]


def stored(cells: Iterable[Cell], folds: Folds) -> list[str]:
    """The images of the cells' data sets and their indices, which lie beside the manifests."""
    folders = (manifest.removesuffix("manifest.json") for manifest in manifests(cells))
    return [f"{folder}{name}" for folder in folders for name in ("images.npy", "index.parquet")]


def only_splits(cells: Iterable[Cell], folds: Folds) -> list[str]:
    """The splits of those of the cells' data sets that have one."""
    return [split(name, None) for name in dict.fromkeys(cell.dataset for cell in cells) if name not in folds]


def looks_at_activations(config: Config, experiment: str) -> bool:
    """Whether one of an experiment's cells has a mask by a criterion that does, screened out or not."""
    cells = grid.cells(config.experiments[experiment].model_dump())
    return any(CRITERIA[grid.parse_source(cell.criterion)[0]].needs == "activations" for cell in cells if cell.masked)


def finished(cells: Iterable[Cell], keep: bool) -> list[str]:
    """The files of finished cells and, where they are kept, of their networks."""
    paths = [cell.path for cell in cells]
    kept = MODEL_FILES if keep else ()
    return [f"results/cells/{path}/{name}" for path in paths for name in CELL_FILES] + [
        f"results/models/{path}/{name}" for path in paths for name in kept
    ]


def answers(experiment: str, folders: bool = True) -> list[str]:
    """An experiment's summary, verdict, figures and report; without `folders`, files alone."""
    files = ["summary.parquet", "recommendation.json", "figures.json", "report.html"] + ["figures"] * folders
    return [f"results/experiments/{experiment}/{file}" for file in files]
