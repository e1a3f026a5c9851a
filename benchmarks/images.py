"""Images to train on, without a download: small cuts of the two photographs that scikit-learn carries.

What backward costs minicnn depends on how many pooling windows are alive, so noise would not do; on these, as many are
as on CIFAR-10.
"""

import numpy as np

STEP = 4  # every fourth pixel is taken, so that 32 of them show as much as a small photograph of a thing does


def photographs() -> np.ndarray:
    """Return both photographs, (2, 427, 640, 3) bytes."""
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images)  # (2, 427, 640, 3)


def cuts(photographs: np.ndarray, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, size, size, 3) from random places, and as labels (N,) in which of ten areas each lies."""
    rng = np.random.default_rng(0)
    _, H, W, _ = photographs.shape
    reach = STEP * size
    which = rng.integers(2, size=count)
    tops, lefts = rng.integers(H - reach, size=count), rng.integers(W - reach, size=count)
    places = zip(which, tops, lefts, strict=True)
    images = [photographs[k, i : i + reach : STEP, j : j + reach : STEP] for k, i, j in places]  # (size, size, 3) each
    return np.stack(images), 5 * which + 5 * lefts // (W - reach)  # (N, size, size, 3), (N,)
