# Needs weights: torchvision's, a file, or a data set to pretrain on. Makes each backbone's weights in one form, its
# channel table (which slices of which tensors go with a filter) and a manifest.


rule pretrain:
    input:
        dataset=lambda wildcards: filled(STORE, dataset=CONFIG.backbones[wildcards.backbone].pretrain.dataset),
    output:
        weights="results/backbones/{backbone}/pretrained.safetensors",
        manifest="results/backbones/{backbone}/pretrained.json",
    log:
        "results/logs/pretrain/{backbone}.log",
    conda:
        "../envs/winnow.yaml"
    threads: lambda wildcards: threads_for(CONFIG.backbones[wildcards.backbone].pretrain.dataset)
    resources:
        gpu=1,
    params:
        spec=spec(specs.pretrain),
    shell:
        "stage pretrain --spec {params.spec:q} --dataset {input.dataset:q} --output {output:q}"
        " --gpu {resources.gpu} > {log:q} 2>&1"


rule import_backbone:
    input:
        weights=ancient(needs(wiring.weights)),
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
        "stage import_backbone --spec {params.spec:q} --weights {input.weights:q} --output {output:q} > {log:q} 2>&1"
