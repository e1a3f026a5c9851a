"""Doubt every gradient: compare what `backward` says with what finite differences of `forward` measure.

For a layer the scalar is L = sum(y * dy) with a random dy, since a constant one is blind to transposed, rolled or
averaged gradients. For a model it is the loss. Everything is computed in float64 on a copy of the layer or model.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minicnn.kernels import here, on_host
from minicnn.layers import Layer, Rescaling
from minicnn.losses import SparseCategoricalCrossentropy

STEPS = (1e-3, 1e-4, 1e-5)  # h, tried in this order; times the largest value of the tensor, if that is above 1
SMOOTH = 2e-7  # slopes over h and h/2 that differ by less, relatively, are not bent by a kink
MOVES = 20  # how often an entry may move aside from a kink
LINE = "{:<34} {:<17} {:>16} {:>8}  {}"
HEADER = LINE.format("layer", "tensor", "entries", "error", "verdict")


@dataclass
class Row:
    """The worst entry of one tensor: where `backward` and finite differences disagree most.

    Parameters
    ----------
    tensor : str, its name: dx, dkernel, dbias
    checked : str, how many of its entries were compared
    error : float
        Relative to the larger of the two, or to 1/100 of the tensor's largest gradient if both are smaller.
    index : tuple of int, or str where no single entry is meant
    analytic, numeric : float, what `backward` says and what was measured
    """

    tensor: str
    checked: str
    error: float
    index: tuple[int, ...] | str
    analytic: float
    numeric: float


@dataclass
class Report:
    """What a check found, a row a tensor; printed, it is a table.

    Parameters
    ----------
    name : str, of what was checked
    tolerance : float, the largest relative error that is accepted
    rows : list of Row
    """

    name: str
    tolerance: float
    rows: list[Row] = field(default_factory=list)

    @property
    def wrong(self) -> list[Row]:
        """The rows whose error is above `tolerance`."""
        return [row for row in self.rows if not row.error <= self.tolerance]

    @property
    def ok(self) -> bool:
        """Whether at least one tensor was checked and all agree."""
        return bool(self.rows) and not self.wrong

    @property
    def worst(self) -> float:
        """Largest relative error of all tensors."""
        return max(row.error for row in self.rows)

    def __str__(self) -> str:
        lines = [f"{self.name}:"] if len(self.name) > 34 else []
        for row in self.rows:
            line = LINE.format("" if lines else self.name, row.tensor, row.checked, f"{row.error:.1e}", "ok")
            if row in self.wrong:
                line = line[:-2] + f"WRONG at {row.index}: backward {row.analytic:.9g}, measured {row.numeric:.9g}"
            lines.append(line)
        return "\n".join(lines)


def check_layer(
    layer: Layer,
    input_shape: Any,
    batch_size: int = 2,
    seed: int = 0,
    tolerance: float = 1e-6,
    max_entries: int | None = None,
    training: bool = True,
) -> Report:
    """Check dx and the gradient of every parameter of a layer.

    numeric = (L(t + h) - L(t - h)) / (2h) for each entry t, on inputs without ties.

    Parameters
    ----------
    layer : Layer
        Built or not; it is copied and stays as it is.
    input_shape : tuple of int, or list of them
        Without the batch axis; a list for a layer that merges inputs.
    batch_size : int
    seed : int
        For the inputs, the parameters and dy.
    tolerance : float
        The largest relative error that is accepted.
    max_entries : int, optional
        Check so many random entries of a larger tensor, and the slope along one random direction of all its entries.
    training : bool
        How `forward` is called. What a layer draws is the same in every call.

    Returns
    -------
    Report
        It raises nothing on a mismatch.

    References
    ----------
    Baydin et al., Automatic differentiation in machine learning: a survey, JMLR 18, 2018, section 2.1.

    Examples
    --------
    >>> from minicnn import layers
    >>> from minicnn.gradcheck import check_layer
    >>> check_layer(layers.Conv2D(4, 3, padding="same"), (5, 5, 2)).ok
    True

    A transposed kernel is found:

    >>> class Wrong(layers.Dense):
    ...     def backward(self, dy):
    ...         dx = super().backward(dy)
    ...         self.grads["kernel"] = self.grads["kernel"].T
    ...         return dx
    >>> check_layer(Wrong(3), (3,)).ok
    False
    """
    rng = np.random.default_rng(seed)
    name = repr(layer)
    layer = _in_float64(layer)
    shapes = [tuple(s) for s in input_shape] if layer.merges else [np.atleast_1d(input_shape).tolist()]
    layer.ensure_built([tuple(s) for s in shapes] if layer.merges else tuple(shapes[0]))
    layer.settle()
    for param in layer.params.values():
        param[...] = here(rng.normal(0, 0.5, param.shape))
    inputs = [tie_free((batch_size, *shape), rng) for shape in shapes]
    x: Any = inputs if layer.merges else inputs[0]
    forward = _repeatable(layer.forward, [layer])
    dy = rng.standard_normal(forward(x, training).shape)
    tensors = {f"dx{i + 1}" if layer.merges else "dx": array for i, array in enumerate(inputs)}
    tensors |= {f"d{key}": param for key, param in layer.params.items()}

    def value() -> float:
        return float((on_host(forward(x, training)) * dy).sum())

    def gradients() -> list[np.ndarray | None]:
        value()
        dx = layer.backward(dy)
        return [*(dx if layer.merges else [dx]), *(layer.grads.get(key) for key in layer.params)]

    return _check(Report(name, tolerance), tensors, value, gradients, rng, max_entries)


def check_model(
    model: Any,
    x: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    batch_size: int = 2,
    seed: int = 0,
    tolerance: float = 1e-6,
    max_entries: int | None = 64,
    name: str | None = None,
) -> Report:
    """Check the gradient of the cross-entropy with respect to every weight of a model, and to its input.

    The loss is the model's own, with its smoothing, if it is compiled.

    Parameters
    ----------
    model : Model
        Built; it is copied and stays as it is.
    x : array (N, ...), optional
        By default random values, from 0 to 255 if the model begins with Rescaling, augmented or not, else from -1 to 1.
    labels : array (N,) of int, optional
        Random by default.
    batch_size, seed, tolerance, max_entries : as in `check_layer`
    name : str, optional
        Shown in the report.

    Returns
    -------
    Report

    Examples
    --------
    >>> import minicnn
    >>> from minicnn import layers
    >>> model = minicnn.Sequential([minicnn.Input((6,)), layers.Dense(5, "relu"), layers.Dense(3, "softmax")])
    >>> minicnn.gradcheck.check_model(model).ok
    True
    """
    rng = np.random.default_rng(seed)
    model = copy.deepcopy(model)
    for layer in model.layers:
        _to_float64(layer)
    if x is None:
        shape = (batch_size, *model.layers[0].output_shape)
        first = next((layer for layer in model.layers[1:] if layer.generator is None), None)
        bytes_expected = isinstance(first, Rescaling)
        x = (tie_free(shape, rng) + 1) * 127.5 if bytes_expected else tie_free(shape, rng)
    x = np.array(x, np.float64)
    forward = _repeatable(model.forward, model.layers)
    outputs = forward(x, training=True)
    labels = rng.integers(0, outputs.shape[1], len(x)) if labels is None else np.asarray(labels)
    loss = model.loss or SparseCategoricalCrossentropy()

    tensors = {"dx": x}
    for layer in model.layers:
        tensors |= {f"{layer.name}/d{key}": param for key, param in layer.params.items()}

    def value() -> float:
        forward(x, training=True)
        return float(loss.value_and_gradient(model.logits(), here(labels))[0].mean())

    def gradients() -> list[np.ndarray | None]:
        value()
        _, dz = loss.value_and_gradient(model.logits(), here(labels))
        dx = model.backward(dz, from_logits=True, input_gradient=True)
        return [dx, *(layer.grads.get(key) for layer in model.layers for key in layer.params)]

    return _check(Report(name or model.name, tolerance), tensors, value, gradients, rng, max_entries)


def tie_free(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return numbers between -1 and 1 in the given shape, all different, none near 0: no maximum is in doubt.

    Parameters
    ----------
    shape : tuple of int
    rng : numpy.random.Generator, which draws their order

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.gradcheck import tie_free
    >>> tie_free((4,), np.random.default_rng(0))
    array([ 0.1, -0.7, -0.3,  0.5])
    """
    size = int(np.prod(shape))
    return ((2 * rng.permutation(size) + 1.5) / (size + 1) - 1).reshape(shape)


def _check(
    report: Report,
    tensors: dict[str, np.ndarray],
    value: Callable[[], float],
    gradients: Callable[[], list[np.ndarray | None]],
    rng: np.random.Generator,
    max_entries: int | None,
) -> Report:
    """Compare each tensor's gradient, in the order in which `gradients` returns them, with slopes of `value`."""
    for i, (tensor, array) in enumerate(tensors.items()):
        analytic = gradients()[i]
        if analytic is None or analytic.shape != array.shape:
            wrong = "nothing" if analytic is None else f"shape {analytic.shape}"
            report.rows.append(Row(tensor, wrong, np.inf, f"shape: expected {array.shape}", np.nan, np.nan))
            continue
        analytic = np.array(on_host(analytic))  # backward may use its arrays again
        size = array.size
        sampled = max_entries is not None and size > max_entries
        chosen = rng.choice(size, max_entries, replace=False) if sampled else np.arange(size)
        directions: list[tuple[Any, Any]] = []  # where the tensor is changed, and by what multiple of t
        directions += [(tuple(map(int, np.unravel_index(entry, array.shape))), 1.0) for entry in np.sort(chosen)]
        if sampled:  # one slope along which every entry counts
            directions.append((..., rng.choice([-1.0, 1.0], array.shape) / np.sqrt(size)))
        floor = max(1e-12, float(np.abs(analytic).max()) / 100)  # smaller slopes are measured against this
        worst = Row(tensor, f"{len(chosen):,} of {size:,}" if sampled else f"all {size:,}", -1.0, (), 0.0, 0.0)
        for place, along in directions:
            expected, measured = _slopes(array, analytic, place, along, value, lambda: gradients()[i], floor, rng)  # noqa: B023
            error = abs(expected - measured) / max(abs(expected), abs(measured), floor)
            if not error <= worst.error:  # also if it is not a number, which then counts as the worst
                worst.error = error if np.isfinite(error) else np.inf
                worst.index = "a random direction" if place is ... else place
                worst.analytic, worst.numeric = expected, measured
        report.rows.append(worst)
    return report


def _slopes(
    array: np.ndarray,
    analytic: np.ndarray,
    place: Any,
    along: Any,
    value: Callable[[], float],
    gradient: Callable[[], Any],
    floor: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return dL/dt at t = 0 of array[place] + t * along, from `backward` and from finite differences.

    ReLU and max-pooling bend L. Where a bend lies within the step, the slopes over h and over h/2 differ: then the step
    shrinks, and at last the entry moves aside a little, to be compared there. `backward` takes no part in this choice.
    """
    original = np.array(on_host(array[place]))
    unit = max(1.0, float(np.abs(on_host(array)).max()))
    closest, found = np.inf, (np.nan, np.nan)

    def put(numbers: Any) -> None:
        array[place] = numbers if isinstance(array, np.ndarray) else here(np.asarray(numbers))

    for move in range(MOVES):
        start = original + along * (rng.uniform(-1e-3, 1e-3) * unit if move else 0.0)

        def central(h: float, start: np.ndarray = start) -> float:
            put(start + h * along)
            above = value()
            put(start - h * along)
            return (above - value()) / (2 * h)

        for step in STEPS:
            wide, narrow = central(step * unit), central(step * unit / 2)
            difference = abs(wide - narrow) / max(abs(narrow), floor)
            if difference < closest:
                put(start)
                slopes = on_host(gradient()) if move else analytic
                expected = float((slopes[place] * along).sum())
                closest, found = difference, (expected, (4 * narrow - wide) / 3)  # Richardson: no error of order h^2
            if closest < SMOOTH:
                break
        if closest < SMOOTH:
            break
    put(original)
    return found


def _in_float64(layer: Layer) -> Layer:
    layer = copy.deepcopy(layer)
    _to_float64(layer)
    return layer


def _to_float64(layer: Layer) -> None:
    for part in _parts(layer):
        part.dtype = "float64"
        part.params = {key: param.astype(np.float64) for key, param in part.params.items()}
        part.state = {key: array.astype(np.float64) for key, array in part.state.items()}


def _repeatable(forward: Callable[..., Any], layers: Sequence[Layer]) -> Callable[..., Any]:
    """Return `forward` with generators that begin anew in each call: what is drawn does not change between two."""
    drawing = [layer for layer in layers if layer.generator is not None]
    states = [copy.deepcopy(layer.generator) for layer in drawing]

    def repeated(x: Any, training: bool) -> Any:
        for layer, state in zip(drawing, states, strict=True):
            layer.generator = copy.deepcopy(state)
        return forward(x, training)

    return repeated


def _parts(layer: Layer) -> Iterator[Layer]:
    """Give the layer and the layers that it is made of, such as its activation."""
    yield layer
    for part in vars(layer).values():
        if isinstance(part, Layer):
            yield from _parts(part)
