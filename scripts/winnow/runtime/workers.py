"""Warm workers: the cost of start-up is paid once a core share or device and run, not once a job.

A job's program begins with :func:`delegate`. Where the run that it belongs to has workers switched on, a process that
has its libraries loaded, and its GPU leased, runs the program in the job's place: with the job's arguments, folder,
environment and output, and with its exit status, logs and signals passed on. One job stays one process to Snakemake and
one at a time to its worker. Without a worker the program just goes on.

A worker belongs to one run. It ends with that run's process, however that ends; with its job, if the job is killed; and
by itself, if it is idle for long. What a crashed worker takes along is the one job that it ran.

``WINNOW_WORKERS=off`` switches workers off; results are the same, byte for byte.

This module is all that a delegated job imports: it is kept to the standard library's lighter half.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SWITCH = "WINNOW_WORKERS"
OWNER = "WINNOW_OWNER_PID"
IDLE = "WINNOW_WORKER_IDLE_SECONDS"
IDLE_SECONDS = 300.0
START_SECONDS = 60.0
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_serving = False


def delegate(file: str) -> None:
    """Hand this process's job to a warm worker and exit with the job's status; return if there is none to have.

    Parameters
    ----------
    file
        The stage program. It is run as ``__main__``, with this process's arguments.
    """
    owner = os.environ.get(OWNER)
    if _serving or os.environ.get(SWITCH) != "on" or not owner or not hasattr(os, "pidfd_open"):
        return
    try:
        place = folder(int(owner))
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        claim = _claim(place) or _start(place, int(owner))
    except OSError as error:
        print(f"no warm worker ({error}): running without", file=sys.stderr)
        return
    if claim is not None:
        sys.exit(_hand_over(claim, file))


def folder(owner: int) -> Path:
    """Where a run's workers listen. A process number that is used again is told apart by its start time."""
    base = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("TMPDIR") or "/tmp"
    return Path(base) / f"winnow-workers-{os.getuid()}" / f"{owner}-{_start_time(owner)}"


def _start_time(pid: int) -> str:
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The command's name, in brackets, may hold anything; the 20th field after it is the start time.
        return file.read().rsplit(b")", 1)[1].split()[19].decode()


class _Claim:
    """A connection to a worker, and the lock that keeps other jobs from it as long as this process lives."""

    def __init__(self, lock: Any, connection: socket.socket, log: Path):
        self.lock, self.connection, self.log = lock, connection, log


def _claim(place: Path) -> _Claim | None:
    """A free worker of the run, or None."""
    for path in sorted(place.glob("*.sock")):
        lock = _lock(path.with_suffix(".lock"))
        if lock is None:
            continue
        try:
            return _Claim(lock, _connect(path), path.with_suffix(".log"))
        except OSError:
            # Its worker is dead: what it left is removed under its lock.
            _remove(path)
            lock.close()
    return None


def _start(place: Path, owner: int) -> _Claim | None:
    """Start a worker, which this process has claimed before anybody else can."""
    path = place / f"{os.getpid()}-{time.monotonic_ns()}.sock"
    lock = _lock(path.with_suffix(".lock"))
    scripts = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(scripts)!r}); from winnow.runtime.workers import serve; serve()"
    with open(path.with_suffix(".log"), "wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(owner)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and worker.poll() is None:
        with contextlib.suppress(OSError):
            return _Claim(lock, _connect(path), path.with_suffix(".log"))
        time.sleep(0.005)
    print(f"a warm worker did not start: {_end_of(path.with_suffix('.log'))}", file=sys.stderr)
    worker.kill()
    _remove(path)
    return None


def _lock(path: Path) -> Any:
    file = open(path, "w")  # noqa: SIM115 - open, and so locked, for the process's life
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    if not path.exists():  # Its worker ended between the two lines above.
        file.close()
        return None
    return file


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(path) as address:
            connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A socket's path through its folder's descriptor: a socket's address has room for a hundred bytes only."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _remove(path: Path) -> None:
    for suffix in (".sock", ".lock", ".log"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _end_of(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace").strip()[-2000:]
    return ""


def _hand_over(claim: _Claim, file: str) -> int:
    """Let the worker run the job, pass signals on, and return the job's exit status."""
    connection = claim.connection
    size = int.from_bytes(_read(connection, 4), "big")
    worker = int(_read(connection, size))
    received: list[int] = []

    def forward(number: int, frame: Any) -> None:
        received.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    job = {"file": os.path.abspath(file), "argv": sys.argv, "cwd": os.getcwd(), "env": dict(os.environ)}
    message = json.dumps(job).encode(errors="surrogateescape")
    sys.stdout.flush()
    sys.stderr.flush()
    socket.send_fds(connection, [len(message).to_bytes(4, "big")], [1, 2])
    connection.sendall(message)
    answer = _read(connection, 4)
    if len(answer) == 4:
        return int.from_bytes(answer, "big")
    if received:  # The signal ended the job, as it would have ended this process.
        return 128 + received[0]
    print(f"the warm worker that ran this job died. {_end_of(claim.log)}", file=sys.stderr)
    return 1


def _read(connection: socket.socket, size: int) -> bytes:
    """``size`` bytes, fewer only if the other side is gone."""
    content = b""
    while len(content) < size:
        try:
            part = connection.recv(size - len(content))
        except ConnectionError:
            break
        if not part:
            break
        content += part
    return content


def serve() -> None:
    """A worker's life: listen, run one job after another, end with the owner or when idle."""
    global _serving
    _serving = True
    path, owner = Path(sys.argv[1]), int(sys.argv[2])
    idle = float(os.environ.get(IDLE, IDLE_SECONDS))
    ends = os.pidfd_open(owner)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _address(path) as address:
        listener.bind(address)
    listener.listen(1)
    start = _state()
    while True:
        ready, _, _ = select.select([listener, ends], [], [], idle)
        if ends in ready:
            _leave(path)
        if not ready:
            lock = _lock(path.with_suffix(".lock"))
            if lock is not None:  # nobody has claimed this worker, and now nobody can
                _leave(path)
            continue
        connection, _ = listener.accept()
        with connection:
            pid = str(os.getpid()).encode()
            connection.sendall(len(pid).to_bytes(4, "big") + pid)
            header, descriptors, _, _ = socket.recv_fds(connection, 4, 2)
            if len(header) < 4:
                continue
            job = json.loads(_read(connection, int.from_bytes(header, "big")))
            status = _run(job, descriptors, connection, ends, path)
            _restore(start)
            with contextlib.suppress(OSError):
                connection.sendall(status.to_bytes(4, "big"))


def _leave(path: Path) -> None:
    _remove(path)
    with contextlib.suppress(OSError):
        path.parent.rmdir()
    os._exit(0)


def _run(job: dict, descriptors: list[int], connection: socket.socket, ends: int, path: Path) -> int:
    """Run one job in this process and return its exit status."""
    import runpy
    import threading
    import traceback

    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.argv = job["argv"]
    own = os.dup(1), os.dup(2)
    for target, descriptor in zip((1, 2), descriptors, strict=True):
        os.dup2(descriptor, target)
        os.close(descriptor)

    done_read, done_write = os.pipe()

    def watch() -> None:
        ready, _, _ = select.select([connection, ends, done_read], [], [])
        if done_read not in ready:
            # The job's process, or the whole run, is gone: so is the job, at whatever it is.
            _remove(path)
            os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        runpy.run_path(job["file"], run_name="__main__")
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(done_write, b".")
        watcher.join()
        for descriptor, target in zip(own, (1, 2), strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.close(done_read)
        os.close(done_write)
    return status & 0xFF


def _state() -> dict[str, Any]:
    import warnings

    return {"environment": dict(os.environ), "path": list(sys.path), "filters": list(warnings.filters)}


def _restore(state: dict[str, Any]) -> None:
    """Leave nothing of a job to the next one but what was loaded and the leased device."""
    import warnings

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ.clear()
    os.environ.update(state["environment"])
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    os.chdir("/")
    sys.path[:] = state["path"]
    warnings.filters[:] = state["filters"]
    for number in FORWARDED:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
