"""The grid: an experiment's cells, which of them are one and the same, and where each thing lies.

A cell is (dataset, backbone, criterion, scope, ratio, init, seed, protocol). Cells that must come out equal are one
cell:

* ratio 0 is the unpruned baseline, whatever the criterion, scope and protocol: criterion ``unpruned``, scope ``none``;
  only ``short_N`` has its own, since it is trained for less, and what begins with a fitted last layer, since that is as
  good a beginning for an unpruned network. There is nothing else to repair;
* random weights tell nothing, trained or not, about which filters matter: protocols that train before they prune are
  ``one_shot`` to them, and there is nothing to repair;
* a criterion with the statistics of the cell's own data set, ``apoz@digits`` on digits, is the plain criterion;
* by layer, every criterion keeps the same number of filters a layer, and random weights forget which ones, so these
  cells are one whatever the criterion: criterion ``any``.

Where a recipe leaves the learning rate to a search, that is one for each shape of training and not for each cell: of
the network that ``mean_activation`` leaves, pruned at once and repaired alike, trained with seed 0, and so on the first
fold. Criteria and seeds are compared with one rate; this criterion leaves networks that train, whatever the scope,
where ``average_weight`` has cut a layer to nothing. Cells that learn from a teacher, or in phases, or for less, have
the rate of their ratio; a trunk has that of its own share.

Where a data set has K folds, a cell of seed s is judged on fold s mod K and trained on other images. What looks at
training images lies below ``photos~2`` then, in place of ``photos``: statistics, scores, masks and trunks.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

from winnow.training import protocols
from winnow.training.protocols import EQUAL_FLOPS, ONE_SHOT

UNPRUNED = "unpruned"
MEAN_ACTIVATION = "mean_activation"
NO_SCOPE = "none"
ANY = "any"
RANDOM = "random"
# What the names of controls are made with: reversed_apoz removes the best first; apoz@flowers102 is apoz on the images
# of flowers102, whatever the cell's data set.
REVERSED = "reversed_"
FOREIGN = "@"
# In place of a list of seeds: one to choose with, and as many as it takes to judge; of a recipe's name: one that is
# built in.
AUTO = "auto"
# Of so many trainings that judge a network of a grid that grows, the first, the best on validation is taken home.
TAKEN = 3
# Parts a data set's name and the number of a fold.
FOLD = "~"

# Data set → how many folds it has; one that has none is not in it.
Folds = Mapping[str, int]


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Cell:
    """One network to fine-tune and judge. ``ratio`` is the requested share to remove, in [0, 1): of filters, or, where
    the scope is a budget, of what the network costs."""

    dataset: str
    backbone: str
    criterion: str
    scope: str
    ratio: float
    round_to: int | None
    init: str
    seed: int
    protocol: str = ONE_SHOT

    @property
    def mask_criterion(self) -> str:
        """The criterion as a path component: the control ``random`` draws one mask a seed."""
        return f"{RANDOM}~{self.seed}" if self.criterion == RANDOM else self.criterion

    @property
    def ratio_text(self) -> str:
        """The ratio as a path component: three decimals, and ``~16`` where kept counts are rounded to 16."""
        return f"{self.ratio:.3f}" + (f"~{self.round_to}" if self.round_to else "")

    @property
    def init_text(self) -> str:
        """Init and protocol as a path component: ``inherited``, ``inherited~compensated_iterative_3``."""
        return self.init + (f"~{self.protocol}" if self.protocol != ONE_SHOT else "")

    @property
    def alternates(self) -> bool:
        """Whether the cell prunes what it has trained, and so makes its mask itself."""
        return protocols.alternates(self.protocol)

    @property
    def masked(self) -> bool:
        """Whether the cell begins with a mask: not the unpruned one, nor one that makes its own."""
        return self.criterion != UNPRUNED and not self.alternates

    def fold(self, folds: Folds) -> int | None:
        """The fold that judges the cell; None where its data set has none."""
        return self.seed % folds[self.dataset] if self.dataset in folds else None

    def images(self, folds: Folds) -> str:
        """The images that the cell trains on, as a path component: see :func:`images`."""
        return images(self.dataset, self.fold(folds))

    def scores_path(self, folds: Folds) -> str | None:
        """Path of what the cell's mask is made from, below ``results/scores/``; None where there is no mask."""
        return f"{self.images(folds)}/{self.backbone}/{self.mask_criterion}.parquet" if self.masked else None

    def mask_path(self, folds: Folds) -> str | None:
        """Path of the cell's mask below ``results/masks/``; None where there is none."""
        name = f"{self.mask_criterion}/{self.scope}/{self.ratio_text}"
        return f"{self.images(folds)}/{self.backbone}/{name}.parquet" if self.masked else None

    @property
    def path(self) -> str:
        """The cell's folder below ``results/cells/``."""
        mask = f"{self.mask_criterion}/{self.scope}/{self.ratio_text}"
        return f"{self.dataset}/{self.backbone}/{mask}/{self.init_text}/{self.seed}"

    @property
    def searched(self) -> Cell:
        """The cell whose short trainings find this one's learning rate, where its recipe leaves that to a search."""
        criterion = self.criterion if self.criterion == UNPRUNED else MEAN_ACTIVATION
        protocol = protocols.repaired(protocols.repairs(self.protocol), ONE_SHOT)
        return canonical(dataclasses.replace(self, criterion=criterion, seed=0, protocol=protocol))

    @property
    def rate_path(self) -> str:
        """Path of the cell's learning rate below ``results/rates/``, where it is searched: its seed is 0."""
        return f"{self.searched.path.rpartition('/')[0]}/rate.json"

    @property
    def latency(self) -> str | None:
        """Path, below ``results/latency/``, of the latency of a network of the cell's widths.

        By layer the widths are the same whatever the criterion and protocol: the mask of ``any`` stands for all.
        Elsewhere nobody knows them before a cell that makes its own mask has finished: None. Folds differ in them
        globally, though hardly: the first one's mask stands for all.
        """
        if self.alternates and self.scope != "layer":
            return None
        criterion = ANY if self.scope == "layer" else self.mask_criterion
        return f"{self.dataset}/{self.backbone}/{criterion}/{self.scope}/{self.ratio_text}.json"

    @property
    def baseline(self) -> Cell:
        """The unpruned network with inherited weights, fine-tuned with the same recipe, budget and seed."""
        return canonical(dataclasses.replace(self, ratio=0.0, init="inherited"))

    def baseline_of(self, backbone: str) -> Cell:
        """The same of a backbone: another one's than the cell's where that is a control: see :func:`beside`."""
        return dataclasses.replace(self.baseline, backbone=backbone)


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Trunk:
    """What cells begin with that prune what they have trained: a first mask, and so many epochs under it.

    Attributes
    ----------
    fold : int or None
        That does not train it.
    criterion : str
        As a path component; ``unpruned`` where training comes first.
    share : Fraction
        Of filters that the first mask removes.
    repairs : tuple of str
        What is repaired before the first epoch.
    """

    dataset: str
    fold: int | None
    backbone: str
    criterion: str
    scope: str
    share: Fraction
    round_to: int | None
    epochs: int
    seed: int
    repairs: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The trunk's folder below ``results/trunks/``."""
        share = str(self.share).replace("/", "_") + (f"~{self.round_to}" if self.round_to else "")
        share += f"~{'_'.join(self.repairs)}" if self.repairs else ""
        place = f"{images(self.dataset, self.fold)}/{self.backbone}/{self.criterion}/{self.scope}"
        return f"{place}/{share}/{self.epochs}/{self.seed}"

    @property
    def rate_path(self) -> str:
        """Path of the trunk's learning rate: that of a network of its share, to three decimals, pruned at once."""
        place = self.dataset, self.backbone, self.criterion, self.scope, round(float(self.share), 3), self.round_to
        return Cell(*place, "inherited", self.seed, protocols.repaired(self.repairs, ONE_SHOT)).rate_path


def trunk(cell: Cell, epochs: int, folds: Folds) -> Trunk | None:
    """What a cell begins with whose recipe has so many epochs; None for a cell of one phase."""
    if not cell.alternates:
        return None
    share, length = protocols.phases(cell.protocol, cell.ratio, epochs)[0]
    pruned = (cell.mask_criterion, cell.scope, share, cell.round_to) if share else (UNPRUNED, NO_SCOPE, share, None)
    # Where nothing is cut yet there is nothing to repair, but a beginning for the last layer.
    repairs = tuple(name for name in protocols.repairs(cell.protocol) if share or name == protocols.FITTED)
    return Trunk(cell.dataset, cell.fold(folds), cell.backbone, *pruned, length, cell.seed, repairs)


def parse_trunk(path: str) -> Trunk:
    """Read the folder that :attr:`Trunk.path` writes.

    Raises
    ------
    ValueError
        If no trunk has such a path.
    """
    place, backbone, criterion, scope, start, epochs, seed = path.split("/")
    text, *more = start.split("~")
    round_to = int(more.pop(0)) if more and more[0].isdigit() else None
    repairs = protocols.repairs(more[0]) if more else ()
    share = Fraction(text.replace("_", "/"))
    found = Trunk(*parse_images(place), backbone, criterion, scope, share, round_to, int(epochs), int(seed), repairs)
    if found.path != path:
        raise ValueError(f"{path!r} is no trunk's path")
    return found


def images(dataset: str, fold: int | None) -> str:
    """Which images train, as a path component: ``photos``, or ``photos~2`` for those that fold 2 does not judge."""
    return dataset if fold is None else f"{dataset}{FOLD}{fold}"


def parse_images(text: str) -> tuple[str, int | None]:
    """Read the path component that :func:`images` writes: data set and fold."""
    dataset, _, fold = text.partition(FOLD)
    return dataset, int(fold) if fold else None


def first_images(dataset: str, folds: Folds) -> str:
    """The images that stand for a data set where one has to, whatever the seed: those of its first fold."""
    return images(dataset, 0 if dataset in folds else None)


def is_control(criterion: str) -> bool:
    """Whether a criterion is there to be beaten, not chosen: random, reversed, or on another data set's images."""
    return criterion == RANDOM or criterion.startswith(REVERSED) or FOREIGN in criterion


def parse_source(criterion: str) -> tuple[str, str | None]:
    """Part ``apoz@flowers102`` into the criterion and the data set whose statistics it takes; None: the cell's own."""
    name, at, dataset = criterion.partition(FOREIGN)
    return name, dataset if at else None


def canonical(cell: Cell) -> Cell:
    """The one cell that stands for all that must come out equal to ``cell``."""
    if cell.init == "random":
        cell = dataclasses.replace(cell, protocol=protocols.plain(cell.protocol))
    if cell.ratio == 0:
        protocol = protocols.whole(cell.protocol)
        return dataclasses.replace(cell, criterion=UNPRUNED, scope=NO_SCOPE, round_to=None, protocol=protocol)
    repairs, protocol = protocols.parted(cell.protocol)
    if cell.alternates if cell.init == "random" else protocol == EQUAL_FLOPS:
        cell = dataclasses.replace(cell, protocol=protocols.repaired(repairs, ONE_SHOT))
    name, source = parse_source(cell.criterion)
    if source == cell.dataset:
        cell = dataclasses.replace(cell, criterion=name)
    if cell.init == "random" and cell.scope == "layer":
        return dataclasses.replace(cell, criterion=ANY)
    return cell


# Of which backbones a cell is a network.
Beside = Callable[[Cell], tuple[str, ...]]


def own(cell: Cell) -> tuple[str, ...]:
    """The backbone that a cell's network comes from."""
    return (cell.backbone,)


def beside(experiment: Mapping[str, Any]) -> Beside:
    """Of which of an experiment's backbones a cell is a network: its own, or, of a control, those it is held against.

    A control is a further backbone, whose unpruned network stands beside those that are pruned from a larger one.
    """
    backbones, controls = experiment["backbones"], experiment.get("controls", ())

    def found(cell: Cell) -> tuple[str, ...]:
        whole = cell.backbone in controls and (cell.criterion, cell.init) == (UNPRUNED, "inherited")
        return tuple(name for name in backbones if name == cell.backbone or whole)

    return found


def controls(experiment: Mapping[str, Any], seed: int) -> list[Cell]:
    """The unpruned networks of an experiment's controls, each with one seed, fitted if any network is."""
    names = itertools.product(experiment["datasets"], experiment.get("controls", ()))
    asked = [protocols.whole(name) for name in experiment.get("repairs", ())]
    protocol = protocols.FITTED if protocols.FITTED in asked else ONE_SHOT
    return [Cell(*place, UNPRUNED, NO_SCOPE, 0.0, None, "inherited", seed, protocol) for place in names]


def seeds(experiment: Mapping[str, Any]) -> tuple[int, ...]:
    """The seeds that every network of a grid is trained with: of one that grows, the first alone."""
    if experiment["seeds"] == AUTO:
        return (experiment.get("first_seed", 0),)
    return tuple(experiment["seeds"])


def cells(experiment: Mapping[str, Any]) -> list[Cell]:
    """An experiment's cells, canonical, without repetition, baselines first; of a grid that grows, those of its seed.

    Parameters
    ----------
    experiment
        The grid's axes as in ``config.yaml``: ``datasets``, ``backbones``, ``criteria``, ``scopes``, ``ratios``,
        ``inits``, ``seeds`` and, optionally, ``controls``, ``protocols``, ``repairs``, ``scratch_budget`` and
        ``round_to``. The baselines belong to every grid, asked for or not.
    """
    axes = ("datasets", "backbones", "criteria", "scopes", "ratios", "inits")
    values = [*(experiment[axis] for axis in axes), seeds(experiment), experiment.get("protocols", (ONE_SHOT,))]
    values.append(experiment.get("repairs", (protocols.NO_REPAIR,)))
    round_to = experiment.get("round_to")
    grid = [
        canonical(
            Cell(
                dataset, backbone, criterion, scope, ratio, round_to, init, seed, protocols.repaired(repairs, protocol)
            )
        )
        for dataset, backbone, criterion, scope, ratio, init, seed, protocol, repairs in itertools.product(*values)
    ]
    if experiment.get("scratch_budget") == EQUAL_FLOPS:
        grid = [
            canonical(dataclasses.replace(cell, protocol=EQUAL_FLOPS))
            if (cell.init, cell.protocol) == ("random", ONE_SHOT)
            else cell
            for cell in grid
        ]
    baselines = {cell.baseline: None for cell in grid}
    beside_them = [cell for seed in seeds(experiment) for cell in controls(experiment, seed)]
    return list(baselines | dict.fromkeys([*beside_them, *grid]))


def latencies(experiment: Mapping[str, Any], among: Iterable[Cell]) -> list[str]:
    """The files of an experiment's latencies below ``results/latency/``; none unless its ``latency`` is set.

    ``among`` are its cells: all of :func:`cells`, or those that a grid has grown.

    The control's widths differ by seed globally, though hardly: its first seed stands for all.
    """
    if not experiment.get("latency"):
        return []
    first: dict[Cell, Cell] = {}
    for cell in among:
        network = dataclasses.replace(cell, seed=0)
        first[network] = min(first.get(network, cell), cell, key=lambda cell: cell.seed)
    return list(dict.fromkeys(cell.latency for cell in first.values() if cell.latency))


def parse_ratio(text: str) -> tuple[float, int | None]:
    """Read the path component that :attr:`Cell.ratio_text` writes: ratio and ``round_to``."""
    ratio, _, round_to = text.partition("~")
    return float(ratio), int(round_to) if round_to else None


def parse_criterion(text: str) -> tuple[str, int | None]:
    """Read the path component that :attr:`Cell.mask_criterion` writes: criterion and, for ``random``, its seed."""
    criterion, _, seed = text.partition("~")
    return criterion, int(seed) if seed else None


def parse_init(text: str) -> tuple[str, str]:
    """Read the path component that :attr:`Cell.init_text` writes: init and protocol."""
    init, _, protocol = text.partition("~")
    return init, protocol or ONE_SHOT


def parse_path(path: str) -> Cell:
    """Read the folder that :attr:`Cell.path` writes.

    Raises
    ------
    ValueError
        If no cell has such a path.
    """
    dataset, backbone, criterion, scope, ratio, start, seed = path.split("/")
    init, protocol = parse_init(start)
    cell = Cell(dataset, backbone, parse_criterion(criterion)[0], scope, *parse_ratio(ratio), init, int(seed), protocol)
    if cell.path != path:
        raise ValueError(f"{path!r} is no cell's path")
    return cell


def keeps(experiments: Iterable[Mapping[str, Any]]) -> Callable[[Cell], bool]:
    """Whether a cell's network is kept when it is trained.

    An experiment with ``models: keep`` keeps all of them, of a grid that grows whatever the seed. Of any other grid
    that grows those stay that may be taken home (:data:`TAKEN`): only the best networks are trained with these seeds.
    Where a grid with a list of seeds has such a cell too, it would be all of that grid's networks: they go.
    """
    whole: set[Cell] = set()
    listed: set[Cell] = set()
    growing: set[Cell] = set()
    taken: dict[Cell, set[int]] = {}
    for experiment in experiments:
        found, keep = cells(experiment), experiment["models"] == "keep"
        if experiment["seeds"] != AUTO:
            (whole if keep else listed).update(found)
            continue
        networks = [dataclasses.replace(cell, seed=0) for cell in found]
        if keep:
            growing.update(networks)
        for network in networks:
            taken.setdefault(network, set()).update(taken_seeds(experiment))

    def kept(cell: Cell) -> bool:
        network = dataclasses.replace(cell, seed=0)
        if cell in whole or network in growing:
            return True
        return cell.seed in taken.get(network, ()) and cell not in listed

    return kept


def taken_seeds(experiment: Mapping[str, Any]) -> range:
    """Of a grid that grows, the seeds of those trainings of which one is taken home."""
    (first,) = seeds(experiment)
    return range(first + 1, first + 1 + TAKEN)
