"""Batch normalization: every channel brought to mean 0 and variance 1, then scaled and shifted as is learned."""

from typing import Any

import numpy as np

from minicnn import kernels, ranks
from minicnn.checks import number
from minicnn.errors import ArgumentError
from minicnn.initializers import ones, zeros
from minicnn.layers.base import Layer, Shape


class BatchNormalization(Layer):
    """Normalize each channel, the last axis: y = gamma * (x - mean) / sqrt(variance + epsilon) + beta.

    In training mean and variance are those of the batch, the variance biased, and each step moves the averages that
    are used otherwise: moving = momentum * moving + (1 - momentum) * batch. Since every input of a channel moves its
    mean and variance, with M = N*H*W of them, xhat = (x - mean) * rstd and rstd = 1 / sqrt(variance + epsilon):

    dgamma = sum of dy * xhat, dbeta = sum of dy, dx = gamma * rstd * (dy - dbeta / M - xhat * dgamma / M).

    Parameters
    ----------
    momentum : float in [0, 1]
    epsilon : float > 0
    center, scale : bool, whether there is a beta, a gamma
    synchronized : bool
        Whether ranks that share a batch (`minicnn.ranks`) take mean and variance of the whole batch, as one process
        does, at the cost of two more messages a step. Else each takes those of its share. The moving averages are those
        of all ranks in both cases.
    name : str, optional

    Attributes
    ----------
    params : dict
        "gamma" (C,), ones, and "beta" (C,), zeros.
    state : dict
        "moving_mean" (C,), zeros, and "moving_variance" (C,), ones.

    Raises
    ------
    ArgumentError
        If an argument is not as above.

    References
    ----------
    Ioffe and Szegedy, Batch normalization: accelerating deep network training by reducing internal covariate shift,
    ICML 2015, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import BatchNormalization
    >>> layer = BatchNormalization(epsilon=1e-9).build((1,))
    >>> layer.forward(np.array([[1.0], [3.0]], np.float32), training=True).ravel()
    array([-1.,  1.], dtype=float32)
    >>> layer.state["moving_mean"]
    array([0.02], dtype=float32)
    """

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        synchronized: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.momentum = number("BatchNormalization(momentum)", momentum, 0, 1)
        self.epsilon = number("BatchNormalization(epsilon)", epsilon, 0)
        if self.epsilon == 0:
            raise ArgumentError("BatchNormalization(epsilon) expects a number above 0: a channel may be constant.")
        self.center, self.scale, self.synchronized = bool(center), bool(scale), bool(synchronized)

    def build(self, input_shape: Shape) -> "BatchNormalization":
        """Make gamma, beta and the moving averages for inputs of shape (..., C)."""
        self.input_shape = self.output_shape = self.check_rank(input_shape, None)
        C = self.input_shape[-1:]
        if self.scale:
            self.add_weight("gamma", C, ones)
        if self.center:
            self.add_weight("beta", C, zeros)
        self.add_weight("moving_mean", C, zeros, trainable=False)
        self.add_weight("moving_variance", C, ones, trainable=False)
        return self

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y (N, ..., C) for x (N, ..., C); in training, move the averages."""
        x, self.training = self.check(x), training
        self.x, self.M = x, x.size // x.shape[-1]
        moving = self.state["moving_mean"], self.state["moving_variance"]
        mean, variance = kernels.room(x).moments(x) if training else moving  # (C,) each
        self.together = training and self.synchronized and ranks.shared()
        if self.together:
            mean, variance = self._of_all_ranks(mean, variance)
        if training and self.M:
            for average, now in zip(moving, (mean, variance), strict=True):
                average[...] = self.momentum * average + (1 - self.momentum) * now
        self.mean, self.rstd = mean, (variance + self.epsilon) ** -0.5
        gamma, beta = self.params.get("gamma", 1.0), self.params.get("beta", np.zeros_like(mean))
        return kernels.room(x).normalize(x, mean, gamma * self.rstd, beta)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx (N, ..., C) for dy (N, ..., C) and fill `grads`; through the moving averages nothing flows."""
        dy, x, M = self.check_gradient(dy), self.x, max(1, self.M)
        dbeta, moment = kernels.room(dy).normalize_sums(dy, x, self.mean)  # (C,) each; moment = sum of dy * (x - mean)
        dgamma = moment * self.rstd  # (C,)
        if self.scale:
            self.grads["gamma"] = dgamma.astype(self.dtype)
        if self.center:
            self.grads["beta"] = dbeta.astype(self.dtype)
        if self.together:  # dx depends on the sums over all ranks
            sums = np.zeros_like(dbeta, shape=(2, len(dbeta)))
            sums[0], sums[1] = dbeta, dgamma
            dbeta, dgamma = ranks.add(sums)
        a = self.params.get("gamma", 1.0) * self.rstd  # (C,)
        b, c = (-a * self.rstd * dgamma / M, -a * dbeta / M) if self.training else (0 * a, 0 * a)
        return kernels.room(dy).normalize_backward(dy, x, self.mean, a, b, c)

    def _of_all_ranks(self, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance of the whole batch, (C,) each, from those of this rank's share."""
        C = len(mean)
        sums = np.zeros_like(mean, shape=2 * C + 1)
        sums[:C], sums[C:-1], sums[-1] = self.M * mean, self.M * (variance + mean * mean), self.M
        ranks.add(sums)
        self.M = int(sums[-1])
        mean = sums[:C] / self.M
        return mean, sums[C:-1] / self.M - mean * mean

    def get_config(self) -> dict[str, Any]:
        return {
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "synchronized": self.synchronized,
        }
