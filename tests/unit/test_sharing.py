"""One copy on a device for all workers of a run: who makes it, who sees it, and that nobody's end takes it along."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from winnow.data.store import Entry, write_store
from winnow.runtime import sharing, workers

from . import host_memory
from .test_workers import Run, alive, wait_for

HERE = Path(__file__).parent


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The folder of a run whose process is this one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield (place := workers._folder(os.getpid()))
    for pid in holders(place):
        os.kill(pid, signal.SIGKILL)


def holders(folder: Path) -> list[int]:
    """The processes that hold something for the run with this folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(b"sharing import serve" in part for part in command) and os.fsencode(folder) in b"\0".join(command):
            found.append(int(place.name))
    return [pid for pid in found if alive(pid)]


class Maker:
    """Fills arrays with their number, and counts how often it was asked to."""

    def __init__(self, folder: Path):
        self.folder, self.filled = folder, []

    def __call__(self, name="a", size=100, device="0", value=7, share=0.5):
        def fill(array):
            self.filled.append(name)
            array.fill_(value)

        return sharing.shared(self.folder, device, name, size, share, host_memory, fill)


@pytest.fixture
def ask(folder):
    return Maker(folder)


def test_the_first_fills_an_array_and_the_others_see_it(ask, folder):
    first, second = ask(), ask(value=9)
    assert ask.filled == ["a"]
    assert second.tolist() == [7] * 100
    first[3] = 1  # One memory, not two.
    assert second[3] == 1
    assert ask("b", value=2).tolist() == [2] * 100
    assert ask("a", device="1", value=3).tolist() == [3] * 100
    assert ask.filled == ["a", "b", "a"]
    assert len(holders(folder)) == 2
    del first, second
    gc.collect()
    assert not host_memory.alive


def test_those_that_ask_while_it_is_filled_wait_and_one_of_them_fills_it_if_that_fails(ask):
    begun, broken, found = threading.Event(), threading.Event(), []

    def fail(array):
        begun.set()
        assert broken.wait(60)
        raise ValueError("the file is damaged")

    def first():
        with pytest.raises(ValueError, match="damaged"):
            sharing.shared(ask.folder, "0", "a", 100, 0.5, host_memory, fail)

    def other():
        begun.wait(60)
        found.append(ask())

    threads = [threading.Thread(target=target) for target in (first, other, other, other)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    time.sleep(0.3)
    assert not found
    broken.set()
    for thread in threads:
        thread.join(60)
    assert ask.filled == ["a"]
    assert [array.tolist() for array in found] == [[7] * 100] * 3


def test_what_nobody_uses_makes_room_and_what_is_used_stays(ask, monkeypatch):
    # Half of what there is, what is held here among it: with others' share it is always a thousand.
    held = []
    monkeypatch.setattr(host_memory, "free", lambda: 1000 - sum(held))

    def get(name, size, now):
        array = ask(name, size)
        held[:] = now
        return array

    used = get("a", 200, [200])
    get("b", 200, [200, 200])
    assert get("c", 400, [200, 200]) is None
    assert get("a", 200, [200, 200]).tolist() == [7] * 200
    assert get("d", 300, [200, 300]) is not None  # in place of b
    assert get("b", 200, [200, 200]) is not None  # in place of d
    assert ask.filled == ["a", "b", "d", "b"]
    del used
    assert get("c", 500, [500]) is not None
    assert ask("e", 501) is None
    assert ask("c", 500) is not None
    assert ask.filled == ["a", "b", "d", "b", "c"]


def test_a_killed_holder_takes_nothing_along_and_a_new_one_begins(ask, folder):
    first = ask()
    (pid,) = holders(folder)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not holders(folder))
    assert first.tolist() == [7] * 100
    assert ask(value=8).tolist() == [8] * 100
    assert ask(value=9).tolist() == [8] * 100
    assert ask.filled == ["a", "a"]


def test_a_holder_that_nobody_needs_any_more_ends(ask, folder, monkeypatch):
    monkeypatch.setenv(workers.IDLE, "0.5")
    array = ask()
    time.sleep(1.2)
    assert len(holders(folder)) == 1
    del array
    wait_for(lambda: not holders(folder))
    assert not folder.exists()
    workers._folder(os.getpid())
    assert ask() is not None
    assert ask.filled == ["a", "a"]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_holder_that_cannot_be_had_is_an_error(at_once, ask, monkeypatch):
    popen = subprocess.Popen

    def ended(*arguments, **options):
        started = popen(*arguments, **options)
        if at_once:
            started.wait()
        return started

    monkeypatch.setattr(subprocess, "Popen", ended)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConnectionError, match="does not answer"):
        ask()


# --- through workers, from a store ---

# A job that has a store's images, and notes where they come from. What a job leaves in its globals its worker may keep.
GET = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import types
from pathlib import Path
import host_memory
import numpy as np, torch
from winnow.data import images
from winnow.data.store import Store
from winnow.runtime import memory, sharing

def note(what, store):
    with open("notes", "a") as file:
        print(what, store.directory.name, file=file)

def job(wait=lambda: None, copy=torch.clone):
    store = Store.open(Path(sys.argv[2]))
    pixels = torch.from_numpy(np.array(store.images))

    def shared(*arguments):
        *others, fill = arguments
        return sharing.shared(*others, lambda array: (note("read", store), fill(array)))

    def kept(kind, directory, make, **options):
        return memory.kept(kind, directory, lambda: (note("own", store), copy(pixels))[1], **options)

    images.device_memory = host_memory
    images.sharing = types.SimpleNamespace(shared=shared)
    images.memory = types.SimpleNamespace(**vars(memory) | {{"kept": kept}})
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"
    found = images.resident(store, pixels)
    assert torch.equal(found, pixels), found
    print(len(host_memory.alive), found is pixels, flush=True)
    wait()

def none(*_):
    raise MemoryError

def forever(gate="no gate"):
    import time
    while not os.path.exists(gate):
        time.sleep(0.01)

"""
JOB = GET + "job()"
SHARED, OWN, HOSTS = (f"{blocks} {hosts}\n" for blocks, hosts in ((1, False), (0, False), (0, True)))


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    for name in "ab":
        generator = np.random.default_rng(ord(name))
        stream = [
            (Entry(str(n), 0, None, None, 8, 8), generator.integers(0, 256, (8, 8, 3), np.uint8)) for n in range(3)
        ]
        manifest = {"classes": ["p"], "store_size": 8, "image_size": 8, "spec": {}}
        write_store(run.place / name, iter(stream), manifest)
    yield run
    for job in run.jobs:
        if job.poll() is None:
            job.kill()
            job.communicate()
    run.end()
    wait_for(lambda: not holders(run.folder))


def notes(run):
    path = run.place / "notes"
    return path.read_text().splitlines() if path.exists() else []


def test_workers_read_a_store_once_for_all_of_them(run):
    jobs = [run.start(GET + "job(lambda: forever('gate'))", "a") for _ in range(3)]
    for job in jobs:
        assert job.stdout.readline() == SHARED
    assert len(set(run.pids)) == 3
    (run.place / "gate").touch()
    assert [job.wait(60) for job in jobs] == [0] * 3
    # The next jobs, two stores in turn.
    for name in "bab":
        assert run.job(JOB, name) == (0, SHARED, "")
    assert sorted(notes(run)) == ["read a", "read b"]
    run.owner.kill()
    wait_for(lambda: not run.folder.exists())


def test_a_killed_worker_takes_no_copy_along(run):
    job = run.start(GET + "job(forever)", "a")
    assert job.stdout.readline() == SHARED
    job.kill()
    wait_for(lambda: not alive(run.pids[0]))
    assert run.job(JOB, "a") == (0, SHARED, "")
    assert len(set(run.pids)) == 2
    assert notes(run) == ["read a"]


def test_a_store_that_is_made_anew_is_read_anew(run):
    assert run.job(JOB, "a")[0] == 0
    shutil.rmtree(run.place / "a")
    shutil.copytree(run.place / "b", run.place / "a")
    assert run.job(JOB, "a") == (0, SHARED, "")
    assert notes(run) == ["read a"] * 2


def test_where_nothing_can_be_shared_each_worker_has_its_own_copy_and_says_so_once(run):
    broken = GET + "host_memory.Block = None\njob()"
    status, output, error = run.job(broken, "a")
    assert (status, output) == (0, OWN), error
    assert error.startswith("no images shared with other workers (")
    assert error.endswith("): each has its own copy\n")
    # The worker knows, and keeps what it has.
    assert [run.job(broken, name) for name in "bab"] == [(0, OWN, "")] * 3
    assert notes(run) == ["own a", "own b"]


def test_a_process_of_its_own_shares_nothing(run):
    assert run.cold(JOB, "a") == (0, OWN, "")
    assert notes(run) == ["own a"]
    assert not holders(run.folder)


def test_images_for_which_memory_runs_out_stay_in_the_hosts(run):
    said = "out of memory for the images on the device: they stay in the host's\n"
    assert run.job(GET + "host_memory.Block = none\njob()", "a") == (0, said + HOSTS, "")
    assert run.cold(GET + "job(copy=none)", "a") == (0, said + HOSTS, "")
    # Nor do they go where there is no room for them.
    assert run.job(GET + "host_memory.FREE = 2 * 575\njob()", "b") == (0, HOSTS, "")
    assert run.cold(GET + "host_memory.FREE = 2 * 575\njob()", "b") == (0, HOSTS, "")
    assert "read b" not in notes(run)
