# Needs a data set's store, a backbone and a mask (none for the unpruned baseline). Makes a cell: the pruned network,
# fine-tuned, with its metrics, history and test predictions.


rule finetune:
    input:
        unpack(cell_inputs),
    output:
        metrics=f"results/cells/{CELL}/metrics.json",
        history=f"results/cells/{CELL}/history.parquet",
        predictions=f"results/cells/{CELL}/predictions.parquet",
    log:
        f"results/logs/finetune/{CELL}.log",
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
