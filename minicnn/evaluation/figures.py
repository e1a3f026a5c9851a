"""The figures of a run, drawn with matplotlib's object interface: no window, no global state.

Colours can be told apart without colour vision (after Okabe and Ito). Each figure is narrow enough for a phone.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.checks import positive_integer
from minicnn.errors import ArgumentError, DataError, ShapeError, TrainingError
from minicnn.evaluation.metrics import check_predictions, confusion_matrix, display_name, roc_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED, _GRID = "#1b2733", "#566573", "#e4e9ee"
_HUES = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00")
_SHADES = ("#f6f9fc", "#a9d0ea", "#3f8fc4", "#084c7f")  # of the confusion matrix, from none to all of a row


def plot_history(history: Mapping[str, Sequence[float]]) -> "Figure":
    """Return a figure of accuracy and loss over the epochs, with the best epoch and the cuts of the learning rate.

    Parameters
    ----------
    history : dict of list of float
        ``fit(...).history``: ``loss`` and ``accuracy``, and if there are any ``val_loss``, ``val_accuracy`` and
        ``learning_rate``. The best epoch is that of the lowest ``val_loss`` (``loss`` without validation).

    Raises
    ------
    ArgumentError
        If a curve is missing, or they differ in length.
    TrainingError
        If a value is not finite.

    Examples
    --------
    >>> from minicnn.evaluation import plot_history
    >>> figure = plot_history({"loss": [1.5, 1.1], "accuracy": [0.4, 0.6]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['Accuracy', 'Loss']
    """
    from matplotlib.ticker import MaxNLocator

    history = check_history(history)
    best, epochs = best_epoch(history), len(history["loss"])
    cuts = np.flatnonzero(np.diff(history.get("learning_rate", [])) < 0) + 1  # (cuts,): the epochs they follow
    figure = _figure(4.4, 6.4)
    for axes, key in zip(figure.subplots(2), ("accuracy", "loss"), strict=True):
        _style(axes, "Epoch", key.capitalize())
        for name, label, hue in ((key, "Training", _HUES[0]), (f"val_{key}", "Validation", _HUES[1])):
            if name in history:
                marker = "o" if epochs <= 40 else None
                axes.plot(range(1, epochs + 1), history[name], color=hue, lw=1.8, label=label, marker=marker, ms=3)
        value, ring = history.get(f"val_{key}", history[key])[best - 1], {"facecolors": "none", "edgecolors": _INK}
        axes.scatter(best, value, s=90, lw=1.6, zorder=4, label=f"Best epoch ({best})", **ring)
        axes.set_title(f"{value:.4f} in the best epoch", color=_MUTED, fontsize=9)
        if len(cuts):
            whole = axes.get_xaxis_transform()  # from bottom to top, whatever the values
            axes.vlines(cuts + 0.5, 0, 1, color=_MUTED, lw=1, ls=":", transform=whole, label="Learning-rate cut")
        axes.set_xlim(0.5, epochs + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
        axes.grid(axis="y", color=_GRID)
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", labelcolor=_INK, fontsize=9, frameon=False, ncols=2)
    return figure


def plot_confusion_matrix(labels: Any, probabilities: Any, class_names: Sequence[str]) -> "Figure":
    """Return a figure of how often each true class (row) was predicted as each class (column), shaded by its share.

    Parameters
    ----------
    labels, probabilities : array-like (N,) and (N, K), as in `test_metrics`
    class_names : sequence of str, one for each class

    Raises
    ------
    ShapeError, DtypeError, DataError
        As in `test_metrics`, or if there is not a name for each class.

    Examples
    --------
    >>> from minicnn.evaluation import plot_confusion_matrix
    >>> plot_confusion_matrix([0, 1], [[0.9, 0.1], [0.3, 0.7]], ["0_cat", "1_dog"]).axes[0].get_ylabel()
    'True class'
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    counts = confusion_matrix(labels, probabilities)
    names, classes = _short(check_names(class_names, len(counts))), len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (K, K) / (K, 1) -> (K, K)
    side = min(1.0 + 0.4 * max(classes, 6), 14)  # inches
    figure = _figure(side, side)
    axes = _style(figure.add_subplot(), "Predicted class", "True class")
    spread = PowerNorm(0.6, 0, 1)  # a few per cent of confusion must still be seen
    axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("share", _SHADES), norm=spread)
    size = 8.5 if classes <= 25 else 5  # and then no numbers
    axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor", color=_INK, size=size)
    axes.set_yticks(range(classes), names, color=_INK, size=size)
    for (row, column), count in np.ndenumerate(counts if classes <= 25 else counts[:0]):
        colour = _MUTED if count == 0 else "black" if shares[row, column] < 0.64 else "white"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, size=size)
    return figure


def plot_roc(labels: Any, probabilities: Any, class_names: Sequence[str]) -> "Figure":
    """Return a figure of the ROC curve of each class against the rest; the legend, up to 20 classes, sorts by area.

    Parameters
    ----------
    labels, probabilities : array-like (N,) and (N, K), as in `test_metrics`
    class_names : sequence of str, one for each class

    Raises
    ------
    ShapeError, DtypeError, DataError
        As in `test_metrics`, or if there is not a name for each class.

    Examples
    --------
    >>> from minicnn.evaluation import plot_roc
    >>> figure = plot_roc([0, 1], [[0.9, 0.1, 0], [0.3, 0.7, 0]], ["cat", "dog", "emu"])
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['1.000  cat', '1.000  dog', 'undefined  emu']
    """
    curves = roc_curves(labels, probabilities)
    names = _short(check_names(class_names, len(curves)))
    figure = _figure(4.6, 4.6)
    axes = _style(figure.add_subplot(), "False positive rate", "True positive rate")
    axes.plot([0, 1], [0, 1], color=_MUTED, lw=1, ls=":")  # what guessing gives
    areas = [-1.0 if curve is None else curve.area for curve in curves]
    for k in sorted(range(len(curves)), key=lambda k: -areas[k]):
        if (curve := curves[k]) is None:
            axes.plot([], [], ls="none", label=f"undefined  {names[k]}")
        else:
            again, hue = divmod(k, len(_HUES))
            rates, dashes = (curve.false_positive_rate, curve.true_positive_rate), ("-", "--", "-.", ":")[again % 4]
            axes.plot(*rates, color=_HUES[hue], ls=dashes, lw=1.6, label=f"{curve.area:.3f}  {names[k]}")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(color=_GRID)
    if len(curves) <= 20:
        axes.legend(title="AUC", loc="lower right", alignment="left", fontsize=8.5, labelcolor=_INK, edgecolor="none")
    return figure


def plot_filters(kernel: Any) -> "Figure":
    """Return a figure of a convolution's filters, each stretched from its own minimum to its maximum.

    Parameters
    ----------
    kernel : array-like, shape (KH, KW, Cin, F)
        Three input channels are drawn as red, green and blue; any other number as their mean, in grey.

    Raises
    ------
    ShapeError, DataError
        If the kernel has another shape or is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.evaluation import plot_filters
    >>> len(plot_filters(np.zeros((3, 3, 3, 16))).axes[0].images)
    16
    """
    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.ndim != 4 or kernel.size == 0:
        raise ShapeError(f"plot_filters expects a kernel of shape (KH, KW, Cin, F). Received: {kernel.shape}")
    if not np.isfinite(kernel).all():
        raise DataError("plot_filters expects finite weights. Received: NaN or infinity; train with a lower rate")
    if kernel.shape[2] != 3:
        kernel = kernel.mean(axis=2, keepdims=True)  # (KH, KW, 1, F)
    low, high = kernel.min(axis=(0, 1, 2)), kernel.max(axis=(0, 1, 2))  # (F,), (F,)
    stretched = (kernel - low) / np.where(high > low, high - low, 1)  # (KH, KW, Cin or 1, F)
    pictures = np.where(high > low, stretched, 0.5)  # (KH, KW, Cin or 1, F): a constant filter is mid-grey
    across, down = 8, -(-kernel.shape[3] // 8)
    figure = _figure(0.7 * across, 0.7 * down)
    axes = figure.add_subplot()
    for index in range(kernel.shape[3]):
        top, left = divmod(index, across)
        place = (left + 0.07, left + 0.93, top + 0.93, top + 0.07)
        axes.imshow(pictures[..., index], cmap="gray", vmin=0, vmax=1, extent=place, interpolation="nearest")
    axes.set(xlim=(0, across), ylim=(down, 0))
    axes.axis("off")
    return figure


def plot_mistakes(
    images: Any, labels: Any, probabilities: Any, class_names: Sequence[str], count: int = 12
) -> "Figure":
    """Return a figure of the mistakes that the model was surest of: image, predicted class and probability, truth.

    Parameters
    ----------
    images : array-like, shape (N, H, W, 1 or 3), values 0 to 255
    labels, probabilities : array-like (N,) and (N, K), as in `test_metrics`
    class_names : as in `plot_roc`
    count : int, the most pictures to draw, three in a row

    Raises
    ------
    ShapeError, DtypeError, DataError
        As in `plot_roc`, or if there is not an image for each label.
    ArgumentError
        If `count` is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.evaluation import plot_mistakes
    >>> images = np.zeros((2, 8, 8, 3), np.uint8)
    >>> axes = plot_mistakes(images, [0, 1], [[0.9, 0.1], [0.7, 0.3]], ["cat", "dog"]).axes[0]
    >>> axes.get_title(), axes.get_xlabel()
    ('cat 70%', 'truth: dog')
    """
    labels, probabilities = check_predictions(labels, probabilities)
    images, names = np.asarray(images), _short(check_names(class_names, probabilities.shape[1]))
    if images.ndim != 4 or len(images) != len(labels) or images.shape[3] not in (1, 3):
        raise ShapeError(
            f"plot_mistakes expects one image a label, shape ({len(labels)}, H, W, 1 or 3). Received: {images.shape}"
        )
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)  # (N,), (N,)
    wrong = np.flatnonzero(predicted != labels)  # (mistakes,)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][: positive_integer("count", count)]  # (count,)
    down = max(-(-len(chosen) // 3), 1)
    figure = _figure(4.4, 1.85 * down)
    if not len(chosen):
        figure.add_subplot().axis("off")
        figure.text(0.5, 0.5, f"No mistakes in {len(labels)} images", ha="center", color=_INK, fontsize=10)
    for position, index in enumerate(chosen, start=1):
        axes = _style(figure.add_subplot(down, 3, position), f"truth: {names[labels[index]]}", "")
        axes.imshow(np.clip(images[index], 0, 255).astype(np.uint8), cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        sure = f"{confidence[index]:.0%}" if confidence[index] < 0.995 else "> 99%"  # never 100 for what is less
        axes.set_title(f"{names[predicted[index]]} {sure}", color=_HUES[1], fontsize=8.5, fontweight="bold", pad=3)
    return figure


def check_history(history: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return the curves as lists of floats, or raise an error if they lack one, differ in length or are not finite."""
    received = sorted(history) if isinstance(history, Mapping) else type(history).__name__
    if "loss" not in received or "accuracy" not in received:
        raise ArgumentError(
            f"history expects a dict with lists 'loss' and 'accuracy', such as fit(...).history. Received: {received}"
        )
    curves = {str(key): [float(value) for value in curve] for key, curve in history.items()}
    lengths = {key: len(curve) for key, curve in curves.items()}
    if len(set(lengths.values())) != 1 or not lengths["loss"]:
        raise ArgumentError(f"history expects one value an epoch in each list. Received lengths: {lengths}")
    for key, curve in curves.items():
        if not np.isfinite(curve).all():
            epoch = int(np.argmin(np.isfinite(curve)))
            raise TrainingError(
                f"history expects finite numbers. Received: {key} = {curve[epoch]} in epoch {epoch + 1}; "
                "train again with a lower learning rate"
            )
    return curves


def best_epoch(history: Mapping[str, Sequence[float]]) -> int:
    """Return the epoch, counted from 1, of the lowest validation loss, or training loss if there is no validation."""
    return int(np.argmin(history.get("val_loss", history["loss"]))) + 1


def check_names(class_names: Sequence[str], classes: int) -> list[str]:
    """Return the names as people read them, or raise an error if they are not one for each class."""
    if len(class_names) != classes:
        raise ShapeError(f"class_names expects {classes} names, one for each class. Received: {len(class_names)}")
    return [display_name(str(name)) for name in class_names]


def _short(names: Sequence[str]) -> list[str]:
    """Cut names to what fits a figure, and keep matplotlib from reading ``$`` as the start of a formula."""
    names = [" ".join(name.split()) for name in names]
    return [(name if len(name) <= 20 else name[:19] + "…").replace("$", r"\$") for name in names]


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")  # inches


def _style(axes: "Axes", x_label: str, y_label: str) -> "Axes":
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=_MUTED, labelsize=9)
    axes.set_axisbelow(True)
    axes.set_xlabel(x_label, color=_MUTED, fontsize=9)
    axes.set_ylabel(y_label, color=_MUTED, fontsize=9)
    return axes
