# Needs nothing but the network, or a folder of images. Makes every file that is downloaded, archives as well as
# torchvision's weights (their dataset is called weights), each data set's store: the images decoded once into a
# memory-mapped array, their index and a manifest; and its splits, which say what trains, chooses and judges. Every later
# stage reads a store and one split of it.


rule download:
    "fetches a file of a data set or a network"
    output:
        "results/downloads/{dataset}/{archive}",
    log:
        "results/logs/download/{dataset}/{archive}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.download),
    shell:
        "stage download --spec {params.spec:q} --output {output:q} > {log:q} 2>&1"


rule decode:
    "reads every image once, into one array"
    input:
        # Their digests are in the spec.
        archives=ancient(needs(wiring.downloads)),
        # In a storage, a job with a file of this machine is not submitted: a user's images are decoded where they are.
        own=[] if ON_DISK else users_own(wiring.own_images),
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
        spec=spec(specs.decode),
    shell:
        "stage decode --spec {params.spec:q} --archives {input.archives:q} --output {output:q}"
        " --threads {threads} > {log:q} 2>&1"


rule split:
    "says which images train, choose and judge"
    input:
        STORE[0],
        # Its digest is in the manifest.
        STORE[2],
    output:
        "results/splits/{dataset}/{fold}.parquet",
    log:
        "results/logs/split/{dataset}/{fold}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.split),
    shell:
        "stage split --spec {params.spec:q} --dataset {input:q} --output {output:q} > {log:q} 2>&1"
