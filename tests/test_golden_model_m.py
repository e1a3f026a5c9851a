"""Model M, with batch normalization and three optimizers, against the numbers that Keras 2.15 computed in float64.

The file holds what Keras computed; images and weights are made again from their recipe. Arrays of more than 511
elements are stored as every (size // 256)-th element.
"""

import functools
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import layers, optimizers

GOLDEN = np.load(Path(__file__).parent / "golden" / "model_m_keras215.npz")
STATE = ("moving_mean", "moving_variance")
NAMES = [name.removesuffix(":0") for name in GOLDEN["weight_names"]]
TRAINED = [name for name in NAMES if not name.endswith(STATE)]
OPTIMIZERS = {  # constants that float32, through which Keras passes some, holds exactly
    "rmsprop": lambda: optimizers.RMSprop(2**-10, rho=0.875, epsilon=2**-23),
    "adam": lambda: optimizers.Adam(2**-10, beta_1=0.875, beta_2=1 - 2**-10, epsilon=2**-23),
    "sgd_nesterov": lambda: optimizers.SGD(2**-7, momentum=0.875, nesterov=True),
}


def model_m():
    inputs = minicnn.Input((32, 32, 3))
    x = layers.Rescaling(1 / 256)(inputs)
    for filters in (32, 64, 128):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
            x = layers.BatchNormalization(momentum=63 / 64, epsilon=2**-10)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dropout(0)(layers.Flatten()(x))
    x = layers.Dropout(0)(layers.Dense(256, activation="relu")(x))
    return minicnn.Model(inputs, layers.Dense(10, activation="softmax")(x))


def drawn(name, shape, rng):
    """A weight as the recipe draws it."""
    low, high = -0.02, 0.02
    if name.endswith("kernel"):
        high = np.sqrt(6 / (np.prod(shape[:-2]) * sum(shape[-2:])))
        low = -high
    elif name.endswith(("gamma", "moving_variance")):
        low, high = 0.8, 1.2
    elif name.endswith("moving_mean"):
        low, high = -0.1, 0.1
    return rng.uniform(low, high, shape).astype(np.float32)


@functools.cache
def run(optimizer, fuse=True):
    """What the recipe's six steps with an optimizer leave behind, under the golden file's keys."""
    with minicnn.using_floatx("float64"):
        model, rng = model_m(), np.random.default_rng(2025)
        images = rng.integers(0, 256, (96, 32, 32, 3), dtype=np.uint8)
        labels = rng.integers(0, 10, 96)
        model.set_weights([drawn(name, w.shape, rng) for name, w in model.named_weights().items()])
        model.compile(OPTIMIZERS[optimizer](), metrics=["accuracy"], fuse=fuse)
    assert list(model.named_weights()) == NAMES
    probabilities, steps, first = model.predict(images[:32]), [], []
    for start in (0, 32, 64, 0, 32, 64):
        steps.append(model.train_on_batch(images[start : start + 32], labels[start : start + 32])[0])
        first = first or [g.copy() for g in model.gradients()]
    seen = {"loss_batch0_training": steps[0], "probabilities_inference_batch0": probabilities}
    seen |= {f"grad_batch0/{k}": g for k, g in enumerate(first)}
    seen |= {f"{optimizer}/weights_after_6_steps/{k}": w for k, w in enumerate(model.get_weights())}
    seen[f"{optimizer}/batch_loss_6_steps"] = steps
    seen[f"{optimizer}/evaluate_after"] = model.evaluate(images, labels, batch_size=32, verbose=0)
    return seen


def compare(seen, tolerance):
    for key, value in seen.items():
        expected, mine = GOLDEN[key].ravel(), np.asarray(value).ravel()
        mine = mine[:: mine.size // 256] if mine.size > 511 else mine
        assert mine.shape == expected.shape, key
        assert np.abs(mine - expected).max() <= tolerance * np.abs(expected).max(), key


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_is_what_keras_computed(optimizer, fuse):
    seen = run(optimizer, fuse)
    assert len(seen) == 2 + len(TRAINED) + len(NAMES) + 2
    compare(seen, 1e-9)


def test_every_number_of_the_file_is_compared():
    compared = {key for optimizer in OPTIMIZERS for key in run(optimizer)}
    assert set(GOLDEN.files) - compared == {"weight_names", "weight_shapes", "params"}
    assert GOLDEN["params"] == model_m().count_params() == 815_914
