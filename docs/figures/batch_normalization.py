"""Figures of the chapter on batch normalization: signals, a projection, the moving averages, and rates that train.

``python docs/figures/batch_normalization.py --measure`` trains again, for about ten minutes, and writes
measured/batch_normalization.json.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from initializers import SCHEMES, he, signals
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse
from style import HUES, INK, MEASURED, MUTED, record, save

import minicnn
from minicnn import layers
from minicnn.data.digits import load_digits

COMMAND = "python docs/figures/batch_normalization.py --measure"
RECORD = "batch_normalization.json"
SEEDS = range(5)
FILTERS = (32, 32, 64, 64, 128, 128)  # of six convolutions, a pooling after every second one
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SHOWN = 0.1  # the rate whose losses are kept
EPOCHS, STEPS = 10, 17  # of 1,085 images in batches of 64
MOMENTA = (0.0, 0.9, 0.99)
X, DY = np.array([5.0, 1, 0]), np.array([1.2, 1.4, -1])  # three numbers of a channel, and their gradients
AXES = np.array([[1, -1, 0], [1, 1, -2], [1, 1, 1]]) / np.sqrt([[2], [6], [3]])  # the last one: all numbers equal
TILT, RADIUS = 0.42, np.sqrt(3)  # how far the plane is turned to the eye, and how long xhat is
SHEET = "#eef2f5"


# Measured


def deep(draw: Callable, seed: int, normalized: bool) -> list[layers.Layer]:
    """Return six convolutions and a dense layer, each ReLU apart, with kernels drawn by `draw`."""
    generator, shape = np.random.default_rng(seed), (32, 32, 3)
    chain: list[layers.Layer] = [layers.Rescaling(1 / 255)]
    for i, filters in enumerate(FILTERS):
        chain += [layers.Conv2D(filters, 3, padding="same"), layers.ReLU()]
        chain += [layers.BatchNormalization()] * normalized + [layers.MaxPooling2D(2)] * (i % 2)
    chain += [layers.Flatten(), layers.Dense(10)]
    for layer in chain:
        shape = layer.build(shape).output_shape
        if "kernel" in layer.params:
            layer.params["kernel"][:] = draw(layer.params["kernel"].shape, generator)
    return chain


def digits() -> tuple[Any, Any]:
    """Return the digits that train and those that validate, as 8x8 grey images (N, 8, 8, 1) and labels (N,)."""
    train, validation, _ = load_digits()
    return tuple((images[:, ::4, ::4, :1], labels) for images, labels in (train, validation))


def network(normalized: bool, momentum: float = 0.9) -> minicnn.Sequential:
    """Return six convolutions of 16 to 64 filters for 8x8 images."""
    parts = [minicnn.Input((8, 8, 1)), layers.Rescaling(1 / 255)]
    for i, filters in enumerate(FILTERS):
        parts += [layers.Conv2D(filters // 2, 3, padding="same", activation="relu")]
        parts += [layers.BatchNormalization(momentum)] * normalized + [layers.MaxPooling2D(2)] * (i % 2)
    return minicnn.Sequential([*parts, layers.Flatten(), layers.Dense(10, activation="softmax")])


def train(how: str, seed: int, rate: float, epochs: int = EPOCHS, momentum: float = 0.9) -> dict[str, list[float]]:
    """Return the history of a training on the digits: "Glorot" and "He" say how the kernels begin."""
    minicnn.utils.set_random_seed(seed)
    model, generator = network(how == "normalized", momentum), np.random.default_rng(seed)
    if how == "He":
        model.set_weights([he(w.shape, generator) if w.ndim > 1 else w for w in model.get_weights()])
    model.compile(minicnn.optimizers.SGD(rate), metrics=["accuracy"])
    (images, labels), validation = digits()
    with np.errstate(all="ignore"):  # some rates are too high
        fitted = model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0, validation_data=validation)
    return {key: [round(float(value), 4) for value in values] for key, values in fitted.history.items()}


def measure() -> None:
    """Write what the figures draw."""
    (images, labels), _, _ = load_digits()
    depth: dict[str, Any] = {}
    for how, normalized in (("without", False), ("with", True)):
        depth[how] = {
            name: [signals(deep(draw, seed, normalized), images[:64], labels[:64]) for seed in SEEDS]
            for name, draw in SCHEMES.items()
        }
    rates: dict[str, Any] = {}
    for how in ("Glorot", "He", "normalized"):
        runs = {rate: [train(how, seed, rate) for seed in SEEDS] for rate in RATES}
        accuracies = {rate: [run["val_accuracy"][-1] for run in runs[rate]] for rate in RATES}
        rates[how] = {"accuracy": accuracies, "loss": [run["loss"] for run in runs[SHOWN]]}
    averages = {
        momentum: [train("normalized", seed, SHOWN, 2 * EPOCHS, momentum)["val_accuracy"] for seed in SEEDS]
        for momentum in MOMENTA
    }
    content = {
        "command": COMMAND,
        "data": "scikit-learn's digits as minicnn.data.digits splits them",
        "seeds": list(SEEDS),
        "depth": depth,
        "rates": rates,
        "averages": averages,
    }
    record(RECORD, content)


def measured() -> dict[str, Any]:
    """Return what `measure` wrote."""
    return json.loads((MEASURED / RECORD).read_text())


# The projection


def normalized() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return X and DY without their means, xhat for an epsilon of 0, and DY's part along xhat, (3,) each."""
    deviations = X - X.mean()
    xhat = deviations / X.std()
    return deviations, DY - DY.mean(), xhat, xhat * (DY * xhat).mean()


def seen(place: np.ndarray) -> np.ndarray:
    """Return where a place (3,) is on paper, (2,)."""
    across, deep, up = AXES @ place
    return np.array([across, TILT * deep + 0.8 * up])


def arrow(axes: Axes, start: np.ndarray, end: np.ndarray, colour: str, width: float = 1.8) -> None:
    """Draw an arrow from one place on paper to another."""
    style = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "color": colour, "lw": width, "mutation_scale": 12}
    axes.annotate("", end, start, arrowprops=style)


def dots(axes: Axes, *places: np.ndarray) -> None:
    """Draw a dotted line through places on paper."""
    axes.plot(*np.array(places).T, color=MUTED, lw=0.8, ls=":")


def spot(axes: Axes, place: np.ndarray, colour: str) -> None:
    """Mark a place on paper."""
    axes.plot(*place, "o", ms=6, color=colour, mec="white", mew=0.8, zorder=4)


def label(axes: Axes, place: np.ndarray, across: float, up: float, text: str, colour: str = INK, **style: Any) -> None:
    """Write beside a place on paper."""
    axes.text(place[0] + across, place[1] + up, text, color=colour, **style)


def draw_projection() -> Figure:
    """Draw how three numbers reach the circle of all xhat, and what of dy comes back."""
    figure = Figure(figsize=(6.4, 2.95))
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    draw_forward(left)
    draw_backward(right)
    for axes in (left, right):
        axes.set_aspect("equal")
        axes.axis("off")
    return figure


def draw_forward(axes: Axes) -> None:
    """Draw x, x without its mean, and xhat, above the plane of all numbers whose mean is 0."""
    deviations, _, xhat, _ = normalized()
    axes.set(title="forward: x to the circle of all x\u0302", xlim=(-4.5, 6.1), ylim=(-2.6, 5.5))
    axes.add_patch(Ellipse((0, 0), 8.8, 8.8 * TILT, facecolor=SHEET))
    axes.add_patch(Ellipse((0, 0), 2 * RADIUS, 2 * RADIUS * TILT, fill=False, edgecolor=HUES[0], lw=1.8))
    arrow(axes, np.zeros(2), seen(np.full(3, 2.5)), MUTED, width=1)
    label(axes, seen(np.full(3, 2.5)), 0, 0.15, "all three equal", MUTED, ha="center", va="bottom")
    dots(axes, np.zeros(2), seen(1.5 * deviations))
    arrow(axes, seen(X), seen(deviations), HUES[1])
    arrow(axes, seen(deviations), seen(xhat), HUES[2])
    for place, colour in ((X, INK), (deviations, MUTED), (xhat, HUES[0])):
        spot(axes, seen(place), colour)
    label(axes, seen(X), 0.25, 0.2, "x = (5, 1, 0)", ha="center", va="bottom")
    label(axes, seen(X + deviations) / 2, 0.25, 0, "minus the mean", HUES[1], va="center")
    label(axes, seen(deviations + xhat) / 2, 0.2, -0.2, "divided by the sd", HUES[2], va="top")
    label(axes, seen(xhat), -0.2, 0.2, r"$\hat x$", HUES[0], fontsize=12, ha="right", va="bottom")


def draw_backward(axes: Axes) -> None:
    """Draw dy at xhat, its part along xhat and the rest, in the plane of all numbers whose mean is 0."""
    axes.set(title="backward: seen from above", xlim=(-2.7, 4.6), ylim=(-2.7, 4.0))
    whole, at, along = ((AXES @ array)[:2] for array in normalized()[1:])
    rest = whole - along
    axes.add_patch(Circle((0, 0), 2.6, facecolor=SHEET))
    axes.add_patch(Circle((0, 0), RADIUS, fill=False, edgecolor=HUES[0], lw=1.8))
    dots(axes, np.zeros(2), at)
    dots(axes, at + along, at + whole, at + rest)
    for part, colour in ((whole, INK), (along, HUES[1]), (rest, HUES[0])):
        arrow(axes, at, at + part, colour)
    spot(axes, at, HUES[0])
    axes.plot(0, 0, "+", color=MUTED, ms=8)
    label(axes, at, 0.25, -0.05, r"$\hat x$", HUES[0], fontsize=12, va="top")
    label(axes, at + whole, 0.05, 0.1, "dy minus its mean", ha="center", va="bottom")
    label(axes, at + along, 0.1, 0, "along $\\hat x$:\ntaken away", HUES[1], va="center")
    label(axes, at + rest, -0.1, 0.15, "dx", HUES[0], ha="right", va="bottom")


# What was measured


def band(axes: Axes, x: Any, rows: Any, colour: str, **style: Any) -> None:
    """Draw the median of rows as a line and their range as a band."""
    axes.fill_between(x, np.min(rows, axis=0), np.max(rows, axis=0), color=colour, alpha=0.18, lw=0)
    axes.plot(x, np.median(rows, axis=0), color=colour, **{"lw": 1.6, "marker": "o", "ms": 3.5} | style)


def draw_depth(found: dict[str, Any]) -> Figure:
    """Draw the spread of z and of dz along the layers, without and with normalization."""
    figure = Figure(figsize=(6.4, 5.0))
    grid = figure.subplots(2, 2, sharex=True, sharey="col")
    for row, how in zip(grid, ("without", "with"), strict=True):
        for name, hue in zip(SCHEMES, (HUES[3], HUES[0], HUES[2], HUES[1]), strict=True):
            runs = found["depth"][how][name]
            for axes, key in zip(row, ("z", "dz"), strict=True):
                band(axes, range(7), [run[key] for run in runs], hue, label=name)
                axes.set(yscale="log", title=f"sd of {key}, {how} normalization")
    for axes in grid[1]:
        axes.set_xticks(range(7), [*(f"conv\n{n}" for n in range(1, 7)), "dense"])
    grid[1, 0].legend(loc="lower right")
    return figure


def draw_averages(found: dict[str, Any]) -> Figure:
    """Draw the validation accuracy of the same trainings, judged with three moving averages."""
    figure = Figure(figsize=(6.4, 2.8))
    axes = figure.subplots()
    steps = STEPS * np.arange(1, 2 * EPOCHS + 1)
    for momentum, hue in zip(MOMENTA, (HUES[2], HUES[0], HUES[1]), strict=True):
        band(axes, steps, 100 * np.array(found["averages"][str(momentum)]), hue, label=f"momentum {momentum:g}")
    axes.set(xlabel="steps", ylabel="validation accuracy, %", ylim=(0, 104), xlim=(0, steps[-1] + 4))
    axes.legend(loc="center", bbox_to_anchor=(0.36, 0.68))
    half = np.log(0.5) / np.log(MOMENTA[-1])
    axes.plot([half, half], [0, 44], color=HUES[1], lw=1, ls=":")
    axes.text(half + 3, 44, "at 0.99, half of\nthe start is left", color=HUES[1], va="top")
    return figure


def draw_rates(found: dict[str, Any]) -> Figure:
    """Draw the loss of three networks at one rate, and their validation accuracy at all rates."""
    figure = Figure(figsize=(6.4, 3.1))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    hues = {"Glorot": HUES[3], "He": HUES[2], "normalized": HUES[0]}
    for how, hue in hues.items():
        rates = found["rates"][how]
        band(left, range(1, EPOCHS + 1), rates["loss"], hue)
        accuracies = [rates["accuracy"][str(rate)] for rate in RATES]
        band(right, RATES, 100 * np.array(accuracies).T, hue)
    left.set(yscale="log", xlabel="epoch", ylim=(0.002, 5), title=f"training loss, rate {SHOWN}")
    right.set(xscale="log", xlabel="learning rate", ylim=(0, 104), title="validation accuracy, %")
    right.axvline(SHOWN, color=MUTED, lw=0.8, ls=":", zorder=0)
    for how, place in (("Glorot", (4.1, 2.9)), ("He", (6.1, 0.36)), ("normalized", (5.4, 0.012))):
        left.text(*place, how, color=hues[how])
    return figure


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure()
    save(draw_depth(measured()), "batch_normalization_depth.svg")
    save(draw_averages(measured()), "batch_normalization_averages.svg")
    save(draw_projection(), "batch_normalization_projection.svg")
    save(draw_rates(measured()), "batch_normalization_rates.svg")
