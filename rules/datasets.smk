# Needs nothing but the network, or a folder of images. Makes each data set's store: the images decoded once into a
# memory-mapped array, their index with the split, and a manifest. Every later stage reads the store.


rule download:
    output:
        "results/downloads/{dataset}/{archive}",
    log:
        "results/logs/download/{dataset}/{archive}.log",
    conda:
        "../envs/winnow.yaml"
    params:
        spec=lambda wildcards: spec(
            "download.py",
            dataset=wildcards.dataset,
            archive=wildcards.archive,
            url=archive_of(wildcards).url,
            digest=archive_of(wildcards).digest,
        ),
    shell:
        "stage download --spec {params.spec:q} --output {output:q} 2>&1 | tee {log:q}"


rule decode:
    input:
        lambda wildcards: [
            f"results/downloads/{wildcards.dataset}/{archive.name}" for archive in dataset_archives(wildcards.dataset)
        ],
    output:
        images="results/datasets/{dataset}/images.npy",
        index="results/datasets/{dataset}/index.parquet",
        manifest="results/datasets/{dataset}/manifest.json",
    log:
        "results/logs/decode/{dataset}.log",
    conda:
        "../envs/winnow.yaml"
    threads: PLAN.decoding_threads
    params:
        spec=lambda wildcards: spec("decode.py", name=wildcards.dataset, dataset=dataset_spec(wildcards.dataset)),
    shell:
        "stage decode --spec {params.spec:q} --archives {input:q}"
        " --output results/datasets/{wildcards.dataset} --threads {threads} > {log:q} 2>&1"
