"""Figures of the chapter on evaluation: what the baseline of seed 1 predicts for the 10,000 test images.

python examples/baseline_sgd.py --data PATH --seed 1 --output run                            # trains: two minutes
python docs/figures/evaluation.py --model run/best_model.safetensors --data PATH/test        # measured/evaluation.json
python docs/figures/evaluation.py                                                            # draws
"""

import argparse
import json
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from style import HUES, INK, MEASURED, MUTED, save

MEASUREMENTS = MEASURED / "evaluation.json"
SHADES = LinearSegmentedColormap.from_list("share", ("#f6f9fc", "#a9d0ea", "#3f8fc4", "#084c7f"))
BINS = 10  # of the reliability curve, equally wide
SHOWN = ("ship", "bird", "cat")  # the ROC curves that are drawn: the best area and the two worst


def condense(model_path: str, data: str) -> None:
    """Predict the test images and write what the figures need into measured/evaluation.json."""
    from minicnn import evaluation, models, utils

    test = utils.image_dataset_from_directory(data, image_size=(32, 32), batch_size=64, shuffle=False, verbose=False)
    labels = np.concatenate([labels for _, labels in test])  # (N,)
    p = models.load_model(model_path).predict(test).astype(float)  # (N, K)
    names = [evaluation.display_name(name) for name in test.class_names]
    sure, right = p.max(axis=1), p.argmax(axis=1) == labels  # (N,), (N,)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)  # (N,)
    losses = -np.log(p[np.arange(len(labels)), labels])  # (N,)
    rows = evaluation.class_metrics(labels, p)
    numbers = {
        "command": "python examples/baseline_sgd.py --data PATH --seed 1 --output run; "
        "python docs/figures/evaluation.py --model run/best_model.safetensors --data PATH/test",
        "data": "the 10,000 CIFAR-10 images of the folder test; the model that early stopping restored, of epoch 7",
        "seed": 1,
        "test": evaluation.test_metrics(labels, p),
        "loss": float(losses.mean()),
        "loss_of_right": float(losses[right].mean()),
        "loss_of_wrong": float(losses[~right].mean()),
        "mistakes": int((~right).sum()),
        "mistakes_above_90_per_cent": int((~right & (sure > 0.9)).sum()),
        "confusion_matrix": evaluation.confusion_matrix(labels, p).tolist(),
        "classes": {name: {key: row[key] for key in row} for name, row in zip(names, rows, strict=True)},
        "roc": {
            name: [np.round(rate, 4).tolist() for rate in thinned(curve)]
            for name, curve in zip(names, evaluation.roc_curves(labels, p), strict=True)
        },
        "bins": [
            {
                "images": int((bins == k).sum()),
                "confidence": float(sure[bins == k].mean()) if (bins == k).any() else None,
                "accuracy": float(right[bins == k].mean()) if (bins == k).any() else None,
            }
            for k in range(BINS)
        ],
    }
    MEASURED.mkdir(exist_ok=True)
    MEASUREMENTS.write_text(
        "{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in numbers.items()) + "\n}\n"
    )
    print(f"docs/figures/measured/{MEASUREMENTS.name}")


def thinned(curve: Any, points: int = 60) -> list[np.ndarray]:
    """Return false and true positive rates at equal distances along the curve, ends included."""
    x, y = curve.false_positive_rate, curve.true_positive_rate
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])  # (points,)
    at = np.linspace(0, length[-1], points)
    return [np.interp(at, length, x), np.interp(at, length, y)]


def calibration_error(bins: list[dict[str, Any]]) -> float:
    """Return the mean distance of confidence and accuracy, each bin weighted by its images."""
    images = sum(row["images"] for row in bins)
    return sum(row["images"] / images * abs(row["confidence"] - row["accuracy"]) for row in bins if row["images"])


def draw_confusion(numbers: dict[str, Any]) -> Figure:
    """Draw the confusion matrix, and beside it recall and precision of each class."""
    counts, names = np.array(numbers["confusion_matrix"]), list(numbers["classes"])  # (K, K)
    figure = Figure(figsize=(6.4, 4.3))
    left, right = figure.subplots(1, 2, width_ratios=(3.1, 1), sharey=True)
    left.imshow(counts / counts.sum(axis=1, keepdims=True), cmap=SHADES, norm=PowerNorm(0.6, 0, 1), aspect="auto")
    for (i, j), count in np.ndenumerate(counts):
        left.text(j, i, str(count), ha="center", va="center", fontsize=8.5, color="white" if count > 600 else "black")
    left.set_xticks(range(10), names, rotation=45, ha="right", rotation_mode="anchor", color=INK)
    left.set_yticks(range(10), names, color=INK)
    left.set(xlabel="predicted", ylabel="true")
    left.grid(False)
    for key, marker, hue in (("recall", "o", HUES[0]), ("precision", "D", HUES[1])):
        values = [row[key] for row in numbers["classes"].values()]
        right.plot(values, range(10), ls="none", marker=marker, ms=5, color=hue, label=key)
    right.set(xlim=(0.35, 0.95), xticks=(0.4, 0.6, 0.8))
    right.tick_params(axis="y", length=0)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), handletextpad=0.2, fontsize=8.5)
    return figure


def draw_roc_and_reliability(numbers: dict[str, Any]) -> Figure:
    """Draw ROC curves of three classes, and accuracy against confidence over the number of images."""
    figure = Figure(figsize=(6.4, 3.6))
    left, right = figure.subplots(1, 2)
    for name, hue, dashes in zip(SHOWN, HUES, ("-", "--", "-."), strict=False):
        left.plot(
            *numbers["roc"][name], color=hue, ls=dashes, lw=1.8, label=f"{numbers['classes'][name]['auc']:.3f}  {name}"
        )
    left.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
    left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="false positive rate", ylabel="true positive rate")
    left.legend(title="area", loc="lower right", alignment="left", fontsize=8.5)
    left.set_title("one class against the rest")
    bins = numbers["bins"]
    share = np.array([row["images"] for row in bins]) / sum(row["images"] for row in bins)  # (BINS,)
    right.bar((np.arange(BINS) + 0.5) / BINS, share, width=0.092, color="#dfe7ee", zorder=1, label="share of images")
    filled = [row for row in bins if row["images"] >= 50]  # fewer say nothing
    right.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
    points = [[row[key] for row in filled] for key in ("confidence", "accuracy")]
    right.plot(*points, color=HUES[0], marker="o", ms=4.5, lw=1.8, label="accuracy of a bin")
    right.set(xlim=(0, 1.02), ylim=(-0.02, 1.02), xlabel="largest probability", ylabel="share that is right")
    right.legend(loc="upper left", fontsize=8.5)
    right.set_title("reliability")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw what the baseline predicts for the test images.")
    parser.add_argument("--model", metavar="FILE", help="a trained Model S, to be judged anew")
    parser.add_argument("--data", metavar="PATH", help="the folder of test images; goes with --model")
    arguments = parser.parse_args()
    if arguments.model:
        condense(arguments.model, arguments.data)
    measured = json.loads(MEASUREMENTS.read_text())
    save(draw_confusion(measured), "evaluation_confusion.svg")
    save(draw_roc_and_reliability(measured), "evaluation_reliability.svg")
