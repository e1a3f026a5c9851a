"""Fused steps: the same numbers as the plain layers, chosen only where they fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicnn
from minicnn import fusion, layers
from minicnn.baseline import model_s
from minicnn.errors import ShapeError
from minicnn.gradcheck import check_model, tie_free
from minicnn.kernels import cpu, reference


@pytest.fixture(autouse=True)
def _float32():
    yield
    minicnn.set_floatx("float32")


def network(H, W, C, F, use_bias=True):
    """One stage that can be fused, between a convolution below, so that dx is needed, and a classifier."""
    inputs = minicnn.Input((H, W, 2))
    x = layers.Conv2D(C, 1)(inputs)
    x = layers.Conv2D(F, 3, padding="same", activation="relu", use_bias=use_bias)(x)
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    return minicnn.Model(inputs, layers.Dense(3, activation="softmax")(x))


def outcome(model, x, dy, fuse):
    """Logits, dx and every gradient of one pass forward and backward."""
    model.compile(minicnn.optimizers.SGD(), fuse=fuse)
    model.forward(x, training=True)
    dx = model.backward(dy, from_logits=True, input_gradient=True)
    return [model.logits(), dx, *(g.copy() for g in model.gradients())]


@settings(max_examples=25, deadline=None)
@given(
    N=st.integers(1, 20),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    channels=st.sampled_from([(1, 1), (3, 16), (8, 5), (40, 17)]),  # few, as some are a compilation; 40: two slices
    use_bias=st.booleans(),
    dtype=st.sampled_from(["float64", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_fused_and_plain_layers_agree(N, size, channels, use_bias, dtype, seed):
    minicnn.set_floatx(dtype)
    minicnn.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = network(2 * size[0], 2 * size[1], *channels, use_bias)
    x = tie_free((N, 2 * size[0], 2 * size[1], 2), rng).astype(dtype)
    dy = rng.standard_normal((N, 3)).astype(dtype)
    fused, plain = (outcome(model, x, dy, fuse) for fuse in (True, False))
    for a, b in zip(fused, plain, strict=True):
        tolerance = 1e-12 if dtype == "float64" else 1e-5
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


def test_the_kernel_agrees_with_the_reference_on_whole_numbers():
    """Whole numbers have ties, zeros and no rounding: values and winners must be the same to the bit."""
    rng = np.random.default_rng(0)
    shapes = [(1, 2, 2, 1, 1), (3, 4, 6, 8, 5), (17, 2, 4, 3, 16), (2, 4, 4, 40, 17), (1, 12, 64, 20, 3)]
    for N, H, W, C, F in shapes:  # the last two: two slices of channels, and several strips of lines
        x, w, b = (rng.integers(-2, 3, shape).astype("f4") for shape in [(N, H, W, C), (3, 3, C, F), F])
        y, argmax = cpu.conv2d_relu_maxpool2d(x, w, b)
        for found, expected in zip((y, argmax), reference.conv2d_relu_maxpool2d(x, w, b), strict=True):
            np.testing.assert_array_equal(found, expected, strict=True)
        dy = rng.integers(-3, 4, y.shape).astype("f4")
        backward = [room.conv2d_relu_maxpool2d_backward(dy, argmax, x, w) for room in (cpu, reference)]
        for found, expected in zip(*backward, strict=True):
            np.testing.assert_array_equal(found, expected, strict=True)
        assert cpu.conv2d_relu_maxpool2d_backward(dy, argmax, x, w, input_gradient=False)[0] is None


def test_a_nan_comes_through():
    x = np.zeros((1, 2, 2, 1), np.float32)
    x[0, 1, 1, 0] = np.nan
    assert np.isnan(cpu.conv2d_relu_maxpool2d(x, np.ones((3, 3, 1, 1), "f4"), np.zeros(1, "f4"))[0]).all()


def test_model_s_runs_in_three_fused_stages():
    steps = fusion.plan(model_s()._nodes)
    assert [type(step.layer).__name__ for step in steps].count("ConvReLUPool") == 3
    assert len(steps) == 11 - 3
    assert not any(isinstance(step.layer, fusion.ConvReLUPool) for step in fusion.plan(model_s()._nodes, fuse=False))


@pytest.mark.parametrize("fuse", [True, False])
def test_gradients_of_a_fused_and_a_plain_model_are_right(fuse):
    model = network(6, 4, 8, 5)
    model.compile(minicnn.optimizers.SGD(), fuse=fuse)
    report = check_model(model)
    assert report.ok, report


class OwnConv(layers.Conv2D):
    """Might compute anything."""


@pytest.mark.parametrize(
    ("conv", "pool", "shape"),
    [
        (layers.Conv2D(2, 3, padding="valid", activation="relu"), layers.MaxPooling2D(2), (4, 4, 1)),
        (layers.Conv2D(2, 5, padding="same", activation="relu"), layers.MaxPooling2D(2), (4, 4, 1)),
        (layers.Conv2D(2, 3, strides=2, padding="same", activation="relu"), layers.MaxPooling2D(2), (8, 8, 1)),
        (layers.Conv2D(2, 3, padding="same"), layers.MaxPooling2D(2), (4, 4, 1)),
        (layers.Conv2D(2, 3, padding="same", activation="relu"), layers.MaxPooling2D(3), (6, 6, 1)),
        (layers.Conv2D(2, 3, padding="same", activation="relu"), layers.MaxPooling2D(2, strides=1), (4, 4, 1)),
        (layers.Conv2D(2, 3, padding="same", activation="relu"), layers.MaxPooling2D(2), (5, 4, 1)),
        (OwnConv(2, 3, padding="same", activation="relu"), layers.MaxPooling2D(2), (4, 4, 1)),
        (layers.Conv2D(2, 3, padding="same", activation="gelu"), layers.MaxPooling2D(2), (4, 4, 1)),
        (layers.Conv2D(2, 3, padding="same", activation="relu"), layers.AveragePooling2D(2), (4, 4, 1)),
    ],
)
def test_what_does_not_fit_is_not_fused(conv, pool, shape):
    inputs = minicnn.Input(shape)
    model = minicnn.Model(inputs, pool(conv(inputs)))
    assert len(fusion.plan(model._nodes)) == 3


def test_a_convolution_that_others_read_too_is_not_fused():
    inputs = minicnn.Input((4, 4, 2))
    x = layers.Conv2D(2, 3, padding="same", activation="relu")(inputs)
    y = layers.Add()([layers.Flatten()(layers.MaxPooling2D(2)(x)), layers.Dense(8)(layers.Flatten()(x))])
    model = minicnn.Model(inputs, y)
    assert len(fusion.plan(model._nodes)) == len(model.layers)


def test_a_wrong_gradient_for_a_fused_stage_is_refused():
    inputs = minicnn.Input((4, 4, 8))
    model = minicnn.Model(
        inputs, layers.MaxPooling2D(2)(layers.Conv2D(5, 3, padding="same", activation="relu")(inputs))
    )
    y = model.forward(np.ones((3, 4, 4, 8), np.float32))
    with pytest.raises(ShapeError, match="backward expects dy"):
        model.backward(np.ones((2, 2, 2, 5), np.float32))
    model.backward(np.ones(y.shape))  # float64, which the layer's own type takes the place of
    assert {g.dtype for g in model.gradients()} == {np.dtype("float32")}
