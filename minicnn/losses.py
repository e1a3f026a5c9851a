"""Cross-entropy of classes, computed from logits together with the softmax so that it cannot overflow."""

from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.checks import number
from minicnn.errors import ArgumentError, DataError, ShapeError


class SparseCategoricalCrossentropy:
    """How badly predictions miss integer labels: the mean of -log p[label].

    A model that ends in a softmax is trained and evaluated from the logits before it, as Keras does:
    loss = log(sum_k exp(z_k)) - z[label] and dz = (p - onehot) / N, exact even where p underflows. Called on
    probabilities alone, where the logits are gone, they are clipped to [1e-7, 1 - 1e-7] as Keras does too.
    Smoothed, the target is not 1 for the label and 0 for the others, but (1 - s) * onehot + s / K: no logit pays off
    that runs away to infinity.

    Parameters
    ----------
    from_logits : bool
        Whether predictions are logits instead of probabilities.
    label_smoothing : float
        s, in [0, 1].

    Raises
    ------
    ArgumentError
        If `label_smoothing` is no such number.

    References
    ----------
    Goodfellow, Bengio and Courville, Deep Learning, 2016, sections 6.2.2.3 and 7.5.1.
    Szegedy et al., Rethinking the inception architecture for computer vision, CVPR 2016, section 7.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.losses import SparseCategoricalCrossentropy
    >>> SparseCategoricalCrossentropy(from_logits=True)(np.array([0]), np.array([[0.0, 100.0]]))
    100.0
    >>> round(SparseCategoricalCrossentropy()(np.array([0]), np.array([[0.0, 1.0]])), 3)
    16.118
    >>> smoothed = SparseCategoricalCrossentropy(label_smoothing=0.5)
    >>> round(smoothed(np.array([0]), np.array([[0.75, 0.25]])), 3)  # -(0.75 ln 0.75 + 0.25 ln 0.25)
    0.562
    """

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = from_logits
        self.label_smoothing = number("SparseCategoricalCrossentropy(label_smoothing)", label_smoothing, 0, 1)

    def __call__(self, labels: Any, predictions: Any) -> float:
        """Return the mean loss of predictions against labels.

        Parameters
        ----------
        labels : array-like (N,) of int from 0 to K-1
        predictions : array-like (N, K), probabilities, or with `from_logits` logits

        Raises
        ------
        ShapeError, DataError, DtypeError
            If they do not fit each other, or labels are not such integers.
        """
        predictions = np.asarray(predictions)
        labels = check_labels(labels, predictions)
        if self.from_logits:
            return float(self.value_and_gradient(predictions, labels)[0].mean())
        logs = np.log(np.clip(predictions, 1e-7, 1 - 1e-7))  # (N, K)
        own, smoothing = logs[np.arange(len(labels)), labels], self.label_smoothing  # (N,)
        return float(-((1 - smoothing) * own + smoothing * logs.mean(axis=1)).mean())

    def value_and_gradient(self, logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each sample's loss (N,) and the gradient of their mean with respect to the logits (N, K).

        Parameters
        ----------
        logits : array (N, K)
        labels : array (N,) of int from 0 to K-1, not checked here

        Raises
        ------
        DtypeError
            If the logits are not an array that kernels compute with.
        """
        return kernels.room(logits).softmax_crossentropy(logits, labels, self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build an equal loss, as plain JSON values."""
        return {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


def check_labels(labels: Any, predictions: np.ndarray) -> np.ndarray:
    """Return `labels` as an integer array (N,) if they name classes of `predictions`.

    Parameters
    ----------
    labels : array-like (N,) or (N, 1)
    predictions : array (N, K)

    Raises
    ------
    ShapeError
        If the predictions are not (N, K) or there is not one label for each.
    DataError
        If a label is not an integer from 0 to K-1.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.losses import check_labels
    >>> check_labels([[2], [0]], np.zeros((2, 3)))
    array([2, 0])
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # (N, 1) -> (N,), a shape in which Keras's users often hold them
    if predictions.ndim != 2 or labels.shape != predictions.shape[:1]:
        raise ShapeError(
            "the loss expects predictions (N, K) and one integer label each, (N,). "
            f"Received: predictions {predictions.shape} and labels {labels.shape}"
        )
    K = predictions.shape[1]
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels must be integers from 0 to {K - 1}. Received: an array of {labels.dtype}")
    if labels.size and (labels.min() < 0 or labels.max() >= K):
        wrong = labels[(labels < 0) | (labels >= K)][0]
        raise DataError(f"labels must be from 0 to {K - 1}, since the model has {K} outputs. Received: {wrong}")
    return labels


LOSSES = {"sparse_categorical_crossentropy": SparseCategoricalCrossentropy}


def get(loss: Any) -> SparseCategoricalCrossentropy:
    """Return a loss given itself or its name.

    Parameters
    ----------
    loss : SparseCategoricalCrossentropy or "sparse_categorical_crossentropy"

    Raises
    ------
    ArgumentError
        If it is neither.

    Examples
    --------
    >>> from minicnn import losses
    >>> losses.get("sparse_categorical_crossentropy").get_config()
    {'from_logits': False, 'label_smoothing': 0.0}
    """
    if isinstance(loss, SparseCategoricalCrossentropy):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ArgumentError(f"unknown loss {loss!r}. Expected one of: {', '.join(LOSSES)}, or a loss object.")
    return LOSSES[loss]()
