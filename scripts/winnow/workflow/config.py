"""What ``config.yaml`` may say. Everything is checked before any job starts; an error names the key, what was given and
what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from winnow.data.archives import Archive, archives
from winnow.files import InputError
from winnow.importance.criteria import CRITERIA
from winnow.importance.scopes import Scope
from winnow.networks import published, zoo
from winnow.networks.architectures import NAMES as ARCHITECTURES
from winnow.training import protocols, rates
from winnow.workflow import grid

SOURCES = ("digits", "flowers102", "cats_vs_dogs", "elpv", "elpv_grades", "folder")
# "any" stands for by-layer cells with random weights (see winnow.workflow.grid), it is nobody's criterion.
CRITERION_NAMES = tuple(name for name in CRITERIA if name != "any")

# Names become path components, rule names and wildcards.
NAME = r"^[A-Za-z][A-Za-z0-9_-]*$"
Name = Annotated[str, StringConstraints(pattern=NAME)]
# The folder of downloaded weights, beside those of the data sets' archives.
WEIGHTS = "weights"
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0)]
# A list, or `auto`: a union whose errors are of the one that was meant.
Seeds = Annotated[
    Annotated[Literal["auto"], Tag("literal[auto]")]
    | Annotated[tuple[Seed, ...], Field(min_length=1), Tag("tuple[seeds]")],
    Discriminator(lambda value: "literal[auto]" if isinstance(value, str) else "tuple[seeds]"),
]


def _number_or_auto(value: Any) -> Any:
    if isinstance(value, str) and value != rates.AUTO:
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{value!r} is not allowed; allowed: a number above 0, or {rates.AUTO}") from None
    return value


# A number, or `auto`: a search finds it. Errors are of the branch that was meant.
LearningRate = Annotated[
    Annotated[Literal["auto"], Tag("literal[auto]")] | Annotated[float, Field(gt=0), Tag("constrained-float")],
    Discriminator(lambda value: "literal[auto]" if value == rates.AUTO else "constrained-float"),
    BeforeValidator(_number_or_auto),
]


def _boolean_or_both(value: Any) -> Any:
    if not isinstance(value, bool) and value != "both":
        raise ValueError(f"{value!r} is not allowed; allowed: true, false, both")
    return value


Flip = Annotated[bool | Literal["both"], BeforeValidator(_boolean_or_both)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_of(value: str, allowed: Iterable[str], kind: str) -> str:
    if value not in allowed:
        near = difflib.get_close_matches(str(value), list(allowed), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown {kind} {value!r}{hint}; allowed: {', '.join(sorted(allowed)) or 'none is defined'}")
    return value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = [value for position, value in enumerate(values) if value in values[:position]]
    if repeated:
        raise ValueError(f"{repeated[0]!r} stands twice")
    return values


class Augmentation(_Model):
    """Random resized crop and flip of the training images."""

    scale: tuple[float, float] = (0.35, 1.0)
    """Share of the image's area that a crop covers, drawn uniformly."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Aspect ratio of a crop, drawn log-uniformly."""
    flip: Flip = True
    """Mirror every other image, left to right; ``both`` for top to bottom too, where no side is up."""

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {list(self.scale)} is not within (0, 1], lower bound first")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {list(self.ratio)} is not above 0, lower bound first")
        return self


class Distillation(_Model):
    """How ``distilled`` learns from the unpruned network: see :class:`winnow.training.distillation.Teacher`."""

    temperature: Annotated[float, Field(gt=0)] = 4.0
    """What the teacher's logits are divided by: the larger, the softer is what it says."""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of the comparison; the labels have the rest."""


class Recipe(_Model):
    """How a network is trained."""

    epochs: Positive
    batch_size: Positive
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: LearningRate
    """``auto``: short trainings of each size of network find it, see :mod:`winnow.training.rates`."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """How long a step's gradient, over all parameters, may be; a longer one is cut to that length."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: Augmentation | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    evaluate_every: Positive = 1
    sampling: Literal["uniform", "balanced"] = "uniform"
    """``balanced``: an epoch has as many images of each class, those of rare ones several times."""
    distillation: Distillation = Distillation()

    @model_validator(mode="after")
    def _warmup_fits(self) -> Recipe:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} leaves nothing of {self.epochs} epochs")
        return self

    @property
    def searches(self) -> bool:
        """Whether the learning rate is left to a search."""
        return self.learning_rate == rates.AUTO

    def used(self, distilled: bool = False) -> dict[str, Any]:
        """What a training depends on."""
        unused = {"distillation"} if not distilled else set()
        unused |= {"sampling"} if self.sampling == "uniform" else set()
        return self.model_dump(exclude=unused | ({"clip_norm"} if self.clip_norm is None else set()))


# For some hundred to some thousand images and a network that was pretrained.
BUILT_IN = {
    "epochs": 20,
    "batch_size": 16,
    "learning_rate": rates.AUTO,
    "weight_decay": 0.0005,
    "warmup_epochs": 1,
    "clip_norm": 5.0,
    "augmentation": {"scale": (0.35, 1.0)},
}


class Split(_Model):
    """Shares of each class's images; the rest is for training."""

    val: Annotated[float, Field(ge=0, lt=1)] = 0.15
    test: Share = 0.15

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val:g} and test {self.test:g} leave nothing to train on")
        return self


class MirrorUrl(_Model):
    """An archive elsewhere, with other content than the official one."""

    url: str
    digest: Annotated[str, StringConstraints(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")]


class Table(_Model):
    """Where the labels of a folder of images are listed; what is not said is guessed."""

    path: str | None = None
    """From the folder: CSV, TSV or Parquet."""
    file: str | None = None
    """The column that names the images; then those of labels, of parts and of groups."""
    label: str | None = None
    split: str | None = None
    group: str | None = None


class Splits(_Model):
    """Which of a folder's folders are which part: paths or patterns, such as ``*/training``."""

    train: str | tuple[str, ...] | None = None
    val: str | tuple[str, ...] | None = None
    test: str | tuple[str, ...] | None = None


class Dataset(_Model):
    """A labelled image set and how it is stored."""

    source: str
    recipe: Name | dict[Name, Name] | None = None
    """The recipe that trains on it, or one a backbone; ``auto``: one that is built in, or one's own of that name."""
    store_size: Positive
    """Side of the stored squares, in pixels."""
    image_size: Positive
    """Side of what a network sees, in pixels; at most ``store_size``."""
    path: str | None = None
    classes: tuple[Annotated[int, Field(ge=0, le=9)], ...] | None = None
    train_per_class: Positive | None = None
    val_per_class: Positive | None = None
    train_on: Literal["train", "train+val"] = "train"
    split: Split | None = None
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """In how many parts the images are cut, of which each judges once: the seed says which."""
    seed: Annotated[int, Field(ge=0)] = 0
    urls: dict[str, str | MirrorUrl] = {}
    splits: Splits | None = None
    """The folders that are parts; ``{}``: none is, whatever its name. Without it they are known by their names."""
    ignore: tuple[str, ...] = ()
    """Files and folders that are left out: names, or paths from the folder, or patterns of them."""
    table: str | Literal[False] | Table | None = None
    """Where labels are listed; false: nowhere. Without it a table beside the images is looked for."""
    group: str | None = None
    """A regular expression that finds in an image's path what stays together in one part: a patient, a scene."""
    range: tuple[float, float] | None = None
    """Values that become black and white, of pixels of more than 8 bits; without it they are found over the images."""
    channels: Literal[1, 3] = 3
    """1: images are stored gray, for backbones that take one channel, or three times the same."""
    megapixels: Annotated[float, Field(gt=0)] | None = None
    """How large an image may be, in millions of pixels; a larger one is skipped."""

    @field_validator("range")
    @classmethod
    def _ordered_range(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and not value[0] < value[1]:
            raise ValueError(f"range {list(value)} does not go up")
        return value

    @field_validator("group")
    @classmethod
    def _regular(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        return value

    @field_validator("source")
    @classmethod
    def _known_source(cls, value: str) -> str:
        return _one_of(value, SOURCES, "source")

    @model_validator(mode="after")
    def _fits_its_source(self) -> Dataset:
        if self.image_size > self.store_size:
            raise ValueError(f"image_size {self.image_size} is larger than store_size {self.store_size}")
        takes = {
            "path": ("folder",),
            "classes": ("digits",),
            "val_per_class": ("digits", "elpv", "elpv_grades"),
            **dict.fromkeys(("split", "folds"), ("digits", "cats_vs_dogs", "elpv", "elpv_grades", "folder")),
            "urls": ("flowers102", "cats_vs_dogs"),
            **dict.fromkeys(("splits", "ignore", "table", "group", "range"), ("folder",)),
        }
        for key, sources in takes.items():
            if getattr(self, key) not in (None, (), {}) and self.source not in sources:
                raise ValueError(f"{key} is for the source {' or '.join(sources)}, not for {self.source!r}")
        if self.source == "folder" and not self.path:
            raise ValueError("the source 'folder' needs a path")
        if self.folds and self.split:
            if "test" in self.split.model_fields_set:
                raise ValueError("split.test is for one split, with folds each of them is a test: remove it")
            if self.split.val + 1 / self.folds >= 1:
                raise ValueError(f"split.val {self.split.val:g} and 1 of {self.folds} folds leave nothing to train on")
        return self


class Pretraining(_Model):
    """Train the backbone here, as a stage of the workflow, instead of loading weights."""

    dataset: Name
    recipe: Name
    seed: Annotated[int, Field(ge=0)] = 0


class Backbone(_Model):
    """A network and where its weights come from: exactly one of ``weights``, ``weights_file`` and ``pretrain``."""

    architecture: str | None = None
    """One of torchvision's, or ``timm/`` and one of timm's."""
    factory: Annotated[str, StringConstraints(pattern=r"^.+\.py:[A-Za-z_]\w*$")] | None = None
    """A network of one's own instead: ``path/module.py:Function``, which is called with the number of classes."""
    head: Literal["classifier", "gap"] = "classifier"
    weights: str | None = None
    """A member of torchvision's weights enum, such as IMAGENET1K_V1, the tag of timm's weights, such as a1_in1k, or
    ``random``."""
    weights_file: str | None = None
    """A state dict: a .pt or .pth file that loads with ``weights_only=True``, or a .safetensors file; one of an
    installed package is ``package:NAME/path``."""
    weights_url: str | None = None
    """Where to download these weights from, instead of the official address: one for all backbones that have them."""
    pretrain: Pretraining | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """One a channel: three, or one for a network that takes gray images. Of timm's networks timm says them."""
    std: tuple[Annotated[float, Field(gt=0)], ...] = (0.229, 0.224, 0.225)
    min_filters: Positive = 1

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, value: str | None) -> str | None:
        if value is None or not zoo.is_name(value):
            return value if value is None else _one_of(value, ARCHITECTURES, "architecture")
        try:
            zoo.check(value)
        except InputError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="before")
    @classmethod
    def _as_timm_says(cls, values: Any) -> Any:
        """Mean and standard deviation of timm's images where none are given. What is wrong is said elsewhere."""
        try:
            found = cls._timm(values["architecture"], values.get("weights"))
        except (InputError, KeyError, TypeError, AttributeError):
            return values
        return {"mean": found.mean, "std": found.std} | values if found else values

    @staticmethod
    def _timm(architecture: str | None, weights: str | None) -> zoo.Configuration | None:
        if architecture is None or not zoo.is_name(architecture):
            return None
        return zoo.configuration(architecture, zoo.DEFAULT if weights in (None, "random") else weights)

    @model_validator(mode="after")
    def _one_origin(self) -> Backbone:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError(
                f"mean has {len(self.mean)} values and std {len(self.std)}: allowed are three each, or one each"
            )
        if (self.architecture is None) == (self.factory is None):
            raise ValueError("exactly one of architecture and factory is needed")
        if self.factory and self.weights not in (None, "random"):
            raise ValueError(f"weights {self.weights!r} are torchvision's: a factory's come from a weights_file")
        given = [key for key in ("weights", "weights_file", "pretrain") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of weights, weights_file and pretrain is needed, given: {given or 'none'}")
        if self.weights_url and self.weights in (None, "random"):
            raise ValueError("weights_url needs weights: the name of the enum's member that it serves")
        if self._published:
            try:
                published.check_images(*self._published, self.mean, self.std)
            except InputError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def network(self) -> str:
        """What the network is called: its architecture, or the factory that makes it."""
        return self.architecture or str(self.factory)

    @property
    def _published(self) -> tuple[str, str] | None:
        """Architecture and name of weights that others have published; None of those that are one's own or drawn."""
        if self.architecture is None or self.weights is None or self.weights == "random":
            return None
        return self.architecture, self.weights

    @property
    def timm(self) -> zoo.Configuration | None:
        """What timm says of the network and its weights; None of those that are not timm's."""
        return self._timm(self.architecture, self.weights)

    @property
    def download(self) -> Archive | None:
        """The file of weights that is downloaded, from the mirror if there is one; None if none is."""
        if self._published is None:
            return None
        file = published.weights(*self._published).file
        return dataclasses.replace(file, url=self.weights_url or file.url)


class Budget(_Model):
    """What a network may take at most: exactly one of its measures."""

    macs: Limit | None = None
    params: Limit | None = None
    bytes: Limit | None = None
    latency_ms: Limit | None = None

    @model_validator(mode="after")
    def _one_measure(self) -> Budget:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(type(self).model_fields)} is needed, given: {given or 'none'}")
        return self


class Experiment(_Model):
    """A named grid. Its baselines (ratio 0, inherited weights) belong to it, asked for or not."""

    datasets: Annotated[tuple[Name, ...], Field(min_length=1)]
    backbones: Annotated[tuple[Name, ...], Field(min_length=1)]
    controls: tuple[Name, ...] = ()
    """Further, smaller backbones: their unpruned networks are compared and judged as the pruned ones are."""
    criteria: Annotated[tuple[str, ...], Field(min_length=1)]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    ratios: Annotated[tuple[float, ...], Field(min_length=1)]
    inits: Annotated[tuple[Literal["inherited", "random"], ...], Field(min_length=1)] = ("inherited",)
    repairs: Annotated[tuple[str, ...], Field(min_length=1)] = (protocols.NO_REPAIR,)
    """What is repaired after a cut, before any training: ``none``, ``compensated``, ``recalibrated``, ``fitted``, or
    several in this order, ``compensated_fitted``: see :mod:`winnow.training.protocols`."""
    protocols: Annotated[tuple[str, ...], Field(min_length=1)] = (protocols.ONE_SHOT,)
    """In which order networks are pruned and trained: see :mod:`winnow.training.protocols`."""
    scratch_budget: Literal["equal_epochs", "equal_flops"] = "equal_epochs"
    """What random weights are trained for: the recipe's epochs, or as many operations as those take unpruned."""
    seeds: Seeds
    """Those that every network is trained with; or ``auto``: one to choose with, and for those that are worth it as
    many fresh ones as it takes to judge them: see :mod:`winnow.answers.growth`."""
    first_seed: Seed = 0
    """The one that ``auto`` chooses with; those that judge come after it."""
    round_to: Literal[8, 16, 32] | None = None
    """Kept counts are rounded to multiples of it, which a processor multiplies faster: docs/performance.md."""
    models: Literal["keep", "drop"] = "drop"
    """Whether every network is kept. A grid that grows keeps those that may be taken home in any case."""
    latency: bool = False
    """Whether to time the networks, which takes the whole machine for a while."""
    screening: bool = False
    """Whether short trainings choose, not full ones; with ``seeds: auto``."""
    measure: Literal["macs", "params", "bytes", "latency_ms"] = "macs"
    """What the network that is taken home is the smallest by."""
    budget: Budget | None = None
    """What it may take at most: then the most accurate one within is asked for, not the smallest."""

    @field_validator(
        "datasets", "backbones", "controls", "criteria", "scopes", "ratios", "inits", "protocols", "repairs", "seeds"
    )
    @classmethod
    def _no_repetition(cls, values: tuple[Any, ...] | str) -> tuple[Any, ...] | str:
        return values if isinstance(values, str) else _distinct(values)

    @field_validator("criteria")
    @classmethod
    def _known_criteria(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            name, source = grid.parse_source(value)
            _one_of(name, CRITERION_NAMES, "criterion")
            if source is not None and CRITERIA[name].needs not in ("activations", "gradients"):
                raise ValueError(f"criterion {value!r}: {name} looks at no images, of {source!r} or any other data set")
        return values

    @field_validator("protocols")
    @classmethod
    def _known_protocols(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            _one_of(value, protocols.CHOICES, "protocol")
        return values

    @field_validator("repairs")
    @classmethod
    def _known_repairs(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            _one_of(value, protocols.REPAIR_CHOICES, "repair")
        return values

    @field_validator("ratios")
    @classmethod
    def _ratios_in_range(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        for value in values:
            if not 0 <= value < 1:
                raise ValueError(f"ratio {value:g} is outside [0, 1)")
            if round(value, 3) != value:
                raise ValueError(f"ratio {value!r} has more than three decimals, which is what paths carry")
        return values

    @property
    def networks(self) -> tuple[str, ...]:
        """The backbones that it trains: those that are pruned, and controls."""
        return tuple(dict.fromkeys([*self.backbones, *self.controls]))

    @property
    def asks_for(self) -> tuple[str, float | None]:
        """The measure that networks are ordered by, and what they may take at most; None without a budget."""
        limits = self.budget.model_dump(exclude_none=True) if self.budget else {self.measure: None}
        return next(iter(limits.items()))

    @model_validator(mode="after")
    def _something_to_choose(self) -> Experiment:
        if self.seeds != grid.AUTO:
            if self.screening:
                raise ValueError(f"screening goes with seeds: {grid.AUTO}, not with a list of them")
            if self.first_seed:
                raise ValueError(f"first_seed goes with seeds: {grid.AUTO}, not with a list of them")
            return self
        pruned = any(self.ratios) and not all(grid.is_control(name) for name in self.criteria)
        if not pruned and not self.controls:
            raise ValueError(
                f"seeds: {grid.AUTO}: there is no network to choose, the grid has controls or ratio 0 only"
            )
        if self.screening and (self.protocols != (protocols.ONE_SHOT,) or self.scratch_budget != "equal_epochs"):
            raise ValueError(
                f"screening shortens {protocols.ONE_SHOT} with equal_epochs, not {', '.join(self.protocols)} with "
                f"{self.scratch_budget}"
            )
        return self

    @model_validator(mode="after")
    def _measured(self) -> Experiment:
        measure, _ = self.asks_for
        if measure != "latency_ms":
            return self
        key = "budget" if self.budget else "measure"
        if not self.latency:
            raise ValueError(f"{key}: latency_ms needs latency: true")
        alternating = [name for name in self.protocols if protocols.alternates(name)]
        if alternating and set(self.scopes) != {"layer"}:
            raise ValueError(
                f"{key}: latency_ms is not known of networks that {alternating[0]} prunes globally before they are "
                f"trained; allowed: scopes: [layer], or another measure"
            )
        return self

    @model_validator(mode="after")
    def _own_images(self) -> Experiment:
        foreign = [name for name in self.criteria if grid.parse_source(name)[1] is not None]
        alternating = [name for name in self.protocols if protocols.alternates(name)]
        if foreign and alternating:
            raise ValueError(
                f"protocol {alternating[0]!r} measures networks on the images that they train on: "
                f"criterion {foreign[0]!r} asks for others"
            )
        return self


class Config(_Model):
    """The whole of ``config.yaml``."""

    targets: Annotated[tuple[Name, ...], Field(min_length=1)]
    """The experiments that a bare ``snakemake`` makes."""
    tolerance: Annotated[float, Field(ge=0, le=100)] = 2.0
    """How many points of accuracy a smaller network may cost."""
    class_margin: Annotated[float, Field(ge=0, le=100)] = 10.0
    """How many points of its own accuracy it may cost a single class before that counts as lost."""
    datasets: dict[Name, Dataset]
    backbones: dict[Name, Backbone]
    recipes: dict[Name, Recipe]
    experiments: dict[Name, Experiment]

    @field_validator("recipes", mode="before")
    @classmethod
    def _with_the_built_in_one(cls, value: Any) -> Any:
        return {grid.AUTO: BUILT_IN} | value if isinstance(value, dict) else value

    @property
    def folds(self) -> dict[str, int]:
        """Data set → how many folds it has; one that has none is not in it."""
        return {name: dataset.folds for name, dataset in self.datasets.items() if dataset.folds}

    def recipe(self, dataset: str, backbone: str) -> Recipe:
        """The recipe that fine-tunes ``backbone`` on ``dataset``."""
        return self.recipes[self._recipe_name(dataset, backbone)]

    def _recipe_name(self, dataset: str, backbone: str) -> str:
        names = self.datasets[dataset].recipe or {}
        return names if isinstance(names, str) else names[backbone]

    def pretraining(self, backbone: str) -> Pretraining:
        """What ``backbone`` is trained by, one that is pretrained here."""
        found = self.backbones[backbone].pretrain
        assert found is not None, f"backbones.{backbone} is not pretrained here"
        return found

    def recipe_for(self, dataset: str, backbone: str, protocol: str) -> dict[str, Any]:
        """What of a recipe a cell depends on: the distillation only if it is distilled."""
        return self.recipe(dataset, backbone).used(protocols.plain(protocol) == protocols.DISTILLED)

    def downloads(self) -> dict[str, Archive]:
        """Every file that can be downloaded, once for all that need it: its place below results/downloads → what it is.

        A mirror that one backbone names serves all that have the same file.

        Raises
        ------
        InputError
            If ``urls`` names an archive that a source does not have, or two backbones name a mirror each of one file.
        """
        found = {
            f"{name}/{archive.name}": archive
            for name, dataset in self.datasets.items()
            for archive in archives(dataset.model_dump())
        }
        mirrored: dict[str, str] = {}
        for name, backbone in self.backbones.items():
            if backbone.download is None:
                continue
            place = f"{WEIGHTS}/{backbone.download.name}"
            if backbone.weights_url:
                first = mirrored.setdefault(place, name)
                if self.backbones[first].weights_url != backbone.weights_url:
                    raise InputError(
                        f"backbones.{name}.weights_url: {backbone.weights_url!r} is another mirror of "
                        f"{backbone.download.name} than backbones.{first} has; allowed: the same, or none"
                    )
            if backbone.weights_url or place not in found:
                found[place] = backbone.download
        return found

    def part(self, experiment: str) -> dict[str, dict[str, Any]]:
        """What of the file an experiment depends on: section → name → entry, without what is not set.

        Whether it keeps its networks is left out: that is a target, and changes none of them.
        """
        axes = self.experiments[experiment]
        pretrainings = [self.pretraining(name) for name in axes.networks if self.backbones[name].pretrain]
        recipes = {self._recipe_name(*pair) for pair in itertools.product(axes.datasets, axes.networks)}
        foreign = {source for _, source in map(grid.parse_source, axes.criteria) if source is not None}
        names = {
            "experiments": {experiment},
            "datasets": {*axes.datasets, *foreign, *(pretraining.dataset for pretraining in pretrainings)},
            "backbones": set(axes.networks),
            "recipes": recipes | {pretraining.recipe for pretraining in pretrainings},
        }
        unused = {
            "experiments": {"models"},
            "recipes": None if protocols.DISTILLED in axes.protocols else {"distillation"},
        }
        return {
            section: {
                name: getattr(self, section)[name].model_dump(
                    mode="json", exclude_none=True, exclude=unused.get(section)
                )
                for name in sorted(chosen)
            }
            for section, chosen in names.items()
        }

    def _fits(self, backbone: str, dataset: str, key: str) -> None:
        size, found = self.datasets[dataset].image_size, self.backbones[backbone].timm
        if found and found.fixed and size != found.side:
            raise ValueError(
                f"{key}: {backbone} takes images of {found.side} pixels alone, those of {dataset} have {size}"
            )
        if len(self.backbones[backbone].mean) == 1 and self.datasets[dataset].channels == 3:
            raise ValueError(
                f"{key}: {backbone} takes gray images, {dataset} is stored in RGB: set datasets.{dataset}.channels to 1"
            )

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        for target in self.targets:
            _named(target, self.experiments, "experiment", "targets")
        for name, images in self.datasets.items():
            key = f"datasets.{name}.recipe"
            if isinstance(images.recipe, str):
                _named(images.recipe, self.recipes, "recipe", key)
            elif images.recipe is not None:
                for backbone, recipe in images.recipe.items():
                    _named(backbone, self.backbones, "backbone", key)
                    _named(recipe, self.recipes, "recipe", key)
        if WEIGHTS in self.datasets:
            raise ValueError(f"datasets.{WEIGHTS}: the name is taken by the folder of downloaded weights")
        for name, network in self.backbones.items():
            if network.pretrain:
                _named(network.pretrain.dataset, self.datasets, "dataset", f"backbones.{name}.pretrain.dataset")
                _named(network.pretrain.recipe, self.recipes, "recipe", f"backbones.{name}.pretrain.recipe")
                if self.recipes[network.pretrain.recipe].searches:
                    raise ValueError(
                        f"backbones.{name}.pretrain.recipe: {network.pretrain.recipe} has learning_rate: "
                        f"{rates.AUTO}, which is searched for cells alone; allowed: a recipe with a number"
                    )
                self._fits(name, network.pretrain.dataset, f"backbones.{name}.pretrain")
        for name, experiment in self.experiments.items():
            if name in RESERVED_TARGETS:
                raise ValueError(f"experiments.{name}: the name is taken by a target of the workflow")
            for key in ("backbones", "controls"):
                for backbone in getattr(experiment, key):
                    _named(backbone, self.backbones, "backbone", f"experiments.{name}.{key}")
            if set(experiment.controls) & set(experiment.backbones) and len(experiment.backbones) == 1:
                raise ValueError(
                    f"experiments.{name}.controls: {experiment.backbones[0]!r} is what is pruned; allowed: "
                    f"{', '.join(sorted(set(self.backbones) - set(experiment.backbones))) or 'none, there is no other'}"
                )
            for _, source in map(grid.parse_source, experiment.criteria):
                if source is not None:
                    _named(source, self.datasets, "dataset", f"experiments.{name}.criteria")
            for dataset in experiment.datasets:
                _named(dataset, self.datasets, "dataset", f"experiments.{name}.datasets")
                named = self.datasets[dataset].recipe
                known = experiment.networks if isinstance(named, str) else named or {}
                missing = [backbone for backbone in experiment.networks if backbone not in known]
                if missing:
                    raise ValueError(
                        f"datasets.{dataset}.recipe: missing for backbone {missing[0]!r}, "
                        f"which experiments.{name} trains on it; allowed: {', '.join(sorted(self.recipes))}"
                    )
                for backbone in experiment.networks:
                    self._fits(backbone, dataset, f"experiments.{name}")
                for protocol, backbone in itertools.product(experiment.protocols, experiment.backbones):
                    epochs = self.recipe(dataset, backbone).epochs
                    if epochs < protocols.phase_count(protocol):
                        raise ValueError(
                            f"experiments.{name}.protocols: {protocol} needs {protocols.phase_count(protocol)} epochs "
                            f"or more, the recipe of {backbone} on {dataset} has {epochs}"
                        )
        return self


# Rules and targets whose names an experiment must not take.
RESERVED_TARGETS = frozenset(
    [
        "all",
        "download",
        "decode",
        "split",
        "pretrain",
        "import_backbone",
        "measure",
        "differentiate",
        "score",
        "price",
        "time_layers",
        "mask",
        "correlate",
        "tune",
        "trunk",
        "finetune",
        "finetune_kept",
        "latency",
        "grow",
        "summarize",
        "recommend",
        "plot",
        "write_report",
        "track",
        "export",
        "export_cell",
        "export_chosen",
        "choose",
        "retrain",
        "write_certified",
    ]
)


def _named(value: str, defined: Mapping[str, Any], kind: str, key: str) -> None:
    try:
        _one_of(value, defined, kind)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def load(raw: Mapping[str, Any]) -> Config:
    """Check the parsed ``config.yaml``.

    Raises
    ------
    InputError
        One line a fault: the key, what was given, what is allowed.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        faults = [_fault(fault) for fault in error.errors(include_url=False) if not _follows(fault, error)]
        raise InputError("config.yaml:\n" + "\n".join(f"  {fault}" for fault in dict.fromkeys(faults))) from None


def laid_over(raw: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The parsed ``config.yaml`` with a file laid over it, as Snakemake's ``--configfile`` is.

    Raises
    ------
    InputError
        If the file does not exist, or is no mapping.
    """
    try:
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(written, dict):
        raise InputError(f"{file} is no configuration: it has no sections")
    sections = {key: raw[key] | value for key, value in written.items() if isinstance(value, dict) and key in raw}
    return {**raw, **written, **sections}


def _follows(fault: Mapping[str, Any], error: ValidationError) -> bool:
    """Whether a list counts as empty only because its one item is faulty, which another line says."""
    place = fault["loc"]
    return fault["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in error.errors()
    )


# Pydantic puts the branches of a union and markers into the path of a key: neither is a key of the file.
_BRANCHES = ("constrained-", "dict[", "str", "literal[", "tuple[")


def _fault(fault: Mapping[str, Any]) -> str:
    keys = [part for part in fault["loc"] if isinstance(part, int) or not part.startswith(_BRANCHES)]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in keys).lstrip(".")
    given = fault["input"]
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "value_error":
        text = str(context["error"])
    elif kind == "extra_forbidden":
        allowed = _allowed_keys(keys[:-1])
        near = difflib.get_close_matches(str(keys[-1]), allowed, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        text = f"unknown key{hint}; allowed: {', '.join(allowed)}"
    elif kind == "missing":
        text = "is missing"
    elif kind == "literal_error":
        text = f"{given!r} is not allowed; allowed: {context['expected']}"
    elif kind == "too_short":
        text = "is empty: the grid has no cell" if key.startswith("experiments") else "is empty"
    elif kind == "string_pattern_mismatch":
        text = f"{given!r} does not match {context['pattern']}"
    else:
        text = f"{fault['msg'][0].lower()}{fault['msg'][1:]}, given: {given!r}"
    return f"{key}: {text}" if key else text


def _allowed_keys(parents: list[Any]) -> list[str]:
    """The keys that may stand below ``parents`` in the file."""
    model: Any = Config
    sections = {"datasets": Dataset, "backbones": Backbone, "recipes": Recipe, "experiments": Experiment}
    if parents:
        model = sections[parents[0]]
    for part in parents[2:]:
        nested = {
            "augmentation": Augmentation,
            "distillation": Distillation,
            "split": Split,
            "splits": Splits,
            "table": Table,
            "pretrain": Pretraining,
            "urls": MirrorUrl,
            "budget": Budget,
        }
        model = nested.get(part, model)
    return sorted(model.model_fields)
