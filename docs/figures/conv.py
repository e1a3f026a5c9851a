"""Figures of the chapter on convolution: im2col on a 4x4 image, how often a pixel is used, a photograph's edges."""

import numpy as np
from matplotlib.figure import Figure
from style import HUES, INK, MUTED, cells, save

from minicnn.kernels import reference

TINTS = ("#cfe6f5", "#fbdcc8", "#c9ebdf", "#edd5e6")  # of the four windows
PIXEL = 5  # the pixel whose copies are marked: it lies in all four windows


def windows() -> tuple[np.ndarray, np.ndarray]:
    """Return the image 0..15, (4, 4), and what im2col makes of it for a 3x3 kernel, (4, 9)."""
    image = np.arange(16).reshape(4, 4)  # (H, W)
    cols = reference.im2col(image[None, :, :, None], (3, 3), (1, 1), ((0, 0), (0, 0)))  # (OH*OW, KH*KW)
    return image, cols


def counts(stride: int, pads: int) -> np.ndarray:
    """Return in how many windows of a 3x3 kernel each pixel of a 5x5 image lies: col2im of im2col of ones."""
    geometry = (3, 3), (stride, stride), ((pads, pads), (pads, pads))
    ones = np.ones((1, 5, 5, 1))
    return reference.col2im(reference.im2col(ones, *geometry), ones.shape, *geometry)[0, :, :, 0].astype(int)  # (H, W)


def draw_im2col() -> Figure:
    """Draw the image, one window outlined, beside the rows that im2col makes of its four windows."""
    image, cols = windows()
    figure = Figure(figsize=(6.4, 2.5))
    left, right = figure.subplots(1, 2, width_ratios=(4, 9))
    marked = [["#ffe27a" if number == PIXEL else "white" for number in row] for row in image]
    cells(left, image, marked)
    left.add_patch(outline(0, 0, 3, 3, HUES[0]))
    left.set_title("x, 4x4, first window")
    tinted = [["#ffe27a" if number == PIXEL else TINTS[i] for number in row] for i, row in enumerate(cols)]
    cells(right, cols, tinted)
    right.add_patch(outline(0, 0, 9, 1, HUES[0]))
    right.set_title("cols, 4x9: a row a window, pixel 5 copied four times")
    for i, place in enumerate(("0,0", "0,1", "1,0", "1,1")):
        right.text(-0.15, i + 0.55, f"y[{place}]", ha="right", va="center", fontsize=8, color=MUTED)
    return figure


def draw_counts() -> Figure:
    """Draw the number of windows that each pixel lies in, for three geometries."""
    figure = Figure(figsize=(6.4, 2.5))
    cases = (("same, stride 1", 1, 1), ("valid, stride 1", 1, 0), ("valid, stride 2", 2, 0))
    for axes, (title, stride, pads) in zip(figure.subplots(1, 3), cases, strict=True):
        table = counts(stride, pads)
        cells(axes, table, [[f"#{255 - 18 * n:02x}{255 - 8 * n:02x}ff" for n in row] for row in table])
        axes.set_title(title)
    return figure


def draw_photograph() -> Figure:
    """Draw a photograph and its convolution with two 3x3 kernels that answer to edges."""
    from sklearn.datasets import load_sample_image

    from minicnn import kernels

    grey = load_sample_image("china.jpg").mean(axis=2, dtype=np.float32) / 255  # (H, W)
    w = np.zeros((3, 3, 1, 2), np.float32)
    w[:, :, 0, 0] = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]  # (KH, KW): brighter to the right
    w[:, :, 0, 1] = w[:, :, 0, 0].T  # (KH, KW): brighter below
    x = np.ascontiguousarray(grey[None, :, :, None])  # (N, H, W, C)
    y = kernels.room(x).conv2d(x, w, np.zeros(2, np.float32), (1, 1), ((1, 1), (1, 1)))  # (N, H, W, F)
    figure = Figure(figsize=(6.4, 1.75))
    titles = ("x, a grey photograph", "f = 0: left to right", "f = 1: top to bottom")
    for axes, plane, title in zip(figure.subplots(1, 3), (grey, y[0, :, :, 0], y[0, :, :, 1]), titles, strict=True):
        limits = {"vmin": 0, "vmax": 1} if plane is grey else {"vmin": -1.5, "vmax": 1.5}
        axes.imshow(plane, cmap="gray", **limits)
        axes.set_title(title, color=INK, fontsize=9)
        axes.axis("off")
    return figure


def outline(left: float, top: float, width: float, height: float, colour: str) -> object:
    """Return a frame around some squares."""
    from matplotlib.patches import Rectangle

    return Rectangle((left, top), width, height, fill=False, edgecolor=colour, lw=2.2)


if __name__ == "__main__":
    save(draw_im2col(), "conv_im2col.svg")
    save(draw_counts(), "conv_counts.svg")
    save(draw_photograph(), "conv_photograph.png")
