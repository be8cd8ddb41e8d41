# Needs a run's jobs. Makes what it shows: a forecast, progress, warnings, and at the end the answers that were asked for.


def forecast():
    """How much disk the jobs of this run will fill."""
    trained = ("finetune", "finetune_kept", "retrain")
    jobs = [job for job in workflow.dag.needrun_jobs() if job.rule.name in ("decode", *trained)]
    cells = [(cell_of(job.wildcards), job.rule.name != "finetune") for job in jobs if job.rule.name in trained]
    stores = {job.wildcards.dataset for job in jobs if job.rule.name == "decode"}
    return disk.forecast(CONFIG, cells, stores)


def unrecorded():
    """Results of another configuration or code that Snakemake takes for finished, since its record of them is gone."""
    known = workflow.persistence.has_metadata
    jobs = [job for job in workflow.dag.jobs if job.output and not workflow.dag.needrun(job) and not known(job)]
    return provenance.others((str(job.output[-1]), job.params.spec) for job in jobs)


def announce():
    """Print the summaries of the experiments that were asked for."""
    asked = [job.rule.name for job in workflow.dag.targetjobs]
    for name in CONFIG.targets if "all" in asked else asked:
        # What lies in a storage only is not printed.
        if name in CONFIG.experiments and Path(wiring.answers(name)[0]).exists():
            parquet, verdict, figures, _ = wiring.answers(name)
            shell("stage show --summary {parquet:q} --verdict {verdict:q} --figures {figures:q}")


run.prepare(workflow, forecast, announce, unrecorded)


onstart:
    # The lock is held by the open file, until this process ends.
    workflow.globals["held_lock"] = checked(run.lock)


onsuccess:
    announce()
