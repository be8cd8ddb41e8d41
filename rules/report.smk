# Needs an experiment's summary, figures, recommendation and cells, what these predict, and their data sets' images. Makes
# its report: one HTML page that needs no network. With what is certified of its exported networks it is another page.

PAGE = {
    "cells": of_cells("results/cells/{cell}/metrics.json"),
    # Their digests are in the metrics.
    "predictions": ancient(of_cells("results/cells/{cell}/predictions.parquet")),
    "datasets": manifests,
    # And theirs in the manifests.
    "images": ancient(from_cells(wiring.stored)),
    "splits": from_cells(wiring.only_splits),
    "summary": "results/experiments/{experiment}/summary.parquet",
    "recommendation": "results/experiments/{experiment}/recommendation.json",
    "figures": ancient("results/experiments/{experiment}/figures.zip"),
    "digests": "results/experiments/{experiment}/figures.json",
    "growth": grown,
}


rule write_report:
    input:
        **PAGE,
        certificates=[],
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
        spec=spec(specs.report),
    shell:
        "stage report --spec {params.spec:q} --results {input.cells[0]:q}"
        " --experiment {input.summary:q} {input.recommendation:q} --figures {input.figures:q}"
        " --growth {input.growth:q} --certificates {input.certificates:q} --output {output:q} > {log:q} 2>&1"


use rule write_report as write_certified with:
    input:
        **PAGE,
        certificates="results/experiments/{experiment}/certificates.json",
    output:
        "results/experiments/{experiment}/report_models.html",
    log:
        "results/logs/write_certified/{experiment}.log",
