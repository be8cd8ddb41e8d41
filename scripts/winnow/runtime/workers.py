"""Warm workers: the cost of start-up is paid once a core share or device and run, not once a job.

A job's program begins with :func:`delegate`. Where the run that it belongs to has workers switched on, a process that
has its libraries loaded, and its GPU leased, runs the program in the job's place: with the job's arguments, folder,
environment and output, and with its exit status, logs and signals passed on. One job stays one process to Snakemake and
one at a time to its worker. Without a worker the program just goes on.

A worker belongs to one run. It ends with that run's process, however that ends; with its job, if the job is killed; and
by itself, if it is idle for long. What a crashed worker takes along is the one job that it ran. There are as many as
jobs of a kind ran at a time: with a GPU each, or with the same number of threads.

``WINNOW_WORKERS=off`` switches workers off; results are the same, byte for byte. A run of a single job, as in each job
of a cluster that gets an allocation of its own, has nothing to gain from one, and little to lose: one more Python.

A worker listens on a socket in the run's folder. The file beside it is locked by the job that the worker works for, so
that others pass it by. A job sends all that makes it (see ``_request``) with its standard output and error; the worker
sends its process number when it begins, and the exit status when it is done.

Who starts many runs, as the tests do, may have their workers come from one process, which has the libraries loaded and
forks (tests/nursery.py): ``WINNOW_NURSERY`` is the socket at which it listens.

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
import stat
import sys
import time
import types
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

TYPE_CHECKING = False  # typing is no part of that half
if TYPE_CHECKING:
    from typing import Any

SWITCH = "WINNOW_WORKERS"
OWNER = "WINNOW_OWNER_PID"
NURSERY = "WINNOW_NURSERY"
IDLE = "WINNOW_WORKER_IDLE_SECONDS"
IDLE_SECONDS = 300.0
# How long a worker may outlive its run.
LOOK_SECONDS = 0.2
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_serving = False
_run_folder: Path | None = None
# Whether this worker's present job is its last.
_retiring = False


def run_folder() -> Path | None:
    """Where the run of this worker has its sockets, for this user alone; None in a process that is no worker."""
    return _run_folder


def retire() -> None:
    """Let this process's present job be its last, where it is a worker: it is no longer as a new process."""
    global _retiring
    _retiring = True


def delegate(file: str) -> None:
    """Hand this process's job to a warm worker and end as the job did; return if there is none to have.

    Parameters
    ----------
    file
        The stage program. It is run as ``__main__``, with this process's arguments.
    """
    if _serving:
        return
    leases = _leases_gpu(sys.argv[1:])
    owner = os.environ.get(OWNER)
    if os.environ.get(SWITCH) != "on" or not owner:
        return
    status = None
    try:
        request = _request(file)
        for connection in _workers(_folder(int(owner)), _kind(file, leases)):
            status = _hand_over(connection, request)
            if status is not None:
                break
    except OSError as error:
        print(f"no warm worker ({error}): running without", file=sys.stderr)
        return
    if status is None:
        print("no warm worker (it did not start): running without", file=sys.stderr)
    else:
        sys.exit(status)


def _kind(file: str, leases: bool) -> str:
    """Which workers may run a program of this process's: the others cannot be made to look like it any more.

    Those of jobs that lease a GPU are told apart from the rest, so that there are never more leases than GPU jobs side
    by side; for the same reason their number of threads makes no difference. Of Snakemake's six variables for it, torch
    heeds the one.
    """
    variables = sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name == "CUDA_VISIBLE_DEVICES" or (not leases and name == "OMP_NUM_THREADS")
    )
    text = "\0".join([sys.executable, os.path.dirname(os.path.abspath(file)), *variables])
    return f"{'gpu' if leases else 'cpu'}-{zlib.crc32(os.fsencode(text)):08x}"


def _leases_gpu(arguments: list[str]) -> bool:
    """Whether the job will lease a GPU: it was granted one, and there is one.

    One that the driver here cannot serve ends the job at once: loading torch to hear the same takes seconds.
    """
    if not _gpus_granted(arguments):
        return False
    from winnow.files import InputError
    from winnow.runtime import devices

    if not devices.candidates():
        return False
    try:
        devices.require_driver()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    return True


def _gpus_granted(arguments: list[str]) -> bool:
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--gpu":
            return (value or "".join(arguments[index + 1 : index + 2])) not in ("", "0")
    return False


def _folder(owner: int) -> Path:
    """Where a run's workers listen, for this user alone."""
    start = _start_time(owner)
    if start is None:
        raise ProcessLookupError(f"the run's process {owner} is gone")
    temporary = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("TMPDIR") or "/tmp"
    base = Path(temporary) / f"winnow-workers-{os.getuid()}"
    # A process number that is used again is told apart by its start time.
    place = base / f"{owner}-{start}"
    for folder in (base, place):
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
        if state.st_uid != os.getuid() or not stat.S_ISDIR(state.st_mode) or state.st_mode & 0o022:
            raise PermissionError(f"{folder} is not a folder that this user alone can write to")
    return place


def _start_time(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name, in brackets, may hold anything; the state comes after it, the start time 19 fields on.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def run_lives(run: str) -> bool:
    """Whether a run still goes on, by its folder's name."""
    pid, start = run.split("-")
    return _start_time(int(pid)) == start


def _workers(place: Path, kind: str) -> Iterator[socket.socket]:
    """Connections to the run's free workers of a kind, and at last to a new one. Each is claimed as long as it is used.

    The oldest come first. They were placed on one GPU after the other: so a few jobs spread over the GPUs, too.
    """
    for path in sorted(place.glob(f"{kind}-*.sock")):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _claimed(path, os.O_RDWR):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with connection:
                try:
                    with address_of(path) as address:
                        connection.connect(address)
                except OSError:
                    # Its worker is dead.
                    _remove(path)
                    continue
                yield connection
    path = place / f"{kind}-{time.monotonic_ns():020}-{os.getpid()}.sock"
    with _claimed(path, os.O_RDWR | os.O_CREAT), _start(path) as connection:
        yield connection
        _remove(path)


@contextlib.contextmanager
def _claimed(path: Path, flags: int) -> Iterator[None]:
    """Hold the lock of the worker that listens on ``path``; BlockingIOError if somebody else does."""
    lock = os.open(path.with_suffix(".lock"), flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """A socket's path through its folder's descriptor: a socket's address has room for a hundred bytes only."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _start(path: Path) -> socket.socket:
    """Start a worker and return the connection that it serves first."""
    import subprocess

    ours, its = socket.socketpair()
    libraries = [os.path.abspath(folder) for folder in sys.path]
    code = f"import sys; sys.path[:] = {libraries}; from winnow.runtime.workers import serve; serve()"
    with its:
        if _from_nursery(path, its, libraries):
            return ours
        # Until it is ready its complaints go where this job's do.
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(its.fileno())],
            stdin=subprocess.DEVNULL,
            cwd="/",
            pass_fds=[its.fileno()],
            start_new_session=True,
        )
    return ours


def _from_nursery(path: Path, its: socket.socket, libraries: Sequence[str]) -> bool:
    """Ask for a worker that is forked; False where that is not to be had, for one with a GPU among others."""
    address = os.environ.get(NURSERY)
    if not address or not path.name.startswith("cpu-"):
        return False
    worker = {"executable": sys.executable, "path": str(path), "libraries": libraries, "env": dict(os.environ)}
    request = json.dumps(worker).encode()
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nursery:
        nursery.connect(address)
        socket.send_fds(nursery, [len(request).to_bytes(4, "big")], [its.fileno(), 1, 2])
        nursery.sendall(request)
        return _read(nursery, 1) == b"y"
    return False


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".lock").unlink(missing_ok=True)


def _request(file: str) -> bytes:
    """All that makes this process's job, but for its standard output and error."""
    job = {
        "file": os.path.abspath(file),
        "argv": sys.argv,
        "path": sys.path,
        "cwd": os.getcwd(),
        "env": dict(os.environ),
    }
    return json.dumps(job).encode()


def _hand_over(connection: socket.socket, request: bytes) -> int | None:
    """Let a worker run the job, pass signals on, and return the job's exit status; None where the job never began."""
    worker = 0
    received: list[int] = []
    pending: list[int] = []

    def forward(number: int, frame: object) -> None:
        received.append(number)
        pending.append(number)
        pass_on()

    def pass_on() -> None:
        while worker and pending:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, pending.pop(0))

    sys.stdout.flush()
    sys.stderr.flush()
    previous = {
        number: signal.signal(number, forward)
        for number in FORWARDED
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup leaves SIGHUP
    }
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(connection, [len(request).to_bytes(4, "big")], [1, 2])
            connection.sendall(request)
        worker = int.from_bytes(_read(connection, 4), "big")
        pass_on()
        answer = _read(connection, 4)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if answer:
        return int.from_bytes(answer, "big")
    if received:  # The last signal ended the job, as it would have ended this process.
        return 128 + received[-1]
    if worker:
        print(f"error: the warm worker that ran this job died (process {worker})", file=sys.stderr)
        return 1
    return None


def _read(connection: socket.socket, size: int) -> bytes:
    """``size`` bytes, or none if the other side is gone."""
    content = b""
    while len(content) < size:
        try:
            part = connection.recv(size - len(content))
        except ConnectionResetError:
            return b""
        if not part:
            return b""
        content += part
    return content


def serve() -> None:
    """A worker's life: run one job after another, end with the run or when idle."""
    global _serving, _run_folder
    import atexit
    import faulthandler

    _serving = True
    last_words: list[Callable[[], None]] = []
    # Registered before any job can register anything, and so called after all that jobs did.
    atexit.register(lambda: [say() for say in last_words])
    path = Path(sys.argv[1])
    _run_folder, run = path.parent, path.parent.name
    idle = float(os.environ.get(IDLE, IDLE_SECONDS))
    connection = socket.socket(fileno=int(sys.argv[2]))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with address_of(path) as address:
        listener.bind(address)
    listener.listen()
    faulthandler.enable()
    nothing = os.open(os.devnull, os.O_RDWR)
    _direct([nothing, nothing])
    while True:
        _serve(connection, path, run, nothing, last_words)
        connection.close()
        connection = _next(listener, path, run, idle)


def _next(listener: socket.socket, path: Path, run: str, idle: float) -> socket.socket:
    """Wait for the next job, as long as there is reason to."""
    end = time.monotonic() + idle
    while True:
        ready, _, _ = select.select([listener], [], [], LOOK_SECONDS)
        if ready:
            return listener.accept()[0]
        if not run_lives(run):
            leave(path)
        if time.monotonic() > end:
            # Nobody can claim a worker that has claimed itself.
            with contextlib.suppress(BlockingIOError), _claimed(path, os.O_RDWR | os.O_CREAT):
                leave(path)


def leave(path: Path) -> None:
    """End this worker, or whoever else listens on ``path``, with all processes that its job started."""
    _remove(path)
    for folder in path.parents[:2]:
        with contextlib.suppress(OSError):
            folder.rmdir()  # the last one does
    os.killpg(os.getpid(), signal.SIGKILL)


def _serve(connection: socket.socket, path: Path, run: str, nothing: int, last_words: list[Callable[[], None]]) -> None:
    """Run one job."""
    import contextvars
    import threading
    import warnings

    header, outputs, _, _ = socket.recv_fds(connection, 4, 2)
    request = _read(connection, int.from_bytes(header, "big"))
    if request:
        _direct(outputs)
    for output in outputs:
        os.close(output)
    if not request:
        return
    job = json.loads(request)
    _begin(job)
    done, finish = os.pipe()
    heard: list[socket.socket | int] = [connection, done]

    def watch() -> None:
        while not (ready := select.select(heard, [], [], LOOK_SECONDS)[0]) and run_lives(run):
            pass
        if done not in ready:
            # The job's process, or the whole run, is gone: so is the job, at whatever it is.
            leave(path)

    def answer(status: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(status.to_bytes(4, "big"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(os.getpid().to_bytes(4, "big"))
    with warnings.catch_warnings():
        # In a context of its own: numpy's error state and its like end with the job.
        status = contextvars.Context().run(_run, job)
    _clean_up()
    left_running = [each for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    if left_running or _retiring:
        # What a job leaves running it waits for at its end, with all of Python's rites: this worker's last job.
        _remove(path)
        # The answer lets the job's process go, and that would end this one: all output comes before.
        last_words += [sys.stdout.flush, sys.stderr.flush, lambda: answer(status)]
        sys.exit()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # Nobody reads it any more, and what could not be written must not come out among the next job's output.
        answer(status or 120)
        leave(path)
    os.close(finish)
    watcher.join()
    os.close(done)
    _direct([nothing, nothing])
    answer(status)


def _direct(outputs: Sequence[int]) -> None:
    """Let standard output and error go to these, C libraries' included."""
    for output, target in zip(outputs, (1, 2), strict=True):
        os.dup2(output, target)


def _begin(job: dict[str, Any]) -> None:
    """Make this process look to the job like a new one."""
    import logging
    import tempfile
    import threading

    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.argv[:] = job["argv"]
    sys.path[:] = job["path"]
    sys.stdout, sys.stderr, sys.excepthook = sys.__stdout__, sys.__stderr__, sys.__excepthook__
    threading.excepthook = threading.__excepthook__
    tempfile.tempdir = None
    gc.enable()
    _default_signals()
    logging.disable(logging.NOTSET)
    logging.root.setLevel(logging.WARNING)
    logging.root.handlers.clear()
    if torch := sys.modules.get("torch"):
        _begin_torch(torch)


def _begin_torch(torch: types.ModuleType) -> None:
    """The state that torch has after its import."""
    # Snakemake grants threads by this variable.
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    torch.seed()
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.set_flush_denormal(False)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = False


def _default_signals() -> None:
    for number in FORWARDED:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _run(job: dict[str, Any]) -> int:
    """Run a job's program and return its exit status."""
    main = types.ModuleType("__main__")
    main.__file__ = job["file"]
    own, sys.modules["__main__"] = sys.modules["__main__"], main
    try:
        with open(job["file"], "rb") as source:
            code = compile(source.read(), job["file"], "exec", dont_inherit=True)
        exec(code, main.__dict__)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return (stop.code or 0) & 0xFF
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException as error:
        # As a process of its own would print it: from the program's frame on.
        traceback = error.__traceback__ and error.__traceback__.tb_next
        sys.excepthook(type(error), error.with_traceback(traceback), traceback)
        return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    finally:
        sys.modules["__main__"] = own
    return 0


def _clean_up() -> None:
    """Give back what a job held, but for what was loaded, kept and leased."""
    _default_signals()
    # What is alive now was loaded or is kept. Looking it through after each job took 0.2 s with torch.
    gc.collect()
    gc.freeze()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        # Other workers on the device may need it before this one's next job does.
        torch.cuda.empty_cache()
