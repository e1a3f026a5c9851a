"""Figures of the chapter on the dense layer: dw as a sum of one tile an image, in numbers and in pictures."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from style import HUES, INK, MUTED, cells, save

X = np.array([[1, 2, 0, -1], [0, 1, 3, 1], [2, 0, 1, 0]])  # (N, In)
DIGITS = (3, 8, 1)  # the classes of a classifier of three
DY = np.array([[1, 0, -1], [0, 2, 1], [-1, 1, 0]])  # (N, Out)
SIGNED = matplotlib.colors.LinearSegmentedColormap.from_list(
    "signed", ["#3d8fc4", "white", "#ef8636"]
)  # blue is below 0


def tiles() -> tuple[np.ndarray, np.ndarray]:
    """Return what each of three images contributes to dw, (N, In, Out), and dw, (In, Out)."""
    return X[:, :, None] * DY[:, None, :], X.T @ DY  # (N, In, Out), (In, Out)


def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three digits (N, 8, 8), dz (N,) of the unit for "3" before training, and its column of dw (8, 8)."""
    import minicnn
    from minicnn import layers, losses

    x, labels = digits()
    minicnn.utils.set_random_seed(0)
    layer = layers.Dense(len(DIGITS)).build((64,))
    z = layer.forward(x.reshape(len(x), 64))  # (N, K)
    _, dz = losses.SparseCategoricalCrossentropy(from_logits=True).value_and_gradient(z, labels)
    layer.backward(dz)
    return x, dz[:, 0], layer.grads["kernel"][:, 0].reshape(8, 8)  # (N, 8, 8), (N,), (8, 8)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's first image of each of `DIGITS`, (N, 8, 8) from 0 to 1, and their labels 0, 1, 2."""
    from sklearn.datasets import load_digits

    data = load_digits()
    first = [int(np.flatnonzero(data.target == label)[0]) for label in DIGITS]
    return (data.images[first] / 16).astype(np.float32), np.arange(len(DIGITS))


def draw_tiles() -> Figure:
    """Draw three outer products, x[n] at the left and dy[n] above each, and their sum."""
    figure = Figure(figsize=(6.4, 2.15))
    parts, total = tiles()
    panels = figure.subplots(1, 4)
    for n, axes in enumerate(panels[:3]):
        table(axes, parts[n])
        margin(axes, X[n], DY[n], HUES[n])
        axes.set_title(f"image {n}", color=HUES[n])
        axes.text(3.55, 2, "+" if n < 2 else "=", fontsize=14, ha="center", va="center", color=INK)
    table(panels[3], total)
    margin(panels[3], [""] * 4, [""] * 3, MUTED)
    panels[3].set_title("dw, (In, Out)")
    return figure


def table(axes: matplotlib.axes.Axes, numbers: np.ndarray) -> None:
    """Draw numbers as squares: blue below zero, orange above."""
    cells(axes, numbers, [[shade(number) for number in row] for row in numbers])


def shade(number: float) -> str:
    """Return a colour for a number from -7 to 7."""
    return matplotlib.colors.to_hex(SIGNED(0.5 + 0.5 * np.sign(number) * (abs(number) / 7) ** 0.5))


def margin(axes: matplotlib.axes.Axes, column: object, row: object, colour: str) -> None:
    """Write x at the left of a table and dy above it."""
    for i, number in enumerate(column):
        axes.text(-0.4, i + 0.52, str(number), ha="center", va="center", color=colour, weight="bold")
    for j, number in enumerate(row):
        axes.text(j + 0.5, -0.4, str(number), ha="center", va="center", color=colour, weight="bold")
    axes.set(xlim=(-0.8, 3.8), ylim=(4.1, -0.8))


def draw_pictures() -> Figure:
    """Draw three digits, the dz that multiplies each, and the sum."""
    x, weights, dw = pictures()
    figure = Figure(figsize=(6.4, 1.8))
    panels = figure.subplots(1, 4)
    for n, axes in enumerate(panels[:3]):
        axes.imshow(x[n], cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(f"dz = {weights[n]:+.3f}")
        axes.text(8.1, 3.5, "+" if n < 2 else "=", fontsize=14, ha="center", va="center", color=INK)
    limit = abs(dw).max()
    panels[3].imshow(dw, cmap=SIGNED, vmin=-limit, vmax=limit)
    panels[3].set_title('dw of the unit for "3"')
    for axes in panels:
        axes.set(xticks=[], yticks=[], xlim=(-0.5, 8.7))
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(False)
    return figure


if __name__ == "__main__":
    save(draw_tiles(), "dense_tiles.svg")
    save(draw_pictures(), "dense_pictures.svg")
