#!/usr/bin/env python3
"""What a workflow needs of PBS, in one file that is called as qsub, qstat or qdel: jobs run at once, on this machine.

A job's traces lie in a folder beside them: N.arguments, N.pid, N.looked_at, and N.status when it has ended.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

SPOOL = Path(sys.argv[0]).parent / "spool"
KILLED = 256 + signal.SIGTERM


def qsub(*arguments):
    SPOOL.mkdir(exist_ok=True)
    number = len(list(SPOOL.glob("*.arguments"))) + 1
    (SPOOL / f"{number}.arguments").write_text(json.dumps(arguments))
    command = f'sh "{arguments[-1]}"; echo $? > "{SPOOL}/{number}.status"'
    job = subprocess.Popen(
        ["sh", "-c", command],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    (SPOOL / f"{number}.pid").write_text(str(job.pid))
    print(f"{number}.fake")


def qstat(*arguments):
    number = arguments[-1].removesuffix(".fake")
    (SPOOL / f"{number}.looked_at").touch()
    status = SPOOL / f"{number}.status"
    print(f"Job Id: {arguments[-1]}")
    if status.exists():
        print(f"    job_state = F\n    Exit_status = {status.read_text().strip()}")
    else:
        print("    job_state = R")


def qdel(*jobs):
    for job in jobs:
        number = job.removesuffix(".fake")
        os.killpg(int((SPOOL / f"{number}.pid").read_text()), signal.SIGTERM)
        (SPOOL / f"{number}.status").write_text(str(KILLED))


if __name__ == "__main__":
    globals()[Path(sys.argv[0]).name](*sys.argv[1:])
