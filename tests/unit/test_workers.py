"""Warm workers: a job's arguments, output, status and signals pass through, and nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from winnow.runtime import workers

SCRIPTS = Path(__file__).parents[2] / "scripts"

STAGE = """
import os, sys, time
from winnow.runtime import workers
if __name__ == "__main__":
    workers.delegate(__file__)
import signal
if __name__ == "__main__":
    what = sys.argv[1]
    print("pid", os.getpid(), flush=True)
    if what == "echo":
        print(*sys.argv[2:], os.getcwd(), os.environ.get("MARK"))
        print("to stderr", file=sys.stderr)
        os.write(1, b"raw\\n")
    elif what == "exit":
        sys.exit(eval(sys.argv[2]))
    elif what == "raise":
        raise ValueError("of the job")
    elif what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "sleep":
        time.sleep(float(sys.argv[2]))
        print("woke up")
    elif what == "term":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        time.sleep(30)
    elif what == "leak":
        import warnings
        os.environ["LEAKED"] = "yes"
        os.chdir("/usr")
        sys.path.insert(0, "/leaked")
        warnings.simplefilter("error")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif what == "look":
        import warnings
        print(os.environ.get("LEAKED"), "/leaked" in sys.path, os.getcwd(), signal.getsignal(signal.SIGTERM).name,
              warnings.filters[0][0] == "error")
"""


class Run:
    """An owner process, and jobs that belong to it."""

    def __init__(self, path: Path, **environment: str):
        self.path = path
        self.stage = path / "stage.py"
        self.stage.write_text(textwrap.dedent(STAGE))
        self.owner = subprocess.Popen(["sleep", "600"])
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
        self.environment |= {"PYTHONPATH": str(SCRIPTS), "XDG_RUNTIME_DIR": str(path / "run"), "PYTHONUNBUFFERED": "1"}
        self.environment |= {workers.SWITCH: "on", workers.OWNER: str(self.owner.pid)} | environment
        (path / "run").mkdir()

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(self.stage), *map(str, arguments)],
            cwd=self.path,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object, **environment: str) -> tuple[int, str, str]:
        """Run a job: exit status, output, errors."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    def pids(self) -> list[int]:
        """Workers of this run that live."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.path / "run").encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def wait_for(self, condition, seconds: float = 5.0) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@pytest.fixture
def run(tmp_path):
    result = Run(tmp_path)
    yield result
    result.owner.kill()
    result.owner.wait()
    assert result.wait_for(lambda: not result.pids()), "a worker outlived its run"


def pid_of(output: str) -> int:
    return int(output.split()[1])


def test_arguments_folder_environment_and_output_pass_through(run):
    status, out, err = run("echo", "a b", "é", MARK="x")
    assert status == 0
    assert out.splitlines()[1:] == [f"a b é {run.path} x", "raw"]
    assert err == "to stderr\n"
    assert pid_of(out) in run.pids()


def test_the_next_job_runs_in_the_same_worker(run):
    assert pid_of(run("echo")[1]) == pid_of(run("echo")[1])
    assert len(run.pids()) == 1


def test_off_means_off(run):
    status, out, _ = run("echo", **{workers.SWITCH: "off"})
    assert status == 0
    assert run.pids() == []
    assert out


@pytest.mark.parametrize(
    ("code", "status", "says"), [("3", 3, ""), ("None", 0, ""), ("0", 0, ""), ("'a message'", 1, "a message\n")]
)
def test_exit_statuses_are_those_of_a_process(run, code, status, says):
    for switch in ("on", "off"):
        assert run("exit", code, **{workers.SWITCH: switch})[::2] == (status, says)


def test_an_exception_ends_the_job_with_its_traceback_and_not_the_worker(run):
    first = pid_of(run("echo")[1])
    status, _, err = run("raise")
    assert status == 1
    assert err.startswith("Traceback")
    assert err.endswith("ValueError: of the job\n")
    assert pid_of(run("echo")[1]) == first


def test_nothing_but_what_was_loaded_is_left_to_the_next_job(run):
    first = pid_of(run("leak")[1])
    _, out, _ = run("look")
    assert pid_of(out) == first
    assert out.splitlines()[1] == f"None False {run.path} SIG_DFL False"


def test_jobs_side_by_side_get_a_worker_each(run):
    jobs = [run.start("sleep", 0.5) for _ in range(3)]
    outputs = [job.communicate(timeout=30)[0] for job in jobs]
    assert len({pid_of(out) for out in outputs}) == 3
    assert all("woke up" in out for out in outputs)
    # They are free again: three more jobs start no fourth.
    jobs = [run.start("sleep", 0.1) for _ in range(3)]
    assert {pid_of(job.communicate(timeout=30)[0]) for job in jobs} == {pid_of(out) for out in outputs}


def test_a_crashed_worker_fails_its_one_job(run):
    run("echo")
    other = run.start("sleep", 1)
    assert other.stdout.readline().startswith("pid")
    status, _, err = run("die")
    assert status == 1
    assert "the warm worker that ran this job died" in err
    assert other.communicate(timeout=30)[0] == "woke up\n"
    assert run("echo")[0] == 0


def test_a_signal_reaches_the_job(run):
    job = run.start("term")
    job.stdout.readline()
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=10)
    assert job.returncode == 143


def test_a_signal_that_the_job_does_not_handle_ends_it(run):
    job = run.start("sleep", 30)
    job.stdout.readline()
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=10)
    assert job.returncode == 128 + signal.SIGTERM
    assert "died" not in err
    assert run("echo")[0] == 0


def test_a_killed_job_is_not_orphaned(run):
    job = run.start("sleep", 30)
    worker = pid_of(job.stdout.readline())
    job.kill()
    job.communicate()
    assert run.wait_for(lambda: worker not in run.pids())
    assert run("echo")[0] == 0


@pytest.mark.parametrize("busy", [True, False])
def test_workers_end_with_their_run(run, busy):
    job = run.start("sleep", 30 if busy else 0)
    job.stdout.readline()
    if not busy:
        job.communicate()
    run.owner.kill()
    run.owner.wait()
    assert run.wait_for(lambda: not run.pids())
    job.communicate(timeout=10)
    assert not list((run.path / "run").rglob("*.sock"))


def test_an_idle_worker_ends_and_the_next_job_gets_another(tmp_path):
    run = Run(tmp_path, **{workers.IDLE: "0.2"})
    first = pid_of(run("echo")[1])
    assert run.wait_for(lambda: not run.pids())
    assert not list((run.path / "run").rglob("*.sock"))
    assert pid_of(run("echo")[1]) != first
    run.owner.kill()
    run.owner.wait()


def test_two_runs_share_no_worker(run, tmp_path_factory):
    other = Run(tmp_path_factory.mktemp("other"))
    other.environment["XDG_RUNTIME_DIR"] = run.environment["XDG_RUNTIME_DIR"]
    assert pid_of(run("echo")[1]) != pid_of(other("echo")[1])
    other.owner.kill()
    other.owner.wait()


def test_where_no_worker_can_listen_the_job_runs_by_itself(run):
    (run.path / "file").write_text("")
    status, out, err = run("echo", XDG_RUNTIME_DIR=str(run.path / "file"))
    assert status == 0
    assert "running without" in err
    assert run.pids() == []
    assert out


def test_a_delegated_job_imports_next_to_nothing():
    code = f"""
        import sys
        sys.path.insert(0, {str(SCRIPTS)!r})
        from winnow.runtime import workers
        print(*(name for name in ("torch", "numpy", "pyarrow", "asyncio", "multiprocessing") if name in sys.modules))
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True).stdout == "\n"
