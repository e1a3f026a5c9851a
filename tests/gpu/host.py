"""The CUDA text of the GPU room as a program for the processor: what finds a wrong index without a card.

The text itself is compiled by g++ behind a shim: a launch is a loop over thread blocks, and a thread of a block is a
fiber that runs until it meets a barrier; then it is the next one's turn. `backwards` lets the threads of a block take
their turns in the opposite order, which a missing barrier does not survive in both directions.
"""

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

COMPILER = shutil.which("g++") or shutil.which("c++")
BEFORE = r"""
#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>
#include <setjmp.h>
#include <ucontext.h>
#define __global__
#define __device__
#define __shared__ static
using std::erfc;
using std::exp;
using std::log;
using std::max;
using std::min;
using std::sqrt;
struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

struct Fiber { ucontext_t start; jmp_buf at; std::vector<char> stack; bool begun, done; };
static std::vector<Fiber> fibers;
static jmp_buf scheduler;  // jumps between stacks: swapcontext would ask the system each time
static unsigned running;
static std::function<void()> body;

static void __syncthreads() { if (!_setjmp(fibers[running].at)) _longjmp(scheduler, 1); }
static void fiber() { body(); fibers[running].done = true; _longjmp(scheduler, 1); }

__attribute__((noinline)) static void resume(Fiber& next) {
    if (_setjmp(scheduler)) return;
    if (next.begun) _longjmp(next.at, 1);
    next.begun = true;
    setcontext(&next.start);
}

static void one_block(unsigned threads, bool barriers, bool backwards) {
    if (!barriers) {
        for (unsigned t = 0; t < threads; ++t) { threadIdx.x = backwards ? threads - 1 - t : t; body(); }
        return;
    }
    fibers.resize(threads);
    for (Fiber& each : fibers) {
        each.stack.resize(1 << 16);
        each.begun = each.done = false;
        getcontext(&each.start);
        each.start.uc_stack.ss_sp = each.stack.data();
        each.start.uc_stack.ss_size = each.stack.size();
        each.start.uc_link = nullptr;
        makecontext(&each.start, fiber, 0);
    }
    for (bool alive = true; alive;) {
        alive = false;
        for (unsigned t = 0; t < threads; ++t) {
            running = threadIdx.x = backwards ? threads - 1 - t : t;
            if (fibers[running].done) continue;
            resume(fibers[running]);
            alive = alive || !fibers[running].done;
        }
    }
}

template <class... A, std::size_t... I>
static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}

template <class... A>
static void launch(void (*kernel)(A...), const unsigned* shape, void** arguments, bool barriers, bool backwards) {
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], 1, 1};
    body = [=] { call(kernel, arguments, std::index_sequence_for<A...>{}); };
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) one_block(shape[3], barriers, backwards);
}
"""
AFTER = """
extern "C" __attribute__((visibility("default")))
void launch_%s(const unsigned* shape, void** arguments, bool backwards) {
    launch(%s, shape, arguments, %s, backwards);
}
"""


def kernels(text):
    """Return the names of the kernels of a CUDA text, and whether their threads meet at barriers."""
    names = dict.fromkeys(re.findall(r"__global__ void (\w+)\(", text), False)
    products = re.findall(r"__global__ void (\w+)_##COLS\(", text)
    return names | {f"{name}_{columns}": True for name in products for columns in (1, 2, 4)}


@functools.cache
def program(text):
    """Return the text compiled for the processor, as a library."""
    source = BEFORE + text + "".join(AFTER % (n, n, str(b).lower()) for n, b in kernels(text).items())
    folder = Path(tempfile.gettempdir()) / "minicnn-host-kernels"
    folder.mkdir(exist_ok=True)
    library = folder / f"{hashlib.sha256(source.encode()).hexdigest()[:20]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as own:
            (Path(own) / "kernels.cpp").write_text(source)
            apart = ["-fvisibility=hidden", "-fno-gnu-unique"]  # float32's shared memory is not float64's
            command = [
                COMPILER,
                "-std=c++17",
                "-O2",
                "-march=native",
                "-fPIC",
                "-shared",
                "-w",
                "-U_FORTIFY_SOURCE",
                *apart,
                "kernels.cpp",
            ]
            done = subprocess.run([*command, "-o", "kernels.so"], cwd=own, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            (Path(own) / "kernels.so").replace(library)
    return ctypes.CDLL(str(library))


def launch(text, name, grid, block, arguments, backwards=False):
    """Run a kernel on NumPy arrays (their memory), NumPy scalars and structures of one element (their bytes)."""
    held = [np.array([a.ctypes.data], np.uint64) if a.dtype.names is None and a.ndim else a for a in arguments]
    held = [np.ascontiguousarray(value).reshape(-1) for value in held]
    pointers = (ctypes.c_void_p * len(held))(*[value.ctypes.data for value in held])
    shape = (ctypes.c_uint * 4)(*grid, block[0])
    getattr(program(text), f"launch_{name}")(shape, pointers, ctypes.c_bool(backwards))
