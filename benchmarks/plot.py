"""The results as one picture: python -m benchmarks.plot RESULTS.json PICTURE.png draws one again."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.tables import SHORT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1b2733", "#566573", "#e4e9ee"
HUES = {"minicnn": "#0072b2", "torch": "#d55e00", "torch channels_last": "#009e73"}  # after Okabe and Ito
BARS = ("#0072b2", "#a9d0ea")  # one thread, all threads


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw ratios as bars and growth as curves, as far as they were measured."""
    from matplotlib.figure import Figure

    bars = [row for part in ("train", "predict", "deeper", "shapes") for row in results.get(part, []) if row["ratios"]]
    curves = {axis: line for axis, line in results.get("growth", {}).items() if len(line) > 1}
    height = 1.2 + 0.45 * len({row["title"] for row in bars})
    figure = Figure(figsize=(11, height * bool(bars) + 3.6 * bool(curves) + 0.4), dpi=150, layout="constrained")
    figure.suptitle(f"minicnn beside its peers on {results['machine']['processor']}", color=INK, fontsize=12)
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, 3.6]) if bars and curves else [figure, figure]
    if bars:
        families = list(dict.fromkeys(family for row in bars for family in row["ratios"]))
        panels = parts[0].subplots(1, len(families), sharey=True, squeeze=False)[0]
        for panel, family in zip(panels, families, strict=True):
            _bars(panel, bars, family)
        panels[0].invert_yaxis()  # the first task on top; all panels share the axis
        _legend(parts[0])
    if curves:
        for panel, (axis, line) in zip(
            parts[1].subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
        ):
            _curve(panel, axis, line)
        _legend(parts[1])
    figure.savefig(path)


def _bars(axes: "Axes", rows: list[dict[str, Any]], family: str) -> None:
    """Draw minicnn's time over the time of the family's fastest program, with its quartiles."""
    titles = list(dict.fromkeys(row["title"] for row in rows))
    counts = sorted({row["threads"] for row in rows})
    for place, threads in enumerate(counts):
        own = [row for row in rows if row["threads"] == threads and family in row["ratios"]]
        low, median, high = (np.array([row["ratios"][family][key] for row in own]) for key in ("low", "median", "high"))
        heights = np.array([titles.index(row["title"]) for row in own]) + 0.38 * (place - (len(counts) - 1) / 2)
        label = f"{threads} thread" + (", processor time" if threads == 1 else "s, wall time")
        axes.barh(heights, median, 0.36, color=BARS[place > 0], label=label)
        axes.errorbar(median, heights, xerr=[median - low, high - median], fmt="none", ecolor=INK, elinewidth=1)
        near: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        for x, y, value in zip(high, heights, median, strict=True):
            axes.annotate(f"{value:.2f}", (x, y), color=INK, **near)
    axes.axvline(1, color=INK, lw=1, ls="--")
    axes.set_yticks(range(len(titles)), titles)
    axes.set_xlim(0, 1.12 * max(1, axes.get_xlim()[1]))
    _style(axes, f"Time of minicnn / time of {family} (below 1: minicnn is faster)", "")
    axes.set_title(f"Against {family}" + "'s fastest mode" * (family == "PyTorch"), color=INK, fontsize=10)
    axes.grid(axis="x", color=GRID)


def _curve(axes: "Axes", axis: str, line: list[dict[str, Any]]) -> None:
    """Draw every program's milliseconds along one axis, with quartiles."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    for program in line[0]["programs"]:
        rows = [row for row in line if program in row["programs"]]
        low, median, high = (
            1e3 * np.array([row["programs"][program][k] for row in rows]) for k in ("low", "median", "high")
        )
        style: dict[str, Any] = {"color": HUES.get(program, MUTED), "marker": "o", "ms": 4, "lw": 1.6, "capsize": 2}
        places, name = [row["value"] for row in rows], SHORT.get(program, program)
        axes.errorbar(places, median, [median - low, high - median], label=name, **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([row["value"] for row in line], [f"{row['value']:g}" for row in line])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for scale in (axes.xaxis, axes.yaxis):
        scale.set_minor_locator(NullLocator())
    units = {"batch size": "Images in a batch", "image size": "Height and width, pixels", "filters": "Times Model S's"}
    _style(axes, units.get(axis, axis.capitalize()), "Training step, ms")
    axes.set_title(f"Growth with {axis}", color=INK, fontsize=10)
    axes.grid(color=GRID)


def _legend(part: Any) -> None:
    handles, texts = part.axes[0].get_legend_handles_labels()
    part.legend(handles, texts, loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=INK)


def _style(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x, color=MUTED, fontsize=9)
    axes.set_ylabel(y, color=MUTED, fontsize=9)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
