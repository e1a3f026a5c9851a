"""Figures of the chapter on dropout: masks on a digit, a unit's sum under them, and what they do to a training.

``python docs/figures/dropout.py --measure`` trains again, for some minutes, and writes measured/dropout.json.
"""

import json
import sys
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from style import HUES, INK, MEASURED, MUTED, record, save

import minicnn
from minicnn import layers
from minicnn.data.digits import load_digits

COMMAND = "python docs/figures/dropout.py --measure"
RECORD = "dropout.json"
DIGIT = 3  # of the digits that train; by chance, a 3
PASSES = 20_000
RATES = (0.0, 0.25, 0.5, 0.75)
SEEDS = range(10)
EPOCHS = 80


def digits() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the digits that train and those that validate, as rows of 64 pixels from 0 to 1 (N, 64), and labels."""
    train, validation, _ = load_digits()
    small = [(images[:, ::4, ::4, 0], labels) for images, labels in (train, validation)]  # (N, 8, 8) each
    return [(images.reshape(-1, 64).astype(np.float32) / 255, labels) for images, labels in small]  # (N, 64) each


# The masks


def passes() -> tuple[np.ndarray, np.ndarray]:
    """Return a digit (64,), and what Dropout(0.5) makes of it in each of `PASSES` passes (PASSES, 64)."""
    x = digits()[0][0][DIGIT]
    layer = layers.Dropout(0.5, seed=0).build((64,))
    return x, layer.forward(np.tile(x, (PASSES, 1)), training=True)  # (PASSES, 64)


def kept() -> np.ndarray:
    """Return which pixels the first passes keep, (PASSES, 64)."""
    layer = layers.Dropout(0.5, seed=0).build((64,))
    return layer.forward(np.ones((PASSES, 64), np.float32), training=True) > 0


def sums(rate: float) -> tuple[float, np.ndarray]:
    """Return a unit's sum for the digit in inference, and in each of `PASSES` passes of training (PASSES,)."""
    x = passes()[0]
    minicnn.utils.set_random_seed(0)
    unit = layers.Dense(1).build((64,))
    layer = layers.Dropout(rate, seed=0).build((64,))
    rows = layer.forward(np.tile(x, (PASSES, 1)), training=True)  # (PASSES, 64)
    return unit.forward(x[None]).item(), unit.forward(rows)[:, 0]


def draw_masks() -> Figure:
    """Draw the digit, four passes, the mean of all, and below them how a unit's sum scatters at three rates."""
    figure = Figure(figsize=(6.4, 3.9))
    names = ["x", *(f"pass {n}" for n in range(1, 5)), "mean of all"]
    axes = figure.subplot_mosaic([names, ["sums"] * 6], height_ratios=(1, 1.9))
    x, rows = passes()
    for name, picture in zip(names, [x, *rows[:4], rows.mean(axis=0)], strict=True):
        axes[name].imshow(picture.reshape(8, 8), cmap="Greys", vmin=0, vmax=2, interpolation="none")
        axes[name].set_title(name, fontsize=9)
        axes[name].set(xticks=[], yticks=[])
        axes[name].grid(False)
        axes[name].spines[:].set_visible(True)
    for name, mask in zip(names[1:5], kept(), strict=False):
        dropped = np.where(mask, np.nan, 1).reshape(8, 8)
        axes[name].imshow(dropped, cmap=ListedColormap(["#f7d9c4"]), interpolation="none")
    draw_sums(axes["sums"])
    return figure


def draw_sums(axes: Axes) -> None:
    """Draw the distribution of a unit's sum at three rates."""
    edges, shares = np.linspace(-3.5, 3.5, 71), np.full(PASSES, 100 / PASSES)
    for rate, hue, place in ((0.2, HUES[0], (0.45, 6)), (0.5, HUES[1], (0.95, 3)), (0.8, HUES[2], (2.05, 1.55))):
        quiet, scattered = sums(rate)
        for style in ({"histtype": "stepfilled", "alpha": 0.12, "color": hue}, {"histtype": "step", "color": hue}):
            axes.hist(scattered, edges, weights=shares, lw=1.6, **style)
        axes.text(*place, f"rate {rate}: sd {scattered.std():.2f}", color=hue)
    axes.axvline(quiet, color=INK, lw=1, ls="--")
    axes.text(quiet - 0.35, 10.2, f"in inference: {quiet:.2f}", ha="right")
    axes.set(xlabel="a unit's sum z", ylabel="% of passes", xlim=(-3.5, 3.5), ylim=(0, 11.5))


# The training


class Judge(minicnn.callbacks.Callback):
    """Adds the loss and the accuracy on the images of the training with all units kept."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        logs["quiet_loss"], logs["quiet_accuracy"] = self.model.evaluate(self.images, self.labels, verbose=0)


def train(rate: float, seed: int, epochs: int = EPOCHS) -> dict[str, list[float]]:
    """Return the history of two dense layers of 256 units on the digits, each with dropout behind it."""
    minicnn.utils.set_random_seed(seed)
    parts = [minicnn.Input((64,))]
    for _ in range(2):
        parts += [layers.Dense(256, activation="relu"), layers.Dropout(rate)]
    model = minicnn.Sequential([*parts, layers.Dense(10, activation="softmax")])
    model.compile(minicnn.optimizers.SGD(0.02, momentum=0.9), metrics=["accuracy"])
    (images, labels), validation = digits()
    judge = Judge(images, labels)
    options = {"batch_size": 64, "epochs": epochs, "verbose": 0, "callbacks": [judge]}
    return model.fit(images, labels, validation_data=validation, **options).history


def measure() -> None:
    """Write what the figure of the training draws."""
    runs = {rate: [train(rate, seed) for seed in SEEDS] for rate in RATES}
    series = ("loss", "quiet_loss", "val_loss")
    content = {
        "command": COMMAND,
        "data": "scikit-learn's digits as minicnn.data.digits splits them",
        "seeds": list(SEEDS),
        "quartiles": "of the seeds, after each epoch",
        "rates": {rate: {key: quartiles([run[key] for run in runs[rate]]) for key in series} for rate in RATES},
        "val_accuracy": {rate: [round(run["val_accuracy"][-1], 4) for run in runs[rate]] for rate in RATES},
        "quiet_accuracy": {rate: [round(run["quiet_accuracy"][-1], 4) for run in runs[rate]] for rate in RATES},
    }
    record(RECORD, content)


def quartiles(rows: list[list[float]]) -> list[list[float]]:
    """Return the lower quartile, the median and the upper quartile of rows, to four digits."""
    return [[float(f"{value:.4g}") for value in values] for values in np.percentile(rows, [25, 50, 75], axis=0)]


def measured() -> dict[str, Any]:
    """Return what `measure` wrote."""
    return json.loads((MEASURED / RECORD).read_text())


def draw_training(found: dict[str, Any]) -> Figure:
    """Draw the losses of the training and of the validation at four rates."""
    figure = Figure(figsize=(6.4, 3.2))
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, EPOCHS + 1)
    for rate, hue in zip(RATES, (HUES[3], HUES[0], HUES[2], HUES[1]), strict=True):
        for axes, key, dashes in ((left, "loss", ":"), (left, "quiet_loss", "-"), (right, "val_loss", "-")):
            low, middle, high = found["rates"][str(rate)][key]
            axes.plot(epochs, middle, color=hue, lw=1.6, ls=dashes, label=f"rate {rate:g}" if axes is right else None)
            if dashes == "-":
                axes.fill_between(epochs, low, high, color=hue, alpha=0.18, lw=0)
    left.text(80, 1.6, "dotted: with masks\nsolid: all units kept", color=MUTED, ha="right", va="center")
    left.set(title="loss on the training images", yscale="log", xlabel="epoch")
    right.set(title="loss on the validation images", xlabel="epoch")
    right.set(ylim=(0.08, 0.3), yticks=(0.1, 0.15, 0.2, 0.25, 0.3))
    right.legend()
    return figure


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure()
    save(draw_masks(), "dropout_masks.svg")
    save(draw_training(measured()), "dropout_training.svg")
