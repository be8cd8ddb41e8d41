# The checked configuration, the grid's cells, and what every rule needs to name its job.

import sys
from functools import cache
from pathlib import Path
from shlex import quote

SCRIPTS = Path(workflow.current_basedir).parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from snakemake.exceptions import WorkflowError

from winnow.answers import screening
from winnow.files import InputError, read_json
from winnow.runtime import run
from winnow.training import protocols
from winnow.workflow import config as configuration
from winnow.workflow import disk, grid, provenance, specs, wiring


def checked(function, *arguments, **names):
    """Call a library function; its complaint about bad input becomes the workflow's, without a traceback."""
    try:
        return function(*arguments, **names)
    except InputError as error:
        raise WorkflowError(str(error)) from None


CONFIG = checked(configuration.load, config)
CELLS = grid.union(experiment.model_dump() for experiment in CONFIG.experiments.values())

# `stage NAME ...` runs scripts/NAME.py under the interpreter that runs Snakemake, or under that of the job's environment
# where one is deployed.
PYTHON = "python" if workflow.deployment_settings.deployment_method else sys.executable
shell.prefix(f'set -euo pipefail; stage() {{{{ {quote(PYTHON)} {quote(str(SCRIPTS))}/"$1".py "${{{{@:2}}}}"; }}}}; ')


# On a cluster these run where Snakemake runs: they take seconds, less than a submitted job's start, and two of them need
# the network, which compute nodes often lack.
localrules:
    download,
    import_backbone,
    score,
    mask,
    screen,
    summarize,
    recommend,
    plot,
    write_report,
    choose,


wildcard_constraints:
    dataset="[A-Za-z][A-Za-z0-9_-]*",
    backbone="[A-Za-z][A-Za-z0-9_-]*",
    experiment="[A-Za-z][A-Za-z0-9_-]*",
    criterion=r"[a-z][a-z0-9_]*(@[A-Za-z][A-Za-z0-9_-]*|~\d+)?",
    scope="global|global_normalized|layer|none",
    ratio=r"0\.\d{3}(~\d+)?",
    init=protocols.COMPONENT,
    seed=r"\d+",
    share=r"0|\d+_\d+(~\d+)?",
    epochs=r"\d+",
    rung="|".join(screening.RUNGS),


CELL, TRUNK = wiring.CELL, wiring.TRUNK
MASK = CELL.removesuffix("/{init}/{seed}")

CELL_FILES = ["metrics.json", "history.parquet", "predictions.parquet", "mask.parquet"]
MODEL_FILES = ["model.safetensors", "model.json"]
TRUNK_FILES = ["trunk.safetensors", "history.parquet", "mask.parquet", "trunk.json"]

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


def filled(files, **names):
    """The files with other names in them than the rule's wildcards."""
    return [ancient(file.format(**names)) if hasattr(file, "flags") else file.format(**names) for file in files]


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
    return lambda wildcards: files(experiment_cells(wildcards.experiment))


def threads_for(dataset):
    """All cores for a network that can use them; one for a small one, so that many run side by side."""
    return 1 if CONFIG.datasets[dataset].image_size <= 64 else workflow.cores or 1


@cache
def whole_grid(name):
    return grid.cells(CONFIG.experiments[name].model_dump())


def experiment_cells(name):
    """An experiment's cells; of a screened one those that are trained in full, as soon as they are known."""
    if not CONFIG.experiments[name].screening:
        return whole_grid(name)
    return screening.in_full(CONFIG.experiments[name].model_dump(), survivors(name, screening.RUNGS[-1]))


def experiment_latencies(name):
    axes = CONFIG.experiments[name].model_dump()
    return [f"results/latency/{path}" for path in grid.latencies(axes, experiment_cells(name))]


def experiment_outputs(name):
    """An experiment's summary, verdict, figures and report."""
    files = ("summary.parquet", "recommendation.json", "figures", "report.html")
    return [f"results/experiments/{name}/{file}" for file in files]


def experiment_files(name):
    """All that an experiment's target asks for: its cells and latencies too, so that deleted ones are made again."""
    # A function of its own for each experiment: one that waits for its screening does not hold up the others.
    return [*experiment_outputs(name), lambda wildcards: cell_files(name) + experiment_latencies(name)]


def cell_files(name):
    cells = [cell.path for cell in experiment_cells(name)]
    models = MODEL_FILES if CONFIG.experiments[name].models == "keep" else []
    return expand("results/cells/{cell}/{file}", cell=cells, file=CELL_FILES) + expand(
        "results/models/{cell}/{file}", cell=cells, file=models
    )


def survivors(name, rung):
    file = checkpoints.screen.get(experiment=name, rung=rung).output[0]
    # Opened by Snakemake, which fetches it where it lies in a storage.
    with file.open():
        return screening.left(CONFIG.experiments[name].model_dump(), checked(screening.read, file))


def activations(wildcards):
    """The statistics that an experiment's figures are drawn from."""
    looks = wiring.looks_at_activations(CONFIG, wildcards.experiment)
    return wiring.activations(experiment_cells(wildcards.experiment)) * looks


def screened(wildcards):
    """What the last rung left; nothing unless the experiment is screened."""
    name = wildcards.experiment
    return [f"results/experiments/{name}/screening/{screening.RUNGS[-1]}.json"] * CONFIG.experiments[name].screening


def chosen_cells(wildcards):
    file = checkpoints.choose.get(**wildcards).output[0]
    with file.open():
        return [grid.parse_path(each["cell"]) for each in checked(read_json, file)["chosen"]]


def of_cell(files, kept):
    """The same as `needs` for a cell whose network is kept or, where `kept` is false, is not: others are refused."""

    def found(wildcards):
        if CELLS.get(cell_of(wildcards), False) is kept:
            return files(CONFIG, **wildcards)
        # Nobody makes this: Snakemake looks for another rule. An exception would do as well, but is printed.
        return ["results/refused/not_kept" if kept else "results/refused/kept"]

    return found


def trunk_files(wildcards):
    """What a cell begins with that prunes what it has trained."""
    return [
        ancient(f"{folder}/{name}") if name == "trunk.safetensors" else f"{folder}/{name}"
        for folder in wiring.trunks(CONFIG, **wildcards)
        for name in TRUNK_FILES
    ]


def teacher_files(wildcards):
    """The network that a distilled cell learns from."""
    return [file for cell in wiring.teachers(CONFIG, **wildcards) for file in network_files(cell)]


def network_files(cell):
    """A cell's network: the grid's, or, where no experiment keeps it, one trained again."""
    return [ancient(f"results/models/{cell.path}/model.safetensors"), f"results/models/{cell.path}/model.json"]


def cell_of(wildcards):
    return wiring.cell_of(**wildcards)


def exported(cell):
    """A finished cell's files that its export reads, its network among them."""
    return [f"results/cells/{cell.path}/predictions.parquet", *network_files(cell)]


def forecast():
    """How much disk the jobs of this run will fill."""
    trained = ("finetune", "finetune_kept", "retrain")
    jobs = [job for job in workflow.dag.needrun_jobs() if job.rule.name in ("decode", *trained)]
    cells = [(cell_of(job.wildcards), job.rule.name != "finetune") for job in jobs if job.rule.name in trained]
    stores = {job.wildcards.dataset for job in jobs if job.rule.name == "decode"}
    return disk.forecast(CONFIG, cells, stores)


def unrecorded():
    """Results of another configuration or code that Snakemake takes for finished, since its record of them is gone."""
    known = workflow.persistence.has_metadata
    jobs = [job for job in workflow.dag.jobs if job.output and not workflow.dag.needrun(job) and not known(job)]
    return provenance.others((str(job.output[-1]), job.params.spec) for job in jobs)


def announce():
    """Print the summaries of the experiments that were asked for."""
    asked = [job.rule.name for job in workflow.dag.targetjobs]
    for name in CONFIG.targets if "all" in asked else asked:
        if name in CONFIG.experiments:
            parquet, verdict, figures, _ = experiment_outputs(name)
            shell("stage show --summary {parquet:q} --verdict {verdict:q} --figures {figures:q}")


run.prepare(workflow, forecast, announce, unrecorded)


onstart:
    # The lock is held by the open file, until this process ends.
    workflow.globals["held_lock"] = checked(run.lock)


onsuccess:
    announce()
