"""Model S against the numbers that Keras 2.15 computed from the same weights and images, through the public interface.

The file holds what Keras computed; images and weights are made again from their recipe. Arrays of more than 1,023
elements are stored as every (size // 512)-th element.
"""

import functools
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import layers
from minicnn.callbacks import Callback

GOLDEN = np.load(Path(__file__).parent / "golden" / "model_s_keras215.npz")


class Recorder(Callback):
    """Keeps the running logs of every batch, and the gradients of the first one."""

    def on_train_begin(self, logs=None):
        self.logs, self.gradients = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append([logs["loss"], logs["accuracy"]])
        self.gradients = self.gradients or [g.copy() for g in self.model.gradients()]


def model_s(fuse):
    """Model S with the constants that Keras passes through float32 even in a float64 run."""
    inputs = minicnn.Input((32, 32, 3))
    x = layers.Rescaling(float(np.float32(1 / 255)))(inputs)
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    model = minicnn.Model(inputs, layers.Dense(10, activation="softmax")(x))
    optimizer = minicnn.optimizers.SGD(learning_rate=0.01, momentum=float(np.float32(0.9)))
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], fuse=fuse)
    return model


def drawn_weights(model, rng):
    """The recipe's weights, in layer order."""
    weights = []
    for w in model.get_weights():
        limit = np.sqrt(6 / (np.prod(w.shape[:-2]) * sum(w.shape[-2:]))) if w.ndim > 1 else 0.02
        weights.append(rng.uniform(-limit, limit, w.shape).astype(np.float32))
    return weights


@functools.cache
def run(dtype, fuse):
    """Everything that the recipe's sixteen steps in this type leave behind, under the golden file's keys."""
    minicnn.set_floatx(dtype)
    rng = np.random.default_rng(2024)
    images = rng.integers(0, 256, (208, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 208)
    model, recorder, seen = model_s(fuse), Recorder(), {}
    minicnn.set_floatx("float32")
    model.set_weights(drawn_weights(model, rng))

    def keep(key, arrays):
        seen.update({f"{key}/{k}": array.copy() for k, array in enumerate(arrays)})

    seen["evaluate_before"] = model.evaluate(images, labels, batch_size=64, verbose=0)
    seen["probabilities_batch0"] = model.predict(images[:64], batch_size=64)
    schedule = {"batch_size": 64, "shuffle": False, "verbose": 0}
    model.fit(images, labels, epochs=3, callbacks=recorder, **schedule)
    keep("grad_batch0", recorder.gradients)
    seen["loss_batch0"] = recorder.logs[0][0]
    seen["running_loss_accuracy_12_steps"] = recorder.logs
    keep("weights_after_12_steps", model.get_weights())
    keep("velocity_after_12_steps", model.optimizer.slots["velocity"])
    model.optimizer.learning_rate = float(np.float32(0.01)) * 0.1  # in float64, then stored in the run's own type
    history = model.fit(images, labels, epochs=1, **schedule)
    seen["epoch_loss_after_lr_cut"] = history.history["loss"]
    keep("weights_after_16_steps", model.get_weights())
    seen["probabilities_last16"] = model.predict(images[192:])
    seen["evaluate_after"] = model.evaluate(images, labels, batch_size=64, verbose=0)
    return seen


# In float32 rounding can move the maximum of a pooling window on these random images, so the more steps, the less two
# computations agree: Keras's own float32 weights are 4e-3 off its float64 ones after 12 steps and 9e-3 after 16, about
# which nothing is claimed here. In float64 no maximum moves.
FLOAT32 = {
    "evaluate_before": 1e-6,
    "probabilities_batch0": 1e-6,
    "loss_batch0": 1e-6,
    "grad_batch0": 1e-5,
    "running_loss_accuracy_12_steps": 1e-6,
    "weights_after_12_steps": 3e-3,
    "velocity_after_12_steps": 5e-2,
}
FLOAT64 = {key.split("/")[1]: 1e-10 for key in GOLDEN.files}
CASES = [("float64", fuse, key, tolerance) for fuse in (True, False) for key, tolerance in FLOAT64.items()]
CASES += [("float32", fuse, key, tolerance) for fuse in (True, False) for key, tolerance in FLOAT32.items()]


@pytest.mark.parametrize(("dtype", "fuse", "key", "tolerance"), CASES)
def test_it_is_what_keras_computed(dtype, fuse, key, tolerance):
    seen = run(dtype, fuse)
    names = [name for name in GOLDEN.files if name.split("/")[:2] == [dtype, key]]
    assert len(names) == (10 if f"{dtype}/{key}/0" in names else 1)
    for name in names:
        expected = GOLDEN[name].astype(np.float64).ravel()
        mine = np.asarray(seen[name.removeprefix(f"{dtype}/")], np.float64).ravel()
        mine = mine[:: mine.size // 512] if mine.size > 1023 else mine
        assert mine.shape == expected.shape
        error = np.abs(mine - expected).max() / np.abs(expected).max()  # the worst element over the largest
        assert error <= tolerance, name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_value_was_computed_in_the_type_that_was_asked_for(dtype):
    arrays = [value for value in run(dtype, True).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 42
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}
