# Needs a backbone and, for a criterion that looks at images, the statistics. Makes one score a filter, higher = keep.


rule score:
    "makes one number of each filter"
    input:
        backbone=BACKBONE,
        statistics=needs(wiring.statistics),
        arrays=ancient(needs(wiring.statistics_arrays)),
    output:
        "results/scores/{dataset}/{backbone}/{criterion}.parquet",
    log:
        "results/logs/score/{dataset}/{backbone}/{criterion}.log",
    wildcard_constraints:
        dataset=IMAGES,
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.score),
    shell:
        "stage score --spec {params.spec:q} --backbone {input.backbone:q}"
        " --statistics {input.statistics:q} --output {output:q} > {log:q} 2>&1"
