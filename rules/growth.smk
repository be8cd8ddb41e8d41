# Needs the cells that the step before asked for; the first step's follow from the grid. Makes what a grid with seeds: auto
# trains next; the last step asks for nothing more.


# Which cells an experiment has is known when its steps are done: Snakemake looks at the DAG once more after each.
checkpoint grow:
    input:
        cells=asked_metrics,
        # Their digests are in the metrics.
        predictions=ancient(asked_predictions),
        latencies=asked_latencies,
        datasets=asked_datasets,
        previous=step_before,
    output:
        "results/experiments/{experiment}/growth/{step}.json",
    log:
        "results/logs/grow/{experiment}/{step}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.grow),
    shell:
        "stage grow --spec {params.spec:q} --previous {input.previous:q} --results {input.cells[0]:q}"
        " --output {output:q} > {log:q} 2>&1"
