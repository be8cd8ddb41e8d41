# Needs one criterion's scores and, where the scope is a budget, what the network costs by its widths. Makes a mask: which
# filters stay, in what order they go, exactly as many as asked for.


rule mask:
    "says which filters stay"
    input:
        scores="results/scores/{dataset}/{backbone}/{criterion}.parquet",
        prices=needs(wiring.prices),
        backbone=widths,
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
        "stage mask --spec {params.spec:q} --scores {input.scores:q} --prices {input.prices:q}"
        " --backbone {input.backbone:q} --output {output:q} > {log:q} 2>&1"
