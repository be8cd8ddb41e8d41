"""Warm workers: a job is what it is in a process of its own; neither it nor its worker outlives what it is for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from winnow.runtime import workers

from .. import nursery
from . import programs

SCRIPTS = Path(__file__).parents[2] / "scripts"
FAKE_GPUS = Path(__file__).parents[1] / "fake_gpus"
# Runs what it is given, and leaves its process number.
STAGE = """
import sys

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import os

with open(os.path.join(os.path.dirname(__file__), "pids"), "a") as file:
    print(os.getpid(), file=file)
exec(compile(sys.argv[1], "job", "exec"))
"""
SECONDS = 60
NET = {"architecture": "vgg_digits", "head": "gap", "weights": "random", "mean": [0.5] * 3, "std": [0.25] * 3}
RECIPE = {"epochs": 1, "batch_size": 4, "optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0}
RECIPE |= {"schedule": "constant", "warmup_epochs": 0, "label_smoothing": 0.0, "augmentation": None}
RECIPE |= {"precision": "fp32", "evaluate_every": 1}
WAIT = "import time; print('ready', flush=True); time.sleep(60)"
GATE = "import time; print('ready', flush=True)\nwhile not os.path.exists('gate'): time.sleep(0.01)"


class Run:
    """A process that stands for Snakemake, and its jobs."""

    def __init__(self, place: Path, **environment: str):
        self.owner = subprocess.Popen(["sleep", "300"])
        self.place = place
        self.stage = place / "stage.py"
        self.stage.write_text(STAGE)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
        kept.pop("PYTHONUNBUFFERED", None)
        self.environment = {
            **kept,
            "PYTHONPATH": str(SCRIPTS),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            workers.SWITCH: "on",
            workers.OWNER: str(self.owner.pid),
            **environment,
        }
        self.folder = workers._folder(self.owner.pid)
        self.jobs: list[subprocess.Popen] = []

    def start(self, code: str, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen:
        job = subprocess.Popen(
            [sys.executable, str(self.stage), textwrap.dedent(code), *arguments],
            env=self.environment | environment,
            cwd=cwd or self.place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.jobs.append(job)
        return job

    def job(self, code: str, *arguments: str, **options) -> tuple[int, str, str]:
        """Exit status, standard output and error of a job."""
        job = self.start(code, *arguments, **options)
        output, error = job.communicate(timeout=SECONDS)
        return job.returncode, output, error

    def cold(self, code: str, *arguments: str, **options) -> tuple[int, str, str]:
        options |= {workers.SWITCH: "off"}
        return self.job(code, *arguments, **options)

    @property
    def pids(self) -> list[int]:
        """Of the processes in which the jobs ran, in their order."""
        path = self.place / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def began(self, count: int = 1) -> int:
        """Wait until so many jobs have begun and return the last one's process number."""
        wait_for(lambda: len(self.pids) >= count)
        return self.pids[-1]

    def end(self) -> None:
        if self.owner.returncode is None:
            self.owner.kill()
            self.owner.wait()


def wait_for(condition, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return workers._start_time(pid) is not None


@pytest.fixture(scope="module", autouse=True)
def signals():
    """Signals as a terminal's processes have them: under nohup, or in a script's background, some are ignored."""
    wanted = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    previous = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.fixture
def start_run(tmp_path):
    runs = []

    def start(name: str = "run", **environment: str) -> Run:
        (tmp_path / name).mkdir()
        runs.append(Run(tmp_path / name, **environment))
        return runs[-1]

    yield start
    for run in runs:
        for job in run.jobs:
            if job.poll() is None:
                job.kill()
                job.communicate()
        run.end()
    for run in runs:
        wait_for(lambda run=run: not any(map(alive, run.pids)))


@pytest.fixture
def run(start_run) -> Run:
    return start_run()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("shared"))
    yield run
    run.end()


@pytest.mark.parametrize(
    "code",
    [
        "print('out'); print('err', file=sys.stderr)",
        "sys.exit(3)",
        "sys.exit()",
        "sys.exit(259)",
        "sys.exit('a message')",
        "sys.exit(['an', 'object'])",
        "raise ValueError('boom')",
        "def f(): raise ValueError('boom')\ntry: f()\nexcept ValueError as error: raise KeyError(1) from error",
        "syntax error",
        "os.write(1, b'straight to the descriptor'); os.system('echo from a child; echo and >&2')",
        "print(sys.argv[2:], os.getcwd(), os.environ['MARK'], sys.path, __name__, __file__)",
        "STATE = 1\nimport __main__; print(__main__.__dict__ is globals(), __main__.STATE)",
        "x = 'x' * 300_000; print(x); print(x, file=sys.stderr)",
        "import threading, time; threading.Timer(0.3, lambda: print('late')).start(); print('early')",
        "import concurrent.futures as c; pool = c.ThreadPoolExecutor(1); pool.submit(print, 'from a pool')",
        "import atexit, threading as t; atexit.register(print, 'bye'); t.Timer(0.2, print, ['late']).start()",
        "import warnings; warnings.warn('careful')",
        "import logging; logging.warning('careful'); logging.info('unseen')",
        "import signal; print([signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)], file=sys.stderr)",
        "sys.stdout.write('no newline')",
        "print('\\udcff'.encode(errors='surrogateescape'), os.environ['ODD'].encode(errors='surrogateescape'))",
    ],
)
def test_a_job_is_what_it_is_in_a_process_of_its_own(shared, code):
    options = {"cwd": shared.place.parent, "MARK": "ü x", "ODD": "\udcff"}
    cold = shared.cold(code, "--first", "second ü", **options)
    # Twice: the first one leaves nothing that shows.
    assert [shared.job(code, "--first", "second ü", **options) for _ in range(2)] == [cold] * 2
    assert not set(shared.pids[-2:]) & {job.pid for job in shared.jobs}


def test_a_job_that_retires_its_worker_is_its_last(run):
    retiring = "from winnow.runtime import workers; workers.retire(); print(1)"
    assert [run.job(code)[0] for code in (retiring, "print(2)", "print(3)")] == [0] * 3
    first, second, third = run.pids
    assert first != second == third


def test_jobs_one_after_another_have_one_worker_and_jobs_side_by_side_one_each(run):
    for _ in range(3):
        assert run.job("print(1)")[0] == 0
    (first,) = set(run.pids)
    side_by_side = [run.start(GATE) for _ in range(4)]
    run.began(3 + 4)
    assert len(set(run.pids)) == 4
    (run.place / "gate").touch()
    assert [job.wait(timeout=SECONDS) for job in side_by_side] == [0] * 4
    assert run.job("print(1)")[0] == 0
    assert run.pids[-1] == first
    assert len(list(run.folder.glob("*.sock"))) == 4


def test_nothing_of_a_job_is_left_for_the_next(run):
    show = """
        import contextlib, decimal, gc, logging, signal, tempfile, threading, warnings
        import numpy as np
        print(sys.argv[2:], os.getcwd(), sys.path)
        print(*sorted(item for item in os.environ.items() if item[0] != "WINNOW_WORKERS"))
        print([signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)])
        print(logging.root.level, logging.root.handlers, logging.root.manager.disable, gc.isenabled())
        print(np.geterr(), decimal.getcontext().prec, tempfile.gettempdir(), sys.excepthook, threading.excepthook)
        print(sys.stdout, sys.stderr, sorted(name for name in globals() if name[0] != '_'))
        np.float64(1) / 0
        warnings.warn("seen")
    """
    spoil = """
        import decimal, gc, logging, signal, tempfile, threading, warnings
        import numpy as np
        os.environ["LEFT"] = "over"
        del os.environ["OMP_NUM_THREADS"]
        os.chdir("/")
        sys.argv.append("left")
        sys.path.insert(0, "/left")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        logging.basicConfig(level=0)
        logging.disable(logging.CRITICAL)
        gc.disable()
        np.seterr(all="ignore")
        decimal.getcontext().prec = 3
        tempfile.tempdir = "/left"
        warnings.simplefilter("ignore")
        sys.excepthook = threading.excepthook = print
        left = sys.stdout = sys.stderr = open(os.devnull, "w")
    """
    cold = run.cold(show)
    assert run.job(spoil)[0] == 0
    assert run.job(show) == cold
    assert len(set(run.pids[1:])) == 1


def test_jobs_over_two_data_sets_in_turn_load_each_once(run, tmp_path, monkeypatch):
    verified = str(tmp_path / "verified")
    monkeypatch.setenv("WINNOW_VERIFIED", verified)
    programs.run("import_backbone", {"name": "b", "backbone": NET, "code": "0"}, "--output", tmp_path / "net")
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
        splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
        programs.stored(tmp_path / name, pixels, [n % 2 for n in range(12)], splits)
    # The worker notes what its jobs open, from the first one on.
    count = """
        import runpy
        from winnow.data import store
        from winnow.networks import backbones
        def noted(function):
            def call(directory):
                with open("opened", "a") as file:
                    print(os.path.basename(directory), file=file)
                return function(directory)
            return call
        if not hasattr(store, "noted"):
            store.noted = store.Store.open, backbones.load
            store.Store.open, backbones.load = map(noted, store.noted)
        sys.argv[:] = sys.argv[2:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    cell = {"dataset": "d", "backbone": "b", "criterion": "unpruned", "scope": "none", "ratio": 0.0, "round_to": None}
    cell |= {"init": "inherited", "protocol": "one_shot"}
    for seed in range(20):
        name = "ab"[seed % 2]
        spec = json.dumps({"cell": cell | {"seed": seed}, "recipe": RECIPE, "code": "0"})
        options = {"--spec": spec, "--gpu": "0", "--dataset": tmp_path / name, "--backbone": tmp_path / "net"}
        options |= {"--split": tmp_path / f"{name}.parquet", "--output": tmp_path / f"cell-{seed}"}
        arguments = [str(SCRIPTS / "finetune.py"), *(str(part) for option in options.items() for part in option)]
        status, _, error = run.job(count, *arguments, WINNOW_VERIFIED=verified)
        assert (status, error) == (0, ""), error
    assert len(set(run.pids)) == 1
    opened = (run.place / "opened").read_text().split()
    assert sorted(opened) == ["a", "b", "net"]


def test_torch_is_as_after_its_import_and_computes_the_same_bytes(run):
    work = """
        import hashlib, torch
        state = [torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()]
        state += [torch.get_num_threads()]
        state += [torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()]
        state += [torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic]
        torch.manual_seed(7)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 5))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(5):
            network(torch.randn(16, 3, 8, 8)).square().sum().backward()
            optimizer.step()
        digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in network.parameters()))
        print(*state, digest.hexdigest())
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        torch.set_num_threads(2)
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = True
    """
    cold = run.cold(work)
    assert cold[0] == 0, cold
    assert [run.job(work) for _ in range(2)] == [cold] * 2
    # A fixed seed is not handed on either: without one of its own, no job draws what another drew.
    drawn = [run.job("import torch; print(torch.initial_seed())")[1] for _ in range(2)]
    assert "7\n" not in drawn
    assert len(set(drawn)) == 2
    assert len(set(run.pids[1:])) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_job_as_it_ends_a_process(run, number):
    for switch in ("off", "on"):
        job = run.start(WAIT, WINNOW_WORKERS=switch)
        assert job.stdout.readline() == "ready\n"
        job.send_signal(number)
        _, error = job.communicate(timeout=SECONDS)
        # To a shell, and so to Snakemake, the two are one.
        assert job.returncode == (-number if switch == "off" else 128 + number)
        assert ("KeyboardInterrupt" in error) == (number == signal.SIGINT)
    assert run.job("print(1)") == (0, "1\n", "")


def test_a_job_handles_its_signals_itself_and_its_worker_goes_on(run):
    handle = """
        import signal, time
        def stop(number, frame):
            print("stopped by", number)
            sys.exit(128 + number)
        signal.signal(signal.SIGTERM, stop)
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted")
    """
    for number, expected in ((signal.SIGTERM, (143, "stopped by 15\n")), (signal.SIGINT, (0, "interrupted\n"))):
        job = run.start(handle)
        assert job.stdout.readline() == "ready\n"
        job.send_signal(number)
        output, _ = job.communicate(timeout=SECONDS)
        assert (job.returncode, output) == expected
    assert run.job("print(1)") == (0, "1\n", "")
    assert len(set(run.pids)) == 1


def test_a_signal_that_the_jobs_process_ignores_does_not_reach_the_job(run):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        job = run.start(GATE)
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert job.stdout.readline() == "ready\n"
    job.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    (run.place / "gate").touch()
    assert job.wait(timeout=SECONDS) == 0


def test_a_signal_that_comes_before_the_worker_is_ready_is_not_lost(run):
    jobs = [run.start("import time; time.sleep(60)") for _ in range(3)]
    for pause, job in zip((0.05, 0.08, 0.11), jobs, strict=True):
        time.sleep(pause)
        job.send_signal(signal.SIGTERM)
    # Some end before they have handed themselves over.
    assert all(job.wait(timeout=SECONDS) in (-signal.SIGTERM, 128 + signal.SIGTERM) for job in jobs)


def test_a_killed_job_is_gone_with_all_that_it_started(run):
    job = run.start("import subprocess; print(subprocess.Popen(['sleep', '50']).pid, flush=True)\n" + WAIT)
    child = int(job.stdout.readline())
    worker = run.began()
    job.kill()
    wait_for(lambda: not alive(worker) and not alive(child), 3)
    assert run.job("print(1)") == (0, "1\n", "")


@pytest.mark.parametrize("way", ["os._exit(7)", "os.kill(os.getpid(), 9)", "import ctypes; ctypes.string_at(0)"])
def test_a_crash_costs_one_job(run, way):
    bystander = run.start(GATE + "\nprint('done')")
    run.began()
    assert run.job("print(1)") == (0, "1\n", "")
    status, output, error = run.job(f"print('before', flush=True)\n{way}")
    assert status != 0
    assert output == "before\n"
    assert "error: the warm worker that ran this job died" in error
    if "ctypes" in way:
        assert "string_at" in error
    assert run.job("print(1)") == (0, "1\n", "")
    assert len(set(run.pids)) == 3
    (run.place / "gate").touch()
    assert bystander.communicate(timeout=SECONDS) == ("ready\ndone\n", "")


@pytest.mark.parametrize("busy", [True, False])
def test_workers_end_with_their_run(run, busy):
    job = run.start(WAIT if busy else "pass")
    worker = run.began()
    if not busy:
        job.wait(timeout=SECONDS)
    run.owner.kill()  # It stays a zombie: nobody has waited for it yet.
    wait_for(lambda: not alive(worker), 3)
    if busy:
        assert job.wait(timeout=SECONDS) != 0
    assert not run.folder.exists()


def test_an_idle_worker_ends_and_the_next_job_gets_another(start_run):
    run = start_run(WINNOW_WORKER_IDLE_SECONDS="0.5")
    assert run.job("import time; time.sleep(1)")[0] == 0  # A job is no idleness.
    wait_for(lambda: not alive(run.pids[0]))
    assert not run.folder.exists()
    assert run.job("print(1)") == (0, "1\n", "")
    assert len(set(run.pids)) == 2


@pytest.mark.parametrize("environment", [{"WINNOW_WORKERS": "off"}, {"WINNOW_OWNER_PID": ""}])
def test_without_the_switch_or_a_run_a_job_runs_by_itself(run, environment):
    job = run.start("print(1)", **environment)
    assert job.communicate(timeout=SECONDS) == ("1\n", "")
    assert run.pids == [job.pid]
    assert list(run.folder.iterdir()) == []


def test_two_runs_share_no_worker(start_run):
    runs = [start_run("one"), start_run("two")]
    for run in runs * 2:
        assert run.job("print(1)")[0] == 0
    one, two = (set(run.pids) for run in runs)
    assert len(one) == len(two) == 1
    assert one != two


def test_where_no_worker_can_be_had_a_job_runs_by_itself_and_says_so(run):
    job = run.start("print(1)", WINNOW_OWNER_PID="99999999")
    output, error = job.communicate(timeout=SECONDS)
    assert (job.returncode, output) == (0, "1\n")
    assert error == "no warm worker (the run's process 99999999 is gone): running without\n"
    run.folder.chmod(0o777)
    status, output, error = run.job("print(1)")
    assert (status, output) == (0, "1\n")
    assert "is not a folder that this user alone can write to" in error
    run.folder.chmod(0o700)
    status, output, error = run.job("print(1)", WINNOW_WORKER_IDLE_SECONDS="soon")
    assert (status, output) == (0, "1\n")
    assert "could not convert string to float: 'soon'" in error
    assert error.endswith("no warm worker (it did not start): running without\n")
    assert list(run.folder.iterdir()) == []
    assert run.pids == [job.pid for job in run.jobs]


def test_a_dead_workers_socket_is_passed_by_and_removed(run):
    assert run.job("print(1)")[0] == 0
    os.kill(run.pids[0], signal.SIGKILL)
    wait_for(lambda: not alive(run.pids[0]))
    (left,) = run.folder.glob("*.sock")
    assert run.job("print(1)") == (0, "1\n", "")
    assert not left.exists()
    assert len(list(run.folder.iterdir())) == 2


def test_what_nobody_reads_does_not_come_out_with_the_next_job(run):
    job = run.start("import time; time.sleep(0.5); print('unread')")
    job.stdout.close()
    assert job.wait(timeout=SECONDS) != 0
    assert run.job("print(1)") == (0, "1\n", "")


def test_threads_tell_workers_apart(run):
    for threads in ("1", "2", "1", "2"):
        assert run.job("print(1)", OMP_NUM_THREADS=threads)[0] == 0
    assert run.pids[:2] == run.pids[2:]
    assert len(set(run.pids)) == 2


def test_gpu_jobs_have_workers_of_their_own_that_keep_their_leases(start_run, tmp_path):
    run = start_run(
        CUDA_VISIBLE_DEVICES="0,1",
        WINNOW_LEASES=str(tmp_path / "leases"),
        PYTHONPATH=f"{SCRIPTS}{os.pathsep}{FAKE_GPUS}",
    )
    lease = "from winnow.runtime import devices; print(devices.lease(1).id, os.environ['CUDA_VISIBLE_DEVICES'])\n"
    for first in range(2):
        # Whichever number of threads, and with other jobs between: as many leases as GPU jobs side by side.
        jobs = [run.start(lease + GATE, "--gpu", "1", OMP_NUM_THREADS=str(1 + first + other)) for other in range(2)]
        assert sorted(job.stdout.readline() for job in jobs) == ["0 0\n", "1 1\n"]
        gpu = set(run.pids[-2:])
        assert run.job("print(os.environ['CUDA_VISIBLE_DEVICES'])", "--gpu", "0")[1] == "0,1\n"
        assert run.pids[-1] not in gpu
        (run.place / "gate").touch()
        assert [job.wait(timeout=SECONDS) for job in jobs] == [0, 0]
        (run.place / "gate").unlink()
        assert run.job("print(1)", "--gpu=0")[0] == 0
        assert run.pids[-1] not in gpu
    assert len(set(run.pids)) == 3
    assert len(list((tmp_path / "leases").glob("*/*.lock"))) == 2


def test_without_gpus_a_grant_makes_no_difference(run):
    assert run.job("print(1)", "--gpu", "1")[0] == 0
    assert run.job("print(1)")[0] == 0
    assert len(set(run.pids)) == 1


def test_many_jobs_at_once_all_come_through(run):
    jobs = [run.start("print(sys.argv[2])", str(number)) for number in range(24)]
    assert [job.communicate(timeout=SECONDS) for job in jobs] == [(f"{number}\n", "") for number in range(24)]
    assert not set(run.pids) & {job.pid for job in jobs}


def test_sockets_may_lie_deep(run):
    deep = run.place / ("deep" * 20) / ("deeper" * 20)
    deep.mkdir(parents=True)
    assert [run.job("print(1)", XDG_RUNTIME_DIR=str(deep)) for _ in range(2)] == [(0, "1\n", "")] * 2
    assert len(set(run.pids)) == 1
    assert run.pids[0] not in {job.pid for job in run.jobs}
    assert list(run.folder.iterdir()) == []


def test_a_worker_from_a_nursery_is_like_any_other_and_has_its_libraries_loaded(start_run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    process, address = nursery.start()
    try:
        run = start_run(**{workers.NURSERY: address})
        code = """
            loaded = 'torch' in sys.modules
            import numpy, torch, threadpoolctl
            blas = {pool['num_threads'] for pool in threadpoolctl.threadpool_info() if pool['user_api'] == 'blas'}
            print(loaded, os.getppid(), torch.get_num_threads(), blas, os.environ['MARK'])
            print('err', file=sys.stderr)
            sys.exit(3)
        """
        for mark in ("one", "two"):
            assert run.job(code, MARK=mark) == (3, f"True {process.pid} 1 {{1}} {mark}\n", "err\n")
        assert len(set(run.pids)) == 1
        # Where libraries are loaded in another way, as where there is no nursery any more, a run has its own.
        other = start_run("other", **{workers.NURSERY: address}, MKL_CBWR="AVX2")
        assert other.job("print('torch' in sys.modules)") == (0, "False\n", "")
        run.end()
        wait_for(lambda: not any(map(alive, run.pids)))
    finally:
        process.stdin.close()
        process.wait()
    assert start_run("third", **{workers.NURSERY: address}).job("print(1)") == (0, "1\n", "")


def test_a_job_that_hands_itself_over_loads_next_to_nothing():
    code = "import argparse, pathlib; from winnow.runtime import devices, workers; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"],
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    heavy = {"torch", "numpy", "pyarrow", "dataclasses", "inspect", "subprocess", "threading", "logging", "asyncio"}
    assert not heavy & set(loaded)
