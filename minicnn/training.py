"""The loops: fit, evaluate, predict, and the one step that they repeat.

They use a model through `forward`, `backward`, `logits`, `loss`, `optimizer`, `metrics` and `stop_training` alone.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from minicnn import kernels, ranks
from minicnn.callbacks import Callback, CallbackList, History
from minicnn.checks import positive_integer, whole_number
from minicnn.data import Dataset
from minicnn.errors import ArgumentError, DataError, DeviceMemoryError, DtypeError, ShapeError
from minicnn.losses import check_labels
from minicnn.resume import Keeper


class Running:
    """Sample-weighted running means of an epoch: each batch counts as often as it has images.

    >>> import numpy as np
    >>> running = Running(["loss", "accuracy"])
    >>> running.add(np.array([1.0, 3.0]), np.array([True, False]))
    {'loss': 2.0, 'accuracy': 0.5}
    """

    def __init__(self, names: Sequence[str], samples: int = 0, loss: float = 0.0, correct: int = 0) -> None:
        self.names = names
        self.samples, self.loss, self.correct = samples, loss, correct

    def sums(self) -> tuple[int, float, int]:
        """Return what a later `Running` goes on from."""
        return self.samples, self.loss, self.correct

    def add(self, losses: np.ndarray, correct: np.ndarray) -> dict[str, float]:
        """Add a batch's losses (N,) and whether each prediction was right (N,); return the means so far."""
        self.samples += len(losses)
        self.loss += float(losses.mean()) * len(losses)
        self.correct += int(correct.sum())
        return self.means()

    def means(self) -> dict[str, float]:
        """Return the means so far, if there was a batch."""
        if self.samples == 0:
            return {}
        means = {"loss": self.loss / self.samples, "accuracy": self.correct / self.samples}
        return {name: means[name] for name in self.names}


def train_step(model: Any, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Update the model's weights once; return the losses and hits of the batch, (N,) each, from before the update."""

    def describe() -> tuple | None:
        """Return what the step depends on, and the arrays that it changes in place; None if it may do anything."""
        optimizer, ours = model.optimizer, (*model.layers, model.optimizer, model.loss)
        if not all(type(part).__module__.startswith("minicnn.") for part in ours):
            return None
        if ranks.size() > 1 or optimizer.counts or any(layer.generator is not None for layer in model.layers):
            return None  # what is drawn, or follows from the number of the step, comes from the host
        settings = (model.fuse, *model.layers, type(optimizer), *optimizer.get_config().items())
        settings += type(model.loss), *model.loss.get_config().items()
        return settings, (*model.weights(), *(array for slot in optimizer.slots.values() for array in slot))

    with _blaming_memory_on(images):
        return kernels.chosen_room().run_step(
            partial(plain_step, model), model, describe, *_admit(model, images, labels)
        )


def plain_step(model: Any, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Do what `train_step` does, kernel by kernel, with a batch that fits and is where it is computed with."""
    if ranks.size() > 1:
        return shared_step(model, images, labels)
    losses, correct, dz = _judge(model, images, labels, training=True)
    model.backward(dz, from_logits=True)
    model.optimizer.apply(model.gradients(), model.trainable_weights())
    return losses, correct


def shared_step(model: Any, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Do what `plain_step` does together with the other ranks, each with its share of the batch.

    One Allreduce of one flat array tells everybody everything: the gradients and the moving averages, both weighted by
    the size of the share, then a place for each loss and each hit of the batch, and at last whether a signal came.
    """
    N = len(images)
    with ranks.sharing(N) as own:
        losses, correct, dz = _judge(model, images[own], labels[own], training=True)
        weight = len(losses) / N
        model.backward(dz * weight, from_logits=True)
    averages = [array for layer in model.layers for array in layer.state.values()]
    pieces = [*model.gradients(), *(average * weight for average in averages)]
    size = sum(piece.size for piece in pieces)
    flat = ranks.memory(dz, size + 2 * N + 1)
    flat[size:] = 0
    ends = np.cumsum([piece.size for piece in pieces]).tolist()
    parts = [slice(end - piece.size, end) for piece, end in zip(pieces, ends, strict=True)]
    for piece, part in zip(pieces, parts, strict=True):
        flat[part] = piece.reshape(-1)
    flat[size : size + N][own], flat[size + N : size + 2 * N][own] = losses, correct
    flat[-1] = ranks.signals.mine
    ranks.add(flat)
    sums = [flat[part].reshape(piece.shape) for piece, part in zip(pieces, parts, strict=True)]
    for average, mean in zip(averages, sums[len(pieces) - len(averages) :], strict=True):
        average[...] = mean
    model.optimizer.apply(sums[: len(pieces) - len(averages)], model.trainable_weights())
    ranks.signals.note(float(flat[-1]))
    return flat[size : size + N], flat[size + N : size + 2 * N]


def fit(
    model: Any,
    x: Any,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: int | str = "auto",
    callbacks: Callback | Sequence[Callback] | None = None,
    validation_data: Any = None,
    shuffle: bool = True,
    initial_epoch: int = 0,
    resume: str | os.PathLike | None = None,
) -> History:
    """Train; see `Model.fit`."""
    epochs = positive_integer("epochs", epochs)
    initial_epoch = whole_number("initial_epoch", initial_epoch)
    batches = as_batches(x, y, batch_size, shuffle)
    validation = None if validation_data is None else _validation_batches(validation_data, batch_size)
    model.class_names = getattr(batches, "class_names", None) or model.class_names
    model.stop_training = False
    hooks = CallbackList(callbacks, model, epochs, _length(batches), verbose)
    keeper = Keeper(resume, model, hooks, [batches, validation])
    logs: dict[str, float] = {}
    hooks.call("on_train_begin", logs)
    begun = keeper.restore(batches) or {"epoch": initial_epoch, "step": 0, "running": []}
    keeper.agree(batches)
    try:
        with hooks.progress, _quiet(), keeper.listening():
            for epoch in range(begun["epoch"], epochs):
                if model.stop_training:  # before it was saved
                    break
                hooks.call("on_epoch_begin", epoch, {})
                logs = _train_epoch(model, batches, hooks, keeper, epoch, begun if epoch == begun["epoch"] else {})
                if validation is not None:
                    hooks.call("on_test_begin", {})
                    measured = _measure(model, validation, hooks, "test", together=True)
                    hooks.call("on_test_end", measured)
                    logs |= {f"val_{name}": value for name, value in measured.items()}
                hooks.call("on_epoch_end", epoch, logs)
                if np.isfinite(logs.get("loss", 0.0)):  # else the last state that was good stays
                    keeper.save(epoch + 1)
                keeper.end_if_asked(epoch + 1)
    finally:  # also after Ctrl-C or an error: early stopping then gives the best weights back
        hooks.call("on_train_end", logs)
    return hooks.history


def _train_epoch(
    model: Any, batches: Iterable, hooks: CallbackList, keeper: Keeper, epoch: int, begun: dict[str, Any]
) -> dict[str, float]:
    """Train with every batch once, from the step on that `begun` names; return the epoch's means."""
    running, done = Running(model.metrics, *begun.get("running", [])), begun.get("step", 0)
    logs = running.means()
    hooks.progress.skip(done)
    keeper.begin_epoch()
    pairs = itertools.islice(_pairs(batches), done, None)
    for step, (images, labels) in enumerate(kernels.chosen_room().ahead(pairs), done):
        hooks.call("on_train_batch_begin", step, {})
        logs = running.add(*train_step(model, images, labels))
        hooks.call("on_train_batch_end", step, logs)
        if model.stop_training:
            break
        keeper.end_if_asked(epoch, step + 1, running.sums())
    _check_any(running)
    return logs


def evaluate(
    model: Any, x: Any, y: Any = None, batch_size: int | None = None, verbose: int | str = "auto"
) -> list[float]:
    """Measure loss and metrics; see `Model.evaluate`."""
    batches = as_batches(x, y, batch_size, shuffle=False)
    hooks = CallbackList(None, model, 1, _length(batches), verbose)
    with hooks.progress, _quiet():
        hooks.call("on_epoch_begin", 0, {})
        logs = _measure(model, batches, hooks, "train")  # for the bar, an evaluation is an epoch
        hooks.call("on_epoch_end", 0, logs)
    return list(logs.values())


def predict(model: Any, x: Any, batch_size: int | None = None, verbose: int | str = 0) -> np.ndarray:
    """Compute outputs; see `Model.predict`."""
    if hasattr(x, "__array__"):
        images = np.asarray(x)
        size = positive_integer("batch_size", _batch_size(batch_size))
        batches: Any = [images[start : start + size] for start in range(0, len(images), size)]
    else:
        batches = as_batches(x, None, batch_size, shuffle=False)
    hooks = CallbackList(None, model, 1, _length(batches), verbose)
    outputs = []
    with hooks.progress, _quiet():
        hooks.call("on_epoch_begin", 0, {})
        for step, batch in enumerate(batches):
            images = batch[0] if isinstance(batch, (tuple, list)) else batch
            with _blaming_memory_on(images):
                outputs.append(kernels.on_host(model.forward(images)))
            hooks.call("on_train_batch_end", step, {})
        hooks.call("on_epoch_end", 0, {})
    if not outputs:
        raise DataError("there is nothing to predict: the data set gave no batches. Check where it was read from.")
    return np.concatenate(outputs)  # (N, K)


def as_batches(x: Any, y: Any, batch_size: int | None, shuffle: bool) -> Iterable:
    """Return the batches of a data set, or of the arrays x (N, H, W, C) and y (N,)."""
    if y is not None:
        try:
            images, labels = np.asarray(x), np.asarray(y)
        except ValueError as error:
            raise ShapeError(f"images and labels must be arrays: {error}") from None
        return Dataset.from_arrays(images, labels, _batch_size(batch_size), shuffle=shuffle).prefetch(2)
    if hasattr(x, "__array__"):
        raise ArgumentError("labels are missing: pass arrays as (x, y), or a data set of (images, labels) batches.")
    if not isinstance(x, Iterable):
        raise DtypeError(f"expected arrays or a data set of (images, labels) batches. Received: {type(x).__name__}")
    if batch_size is not None:
        raise ArgumentError("batch_size goes with arrays only: a data set comes in batches of its own.")
    return x


def _validation_batches(data: Any, batch_size: int | None) -> Iterable:
    if isinstance(data, (tuple, list)) and len(data) == 2 and hasattr(data[0], "__array__"):
        return as_batches(data[0], data[1], batch_size, shuffle=False)
    return as_batches(data, None, None, shuffle=False)


def _batch_size(batch_size: int | None) -> int:
    return 32 if batch_size is None else batch_size  # Keras's default


def _quiet() -> np.errstate:
    return np.errstate(over="ignore", invalid="ignore")  # weights that explode show in the loss, not as warnings


def _length(batches: Any) -> int | None:
    return len(batches) if hasattr(batches, "__len__") else None


def _pairs(batches: Iterable) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise DataError(f"a data set must give (images, labels) pairs. Received: {type(batch).__name__}")
        yield batch[0], batch[1]


def _admit(model: Any, images: Any, labels: Any) -> tuple[Any, np.ndarray]:
    """Return a batch whose images fit the model and whose labels are its classes, the images on the chosen device."""
    model.ensure_built(images)
    images = model.layers[0].check(images)
    if len(images) == 0:
        raise DataError("a batch without images. Check how the data set was made.")
    return images, check_labels(labels, np.empty((len(images), *model.layers[-1].output_shape)))


def _judge(model: Any, images: np.ndarray, labels: np.ndarray, training: bool) -> tuple[np.ndarray, ...]:
    """Return losses (N,), hits (N,) and the gradient of the mean loss with respect to the logits (N, K)."""
    predictions, labels = model.forward(images, training), kernels.here(labels)
    losses, dz = model.loss.value_and_gradient(model.logits(), labels)
    return losses, predictions.argmax(axis=1) == labels, dz


@contextmanager
def _blaming_memory_on(images: Any) -> Iterator[None]:
    """Say, where the device has no memory left, which batch was too large."""
    try:
        yield
    except DeviceMemoryError as error:
        raise DeviceMemoryError(
            f"{error} The batch has {len(images)} images: try batch_size={max(1, len(images) // 2)}."
        ) from None


def _measure(model: Any, batches: Iterable, hooks: CallbackList, kind: str, together: bool = False) -> dict[str, float]:
    """Return loss and metrics; `together`, each rank computes its share of every batch."""
    running, logs = Running(model.metrics), {}
    for step, (images, labels) in enumerate(kernels.chosen_room().ahead(_pairs(batches))):
        hooks.call(f"on_{kind}_batch_begin", step, {})
        with _blaming_memory_on(images):
            images, labels = _admit(model, images, labels)
            own = ranks.share(len(images)) if together else slice(None)
            losses, correct, dz = _judge(model, images[own], labels[own], training=False)
            if together and ranks.size() > 1:
                both = np.zeros_like(dz, shape=(2, len(images)))
                both[0, own], both[1, own] = losses, correct
                losses, correct = ranks.add(both)
        logs = running.add(losses, correct)
        hooks.call(f"on_{kind}_batch_end", step, logs)
    _check_any(running)
    return logs


def _check_any(running: Running) -> None:
    if running.samples == 0:
        raise DataError("the data set gave no batches. Expected at least one: check where it was read from.")
