"""Memory for large arrays, used again as soon as nobody holds it: a steady training step asks the system for none.

A new array costs more than its size: the system hands out each page on its first touch, cleared, which takes as long as
a pass over it. So blocks are kept, and a block whose arrays are all gone is handed out again, whole or in part: the
last, smaller batch of an epoch uses those of the others. Nothing is ever overwritten that somebody can still see.
"""

import math
import os
import sys
import threading
from typing import Any

import numpy as np

SMALL = 1 << 16  # bytes: below, the system's allocator is as good
LINE = 64  # bytes of a line of the cache: a vector of an array that begins at one never lies in two

_blocks: list[np.ndarray] = []
_lock = threading.Lock()


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array of undefined content that nobody else holds; it begins at a line of the cache.

    >>> import numpy as np
    >>> a, b = empty((100, 1000), np.float32), empty((100, 1000), np.float32)
    >>> np.shares_memory(a, b)
    False
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        block = np.empty(size + LINE, np.uint8)
    else:
        with _lock:
            block = _fitting(size + LINE)
    start = -block.__array_interface__["data"][0] % LINE
    return block[start : start + size].view(dtype).reshape(shape)


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array of zeros that nobody else holds; it begins at a line of the cache."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def _fitting(size: int) -> np.ndarray:
    """Return the smallest idle block that is large enough; or a new one, in place of the largest that is not."""
    idle = [i for i in range(len(_blocks)) if sys.getrefcount(_blocks[i]) == 2]  # held by the list and this call
    large = [i for i in idle if _blocks[i].nbytes >= size]
    if large:
        return _blocks[min(large, key=lambda i: _blocks[i].nbytes)]
    if idle:
        del _blocks[max(idle, key=lambda i: _blocks[i].nbytes)]
    _blocks.append(np.empty(size, np.uint8))
    return _blocks[-1]


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)  # another thread may have held the lock
