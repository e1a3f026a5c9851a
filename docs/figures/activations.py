"""Figures of the chapter on ReLU: which share of its outputs is zero in a real run, and the curves of its relatives."""

import json

import numpy as np
from matplotlib.figure import Figure
from style import HUES, INK, MEASURED, MUTED, save

from minicnn import layers

NAMES = {"conv2d": "first convolution", "conv2d_1": "second", "conv2d_2": "third", "dense": "dense"}


def zeros() -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return each layer's share of zeros, by epoch from 0 and, for other seeds, at the start alone."""
    measured = json.loads((MEASURED / "activations.json").read_text())
    return tuple(
        {layer: [row[layer]["zeros"] for row in measured[key]] for layer in NAMES}
        for key in ("epochs", "starts_of_other_seeds")
    )


def draw_zeros() -> Figure:
    """Draw a line for each layer, and rings for the starts of other seeds."""
    run, starts = zeros()
    figure = Figure(figsize=(6.4, 3.1))
    axes = figure.subplots()
    for i, (layer, name) in enumerate(NAMES.items()):
        shares, others = 100 * np.array(run[layer]), 100 * np.array(starts[layer])
        axes.plot(shares, marker="o", ms=3.5, color=HUES[i])
        axes.plot(np.full(len(others), 0.22 * i - 1.15), others, "o", ms=3.5, mfc="none", color=HUES[i])
        aside = {"second": 1.2, "dense": -1.2}.get(name, 0)  # two labels that would touch
        axes.text(len(shares) - 0.7, shares[-1] + aside, name, color=HUES[i], va="center")
    axes.axvline(10.5, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    axes.text(10.4, 33, "learning rate / 10", ha="right", color=MUTED, fontsize=8)
    axes.text(-1.35, 28.5, "rings: starts of five other seeds", color=INK, fontsize=8)
    axes.set(xlim=(-1.5, 16.4), ylim=(26, 90), xticks=range(0, 14), xlabel="epochs of training done")
    axes.set_ylabel("zeros, %")
    return figure


def curves() -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return x (N,), and for each layer y and its slope, both (N,)."""
    x, found = np.linspace(-4, 4, 801), {}
    for layer in (layers.ReLU(), layers.LeakyReLU(), layers.GELU()):
        layer.build((len(x),))
        layer.dtype = "float64"
        y = layer.forward(x[None])
        found[type(layer).__name__] = y[0], layer.backward(np.ones_like(y))[0]
    return x, found


def draw_curves() -> Figure:
    """Draw the three functions, and beside them their slopes."""
    x, found = curves()
    figure = Figure(figsize=(6.4, 2.7))
    for axes, title, which in zip(figure.subplots(1, 2), ("y", "slope"), (0, 1), strict=True):
        for hue, style, (name, values) in zip(HUES, ("-", "--", "-"), found.items(), strict=False):
            axes.plot(x, values[which], style, color=hue, label=name)
        axes.set(title=title, xlabel="x", xlim=(-4, 4))
    figure.axes[0].set_ylim(-1.3, 3)
    figure.axes[0].legend(loc="upper left")
    return figure


if __name__ == "__main__":
    save(draw_zeros(), "activations_zeros.svg")
    save(draw_curves(), "activations_curves.svg")
