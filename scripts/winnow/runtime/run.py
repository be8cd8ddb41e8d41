"""One run of the workflow: its identity for the workers, its lock on the working directory, its display."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from snakemake.settings.types import DeploymentMethod

from winnow.files import InputError
from winnow.runtime import workers

LOCK = Path(".snakemake/winnow.lock")


def prepare(
    workflow: Any, forecast: Callable[[], str], announce: Callable[[], None], unrecorded: Callable[[], list[str]]
) -> None:
    """Let the jobs know which run they belong to, and put the run's progress on the terminal.

    ``forecast`` says, after a dry run, what the run would take; ``announce`` prints what a run that had nothing to do
    would have made; ``unrecorded`` names results that are not what the configuration asks for, without Snakemake's
    knowing it.

    The Snakemake that runs a job on its own node is the one that the job's worker belongs to: on a cluster that is the
    one inside the allocation. Only the main process has a terminal.
    """
    if not workflow.subprocess_exec:
        os.environ[workers.OWNER] = str(os.getpid())
        os.environ.setdefault(workers.SWITCH, "on")
    if workflow.is_main_process:
        from winnow.runtime import progress

        progress.attach(workflow, forecast, announce, unrecorded)


def be_stoppable(workflow: Any) -> None:
    """From now on Ctrl-C and SIGTERM end the run soon; see :mod:`winnow.runtime.stopping`."""
    from winnow.runtime import stopping

    stopping.prepare(workflow)


def interpreter(workflow: Any) -> str:
    """The Python that the jobs' programs run under.

    It is the one that runs Snakemake (a ``.venv`` need not be activated), or ``python`` where conda makes the jobs an
    environment. Environment modules and containers make none: the rules name conda's alone.
    """
    conda = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
    return "python" if conda else sys.executable


def makes(rule: Any) -> str:
    """What a rule makes, as its first output's path says below ``results/``: ``cells``, ``datasets``, ...

    It holds whatever the rule is called: whoever loads the workflow as a module renames its rules, and may put a prefix
    before its paths. Empty where nothing below ``results/`` is made.
    """
    found = re.match(r"(?:.*/)?results/(\w+)/", str(rule.output[0])) if rule.output else None
    return found[1] if found else ""


def announce(workflow: Any, program: Path) -> None:
    """Print the summaries of the experiments that the run's targets ask for, by ``program``, under this interpreter.

    Targets are rules without outputs; an experiment that one asks for has its summary among the inputs. One that lies
    in a storage only is not printed.
    """
    files = [str(file) for job in workflow.dag.targetjobs if not job.output for file in job.input]
    for file in dict.fromkeys(files):
        path = Path(file)
        if re.search(r"(^|/)results/experiments/[^/]+/summary\.parquet$", file) and path.exists():
            verdict, figures = path.with_name("recommendation.json"), path.with_name("figures")
            command: list[str | Path] = [sys.executable, program]
            command += ["--summary", path, "--verdict", verdict, "--figures", figures]
            subprocess.run(command, check=True)


def lock(path: Path = LOCK) -> IO[str]:
    """Hold the working directory for one run, until the process ends, however it ends.

    Snakemake's own lock outlives a killed process and has to be removed by hand; the kernel releases this one.

    Returns
    -------
    file
        The open lock file; the lock is held as long as it is open.

    Raises
    ------
    InputError
        If another run holds it; the message names that run's process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - it stays open for the process's life
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise InputError(f"{Path.cwd()} is in use by another run ({holder}): wait for it, or stop it") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {os.uname().nodename}")
    file.flush()
    return file
