# Which files jobs need that take more than a wildcard to name: functions of a rule's wildcards, named in its inputs.

from itertools import count


def users_own(files):
    """A user's own files, which lie where they are whatever storage or prefix results have; digests are in the spec."""
    return lambda wildcards: [ancient(local(file)) for file in files(CONFIG, **wildcards)]


def widths(wildcards):
    """What of a backbone a budget is kept by."""
    return filled(WIDTHS, backbone=wildcards.backbone) if wiring.prices(CONFIG, **wildcards) else []


TRUNK_FILES = ["trunk.safetensors", "history.parquet", "mask.parquet", "trunk.json"]


def of_cell(files, kept):
    """The same as `needs` for a cell whose network is kept or, where `kept` is false, is not: others are refused."""

    def found(wildcards):
        if KEPT(cell_of(wildcards)) is kept:
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


def step_of(name, step):
    """What a step of a growing experiment says; Snakemake makes it first, and asks again."""
    file = checkpoints.grow.get(experiment=name, step=step).output[0]
    # Opened by Snakemake, which fetches it where it lies in a storage.
    with file.open():
        return checked(growth.read, file)


def last_step(name):
    """A growing experiment's last step, and what it says."""
    for step in count():
        found = step_of(name, step)
        if found["done"]:
            return step, found


def grown(wildcards):
    """The file of the last step; nothing unless the experiment grows."""
    name = wildcards.experiment
    if not growth.grows(axes_of(name)):
        return []
    return [f"results/experiments/{name}/growth/{last_step(name)[0]}.json"]


def step_before(wildcards):
    """The file of the step before this one; none before the first."""
    step = int(wildcards.step)
    return [f"results/experiments/{wildcards.experiment}/growth/{step - 1}.json"] if step else []


def asked_cells(wildcards):
    """What a step reads: what the one before it asked for."""
    step = int(wildcards.step)
    previous = step_of(wildcards.experiment, step - 1) if step else None
    return growth.asked(axes_of(wildcards.experiment), previous)


def asked_metrics(wildcards):
    return [f"results/cells/{cell.path}/metrics.json" for cell in asked_cells(wildcards)]


def asked_predictions(wildcards):
    """Those of cells that judge."""
    judging = growth.judging(axes_of(wildcards.experiment), asked_cells(wildcards))
    return [f"results/cells/{cell.path}/predictions.parquet" for cell in judging]


def asked_datasets(wildcards):
    return wiring.manifests(asked_cells(wildcards))


def latencies_of(name, cells):
    """Where networks are compared by how long they take, how long they do."""
    timed = CONFIG.experiments[name].asks_for[0] == "latency_ms"
    return [f"results/latency/{path}" for path in grid.latencies(axes_of(name), cells) if timed]


def asked_latencies(wildcards):
    return latencies_of(wildcards.experiment, asked_cells(wildcards))


def answered_latencies(wildcards):
    return latencies_of(wildcards.experiment, experiment_cells(wildcards.experiment))


def manifests(wildcards):
    """Those of an experiment's data sets: they have the names of the classes."""
    return wiring.manifests(experiment_cells(wildcards.experiment))


def activations(wildcards):
    """The statistics that an experiment's figures are drawn from."""
    looks = wiring.looks_at_activations(CONFIG, wildcards.experiment)
    return wiring.activations(experiment_cells(wildcards.experiment), CONFIG.folds) * looks


def chosen(wildcards):
    """The cells to export, each with the unpruned one that it is held against."""
    file = checkpoints.choose.get(**wildcards).output[0]
    with file.open():
        found = [(grid.parse_path(each["cell"]), each["backbone"]) for each in checked(read_json, file)["chosen"]]
    return [(cell, cell.baseline_of(backbone)) for cell, backbone in found]


def chosen_cells(wildcards):
    return [cell for cell, _ in chosen(wildcards)]


def split_of(cell):
    """What a cell was trained and judged by."""
    return [wiring.split(cell.dataset, cell.fold(CONFIG.folds))]


def judged(cell):
    """What says how a finished cell was judged: its metrics, which have the predictions' digest, and these."""
    return [f"results/cells/{cell.path}/metrics.json", ancient(f"results/cells/{cell.path}/predictions.parquet")]
