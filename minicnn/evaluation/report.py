"""The report of a run: PNG figures, JSON numbers, and one page that holds everything and loads nothing."""

import base64
import io
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import distributions
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from minicnn.errors import DataError
from minicnn.evaluation import figures
from minicnn.evaluation.metrics import class_metrics, confusion_matrix, test_metrics
from minicnn.files import replacing

_PACKAGES = ("minicnn", "numpy", "scipy", "numba", "scikit-learn", "matplotlib", "pillow")


def write_report(
    folder: str | os.PathLike, *, title: str, model: Any, history: Mapping[str, Sequence[float]], labels: Any,
    probabilities: Any, images: Any, class_names: Sequence[str], validation: Sequence[float], facts: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Write the figures, ``history.json``, ``metrics.json`` and the self-contained page ``report.html``.

    Everything is computed before the first file is written, and each file is replaced whole.

    Parameters
    ----------
    folder : path, made if it is missing
    title : str, heading of the page
    model : Model
        Its ``summary(print_fn=...)`` is shown; the first convolution in ``model.layers`` gives the filters.
    history : dict of list of float, ``fit(...).history``
    labels, probabilities : array-like, shapes (N,) and (N, K), of the test set
    images : array-like, shape (N, H, W, 1 or 3), of the test set, values 0 to 255
    class_names : list of str, length K
    validation : (float, float)
        Loss and accuracy of the finished model on the validation set, as ``evaluate`` gives them.
    facts : dict
        What else a reader needs to repeat the run: data set, seed, time. Epochs and versions are added.

    Returns
    -------
    pathlib.Path
        Of ``report.html``.

    Raises
    ------
    ShapeError, DtypeError, DataError, ArgumentError, TrainingError
        If labels, probabilities, images, names or history do not fit each other or are not finite.
    OutputError
        If the folder cannot be written.
    """
    history, metrics = figures.check_history(history), test_metrics(labels, probabilities)
    if len(validation) != 2 or not all(math.isfinite(value) for value in validation):
        raise DataError(f"validation expects a finite loss and accuracy. Received: {validation}")
    loss, accuracy = float(validation[0]), float(validation[1])
    best, epochs = figures.best_epoch(history), len(history["loss"])
    names = figures.check_names(class_names, np.shape(probabilities)[1])
    counts, rows = confusion_matrix(labels, probabilities), class_metrics(labels, probabilities)
    facts = {**facts, "Epochs": f"{epochs}, the best was {best}", **_machine()}
    pictures = _pictures(model, history, counts, images, labels, probabilities, class_names)
    pngs = {name: _png(figure) for name, (figure, _) in pictures.items()}
    shown = {name: _image(pngs[name], *pictures[name]) for name in pngs}
    summary: list[str] = []
    model.summary(print_fn=lambda line, *_: summary.append(str(line)))

    class_rows = []
    for name, row in zip(names, rows, strict=True):
        shares = [f"{row[key]:.1%}" for key in ("precision", "recall", "f1")]
        area = "undefined" if row["auc"] is None else f"{row['auc']:.3f}"
        class_rows.append((name, *shares, area, row["support"]))
    page = Template(Path(__file__).with_name("page.html").read_text("utf-8")).substitute(
        title=escape(title),
        accuracy=f"{metrics['accuracy']:.2%}",
        f1=f"{metrics['f1_macro']:.2%}",
        validation_accuracy=f"{accuracy:.2%}",
        validation_loss=f"{loss:.4f}",
        best=best,
        epochs=epochs,
        **{"filters": "The model has no convolution.", **shown},
        metrics=_rows((name.replace("_", ", ").capitalize(), f"{value:.2%}") for name, value in metrics.items()),
        classes=_rows(class_rows),
        facts=_rows(facts.items()),
        summary=escape("\n".join(summary)),
    )
    numbers = {
        "validation": {"loss": loss, "accuracy": accuracy},
        "test": metrics,
        "classes": [{"name": name, **row} for name, row in zip(names, rows, strict=True)],
        "confusion_matrix": counts.tolist(),
        "facts": {str(key): value if isinstance(value, int) else str(value) for key, value in facts.items()},
    }
    files = {f"{name}.png": png for name, png in pngs.items()}
    files["history.json"] = json.dumps(history, indent=1).encode()
    files["metrics.json"] = json.dumps(numbers, indent=1).encode()
    files["report.html"] = page.encode()  # the page comes last: who sees it finds the rest
    for file_name, content in files.items():
        with replacing(Path(folder) / file_name) as temporary:
            temporary.write_bytes(content)
    return Path(folder) / "report.html"


def _pictures(
    model: Any, history: dict[str, list[float]], counts: np.ndarray, images: Any, *predictions: Any
) -> dict[str, tuple[Any, str]]:
    """Draw the figures, by their names in the page, each with what a listener needs to know of it."""
    names = figures.check_names(predictions[-1], len(counts))
    best, judged = figures.best_epoch(history), "validation" if "val_accuracy" in history else "training"
    reached = history.get("val_accuracy", history["accuracy"])[best - 1]
    curves = f"Curves over {len(history['loss'])} epochs. Best is epoch {best}: {judged} accuracy {reached:.2%}."
    mistakes = counts - np.diag(np.diag(counts))  # (K, K)
    true, taken = np.unravel_index(mistakes.argmax(), mistakes.shape)
    wrong = f"{mistakes.sum()} of {counts.sum()} images are misclassified."
    if mistakes.any():
        wrong += f" Most often {names[true]} is taken for {names[taken]}, {mistakes[true, taken]} times."
    surest = f"The misclassified test images of highest probability, of {mistakes.sum()} mistakes in all."
    pictures = {
        "history": (figures.plot_history(history), curves),
        "mistakes": (figures.plot_mistakes(images, *predictions), surest),
        "confusion_matrix": (figures.plot_confusion_matrix(*predictions), wrong),
        "roc": (figures.plot_roc(*predictions), "ROC curve of each class. The areas are in the table of classes."),
    }
    kernels = [w for w in model.get_weights() if w.ndim == 4]
    if kernels:
        words = "{3} filters of the first convolution, {0} by {1} pixels.".format(*kernels[0].shape)
        pictures["filters"] = (figures.plot_filters(kernels[0]), words)
    return pictures


def _png(figure: Any) -> bytes:
    """Draw at twice the 96 pixels an inch of a web page, for sharp screens; the same run gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=192, metadata={"Software": None})
    return stream.getvalue()


def _image(png: bytes, figure: Any, alt: str) -> str:
    width, height = (int(96 * inches) for inches in figure.get_size_inches())
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="{source}">'


def _rows(rows: Iterable[Sequence[Any]]) -> str:
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(str(value))}</td>" for value in rest)
        body += f'<tr><th scope="row">{escape(str(first))}</th>{cells}</tr>\n'
    return body


def _machine() -> dict[str, str]:
    """Return what the run stood on: system, Python, and the versions of the packages that are installed."""
    installed = {package.name.lower(): package.version for package in distributions()}
    packages = [f"{name} {installed[name]}" for name in _PACKAGES if name in installed]
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {"System": system, "Python": platform.python_version(), "Packages": ", ".join(packages)}
