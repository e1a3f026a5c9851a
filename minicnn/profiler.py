"""Where the time of a training step goes: milliseconds, operations and bytes of each step of a model.

A copy of the model is measured from outside, with a clock around its methods; the model itself stays as it is.
"""

import copy
import math
import statistics
import time
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from minicnn import fusion, kernels, layers, losses, optimizers
from minicnn.checks import positive_integer
from minicnn.errors import DtypeError, StateError
from minicnn.models import Model

WARM_UP = 3  # steps that are not measured: the first compiles
LINE = "{:<{}}  {:>10}  {:>11}  {:>7}  {:>7}  {:>5}  {:>6}"


@dataclass
class Row:
    """What a step of the model costs for one batch.

    Operations are those of a dense computation, a multiplication and its addition counted as 2. Bytes are those that
    must move once: forward the input, the weights and the output; backward dy, dx and, where there are weights, these,
    their gradients and the input. Nothing moves where a result lies in the memory of what was given, as in Flatten.

    Parameters
    ----------
    name : str, the layers of the step
    forward, backward : float, in seconds
    forward_flops, backward_flops, forward_bytes, backward_bytes : int
    live : float or None, of a fused stage: how many of its pooling windows have a positive maximum, 0 to 1
    """

    name: str
    forward: float = 0.0
    backward: float = 0.0
    forward_flops: int = 0
    backward_flops: int = 0
    forward_bytes: int = 0
    backward_bytes: int = 0
    live: float | None = None

    @property
    def seconds(self) -> float:
        """Forward and backward together, in seconds."""
        return self.forward + self.backward


@dataclass
class Profile:
    """A row for each step of the model, then the loss, the optimizer, and the rest, which is Python's own time.

    Printed, it is a table with the total, the sum of the rows.

    Parameters
    ----------
    rows : list of Row
    """

    rows: list[Row]

    @property
    def seconds(self) -> float:
        """The whole training step, in seconds."""
        return sum(row.seconds for row in self.rows)

    def share(self, row: Row) -> float:
        """Return the part of the training step that one of the rows takes, 0 to 1.

        Parameters
        ----------
        row : Row
        """
        return row.seconds / self.seconds

    def __str__(self) -> str:
        sums = [sum(column) for column in zip(*(astuple(row)[1:-1] for row in self.rows), strict=True)]
        width = max(len(row.name) for row in self.rows)
        lines = [LINE.format("step", width, "forward ms", "backward ms", "GFLOP/s", "MB", "live", "share")]
        for row in [*self.rows, Row("total", *sums)]:
            flops, moved = row.forward_flops + row.backward_flops, row.forward_bytes + row.backward_bytes
            cells = [
                f"{row.forward * 1e3:.3f}",
                f"{row.backward * 1e3:.3f}" if row.backward else "",
                f"{flops / row.seconds / 1e9:.1f}" if flops else "",
                f"{moved / 1e6:.2f}" if moved else "",
                "" if row.live is None else f"{row.live:.2f}",
                f"{self.share(row):.1%}",
            ]
            lines.append(LINE.format(row.name, width, *cells))
        return "\n".join(lines)


def profile(model: Model, images: np.ndarray, labels: np.ndarray, steps: int = 20) -> Profile:
    """Measure training steps on one batch and return the median time of each part.

    The learning rate is 0, so that every step does the same work. A fused stage visits only its live windows backward:
    counted densely, its GFLOP/s may exceed what the processor can do.

    Parameters
    ----------
    model : Model
        Compiled or not; it is copied and stays as it is.
    images : (N, H, W, C) array
    labels : (N,) array of int
    steps : int
        How many are measured.

    Returns
    -------
    Profile

    Raises
    ------
    DtypeError, ArgumentError
        If `model` is not a model, or `steps` not a positive integer.
    StateError
        If the chosen device is the GPU.
    ShapeError, DataError
        If the images do not fit the model, or the labels its outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn import baseline, profiler
    >>> found = profiler.profile(baseline.model_s(), np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1]), steps=2)
    >>> [row.name for row in found.rows][-3:]
    ['loss', 'optimizer', 'the rest']
    """
    if not isinstance(model, Model):
        raise DtypeError(f"profile expects a model. Received: {type(model).__name__}")
    if kernels.get_device() != "cpu":
        raise StateError('profile measures the CPU\'s kernels. Call it inside: with minicnn.device("cpu").')
    steps = positive_integer("profile(steps)", steps)
    model, images = copy.deepcopy(model), np.asarray(images)
    model.ensure_built(images)
    own = model.optimizer or optimizers.SGD(momentum=0.9)
    loss = model.loss or losses.SparseCategoricalCrossentropy(from_logits=model._softmax() is None)
    own.learning_rate = 0.0
    model.compile(own, loss, model.metrics[1:], model.fuse)

    clocks = [(Clock(step.layer, "forward"), Clock(step.layer, "backward")) for step in model._steps]
    others = [Clock(model.loss, "value_and_gradient"), Clock(model.optimizer, "apply")]
    whole = Clock(model, "train_on_batch")
    with np.errstate(over="ignore", invalid="ignore"):  # weights that have exploded take as long as others
        for _ in range(WARM_UP + steps):
            model.train_on_batch(images, labels)
    parts = [clock.seconds for clock in [*sum(clocks, ()), *others] if clock.seconds]
    rest = [total - sum(each) for total, *each in zip(whole.seconds, *parts, strict=True)]
    rows = [_row(step, *pair) for step, pair in zip(model._steps, clocks, strict=True)]
    rows += [Row("loss", others[0].median), Row("optimizer", others[1].median)]
    return Profile([*rows, Row("the rest", statistics.median(rest[WARM_UP:]))])


class Clock:
    """Stands before a method of one object: measures each call, and keeps the first argument and the result."""

    def __init__(self, owner: Any, method: str) -> None:
        self.call = getattr(owner, method)
        self.seconds: list[float] = []
        self.given: Any = None
        self.result: Any = None
        setattr(owner, method, self)

    def __call__(self, given: Any, *others: Any, **options: Any) -> Any:
        """Call the method."""
        started = time.perf_counter()
        self.result = self.call(given, *others, **options)
        self.seconds.append(time.perf_counter() - started)
        self.given = given
        return self.result

    @property
    def median(self) -> float:
        """Seconds of a call, without those of the warm-up; 0 if there was none, as backward below the first weights."""
        return statistics.median(self.seconds[WARM_UP:]) if self.seconds else 0.0


def _row(step: fusion.Step, forward: Clock, backward: Clock) -> Row:
    parts = _layers(step)
    row = Row(" + ".join(str(layer.name) for layer in parts), forward.median, backward.median)
    weights = [w for layer in parts for w in layer.weights.values()]
    params = [param for layer in parts for param in layer.params.values()]
    N = len(forward.result)
    for layer in parts:
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            places = math.prod(layer.output_shape[:-1])  # where the kernel is applied: OH*OW, or once
            row.forward_flops += 2 * N * places * layer.params["kernel"].size
    if len(parts) > 1 and hasattr(step.layer, "argmax"):
        from minicnn.kernels.fused import DEAD  # here and not above: it loads Numba

        row.live = float((step.layer.argmax != DEAD).mean())
    if not _is_view(forward.result, forward.given):
        row.forward_bytes = _bytes(forward.given, weights, forward.result)
    if backward.seconds and not _is_view(backward.result, backward.given):
        dx = backward.result
        row.backward_flops = row.forward_flops * (1 if dx is None else 2)  # dw, and dx
        row.backward_bytes = _bytes(backward.given, dx, [forward.given, params, params] if params else None)
    return row


def _layers(step: fusion.Step) -> list[layers.Layer]:
    """Return the layers that a step computes, from its inputs to its output."""
    found: list[layers.Layer] = []
    waiting = [step.output]
    while waiting:
        node = waiting.pop()
        found.insert(0, node.layer)
        waiting += [parent for parent in node.inputs if parent not in step.inputs]
    return found


def _is_view(result: Any, given: Any) -> bool:
    """Tell whether a result, or each of a list of results, lies in the memory of an array that was given."""
    parts = result if isinstance(result, list) else [result]
    return isinstance(given, np.ndarray) and all(np.may_share_memory(part, given) for part in parts)


def _bytes(*values: Any) -> int:
    """Return the bytes of arrays, of lists of arrays, and of None, which has none."""
    return sum(_bytes(*value) if isinstance(value, (list, tuple)) else getattr(value, "nbytes", 0) for value in values)
