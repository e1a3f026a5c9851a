"""Figures of the chapter on callbacks: five runs of the baseline around the first cut of the rate, and rates by plan.

python benchmarks/seeds.py --data PATH --output runs    # trains: some ten minutes
python docs/figures/callbacks.py --runs runs            # condenses what it wrote into measured/seeds.json
python docs/figures/callbacks.py                        # draws
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from style import HUES, INK, MEASURED, MUTED, save

from minicnn.schedules import CosineDecay, OneCycle, Schedule, StepDecay, WarmUp

SEEDS = MEASURED / "seeds.json"
EPOCHS, STEPS = 30, 100  # of the plans, and of an epoch
PLANS: dict[str, Schedule] = {
    "StepDecay(0.1, 10)": StepDecay(0.1, 10),
    "CosineDecay(0.1)": CosineDecay(0.1),
    "OneCycle(0.1)": OneCycle(0.1),
    "WarmUp(CosineDecay(0.1), 500)": WarmUp(CosineDecay(0.1), 500),
}


def condense(folder: Path) -> None:
    """Write the histories and the test accuracies of five runs into measured/seeds.json, a line for each list."""
    runs = {}
    for path in sorted(folder.glob("*/history.csv"), key=lambda path: int(path.parent.name)):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        names = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
        run: dict[str, Any] = {name: [float(row[name]) for row in rows] for name in names}
        run["test_accuracy"] = json.loads((path.parent / "metrics.json").read_text())["test"]["accuracy"]
        runs[path.parent.name] = run
    head = {
        "command": "python benchmarks/seeds.py --data PATH --output runs; python docs/figures/callbacks.py --runs runs",
        "data": "CIFAR-10 as PNG folders: 40,000 images to train, 10,000 to validate, 10,000 to test",
        "seeds": [int(seed) for seed in runs],
        "keys": "learning_rate is the one that the epoch ran at; test_accuracy is the restored model's",
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    bodies = []
    for seed, run in runs.items():
        body = ",\n".join(f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in run.items())
        bodies.append(f'  "{seed}": {{\n{body}\n  }}')
    MEASURED.mkdir(exist_ok=True)
    SEEDS.write_text("{\n" + ",\n".join([*lines, ' "runs": {\n' + ",\n".join(bodies) + "\n }"]) + "\n}\n")
    print(f"docs/figures/measured/{SEEDS.name}")


def load_runs() -> dict[str, dict[str, Any]]:
    """Return the five runs by seed, with the epochs, from 0, of the restored weights and of the first lower rates."""
    runs = json.loads(SEEDS.read_text())["runs"]
    for run in runs.values():
        run["restored"] = int(np.argmin(run["val_loss"]))
        run["cuts"] = [int(cut) for cut in np.flatnonzero(np.diff(run["learning_rate"]) < 0) + 1]
    return runs


def draw_replay() -> Figure:
    """Draw validation loss above validation accuracy of five runs, laid on each other at their first cut."""
    figure = Figure(figsize=(6.4, 5.4))
    axes = figure.subplots(2, 1, sharex=True)
    for (seed, run), hue in zip(load_runs().items(), HUES, strict=True):
        epochs = np.arange(len(run["val_loss"])) - run["cuts"][0] + 1  # 1 is the first at the lower rate
        for panel, key, scale in zip(axes, ("val_loss", "val_accuracy"), (1, 100), strict=True):
            values = scale * np.array(run[key])
            panel.plot(epochs, values, color=hue, lw=1.6, marker="o", ms=2.5, label=f"seed {seed}")
            at = run["restored"]
            size = 15 if seed == "1" else 11  # above, the rings of seeds 1 and 2 share a place
            panel.plot(epochs[at], values[at], marker="o", ms=size, mfc="none", mec=hue, mew=2, zorder=4)
    for panel in axes:
        panel.axvline(0.5, color=MUTED, lw=1.2, ls=":")
    axes[0].set(ylabel="validation loss", ylim=(0.875, 1.115))
    axes[1].set(ylabel="validation accuracy, %", ylim=(64.5, 73), xlabel="epochs after the first cut")
    axes[1].set(xlim=(-5.6, 7.4), xticks=range(-5, 8))
    axes[0].text(0.6, 1.105, "rate cut to a tenth", color=MUTED, va="top")
    axes[1].text(0.7, 65, "after the cut all reach 71 to 72 %", color=INK)
    axes[1].plot([], [], ls="none", marker="o", ms=9, mfc="none", mec=INK, mew=1.6, label="restored")
    axes[1].legend(loc="upper left", ncols=2, fontsize=8.5, handlelength=1.4, columnspacing=1)
    return figure


def draw_plans() -> Figure:
    """Draw the learning rate of each plan over the steps of a training."""
    figure = Figure(figsize=(6.4, 2.9))
    axes = figure.add_subplot()
    total = EPOCHS * STEPS
    steps = [*range(0, total, 20), total - 1]
    for (name, plan), hue, dashes in zip(PLANS.items(), HUES, ("-", "-", "-", "--"), strict=False):
        rates = [plan.rate(step, total, STEPS) for step in steps]
        style = "steps-post" if isinstance(plan, StepDecay) else "default"
        axes.plot(np.array(steps) / STEPS, rates, color=hue, ls=dashes, lw=2, label=name, drawstyle=style)
    axes.set(xlim=(0, EPOCHS), ylim=(-0.002, 0.106), xlabel="epochs", ylabel="learning rate")
    axes.legend(loc="upper right", fontsize=8.5)
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw five runs of the baseline around the first cut.")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="what benchmarks/seeds.py wrote, to be condensed")
    if (runs := parser.parse_args().runs) is not None:
        condense(runs)
    save(draw_replay(), "callbacks_replay.svg")
    save(draw_plans(), "callbacks_plans.svg")
