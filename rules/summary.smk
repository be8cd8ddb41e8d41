# Needs the metrics and predictions of an experiment's cells and, where they are timed, their latencies, and of its data
# sets the classes; for the figures also what the cells were made from: scores, masks and, where a criterion looks at
# activations, the statistics. Makes the experiment's summary table, its verdict and its figures.


rule summarize:
    input:
        cells=of_cells("results/cells/{cell}/metrics.json"),
        # Their digests are in the metrics.
        predictions=ancient(of_cells("results/cells/{cell}/predictions.parquet")),
        latencies=lambda wildcards: experiment_latencies(wildcards.experiment),
        growth=grown,
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
        spec=spec(specs.summarize),
    shell:
        "stage summarize --spec {params.spec:q} --results {input.cells[0]:q} --growth {input.growth:q}"
        " --output {output:q} > {log:q} 2>&1"


rule recommend:
    input:
        summary="results/experiments/{experiment}/summary.parquet",
        cells=of_cells("results/cells/{cell}/metrics.json"),
        # Their digests are in the metrics.
        predictions=ancient(of_cells("results/cells/{cell}/predictions.parquet")),
        latencies=answered_latencies,
        datasets=manifests,
        growth=grown,
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
        spec=spec(specs.recommend),
    shell:
        "stage recommend --spec {params.spec:q} --summary {input.summary:q} --results {input.cells[0]:q}"
        " --growth {input.growth:q} --output {output:q} > {log:q} 2>&1"


rule plot:
    input:
        summary="results/experiments/{experiment}/summary.parquet",
        cells=of_cells("results/cells/{cell}/metrics.json"),
        masks=from_cells(wiring.masks),
        scores=from_cells(wiring.scores_of),
        activations=activations,
        arrays=ancient(lambda wildcards: wiring.arrays(activations(wildcards))),
        datasets=manifests,
        growth=grown,
    output:
        archive="results/experiments/{experiment}/figures.zip",
        digests="results/experiments/{experiment}/figures.json",
        figures=report(
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
        spec=spec(specs.plot),
    shell:
        "stage plot --spec {params.spec:q} --summary {input.summary:q} --results {input.cells[0]:q}"
        " --growth {input.growth:q} --output {output.figures:q}"
        " --archive {output.archive:q} --digests {output.digests:q} > {log:q} 2>&1"
