# Needs a data set's store and a backbone. Makes the activation statistics, one pass over the training images, per class,
# from which every activation criterion is a query; and the gradient statistics likewise, for criteria that look at them.


rule measure:
    input:
        images="results/datasets/{dataset}/images.npy",
        dataset="results/datasets/{dataset}/manifest.json",
        backbone="results/backbones/{backbone}/manifest.json",
    output:
        arrays="results/statistics/{dataset}/{backbone}/activations.npz",
        manifest="results/statistics/{dataset}/{backbone}/activations.json",
    log:
        "results/logs/measure/{dataset}/{backbone}.log",
    conda:
        "../envs/winnow.yaml"
    threads: lambda wildcards: threads_for(wildcards.dataset)
    resources:
        gpu=1,
    params:
        spec=lambda wildcards: spec("measure.py", dataset=wildcards.dataset, backbone=wildcards.backbone),
    shell:
        "stage measure --spec {params.spec:q} --dataset results/datasets/{wildcards.dataset}"
        " --backbone results/backbones/{wildcards.backbone} --output {output.manifest:q} --gpu {resources.gpu} > {log:q} 2>&1"


rule differentiate:
    input:
        images="results/datasets/{dataset}/images.npy",
        dataset="results/datasets/{dataset}/manifest.json",
        backbone="results/backbones/{backbone}/manifest.json",
    output:
        arrays="results/statistics/{dataset}/{backbone}/gradients.npz",
        manifest="results/statistics/{dataset}/{backbone}/gradients.json",
    log:
        "results/logs/differentiate/{dataset}/{backbone}.log",
    conda:
        "../envs/winnow.yaml"
    threads: lambda wildcards: threads_for(wildcards.dataset)
    resources:
        gpu=1,
    params:
        spec=lambda wildcards: spec("differentiate.py", dataset=wildcards.dataset, backbone=wildcards.backbone),
    shell:
        "stage differentiate --spec {params.spec:q} --dataset results/datasets/{wildcards.dataset}"
        " --backbone results/backbones/{wildcards.backbone} --output {output.manifest:q} --gpu {resources.gpu} > {log:q} 2>&1"
