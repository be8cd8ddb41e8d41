# Needs a data set's store, a split, a backbone and a mask (none for the unpruned baseline); by the cell's protocol the
# baseline's network to learn from, the moments to repair its cut by, or a trunk in place of mask and moments; where its
# recipe has none, the learning rate that short trainings of its shape find; and where what it has trained is cut to a
# budget, what the network costs. Makes a cell: the pruned network, fine-tuned, with its metrics, history, test
# predictions and mask; and, as files of its own, the network, where an experiment keeps it.
#
# Whether a network is kept is no part of a cell: three rules run the same command for different files of it, and each
# refuses the cells that are not its own.


# The learning rate of all cells of one shape, where their recipe leaves it to a search.
rule tune:
    "finds a learning rate by short trainings"
    input:
        dataset=STORE,
        split=needs(wiring.cell_split),
        backbone=BACKBONE,
        mask=needs(wiring.mask),
        moments=needs(wiring.moments),
        moments_arrays=ancient(needs(wiring.moments_arrays)),
    output:
        f"results/rates/{wiring.NETWORK}/rate.json",
    log:
        f"results/logs/tune/{wiring.NETWORK}.log",
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.cell_threads
    resources:
        gpu=1,
        mem_mb=PLAN.cell_mb,
    params:
        spec=spec(specs.tune),
    shell:
        "stage tune --spec {params.spec:q} --dataset {input.dataset:q} --split {input.split:q}"
        " --backbone {input.backbone:q} --mask {input.mask:q} --moments {input.moments:q}"
        " --output {output:q} --gpu {resources.gpu} > {log:q} 2>&1"


# What cells begin with that prune what they have trained, once for all that share it.
rule trunk:
    "trains what several cells begin with"
    input:
        dataset=store_of,
        split=needs(wiring.training_split),
        backbone=BACKBONE,
        scores=needs(wiring.scores),
        moments=needs(wiring.moments),
        moments_arrays=ancient(needs(wiring.moments_arrays)),
        rate=needs(wiring.rates),
        prices=needs(wiring.prices_between),
    output:
        multiext(f"results/trunks/{TRUNK}/", *TRUNK_FILES),
    log:
        f"results/logs/trunk/{TRUNK}.log",
    wildcard_constraints:
        dataset=IMAGES,
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.cell_threads
    resources:
        gpu=1,
        mem_mb=PLAN.cell_mb,
    params:
        spec=spec(specs.trunk),
    shell:
        "stage trunk --spec {params.spec:q} --dataset {input.dataset:q} --split {input.split:q}"
        " --backbone {input.backbone:q} --scores {input.scores:q} --moments {input.moments:q}"
        " --rate {input.rate:q} --prices {input.prices:q}"
        " --output {output:q} --gpu {resources.gpu} > {log:q} 2>&1"


rule finetune:
    "fine-tunes a pruned network and judges it"
    input:
        dataset=STORE,
        split=needs(wiring.cell_split),
        backbone=BACKBONE,
        mask=of_cell(wiring.mask, kept=False),
        moments=needs(wiring.moments),
        moments_arrays=ancient(needs(wiring.moments_arrays)),
        rate=needs(wiring.rates),
        prices=needs(wiring.prices_between),
        trunk=trunk_files,
        teacher=teacher_files,
    output:
        multiext(f"results/cells/{CELL}/", *wiring.CELL_FILES),
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
        spec=spec(specs.cell),
    shell:
        "stage finetune --spec {params.spec:q} --dataset {input.dataset:q} --split {input.split:q}"
        " --backbone {input.backbone:q} --mask {input.mask:q} --moments {input.moments:q}"
        " --rate {input.rate:q} --prices {input.prices:q} --trunk {input.trunk:q} --teacher {input.teacher:q}"
        " --output {output:q} --gpu {resources.gpu} > {log:q} 2>&1"


# Cells that an experiment keeps, and those that may be taken home.
use rule finetune as finetune_kept with:
    input:
        dataset=STORE,
        split=needs(wiring.cell_split),
        backbone=BACKBONE,
        mask=of_cell(wiring.mask, kept=True),
        moments=needs(wiring.moments),
        moments_arrays=ancient(needs(wiring.moments_arrays)),
        rate=needs(wiring.rates),
        prices=needs(wiring.prices_between),
        trunk=trunk_files,
        teacher=teacher_files,
    output:
        multiext(f"results/cells/{CELL}/", *wiring.CELL_FILES),
        multiext(f"results/models/{CELL}/", *wiring.MODEL_FILES),
    cache: False


# Once more, for the network of a cell that no experiment keeps: to export it, or to learn from it.
use rule finetune as retrain with:
    output:
        multiext(f"results/models/{CELL}/", *wiring.MODEL_FILES),
    log:
        f"results/logs/retrain/{CELL}.log",
    cache: False


# The Snakemake of a submitted job does not look for what is missing, so that there nobody is refused. All that it runs is
# its own job, whoever makes what that reads: any order will do.
ruleorder: finetune > retrain > finetune_kept
