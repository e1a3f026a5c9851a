"""Cross-entropy, smoothed and not: kernels against plain loops, loss and gradient against definitions and Keras's."""

from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import layers, losses, models
from minicnn.errors import ArgumentError
from minicnn.gradcheck import check_model
from minicnn.kernels import cpu, reference
from minicnn.losses import SparseCategoricalCrossentropy

GOLDEN = np.load(Path(__file__).parent / "golden" / "rules_keras215.npz")
ROOMS = pytest.mark.parametrize("room", [cpu, reference], ids=["cpu", "reference"])
SMOOTHINGS = pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.25])


def recipe():
    """Logits and labels as Keras got them, after the weights and gradients of test_optimizers."""
    rng = np.random.default_rng(5)
    rng.standard_normal(7 * 121)
    return rng.standard_normal((7, 5)) * 3, rng.integers(0, 5, 7)


def softmax(z):
    p = np.exp(z)
    return p / p.sum(axis=1, keepdims=True)


@ROOMS
@SMOOTHINGS
def test_loss_and_gradient_are_the_definition(room, smoothing):
    (z, labels), K = recipe(), 5
    targets = (1 - smoothing) * np.eye(K)[labels] + smoothing / K  # (N, K)
    values, dz = room.softmax_crossentropy(z, labels, smoothing)
    np.testing.assert_allclose(values, -(targets * np.log(softmax(z))).sum(axis=1), rtol=1e-13)
    np.testing.assert_allclose(dz, (softmax(z) - targets) / len(z), rtol=0, atol=1e-16)


@SMOOTHINGS
def test_loss_and_gradient_are_what_keras_computed(smoothing):
    z, labels = recipe()
    values, dz = SparseCategoricalCrossentropy(True, smoothing).value_and_gradient(z, labels)
    assert values.mean() == pytest.approx(float(GOLDEN[f"smoothing {smoothing}/loss"]), rel=1e-14)
    np.testing.assert_allclose(dz, GOLDEN[f"smoothing {smoothing}/grad"], rtol=0, atol=1e-15)
    p = np.concatenate([softmax(z)[:-1], [[0, 0, 0, 0, 1]]])  # the last probabilities are clipped
    expected = float(GOLDEN[f"smoothing {smoothing}/clipped"])
    assert SparseCategoricalCrossentropy(label_smoothing=smoothing)(labels, p) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_rooms_agree_in_each_type(dtype):
    rng = np.random.default_rng(0)
    z, labels = (10 * rng.standard_normal((9, 6))).astype(dtype), rng.integers(0, 6, 9)
    for smoothing in (0.0, 0.3, 1.0):
        both = zip(*(room.softmax_crossentropy(z, labels, smoothing) for room in (cpu, reference)), strict=True)
        for mine, theirs in both:
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=500 * np.finfo(dtype).eps, strict=True)


@ROOMS
def test_smoothing_by_hand(room):
    z = np.array([[np.log(3), 0.0], [0.0, 0.0]])  # p = 3/4, 1/4 and 1/2, 1/2; targets 3/4, 1/4 and 1/4, 3/4
    values, dz = room.softmax_crossentropy(z, np.array([0, 1]), 0.5)
    np.testing.assert_allclose(values, [0.75 * np.log(4 / 3) + 0.25 * np.log(4), np.log(2)], rtol=1e-15)
    np.testing.assert_allclose(dz, [[0, 0], [0.125, -0.125]], atol=1e-16)  # the first is where the loss is least


@ROOMS
def test_without_smoothing_an_impossible_class_costs_nothing(room):
    values, dz = room.softmax_crossentropy(np.array([[0.0, -np.inf]]), np.array([0]))
    assert values.tolist() == [0] and dz.tolist() == [[0, 0]]


def network(smoothing, kind=SparseCategoricalCrossentropy):
    minicnn.utils.set_random_seed(3)
    model = models.Sequential([minicnn.Input((6,)), layers.Dense(8, "relu"), layers.Dense(4, "softmax")])
    model.compile(minicnn.optimizers.Adam(0.03), kind(label_smoothing=smoothing), metrics=["accuracy"])
    return model


def test_the_gradient_check_checks_the_smoothed_loss():
    assert check_model(network(0.2)).ok


@pytest.mark.parametrize("door", ["value", "gradient"])
def test_a_planted_mistake_is_found(door):
    class Wrong(SparseCategoricalCrossentropy):
        def value_and_gradient(self, logits, labels):
            value, dz = super().value_and_gradient(logits, labels)
            plain, plain_dz = SparseCategoricalCrossentropy().value_and_gradient(logits, labels)
            return (plain, dz) if door == "value" else (value, plain_dz)

    assert not check_model(network(0.2, Wrong)).ok


def test_a_smoothed_network_is_less_sure_and_measured_as_it_is_trained(tmp_path):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((40, 6)).astype(np.float32), rng.integers(0, 4, 40)
    surest = {}
    for smoothing in (0.0, 0.4):
        model = network(smoothing)
        history = model.fit(x, labels, epochs=200, validation_data=(x, labels), verbose=0).history
        p = model.predict(x)
        surest[smoothing] = p.max()
        again = SparseCategoricalCrossentropy(label_smoothing=smoothing)(labels, p)
        assert history["val_loss"][-1] == pytest.approx(again, rel=1e-5) == model.evaluate(x, labels, verbose=0)[0]
    assert surest[0.4] < 0.9 < surest[0.0]
    model.save(tmp_path / "model")
    assert models.load_model(tmp_path / "model").loss.get_config() == {"from_logits": False, "label_smoothing": 0.4}


def test_a_config_builds_an_equal_loss():
    config = SparseCategoricalCrossentropy(True, 0.25).get_config()
    assert (
        config == SparseCategoricalCrossentropy(**config).get_config() == {"from_logits": True, "label_smoothing": 0.25}
    )
    assert losses.get("sparse_categorical_crossentropy").label_smoothing == 0


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan, "much", None, True])
def test_a_smoothing_that_is_none_is_one_clear_line(value):
    said = r"SparseCategoricalCrossentropy\(label_smoothing\) expects a finite number >= 0 and <= 1. Received: "
    with pytest.raises(ArgumentError, match=said):
        SparseCategoricalCrossentropy(label_smoothing=value)
