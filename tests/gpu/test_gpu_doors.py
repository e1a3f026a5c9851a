"""Every door of the GPU room against the plain loops, and its CUDA text through NVIDIA's compiler.

Most arrays hold small whole numbers: their sums are exact in any order, so that equality is asked for to the bit.
"""

import ast
import ctypes
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import stand_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_kernels import UPDATES, filters, whole, windows

import minicnn
from minicnn.kernels import cpu, on_host, reference

KERNELS = Path(minicnn.__file__).parent / "kernels"
SERVICES = {"run_step", "ahead", "on_device", "complaint", "text"}  # of one room or two: no kernels
quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def doors(name):
    """Return the public functions of a room as they are written: their arguments, defaults and docstrings."""
    found = {}
    paths = [KERNELS / "fused.py"] if name == "cpu" else []
    for path in [KERNELS / f"{name}.py", *paths]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name not in SERVICES:
                arguments = [argument.arg for argument in node.args.args]
                found[node.name] = arguments, list(map(ast.unparse, node.args.defaults)), ast.get_docstring(node)
    return found


def test_all_rooms_have_the_same_doors():
    assert doors("gpu") == doors("cpu") == doors("reference")
    assert len(doors("gpu")) == 36
    assert all(contract for _, _, contract in doors("gpu").values())


@pytest.fixture(params=["forwards", "backwards"])
def room(request, gpu, on_card, monkeypatch):
    """The room; on the processor, the threads of a block take their turns in this order."""
    if on_card and request.param == "backwards":
        pytest.skip("the card chooses the order of threads by itself")
    monkeypatch.setattr(stand_in.RawModule, "backwards", request.param == "backwards")
    return gpu


def through(room, door, *arguments, **options):
    """Call a door with arrays on the card; return NumPy arrays."""
    given = [room.on_device(a) if isinstance(a, np.ndarray) else a for a in arguments]
    result = getattr(room, door)(*given, **options)
    return tuple(map(on_host, result)) if isinstance(result, tuple) else on_host(result)


def same(mine, theirs):
    if isinstance(theirs, tuple):
        for a, b in zip(mine, theirs, strict=True):
            same(a, b)
    elif theirs is None:
        assert mine is None
    else:
        np.testing.assert_array_equal(mine, theirs, strict=True)


@quick
@given(windows(), st.sampled_from([1, 17, 33]))  # filters: one, two and four columns of sums for each thread
def test_convolution_is_the_plain_loops(room, case, F):
    rng, dtype, x_shape, (window, strides, pads) = case
    x, (w, b) = whole(rng, x_shape, dtype), filters(rng, dtype, x_shape, window, F)
    y = through(room, "conv2d", x, w, b, strides, pads)
    same(y, reference.conv2d(x, w, b, strides, pads))
    dy = whole(rng, y.shape, dtype)
    expected = reference.conv2d_backward(dy, x, w, strides, pads)
    same(through(room, "conv2d_backward", dy, x, w, strides, pads), expected)
    same(through(room, "conv2d_backward", dy, x, w, strides, pads, input_gradient=False), (None, *expected[1:]))


@quick
@given(windows())
def test_im2col_pooling_and_their_transposes_are_the_plain_loops(room, case):
    rng, dtype, x_shape, where = case
    x = whole(rng, x_shape, dtype)
    cols = through(room, "im2col", x, *where)
    same(cols, reference.im2col(x, *where))
    c = whole(rng, cols.shape, dtype)
    same(through(room, "col2im", c, x_shape, *where), reference.col2im(c, x_shape, *where))
    y, argmax = through(room, "maxpool2d", x, *where)
    same((y, argmax), reference.maxpool2d(x, *where))
    dy = whole(rng, y.shape, dtype)
    expected = reference.maxpool2d_backward(dy, argmax, x_shape, *where)
    same(through(room, "maxpool2d_backward", dy, argmax, x_shape, *where), expected)
    same(through(room, "averagepool2d", x, *where), reference.averagepool2d(x, *where))
    expected = reference.averagepool2d_backward(dy, x_shape, *where)
    same(through(room, "averagepool2d_backward", dy, x_shape, *where), expected)


SEEDS, DTYPES = st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64])
STAGES = st.tuples(*map(st.sampled_from, [(1, 3), (2, 4, 10), (2, 6), (1, 3, 17), (1, 18, 40)]))


@quick
@given(SEEDS, DTYPES, STAGES)
def test_the_fused_stage_is_the_plain_loops(room, seed, dtype, sizes):
    rng, (N, H, W, C, F) = np.random.default_rng(seed), sizes
    x, w, b = whole(rng, (N, H, W, C), dtype), whole(rng, (3, 3, C, F), dtype), whole(rng, F, dtype)
    y, argmax = through(room, "conv2d_relu_maxpool2d", x, w, b)
    same((y, argmax), reference.conv2d_relu_maxpool2d(x, w, b))
    dy = whole(rng, y.shape, dtype)
    expected = reference.conv2d_relu_maxpool2d_backward(dy, argmax, x, w)
    same(through(room, "conv2d_relu_maxpool2d_backward", dy, argmax, x, w), expected)
    without = through(room, "conv2d_relu_maxpool2d_backward", dy, argmax, x, w, input_gradient=False)
    same(without, (None, *expected[1:]))


@quick
@given(SEEDS, DTYPES, *map(st.sampled_from, [(1, 5, 70), (1, 6, 200), (1, 10, 40)]))
def test_dense_relu_rescaling_and_sgd_are_the_plain_loops(room, seed, dtype, N, In, Out):
    rng = np.random.default_rng(seed)
    x, w, b, dy = (whole(rng, shape, dtype) for shape in ((N, In), (In, Out), (Out,), (N, Out)))
    y = through(room, "dense", x, w, b)
    same(y, cpu.dense(x, w, b))  # itself held to the plain loops, and faster
    same(through(room, "dense_backward", dy, x, w), cpu.dense_backward(dy, x, w))
    assert through(room, "dense_backward", dy, x, w, input_gradient=False)[0] is None
    same(through(room, "relu", y), reference.relu(y))
    same(through(room, "relu_backward", dy, y), reference.relu_backward(dy, y))
    for numbers in (np.arange(256, dtype=np.uint8), rng.integers(-9, 9, (3, 5)), y):
        same(through(room, "rescale", numbers, 0.5, -0.25, dtype), reference.rescale(numbers, 0.5, -0.25, dtype))
    for nesterov in (False, True):
        arrays = [[whole(rng, shape, dtype) for shape in [(In, Out), (Out,), *[(2, k + 1) for k in range(20)]]]
                  for _ in range(3)]  # fmt: skip
        mine = [[room.on_device(a) for a in column] for column in arrays]
        room.sgd_step(*mine, 0.5, 0.25, nesterov)
        reference.sgd_step(*arrays, 0.5, 0.25, nesterov)
        same(tuple(on_host(a) for column in mine for a in column), tuple(a for column in arrays for a in column))


@quick
@given(SEEDS, DTYPES, st.sampled_from([(1, 3), (40, 5), (3, 4, 5, 2), (17, 6, 7, 19)]))
def test_normalization_and_dropout_are_the_plain_loops(room, seed, dtype, shape):
    rng, C = np.random.default_rng(seed), shape[-1]
    x, dy, vectors = whole(rng, shape, dtype), whole(rng, shape, dtype), [whole(rng, C, dtype) for _ in range(4)]
    for mine, theirs in zip(through(room, "moments", x), reference.moments(x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)
    same(through(room, "normalize", x, *vectors[:3]), reference.normalize(x, *vectors[:3]))
    same(through(room, "normalize_sums", dy, x, vectors[0]), reference.normalize_sums(dy, x, vectors[0]))
    same(through(room, "normalize_backward", dy, x, *vectors), reference.normalize_backward(dy, x, *vectors))
    kept = rng.integers(0, 2, shape).astype(bool)
    same(through(room, "dropout", x, kept, 1.5), reference.dropout(x, kept, dtype(1.5)))


@quick
@given(SEEDS, DTYPES, st.sampled_from([(1, 3), (40, 5), (3, 4, 5, 2), (17, 6, 7, 19)]))
def test_leaky_relu_gelu_and_concatenation_are_the_plain_loops(room, seed, dtype, shape):
    rng = np.random.default_rng(seed)
    x, dy = whole(rng, shape, dtype), whole(rng, shape, dtype)
    y = through(room, "leaky_relu", x, 0.3)
    same(y, reference.leaky_relu(x, 0.3))
    same(through(room, "leaky_relu_backward", dy, y, 0.3), reference.leaky_relu_backward(dy, y, 0.3))
    close = {"rtol": 0, "atol": 20 * np.finfo(dtype).eps, "strict": True}
    np.testing.assert_allclose(through(room, "gelu", x), reference.gelu(x), **close)
    np.testing.assert_allclose(through(room, "gelu_backward", dy, x), reference.gelu_backward(dy, x), **close)
    for axis in range(1, len(shape)):
        xs = [x, whole(rng, [*shape[:axis], 3, *shape[axis + 1 :]], dtype), dy]
        y = room.concatenate([room.on_device(a) for a in xs], axis)
        same(on_host(y), reference.concatenate(xs, axis))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("door", "columns", "numbers"), UPDATES)
def test_updates_are_the_plain_loops_to_rounding(room, door, columns, numbers, dtype):
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 2, 4), (4,), (50, 7), *[(2, k + 1) for k in range(20)]]  # two groups
    arrays = [[np.abs(rng.standard_normal(shape)).astype(dtype) for shape in shapes] for _ in range(columns)]
    mine = [[room.on_device(a) for a in column] for column in arrays]
    getattr(room, door)(*mine, *numbers)
    getattr(reference, door)(*arrays, *numbers)
    eps = 8 * np.finfo(dtype).eps  # of numbers up to about 4
    for column, expected in zip(mine, arrays, strict=True):
        for a, b in zip(column, expected, strict=True):
            np.testing.assert_allclose(on_host(a), b, rtol=eps, atol=eps, strict=True)


@quick
@given(SEEDS, st.sampled_from([np.uint8, np.float32, np.float64]), *map(st.sampled_from, [(1, 7), (1, 5), (2, 6)]))
def test_gathering_and_cutout_are_the_plain_loops(room, seed, dtype, N, H, OW):
    rng, W, OH, C = np.random.default_rng(seed), 4, 3, 3
    x = rng.integers(0, 256, (N, H, W, C)).astype(dtype)
    rows, cols = (rng.integers(-1, *sizes).astype(np.int32) for sizes in ((H, (N, OH)), (W, (N, OW))))
    y = through(room, "gather_pixels", x, rows, cols)
    same(y, reference.gather_pixels(x, rows, cols))
    dy = whole(rng, y.shape, np.float32 if dtype == np.uint8 else dtype)
    dx = through(room, "gather_pixels_backward", dy, rows, cols, x.shape)
    same(dx, reference.gather_pixels_backward(dy, rows, cols, x.shape))
    ends = np.sort(rng.integers(0, [[H + 1], [W + 1]], (N, 2, 2)).swapaxes(1, 2), axis=1)  # (N, ends, axes)
    boxes = ends.swapaxes(1, 2).reshape(N, 4).astype(np.int32)
    same(through(room, "cutout", x, boxes, 7.0), reference.cutout(x, boxes, 7.0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_and_decay_are_the_plain_loops(room, dtype):
    rng = np.random.default_rng(0)
    arrays = [whole(rng, shape, dtype) for shape in [(3, 3, 2, 40), (4,), (50, 70), *[(2, k + 1) for k in range(20)]]]
    mine, eps = [room.on_device(a) for a in arrays], 2 * np.finfo(dtype).eps
    for limit in (0.25, 16.0):  # all are clipped, and some
        for together in (False, True):
            clipped = room.clip_by_norm(mine, limit, together)
            for a, b in zip(clipped, reference.clip_by_norm(arrays, limit, together), strict=True):
                np.testing.assert_allclose(on_host(a), b, rtol=eps, strict=True)
    same(tuple(map(on_host, mine)), tuple(arrays))
    room.decay(mine, 0.25)
    reference.decay(arrays, 0.25)
    same(tuple(map(on_host, mine)), tuple(arrays))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_and_cross_entropy_are_the_plain_loops_to_rounding(room, dtype):
    rng = np.random.default_rng(0)
    z, dy, labels = rng.normal(0, 30, (300, 10)), rng.standard_normal((300, 10)), rng.integers(0, 10, 300)
    z, dy = z.astype(dtype), dy.astype(dtype)
    close = {"rtol": 50 * np.finfo(dtype).eps, "atol": 50 * np.finfo(dtype).eps}
    p = through(room, "softmax", z)
    np.testing.assert_allclose(p, reference.softmax(z), **close)
    np.testing.assert_allclose(through(room, "softmax_backward", dy, p), reference.softmax_backward(dy, p), **close)
    for smoothing in (0.0, 0.25):
        mine = through(room, "softmax_crossentropy", z, labels, smoothing)
        for a, theirs in zip(mine, cpu.softmax_crossentropy(z, labels, smoothing), strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, theirs, **close)
    losses, _ = through(room, "softmax_crossentropy", np.array([[0, 100]], dtype), np.array([0], np.int32))
    assert losses == [100]


def test_nan_wins_every_maximum(room):
    x = np.ones((1, 4, 4, 2))
    x[0, 1, 1, 0] = x[0, 0, 1, 0] = np.nan
    where = (2, 2), (2, 2), ((0, 0), (0, 0))
    same(through(room, "maxpool2d", x, *where), reference.maxpool2d(x, *where))
    w, b = np.ones((3, 3, 2, 3)), np.zeros(3)
    same(through(room, "conv2d_relu_maxpool2d", x, w, b), reference.conv2d_relu_maxpool2d(x, w, b))


def test_sums_over_many_images_are_cut_and_repeat_to_the_bit(room, on_card):
    rng = np.random.default_rng(0)
    x, w, dy = rng.standard_normal((9, 8, 8, 3)), rng.standard_normal((3, 3, 3, 4)), rng.standard_normal((9, 8, 8, 4))
    same_pads = (1, 1), ((1, 1), (1, 1))
    mine = through(room, "conv2d_backward", dy, x, w, *same_pads)
    same(through(room, "conv2d_backward", dy, x, w, *same_pads), mine)
    assert on_card or "add_parts" in stand_in.kept
    for a, b in zip(mine, cpu.conv2d_backward(dy, x, w, *same_pads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_arrays_in_another_order_are_laid_out_first(room):
    rng = np.random.default_rng(0)
    x, w, b = whole(rng, (3, 5, 6, 2), float), whole(rng, (2, 3, 2, 4), float), whole(rng, 4, float)
    turned = room.on_device(np.ascontiguousarray(x.transpose(3, 2, 1, 0))).transpose(3, 2, 1, 0)
    where = (1, 1), ((0, 0), (0, 0))
    mine = room.conv2d(turned, room.on_device(w), room.on_device(b), *where)
    same(on_host(mine), reference.conv2d(x, w, b, *where))


def cuda_text(dtype):
    """Return the CUDA text as it is written in the file: this needs no CuPy."""
    source = (KERNELS / "gpu.py").read_text()
    real = {"float32": "float", "float64": "double"}[dtype]
    return f"typedef {real} real;\n" + re.search(r'^CUDA = r"""(.*?)^"""', source, re.DOTALL | re.MULTILINE)[1]


def nvrtc():
    """Return NVIDIA's compiler as its PyPI package brings it, or None."""
    spec = importlib.util.find_spec("nvidia")
    found = [path for folder in (spec.submodule_search_locations if spec else []) for path in
             sorted(Path(folder).rglob("libnvrtc.so.*")) if "alt" not in path.name]  # fmt: skip
    return ctypes.CDLL(str(found[0])) if found else None


@pytest.mark.parametrize("card", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nvidias_compiler_takes_the_text(dtype, card):
    library = nvrtc()
    if library is None:
        pytest.skip("NVIDIA's compiler is not installed: pip install -e '.[cuda]'")
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), cuda_text(dtype).encode(), b"gpu.cu", 0, None, None) == 0
    options = (ctypes.c_char_p * 2)(b"-std=c++17", f"-arch={card}".encode())
    status = library.nvrtcCompileProgram(program, 2, options)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    assert library.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    assert size.value > 10_000


def test_atomics_and_cudnn_are_not_used():
    assert not re.search(r"atomic[A-Z]|cudnn", cuda_text("float32"))
