# Needs weights: torchvision's, which are downloaded, a file, or a data set to pretrain on. Makes each backbone's weights
# in one form, its channel table (which slices of which tensors go with a filter) and a manifest.


rule pretrain:
    "trains the network that will be pruned"
    input:
        dataset=lambda wildcards: filled(STORE, dataset=CONFIG.backbones[wildcards.backbone].pretrain.dataset),
        split=needs(wiring.pretraining_split),
    output:
        weights="results/backbones/{backbone}/pretrained.safetensors",
        manifest="results/backbones/{backbone}/pretrained.json",
    log:
        "results/logs/pretrain/{backbone}.log",
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.pretraining_threads
    resources:
        gpu=1,
        mem_mb=PLAN.pretraining_mb,
    params:
        spec=spec(specs.pretrain),
    shell:
        "stage pretrain --spec {params.spec:q} --dataset {input.dataset:q} --split {input.split:q}"
        " --output {output:q} --gpu {resources.gpu} > {log:q} 2>&1"


rule import_backbone:
    "brings a network into one form, and finds what goes with each filter"
    input:
        # Their digests are in the spec, or in the manifest.
        weights=ancient(needs(wiring.weights)),
        own=users_own(wiring.own_weights),
        source=users_own(wiring.factory_source),
        manifest=needs(wiring.weights_manifest),
    output:
        weights="results/backbones/{backbone}/weights.safetensors",
        channels="results/backbones/{backbone}/channels.parquet",
        manifest="results/backbones/{backbone}/manifest.json",
    log:
        "results/logs/import_backbone/{backbone}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.import_backbone),
    shell:
        "stage import_backbone --spec {params.spec:q} --weights {input.weights:q} {input.own:q} --output {output:q}"
        " > {log:q} 2>&1"
