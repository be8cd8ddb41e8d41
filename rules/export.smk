# Needs an experiment's recommendation, the cells that it chooses, and the unpruned ones that they are held against. Makes
# of each the folder that its user takes home: model.safetensors, model.onnx, model.int8.onnx, model.json, README.md,
# example.py. A cell whose network was not kept is trained again; one that comes out otherwise than it was judged is not
# exported.


rule export:
    input:
        [f"results/experiments/{name}/models.json" for name in CONFIG.targets],
        [f"results/experiments/{name}/report_models.html" for name in CONFIG.targets],
        [f"results/experiments/{name}/models" for name in CONFIG.targets if ON_DISK],


# Which cells are chosen is known when the grid is done: Snakemake looks at the DAG once more after a checkpoint. It is
# none of the grid's own rules, so that a grid without exports knows of no checkpoint.
checkpoint choose:
    input:
        "results/experiments/{experiment}/recommendation.json",
    output:
        "results/experiments/{experiment}/chosen.json",
    log:
        "results/logs/choose/{experiment}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.choose),
    shell:
        "stage choose --spec {params.spec:q} --recommendation {input:q} --output {output:q} > {log:q} 2>&1"


rule export_chosen:
    input:
        chosen="results/experiments/{experiment}/chosen.json",
        cells=lambda wildcards: [file for cell in chosen_cells(wildcards) for file in judged(cell)],
        networks=lambda wildcards: [file for cell in chosen_cells(wildcards) for file in network_files(cell)],
        unpruned=lambda wildcards: [file for _, cell in chosen(wildcards) for file in judged(cell)],
        whole=whole_networks,
        datasets=lambda wildcards: [
            file for cell in chosen_cells(wildcards) for file in filled(STORE, dataset=cell.dataset)
        ],
        splits=lambda wildcards: [file for cell in chosen_cells(wildcards) for file in split_of(cell)],
    output:
        digests="results/experiments/{experiment}/models.json",
        certificates="results/experiments/{experiment}/certificates.json",
        models=directory("results/experiments/{experiment}/models"),
    log:
        "results/logs/export_chosen/{experiment}.log",
    # Snakemake does not see a folder in S3 that was made elsewhere.
    localrule: not ON_DISK
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.export_threads
    params:
        spec=spec(specs.export_chosen),
    shell:
        "stage export --spec {params.spec:q} --chosen {input.chosen:q} --results {input.cells[0]:q}"
        " --whole {input.whole:q} --output {output.models:q} --digests {output.digests:q} --certificates {output.certificates:q}"
        " > {log:q} 2>&1"


rule export_cell:
    input:
        dataset=STORE,
        split=needs(wiring.cell_split),
        cell=lambda wildcards: judged(cell_of(wildcards)),
        unpruned=lambda wildcards: judged(cell_of(wildcards).baseline),
        network=lambda wildcards: network_files(cell_of(wildcards)),
    output:
        directory(f"results/exports/{CELL}"),
    log:
        f"results/logs/export_cell/{CELL}.log",
    localrule: not ON_DISK
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.pass_threads
    params:
        spec=spec(specs.export_cell),
    shell:
        "stage export --spec {params.spec:q} --cell {input.cell:q} --unpruned {input.unpruned:q} --network {input.network:q}"
        " --dataset {input.dataset:q} --split {input.split:q} --output {output:q} > {log:q} 2>&1"
