"""A process that has the libraries loaded, and forks warm workers for all runs of a test session.

A worker of its own takes five seconds of a processor to load torch and what comes with it, and a run has two or more: a
third of a small grid. This one loads them when it is first asked, once. A worker that it forks is like any other from
there on; it loads ``winnow`` anew, from the checkout whose run asked for it. What torch and others read from the
environment when they are loaded has to be the same as here, or the run is left to start its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
ADDRESS = "TEST_WINNOW_NURSERY"  # for the processes of one session; workflow/checkout.py tells runs of it
LIBRARIES = ["numpy", "pandas", "pyarrow.parquet", "scipy.stats", "torch", "torchvision", "torch_pruning", "altair"]
LIBRARIES += ["sklearn.datasets", "sklearn.linear_model"]
# Of these variables libraries read some when they are loaded, others when they begin to compute.
READ_AT_LOADING = (
    "PYTHON",
    "LD_",
    "OMP_",
    "MKL_",
    "KMP_",
    "OPENBLAS_",
    "ATEN_",
    "ONEDNN_",
    "TORCH",
    "PYTORCH",
    "CUDA_",
    "THP_",
)
SET_LATER = {"PYTHONDONTWRITEBYTECODE", "CUDA_VISIBLE_DEVICES"}
# Libraries set these themselves.
SET_LATER |= {"THP_MEM_ALLOC_ENABLE", "TORCHINDUCTOR_CACHE_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}


def start() -> tuple[subprocess.Popen, str]:
    """Start one; return it and where it listens. It ends when its standard input is closed."""
    address = str(Path(tempfile.mkdtemp(prefix="winnow-nursery-")) / "socket")
    command = [sys.executable, __file__, address]
    nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    nursery.stdout.read(1)
    return nursery, address


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for workers.
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(sys.argv[1])
    listener.listen(64)
    os.write(1, b".")
    while True:
        ready = select.select([listener, 0], [], [])[0]
        if 0 in ready:
            os.unlink(sys.argv[1])
            os.rmdir(os.path.dirname(sys.argv[1]))
            return
        connection = listener.accept()[0]
        with connection:
            header, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
            text = connection.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL)
            worker = json.loads(text)
            alike = loaded_alike(worker)
            if alike and "torch" not in sys.modules:
                load()
            if alike and os.fork() == 0:
                listener.close()
                connection.sendall(b"y")
                connection.close()
                be(worker, descriptors)
                return
            if not alike:
                connection.sendall(b"n")
            for descriptor in descriptors:
                os.close(descriptor)


def loaded_alike(worker: dict) -> bool:
    """Whether a worker would load the same libraries as are loaded here, in the same way."""

    def read(environment: dict[str, str]) -> dict[str, str]:
        return {
            name: value
            for name, value in environment.items()
            if name.startswith(READ_AT_LOADING) and not name.endswith("_NUM_THREADS") and name not in SET_LATER
        }

    folders = {folder for folder in worker["libraries"] if os.path.basename(folder) == "site-packages"}
    return (
        worker["executable"] == sys.executable
        and folders <= set(sys.path)
        and read(worker["env"]) == read(dict(os.environ))
    )


def load() -> None:
    sys.path.insert(0, str(SCRIPTS))
    importlib.import_module("winnow.runtime")  # says how torch is to take memory
    for name in LIBRARIES:
        importlib.import_module(name)
    # A fork leaves these objects where they are.
    gc.collect()
    gc.freeze()


def be(worker: dict, descriptors: list[int]) -> None:
    """Become the worker: as ``workers._start`` makes it, from here on."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection, *outputs = descriptors
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor, target in zip((nothing, *outputs), (0, 1, 2), strict=True):
        os.dup2(descriptor, target)
    for descriptor in (nothing, *outputs):
        os.close(descriptor)
    os.chdir("/")
    os.environ.clear()
    os.environ.update(worker["env"])
    sys.argv = ["-c", worker["path"], str(connection)]
    sys.path[:] = worker["libraries"]
    for name in [name for name in sys.modules if name.split(".")[0] == "winnow"]:
        del sys.modules[name]
    if threads := os.environ.get("OMP_NUM_THREADS"):
        from threadpoolctl import threadpool_limits

        # numpy's and scipy's libraries have read it when they were loaded.
        threadpool_limits(int(threads), "blas")
    from winnow.runtime.workers import serve

    serve()


if __name__ == "__main__":
    main()
