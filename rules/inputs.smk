# Which files jobs need that take more than a wildcard to name: functions of a rule's wildcards, named in its inputs.


def users_own(files):
    """A user's own files, which lie where they are whatever storage or prefix results have; digests are in the spec."""
    return lambda wildcards: [ancient(local(file)) for file in files(CONFIG, **wildcards)]


TRUNK_FILES = ["trunk.safetensors", "history.parquet", "mask.parquet", "trunk.json"]


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


def rung_before(wildcards):
    """The file of the rung before this one; none before the first."""
    position = screening.RUNGS.index(wildcards.rung)
    before = f"results/experiments/{wildcards.experiment}/screening/{screening.RUNGS[position - 1]}.json"
    return [before] if position else []


def rung_metrics(wildcards):
    name, position = wildcards.experiment, screening.RUNGS.index(wildcards.rung)
    if position:
        left = survivors(name, screening.RUNGS[position - 1])
    else:
        left = screening.candidates(CONFIG.experiments[name].model_dump())
    return [f"results/cells/{cell.path}/metrics.json" for cell in screening.rung_cells(left, wildcards.rung)]


def manifests(wildcards):
    """Those of an experiment's data sets: they have the names of the classes."""
    return wiring.manifests(experiment_cells(wildcards.experiment))


def activations(wildcards):
    """The statistics that an experiment's figures are drawn from."""
    looks = wiring.looks_at_activations(CONFIG, wildcards.experiment)
    return wiring.activations(experiment_cells(wildcards.experiment), CONFIG.folds) * looks


def chosen_cells(wildcards):
    file = checkpoints.choose.get(**wildcards).output[0]
    with file.open():
        return [grid.parse_path(each["cell"]) for each in checked(read_json, file)["chosen"]]


def split_of(cell):
    """What a cell was trained and judged by."""
    return [wiring.split(cell.dataset, cell.fold(CONFIG.folds))]


def exported(cell):
    """A finished cell's files that its export reads, its network among them."""
    folder = f"results/cells/{cell.path}"
    # The metrics have the predictions' digest.
    return [f"{folder}/metrics.json", ancient(f"{folder}/predictions.parquet"), *network_files(cell)]
