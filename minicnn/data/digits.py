"""The embedded default: the 1,797 handwritten digits that scikit-learn carries, as images like CIFAR-10's."""

import numpy as np

from minicnn.data.dataset import Arrays

CLASS_NAMES = [str(digit) for digit in range(10)]


def load_digits() -> tuple[Arrays, Arrays, Arrays]:
    """Return the digits in a fixed, stratified split: of every five of a class, three train, one validates, one tests.

    A pixel of the 8x8 originals, 0 to 16, becomes a square of 4x4 pixels, 0 to 255, the same in all three channels.

    Returns
    -------
    train, validation, test : tuple of two arrays each
        Images (N, 32, 32, 3) uint8 and labels (N,) int32; N is 1,085, 357 and 355.

    References
    ----------
    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.

    Examples
    --------
    >>> from minicnn.data.digits import load_digits
    >>> [images.shape for images, labels in load_digits()]
    [(1085, 32, 32, 3), (357, 32, 32, 3), (355, 32, 32, 3)]
    """
    from sklearn.datasets import load_digits as sklearn_digits

    originals, labels = sklearn_digits(return_X_y=True)
    grey = np.rint(originals.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)  # (N, 8, 8, 1)
    images = grey.repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3)  # (N, 32, 32, 3)
    place = np.empty(len(labels), int)  # of a digit among those of its class
    for digit in range(10):
        place[labels == digit] = np.arange(np.sum(labels == digit))
    train, validation, test = place % 5 < 3, place % 5 == 3, place % 5 == 4  # (N,) each
    labels = labels.astype(np.int32)
    return (images[train], labels[train]), (images[validation], labels[validation]), (images[test], labels[test])
