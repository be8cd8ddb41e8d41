# Needs an experiment's cells. Makes a run of MLflow of each, in a store of the experiment's own, or, where
# MLFLOW_TRACKING_URI is set, where that says. No other target asks for it.


rule track:
    input:
        cells=of_cells("results/cells/{cell}/metrics.json"),
        # Their digests are in the metrics.
        histories=ancient(of_cells("results/cells/{cell}/history.parquet")),
        masks=ancient(of_cells("results/cells/{cell}/mask.parquet")),
        growth=grown,
    output:
        runs="results/experiments/{experiment}/mlflow.json",
        store=directory("results/experiments/{experiment}/mlflow"),
    log:
        "results/logs/track/{experiment}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.track),
    shell:
        "stage track --spec {params.spec:q} --results {input.cells[0]:q} --growth {input.growth:q}"
        " --store {output.store:q} --output {output.runs:q} > {log:q} 2>&1"
