"""The one place where layers that follow one another become one step with a kernel of its own.

The layers stay what they are, with their weights and gradients; only who computes changes. Nothing else in the package
knows about it, and ``model.compile(..., fuse=False)`` runs every layer by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.errors import ShapeError
from minicnn.layers import Conv2D, MaxPooling2D, Node, ReLU


@dataclass(eq=False)
class Step:
    """What runs at once: `layer` takes the values of `inputs` and gives that of `output`."""

    layer: Any
    inputs: tuple[Node, ...]
    output: Node


class ConvReLUPool:
    """Conv2D(F, 3, padding="same", activation="relu") and MaxPooling2D(2) as one step; even sizes only."""

    merges = False

    def __init__(self, conv: Conv2D) -> None:
        self.conv = conv

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y (N, H/2, W/2, F) for x (N, H, W, C)."""
        x, w = self.conv.check(x), self.conv.params["kernel"]
        self.x = x
        b = self.conv.params["bias"] if self.conv.use_bias else np.zeros_like(w, shape=self.conv.filters)
        y, self.argmax = kernels.room(x).conv2d_relu_maxpool2d(x, w, b)
        return y

    def backward(self, dy: np.ndarray, input_gradient: bool = True) -> np.ndarray | None:
        """Return dx (N, H, W, C) for dy (N, H/2, W/2, F) and fill the convolution's `grads`."""
        if dy.shape != self.argmax.shape:
            raise ShapeError(
                f"backward expects dy of the last output's shape, {self.argmax.shape}. Received: {dy.shape}"
            )
        dy = kernels.here(dy).astype(self.conv.dtype, copy=False)
        dx, dw, db = kernels.room(dy).conv2d_relu_maxpool2d_backward(
            dy, self.argmax, self.x, self.conv.params["kernel"], input_gradient
        )
        self.conv.grads["kernel"] = dw
        if "bias" in self.conv.params:
            self.conv.grads["bias"] = db
        return dx


def plan(nodes: Sequence[Node], fuse: bool = True) -> list[Step]:
    """Return the steps that compute the nodes of a graph, which come each after its inputs."""
    consumers: dict[Node, list[Node]] = {node: [] for node in nodes}
    for node in nodes:
        for parent in node.inputs:
            consumers[parent].append(node)
    steps, done = [], set()
    for node in nodes:
        follower = consumers[node][0] if len(consumers[node]) == 1 else None
        if fuse and follower is not None and _is_stage(node, follower):
            steps.append(Step(ConvReLUPool(node.layer), node.inputs, follower))  # type: ignore[arg-type]
            done.add(follower)
        elif node not in done:
            steps.append(Step(node.layer, node.inputs, node))
    return steps


def _is_stage(node: Node, follower: Node) -> bool:
    conv, pool = node.layer, follower.layer
    return (
        type(conv) is Conv2D  # not a subclass, which may compute something else
        and type(pool) is MaxPooling2D
        and (conv.kernel_size, conv.strides, conv.padding) == ((3, 3), (1, 1), "same")
        and type(conv.activation) is ReLU
        and (pool.pool_size, pool.strides) == ((2, 2), (2, 2))
        and conv.input_shape[0] % 2 == conv.input_shape[1] % 2 == 0
    )
