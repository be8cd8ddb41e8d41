# Needs a data set's manifest, a backbone's and its channel table. Makes what a network costs by the widths of its layers:
# multiply-accumulates, parameters, or milliseconds, which are measured once on this machine.


rule price:
    "says what a network costs by its widths"
    input:
        dataset="results/datasets/{dataset}/manifest.json",
        backbone=WIDTHS,
    output:
        "results/prices/{dataset}/{backbone}/{measure}.json",
    log:
        "results/logs/price/{dataset}/{backbone}/{measure}.log",
    wildcard_constraints:
        measure="macs|params",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.price),
    shell:
        "stage price --spec {params.spec:q} --dataset {input.dataset:q} --backbone {input.backbone:q}"
        " --output {output:q} > {log:q} 2>&1"


# As in rules/latency.smk nothing runs beside it.
rule time_layers:
    "times every layer at a grid of widths"
    input:
        dataset="results/datasets/{dataset}/manifest.json",
        backbone=WIDTHS,
    output:
        "results/prices/{dataset}/{backbone}/latency.json",
    log:
        "results/logs/time_layers/{dataset}/{backbone}.log",
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.machine.cores
    resources:
        gpu=1,
        used_threads=lambda wildcards, threads: min(threads, PLAN.cell_threads(wildcards)),
    params:
        spec=spec(specs.time_layers),
    shell:
        "OMP_NUM_THREADS={resources.used_threads} stage price --spec {params.spec:q}"
        " --dataset {input.dataset:q} --backbone {input.backbone:q}"
        " --output {output:q} --gpu {resources.gpu} > {log:q} 2>&1"
