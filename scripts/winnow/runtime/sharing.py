"""One copy of a large array on a device, for all workers of a run that compute there.

A run has a *holder* for each device: a process that keeps file descriptors of the device's memory (see
:mod:`winnow.runtime.device_memory`), and hands them out. Who asks for what is not there yet is told to make it, and
hands its descriptor over; those that ask meanwhile wait. The holder itself touches no device, and whoever is killed
takes nothing along: neither a worker, whose arrays stay, nor the holder, after which a new one begins with nothing.

As a worker does, a holder ends with its run, and by itself when nobody has had anything of it for long. A worker asks
anew for each job, and stays connected as long as it uses an array: one that nobody uses makes room for another, the
least recently used one first.

Messages are packets on a socket in the run's folder: what is asked for, as JSON; HAVE with a descriptor, MAKE or
NO_ROOM; and, after MAKE, MADE with one.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import json
import os
import selectors
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from winnow.runtime import workers

HAVE, MAKE, NO_ROOM, MADE = b"have", b"make", b"no room", b"made"
_PACKET = 2**16
# A holder that ends just when it is asked is no failure.
_TRIES = 3


def shared(
    folder: Path,
    device: str,
    name: str,
    size: int,
    share: float,
    memory: Any,
    fill: Callable[[Any], object],
) -> Any | None:
    """The array ``name``, (size,) uint8 on the device, as all of the run's workers there see it; nobody may change it.

    Parameters
    ----------
    folder
        The run's.
    device
        As it was leased.
    name
        Of what is in the array: whatever it depends on.
    size
        In bytes.
    share
        Of the device's memory, less what others have taken: how much all arrays may take.
    memory
        Makes and shows such memory: :mod:`winnow.runtime.device_memory`.
    fill
        Called with the array, if nobody has made it yet.

    Returns
    -------
    Tensor or None
        None where there is no room.

    Raises
    ------
    MemoryError
        If the device has less left than it says.
    OSError
        If driver, device or holder cannot share.
    """
    path = folder / f"holder-{zlib.crc32(os.fsencode(device)):08x}.sock"
    request = json.dumps({"name": name, "size": size, "free": memory.free(), "share": share}).encode()
    for _ in range(_TRIES):
        connection = _connected(path)
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
            answer, descriptors, _, _ = socket.recv_fds(connection, _PACKET, 1, socket.MSG_CMSG_CLOEXEC)
            if answer:
                break
        connection.close()
    else:
        raise ConnectionError("the process that holds them does not answer")
    try:
        if answer == NO_ROOM:
            connection.close()
            return None
        block = memory.Block(size, *descriptors)
        if answer == MAKE:
            fill(block.tensor())
            block.finish()
            descriptors = [block.export()]
            socket.send_fds(connection, [MADE], descriptors)
    except BaseException:
        # Whoever waits for it makes it.
        connection.close()
        raise
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    # For as long as the array is used: the two go together.
    block.connection = connection
    return block.tensor()


def _connected(path: Path) -> socket.socket:
    """A connection to the holder that listens on ``path``, which is started if there is none."""
    with _only_one(path.parent):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with workers.address_of(path) as address:
            try:
                connection.connect(address)
                return connection
            except FileNotFoundError:
                pass
            except ConnectionRefusedError:
                path.unlink()  # Its holder is dead.
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(address)
                listener.listen()
                _start(path, listener.fileno())
                # As long as it listens here, too: a holder that ends at once is one that does not answer.
                connection.connect(address)
        return connection


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Only one process at a time starts a holder, or ends as one."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _start(path: Path, listener: int) -> None:
    import subprocess

    libraries = [os.path.abspath(folder) for folder in sys.path]
    code = f"import sys; sys.path[:] = {libraries}; from winnow.runtime.sharing import serve; serve()"
    # In a session of its own: the worker's end is not its end. Nor has it anything to say in a job's output.
    null = subprocess.DEVNULL
    command = [sys.executable, "-c", code, str(path), str(listener)]
    subprocess.Popen(
        command, stdin=null, stdout=null, stderr=null, cwd="/", pass_fds=[listener], start_new_session=True
    )


@dataclasses.dataclass
class Array:
    """What a holder knows of an array.

    Attributes
    ----------
    size : int
        In bytes.
    maker : socket or None
        Of the worker that makes it; None once it is made.
    descriptor : int or None
        Of its memory, once it is made.
    waiting, users : list of socket
        Who waits for it, and who has it.
    """

    size: int
    maker: socket.socket | None
    descriptor: int | None = None
    waiting: list[socket.socket] = dataclasses.field(default_factory=list)
    users: list[socket.socket] = dataclasses.field(default_factory=list)


def serve() -> None:
    """A holder's life."""
    path, listener = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    Holder(path, listener, float(os.environ.get(workers.IDLE, workers.IDLE_SECONDS))).run()


class Holder:
    """Keeps the arrays of a run on a device.

    Parameters
    ----------
    path
        Where it listens, in the run's folder.
    idle
        After how many seconds without anybody it ends.
    """

    def __init__(self, path: Path, listener: socket.socket, idle: float) -> None:
        self.path, self.listener, self.idle = path, listener, idle
        self.arrays: collections.OrderedDict[str, Array] = collections.OrderedDict()
        self.connections = selectors.DefaultSelector()
        self.connections.register(listener, selectors.EVENT_READ)

    def run(self) -> None:
        busy = time.monotonic()
        while True:
            for key, _ in self.connections.select(workers.LOOK_SECONDS):
                if key.fileobj is self.listener:
                    self.connections.register(self.listener.accept()[0], selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket):
                    self._hear(key.fileobj)
            if not workers.run_lives(self.path.parent.name):
                workers.leave(self.path)
            if len(self.connections.get_map()) > 1:
                busy = time.monotonic()
            elif time.monotonic() > busy + self.idle:
                with _only_one(self.path.parent):
                    # Nobody can have come since.
                    if not self.connections.select(0):
                        workers.leave(self.path)

    def _hear(self, connection: socket.socket) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(connection, _PACKET, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            packet, descriptors = b"", []
        if packet == MADE and descriptors:
            self._made(connection, descriptors[0])
        elif packet:
            self._asked(connection, **json.loads(packet))
        else:
            self._gone(connection)

    def _asked(self, connection: socket.socket, name: str, size: int, free: int, share: float) -> None:
        array = self.arrays.get(name)
        if array is not None:
            self.arrays.move_to_end(name)
            if array.descriptor is not None:
                self._give(array, array.descriptor, connection)
            else:
                array.waiting.append(connection)
        elif self._make_room(size, share * (free + self._held())):
            self.arrays[name] = Array(size, connection)
            self._say(connection, MAKE)
        else:
            self._say(connection, NO_ROOM)

    def _held(self) -> int:
        return sum(array.size for array in self.arrays.values())

    def _make_room(self, size: int, limit: float) -> bool:
        """Whether an array of so many bytes fits, without those that nobody uses, the least recently used ones first.

        Those go that have to, and none if that is not enough.
        """
        held, gone = self._held(), {}
        for name, array in self.arrays.items():
            if held + size > limit and array.descriptor is not None and not array.users:
                gone[name] = array.descriptor
                held -= array.size
        if held + size > limit:
            return False
        for name, descriptor in gone.items():
            del self.arrays[name]
            os.close(descriptor)
        return True

    def _made(self, connection: socket.socket, descriptor: int) -> None:
        array = next(array for array in self.arrays.values() if array.maker is connection)
        array.maker, array.descriptor = None, descriptor
        array.users.append(connection)
        waiting, array.waiting = array.waiting, []
        for other in waiting:
            self._give(array, descriptor, other)

    def _give(self, array: Array, descriptor: int, connection: socket.socket) -> None:
        array.users.append(connection)
        self._say(connection, HAVE, descriptor)

    def _say(self, connection: socket.socket, packet: bytes, *descriptors: int) -> None:
        # Whoever is gone is heard of as such.
        with contextlib.suppress(ConnectionError):
            if descriptors:
                socket.send_fds(connection, [packet], descriptors)
            else:
                connection.sendall(packet)

    def _gone(self, connection: socket.socket) -> None:
        self.connections.unregister(connection)
        connection.close()
        for name, array in list(self.arrays.items()):
            for those in array.users, array.waiting:
                if connection in those:
                    those.remove(connection)
            if array.maker is connection:
                if array.waiting:
                    array.maker = array.waiting.pop(0)
                    self._say(array.maker, MAKE)
                else:
                    del self.arrays[name]
