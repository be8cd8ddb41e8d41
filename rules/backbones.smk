# Needs weights: torchvision's, a file, or a data set to pretrain on. Makes each backbone's weights in one form, its
# channel table (which slices of which tensors go with a filter) and a manifest.


rule pretrain:
    input:
        lambda wildcards: f"results/datasets/{CONFIG.backbones[wildcards.backbone].pretrain.dataset}/manifest.json",
    output:
        "results/backbones/{backbone}/pretrained.safetensors",
    log:
        "results/logs/pretrain/{backbone}.log",
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.pretraining_threads
    resources:
        gpu=1,
        mem_mb=PLAN.pretraining_mb,
    params:
        spec=lambda wildcards: spec("pretrain.py", **pretraining(wildcards.backbone)),
    shell:
        'stage pretrain --spec {params.spec:q} --dataset "$(dirname {input:q})"'
        " --output {output:q} --gpu {resources.gpu} > {log:q} 2>&1"


rule import_backbone:
    input:
        backbone_weights,
    output:
        weights="results/backbones/{backbone}/weights.safetensors",
        channels="results/backbones/{backbone}/channels.parquet",
        manifest="results/backbones/{backbone}/manifest.json",
    log:
        "results/logs/import_backbone/{backbone}.log",
    conda:
        "../envs/winnow.yaml"
    params:
        spec=lambda wildcards: spec(
            "import_backbone.py",
            name=wildcards.backbone,
            backbone=backbone_spec(
                wildcards.backbone, {"architecture", "head", "weights", "weights_file", "weights_url", "mean", "std"}
            ),
        ),
    shell:
        "stage import_backbone --spec {params.spec:q} --weights {input:q}"
        " --output results/backbones/{wildcards.backbone} > {log:q} 2>&1"
