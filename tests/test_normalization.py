"""Batch normalization and dropout: kernels against plain loops, layers against definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicnn
from minicnn import layers
from minicnn.errors import ArgumentError, StateError
from minicnn.gradcheck import check_layer, check_model
from minicnn.kernels import cpu, reference
from minicnn.layers import BatchNormalization, Dropout

quick = settings(deadline=None, max_examples=40)
SHAPES = st.sampled_from([(1, 3), (7, 1), (9, 19), (2, 1, 1, 3), (3, 4, 5, 2), (17, 2, 3, 33)])
DTYPES = st.sampled_from([np.float32, np.float64])


@quick
@given(SHAPES, DTYPES, st.integers(0, 2**32 - 1))
def test_the_kernels_are_the_plain_loops(shape, dtype, seed):
    rng, C = np.random.default_rng(seed), shape[-1]
    x, dy = (rng.integers(-4, 5, shape).astype(dtype) for _ in range(2))
    mean, a, b, c = (rng.integers(-4, 5, C) / 4.0 for _ in range(4))
    for mine, theirs in zip(cpu.moments(x), reference.moments(x), strict=True):
        assert mine.dtype == np.float64
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)
    vectors = [v.astype(dtype) for v in (mean, a, b, c)]
    exact = {"strict": True}  # quarters of whole numbers: no rounding anywhere
    np.testing.assert_array_equal(cpu.normalize(x, mean, a, b), reference.normalize(x, *vectors[:3]), **exact)
    for mine, theirs in zip(cpu.normalize_sums(dy, x, mean), reference.normalize_sums(dy, x, mean), strict=True):
        np.testing.assert_array_equal(mine, theirs, **exact)
    mine = cpu.normalize_backward(dy, x, mean, a, b, c)
    np.testing.assert_array_equal(mine, reference.normalize_backward(dy, x, *vectors), **exact)
    kept = rng.integers(0, 2, shape).astype(bool)
    np.testing.assert_array_equal(cpu.dropout(x, kept, 1.5), reference.dropout(x, kept, dtype(1.5)), **exact)


def test_the_variance_of_large_numbers_does_not_cancel():
    x = np.random.default_rng(0).standard_normal((64, 8, 8, 5)) + 1e8
    variance = cpu.moments(x)[1]
    np.testing.assert_allclose(variance, x.var(axis=(0, 1, 2)), rtol=1e-9)
    x = (x - 1e8 + 1e4).astype(np.float32)
    np.testing.assert_allclose(cpu.moments(x)[1], x.astype(np.float64).var(axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("shape", [(4,), (3, 5, 2)])
def test_training_normalizes_by_the_batch_and_moves_the_averages(shape):
    rng = np.random.default_rng(1)
    with minicnn.using_floatx("float64"):
        layer = BatchNormalization(momentum=0.75, epsilon=0.01).build(shape)
    axes, C = tuple(range(len(shape))), shape[-1]
    layer.params["gamma"][:], layer.params["beta"][:] = rng.normal(size=(2, C))
    layer.state["moving_mean"][:], layer.state["moving_variance"][:] = 3.0, 5.0
    x = rng.normal(2, 3, (6, *shape))
    y = layer.forward(x, training=True)
    mean, variance = x.mean(axis=axes), x.var(axis=axes)
    expected = layer.params["gamma"] * (x - mean) / np.sqrt(variance + 0.01) + layer.params["beta"]
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer.state["moving_mean"], 0.75 * 3 + 0.25 * mean, rtol=1e-13)
    np.testing.assert_allclose(layer.state["moving_variance"], 0.75 * 5 + 0.25 * variance, rtol=1e-13)
    before = {name: array.copy() for name, array in layer.state.items()}
    y = layer.forward(x)
    scale = layer.params["gamma"] / np.sqrt(before["moving_variance"] + 0.01)
    np.testing.assert_allclose(y, (x - before["moving_mean"]) * scale + layer.params["beta"], rtol=1e-12, atol=1e-12)
    for name, array in before.items():
        np.testing.assert_array_equal(layer.state[name], array)
    assert check_layer(layer, shape, training=False).ok
    assert check_layer(layer, shape).ok


def test_without_gamma_and_beta_there_are_no_weights_for_them():
    layer = BatchNormalization(center=False, scale=False).build((3, 3, 2))
    assert layer.params == {}
    assert list(layer.weights) == ["moving_mean", "moving_variance"]
    assert layer.count_params() == 4
    assert check_layer(layer, (3, 3, 2)).ok


def test_a_channel_that_is_constant_is_no_division_by_zero():
    layer = BatchNormalization().build((2,))
    x = np.array([[5, 1], [5, 3]], np.float32)
    y = layer.forward(x, training=True)
    assert y[:, 0].tolist() == [0, 0]
    assert np.isfinite(layer.backward(np.ones_like(y))).all()


def test_a_batch_of_one_is_beta():
    layer = BatchNormalization().build((2,))
    layer.params["beta"][:] = [1, 2]
    assert layer.forward(np.array([[7, -7]], np.float32), training=True).tolist() == [[1, 2]]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_bits_do_not_depend_on_the_number_of_threads(count):
    def run():
        layer = BatchNormalization().build((9, 9, 17))
        rng = np.random.default_rng(0)
        x, dy = rng.standard_normal((2, 40, 9, 9, 17)).astype(np.float32)
        y, dx = layer.forward(x, training=True), layer.backward(dy)
        return [a.tobytes() for a in (y, dx, *layer.weights.values(), *layer.grads.values())]

    cores = minicnn.get_num_threads()
    expected = run()
    minicnn.set_num_threads(count)
    try:
        assert run() == expected
    finally:
        minicnn.set_num_threads(cores)


def small():
    return minicnn.Sequential(
        [
            minicnn.Input((6, 6, 2)),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(3, "softmax"),
        ]
    )


def test_weights_come_in_kerass_order_and_the_optimizer_gets_those_with_a_gradient():
    minicnn.utils.set_random_seed(0)
    model = small()
    kind = ("gamma", "beta", "moving_mean", "moving_variance")
    assert [name for name in model.named_weights() if "batch" in name] == [f"batch_normalization/{k}" for k in kind]
    assert len(model.get_weights()) == 8
    assert len(model.trainable_weights()) == 6
    model.compile(minicnn.optimizers.SGD(0.1))
    x, y = np.random.default_rng(0).normal(size=(8, 6, 6, 2)), np.arange(8) % 3
    before = model.get_weights()
    model.train_on_batch(x, y)
    assert all((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    assert [g.shape for g in model.gradients()] == [w.shape for w in model.trainable_weights()]
    shown = []
    model.summary(shown.append)
    assert shown[-3:] == [
        "Total params: 203 (812.00 B)",
        "Trainable params: 195 (780.00 B)",
        "Non-trainable params: 8 (32.00 B)",
    ]


def test_a_network_with_both_passes_the_gradient_check():
    minicnn.utils.set_random_seed(0)
    report = check_model(small(), batch_size=4)
    assert report.ok, str(report)
    assert len(report.rows) == 7


def test_a_saved_network_predicts_alike(tmp_path):
    minicnn.utils.set_random_seed(0)
    model = small()
    model.compile("sgd")
    x, y = np.random.default_rng(0).normal(size=(8, 6, 6, 2)), np.arange(8) % 3
    model.fit(x, y, epochs=3, verbose=0)
    model.save(tmp_path / "model.safetensors")
    loaded = minicnn.models.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert loaded.layers[2].get_config() == model.layers[2].get_config()


def test_a_training_that_is_resumed_draws_and_averages_as_the_unbroken_one(tmp_path):
    def train(epochs, path):
        minicnn.utils.set_random_seed(3)
        model = small()
        model.compile(minicnn.optimizers.SGD(0.1, momentum=0.9))
        x, y = np.random.default_rng(0).normal(size=(20, 6, 6, 2)), np.arange(20) % 3
        model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, resume=path)
        return [w.tobytes() for w in model.get_weights()]

    train(2, tmp_path / "state")
    assert train(5, tmp_path / "state") == train(5, None)


def test_dropout_drops_as_many_as_it_says_scales_the_rest_and_draws_anew():
    layer, x = Dropout(0.3, seed=0).build((1000,)), np.full((50, 1000), 7, np.float32)
    first, second = layer.forward(x, training=True).copy(), layer.forward(x, training=True)
    assert set(np.unique(first)) == {0, np.float32(7) * np.float32(1 / 0.7)}
    dropped = int((first == 0).sum())
    assert abs(dropped - 15_000) < 5 * np.sqrt(50_000 * 0.3 * 0.7)  # five standard deviations
    both = int(((first == 0) & (second == 0)).sum())  # independent draws agree by chance alone
    assert abs(both - 4_500) < 5 * np.sqrt(50_000 * 0.09 * 0.91)
    dx = layer.backward(np.ones_like(x))
    np.testing.assert_array_equal(dx != 0, second != 0)
    again = Dropout(0.3, seed=0).build((1000,))
    np.testing.assert_array_equal(again.forward(x, training=True), first)
    assert layer.forward(x) is x
    np.testing.assert_array_equal(layer.backward(x), x)


def test_the_shared_seed_decides_what_dropout_draws():
    def draw(seed):
        minicnn.utils.set_random_seed(seed)
        return Dropout(0.5).build((64,)).forward(np.ones((1, 64), np.float32), training=True).tobytes()

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dropout(1.0), "Dropout(rate) expects a number below 1"),
        (lambda: Dropout(-0.1), "Dropout(rate) expects a finite number >= 0 and <= 1. Received: -0.1"),
        (lambda: Dropout("half"), "Dropout(rate) expects a finite number"),
        (lambda: Dropout(0.5, seed=-1), "seed expects an integer >= 0. Received: -1"),
        (lambda: BatchNormalization(momentum=1.5), "BatchNormalization(momentum) expects a finite number"),
        (lambda: BatchNormalization(epsilon=0), "BatchNormalization(epsilon) expects a number above 0"),
    ],
)
def test_a_bad_argument_is_one_clear_line(make, message):
    with pytest.raises(ArgumentError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layer", [BatchNormalization(), Dropout(0.5)])
def test_backward_needs_a_forward(layer):
    with pytest.raises(StateError):
        layer.build((3,)).backward(np.ones((1, 3), np.float32))
