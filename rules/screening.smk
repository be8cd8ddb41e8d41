# Needs a screened experiment's candidates, trained for a part of the epochs with one seed. Makes the list of those that
# are worth training for longer; the last rung's is of those that are trained in full.


# Which cells an experiment has is known when its rungs are done: Snakemake looks at the DAG once more after each.
checkpoint screen:
    input:
        cells=rung_metrics,
        previous=rung_before,
    output:
        "results/experiments/{experiment}/screening/{rung}.json",
    log:
        "results/logs/screen/{experiment}/{rung}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.screen),
    shell:
        "stage screen --spec {params.spec:q} --previous {input.previous:q} --results {input.cells[0]:q}"
        " --output {output:q} > {log:q} 2>&1"
