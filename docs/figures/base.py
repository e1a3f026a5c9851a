"""Figures of the chapter on tensors and shapes: a photograph's bytes in memory, and axes moved rightly and wrongly."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from style import INK, MUTED, save

TOP, LEFT, ROWS, COLS = 210, 300, 2, 3  # the pixels whose bytes are drawn
SQUARE = (slice(35, 395), slice(130, 490))  # rows and columns of the flower: 360 x 360 pixels
TINTS = ("#d55e00", "#009e73", "#0072b2")  # red, green and blue, as they can be told apart


def flower() -> np.ndarray:
    """Return the photograph, (H, W, C) bytes."""
    from sklearn.datasets import load_sample_image

    return load_sample_image("flower.jpg")


def strips() -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of six pixels in the order of memory, with the channels last, and with the channels first."""
    pixels = flower()[TOP : TOP + ROWS, LEFT : LEFT + COLS]  # (H, W, C)
    return pixels.ravel(), pixels.transpose(2, 0, 1).ravel()  # (H*W*C,) and (C*H*W,)


def moved() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a square of the photograph: its planes (C, H, W), and these brought to (H, W, C) rightly and wrongly."""
    planes = np.ascontiguousarray(flower()[SQUARE].transpose(2, 0, 1))  # (C, H, W)
    C, H, W = planes.shape
    return planes, planes.transpose(1, 2, 0), planes.reshape(H, W, C)  # (H, W, C) both


def draw_memory() -> Figure:
    """Draw the photograph, six of its pixels, and their bytes in the two orders."""
    figure = Figure(figsize=(6.4, 3.9))
    photograph, pixels, last, first = layout(figure)
    image = flower()
    photograph.imshow(image)
    photograph.plot(LEFT + 1, TOP + 0.5, "s", ms=9, mfc="none", mec="white", mew=1.6)
    photograph.set_title("the photograph, (427, 640, 3)")
    pixels.imshow(image[TOP : TOP + ROWS, LEFT : LEFT + COLS])
    for h, w in np.ndindex(ROWS, COLS):
        pixels.text(w, h, f"h={h}\nw={w}", ha="center", va="center", color=INK)
    pixels.set_title("six pixels out of it")
    for axes in (photograph, pixels):
        axes.axis("off")
    channels_last, channels_first = strips()
    strip(last, channels_last, [i % 3 for i in range(18)], [f"h={h} w={w}" for h in range(2) for w in range(3)])
    last.set_title("(H, W, C): pixel after pixel, as here; c runs fastest", loc="left")
    strip(first, channels_first, [i // 6 for i in range(18)], ["red plane", "green plane", "blue plane"])
    first.set_title("(C, H, W): plane after plane, as in PyTorch; w runs fastest", loc="left")
    return figure


def layout(figure: Figure) -> list[matplotlib.axes.Axes]:
    """Return the axes: two above, two strips as wide as both below."""
    grid = figure.add_gridspec(3, 2, height_ratios=(2.7, 1, 1), width_ratios=(3, 3))
    return [figure.add_subplot(place) for place in (grid[0, 0], grid[0, 1], grid[1, :], grid[2, :])]


def strip(axes: matplotlib.axes.Axes, numbers: np.ndarray, channels: list[int], groups: list[str]) -> None:
    """Draw bytes side by side, coloured by their channel, and name groups of them below."""
    for i, (number, channel) in enumerate(zip(numbers, channels, strict=True)):
        square = matplotlib.patches.Rectangle((i, 0), 1, 1, facecolor=TINTS[channel], edgecolor="white", lw=1)
        axes.add_patch(square)
        axes.text(i + 0.5, 0.5, str(number), ha="center", va="center", color="white", fontsize=9, weight="bold")
    size = len(numbers) // len(groups)
    for i, group in enumerate(groups):
        axes.plot([i * size + 0.1, (i + 1) * size - 0.1], [1.12, 1.12], color=MUTED, lw=1, solid_capstyle="butt")
        axes.text((i + 0.5) * size, 1.25, group, ha="center", va="top", color=MUTED, fontsize=9.5)
    axes.set(xlim=(-0.05, len(numbers) + 0.05), ylim=(1.95, -0.05))
    axes.axis("off")


def draw_moved() -> Figure:
    """Draw the planes of the photograph, and the images that transposing and reshaping make of them."""
    planes, transposed, reshaped = moved()
    figure = Figure(figsize=(6.4, 2.3))
    titles = ("three planes, (3, 360, 360)", "transposed: right", "reshaped: scrambled")
    stack = figure.subplots(1, 3)
    for axes, title in zip(stack, titles, strict=True):
        axes.set_title(title)
        axes.axis("off")
    for c, tint in reversed(list(enumerate(TINTS))):
        stack[0].imshow(planes[c], cmap="gray", vmin=0, vmax=255, extent=(70 * c, 70 * c + 360, 360 + 70 * c, 70 * c))
        frame = matplotlib.patches.Rectangle((70 * c, 70 * c), 360, 360, fill=False, edgecolor=tint, lw=2)
        stack[0].add_patch(frame)
    stack[0].set(xlim=(-5, 505), ylim=(505, -5))
    stack[1].imshow(transposed)
    stack[2].imshow(reshaped)
    return figure


if __name__ == "__main__":
    save(draw_memory(), "base_memory.png")
    save(draw_moved(), "base_moved.png")
