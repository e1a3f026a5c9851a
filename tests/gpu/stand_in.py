"""A stand-in for CuPy without a card: the same names, kernels that run on the processor (host.py), and its strictness.

What CuPy refuses is refused: NumPy arrays where CuPy's are expected, NumPy's hands on an array of the card, copies
to and from the host while a stream is recorded. A recorded stream does nothing until its graph is launched; then what
was recorded runs again, on the memory and with the numbers of the recording.
"""

import contextlib
import sys
import types

import host
import numpy as np

recording = None  # the list of what to do again, while a stream is recorded
kept = []  # the names of the kernels that were launched
recorded = []  # how many actions each graph has


class RefusedError(RuntimeError):
    """What CuPy and CUDA answer with errors of many kinds."""


ROOM = 1 << 14  # bytes


def _roomy(array):
    """Return a copy with free memory on both sides: what a planted mistake writes beside an array spoils no other."""
    memory = np.zeros(array.nbytes + 2 * ROOM, np.uint8)
    copy = memory[ROOM : ROOM + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _computed(compute):
    """Return what `compute` gives as an array of the card; recorded, it is computed again into the same memory."""
    with np.errstate(all="ignore"):
        result = _roomy(np.asarray(compute()))
    if recording is not None:
        recording.append(lambda: np.copyto(result, compute()))
    return ndarray(result)


def _done(action):
    if recording is None:
        action()
    else:
        recording.append(action)


def _inner(value):
    if isinstance(value, ndarray):
        return value._inner
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801 - CuPy's name
    """An array of the card."""

    def __init__(self, inner):
        self._inner = inner

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if method != "__call__" or "out" in options:
            return NotImplemented
        numbers = [_inner(value) for value in inputs]
        return _computed(lambda: ufunc(*numbers, **options))

    def __array_function__(self, function, _, arguments, options):
        assert function is np.zeros_like, function  # what else layers call, CuPy may or may not have
        _inner(arguments[0])
        return _computed(lambda: np.zeros_like(arguments[0]._inner, **options))

    shape = property(lambda self: self._inner.shape)
    dtype = property(lambda self: self._inner.dtype)
    size = property(lambda self: self._inner.size)
    ndim = property(lambda self: self._inner.ndim)
    nbytes = property(lambda self: self._inner.nbytes)
    flags = property(lambda self: self._inner.flags)
    data = property(lambda self: types.SimpleNamespace(ptr=self._inner.ctypes.data))
    __len__ = property(lambda self: self._inner.__len__)
    __hash__ = None

    def get(self):
        if recording is not None:
            raise RefusedError("operation not permitted when stream is capturing")
        return self._inner.copy()

    def set(self, array, stream=None):
        if recording is not None:
            raise RefusedError("operation not permitted when stream is capturing")
        assert isinstance(array, np.ndarray) and array.dtype == self.dtype and array.shape == self.shape
        self._inner[...] = array

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        return ndarray(np.asarray(self._inner[key]) if np.ndim(self._inner[key]) == 0 else self._inner[key])

    def __setitem__(self, key, value):
        given, own = _inner(value), self._inner
        _done(lambda: own.__setitem__(key, given))

    def reshape(self, *shape):
        same = self._inner.reshape(*shape)
        assert np.shares_memory(same, self._inner) or not same.size, "CuPy would copy here; so does this, unrecorded"
        return ndarray(same)

    def astype(self, dtype, copy=True):
        if not copy and self.dtype == np.dtype(dtype):
            return self
        return _computed(lambda: self._inner.astype(dtype))

    def transpose(self, *axes):
        return ndarray(self._inner.transpose(*axes))

    def copy(self):
        return _computed(lambda: self._inner.copy())

    def argmax(self, axis=None):
        return _computed(lambda: self._inner.argmax(axis))

    def mean(self, axis=None):
        return _computed(lambda: self._inner.mean(axis))

    def sum(self, axis=None):
        return _computed(lambda: self._inner.sum(axis))


def empty(shape, dtype=float):
    return ndarray(_roomy(np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 99, dtype)))


def asarray(array):
    if isinstance(array, ndarray):
        return array
    if recording is not None:
        raise RefusedError("operation not permitted when stream is capturing")
    return ndarray(_roomy(np.asarray(array)))


def array(array):
    return array.copy() if isinstance(array, ndarray) else asarray(array)


def ascontiguousarray(array):
    if not isinstance(array, ndarray):
        raise TypeError(f"Unsupported type {type(array)}")
    return array if array._inner.flags.c_contiguous else _computed(lambda: np.ascontiguousarray(array._inner))


class RawModule:
    """CUDA text."""

    backwards = False

    def __init__(self, code, options=()):
        self.code = code

    def get_function(self, name):
        def launch(grid, block, arguments):
            given = [a._inner if isinstance(a, ndarray) else a for a in arguments]
            for value in given:
                assert isinstance(value, (np.ndarray, np.generic)), f"{name}: {type(value)} has no size of its own"
                assert not isinstance(value, np.ndarray) or value.flags.c_contiguous
            frozen = [a.copy() if isinstance(a, np.ndarray) and a.dtype.names else a for a in given]
            kept.append(name)
            _done(lambda: host.launch(self.code, name, grid, block, frozen, RawModule.backwards))

        return launch


class Stream:
    def __init__(self, non_blocking=False):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def record(self):
        return types.SimpleNamespace(synchronize=lambda: None)

    def wait_event(self, event):
        assert event is not None

    def begin_capture(self):
        global recording
        recording = []

    def end_capture(self):
        global recording
        actions, recording = recording, None
        recorded.append(len(actions))

        def launch(stream):
            for action in actions:
                action()

        return types.SimpleNamespace(launch=launch)


class Event:
    def record(self):
        assert recording is None

    def synchronize(self):
        pass


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


def install(monkeypatch):
    """Let ``import cupy`` find this module."""
    runtime = types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13020,
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda number: {"name": b"Stand-in", "totalGlobalMem": 2 << 30},
        memGetInfo=lambda: (2_000_000, 80_000_000),
    )
    current = Stream()
    cuda = types.SimpleNamespace(
        Device=contextlib.nullcontext,
        Event=Event,
        get_elapsed_time=lambda start, end: 4.0,  # milliseconds
        MemoryPool=lambda: types.SimpleNamespace(malloc=None),
        Stream=Stream,
        get_current_stream=lambda: current,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=runtime,
        using_allocator=contextlib.nullcontext,
    )
    cupy = types.ModuleType("cupy")
    names = {"RawModule", "array", "asarray", "ascontiguousarray", "empty", "ndarray"}
    vars(cupy).update({name: globals()[name] for name in names}, cuda=cuda)
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 500_000)
    cupyx = types.ModuleType("cupyx")
    cupyx.empty_pinned = np.empty
    for name, module in (("cupy", cupy), ("cupyx", cupyx)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "minicnn.kernels.gpu", raising=False)
    monkeypatch.delattr("minicnn.kernels.gpu", raising=False)
    return cupy


ndarray.__module__ = "cupy"
