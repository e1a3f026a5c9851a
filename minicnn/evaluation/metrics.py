"""Figures of merit of a classifier, computed by scikit-learn from labels and predicted probabilities.

The prediction is the largest probability of a row, and a tie goes to the lowest class.
"""

import re
from typing import Any, NamedTuple

import numpy as np

from minicnn.errors import DataError, DtypeError, ShapeError


class RocCurve(NamedTuple):
    """One class against the rest: the true over the false positive rate, and the area under that curve.

    Attributes
    ----------
    false_positive_rate, true_positive_rate : arrays (thresholds,)
    area : float, 0 to 1
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    area: float


def display_name(class_name: str) -> str:
    """Return a class name as people read it, without the number that sorts its folder.

    Parameters
    ----------
    class_name : str

    Examples
    --------
    >>> from minicnn.evaluation import display_name
    >>> display_name("000_airplane"), display_name("cat")
    ('airplane', 'cat')
    """
    return re.sub(r"^\d+_(?=.)", "", class_name)


def check_predictions(labels: Any, probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays, or raise one error that says what is wrong with them."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or probabilities.size == 0:
        raise ShapeError(
            "expected labels of shape (N,) and probabilities of shape (N, K), neither empty. "
            f"Received: {labels.shape} and {probabilities.shape}"
        )
    if labels.dtype.kind not in "iu" or probabilities.dtype.kind not in "fiu":
        raise DtypeError(
            "labels must be integers and probabilities numbers. "
            f"Received: {labels.dtype} and {probabilities.dtype}; convert them, such as labels.astype(int)"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise DataError(
            f"labels must be 0 to {probabilities.shape[1] - 1}, one for each column of probabilities. "
            f"Received: labels from {labels.min()} to {labels.max()}"
        )
    probabilities = probabilities.astype(np.float64)
    good = np.isfinite(probabilities).all(axis=1) & (probabilities >= 0).all(axis=1)  # (N,)
    good &= abs(probabilities.sum(axis=1) - 1) < 1e-3  # (N,)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            "probabilities must be finite, not negative and sum to 1 in each row, as softmax gives them. "
            f"Received in row {row}: {np.round(probabilities[row], 3).tolist()[:10]}"
        )
    return labels, probabilities


def test_metrics(labels: Any, probabilities: Any) -> dict[str, float]:
    """Return accuracy, and precision, recall and F1 as macro and as weighted means over the classes.

    A macro mean counts each class once, a weighted mean as often as it occurs in `labels`. A class that is never
    predicted has precision 0; one found neither in the labels nor in the predictions takes no part.

    Parameters
    ----------
    labels : array-like (N,) of int from 0 to K-1
    probabilities : array-like (N, K), as softmax gives them

    Returns
    -------
    dict of seven fractions between 0 and 1

    Raises
    ------
    ShapeError
        If they have other shapes, or are empty.
    DtypeError
        If labels are not integers, or probabilities not numbers.
    DataError
        If a label is outside its range, or a row is not finite, not negative and of sum 1.

    Examples
    --------
    >>> from minicnn.evaluation import test_metrics
    >>> metrics = test_metrics([0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
    >>> metrics["accuracy"], metrics["precision_macro"], metrics["precision_weighted"]
    (0.75, 0.75, 0.875)
    """
    from sklearn.metrics import precision_recall_fscore_support

    labels, probabilities = check_predictions(labels, probabilities)
    predicted = probabilities.argmax(axis=1)  # (N,)
    metrics = {"accuracy": float(np.mean(predicted == labels))}
    for average in ("macro", "weighted"):
        scores = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)[:3]
        for name, score in zip(("precision", "recall", "f1"), scores, strict=True):
            metrics[f"{name}_{average}"] = float(score)
    return metrics


test_metrics.__test__ = False  # type: ignore[attr-defined]  # pytest takes a function named test_* for a test


def confusion_matrix(labels: Any, probabilities: Any) -> np.ndarray:
    """Return how often each true class (row) was predicted as each class (column), (K, K) integers.

    Parameters
    ----------
    labels, probabilities : array-like (N,) and (N, K), as in `test_metrics`

    Raises
    ------
    ShapeError, DtypeError, DataError
        As in `test_metrics`.

    Examples
    --------
    >>> from minicnn.evaluation import confusion_matrix
    >>> confusion_matrix([0, 0, 1], [[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])
    array([[1, 1],
           [0, 1]])
    """
    from sklearn.metrics import confusion_matrix as count

    labels, probabilities = check_predictions(labels, probabilities)
    return count(labels, probabilities.argmax(axis=1), labels=range(probabilities.shape[1]))  # (K, K)


def roc_curves(labels: Any, probabilities: Any) -> list[RocCurve | None]:
    """Return the ROC curve of each class against the rest; None where no label, or every one, is of the class.

    Parameters
    ----------
    labels, probabilities : array-like (N,) and (N, K), as in `test_metrics`

    Raises
    ------
    ShapeError, DtypeError, DataError
        As in `test_metrics`.

    Examples
    --------
    >>> from minicnn.evaluation import roc_curves
    >>> labels, probabilities = [0, 1, 1], [[0.9, 0.1, 0.0], [0.3, 0.6, 0.1], [0.4, 0.2, 0.4]]
    >>> [curve and curve.area for curve in roc_curves(labels, probabilities)]
    [1.0, 1.0, None]
    """
    from sklearn.metrics import auc, roc_curve

    labels, probabilities = check_predictions(labels, probabilities)
    curves: list[RocCurve | None] = []
    for index, scores in enumerate(probabilities.T):  # (N,) each
        positive = labels == index  # (N,)
        if positive.all() or not positive.any():
            curves.append(None)
            continue
        false_rate, true_rate, _ = roc_curve(positive, scores)
        curves.append(RocCurve(false_rate, true_rate, float(auc(false_rate, true_rate))))
    return curves


def class_metrics(labels: Any, probabilities: Any) -> list[dict[str, float | int | None]]:
    """Return precision, recall, F1, area under the ROC curve (None if undefined) and sample count of each class.

    Parameters
    ----------
    labels, probabilities : array-like (N,) and (N, K), as in `test_metrics`

    Raises
    ------
    ShapeError, DtypeError, DataError
        As in `test_metrics`.

    Examples
    --------
    >>> from minicnn.evaluation import class_metrics
    >>> class_metrics([0, 0, 1], [[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])[1]
    {'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666, 'auc': 1.0, 'support': 1}
    """
    from sklearn.metrics import precision_recall_fscore_support

    labels, probabilities = check_predictions(labels, probabilities)
    classes, predicted = range(probabilities.shape[1]), probabilities.argmax(axis=1)  # (N,)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    areas = [curve.area if curve else None for curve in roc_curves(labels, probabilities)]
    rows = zip(precision.tolist(), recall.tolist(), f1.tolist(), areas, support.tolist(), strict=True)
    return [dict(zip(("precision", "recall", "f1", "auc", "support"), row, strict=True)) for row in rows]
