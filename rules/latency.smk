# Needs a data set's manifest, a backbone and a mask (none for the unpruned network). Makes the latency of one network,
# in turn with the unpruned one. Masks that leave the same widths share one file: by layer all criteria do.


rule latency:
    input:
        dataset="results/datasets/{dataset}/manifest.json",
        backbone=BACKBONE,
        mask=needs(wiring.latency_mask),
    output:
        f"results/latency/{MASK}.json",
    log:
        f"results/logs/latency/{MASK}.log",
    conda:
        "../envs/winnow.yaml"
    # Every job takes a core, so with all of them none runs beside this one, whatever number of GPUs there is. It computes
    # with as many as a cell of the data set does.
    threads: PLAN.machine.cores
    resources:
        gpu=1,
        used_threads=lambda wildcards, threads: min(threads, PLAN.cell_threads(wildcards)),
    params:
        spec=spec(specs.latency),
    shell:
        "OMP_NUM_THREADS={resources.used_threads} stage clock --spec {params.spec:q}"
        " --dataset {input.dataset:q} --backbone {input.backbone:q}"
        " --mask {input.mask:q} --output {output:q} --gpu {resources.gpu} > {log:q} 2>&1"
