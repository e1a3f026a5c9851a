"""Several processes that train one model together: synchronous data parallelism over MPI.

`mpirun -n 4 python train.py` starts a program four times; each process is a rank, 0 to 3, with a model of its own that
begins with rank 0's weights. Of every batch each rank takes its share. The gradients of all, weighted by the sizes of
the shares, are added by one Allreduce, after which every rank makes the same step: the weights stay equal, bit for bit,
and are those that one process alone would compute, but for the order of the sums.

A program that is started without `mpirun` never imports mpi4py.
"""

import atexit
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import numpy as np

from minicnn import errors, witness
from minicnn.errors import StateError
from minicnn.kernels import devices, threads

LAUNCHERS = ("PMI", "OMPI_COMM_WORLD", "PMIX")  # what MPICH, Open MPI and others tell a process by: ..._RANK, ..._SIZE
PATIENCE = 0.5  # seconds that the other ranks wait with their error: rank 0 may have the same, and one line is enough


class Signals:
    """Which signal asked this rank to end, and which one all have agreed on: they end after the same step."""

    mine = 0
    agreed: int | None = None

    def note(self, total: float) -> None:
        """Agree on an end if the sum over all ranks says that one of them was asked.

        Parameters
        ----------
        total : float, the sum of `mine` over all ranks
        """
        if total > 0:
            self.agreed = self.mine or signal.SIGTERM


signals = Signals()
_memory: Any = None  # what the last step was told in
_shared: tuple[int, slice] | None = None  # the size of the batch that is being shared, and this rank's part of it


def rank() -> int:
    """Return the number of this process among those that train together, from 0.

    >>> from minicnn import ranks
    >>> ranks.rank()
    0
    """
    return _told("RANK", 0)


def size() -> int:
    """Return how many processes train together.

    >>> from minicnn import ranks
    >>> ranks.size()
    1
    """
    return _told("SIZE", 1)


@functools.cache
def _told(what: str, alone: int) -> int:
    for launcher in LAUNCHERS:
        if f"{launcher}_RANK" in os.environ and f"{launcher}_SIZE" in os.environ:
            return int(os.environ[f"{launcher}_{what}"])
    return alone


def share(N: int) -> slice:
    """Return which of N images are this rank's: as many as another's, or one more or less.

    Parameters
    ----------
    N : int

    Examples
    --------
    >>> from minicnn import ranks
    >>> ranks.share(64)
    slice(0, 64, None)
    """
    return slice(rank() * N // size(), (rank() + 1) * N // size())


@contextmanager
def sharing(N: int) -> Iterator[slice]:
    """Inside the block, layers compute this rank's share of a batch of N images, which is given.

    Parameters
    ----------
    N : int
    """
    global _shared
    own = share(N)
    _shared = N, own
    try:
        yield own
    finally:
        _shared = None


def batch(count: int) -> tuple[int, slice]:
    """Return the size of the whole batch, of which a layer has `count` images, and which of them these are.

    Parameters
    ----------
    count : int

    Examples
    --------
    >>> from minicnn import ranks
    >>> ranks.batch(64)
    (64, slice(0, 64, None))
    """
    return (count, slice(0, count)) if _shared is None else _shared


def shared() -> bool:
    """Return whether a batch is being shared among ranks."""
    return _shared is not None


def add(array: Any) -> Any:
    """Add up the arrays of all ranks, in place, and return the sum: every rank gets the same bits.

    Parameters
    ----------
    array : contiguous numpy.ndarray or cupy.ndarray, of one shape and type on all ranks
    """
    if size() > 1 and isinstance(array, np.ndarray):
        world = _world()
        world.Allreduce(_mpi().IN_PLACE, array, _mpi().SUM)
    elif size() > 1 and (nccl := _nccl()) is not None:
        nccl(array)
    elif size() > 1:
        array.set(add(array.get()))  # through the host
    return array


def memory(like: Any, size: int) -> Any:
    """Return an array (size,) of undefined content, of the kind and type of another; the same one for the same size.

    Parameters
    ----------
    like : numpy.ndarray or cupy.ndarray
    size : int
    """
    global _memory
    if _memory is None or type(_memory) is not type(like) or (_memory.size, _memory.dtype) != (size, like.dtype):
        _memory = np.zeros_like(like, shape=size)
    return _memory


def agree(array: Any) -> None:
    """Overwrite an array with rank 0's.

    Parameters
    ----------
    array : numpy.ndarray or cupy.ndarray, of one shape and type on all ranks
    """
    content = np.ascontiguousarray(array if isinstance(array, np.ndarray) else array.get())
    _world().Bcast(content, root=0)
    if not isinstance(array, np.ndarray):
        array.set(content)
    elif content is not array:
        array[...] = content


def agree_text(text: str) -> str:
    """Return rank 0's text.

    Parameters
    ----------
    text : str
    """
    content = np.frombuffer(text.encode(), np.uint8)
    length = np.array([len(content)])
    agree(length)
    content = content.copy() if rank() == 0 else np.empty(int(length[0]), np.uint8)
    agree(content)
    return content.tobytes().decode()


@contextmanager
def first() -> Iterator[None]:
    """Let rank 0 go through the block before the others do: what it downloads or deletes, they find so.

    Raises
    ------
    StateError
        With several ranks, if MPI cannot be used.

    Examples
    --------
    >>> from minicnn import ranks
    >>> with ranks.first():
    ...     print("ready")
    ready
    """
    if rank() > 0:
        wait()
    try:
        yield
    finally:
        if rank() == 0:
            wait()


def wait() -> None:
    """Wait for all ranks.

    Raises
    ------
    StateError
        With several ranks, if MPI cannot be used.

    Examples
    --------
    >>> from minicnn import ranks
    >>> ranks.wait()  # not long, alone
    """
    if size() > 1:
        _world().Barrier()


def tell_witness(line: str) -> None:
    """Tell the process that will speak if a rank is lost.

    Parameters
    ----------
    line : str, as `minicnn.witness` understands it
    """
    if size() > 1 and (connection := _witness()) is not None:
        with suppress(OSError):
            connection.sendall(f"{line}\n".encode())


def _mpi() -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        if error.name == "mpi4py":
            problem = "is not installed. Install it: pip install 'minicnn[mpi]'"
        else:
            problem = f"cannot be loaded ({error}). Install an MPI library: pip install mpich"
        raise StateError(f"training on {size()} ranks needs mpi4py, which {problem}") from None
    except RuntimeError as error:  # there is no MPI library
        raise StateError(
            f"training on {size()} ranks needs an MPI library, and none can be loaded ({str(error).splitlines()[0]}). "
            "Install one: pip install mpich"
        ) from None
    return MPI


@functools.cache
def _world() -> Any:
    """Return MPI's communicator of all ranks; the first call shares out the cores and lets an error of one end all."""
    MPI = _mpi()
    world = MPI.COMM_WORLD
    if world.Get_size() != size():
        raise StateError(
            f"the launcher started {size()} ranks, but mpi4py knows {world.Get_size()}: they belong to different MPI "
            "libraries. Start with the mpirun of the library that mpi4py uses."
        )
    mine, here = _place()
    if threads.get_num_threads() == _cores():  # nobody has chosen another number
        threads.set_num_threads(max(1, _cores() // here))
    if devices.get_device() == "gpu":
        import cupy

        cupy.cuda.Device(mine % cupy.cuda.runtime.getDeviceCount()).use()
    before = sys.excepthook

    def end_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            time.sleep(PATIENCE * (rank() > 0))
        before(kind, error, trace)
        if not issubclass(kind, KeyboardInterrupt):
            _abort(1)

    sys.excepthook = end_all
    _witness()
    return world


@functools.cache
def _place() -> tuple[int, int]:
    """Return this rank's number on its machine, and how many ranks are there."""
    MPI = _mpi()
    local = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    return local.Get_rank(), local.Get_size()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _witness() -> socket.socket | None:
    """Return the connection to this machine's witness, which the first rank here starts."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    MPI, (mine, here) = _mpi(), _place()
    local = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    path = np.zeros(100, np.uint8)  # a socket's path has at most 107 bytes
    if mine == 0:
        folder = tempfile.mkdtemp(prefix="minicnn-")
        chosen = f"{folder}/witness".encode()
        words = [sys.executable, "-I", "-S", witness.__file__, chosen.decode(), str(here)]
        process = subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert process.stdout is not None
        if process.stdout.readline():
            path[: len(chosen)] = np.frombuffer(chosen, np.uint8)
    local.Bcast(path, root=0)
    if not path.any():
        return None
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path.tobytes().rstrip(b"\0").decode())
    connection.sendall(f"rank {rank()}\n".encode())
    atexit.register(tell_witness, "bye")
    return connection


def _abort(status: int) -> None:
    """End all ranks, if there are others and MPI has begun."""
    if size() > 1 and "mpi4py.MPI" in sys.modules:
        tell_witness("end")
        sys.stdout.flush()
        sys.stderr.flush()
        _mpi().COMM_WORLD.Abort(status)


def _leave(line: str, status: int) -> None:
    """Print the error that ends the program and end all ranks with it."""
    if size() > 1:
        time.sleep(PATIENCE * (rank() > 0))
        print(f"{line} (rank {rank()})" if rank() else line, file=sys.stderr, flush=True)
        _abort(status)


errors.leave = _leave if size() > 1 else errors.leave


@functools.cache
def _nccl() -> Any:
    """Return what adds up arrays of the cards in place by NCCL, or None where it is missing."""
    try:
        from cupy.cuda import nccl
    except ImportError:
        return None
    if not nccl.available:
        return None
    import cupy

    name = np.array(nccl.get_unique_id() if rank() == 0 else [0] * 128, np.int8)
    agree(name)
    communicator = nccl.NcclCommunicator(size(), tuple(name.tolist()), rank())

    def add_up(array: Any) -> None:
        kind = nccl.NCCL_FLOAT32 if array.dtype == np.float32 else nccl.NCCL_FLOAT64
        pointer, stream = array.data.ptr, cupy.cuda.get_current_stream().ptr
        communicator.allReduce(pointer, pointer, array.size, kind, nccl.NCCL_SUM, stream)

    return add_up
