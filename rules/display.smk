# Needs a run's jobs. Makes what it shows: a forecast, progress, warnings, and at the end the answers that were asked for.


def own(jobs):
    """Those of this configuration's rules: where the workflow is a module, others have jobs in the DAG, too."""
    return [job for job in jobs if job.rule.module_globals.get("CONFIG") == CONFIG]


def forecast():
    """What the cells of this run can find out, how long its trainings take, and how much disk its jobs will fill."""
    jobs = [(run.makes(job.rule), job.wildcards) for job in own(workflow.dag.needrun_jobs())]
    trained = [(cell_of(wildcards), made) for made, wildcards in jobs if made in ("cells", "models")]
    stores = {wildcards.dataset for made, wildcards in jobs if made == "datasets"}
    judged = sorted({cell.dataset for cell, made in trained if made == "cells"})
    said = [promises.of_data_set(CONFIG, name) for name in judged]
    said.append(promises.of_searches(sum(made == "rates" for made, _ in jobs)))
    kept = [(cell, made == "models" or KEPT(cell)) for cell, made in trained]
    growing = sorted({wildcards.experiment for _, wildcards in jobs if wildcards.get("step")})
    judged = [cell for name in growing for cell in growth.may_be_judged(axes_of(name))]
    works = [hours.of_cell(CONFIG, cell) for cell, _ in trained]
    works += [hours.of_search(CONFIG, cell_of(wildcards)) for made, wildcards in jobs if made == "rates"]
    works += [hours.of_trunk(trunk_of(wildcards)) for made, wildcards in jobs if made == "trunks"]
    processor = None if SUBMITS else devices.processor()
    said.append(hours.forecast(CONFIG, works, PLAN.machine, processor, bool(growing)))
    return "\n".join(filter(None, [*said, disk.forecast(CONFIG, kept, stores, judged)]))


def unrecorded():
    """Results of another configuration or code that Snakemake takes for finished, since its record of them is gone."""
    known = workflow.persistence.has_metadata
    jobs = [job for job in own(workflow.dag.jobs) if job.output and not workflow.dag.needrun(job) and not known(job)]
    return provenance.others((str(job.output[-1]), job.params.spec) for job in jobs)


def announce():
    """Print the summaries of the experiments that were asked for."""
    run.announce(workflow, SCRIPTS / "show.py")


run.prepare(workflow, forecast, announce, unrecorded)


onstart:
    # The lock is held by the open file, until this process ends.
    workflow.globals["held_lock"] = checked(run.lock)
    run.be_stoppable(workflow)


onsuccess:
    announce()
