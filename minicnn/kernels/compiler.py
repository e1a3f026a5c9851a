"""How the CPU room is compiled: with whole vectors, kept on disk, and with a word to a person who waits for it."""

import contextlib
import functools
import hashlib
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba.core import event
from numba.core.caching import FunctionCache, NullCache
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
    before, _settings["CACHE_DIR"] = _settings["CACHE_DIR"], str(cache_folder())
    try:
        dispatcher._cache = _Cache(function)
    except RuntimeError:  # neither this folder nor Numba's own can be written: each process compiles anew
        dispatcher._cache = NullCache()
    finally:
        _settings["CACHE_DIR"] = before
    return dispatcher


def jit_apart(function: Callable) -> Any:
    """As `jit`, for arrays that never overlap, with products and their sums in one instruction where there is one."""
    return jit(function, pipeline_class=_Apart, fastmath={"contract"})


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


class _Cache(FunctionCache):
    """Numba's cache, except that a file that cannot be read or written costs a compilation and nothing else."""

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
