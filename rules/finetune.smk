# Needs a data set's store, a backbone and a mask (none for the unpruned baseline); by the cell's protocol the baseline's
# network to learn from, or scores in place of the mask. Makes a cell: the pruned network, fine-tuned, with its metrics,
# history and test predictions, and its own mask where it prunes while it trains.


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
    threads: PLAN.cell_threads
    resources:
        gpu=1,
        mem_mb=PLAN.cell_mb,
    params:
        spec=cell_spec,
    shell:
        "case {wildcards.init:q} in"
        " *~fine_tune_first | *~iterative_?) set -- alternate --scores {input.scores:q};;"
        " *) set -- finetune --mask {input.mask:q} --teacher {input.teacher:q};;"
        " esac;"
        ' stage "$@" --spec {params.spec:q} --dataset results/datasets/{wildcards.dataset}'
        " --backbone results/backbones/{wildcards.backbone}"
        ' --output "$(dirname {output.metrics:q})"'
        " --gpu {resources.gpu} > {log:q} 2>&1"
