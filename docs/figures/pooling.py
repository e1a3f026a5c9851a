"""Figure of the chapter on max-pooling: the winners in a photograph's feature map, and the gradient that they get."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from style import HUES, MUTED, save

from minicnn import layers

CELL = 12  # pixels of the photograph that are averaged to one of the map
TOP, LEFT, H, W = 110, 180, 12, 24  # where the part begins, in pixels, and its size in cells
EDGES = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # answers where the image grows brighter to the right


def photograph() -> np.ndarray:
    """Return scikit-learn's photograph "flower" in grey, 0 to 1, (427, 640)."""
    from sklearn.datasets import load_sample_image

    return load_sample_image("flower.jpg").mean(axis=2, dtype=np.float32) / 255  # (H, W)


def winners() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the feature map (H, W), which pixels win (H, W), and dx (H, W) of the pooling for a random dy."""
    part = photograph()[
        TOP - CELL : TOP + (H + 1) * CELL, LEFT - CELL : LEFT + (W + 1) * CELL
    ]  # a cell more all around
    small = part.reshape(H + 2, CELL, W + 2, CELL).mean(axis=(1, 3))  # (H + 2, W + 2)
    conv = layers.Conv2D(1, 3, activation="relu").build((H + 2, W + 2, 1))
    conv.params["kernel"][:] = EDGES[:, :, None, None]
    pool = layers.MaxPooling2D(2).build((H, W, 1))
    x = conv.forward(small[None, :, :, None])  # (N, H, W, C)
    y = pool.forward(x)
    won = pool.backward(np.ones_like(y))  # 1 where a window's maximum is taken from
    dx = pool.backward(np.random.default_rng(0).standard_normal(y.shape))
    return x[0, :, :, 0], won[0, :, :, 0] > 0, dx[0, :, :, 0]


def draw() -> Figure:
    """Draw the photograph beside the map with its winners, and dx below that."""
    x, won, dx = winners()
    figure = Figure(figsize=(6.4, 4.3))
    axes = figure.subplot_mosaic([["photo", "x"], ["key", "dx"]], width_ratios=(1, 2.5))
    axes["photo"].imshow(photograph(), cmap="gray")
    axes["photo"].add_patch(Rectangle((LEFT, TOP), W * CELL, H * CELL, fill=False, edgecolor=HUES[1], lw=1.5))
    axes["photo"].set_title("photograph")
    axes["photo"].axis("off")
    axes["photo"].set_anchor("S")
    axes["x"].imshow(x, cmap="gray", vmax=1.0)
    axes["x"].set_title("x: after a convolution and ReLU")
    axes["dx"].imshow(dx, cmap="RdBu_r", vmin=-2, vmax=2)
    axes["dx"].set_title("dx: three of four are zero")
    for name in ("x", "dx"):
        axes[name].grid(False)
        axes[name].set(xticks=[], yticks=[])
        for at in range(0, W + 1, 2):
            axes[name].axvline(at - 0.5, color=MUTED, lw=0.5)
        for at in range(0, H + 1, 2):
            axes[name].axhline(at - 0.5, color=MUTED, lw=0.5)
    for above, style in ((True, {"color": HUES[1]}), (False, {"facecolor": "none", "edgecolor": "#f0c75e"})):
        rows, columns = np.nonzero(won & ((x > 0) == above))
        axes["x"].scatter(columns, rows, s=14, lw=1.1, **style)
    key = axes["key"]
    key.axis("off")
    key.scatter([0.06], [0.95], s=20, color=HUES[1], transform=key.transAxes)
    key.text(0.14, 0.95, "the winner, above 0", va="center", fontsize=10, transform=key.transAxes)
    key.scatter([0.06], [0.76], s=20, facecolor="none", edgecolor="#c79a1e", lw=1.1, transform=key.transAxes)
    key.text(0.14, 0.76, "all four are 0:\nthe first wins", va="center", fontsize=10, transform=key.transAxes)
    return figure


if __name__ == "__main__":
    save(draw(), "pooling_winners.png")
