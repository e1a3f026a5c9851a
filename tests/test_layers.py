"""Each layer alone: its shapes, what it computes, and what it says when it is used wrongly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicnn
from minicnn import layers
from minicnn.errors import MinicnnError
from minicnn.layers.windows import slide

SINGLE = np.float32


@pytest.mark.parametrize(
    ("size", "k", "s", "padding", "out", "pads"),
    [
        (32, 3, 1, "same", 32, (1, 1)),
        (32, 2, 1, "same", 32, (0, 1)),
        (32, 3, 2, "same", 16, (0, 1)),  # PyTorch would pad (1, 1)
        (33, 3, 2, "same", 17, (1, 1)),
        (4, 3, 2, "same", 2, (0, 1)),
        (5, 2, 2, "same", 3, (0, 1)),
        (5, 2, 2, "valid", 2, (0, 0)),
        (5, 1, 3, "same", 2, (0, 0)),  # the window is smaller than the stride: no padding, not a negative one
        (32, 3, 1, "valid", 30, (0, 0)),
        (3, 3, 5, "valid", 1, (0, 0)),
        (1, 4, 1, "same", 1, (1, 2)),
    ],
)
def test_window_arithmetic(size, k, s, padding, out, pads):
    assert slide((size, size), (k, k), (s, s), padding) == ((out, out), (pads, pads))
    shape = (out, out, 2)
    assert layers.Conv2D(2, k, s, padding).build((size, size, 2)).output_shape == shape
    for kind in (layers.MaxPooling2D, layers.AveragePooling2D):
        layer = kind(k, s, padding).build((size, size, 2))
        assert layer.output_shape == shape
        y = layer.forward(np.ones((1, size, size, 2), SINGLE))
        np.testing.assert_array_equal(y, np.ones((1, *shape), SINGLE))  # padding is no 0 among the ones


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5))
def test_window_arithmetic_by_counting(size, k, s):
    same = len(range(0, size, s))  # windows begin at every s-th pixel
    (out, _), ((before, after), _) = slide((size, size), (k, k), (s, s), "same")
    assert out == same
    assert before <= after <= before + 1
    reach = (out - 1) * s + k  # pixels and padding from the first window to the last
    assert before + after == max(reach - size, 0)
    if k <= size:
        assert slide((size, size), (k, k), (s, s), "valid") == ((len(range(0, size - k + 1, s)),) * 2, ((0, 0),) * 2)


def test_vertical_comes_before_horizontal():
    conv = layers.Conv2D(5, (2, 3), strides=(3, 1)).build((10, 9, 4))
    assert conv.params["kernel"].shape == (2, 3, 4, 5)
    assert conv.output_shape == (3, 7, 5)
    assert layers.MaxPooling2D((5, 2)).build((10, 9, 4)).output_shape == (2, 4, 4)
    assert layers.AveragePooling2D((5, 2), (1, 3)).build((10, 9, 4)).output_shape == (6, 3, 4)


def test_convolution_adds_the_bias_and_then_activates():
    layer = layers.Conv2D(2, 1, activation="relu").build((1, 2, 1))
    layer.params["kernel"][:] = np.reshape([1, -1], (1, 1, 1, 2))
    layer.params["bias"][:] = [0.5, 1.5]
    y = layer.forward(np.array([-1.0, 2.0], SINGLE).reshape(1, 1, 2, 1))
    assert y.reshape(2, 2).tolist() == [[0, 2.5], [2.5, 0]]
    layer.backward(np.ones_like(y))
    assert layer.grads["kernel"].ravel().tolist() == [2, -1]  # each unit learns where it was positive
    assert layer.grads["bias"].tolist() == [1, 1]


def test_dense_by_hand():
    layer = layers.Dense(2, activation="relu").build((3,))
    layer.params["kernel"][:] = [[1, 0], [0, 1], [2, -3]]
    layer.params["bias"][:] = [10, 0]
    assert layer.forward(np.array([[1.0, 2, 3], [-9, 4, 0]], SINGLE)).tolist() == [[17, 0], [1, 4]]
    assert layer.backward(np.array([[1.0, 1], [1, 10]], SINGLE)).tolist() == [[1, 0, 2], [1, 10, 2 - 30]]
    assert layer.grads["kernel"].tolist() == [[1 - 9, -90], [2 + 4, 40], [3, 0]]
    assert layer.grads["bias"].tolist() == [2, 10]


@pytest.mark.parametrize("layer", [layers.Conv2D(3, 2, use_bias=False), layers.Dense(3, use_bias=False)])
def test_without_a_bias_there_is_none(layer):
    layer.build((4, 4, 2) if isinstance(layer, layers.Conv2D) else (4,))
    y = layer.forward(np.zeros((1, *layer.input_shape), SINGLE))
    assert not y.any()
    layer.backward(y)
    assert list(layer.params) == list(layer.grads) == ["kernel"]


def test_relu_has_no_slope_at_zero():
    layer = layers.ReLU().build((5,))
    x = np.array([[-1.0, -0.0, 0.0, 1e-40, 3.0]], SINGLE)
    assert layer.forward(x).tolist() == [[0, 0, 0, SINGLE(1e-40), 3]]
    assert layer.backward(np.full((1, 5), 7, SINGLE)).tolist() == [[0, 0, 0, 7, 7]]


def test_leaky_relu_counts_the_slope_at_zero_and_without_one_is_relu():
    layer = layers.LeakyReLU().build((4,))
    x = np.array([[-1.0, -0.0, 0.0, 3.0]], SINGLE)
    slope = SINGLE(0.3)
    assert layer.forward(x).tolist() == [[-slope, 0, 0, 3]]
    assert layer.backward(np.full((1, 4), 1, SINGLE)).tolist() == [[slope, slope, slope, 1]]
    bare, relu = layers.LeakyReLU(0).build((4,)), layers.ReLU().build((4,))
    np.testing.assert_array_equal(bare.forward(x), relu.forward(x))
    np.testing.assert_array_equal(bare.backward(x), relu.backward(x))


def test_gelu_by_a_table_of_the_normal_distribution():
    layer = layers.GELU().build((3,))
    below, density = np.array([0.15866, 0.5, 0.97725]), np.array([0.24197, 0.39894, 0.05399])  # at -1, 0 and 2
    x = np.array([[-1.0, 0.0, 2.0]], SINGLE)
    np.testing.assert_allclose(layer.forward(x), x * below, atol=2e-5)  # and not -0.15881, which tanh makes of -1
    np.testing.assert_allclose(layer.backward(np.ones_like(x)), [below + x[0] * density], atol=2e-5)


def test_gelu_inside_another_layer_keeps_the_sums_that_it_needs():
    """`in_place` permits to overwrite, and what backward needs must not be."""
    for name in ("gelu", "relu"):
        inside, alone = layers.Dense(5, activation=name).build((4,)), layers.Activation(name).build((5,))
        assert inside.activation.in_place
        plain = layers.Dense(5).build((4,))
        for key, param in inside.params.items():
            plain.params[key][...] = param
        rng = np.random.default_rng(0)
        x, dy = rng.standard_normal((3, 4)).astype(SINGLE), rng.standard_normal((3, 5)).astype(SINGLE)
        z = plain.forward(x)
        np.testing.assert_array_equal(inside.forward(x), alone.forward(z))
        np.testing.assert_array_equal(inside.backward(dy), plain.backward(alone.backward(dy)))
        np.testing.assert_array_equal(z, plain.forward(x))  # a layer that stands alone leaves its input as it was


def test_global_average_pooling_is_the_mean_of_each_channel():
    x = np.random.default_rng(0).integers(-9, 9, (3, 4, 2, 5)).astype(SINGLE)
    layer = layers.GlobalAveragePooling2D().build((4, 2, 5))
    y = layer.forward(x)
    assert layer.output_shape == (5,)
    np.testing.assert_array_equal(y, x.mean(axis=(1, 2)), strict=True)  # eighths are exact
    dy = np.arange(15, dtype=SINGLE).reshape(3, 5)
    np.testing.assert_array_equal(layer.backward(dy), np.broadcast_to(dy[:, None, None] / 8, x.shape))
    whole = layers.AveragePooling2D((4, 2)).build((4, 2, 5))
    np.testing.assert_array_equal(whole.forward(x), y[:, None, None])


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2, -3])
def test_concatenate_puts_inputs_side_by_side_and_gives_each_its_part_of_dy(axis):
    place, rng = axis % 4, np.random.default_rng(0)
    shapes = [[2, 3, 4, 5] for _ in range(3)]
    for shape, size in zip(shapes, (2, 1, 4), strict=True):
        shape[place] = size
    xs = [rng.standard_normal(shape).astype(SINGLE) for shape in shapes]
    layer = layers.Concatenate(axis).build([tuple(shape[1:]) for shape in shapes])
    y = layer.forward(xs)
    assert y.shape == (2, *layer.output_shape)
    np.testing.assert_array_equal(y, np.concatenate(xs, place), strict=True)
    for dx, x in zip(layer.backward(y), xs, strict=True):
        np.testing.assert_array_equal(dx, x, strict=True)


def test_layers_that_merge_take_bytes_and_learn_where_an_input_comes_twice():
    inputs = minicnn.Input((2, 2, 1))
    x = layers.Concatenate()([inputs, layers.Rescaling(3)(inputs), inputs])
    model = minicnn.Model(inputs, layers.GlobalAveragePooling2D()(x))
    assert model.predict(np.full((1, 2, 2, 1), 200, np.uint8)).tolist() == [[200, 600, 200]]
    dx = model.backward(np.array([[4, 40, 400]], SINGLE), input_gradient=True)
    assert dx.ravel().tolist() == [1 + 3 * 10 + 100] * 4


def test_rescaling_multiplies_in_float32_as_keras_does():
    every = np.arange(256, dtype=np.uint8).reshape(1, 256)
    y = layers.Rescaling(1 / 255).build((256,)).forward(every)
    assert y.dtype == SINGLE
    np.testing.assert_array_equal(y, every.astype(SINGLE) * SINGLE(1 / 255))
    assert (y != every.astype(SINGLE) / SINGLE(255)).sum() == 126
    layer = layers.Rescaling(0.5, offset=-1).build((2,))
    assert layer.forward(np.array([[4.0, 200]])).tolist() == [[1, 99]]
    assert layer.backward(np.array([[4.0, 200]], SINGLE)).tolist() == [[2, 100]]


def test_softmax_keeps_the_logits_and_sums_to_one():
    layer = layers.Softmax().build((3,))
    z = np.array([[1000.0, 1000, -1000], [0, math.log(2), math.log(5)]], SINGLE)
    np.testing.assert_allclose(layer.forward(z), [[0.5, 0.5, 0], [1 / 8, 2 / 8, 5 / 8]], rtol=1e-6)
    np.testing.assert_array_equal(layer.z, z)
    dz = np.array([[1.0, 2, 3], [4, 5, 6]], SINGLE)
    assert layer.backward(dz, from_logits=True) is dz


def test_flatten_is_row_by_row_channels_last():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(SINGLE)
    layer = layers.Flatten().build((3, 4, 5))
    y = layer.forward(x)
    assert y.shape == (2, 60)
    for n, h, w, c in np.ndindex(x.shape):
        assert y[n, (h * 4 + w) * 5 + c] == x[n, h, w, c]
    np.testing.assert_array_equal(layer.backward(y), x)


def test_add_sums_any_number_of_inputs():
    layer = layers.Add().build([(2,)] * 3)
    ones = np.ones((4, 2), SINGLE)
    np.testing.assert_array_equal(layer.forward([ones, 2 * ones, 4 * ones]), 7 * ones)
    np.testing.assert_array_equal(layer.backward(3 * ones), [3 * ones] * 3)


@pytest.mark.parametrize(
    ("layer", "input_shape", "limit"),
    [
        (layers.Conv2D(16, 3), (32, 32, 3), 0.187317),
        (layers.Conv2D(32, 3), (16, 16, 16), 0.117851),
        (layers.Conv2D(64, 3), (8, 8, 32), 0.083333),
        (layers.Dense(128), (1024,), 0.072169),
        (layers.Dense(10), (128,), 0.208514),
    ],
)
def test_kernels_begin_uniform_within_glorots_limit_and_biases_at_zero(layer, input_shape, limit):
    minicnn.utils.set_random_seed(0)
    layer.build(input_shape)
    kernel = layer.params["kernel"]
    assert kernel.dtype == SINGLE
    assert 0.98 * limit < np.abs(kernel).max() < limit + 1e-6
    quarters = np.histogram(kernel, bins=4, range=(-limit, limit))[0] / kernel.size
    assert np.abs(quarters - 1 / 4).max() < 3 * math.sqrt(3 / 16 / kernel.size)  # three standard deviations
    assert not layer.params["bias"].any()


def test_the_float_type_is_that_of_the_time_of_making():
    minicnn.set_floatx("float64")
    made = [layers.Conv2D(1, 1, activation="relu"), layers.MaxPooling2D(1), layers.Rescaling(1 / 3)]
    made += [layers.AveragePooling2D(1), layers.GELU(), layers.LeakyReLU()]
    minicnn.set_floatx("float32")
    for layer in made:
        layer.build((2, 2, 1))
        y = layer.forward(np.full((1, 2, 2, 1), 1 + 2.0**-40))
        assert y.dtype == layer.backward(y).dtype == np.float64
    assert made[1].forward(np.full((1, 2, 2, 1), 1 + 2.0**-40)).max() == 1 + 2.0**-40


EACH = [
    (layers.Conv2D(1, 1), (2, 2, 1)),
    (layers.MaxPooling2D(1), (2, 2, 1)),
    (layers.Flatten(), (2, 2, 1)),
    (layers.ReLU(), (2, 2, 1)),
    (layers.Softmax(), (4,)),
    (layers.Dense(3), (4,)),
    (layers.Rescaling(2), (4,)),
    (layers.AveragePooling2D(1), (2, 2, 1)),
    (layers.GlobalAveragePooling2D(), (2, 2, 1)),
    (layers.GELU(), (2, 2, 1)),
    (layers.LeakyReLU(), (2, 2, 1)),
]


@pytest.mark.parametrize(("layer", "shape"), EACH)
def test_every_layer_takes_bytes_as_floats_and_refuses_other_shapes(layer, shape):
    layer.build(shape)
    batch = np.full((3, *shape), 200, np.uint8)
    y = layer.forward(batch)
    assert y.dtype == SINGLE
    np.testing.assert_array_equal(y, layer.forward(batch.astype(SINGLE)))
    for wrong in (np.zeros((3, *shape, 1), SINGLE), np.zeros((3, *shape[:-1], 7), SINGLE), np.zeros(shape, SINGLE)):
        with pytest.raises(MinicnnError, match=r"expects an array of shape \(N, .*Received: \("):
            layer.forward(wrong)


def test_the_input_gradient_is_left_out_when_nobody_wants_it():
    for layer, shape in [(layers.Conv2D(2, 2), (3, 3, 1)), (layers.Dense(2), (3,))]:
        layer.build(shape)
        y = layer.forward(np.ones((2, *shape), SINGLE))
        assert layer.backward(y).shape == (2, *shape)
        expected = {name: grad.copy() for name, grad in layer.grads.items()}
        assert layer.backward(y, input_gradient=False) is None
        for name, grad in layer.grads.items():
            np.testing.assert_array_equal(grad, expected[name])


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (layers.Conv2D(8, 3, padding="SAME", activation="relu"), "Conv2D(filters=8, kernel_size=3, padding='same', "),
        (layers.MaxPooling2D((2, 3)), "MaxPooling2D(pool_size=[2, 3])"),
        (layers.Dense(4, use_bias=False), "Dense(units=4, use_bias=False)"),
        (layers.Activation("softmax"), "Softmax()"),
        (layers.Activation("gelu"), "GELU()"),
        (layers.LeakyReLU(0.01), "LeakyReLU(negative_slope=0.01)"),
        (layers.AveragePooling2D(3, 2), "AveragePooling2D(pool_size=3, strides=2)"),
        (layers.Concatenate(-2), "Concatenate(axis=-2)"),
    ],
)
def test_a_layer_shows_what_is_not_default(layer, shown):
    assert repr(layer).startswith(shown)


def images(*shape):
    return np.zeros(shape, SINGLE)


WRONG = {
    "filters": (lambda: layers.Conv2D(0, 3), ValueError, ["Conv2D(filters)", ">= 1", "0"]),
    "boolean filters": (lambda: layers.Conv2D(True, 3), ValueError, ["Conv2D(filters)", "True"]),
    "kernel": (lambda: layers.Conv2D(4, (3, 3, 3)), ValueError, ["Conv2D(kernel_size)", "pair", "(3, 3, 3)"]),
    "fraction": (lambda: layers.Conv2D(4, 2.5), ValueError, ["Conv2D(kernel_size)", "integer", "2.5"]),
    "strides": (lambda: layers.Conv2D(4, 3, strides=(1, -2)), ValueError, ["Conv2D(strides)", "-2"]),
    "padding": (lambda: layers.Conv2D(4, 3, padding="full"), ValueError, ['"valid" or "same"', "'full'"]),
    "activation": (lambda: layers.Dense(4, "swish"), ValueError, ["'swish'", "linear, relu, gelu, softmax"]),
    "pool": (lambda: layers.MaxPooling2D(0), ValueError, ["MaxPooling2D(pool_size)", "0"]),
    "pool padding": (lambda: layers.MaxPooling2D(padding=1), ValueError, ['"valid" or "same"', "1"]),
    "units": (lambda: layers.Dense("ten"), ValueError, ["Dense(units)", "'ten'"]),
    "input axis": (lambda: minicnn.Input((32, None, 3)), ValueError, ["Input(shape)", ">= 1", "None"]),
    "input type": (lambda: minicnn.Input((3,), "int8"), ValueError, ["Input(dtype)", '"float32"', "'int8'"]),
    "floatx": (lambda: minicnn.set_floatx("float16"), ValueError, ['"float64"', "'float16'"]),
    "seed": (lambda: minicnn.utils.set_random_seed(-1), ValueError, ["seed", ">= 0", "-1"]),
    "two axes": (lambda: layers.Conv2D(4, 3).build((8, 8)), ValueError, ["Conv2D", "(H, W, C)", "(8, 8)"]),
    "pool axes": (lambda: layers.MaxPooling2D().build((8,)), ValueError, ["MaxPooling2D", "(H, W, C)", "(8,)"]),
    "dense image": (lambda: layers.Dense(4).build((8, 8, 3)), ValueError, ["Dense", "(In,)", "(8, 8, 3)"]),
    "open axis": (lambda: layers.Dense(4).build((None,)), ValueError, ["Dense", "(In,)", "None"]),
    "too small": (lambda: layers.Conv2D(4, 5).build((4, 8, 1)), ValueError, ["(5, 5)", "(4, 8)", 'padding="same"']),
    "add shapes": (lambda: layers.Add().build([(2,), (3,)]), ValueError, ["same shape", "(2,)", "(3,)"]),
    "add one": (lambda: layers.Add().build([(2,)]), ValueError, ["two or more", "[(2,)]"]),
    "add batches": (
        lambda: layers.Add().build([(2,), (2,)]).forward([images(1, 2), images(3, 2)]),
        ValueError,
        ["equal batches", "(1, 2)", "(3, 2)"],
    ),
    "mean pool": (lambda: layers.AveragePooling2D((2, 0)), ValueError, ["AveragePooling2D(pool_size)", "0"]),
    "mean strides": (lambda: layers.AveragePooling2D(2, -1), ValueError, ["AveragePooling2D(strides)", "-1"]),
    "mean axes": (lambda: layers.AveragePooling2D().build((8,)), ValueError, ["AveragePooling2D", "(H, W, C)"]),
    "mean window": (lambda: layers.AveragePooling2D(5).build((4, 8, 1)), ValueError, ["(5, 5)", "(4, 8)"]),
    "global axes": (lambda: layers.GlobalAveragePooling2D().build((8,)), ValueError, ["(H, W, C)", "(8,)"]),
    "slope": (lambda: layers.LeakyReLU(-0.1), ValueError, ["LeakyReLU(negative_slope)", ">= 0", "-0.1"]),
    "no slope": (lambda: layers.LeakyReLU(None), ValueError, ["LeakyReLU(negative_slope)", "None"]),
    "batch axis": (lambda: layers.Concatenate(0), ValueError, ["Concatenate(axis)", "batch", "0"]),
    "axis": (lambda: layers.Concatenate("channels"), ValueError, ["Concatenate(axis)", "integer", "'channels'"]),
    "far axis": (lambda: layers.Concatenate(3).build([(2, 2), (2, 2)]), ValueError, ["axis=3", "(2, 2)"]),
    "batch axis from behind": (lambda: layers.Concatenate(-2).build([(2,), (2,)]), ValueError, ["axis=-2", "(2,)"]),
    "other axes": (lambda: layers.Concatenate().build([(2, 3), (4, 3)]), ValueError, ["no other", "(2, 3)", "(4, 3)"]),
    "other rank": (lambda: layers.Concatenate(1).build([(2,), (2, 1)]), ValueError, ["no other", "(2, 1)"]),
    "concatenate one": (lambda: layers.Concatenate()([minicnn.Input((3,))]), ValueError, ["two or more", "[(3,)]"]),
    "concatenate batches": (
        lambda: layers.Concatenate().build([(2,), (3,)]).forward([images(1, 2), images(3, 3)]),
        ValueError,
        ["equal batches", "(1, 2)", "(3, 3)"],
    ),
    "merged unbuilt": (lambda: layers.Add().forward([images(1, 2)] * 2), RuntimeError, ["Add", "layer.build"]),
    "merged lists": (
        lambda: layers.Concatenate().build([(1,), (1,)]).forward([[[1.0]], [[2.0]]]),
        TypeError,
        ["list of arrays", "list", "numpy.asarray"],
    ),
    "merged array": (
        lambda: layers.Concatenate().build([(1,), (1,)]).forward(images(2, 1)),
        TypeError,
        ["list of arrays", "ndarray"],
    ),
    "rank": (lambda: layers.Dense(4).build((3,)).forward(images(3)), ValueError, ["Dense", "(N, 3)", "(3,)"]),
    "channels": (
        lambda: layers.Conv2D(4, 3).build((8, 8, 3)).forward(images(2, 8, 8, 1)),
        ValueError,
        ["Conv2D", "(N, 8, 8, 3)", "(2, 8, 8, 1)"],
    ),
    "built twice": (
        lambda: (layer := layers.Dense(4), layer(minicnn.Input((3,))), layer(minicnn.Input((5,)))),
        ValueError,
        ["built", "(3,)", "(5,)"],
    ),
    "unbuilt": (lambda: layers.Dense(4).forward(images(1, 3)), RuntimeError, ["Dense", "layer.build(input_shape)"]),
    "no array": (lambda: layers.Dense(4).build((1,)).forward([[1.0]]), TypeError, ["array", "list", "numpy.asarray"]),
    "array for symbol": (lambda: layers.Dense(4)(images(1, 3)), TypeError, ["Dense", "Input(shape)", "ndarray"]),
    "add of one": (lambda: layers.Add()(minicnn.Input((3,))), ValueError, ["Add", "list"]),
    "list for one": (lambda: layers.Dense(4)([minicnn.Input((3,))]), ValueError, ["Dense", "one input", "symbolic"]),
}


@pytest.mark.parametrize(("wrong", "kind", "named"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_named_in_one_line(wrong, kind, named):
    with pytest.raises(MinicnnError) as caught:
        wrong()
    assert isinstance(caught.value, kind)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in named if part not in message] == []
    assert minicnn.floatx() == "float32"
