# Needs one criterion's scores. Makes a mask: which filters stay, in what order they go, exactly as many as asked for.


rule mask:
    input:
        "results/scores/{dataset}/{backbone}/{criterion}.parquet",
    output:
        "results/masks/{dataset}/{backbone}/{criterion}/{scope}/{ratio}.parquet",
    log:
        "results/logs/mask/{dataset}/{backbone}/{criterion}/{scope}/{ratio}.log",
    wildcard_constraints:
        dataset=IMAGES,
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.mask),
    shell:
        "stage mask --spec {params.spec:q} --scores {input:q} --output {output:q} > {log:q} 2>&1"
