# The checked configuration, the grid's cells, and what every rule needs to name its job.

from functools import cache
from shlex import quote

from snakemake.exceptions import WorkflowError

from winnow.answers import growth
from winnow.files import InputError, read_json
from winnow.importance.scopes import SCOPES
from winnow.runtime import run
from winnow.training import protocols
from winnow.workflow import config as configuration
from winnow.workflow import disk, grid, hours, promises, provenance, specs, wiring


def checked(function, *arguments, **names):
    """Call a library function; its complaint about bad input becomes the workflow's, without a traceback."""
    try:
        return function(*arguments, **names)
    except InputError as error:
        raise WorkflowError(str(error)) from None


CONFIG = checked(configuration.load, config)
# Two mirrors of one file are an error before any job starts.
checked(CONFIG.downloads)
KEPT = grid.keeps(experiment.model_dump() for experiment in CONFIG.experiments.values())
# Of a storage Snakemake does not always know at once that a folder is there: there, targets ask for files alone.
ON_DISK = workflow.storage_settings.default_storage_provider is None

# `stage NAME ...` runs scripts/NAME.py.
PYTHON = quote(run.interpreter(workflow))
shell.prefix(f'set -euo pipefail; stage() {{{{ {PYTHON} {quote(str(SCRIPTS))}/"$1".py "${{{{@:2}}}}"; }}}}; ')


wildcard_constraints:
    dataset="[A-Za-z][A-Za-z0-9_-]*",
    backbone="[A-Za-z][A-Za-z0-9_-]*",
    experiment="[A-Za-z][A-Za-z0-9_-]*",
    criterion=r"[a-z][a-z0-9_]*(@[A-Za-z][A-Za-z0-9_-]*|~\d+)?",
    scope="|".join([*SCOPES, grid.NO_SCOPE]),
    ratio=r"0\.\d{3}(~\d+)?",
    init=protocols.COMPONENT,
    seed=r"\d+",
    share=rf"(0|\d+_\d+(~\d+)?){protocols.TRUNK_REPAIRS}",
    epochs=r"\d+",
    fold=rf"{wiring.ONLY}|\d+",
    step=r"0|[1-9]\d*",


# Which images train: a data set's, or of one with folds those that a fold does not judge.
IMAGES = r"[A-Za-z][A-Za-z0-9_-]*(~\d+)?"
MASK, CELL, TRUNK = wiring.MASK, wiring.CELL, wiring.TRUNK


# A stage's folder, file by file. What is bulky is ancient: its SHA-256 stands in the manifest, which is small enough for
# Snakemake to look at its content where its time is new.
STORE = [
    "results/datasets/{dataset}/manifest.json",
    ancient("results/datasets/{dataset}/images.npy"),
    ancient("results/datasets/{dataset}/index.parquet"),
]
BACKBONE = [
    "results/backbones/{backbone}/manifest.json",
    ancient("results/backbones/{backbone}/weights.safetensors"),
    ancient("results/backbones/{backbone}/channels.parquet"),
]
# What of it says which tensors units have a part in.
WIDTHS = [BACKBONE[0], BACKBONE[2]]


def filled(files, **names):
    """The files with other names in them than the rule's wildcards."""
    return [ancient(file.format(**names)) if hasattr(file, "flags") else file.format(**names) for file in files]


def store_of(wildcards):
    """The store of the data set whose images train."""
    return filled(STORE, dataset=grid.parse_images(wildcards.dataset)[0])


def spec(contents):
    """A job's spec, of a function in winnow/workflow/specs.py: it is the re-run trigger."""
    return lambda wildcards: checked(contents, CONFIG, **wildcards).text(SCRIPTS)


def needs(files):
    """A job's files, of a function in winnow/workflow/wiring.py."""
    return lambda wildcards: files(CONFIG, **wildcards)


def of_cells(file):
    """A file of each of an experiment's cells."""
    return lambda wildcards: [file.format(cell=cell.path) for cell in experiment_cells(wildcards.experiment)]


def from_cells(files):
    """Files that an experiment's cells are made from, of a function in winnow/workflow/wiring.py."""
    return lambda wildcards: files(experiment_cells(wildcards.experiment), CONFIG.folds)


@cache
def axes_of(name):
    return CONFIG.experiments[name].model_dump()


@cache
def whole_grid(name):
    return grid.cells(axes_of(name))


def experiment_cells(name):
    """An experiment's cells; of one that grows as soon as they are known."""
    return growth.in_full(last_step(name)[1]) if growth.grows(axes_of(name)) else whole_grid(name)


def experiment_latencies(name):
    return [f"results/latency/{path}" for path in grid.latencies(axes_of(name), experiment_cells(name))]


def experiment_files(name):
    """All that an experiment's target asks for: its cells and latencies too, so that deleted ones are made again."""

    def made(wildcards):
        keep = CONFIG.experiments[name].models == "keep"
        return wiring.finished(experiment_cells(name), keep) + experiment_latencies(name)

    # A function of its own for each experiment: one that grows does not hold up the others.
    return [*wiring.answers(name, folders=ON_DISK), made]


def network_files(cell):
    """A cell's network: the grid's, or, where it is not kept, one trained again."""
    return [ancient(f"results/models/{cell.path}/model.safetensors"), f"results/models/{cell.path}/model.json"]


def cell_of(wildcards):
    return wiring.cell_of(**wildcards)


def trunk_of(wildcards):
    return grid.parse_trunk(TRUNK.format(**wildcards))
