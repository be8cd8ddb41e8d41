# Needs a backbone and, for a criterion that looks at images, the statistics. Makes one score a filter, higher = keep.


def arrays(config, **place):
    """What lies beside the statistics' manifest."""
    return wiring.arrays(wiring.statistics(config, **place))


rule score:
    input:
        backbone=BACKBONE,
        statistics=needs(wiring.statistics),
        arrays=ancient(needs(arrays)),
    output:
        "results/scores/{dataset}/{backbone}/{criterion}.parquet",
    log:
        "results/logs/score/{dataset}/{backbone}/{criterion}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=spec(specs.score),
    shell:
        "stage score --spec {params.spec:q} --backbone {input.backbone:q}"
        " --statistics {input.statistics:q} --output {output:q} > {log:q} 2>&1"
