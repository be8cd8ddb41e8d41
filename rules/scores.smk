# Needs a backbone and, for a criterion that looks at images, the statistics. Makes one score a filter, higher = keep.


rule score:
    input:
        unpack(score_inputs),
    output:
        "results/scores/{dataset}/{backbone}/{criterion}.parquet",
    log:
        "results/logs/score/{dataset}/{backbone}/{criterion}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        spec=score_spec,
    shell:
        "stage score --spec {params.spec:q} --backbone results/backbones/{wildcards.backbone}"
        " --statistics {input.statistics:q} --output {output:q} > {log:q} 2>&1"
