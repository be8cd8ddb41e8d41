# Needs the metrics of an experiment's cells, for the figures also what the cells were made from: scores, masks and, where
# a criterion looks at activations, the statistics. Makes the experiment's summary table and figures.


rule summarize:
    input:
        lambda wildcards: [f"results/cells/{cell.path}/metrics.json" for cell in experiment_cells(wildcards.experiment)],
    output:
        parquet="results/experiments/{experiment}/summary.parquet",
        csv="results/experiments/{experiment}/summary.csv",
        markdown="results/experiments/{experiment}/summary.md",
    log:
        "results/logs/summarize/{experiment}.log",
    conda:
        "../envs/winnow.yaml"
    params:
        spec=lambda wildcards: spec(
            "summarize.py",
            experiment=wildcards.experiment,
            grid=CONFIG.experiments[wildcards.experiment].model_dump(exclude={"models"}),
        ),
    shell:
        "stage summarize --spec {params.spec:q} --results results"
        " --output results/experiments/{wildcards.experiment} > {log:q} 2>&1"


rule plot:
    input:
        unpack(plot_inputs),
    output:
        directory("results/experiments/{experiment}/figures"),
    log:
        "results/logs/plot/{experiment}.log",
    conda:
        "../envs/winnow.yaml"
    params:
        spec=lambda wildcards: spec(
            "plot.py",
            experiment=wildcards.experiment,
            grid=CONFIG.experiments[wildcards.experiment].model_dump(exclude={"models"}),
            activations=bool(plot_inputs(wildcards)["activations"]),
        ),
    shell:
        "stage plot --spec {params.spec:q} --summary {input.summary:q} --results results --output {output:q}"
        " > {log:q} 2>&1"
