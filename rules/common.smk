# The checked configuration, the grid's cells, and what every rule needs to name its job.

import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from shlex import quote

SCRIPTS = Path(workflow.current_basedir).parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from snakemake.exceptions import WorkflowError

from winnow.answers import screening
from winnow.data import archives
from winnow.networks import factories
from winnow.training import protocols
from winnow.workflow import disk, grid, provenance
from winnow.workflow import config as configuration
from winnow.importance.criteria import CRITERIA
from winnow.files import InputError, canonical_json, read_json
from winnow.workflow.identity import code_digest
from winnow.runtime import run


def checked(function, *arguments):
    """Call a library function; its complaint about bad input becomes the workflow's, without a traceback."""
    try:
        return function(*arguments)
    except InputError as error:
        raise WorkflowError(str(error)) from None


CONFIG = checked(configuration.load, config)
CELLS = grid.union(experiment.model_dump() for experiment in CONFIG.experiments.values())

# `stage NAME ...` runs scripts/NAME.py.
PYTHON = quote(run.interpreter(workflow))
shell.prefix(f'set -euo pipefail; stage() {{{{ {PYTHON} {quote(str(SCRIPTS))}/"$1".py "${{{{@:2}}}}"; }}}}; ')


wildcard_constraints:
    dataset="[A-Za-z][A-Za-z0-9_-]*",
    backbone="[A-Za-z][A-Za-z0-9_-]*",
    experiment="[A-Za-z][A-Za-z0-9_-]*",
    criterion=r"[a-z][a-z0-9_]*(@[A-Za-z][A-Za-z0-9_-]*|~\d+)?",
    scope="global|global_normalized|layer|none",
    ratio=r"0\.\d{3}(~\d+)?",
    init=protocols.COMPONENT,
    seed=r"\d+",
    rung="|".join(screening.RUNGS),


digest_of = cache(code_digest)


def spec(program, only_criterion=None, /, **contents):
    """All that a job's result depends on beside its input files, as one canonical text: it is the re-run trigger."""
    contents["code"] = digest_of(SCRIPTS / program, only_criterion)
    return canonical_json(contents)


def cell_of(wildcards):
    """The cell that a path names."""
    return grid.parse_path(CELL.format(**wildcards))


def threads_for(dataset):
    """All cores for a network that can use them; one for a small one, so that many run side by side."""
    return 1 if CONFIG.datasets[dataset].image_size <= 64 else workflow.cores or 1


def experiment_outputs(name):
    """An experiment's summary, verdict, figures and report."""
    return [
        f"results/experiments/{name}/summary.parquet",
        f"results/experiments/{name}/recommendation.json",
        f"results/experiments/{name}/figures",
        f"results/experiments/{name}/report.html",
    ]


def experiment_files(name):
    """All that an experiment's target asks for: its cells and latencies too, so that deleted ones are made again."""
    # A function of its own for each experiment: one that waits for its screening does not hold up the others.
    return [*experiment_outputs(name), lambda wildcards: cell_files(name)]


def cell_files(name):
    cells = [f"results/cells/{cell.path}" for cell in experiment_cells(name)]
    return expand("{cell}/{file}", cell=cells, file=CELL_FILES) + experiment_latencies(name)


def dataset_spec(name):
    contents = CONFIG.datasets[name].model_dump(exclude={"recipe"}, exclude_none=True)
    if contents["source"] == "folder":
        contents["listing"] = checked(archives.listing_digest, contents["path"])
    return contents


def dataset_archives(name):
    return archives.archives(CONFIG.datasets[name].model_dump())


def archive_of(wildcards):
    return next(archive for archive in dataset_archives(wildcards.dataset) if archive.name == wildcards.archive)


def backbone_weights(wildcards):
    backbone = CONFIG.backbones[wildcards.backbone]
    if backbone.pretrain:
        return [f"results/backbones/{wildcards.backbone}/pretrained.safetensors"]
    return [backbone.weights_file] if backbone.weights_file else []


def backbone_spec(name, keys):
    """What of a backbone a program is told; for a network of one's own the architecture is its factory and digest."""
    backbone = CONFIG.backbones[name]
    contents = backbone.model_dump(include=keys)
    if backbone.factory:
        contents["architecture"] = checked(factories.identity, backbone.factory)
    return contents


def pretraining(name):
    backbone = CONFIG.backbones[name]
    return {
        "backbone": backbone_spec(name, {"architecture", "head", "mean", "std"}),
        "recipe": CONFIG.recipes[backbone.pretrain.recipe].model_dump(exclude={"distillation"}),
        "seed": backbone.pretrain.seed,
    }


def criterion_of(wildcards):
    """A score's criterion, the data set that it looks at if not the cell's own, and the seed if it has one."""
    criterion, seed = grid.parse_criterion(wildcards.criterion)
    return *grid.parse_source(criterion), seed


def score_inputs(wildcards):
    criterion, source, _ = criterion_of(wildcards)
    needs = CRITERIA[criterion].needs
    statistics = f"results/statistics/{source or wildcards.dataset}/{wildcards.backbone}/{needs}"
    looks = needs in ("activations", "gradients")
    return {
        "backbone": f"results/backbones/{wildcards.backbone}/manifest.json",
        "statistics": [f"{statistics}.json"] if looks else [],
        "arrays": [f"{statistics}.npz"] if looks else [],
    }


def score_spec(wildcards):
    criterion, source, seed = criterion_of(wildcards)
    return spec("score.py", criterion.removeprefix(grid.REVERSED), criterion=criterion, source=source, seed=seed)


def mask_spec(wildcards):
    ratio, round_to = grid.parse_ratio(wildcards.ratio)
    min_filters = CONFIG.backbones[wildcards.backbone].min_filters
    return spec("mask.py", scope=wildcards.scope, ratio=ratio, round_to=round_to, min_filters=min_filters)


MASK = "{dataset}/{backbone}/{criterion}/{scope}/{ratio}"


def latency_inputs(wildcards):
    return {
        "dataset": f"results/datasets/{wildcards.dataset}/manifest.json",
        "backbone": f"results/backbones/{wildcards.backbone}/manifest.json",
        "mask": [] if wildcards.criterion == grid.UNPRUNED else expand(f"results/masks/{MASK}.parquet", **wildcards),
    }


def latency_spec(wildcards):
    precision = CONFIG.recipe(wildcards.dataset, wildcards.backbone).precision
    return spec("clock.py", **wildcards, precision=precision)


def experiment_latencies(name):
    axes = CONFIG.experiments[name].model_dump()
    return [f"results/latency/{path}" for path in grid.latencies(axes, experiment_cells(name))]


CELL_FILES = ["metrics.json", "history.parquet", "predictions.parquet"]
CELL = f"{MASK}/{{init}}/{{seed}}"


def cell_inputs(wildcards):
    cell = cell_of(wildcards)
    begins_pruned = protocols.steps(cell.protocol) is not None
    return {
        "dataset": f"results/datasets/{cell.dataset}/manifest.json",
        "backbone": f"results/backbones/{cell.backbone}/manifest.json",
        "mask": [f"results/masks/{cell.mask}"] if cell.mask else [],
        "scores": (
            expand("results/scores/{dataset}/{backbone}/{criterion}.parquet", **wildcards) if begins_pruned else []
        ),
        "teacher": [kept_cell(cell.baseline)] if cell.protocol == protocols.DISTILLED else [],
    }


def cell_spec(wildcards, models=None):
    cell = cell_of(wildcards)
    contents = {
        "cell": asdict(cell),
        "recipe": CONFIG.recipe_for(cell.dataset, cell.backbone, cell.protocol),
        "models": models or ("keep" if CELLS.get(cell) else "drop"),
    }
    if not cell.alternates:
        return spec("finetune.py", **contents)
    min_filters = CONFIG.backbones[cell.backbone].min_filters
    return spec("alternate.py", cell.criterion.removeprefix(grid.REVERSED), min_filters=min_filters, **contents)


def grid_of(name):
    """An experiment's axes, as a spec carries them."""
    return CONFIG.experiments[name].model_dump(exclude={"models"})


@cache
def whole_grid(name):
    return grid.cells(CONFIG.experiments[name].model_dump())


def experiment_cells(name):
    """An experiment's cells; of a screened one those that are trained in full, as soon as they are known."""
    if not CONFIG.experiments[name].screening:
        return whole_grid(name)
    return screening.in_full(CONFIG.experiments[name].model_dump(), survivors(name, screening.RUNGS[-1]))


def screenings(name, rung=screening.RUNGS[-1]):
    """A rung's file; none unless the experiment is screened."""
    return [f"results/experiments/{name}/screening/{rung}.json"] if CONFIG.experiments[name].screening else []


def survivors(name, rung):
    path = checkpoints.screen.get(experiment=name, rung=rung).output[0]
    return screening.left(CONFIG.experiments[name].model_dump(), checked(screening.read, path))


def rung_before(wildcards):
    """The file of the rung before this one; none before the first."""
    position = screening.RUNGS.index(wildcards.rung)
    return screenings(wildcards.experiment, screening.RUNGS[position - 1]) if position else []


def rung_metrics(wildcards):
    name, position = wildcards.experiment, screening.RUNGS.index(wildcards.rung)
    if position:
        left = survivors(name, screening.RUNGS[position - 1])
    else:
        left = screening.candidates(CONFIG.experiments[name].model_dump())
    return [f"results/cells/{cell.path}/metrics.json" for cell in screening.rung_cells(left, wildcards.rung)]


def kept_cell(cell):
    """A file that stands for a cell with its network: the grid's, or, where no experiment keeps it, one trained again."""
    return (
        f"results/cells/{cell.path}/metrics.json"
        if CELLS.get(cell)
        else f"results/models/{cell.path}/model.safetensors"
    )


def chosen_cells(wildcards):
    chosen = read_json(checkpoints.choose.get(**wildcards).output[0])["chosen"]
    return [grid.parse_path(each["cell"]) for each in chosen]


def looks_at_activations(name):
    """Whether one of an experiment's criteria does, screened out or not."""
    cells = [cell for cell in whole_grid(name) if cell.mask]
    return any(CRITERIA[grid.parse_source(cell.criterion)[0]].needs == "activations" for cell in cells)


def plot_inputs(wildcards):
    """What an experiment's pruned cells were made from: each file once."""
    cells = [cell for cell in experiment_cells(wildcards.experiment) if cell.mask]
    places = dict.fromkeys((cell.dataset, cell.backbone) for cell in cells)
    measured = looks_at_activations(wildcards.experiment)
    sums = [f"results/statistics/{d}/{b}/activations" for d, b in places] if measured else []
    scores = [f"results/scores/{cell.dataset}/{cell.backbone}/{cell.mask_criterion}.parquet" for cell in cells]
    return {
        "masks": list(dict.fromkeys(f"results/masks/{cell.mask}" for cell in cells)),
        "scores": list(dict.fromkeys(scores)),
        "activations": expand("{sums}.{form}", sums=sums, form=["json", "npz"]),
        "datasets": (
            [f"results/datasets/{d}/manifest.json" for d in dict.fromkeys(d for d, _ in places)] if measured else []
        ),
    }


def own(jobs):
    """Those of this configuration's rules: where the workflow is a module, others have jobs in the DAG, too."""
    return [job for job in jobs if job.rule.module_globals.get("CONFIG") == CONFIG]


def forecast():
    """How much disk the jobs of this run will fill."""
    jobs = [(run.makes(job.rule), job.wildcards) for job in own(workflow.dag.needrun_jobs())]
    cells = [(cell_of(wildcards), made) for made, wildcards in jobs if made in ("cells", "models")]
    stores = {wildcards.dataset for made, wildcards in jobs if made == "datasets"}
    if not cells and not stores:
        return ""
    size = sum(disk.store_bytes(*store_of(name)) for name in stores)
    kept = 0
    for cell, made in cells:
        keep = made == "models" or CELLS.get(cell, False)
        backbone = CONFIG.backbones[cell.backbone]
        size += disk.cell_bytes(backbone.architecture or backbone.factory, backbone.head, cell.ratio, keep)
        kept += keep
    return (
        f"Disk: about {disk.readable(size)} for {len(cells)} cells ({kept} keep their model) and {len(stores)} stores."
    )


def store_of(name):
    dataset = CONFIG.datasets[name]
    images = archives.listing_count(dataset.path) if dataset.source == "folder" else None
    return dataset.source, dataset.store_size, images


def unrecorded():
    """Results of another configuration or code that Snakemake takes for finished, since its record of them is gone."""
    return [
        output
        for job in own(workflow.dag.jobs)
        if not workflow.dag.needrun(job) and job.output and not workflow.persistence.has_metadata(job)
        for output in [str(job.output[-1])]
        if provenance.spec_of(output) not in (None, job.params.spec)
    ]


def announce():
    """Print the summaries of the experiments that were asked for."""
    run.announce(workflow, SCRIPTS / "show.py")


run.prepare(workflow, forecast, announce, unrecorded)


onstart:
    # The lock is held by the open file, until this process ends.
    workflow.globals["held_lock"] = checked(run.lock)


onsuccess:
    announce()
