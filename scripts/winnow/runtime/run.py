"""One run of the workflow: its identity for the workers, its lock on the working directory, its display."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

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
