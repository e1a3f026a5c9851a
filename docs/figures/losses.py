"""Figure of the chapter on softmax and cross-entropy: p, onehot and p - onehot of one image, three times in a run."""

import json
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from style import HUES, INK, MEASURED, MUTED, save

IMAGE = 3003  # of the test images, sorted by class: the fourth cat; wrong after epoch 1, right after epoch 10
LABEL = 3
EPOCHS = (0, 1, 10)


def measured() -> dict[str, Any]:
    """Return what docs/figures/record_run.py wrote."""
    return json.loads((MEASURED / "losses.json").read_text())


def probabilities() -> np.ndarray:
    """Return p of the image, (epochs, K)."""
    run = measured()
    return np.array([run["epochs"][epoch]["cats"][run["images"].index(IMAGE)] for epoch in EPOCHS])


def draw() -> Figure:
    """Draw three rows of bars for each of three epochs."""
    names, onehot = measured()["class_names"], np.eye(10)[LABEL]
    figure = Figure(figsize=(6.4, 4.6))
    grid = figure.subplots(3, 3, sharex=True, sharey="row")
    for column, (epoch, p) in enumerate(zip(EPOCHS, probabilities(), strict=True)):
        when = {0: "before training", 1: "after epoch 1"}.get(epoch, f"after epoch {epoch}")
        for axes, bars in zip(grid[:, column], (p, onehot, p - onehot), strict=True):
            axes.bar(range(10), bars, color=[HUES[1] if k == LABEL else HUES[0] for k in range(10)])
            axes.axhline(0, color=MUTED, lw=0.8)
            axes.grid(axis="x", visible=False)
            axes.set_axisbelow(True)
            axes.set_xticks(range(10), names, rotation=90)
        grid[0, column].set_title(f"{when}\nloss {-np.log(p[LABEL]):.2f}")
    for axes, label in zip(grid[:, 0], ("p", "onehot", "p - onehot"), strict=True):
        axes.set_ylabel(label, color=INK)
    for axes in grid[:2].flat:
        axes.set(ylim=(0, 1.08), yticks=[0, 0.5, 1])
    for axes in grid[2]:
        axes.set(ylim=(-1.08, 0.75), yticks=[-1, -0.5, 0, 0.5])
    figure.align_ylabels(grid[:, 0])
    return figure


if __name__ == "__main__":
    save(draw(), "losses_bars.svg")
