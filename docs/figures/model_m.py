"""Figure of the page on Model M: validation accuracy by epoch and test accuracy of six runs.

python examples/model_m_rmsprop.py --data PATH --epochs 15 --seed 1 --output runs/1             # seeds 1 to 3,
python examples/model_m_rmsprop.py --data PATH --epochs 15 --seed 1 --augment --output runs/1-augment  # and with it
python docs/figures/model_m.py --collect runs     # measured/model_m.json
python docs/figures/model_m.py                    # draws, and prints the page's table
"""

import csv
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure
from style import HUES, INK, MEASURED, MUTED, save

RECORD = MEASURED / "model_m.json"
WAYS = {"": "without augmentation", "-augment": "with augmentation"}
COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy")


def collect(folder: Path) -> dict[str, dict[str, dict]]:
    """Return the histories and the test accuracy of all runs in a folder, by way and seed."""
    runs: dict[str, dict[str, dict]] = {way: {} for way in WAYS.values()}
    for ending, way in WAYS.items():
        for path in sorted(folder.glob(f"[0-9]{ending}/metrics.json")):
            with open(path.parent / "history.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            run = {name: [round(float(row[name]), 6) for row in rows] for name in COLUMNS}
            run["test_accuracy"] = json.loads(path.read_text())["test"]["accuracy"]
            runs[way][path.parent.name[0]] = run
    return runs


def table(runs: dict[str, dict[str, dict]]) -> str:
    """Return the page's table, a row a run and one for the mean of each way."""
    lines = ["| | seed | training accuracy | val accuracy | val loss | test accuracy |", "|---|---|---|---|---|---|"]
    for way, seeds in runs.items():
        for seed, run in seeds.items():
            cells = [f"{100 * run[name][-1]:.2f} %" for name in ("accuracy", "val_accuracy")]
            cells += [f"{run['val_loss'][-1]:.4f}", f"{100 * run['test_accuracy']:.2f} %"]
            lines.append(f"| {way} | {seed} | " + " | ".join(cells) + " |")
        mean = sum(run["test_accuracy"] for run in seeds.values()) / len(seeds)
        lines.append(f"| **{way}** | mean | | | | **{100 * mean:.2f} %** |")
    return "\n".join(lines)


def draw(runs: dict[str, dict[str, dict]]) -> None:
    """Draw training and validation accuracy by epoch, a panel a way."""
    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (way, seeds), hue in zip(axes, runs.items(), HUES, strict=False):
        for run in seeds.values():
            epochs = range(1, len(run["accuracy"]) + 1)
            ax.plot(epochs, [100 * value for value in run["accuracy"]], color=MUTED, lw=1.2)
            ax.plot(epochs, [100 * value for value in run["val_accuracy"]], color=hue, lw=1.8)
            ax.plot(epochs[-1] + 0.7, 100 * run["test_accuracy"], "o", color=hue, ms=5, mec=INK, mew=0.6, clip_on=False)
        mean = 100 * sum(run["test_accuracy"] for run in seeds.values()) / len(seeds)
        ax.set_title(f"{way}: test {mean:.1f} %", loc="left")
        ax.set_xlabel("epoch")
        ax.text(epochs[-1] * 0.97, 44, "validation", color=hue, ha="right")
        ax.text(epochs[-1] * 0.97, 40, "training", color=MUTED, ha="right")
        ax.set_xlim(0.6, epochs[-1] + 1)
    axes[0].set_ylabel("accuracy, %")
    axes[0].set_ylim(36, 100)
    save(figure, "model_m_runs.svg")


if __name__ == "__main__":
    if "--collect" in sys.argv:
        RECORD.write_text(json.dumps(collect(Path(sys.argv[-1])), indent=1) + "\n")
    recorded = json.loads(RECORD.read_text())
    draw(recorded)
    print(table(recorded))
