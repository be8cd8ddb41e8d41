# Needs an experiment's recommendation and the cells that it chooses. Makes of each the folder that its user takes home:
# model.safetensors, model.onnx, model.json, README.md, example.py. A cell whose network was not kept is trained again.


rule export:
    input:
        [f"results/experiments/{name}/models" for name in CONFIG.targets],


# Which cells are chosen is known when the grid is done: Snakemake looks at the DAG once more after a checkpoint. It is
# none of the grid's own rules, so that a grid without exports knows of no checkpoint.
checkpoint choose:
    input:
        "results/experiments/{experiment}/recommendation.json",
    output:
        "results/experiments/{experiment}/chosen.json",
    log:
        "results/logs/choose/{experiment}.log",
    conda:
        "../envs/winnow.yaml"
    params:
        spec=lambda wildcards: spec("choose.py", experiment=wildcards.experiment),
    shell:
        "stage choose --spec {params.spec:q} --recommendation {input:q} --output {output:q} > {log:q} 2>&1"


rule export_chosen:
    input:
        cells=lambda wildcards: [kept_cell(cell) for cell in chosen_cells(wildcards)],
        datasets=lambda wildcards: [
            f"results/datasets/{cell.dataset}/manifest.json" for cell in chosen_cells(wildcards)
        ],
    output:
        directory("results/experiments/{experiment}/models"),
    log:
        "results/logs/export_chosen/{experiment}.log",
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.export_threads
    params:
        spec=lambda wildcards: spec("export.py", experiment=wildcards.experiment),
    shell:
        "for file in {input.cells:q}; do"
        ' IFS=/ read -r _ _ dataset backbone _ <<< "$file";'
        ' stage export --spec {params.spec:q} --cell "$(dirname "$file")" --dataset "results/datasets/$dataset"'
        ' --output {output:q}/"$dataset-$backbone";'
        " done > {log:q} 2>&1"


rule export_cell:
    input:
        dataset="results/datasets/{dataset}/manifest.json",
        cell=lambda wildcards: kept_cell(cell_of(wildcards)),
    output:
        directory(f"results/exports/{CELL}"),
    log:
        f"results/logs/export_cell/{CELL}.log",
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.pass_threads
    params:
        spec=lambda wildcards: spec("export.py"),
    shell:
        'stage export --spec {params.spec:q} --cell "$(dirname {input.cell:q})"'
        " --dataset results/datasets/{wildcards.dataset} --output {output:q} > {log:q} 2>&1"


use rule finetune as retrain with:
    output:
        multiext(
            f"results/models/{CELL}/",
            metrics="metrics.json",
            history="history.parquet",
            predictions="predictions.parquet",
            weights="model.safetensors",
            description="model.json",
        ),
    log:
        f"results/logs/retrain/{CELL}.log",
    cache: False
    params:
        spec=lambda wildcards: cell_spec(wildcards, models="keep"),
