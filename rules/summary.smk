# Needs the metrics and predictions of an experiment's cells and, where they are timed, their latencies; for the figures
# also what the cells were made from: scores, masks and, where a criterion looks at activations, the statistics. Makes
# the experiment's summary table, its verdict and its figures.


rule summarize:
    input:
        lambda wildcards: [f"results/cells/{cell.path}/metrics.json" for cell in experiment_cells(wildcards.experiment)],
        lambda wildcards: experiment_latencies(wildcards.experiment),
        screening=lambda wildcards: screenings(wildcards.experiment),
    output:
        parquet="results/experiments/{experiment}/summary.parquet",
        csv=report(
            "results/experiments/{experiment}/summary.csv",
            caption="captions/summary.rst",
            category="{experiment}",
            labels={"result": "summary", "form": "table"},
        ),
        markdown=report(
            "results/experiments/{experiment}/summary.md",
            caption="captions/summary.rst",
            category="{experiment}",
            labels={"result": "summary", "form": "text"},
        ),
    log:
        "results/logs/summarize/{experiment}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=lambda wildcards: spec(
            "summarize.py",
            experiment=wildcards.experiment,
            grid=grid_of(wildcards.experiment),
        ),
    shell:
        "stage summarize --spec {params.spec:q} --results results --screening {input.screening:q}"
        " --output results/experiments/{wildcards.experiment} > {log:q} 2>&1"


rule recommend:
    input:
        summary="results/experiments/{experiment}/summary.parquet",
        predictions=lambda wildcards: [
            f"results/cells/{cell.path}/predictions.parquet" for cell in experiment_cells(wildcards.experiment)
        ],
        screening=lambda wildcards: screenings(wildcards.experiment),
    output:
        parquet="results/experiments/{experiment}/recommendation.parquet",
        json="results/experiments/{experiment}/recommendation.json",
        markdown="results/experiments/{experiment}/recommendation.md",
    log:
        "results/logs/recommend/{experiment}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=lambda wildcards: spec(
            "recommend.py",
            experiment=wildcards.experiment,
            grid=grid_of(wildcards.experiment),
            tolerance=CONFIG.tolerance,
        ),
    shell:
        "stage recommend --spec {params.spec:q} --summary {input.summary:q} --results results"
        " --screening {input.screening:q} --output results/experiments/{wildcards.experiment} > {log:q} 2>&1"


rule plot:
    input:
        unpack(plot_inputs),
        summary="results/experiments/{experiment}/summary.parquet",
        screening=lambda wildcards: screenings(wildcards.experiment),
    output:
        report(
            directory("results/experiments/{experiment}/figures"),
            patterns=["{figure}.svg"],
            caption="captions/figures.rst",
            category="{experiment}",
            labels={"result": "{figure}", "form": "figure"},
        ),
    log:
        "results/logs/plot/{experiment}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=lambda wildcards: spec(
            "plot.py",
            experiment=wildcards.experiment,
            grid=grid_of(wildcards.experiment),
            activations=looks_at_activations(wildcards.experiment),
        ),
    shell:
        "stage plot --spec {params.spec:q} --summary {input.summary:q} --results results"
        " --screening {input.screening:q} --output {output:q} > {log:q} 2>&1"
