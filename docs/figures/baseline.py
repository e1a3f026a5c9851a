"""Figures of the chapter on the baseline: the ladder of errors against Keras's numbers, and ten seeds on one line each.

python docs/figures/baseline.py --measure    # runs the recipe of tests/test_golden.py; measured/ladder.json
python docs/figures/baseline.py              # draws; the seeds are those of measured/seeds.json and of docs/baseline.md
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
from callbacks import load_runs
from matplotlib.figure import Figure
from style import HUES, INK, MEASURED, MUTED, save

ROOT = Path(__file__).parents[2]
LADDER = MEASURED / "ladder.json"
NOTEBOOK = 72.29  # per cent: the test accuracy that the notebook reports
RUNGS = {
    "evaluate_before": "loss of the first weights",
    "probabilities_batch0": "probabilities",
    "grad_batch0": "gradients",
    "running_loss_accuracy_12_steps": "loss, 12 steps",
    "weights_after_12_steps": "weights, 12 steps",
    "velocity_after_12_steps": "velocities, 12 steps",
    "epoch_loss_after_lr_cut": "loss after the cut",
    "weights_after_16_steps": "weights, 16 steps",
    "probabilities_last16": "probabilities at the end",
}


def measure() -> dict[str, dict[str, float]]:
    """Return the error of each rung: minicnn against Keras in both types, and Keras's float32 against its float64.

    It is the worst element over the largest, of the array for which that is worst.
    """
    sys.path.append(str(ROOT / "tests"))
    from test_golden import GOLDEN, run

    errors: dict[str, dict[str, float]] = {}
    for series, dtype in (("float64", "float64"), ("float32", "float32"), ("Keras float32", "float32")):
        errors[series] = {}
        for name in GOLDEN.files:
            kind, key = name.split("/")[:2]
            if kind == dtype and key in RUNGS:
                if series == "Keras float32":
                    mine, expected = GOLDEN[name], GOLDEN[name.replace("float32", "float64")]
                else:
                    mine, expected = run(dtype, True)[name.removeprefix(f"{dtype}/")], GOLDEN[name]
                errors[series][key] = max(errors[series].get(key, 0.0), distance(mine, expected))
    return errors


def distance(mine: object, expected: np.ndarray) -> float:
    """Return the largest difference over the largest number; of long arrays each (size // 512)-th element is stored."""
    flat = np.asarray(mine, np.float64).ravel()
    flat = flat[:: flat.size // 512] if flat.size > 1023 else flat
    expected = expected.astype(np.float64).ravel()
    return float(abs(flat - expected).max() / abs(expected).max())


def keras_seeds() -> list[dict[str, float]]:
    """Return what the table of Keras's five runs in docs/baseline.md says, in per cent."""
    text = (ROOT / "docs" / "baseline.md").read_text().split("Keras 2.15 on the same images")[1]
    rows = re.findall(r"^\| \d \|[^|]*\|[^|]*\| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$", text, re.MULTILINE)
    return [dict(zip(("restored", "test", "after"), map(float, row), strict=True)) for row in rows]


def our_seeds() -> list[dict[str, float]]:
    """Return the same of ours, from their histories."""
    return [
        {
            "restored": 100 * run["val_accuracy"][run["restored"]],
            "test": 100 * run["test_accuracy"],
            "after": 100 * run["val_accuracy"][run["cuts"][0]],
        }
        for run in load_runs().values()
    ]


def draw_ladder() -> Figure:
    """Draw the errors of each rung on a logarithmic scale."""
    errors = json.loads(LADDER.read_text())["errors"]
    figure = Figure(figsize=(6.4, 3.9))
    axes = figure.add_subplot()
    places = np.arange(len(RUNGS))
    for series, label, marker, hue in (
        ("float64", "minicnn against Keras, float64", "o", HUES[0]),
        ("float32", "minicnn against Keras, float32", "s", HUES[1]),
        ("Keras float32", "Keras, float32 against float64", "x", MUTED),
    ):
        values = np.maximum([errors[series][key] for key in RUNGS], 1e-17)
        axes.plot(values, places, color=hue, marker=marker, ms=6, lw=1, label=label)
        for value, place in zip(values, places, strict=True):
            if value == 1e-17:
                axes.text(3e-17, place, "no difference", va="center", fontsize=8, color=hue)
    axes.axvline(1e-10, color=HUES[0], lw=1.2, ls=":")
    axes.text(1.4e-10, 2.5, "the tests'\nbound for\nfloat64", color=HUES[0], va="center", fontsize=8.5)
    axes.set_yticks(places, RUNGS.values(), color=INK)
    axes.set(xscale="log", xlim=(4e-18, 1), xlabel="error: the worst element over the largest", ylim=(8.5, -0.5))
    axes.set_xticks(10.0 ** np.arange(-16, 1, 4))
    axes.set_xticks([], minor=True)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8.5)
    return figure


def draw_seeds() -> Figure:
    """Draw validation accuracies at the restored epoch and after the cut, and the test accuracies, of ten runs."""
    figure = Figure(figsize=(6.4, 2.7))
    axes = figure.add_subplot()
    rows = (("after", "validation,\nafter the cut"), ("restored", "validation,\nrestored"), ("test", "test,\nrestored"))
    for seeds, shift, label, marker, hue in (
        (our_seeds(), -0.16, "minicnn, five seeds", "o", HUES[0]),
        (keras_seeds(), 0.16, "Keras, five seeds", "D", HUES[1]),
    ):
        for i, (key, _) in enumerate(rows):
            values = [seed[key] for seed in seeds]
            axes.plot(values, [i + shift] * 5, ls="none", marker=marker, ms=7, color=hue, alpha=0.75, mec="white",
                      label=label if i == 0 else None)  # fmt: skip
    axes.axvline(NOTEBOOK, color=INK, lw=1.2, ls=":")
    axes.text(NOTEBOOK - 0.06, 0.5, "the notebook's 72.29 %", ha="right", va="center", fontsize=8.5)
    axes.set_yticks(range(3), [text for _, text in rows], color=INK)
    axes.set(xlim=(67.5, 72.8), ylim=(2.5, -0.5), xlabel="accuracy, %")
    figure.legend(loc="outside upper center", ncols=2, fontsize=8.5)
    return figure


if __name__ == "__main__":
    if "--measure" in sys.argv:
        lines = [
            ' "command": "python docs/figures/baseline.py --measure"',
            ' "data": "tests/golden/model_s_keras215.npz: 208 random images, seed 2024; 12 steps at 0.01, 4 at 0.001"',
        ]
        series = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in measure().items())
        LADDER.write_text("{\n" + ",\n".join([*lines, ' "errors": {\n' + series + "\n }"]) + "\n}\n")
        print(f"docs/figures/measured/{LADDER.name}")
    save(draw_ladder(), "baseline_ladder.svg")
    save(draw_seeds(), "baseline_seeds.svg")
