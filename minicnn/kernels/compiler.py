"""How the CPU room is compiled: with whole vectors, kept on disk, and with a word to a person who waits for it.

What is kept is machine code in pickles: who can write it decides what runs here. Hence it is kept in a folder that
belongs to this user and that nobody else may write to, never in another; and every file ends with a SHA-256 digest of
its name, of the source it was compiled from and of its content. A file that is damaged, renamed, of another source or
not of this package is not opened, but compiled again. The limits: a digest is no signature, so it does not stop one who
may write to the folder and knows this file, such as the user, a program of theirs, or the owner of a folder above who
puts another in its place while a program starts. Set `$MINICNN_CACHE_DIR` to a folder that only you can change.
"""

import contextlib
import functools
import hashlib
import io
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba.core import event
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    InTreeCacheLocator,
    NullCache,
)
from numba.core.compiler import Compiler

_features, _settings = get_host_cpu_features(), vars(numba.config)
if _features.get("avx512f") and _settings["CPU_FEATURES"] is None:
    # LLVM would take half of an AVX-512 vector; whole ones are faster. This and the next setting hold for the whole
    # process, and only if nothing was compiled before.
    _settings["CPU_FEATURES"] = _features.flatten() + ",-prefer-256-bit"
_settings["SLP_VECTORIZE"] = 1  # a loop of 16 steps is unrolled too early for the other vectoriser

LANES = 16 if _features.get("avx512f") else 8  # float32 numbers of a vector; the results do not depend on it


def jit(function: Callable, **options: Any) -> Any:
    """Return the function compiled at its first call, without Python's lock, and kept on disk."""
    dispatcher: Any = numba.njit(nogil=True, **options)(function)
    try:
        dispatcher._cache = _Cache(function)
    except RuntimeError:  # the folder cannot be written, or is not private: each process compiles anew
        dispatcher._cache = NullCache()
    return dispatcher


def jit_apart(function: Callable) -> Any:
    """As `jit`, for arrays that never overlap, with products and their sums in one instruction where there is one."""
    return jit(function, pipeline_class=_Apart, fastmath={"contract"})


def jit_dividing(function: Callable) -> Any:
    """As `jit`, but x / 0 is what IEEE says, and no exception: without the question, LLVM divides many at once."""
    return jit(function, error_model="numpy")


@functools.cache
def cache_folder() -> Path:
    """Return the folder of compiled kernels for this processor and these versions, in `$MINICNN_CACHE_DIR` if set."""
    import platformdirs

    chosen = os.environ.get("MINICNN_CACHE_DIR")
    parent = Path(chosen) if chosen else platformdirs.user_cache_path("minicnn") / "kernels"
    versions = f"python{platform.python_version()}-numba{numba.__version__}-numpy{np.__version__}"
    everything = f"{llvmlite.__version__} {_settings['CPU_FEATURES'] or _features.flatten()}".encode()
    key = hashlib.sha256(everything + Path(__file__).read_bytes()).hexdigest()[:8]  # these settings, too
    return parent / f"{get_host_cpu_name()}-{versions}-{key}"


class _Apart(Compiler):
    """Promise LLVM that the arrays of a kernel do not overlap: it then keeps sums in registers over a whole loop."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()


class _Folder(InTreeCacheLocator):
    """Where Numba keeps the files of a function: in our folder, as long as nobody else may write to it."""

    def __init__(self, py_func: Callable, py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = str(cache_folder() / self.get_suitable_cache_subpath(py_file))

    def ensure_cache_path(self) -> None:
        for folder in (cache_folder(), Path(self._cache_path)):
            folder.mkdir(0o700, parents=True, exist_ok=True)
            status = folder.lstat()  # of a link itself: whom it leads to may change
            if hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
                _tell(
                    f"{folder} is expected to be a folder of yours that nobody else may write to, and is not: compiled "
                    "kernels are not kept. Remove it, or set MINICNN_CACHE_DIR to a folder of your own."
                )
                raise PermissionError(f"{folder} is not private")
        super().ensure_cache_path()  # can it be written?


@functools.cache
def _tell(message: str) -> None:
    print(message, file=sys.stderr)  # once a process, not for each kernel


class _Place(CompileResultCacheImpl):
    """How Numba keeps a function, in no other folder than ours."""

    def __init__(self, function: Callable) -> None:
        self._locator_classes = [_Folder]
        super().__init__(function)


class _Files(IndexDataCacheFile):
    """Numba's files of a function, an index and one for each type, with a digest behind what Numba writes and reads."""

    def _load_index(self) -> dict:
        return super()._load_index() if self._is_ours(self._index_path) else {}

    def _load_data(self, name: str) -> Any:
        if not self._is_ours(path := self._data_path(name)):
            raise OSError(f"{path} is not what was written there")  # which Numba takes for a file that is gone
        return super()._load_data(name)

    @contextlib.contextmanager
    def _open_for_write(self, path: str) -> Iterator[Any]:
        with super()._open_for_write(path) as file:
            content = io.BytesIO()
            yield content
            file.write(content.getvalue() + self._digest(path, content.getvalue()))

    def _is_ours(self, path: str) -> bool:
        try:
            content = Path(path).read_bytes()
        except OSError:
            return False
        return content[-32:] == self._digest(path, content[:-32])

    def _digest(self, path: str, content: bytes) -> bytes:
        which = repr((os.path.basename(path), self._source_stamp))  # else one kernel could pass for another
        return hashlib.sha256(which.encode() + content).digest()  # 32 bytes


class _Cache(FunctionCache):
    """Numba's cache, except that a file that cannot be read or written costs a compilation and nothing else."""

    _impl_class = _Place

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        place = self._impl.locator
        self._cache_file = _Files(place.get_cache_path(), self._impl.filename_base, place.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # of a damaged file anything may come
            with contextlib.suppress(OSError):
                self.flush()
            return None
        # Two processes that start at once may have taken the same name for different types.
        return found if found is not None and found.signature.args == tuple(sig) else None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk, or a folder that is gone
            super().save_overload(sig, data)


class _Announcer(event.Listener):
    """Say once, on a terminal, why the first step of a new installation takes seconds."""

    said = False

    def on_start(self, compilation: event.Event) -> None:
        ours = compilation.data["dispatcher"].py_func.__module__.startswith("minicnn.")
        if ours and not self.said and sys.stderr.isatty():
            self.said = True
            print("Compiling kernels: some seconds, once; then they are kept on disk.", file=sys.stderr)

    def on_end(self, compilation: event.Event) -> None:
        pass


event.register("numba:compile", _Announcer())
