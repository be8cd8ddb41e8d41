"""How a run ends before its time: on Ctrl-C and SIGTERM its jobs write where they are, and nothing else begins."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import psutil

from winnow.runtime import progress

# What stands between Snakemake and a job's program: it ends with it.
SHELLS = frozenset(["bash", "sh"])


def prepare(workflow: Any) -> None:
    """Let Ctrl-C and SIGTERM end ``workflow``'s run within the time that a checkpoint takes.

    Snakemake lets running jobs go on to their end on SIGTERM, which may be hours; Ctrl-C reaches them where a terminal
    sends it. Here both are one: the jobs' programs get SIGTERM, nothing else is begun, and the user is told what is
    waited for; a second time the programs are killed. Jobs that were submitted are cancelled, as their executor does on
    Ctrl-C.

    To be called where the scheduler is there, and no job is.
    """
    finish = signal.getsignal(signal.SIGTERM)
    asked: list[int] = []

    def stop(number: int, frame: Any) -> None:
        asked.append(number)
        if len(asked) == 1:
            # Not here: what is interrupted may hold the locks that this needs.
            threading.Thread(target=end, daemon=True).start()
            if not workflow.local_exec:
                raise KeyboardInterrupt

    def end() -> None:
        progress.stopping(workflow)
        if not workflow.local_exec:
            return  # What cancels the jobs is a program, too.
        if callable(finish):
            finish(signal.SIGTERM, None)
        told: set[tuple[int, int]] = set()
        while True:  # as long as this process lives: a job that is just being started has its program a moment later
            number = signal.SIGKILL if len(asked) > 1 else signal.SIGTERM
            for process in programs():
                if (process.pid, number) not in told:
                    told.add((process.pid, number))
                    process.send_signal(number)
            time.sleep(0.1)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def programs() -> list[psutil.Process]:
    """The processes of this one's jobs, but for the shells that wait for them. Workers have a session of their own."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.name() not in SHELLS and os.getsid(process.pid) == os.getsid(0):
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found
