"""Leases: which of the node's GPUs a job runs on.

Snakemake counts GPUs but assigns none. A job leases one: of those that it may see, the one with the fewest holders. A
lease is a locked file in a folder of the node, held for the process's life; the kernel releases it however the process
ends, so a killed holder leaves nothing behind.

A device that was granted and cannot be used is an error, with what to do about it: computing on the CPU in its place
would take a hundred times as long, without a word.

A job that hands itself to a warm worker imports this module to learn whether there are GPUs: it is kept light.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import time
from io import TextIOWrapper
from pathlib import Path

from winnow.files import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICE_FILES = Path("/dev")
# Where Windows puts its driver's libraries under WSL2, whose one device file may stand for any maker's GPU.
WSL_LIBRARIES = Path("/usr/lib/wsl/lib")
DRIVER = Path("/proc/driver/nvidia/version")


class Lease:
    """The right to use a device.

    Attributes
    ----------
    id : str or None
        The GPU as ``CUDA_VISIBLE_DEVICES`` names it; None for the CPU.
    holder : file or None
        What the lease lasts as long as.
    """

    def __init__(self, id: str | None, holder: TextIOWrapper | None = None):
        self.id = id
        self.holder = holder

    @property
    def device(self) -> str:
        """The device's name for torch, which sees no GPU but the leased one."""
        return "cpu" if self.id is None else "cuda"

    @property
    def name(self) -> str:
        """What the device is, for people."""
        if self.device == "cuda":
            import torch

            return torch.cuda.get_device_name()
        return processor()


# A process keeps the one GPU that it leased: CUDA does not let go of a device, and neither does a warm worker.
_held: Lease | None = None


def lease(gpu: int) -> Lease:
    """Lease a device, let this process see no other, and see that torch can use it.

    Has to be called before CUDA is initialised.

    Parameters
    ----------
    gpu
        GPUs that the job was granted; with 0, or where there is none, the lease is of the CPU.

    Raises
    ------
    InputError
        If torch cannot use the device. Nothing is leased then.
    """
    global _held
    fresh = _held is None
    placed = place(gpu)
    if placed.holder is not None and fresh:
        try:
            require_driver()
            _compute()
        except InputError:
            placed.holder.close()
            _held = None
            raise
    return placed


def place(gpu: int) -> Lease:
    """Lease a device and let this process see no other; whether it can be used is not asked."""
    global _held
    if gpu > 0 and _held is None and (found := candidates()):
        _held = _place(found)
    if gpu > 0 and _held is not None and _held.id is not None:
        # Anew for each job of a warm worker: CUDA reads it at its first use, which need not have been in the first job.
        os.environ[VISIBLE] = _held.id
        return _held
    if _held is None:
        os.environ[VISIBLE] = ""
    return Lease(None)


def require_driver() -> None:
    """See that the driver is there, and as new as the CUDA that torch was built for; torch itself is not loaded.

    CUDA of one major version runs on every driver of that version, or of a later one.

    Raises
    ------
    InputError
        If it is not; the message names driver, torch and what to do.
    """
    wheel, driver = _wheel(), _driver()
    if wheel is None:
        return  # nobody knows: torch will say
    _, cuda = wheel
    if cuda is None:
        raise _unusable("this torch was built without CUDA")
    if driver is None:
        raise _unusable("there is no NVIDIA driver: libcuda.so.1 cannot be loaded")
    if driver[0] < int(cuda.split(".")[0]):
        raise _unusable("the driver is older than the CUDA of this torch")


def _unusable(reason: str) -> InputError:
    cuda = _driver()
    try:
        found = re.search(r"\s(\d+\.[\d.]+)\s", DRIVER.read_text())
    except OSError:
        found = None
    release = found[1] if found else "of unknown release"  # under WSL2 it is Windows's
    driver = "none" if cuda is None else f"NVIDIA's, {release}, for CUDA up to {cuda[0]}.{cuda[1]}"
    version, built = _wheel() or ("of unknown version", "unknown")
    return InputError(
        f"a GPU was granted and cannot be used: {reason}. Driver: {driver}; torch: {version}, built for CUDA: "
        f"{built or 'no'}. Either run without GPUs, with --resources gpu=0, or install a torch wheel that is built for "
        "a CUDA that the driver has"
    )


def _wheel() -> tuple[str, str | None] | None:
    """Version of the installed torch and of the CUDA that it is built for (None: for none); None if nobody knows."""
    import importlib.util

    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return None
    version = re.search(r"^__version__ = '(.*)'$", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b.* = (?:'(.*)'|None)$", text, re.MULTILINE)
    return (version[1], cuda[1]) if version and cuda else None


def _driver() -> tuple[int, int] | None:
    """The newest CUDA that the driver knows, major and minor; None if there is no driver. No device is touched."""
    import ctypes

    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return None
    return None if failed else (version.value // 1000, version.value % 1000 // 10)


def _compute() -> None:
    """Let the device compute something: a driver that counts it may still refuse it, and a kernel may not fit it."""
    import torch

    try:
        torch.ones(1, device="cuda").item()
    except (RuntimeError, AssertionError) as error:
        raise _unusable(str(error).partition("\n")[0].rstrip(".")) from None


def threads() -> int:
    """Let torch use as many threads as the job was granted, and return their number.

    Snakemake says it in ``OMP_NUM_THREADS``; a warm worker has last served a job that may have been granted others.
    """
    import torch

    granted = os.environ.get("OMP_NUM_THREADS")
    if granted:
        torch.set_num_threads(int(granted))
    return torch.get_num_threads()


def candidates() -> list[str]:
    """The GPUs that this process may use: those that it inherited, as they were named, else those of the node.

    As CUDA does, the inherited list is read up to the first entry that names no device: never more than CUDA would see.
    In a SLURM allocation that was given no GPU there is none, whatever the node has.
    """
    inherited = os.environ.get(VISIBLE)
    if inherited is None:
        if "SLURM_JOB_ID" in os.environ:
            return []
        # CUDA counts what it sees from 0, whatever the device files are called: a container may have just nvidia3.
        numbered = [str(number) for number, _ in enumerate(DEVICE_FILES.glob("nvidia[0-9]*"))]
        # Under WSL2 no file says how many there are: it is one until somebody names more.
        return numbered or (["0"] if _wsl() else [])
    names = [name.strip() for name in inherited.split(",")]
    return list(dict.fromkeys(itertools.takewhile(_names_a_device, names)))


def _wsl() -> bool:
    return (DEVICE_FILES / "dxg").exists() and any(WSL_LIBRARIES.glob("libcuda.so*"))


def _names_a_device(name: str) -> bool:
    return name.isdigit() or name.startswith(("GPU-", "MIG-"))


def folder() -> Path:
    """Where the node's leases lie: local to the node, one folder a user, and one a SLURM allocation.

    Two allocations on one node may both call their devices 0 and 1, and mean others. It is not in ``TMPDIR``, which two
    runs that share the devices may not have in common.
    """
    name = f"winnow-leases-{os.getuid()}-{os.environ.get('SLURM_JOB_ID', '')}".rstrip("-")
    return Path(os.environ.get("WINNOW_LEASES", f"/tmp/{name}"))


def holders(device: str) -> int:
    """How many live processes hold a lease of ``device``; what dead ones left is removed."""
    alive = 0
    for path in _files(device).glob("*.lock"):
        with open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                alive += 1
            else:
                path.unlink(missing_ok=True)
    return alive


def _files(device: str) -> Path:
    return folder() / device.replace("/", "_")  # MIG-GPU-.../1/0, as older drivers name a slice of a GPU


def _place(found: list[str]) -> Lease:
    """Lease the device with the fewest holders, the first of several."""
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder() / "placing.lock", "w") as placing:
        # One process at a time counts the holders and becomes one.
        fcntl.flock(placing, fcntl.LOCK_EX)
        device = min(found, key=holders)
        _files(device).mkdir(exist_ok=True)
        # A process number is unique in a container only, and containers may share the folder.
        name = f"{os.getpid()}-{time.monotonic_ns()}.lock"
        holder = open(_files(device) / name, "w")  # noqa: SIM115 - it stays open for the process's life
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return Lease(device, holder)


def processor() -> str:
    """The processor's name, for people."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()
