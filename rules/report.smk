# Needs an experiment's summary, figures, recommendation and cells. Makes its report: one HTML page that needs no network.


rule write_report:
    input:
        cells=lambda wildcards: [
            f"results/cells/{cell.path}/metrics.json" for cell in experiment_cells(wildcards.experiment)
        ],
        summary="results/experiments/{experiment}/summary.parquet",
        recommendation="results/experiments/{experiment}/recommendation.json",
        figures="results/experiments/{experiment}/figures",
        screening=lambda wildcards: screenings(wildcards.experiment),
    output:
        report(
            "results/experiments/{experiment}/report.html",
            caption="captions/report.rst",
            category="{experiment}",
            labels={"result": "report", "form": "page"},
        ),
    log:
        "results/logs/write_report/{experiment}.log",
    localrule: True
    conda:
        "../envs/winnow.yaml"
    params:
        # The page asks what a criterion needs, not how it is computed: a new one changes no page.
        spec=lambda wildcards: spec(
            "report.py",
            grid.UNPRUNED,
            experiment=wildcards.experiment,
            configuration=CONFIG.part(wildcards.experiment),
        ),
    shell:
        'stage report --spec {params.spec:q} --experiment "$(dirname {input.summary:q})" --results results'
        " --screening {input.screening:q} --output {output:q} > {log:q} 2>&1"
