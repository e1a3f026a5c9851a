"""The figures of a run, drawn with matplotlib's object interface: no window, no global state.

Colours can be told apart without colour vision (after Okabe and Ito). Each function returns a matplotlib Figure;
`dark` draws light ink on dark paper; bad input raises a MinicnnError.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minicnn.errors import ArgumentError, DataError, ShapeError, TrainingError
from minicnn.evaluation.metrics import check_predictions, confusion_matrix, display_name, roc_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Theme(NamedTuple):
    paper: str
    ink: str
    muted: str
    grid: str
    hues: tuple[str, ...]
    ramp: tuple[str, ...]  # of the confusion matrix, from none to all of a row


_LIGHT = _Theme(
    *("#ffffff", "#1b2733", "#566573", "#e4e9ee"),
    hues=("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00"),
    ramp=("#f6f9fc", "#a9d0ea", "#3f8fc4", "#084c7f"),
)
_DARK = _Theme(
    *("#1a222b", "#e8edf2", "#a3b1bf", "#303c48"),
    hues=("#56b4e9", "#f5894a", "#2fc9a2", "#e08fd0", "#e3c545"),
    ramp=("#222c37", "#1f5580", "#3f95cf", "#a8dcff"),
)
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))


def plot_history(history: Mapping[str, Sequence[float]], *, columns: int = 2, dark: bool = False) -> "Figure":
    """Draw accuracy and loss over the epochs, with the best epoch and the cuts of the learning rate.

    Parameters
    ----------
    history : dict of list of float
        ``fit(...).history``: ``loss`` and ``accuracy``, and if there are any ``val_loss``, ``val_accuracy`` and
        ``learning_rate``. The best epoch is that of the lowest ``val_loss`` (``loss`` without validation).
    columns : {2, 1}
        Side by side, or stacked for a narrow page.

    Examples
    --------
    >>> from minicnn.evaluation import plot_history
    >>> figure = plot_history({"loss": [1.5, 1.1], "accuracy": [0.4, 0.6]})
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['Accuracy', 'Loss']
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

    history, theme = check_history(history), _DARK if dark else _LIGHT
    best, epochs, rates = best_epoch(history), len(history["loss"]), history.get("learning_rate", [])
    figure = _figure(theme, (9.6, 4.1) if columns == 2 else (4.4, 6.4))
    for position, (title, key) in enumerate((("Accuracy", "accuracy"), ("Loss", "loss")), start=1):
        axes = _style(figure.add_subplot(2 // columns, columns, position), theme, ("Epoch", ""))
        axes.set_title(title, loc="left", color=theme.ink, fontsize=11, fontweight="bold")
        for prefix, label, hue in (("", "Training", theme.hues[0]), ("val_", "Validation", theme.hues[1])):
            if curve := history.get(prefix + key):
                size = 3 if epochs <= 40 else 0
                axes.plot(range(1, epochs + 1), curve, color=hue, lw=1.8, label=label, zorder=3, marker="o", ms=size)
        value = history.get("val_" + key, history[key])[best - 1]
        ring: dict[str, Any] = {"s": 90, "facecolors": "none", "edgecolors": theme.ink, "linewidths": 1.6, "zorder": 4}
        axes.scatter(best, value, label=f"Best epoch ({best})", **ring)
        side = 1 if best <= 0.8 * epochs else -1  # of the ring, where the number finds room
        up = -side if key == "accuracy" else side
        place: dict[str, Any] = {
            "ha": "left" if side == 1 else "right",
            "va": "bottom" if up == 1 else "top",
            "zorder": 5,
        }
        halo = withStroke(linewidth=3, foreground=theme.paper)
        place |= {"textcoords": "offset points", "xytext": (4 * side, 10 * up), "path_effects": [halo]}
        axes.annotate(f"{value:.4f}", (best, value), color=theme.ink, fontsize=9, **place)
        for epoch in range(1, len(rates)):
            if rates[epoch] < rates[epoch - 1]:
                axes.axvline(epoch + 0.5, color=theme.muted, lw=1, ls=(0, (2, 2)), label="Learning-rate cut")
        axes.margins(y=0.1)
        axes.set_xlim(0.5, epochs + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
        axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    handles, texts = figure.axes[0].get_legend_handles_labels()
    entries = dict(zip(texts, handles, strict=True))  # all cuts under one name
    style: dict[str, Any] = {"labelcolor": theme.ink, "fontsize": 9, "frameon": False, "ncols": 2 * columns}
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", **style)
    return figure


def plot_confusion_matrix(
    labels: Any, probabilities: Any, class_names: Sequence[str], *, dark: bool = False
) -> "Figure":
    """Draw how often each true class (row) was predicted as each class (column); colour is the share of the row.

    Parameters
    ----------
    labels, probabilities : array-like, shapes (N,) and (N, K)
    class_names : list of str, length K
        Above 25 classes the numbers are left out.

    Examples
    --------
    >>> from minicnn.evaluation import plot_confusion_matrix
    >>> plot_confusion_matrix([0, 1], [[0.9, 0.1], [0.3, 0.7]], ["0_cat", "1_dog"]).axes[0].get_ylabel()
    'True class'
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    counts, theme = confusion_matrix(labels, probabilities), _DARK if dark else _LIGHT
    names, classes = _short(check_names(class_names, len(counts))), len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (K, K) / (K, 1) -> (K, K)
    colours = LinearSegmentedColormap.from_list("share", theme.ramp)
    spread = PowerNorm(0.6, 0, 1)  # a few per cent of confusion must still be seen
    side = min(1.0 + max(0.4 * classes, 2.4), 14)
    figure = _figure(theme, (side, side))
    axes = _style(figure.add_subplot(), theme, ("Predicted class", "True class"))
    axes.imshow(shares, cmap=colours, norm=spread)
    axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(classes), names)
    axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.tick_params(labelcolor=theme.ink, labelsize=9 if classes <= 25 else 5)
    axes.grid(which="minor", color=theme.paper, linewidth=2 if classes <= 25 else 0.5)
    for (row, column), count in np.ndenumerate(counts if classes <= 25 else counts[:0]):
        luminance = np.dot(np.power(colours(spread(shares[row, column]))[:3], 2.2), (0.2126, 0.7152, 0.0722))  # 0 to 1
        colour = theme.muted if count == 0 else "#000000" if luminance > 0.18 else "#ffffff"
        size, weight = (9 if counts.max() < 1000 else 8), ("bold" if row == column else "normal")
        axes.text(column, row, str(count), ha="center", va="center", color=colour, size=size, weight=weight)
    return figure


def plot_roc(labels: Any, probabilities: Any, class_names: Sequence[str], *, dark: bool = False) -> "Figure":
    """Draw the ROC curve of each class against the rest; the legend, up to 20 classes, sorts by area (AUC).

    Parameters
    ----------
    labels, probabilities : array-like, shapes (N,) and (N, K)
    class_names : list of str, length K

    Examples
    --------
    >>> from minicnn.evaluation import plot_roc
    >>> figure = plot_roc([0, 1], [[0.9, 0.1, 0], [0.3, 0.7, 0]], ["cat", "dog", "emu"])
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['1.000  cat', '1.000  dog', 'undefined  emu']
    """
    from matplotlib.lines import Line2D

    curves, theme = roc_curves(labels, probabilities), _DARK if dark else _LIGHT
    figure = _figure(theme, (4.6, 4.6))
    axes = _style(figure.add_subplot(), theme, ("False positive rate", "True positive rate"))
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=(0, (2, 2)))  # what guessing gives
    names, entries = _short(check_names(class_names, len(curves))), []
    for index, (name, curve) in enumerate(zip(names, curves, strict=True)):
        if curve is None:
            entries.append((-1.0, Line2D([], [], linestyle="none"), f"undefined  {name}"))
            continue
        again, hue = divmod(index, len(theme.hues))
        (line,) = axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=theme.hues[hue], lw=1.6)
        line.set_linestyle(_DASHES[again % len(_DASHES)])
        entries.append((curve.area, line, f"{curve.area:.3f}  {name}"))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(color=theme.grid, linewidth=0.8)
    if len(curves) <= 20:
        _, lines, texts = zip(*sorted(entries, key=lambda entry: -entry[0]), strict=True)
        style: dict[str, Any] = {
            "fontsize": 8.5,
            "labelcolor": theme.ink,
            "facecolor": theme.paper,
            "edgecolor": "none",
        }
        legend = axes.legend(lines, texts, title="AUC", loc="lower right", alignment="left", handlelength=2.6, **style)
        legend.get_title().set_color(theme.muted)
    return figure


def plot_filters(kernel: Any, *, dark: bool = False) -> "Figure":
    """Draw the filters of a convolution as small pictures, each stretched from its own minimum to its maximum.

    Parameters
    ----------
    kernel : array-like, shape (KH, KW, Cin, F)
        Three input channels are drawn as red, green and blue; any other number as their mean, in grey.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.evaluation import plot_filters
    >>> len(plot_filters(np.zeros((3, 3, 3, 16))).axes[0].images)
    16
    """
    kernel, theme = np.asarray(kernel, dtype=np.float64), _DARK if dark else _LIGHT
    if kernel.ndim != 4 or kernel.size == 0:
        raise ShapeError(f"plot_filters expects a kernel of shape (KH, KW, Cin, F). Received: {kernel.shape}")
    if not np.isfinite(kernel).all():
        raise DataError("plot_filters expects finite weights. Received: NaN or infinity; train with a lower rate")
    if kernel.shape[2] != 3:
        kernel = kernel.mean(axis=2, keepdims=True)  # (KH, KW, 1, F)
    low, high = kernel.min(axis=(0, 1, 2)), kernel.max(axis=(0, 1, 2))  # (F,), (F,)
    stretched = (kernel - low) / np.where(high > low, high - low, 1)  # (KH, KW, Cin or 1, F)
    pictures = np.where(high > low, stretched, 0.5)  # (KH, KW, Cin or 1, F): a constant filter is mid-grey
    filters = pictures.shape[3]
    across = min(filters, 8 if filters <= 64 else 16)
    down, step = -(-filters // across), 5.6 / max(across, 6)  # inches
    figure = _figure(theme, (step * across, step * down), layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    for index in range(filters):
        top, left = divmod(index, across)
        place = (left + 0.07, left + 0.93, top + 0.93, top + 0.07)
        axes.imshow(pictures[..., index], cmap="gray", vmin=0, vmax=1, extent=place, interpolation="nearest")
    axes.set(xlim=(0, across), ylim=(down, 0))
    axes.axis("off")
    return figure


def plot_mistakes(
    images: Any, labels: Any, probabilities: Any, class_names: Sequence[str], count: int = 12, *,
    columns: int = 6, dark: bool = False,
) -> "Figure":  # fmt: skip
    """Draw the mistakes that the model was surest of: the image, the predicted class and its probability, the truth.

    Parameters
    ----------
    images : array-like, shape (N, H, W, 1 or 3)
        Values 0 to 255.
    labels, probabilities : array-like, shapes (N,) and (N, K)
    class_names : list of str, length K
    count, columns : int
        At most `count` pictures, `columns` in a row; 3 suit a narrow page.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.evaluation import plot_mistakes
    >>> images = np.zeros((2, 8, 8, 3), np.uint8)
    >>> figure = plot_mistakes(images, [0, 1], [[0.9, 0.1], [0.7, 0.3]], ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['cat 70%', 'truth: dog']
    """
    labels, probabilities = check_predictions(labels, probabilities)
    images, names = np.asarray(images), _short(check_names(class_names, probabilities.shape[1]))
    if images.ndim != 4 or len(images) != len(labels) or images.shape[3] not in (1, 3):
        raise ShapeError(
            f"plot_mistakes expects one image a label, shape ({len(labels)}, H, W, 1 or 3). Received: {images.shape}"
        )
    if count < 1 or columns < 1:
        raise ArgumentError(f"plot_mistakes expects count >= 1 and columns >= 1. Received: {count} and {columns}")
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)  # (N,), (N,)
    wrong = np.flatnonzero(predicted != labels)  # (mistakes,)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]  # (count,)
    across, theme = min(columns, max(len(chosen), 3)), _DARK if dark else _LIGHT
    down = -(-max(len(chosen), 1) // across)
    side, gap, words = (1.3 if columns <= 3 else 1.45), 0.1, 0.42  # inches: a picture, between two, and below it
    width, height = across * (side + gap), down * (side + words) + gap
    figure = _figure(theme, (width, height), layout=None)
    if not len(chosen):
        figure.text(0.5, 0.5, f"No mistakes in {len(labels)} images", ha="center", color=theme.ink, fontsize=10)
    for position, index in enumerate(chosen):
        row, column = divmod(position, across)
        left, bottom = column * (side + gap) + gap / 2, (down - row) * (side + words) - side
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        axes.imshow(np.clip(images[index], 0, 255).astype(np.uint8), cmap="gray", vmin=0, vmax=255)
        axes.axis("off")
        sure = f"{confidence[index]:.0%}" if confidence[index] < 0.995 else "> 99%"  # never 100 for what is less
        style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "size": 8.5}
        style |= {"ha": "center", "va": "top"}
        said, truth = f"{names[predicted[index]]} {sure}", f"truth: {names[labels[index]]}"
        axes.annotate(said, (0.5, 0), xytext=(0, -4), color=theme.hues[1], weight="bold", **style)
        axes.annotate(truth, (0.5, 0), xytext=(0, -16), color=theme.muted, **style)
    return figure


def check_history(history: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return the curves as lists of floats, or raise one error that says what is wrong with them."""
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


def _figure(theme: _Theme, size: tuple[float, float], layout: Any = "constrained") -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=size, facecolor=theme.paper, layout=layout)


def _style(axes: "Axes", theme: _Theme, axis_labels: tuple[str, str]) -> "Axes":
    axes.set_facecolor(theme.paper)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0, labelcolor=theme.muted, labelsize=9)
    axes.set_axisbelow(True)
    axes.set_xlabel(axis_labels[0], color=theme.muted, fontsize=9)
    axes.set_ylabel(axis_labels[1], color=theme.muted, fontsize=9)
    return axes
