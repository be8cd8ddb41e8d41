"""What each job depends on beside its input files: its spec, from the configuration and the names in its path.

A spec is one canonical text. It is the job's only param, and so what Snakemake compares; its program is told it, and
stores it with the output. A key that changes runs the job again: nothing stands here that leaves the output alone, and
the comment beside a key says what it changes.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from winnow.data import archives, folders
from winnow.files import canonical_json
from winnow.networks import factories
from winnow.training import protocols
from winnow.workflow import grid, wiring
from winnow.workflow.config import Config
from winnow.workflow.identity import code_digest

_digest = functools.cache(code_digest)
# What of a data set's configuration says which images train, choose and judge.
OF_THE_SPLIT = ("split", "folds", "train_per_class", "val_per_class", "train_on", "seed")
BETWEEN_PHASES = "winnow.training.phases"
REPAIR = "winnow.training.repair"


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a job depends on.

    Attributes
    ----------
    program : str
        The stage program, of whose code and library modules the digest is taken.
    contents : dict
        The rest of it, all but the digest.
    criterion : str or None
        The one criterion whose function is the job's code; None where all of them are.
    without : tuple of str
        Modules that the program imports for other jobs only: they are no part of this one's code.
    """

    program: str
    contents: dict[str, Any]
    criterion: str | None = None
    without: tuple[str, ...] = ()

    def text(self, scripts: Path) -> str:
        """The spec as canonical JSON, with ``code``: an edit of the program's code runs the job again."""
        return canonical_json(self.contents | {"code": _digest(scripts / self.program, self.criterion, self.without)})


def download(config: Config, dataset: str, archive: str) -> Spec:
    found = config.downloads()[f"{dataset}/{archive}"]
    return Spec(
        "download.py",
        {
            "dataset": dataset,  # in messages, and the file's place
            "archive": archive,  # the file's name
            "url": found.url,  # fetches from elsewhere
            "digest": found.digest,  # is other content
        },
    )


def decode(config: Config, dataset: str) -> Spec:
    contents = config.datasets[dataset].model_dump(exclude={"recipe", *OF_THE_SPLIT}, exclude_none=True)
    if contents["source"] == "folder":
        # Its images are no inputs, there may be a million of them: other paths or sizes decode it again.
        contents["listing"] = folders.digest(Path(contents["path"]), folders.Rules.of(contents))
    return Spec(
        "decode.py",
        {
            "name": dataset,  # stands in the manifest
            "dataset": contents,  # other images or sizes; less what splits them, and the recipe, which trains on them
        },
    )


def split(config: Config, dataset: str, fold: str) -> Spec:
    return Spec(
        "split.py",
        {
            # Puts images into other parts.
            "dataset": config.datasets[dataset].model_dump(include=set(OF_THE_SPLIT), exclude_none=True),
            "fold": None if fold == wiring.ONLY else int(fold),  # has other images judge
        },
    )


def pretrain(config: Config, backbone: str) -> Spec:
    pretraining = config.pretraining(backbone)
    return Spec(
        "pretrain.py",
        {
            "backbone": _backbone(config, backbone, "architecture", "head", "mean", "std"),  # another network or input
            "recipe": config.recipes[pretraining.recipe].used(),  # trains otherwise
            "seed": pretraining.seed,  # draws other weights, and another order of images
        },
    )


def import_backbone(config: Config, backbone: str) -> Spec:
    keys = ("architecture", "head", "weights", "mean", "std")
    found = config.backbones[backbone]
    digest = found.download.digest if found.download else None
    if found.weights_file:
        digest = archives.content_digest(archives.of_package(found.weights_file))
    return Spec(
        "import_backbone.py",
        {
            "name": backbone,  # stands in the manifest
            "backbone": _backbone(config, backbone, *keys),  # another network, its weights, or its input
            "digest": digest,  # is other content; a pretraining's is in a file of its own
        },
    )


def measure(config: Config, dataset: str, backbone: str) -> Spec:
    return Spec("measure.py", _measured(dataset, backbone))


def differentiate(config: Config, dataset: str, backbone: str) -> Spec:
    return Spec("differentiate.py", _measured(dataset, backbone))


def correlate(config: Config, dataset: str, backbone: str) -> Spec:
    return Spec("correlate.py", _measured(dataset, backbone))


def _measured(dataset: str, backbone: str) -> dict[str, Any]:
    # Names only: what they stand for is in the manifests, which are inputs.
    return {"dataset": dataset, "backbone": backbone}


def score(config: Config, dataset: str, backbone: str, criterion: str) -> Spec:
    named, seed = grid.parse_criterion(criterion)
    name, source = grid.parse_source(named)
    return Spec(
        "score.py",
        {
            "criterion": name,  # computes another score
            "source": source,  # takes the statistics of another data set
            "seed": seed,  # draws others, where the criterion draws
        },
        _function_of(name),
    )


def mask(config: Config, dataset: str, backbone: str, criterion: str, scope: str, ratio: str) -> Spec:
    share, round_to = grid.parse_ratio(ratio)
    return Spec(
        "mask.py",
        {
            "scope": scope,  # ranks filters within a layer, or all of them
            "ratio": share,  # removes more or fewer
            "round_to": round_to,  # keeps multiples of it
            "min_filters": config.backbones[backbone].min_filters,  # leaves each layer so many
        },
    )


def price(config: Config, **place: str) -> Spec:
    return Spec("price.py", place)  # of another network, in another measure


def time_layers(config: Config, dataset: str, backbone: str) -> Spec:
    place = {"dataset": dataset, "backbone": backbone, "measure": "latency"}
    return Spec("price.py", place | {"precision": config.recipe(dataset, backbone).precision})  # as a cell is timed


def latency(config: Config, **place: str) -> Spec:
    return Spec(
        "clock.py",
        {
            **place,  # another network
            # Times it in another precision; the rest of the recipe does not.
            "precision": config.recipe(place["dataset"], place["backbone"]).precision,
        },
    )


def cell(config: Config, **place: str) -> Spec:
    found = wiring.cell_of(**place)
    contents: dict[str, Any] = {
        "cell": dataclasses.asdict(found),  # another network, or another start
        "recipe": config.recipe_for(found.dataset, found.backbone, found.protocol),  # trains it otherwise
    }
    unrepaired = () if protocols.repairs(found.protocol) else (REPAIR,)
    if not found.alternates:
        # Nothing that measures filters is its code: it is given its mask.
        return Spec("finetune.py", contents, without=(BETWEEN_PHASES, *unrepaired))
    contents["min_filters"] = config.backbones[found.backbone].min_filters  # leaves each layer so many
    return Spec("finetune.py", contents, _function_of(found.criterion), unrepaired)


def tune(config: Config, **place: str) -> Spec:
    found = wiring.cell_of(**place)
    contents = {
        "cell": dataclasses.asdict(found),  # another network
        "recipe": config.recipe_for(found.dataset, found.backbone, found.protocol),  # trains it otherwise
    }
    return Spec("tune.py", contents, without=() if protocols.repairs(found.protocol) else (REPAIR,))


def trunk(config: Config, **place: str) -> Spec:
    found = grid.parse_trunk(wiring.TRUNK.format(**place))
    recipe = config.recipe_for(found.dataset, found.backbone, protocols.FINE_TUNE_FIRST)
    contents: dict[str, Any] = {
        # another mask, or another start
        "trunk": dataclasses.asdict(found) | {"share": str(found.share), "repairs": list(found.repairs)},
        "recipe": protocols.stretched(recipe, found.epochs),  # trains it otherwise
    }
    if found.share:
        contents["min_filters"] = config.backbones[found.backbone].min_filters  # leaves each layer so many
    return Spec("trunk.py", contents, without=() if found.repairs else (REPAIR,))


def grow(config: Config, experiment: str, step: str) -> Spec:
    # The same for all steps: which one it is follows from the file of the one before.
    return Spec("grow.py", _experiment(config, experiment) | _question(config, experiment))


def summarize(config: Config, experiment: str) -> Spec:
    return Spec("summarize.py", _experiment(config, experiment))


def recommend(config: Config, experiment: str) -> Spec:
    return Spec("recommend.py", _experiment(config, experiment) | _question(config, experiment))


def track(config: Config, experiment: str) -> Spec:
    return Spec("track.py", _experiment(config, experiment))


def plot(config: Config, experiment: str) -> Spec:
    # With activations there are figures of what filters answer to, even where screening leaves no such criterion.
    looks = wiring.looks_at_activations(config, experiment)
    return Spec("plot.py", _experiment(config, experiment) | {"activations": looks})


def report(config: Config, experiment: str) -> Spec:
    return Spec(
        "report.py",
        {
            "experiment": experiment,  # heads the page
            "configuration": config.part(experiment),  # stands on the page
        },
        # The page asks what a criterion needs, not how it is computed: a new one changes no page.
        grid.UNPRUNED,
    )


def choose(config: Config, experiment: str) -> Spec:
    return Spec("choose.py", {"experiment": experiment})  # in messages


def export_chosen(config: Config, experiment: str) -> Spec:
    return Spec("export.py", {"experiment": experiment})  # in the provenance of the networks


def export_cell(config: Config, **place: str) -> Spec:
    # The cell is in its own files.
    return Spec("export.py", {})


def _backbone(config: Config, name: str, *keys: str) -> dict[str, Any]:
    """What of a backbone a program is told; for a network of one's own the architecture is its factory and digest."""
    backbone = config.backbones[name]
    contents = backbone.model_dump(include=set(keys))
    if backbone.factory:
        contents["architecture"] = factories.identity(backbone.factory)
    return contents


def _experiment(config: Config, name: str) -> dict[str, Any]:
    return {
        "experiment": name,  # heads what is made
        # Has other cells. What becomes of their networks is none of its answers, nor what is asked of them.
        "grid": config.experiments[name].model_dump(exclude={"models", "measure", "budget"}),
        # Which images judge which cells.
        "folds": {key: count for key, count in config.folds.items() if key in config.experiments[name].datasets},
    }


def _question(config: Config, name: str) -> dict[str, Any]:
    measure, limit = config.experiments[name].asks_for
    return {
        "tolerance": config.tolerance,  # what a smaller network may cost: another one is answered otherwise
        "class_margin": config.class_margin,  # and what it may cost a single class
        "measure": measure,  # what is small
        "limit": limit,  # and at most so: then the most accurate within is asked for
    }


def _function_of(criterion: str) -> str:
    """The criterion as its function is registered: a reversed one is the same function."""
    return criterion.removeprefix(grid.REVERSED)
