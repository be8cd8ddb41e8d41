"""From config.yaml to jobs: which cells a grid has, what each job depends on, what its code is.

In comes the configuration. Out go cells and their paths (:mod:`winnow.workflow.grid`), specs, digests of code
(:mod:`winnow.workflow.identity`) and forecasts. What the Snakefile reads is here, and it is read at each start of
Snakemake: nothing in this room imports torch, pandas or SciPy.
"""
