"""What the figures of the docs share: colours that can be told apart without colour vision, sizes, and how to save."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b2733", "#566573", "#e4e9ee"
HUES = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00")  # after Okabe and Ito
IMAGES = Path(__file__).parents[1] / "images"
MEASURED = Path(__file__).parent / "measured"  # what long runs measured, as JSON

matplotlib.use("Agg")
matplotlib.rcParams.update(
    {
        "axes.edgecolor": MUTED,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.prop_cycle": matplotlib.cycler(color=HUES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.constrained_layout.use": True,
        "font.size": 9,
        "grid.color": GRID,
        "legend.frameon": False,
        "svg.hashsalt": "minicnn",  # the same figure is the same file
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
    }
)


def save(figure: Figure, name: str) -> None:
    """Write docs/images/`name`, an .svg, or a .png where a photograph is in it."""
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / name, dpi=130, metadata={"Date": None} if name.endswith(".svg") else None)
    print(f"docs/images/{name}")


def record(name: str, content: dict[str, Any]) -> None:
    """Write docs/figures/measured/`name`, JSON in which a list of numbers is one line."""
    text = re.sub(r"\[[^][{}]*\]", lambda numbers: " ".join(numbers[0].split()), json.dumps(content, indent=1))
    MEASURED.mkdir(exist_ok=True)
    (MEASURED / name).write_text(text + "\n")
    print(f"docs/figures/measured/{name}")


def cells(axes: Axes, numbers: Iterable[Iterable[object]], colours: Iterable[Iterable[str]] | None = None) -> None:
    """Draw a table of numbers as squares, row by row, in the given colours."""
    rows = [list(row) for row in numbers]
    shades = [list(row) for row in colours] if colours is not None else [["white"] * len(row) for row in rows]
    for i, (row, shade) in enumerate(zip(rows, shades, strict=True)):
        for j, (number, colour) in enumerate(zip(row, shade, strict=True)):
            axes.add_patch(matplotlib.patches.Rectangle((j, i), 1, 1, facecolor=colour, edgecolor=MUTED, lw=0.6))
            axes.text(j + 0.5, i + 0.52, str(number), ha="center", va="center", fontsize=9)
    axes.set(xlim=(-0.05, len(rows[0]) + 0.05), ylim=(len(rows) + 0.05, -0.05), aspect="equal")
    axes.axis("off")
