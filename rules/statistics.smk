# Needs a data set's store, a split and a backbone. Makes the activation statistics, one pass over the training images,
# per class, from which every activation criterion is a query, and how fast that was, of which a dry run makes hours; the
# gradient statistics likewise, for criteria that look at them; and the moments of what layers hear, for cells whose cuts
# are repaired.


rule measure:
    "puts the training images through the network, and adds up what each filter does"
    input:
        dataset=store_of,
        split=needs(wiring.training_split),
        backbone=BACKBONE,
    output:
        arrays="results/statistics/{dataset}/{backbone}/activations.npz",
        manifest="results/statistics/{dataset}/{backbone}/activations.json",
        speed="results/statistics/{dataset}/{backbone}/speed.json",
    log:
        "results/logs/measure/{dataset}/{backbone}.log",
    wildcard_constraints:
        dataset=IMAGES,
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.pass_threads
    resources:
        gpu=1,
    params:
        spec=spec(specs.measure),
    shell:
        "stage measure --spec {params.spec:q} --dataset {input.dataset:q} --split {input.split:q}"
        " --backbone {input.backbone:q} --output {output.manifest:q} --gpu {resources.gpu} > {log:q} 2>&1"


rule differentiate:
    "adds up, over the training images, what the loss would change without each filter"
    input:
        dataset=store_of,
        split=needs(wiring.training_split),
        backbone=BACKBONE,
    output:
        arrays="results/statistics/{dataset}/{backbone}/gradients.npz",
        manifest="results/statistics/{dataset}/{backbone}/gradients.json",
    log:
        "results/logs/differentiate/{dataset}/{backbone}.log",
    wildcard_constraints:
        dataset=IMAGES,
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.pass_threads
    resources:
        gpu=1,
    params:
        spec=spec(specs.differentiate),
    shell:
        "stage differentiate --spec {params.spec:q} --dataset {input.dataset:q} --split {input.split:q}"
        " --backbone {input.backbone:q} --output {output.manifest:q} --gpu {resources.gpu} > {log:q} 2>&1"


rule correlate:
    "adds up, over the training images, what each layer hears"
    input:
        dataset=store_of,
        split=needs(wiring.training_split),
        backbone=BACKBONE,
    output:
        arrays="results/statistics/{dataset}/{backbone}/moments.npz",
        manifest="results/statistics/{dataset}/{backbone}/moments.json",
    log:
        "results/logs/correlate/{dataset}/{backbone}.log",
    wildcard_constraints:
        dataset=IMAGES,
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.pass_threads
    resources:
        gpu=1,
    params:
        spec=spec(specs.correlate),
    shell:
        "stage correlate --spec {params.spec:q} --dataset {input.dataset:q} --split {input.split:q}"
        " --backbone {input.backbone:q} --output {output.manifest:q} --gpu {resources.gpu} > {log:q} 2>&1"
