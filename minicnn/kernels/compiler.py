"""How the CPU room is compiled: with whole vectors, cached on disk, and with a word to a person who waits for it."""

import functools
import sys
from typing import Any

import numba
from llvmlite.binding import get_host_cpu_features
from numba.core import event
from numba.core.compiler import Compiler

_features, _settings = get_host_cpu_features(), vars(numba.config)
if _features.get("avx512f") and _settings["CPU_FEATURES"] is None:
    # LLVM would take half of an AVX-512 vector; whole ones are faster. This and the next setting hold for the whole
    # process, and only if nothing was compiled before.
    _settings["CPU_FEATURES"] = _features.flatten() + ",-prefer-256-bit"
_settings["SLP_VECTORIZE"] = 1  # a loop of 16 steps is unrolled too early for the other vectoriser

LANES = 16 if _features.get("avx512f") else 8  # float32 numbers of a vector; the results do not depend on it


class _Apart(Compiler):
    """Promise LLVM that the arrays of a kernel do not overlap: it then keeps sums in registers over a whole loop."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()


jit: Any = functools.partial(numba.njit, nogil=True, cache=True)
# For kernels of arrays that never overlap, in which a product and its sum may be one instruction:
jit_apart: Any = functools.partial(jit, pipeline_class=_Apart, fastmath={"contract"})


class _Announcer(event.Listener):
    """Say once, on a terminal, why the first step of a new installation takes seconds."""

    said = False

    def on_start(self, compilation: event.Event) -> None:
        ours = compilation.data["dispatcher"].py_func.__module__.startswith("minicnn.")
        if ours and not self.said and sys.stderr.isatty():
            self.said = True
            print("Compiling kernels: some seconds, once; then they are cached on disk.", file=sys.stderr)

    def on_end(self, compilation: event.Event) -> None:
        pass


event.register("numba:compile", _Announcer())
