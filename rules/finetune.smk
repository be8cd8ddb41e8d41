# Needs a data set's store, a backbone and a mask (none for the unpruned baseline). Makes a cell: the pruned network,
# fine-tuned, with its metrics, history and test predictions.


rule finetune:
    input:
        unpack(cell_inputs),
    output:
        multiext(
            f"results/cells/{CELL}/",
            metrics="metrics.json",
            history="history.parquet",
            predictions="predictions.parquet",
        ),
    log:
        f"results/logs/finetune/{CELL}.log",
    cache: "omit-software"
    conda:
        "../envs/winnow.yaml"
    threads: lambda wildcards: threads_for(wildcards.dataset)
    resources:
        gpu=1,
    params:
        spec=cell_spec,
    shell:
        "stage finetune --spec {params.spec:q} --dataset results/datasets/{wildcards.dataset}"
        " --backbone results/backbones/{wildcards.backbone} --mask {input.mask:q}"
        ' --output "$(dirname {output.metrics:q})"'
        " --gpu {resources.gpu} > {log:q} 2>&1"
