"""The report of a run: PNG figures, JSON numbers, and one page that holds everything and loads nothing."""

import base64
import io
import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np

from minicnn.errors import DataError
from minicnn.evaluation import figures
from minicnn.evaluation.metrics import class_metrics, confusion_matrix, test_metrics
from minicnn.files import replacing

_PACKAGES = ("minicnn", "numpy", "scipy", "numba", "scikit-learn", "matplotlib", "pillow")


class _Picture(NamedTuple):
    name: str  # of the file
    heading: str
    caption: str
    alt: str  # what a listener needs to know of it
    draw: Callable[..., Any]
    narrow: dict[str, int] | None = None  # how to draw it for a phone, if in another way


def write_report(
    folder: str | os.PathLike, *, title: str, model: Any, history: Mapping[str, Sequence[float]], labels: Any,
    probabilities: Any, images: Any, class_names: Sequence[str], validation: Sequence[float], facts: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Write the figures, ``history.json``, ``metrics.json`` and the self-contained page ``report.html``.

    Everything is computed before the first file is written, and each file is replaced whole.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    title : str
        Heading of the page.
    model : Model
        Its ``summary(print_fn=...)`` is shown; the first convolution in ``model.layers`` gives the filters.
    history : dict of list of float
        ``fit(...).history``.
    labels, probabilities : array-like, shapes (N,) and (N, K)
        Of the test set.
    images : array-like, shape (N, H, W, 1 or 3)
        Of the test set, values 0 to 255.
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
    drawn = {picture.name: _png(picture.draw()) for picture in pictures}
    summary: list[str] = []
    model.summary(print_fn=lambda line, *_: summary.append(str(line)))

    tiles = {
        "Test accuracy": f"{metrics['accuracy']:.2%}",
        "Test F1, macro": f"{metrics['f1_macro']:.2%}",
        "Validation accuracy": f"{accuracy:.2%}",
        "Validation loss": f"{loss:.4f}",
        "Best epoch": f"{best} <small>of {epochs}</small>",
    }
    metric_rows = ((name.replace("_", ", ").capitalize(), f"{value:.2%}") for name, value in metrics.items())
    class_rows = (
        (
            name,
            *(f"{row[key]:.1%}" for key in ("precision", "recall", "f1")),
            "undefined" if row["auc"] is None else f"{row['auc']:.3f}",
            row["support"],
        )
        for name, row in zip(names, rows, strict=True)
    )
    page = Template(Path(__file__).with_name("page.html").read_text("utf-8")).substitute(
        title=escape(title),
        tiles="".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles.items()),
        figures="".join(_section(picture, drawn[picture.name]) for picture in pictures),
        metrics=_table(("Test metric", "Value"), metric_rows),
        classes=_table(("Class", "Precision", "Recall", "F1", "AUC", "Support"), class_rows),
        facts=_table(("Fact", "Value"), facts.items(), "facts"),
        summary=escape("\n".join(summary)),
    )
    numbers = {
        "validation": {"loss": loss, "accuracy": accuracy},
        "test": metrics,
        "classes": [{"name": name, **row} for name, row in zip(names, rows, strict=True)],
        "confusion_matrix": counts.tolist(),
        "facts": {str(key): value if isinstance(value, int) else str(value) for key, value in facts.items()},
    }
    files = {f"{name}.png": content for name, content in drawn.items()}
    files["history.json"] = json.dumps(history, indent=1).encode()
    files["metrics.json"] = json.dumps(numbers, indent=1).encode()
    files["report.html"] = page.encode()  # the page comes last: who sees it finds the rest
    for file_name, content in files.items():
        with replacing(Path(folder) / file_name) as temporary:
            temporary.write_bytes(content)
    return Path(folder) / "report.html"


def _pictures(
    model: Any, history: dict[str, list[float]], counts: np.ndarray, images: Any, *predictions: Any
) -> list[_Picture]:
    """Say what the page shows, in its order, in words for people who read and for people who listen."""
    names = figures.check_names(predictions[-1], len(counts))
    best, judged = figures.best_epoch(history), "validation" if "val_accuracy" in history else "training"
    reached = history.get("val_accuracy", history["accuracy"])[best - 1]
    mistakes = counts - np.diag(np.diag(counts))  # (K, K)
    true, taken = np.unravel_index(mistakes.argmax(), mistakes.shape)
    worst = f"; most often {names[true]} is taken for {names[taken]}, {mistakes[true, taken]} times"
    pictures = [
        _Picture(
            "history",
            "Accuracy and loss",
            f"The circle marks the lowest {judged} loss, dotted lines the cuts of the learning rate.",
            f"Curves over {len(history['loss'])} epochs. Best is epoch {best}: {judged} accuracy {reached:.2%}.",
            partial(figures.plot_history, history),
            {"columns": 1},
        ),
        _Picture(
            "confusion_matrix",
            "Confusion matrix",
            "Test images by true and predicted class; colour is the share of the true class.",
            f"{mistakes.sum()} of {counts.sum()} images are misclassified{worst if mistakes.any() else ''}.",
            partial(figures.plot_confusion_matrix, *predictions),
        ),
        _Picture(
            "roc",
            "ROC curves",
            "Each class against the rest; the area under a curve (AUC) is 1 if perfect, 0.5 if guessed.",
            "ROC curve of each class. The areas are in the table of classes.",
            partial(figures.plot_roc, *predictions),
        ),
        _Picture(
            "mistakes",
            "Most confident mistakes",
            "Predicted class with its probability, and the true class.",
            f"The misclassified test images of highest probability, of {mistakes.sum()} mistakes in all.",
            partial(figures.plot_mistakes, images, *predictions),
            {"columns": 3},
        ),
    ]
    kernels = [layer.params["kernel"] for layer in model.layers if np.ndim(layer.params.get("kernel")) == 4]
    if kernels:
        words = "{3} filters of the first convolution, {0} by {1} pixels".format(*kernels[0].shape)
        draw = partial(figures.plot_filters, kernels[0])
        caption = f"{words}, each stretched to full contrast."
        pictures.append(_Picture("filters", "First-layer filters", caption, f"{words}.", draw))
    return pictures


def _section(picture: _Picture, light: bytes) -> str:
    """Return a figure as HTML: the browser picks the drawing for its width and its colours."""
    dark, phone, sources = "(prefers-color-scheme: dark)", "(max-width: 640px)", ""
    if picture.narrow:
        sources += _source(f"{dark} and {phone}", picture.draw(**picture.narrow, dark=True))
        sources += _source(phone, picture.draw(**picture.narrow))
    sources += _source(dark, picture.draw(dark=True))
    return (
        f'<section id="{picture.name}"><h2>{picture.heading}</h2><figure><picture>{sources}'
        f'<img alt="{escape(picture.alt)}" {_embed("src", light)}></picture>'
        f"<figcaption>{picture.caption}</figcaption></figure></section>\n"
    )


def _source(media: str, figure: Any) -> str:
    return f'<source media="{media}" {_embed("srcset", _png(figure))}>'


def _png(figure: Any) -> bytes:
    """Draw at twice the 96 pixels an inch of a web page, for sharp screens; the same run gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=192, metadata={"Software": None})
    return stream.getvalue()


def _embed(attribute: str, png: bytes) -> str:
    width, height = (int.from_bytes(png[start : start + 4]) // 2 for start in (16, 20))  # from the PNG's header
    return f'{attribute}="data:image/png;base64,{base64.b64encode(png).decode()}" width="{width}" height="{height}"'


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "numbers") -> str:
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(str(value))}</td>" for value in rest)
        body += f'<tr><th scope="row">{escape(str(first))}</th>{cells}</tr>\n'
    return f'<table class="{kind}"><thead><tr>{columns}</tr></thead><tbody>\n{body}</tbody></table>'


def _machine() -> dict[str, str]:
    """Return what the run stood on: system, Python, and the versions of the packages that are installed."""
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # minicnn itself, run from a checkout
            continue
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {"System": system, "Python": platform.python_version(), "Packages": ", ".join(found)}
