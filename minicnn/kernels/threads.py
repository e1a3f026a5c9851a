"""A pool of threads for kernels that release the interpreter lock, with results that do not depend on its size.

The work is cut into blocks by its own size, never by the number of threads; who computes a block decides nothing.
BLAS is held to one thread meanwhile, since its own threads would cut sums differently and compete for the cores.
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from minicnn.checks import positive_integer

BLOCKS = 16  # parts that a batch is cut into: enough for the threads of a desktop, few enough to sum their dw

_lock = threading.RLock()  # one parallel region at a time: a second caller waits instead of oversubscribing
_helpers: list[Any] = []
_blas: list | None = None
_depth = 0  # of nested blocks that hold BLAS to one thread
_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get_num_threads() -> int:
    """Return the number of threads that kernels run on: at first, the cores this process may use.

    >>> import minicnn
    >>> minicnn.get_num_threads() >= 1
    True
    """
    return _num_threads


def set_num_threads(count: int) -> None:
    """Choose the number of threads that kernels run on; results do not depend on it.

    Parameters
    ----------
    count : int
        At least 1.

    Raises
    ------
    ArgumentError
        If `count` is not a positive integer.

    Examples
    --------
    >>> import minicnn
    >>> cores = minicnn.get_num_threads()
    >>> minicnn.set_num_threads(1)
    >>> minicnn.get_num_threads()
    1
    >>> minicnn.set_num_threads(cores)
    """
    global _num_threads
    count = positive_integer("set_num_threads(count)", count)
    with _lock:
        _dismiss()
        _num_threads = count


def blocks(N: int) -> list[tuple[int, int]]:
    """Return the first and the last + 1 of the images of each block: at most 16, whatever the number of threads.

    There is one for every 8 images begun, no more, so that summing the blocks' dw stays cheap beside computing them.

    >>> blocks(20)
    [(0, 6), (6, 13), (13, 20)]
    """
    B = min(-(-N // 8), BLOCKS)
    return [(i * N // B, (i + 1) * N // B) for i in range(B)]


def run(task: Callable[..., None], count: int, scratch: Callable[[], tuple] = tuple) -> None:
    """Call ``task(i, *own)`` once for each i in range(count), on all threads; the first exception is raised here.

    ``own`` is what ``scratch()`` returns: each thread asks for it once, so that it stays in that core's cache.
    """
    with single_threaded_blas():
        numbers = itertools.count()

        def work() -> None:
            own = scratch()
            while (i := next(numbers)) < count:
                task(i, *own)

        helpers = _crew()[: count - 1] if count else []
        try:
            for helper in helpers:
                helper.begin(work)
            try:
                work()
            finally:
                errors = [helper.end() for helper in helpers]  # nobody still writes when the caller goes on
        except BaseException:
            _dismiss()  # after Ctrl-C nobody knows who still has work
            raise
        for error in errors:
            if error is not None:
                raise error


class _Helper(threading.Thread):
    """A thread that sleeps until there is work: two locks wake it and its caller, faster than an executor's queue."""

    def __init__(self) -> None:
        super().__init__(name="minicnn", daemon=True)
        self._work: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._asked, self._answered = threading.Lock(), threading.Lock()
        self._asked.acquire()
        self._answered.acquire()
        self.start()

    def run(self) -> None:
        """Work whenever asked, until asked for nothing."""
        while self._asked.acquire() and (work := self._work) is not None:
            try:
                work()
            except BaseException as error:
                self._error = error
            self._work = work = None  # its arrays are not kept
            self._answered.release()

    def begin(self, work: Callable[[], None] | None) -> None:
        """Ask for work, or, with None, for the end of the thread."""
        self._work = work
        if self._asked.locked():  # not asked before, by one who was interrupted
            self._asked.release()

    def end(self) -> BaseException | None:
        """Wait until the work is done; return what it raised."""
        while not self._answered.acquire(timeout=1):
            if not self.is_alive():  # something in this process ended it; the others have done its work
                _helpers.remove(self)
                break
        error, self._error = self._error, None
        return error


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS to one thread inside the block: NumPy's, SciPy's, and what else was loaded before the first call.

    Blocks may nest; other threads wait.
    """
    global _blas, _depth
    with _lock:
        if _blas is None:
            import scipy.linalg  # noqa: F401 - loads the BLAS that compiled kernels call, so that it is found below
            from threadpoolctl import ThreadpoolController

            _blas = ThreadpoolController().select(user_api="blas").lib_controllers
        outermost = _depth == 0  # asking and telling a library costs microseconds: once is enough
        before = [library.num_threads for library in _blas] if outermost else []
        _depth += 1
        try:
            if outermost:
                _tell_blas([1] * len(_blas))
            yield
        finally:
            _depth -= 1
            if outermost:
                _tell_blas(before)


def _tell_blas(numbers: list[int]) -> None:
    for library, number in zip(_blas or [], numbers, strict=True):
        library.set_num_threads(number)


def _crew() -> list[_Helper]:
    with suppress(RuntimeError):  # the system gives no more threads: fewer come to the same
        while len(_helpers) < _num_threads - 1:
            _helpers.append(_Helper())
    return _helpers


def _dismiss() -> None:
    while _helpers:
        _helpers.pop().begin(None)


def _after_fork() -> None:
    global _lock, _depth
    _lock, _depth = threading.RLock(), 0
    _helpers.clear()  # threads do not survive a fork: the child starts its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
