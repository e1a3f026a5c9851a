"""Figures of the chapter on augmentation: what training sees of a photograph, and how often it sees each pixel."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from style import HUES, INK, cells, save

from minicnn import layers

DRAWS = 4  # pictures of each layer
ROWS = {
    'RandomFlip("horizontal_and_vertical")': layers.RandomFlip("horizontal_and_vertical", seed=24),
    "RandomTranslation(0.25, 0.25)": layers.RandomTranslation(0.25, 0.25, seed=2),
    "RandomCrop(130, 130)": layers.RandomCrop(130, 130, seed=2),
    "RandomCutout(0.4, 0.4, fill_value=128)": layers.RandomCutout(0.4, 0.4, fill_value=128, seed=2),
}


def photograph() -> np.ndarray:
    """Return a square of scikit-learn's photograph "china", averaged to (200, 200, 3) bytes."""
    from sklearn.datasets import load_sample_image

    part = load_sample_image("china.jpg")[10:410, 20:420]  # (400, 400, 3)
    return part.reshape(200, 2, 200, 2, 3).mean(axis=(1, 3)).astype(np.uint8)  # (H, W, C)


def pictures() -> dict[str, np.ndarray]:
    """Return what each layer shows of a batch of equal photographs, (N, OH, OW, C), by its title."""
    batch = np.stack([photograph()] * DRAWS)  # (N, H, W, C)
    return {title: layer.build(batch.shape[1:]).forward(batch, training=True) for title, layer in ROWS.items()}


def draw_pictures() -> Figure:
    """Draw a row of pictures for each layer; at the left the photograph, and where the crops were cut out of it."""
    figure = Figure(figsize=(6.4, 5.3))
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2.15))
    seen = pictures()
    above, below = left.subplots(2, 1)
    for axes, title in ((above, "the photograph"), (below, "the four crops")):
        axes.imshow(photograph())
        axes.set_title(title, loc="left", color=INK)
        axes.axis("off")
        axes.set_anchor("N")
    for rows, cols, hue in zip(*ROWS["RandomCrop(130, 130)"].moved, HUES[:DRAWS], strict=True):
        below.add_patch(Rectangle((cols[0] - 0.5, rows[0] - 0.5), 130, 130, fill=False, edgecolor=hue, lw=2))
    for row, (title, images) in zip(right.subfigures(len(ROWS), 1, hspace=0.04), seen.items(), strict=True):
        row.suptitle(title, x=0.01, ha="left", fontsize=10)
        for axes, image, hue in zip(row.subplots(1, DRAWS), images, HUES[:DRAWS], strict=True):
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set(visible=title.startswith("RandomCrop"), edgecolor=hue, linewidth=2)
    return figure


def counts() -> dict[str, np.ndarray]:
    """Return how often each pixel of a 5x5 image is seen, by what was done to it: dx for dy = 1."""
    modes = ("reflect", "nearest", "constant")
    done: dict[str, layers.Layer] = {mode: layers.RandomTranslation((0.2, 0.2), (-0.4, -0.4), mode) for mode in modes}
    done |= {"crop": layers.RandomCrop(3, 3, seed=3), "cutout": layers.RandomCutout(0.6, 0.4, seed=0)}
    found = {}
    for title, layer in done.items():
        y = layer.build((5, 5, 1)).forward(np.ones((1, 5, 5, 1), np.float32), training=True)
        found[title] = layer.backward(np.ones_like(y))[0, :, :, 0].astype(int)  # (H, W)
    return found


def draw_counts() -> Figure:
    """Draw the five tables of counts; pixels that are seen more often are darker."""
    figure = Figure(figsize=(6.4, 1.6))
    for axes, (title, table) in zip(figure.subplots(1, 5), counts().items(), strict=True):
        cells(
            axes, table, [[f"#{255 - 26 * n:02x}{255 - 12 * n:02x}ff" if n else "white" for n in row] for row in table]
        )
        axes.set_title(title)
    return figure


if __name__ == "__main__":
    save(draw_pictures(), "augmentation_pictures.png")
    save(draw_counts(), "augmentation_counts.svg")
