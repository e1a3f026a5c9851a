"""What every layer is: parameters, a forward and a backward, and a node when it is called on a symbolic tensor."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minicnn import config, kernels, ranks
from minicnn.errors import ArgumentError, DtypeError, ShapeError, StateError

Shape = tuple[int, ...]


@dataclass(eq=False, repr=False)
class Node:
    """A symbolic tensor: the output of `layer` when it is applied to the nodes `inputs`; no numbers yet.

    Parameters
    ----------
    layer : Layer
    inputs : tuple of Node, empty where the graph begins
    output_shape : tuple of int, without the batch axis
    """

    layer: "Layer"
    inputs: tuple["Node", ...]
    output_shape: Shape

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape with the batch axis, which is open: (None, H, W, C)."""
        return (None, *self.output_shape)

    def __repr__(self) -> str:
        return f"<symbolic tensor of {type(self.layer).__name__}, shape={self.shape}>"


class Layer:
    """Base class of all layers.

    A subclass sets `output_shape` and `params` in `build`, computes y in `forward` and keeps there what `backward`
    needs to fill `grads` and to return dx. Shapes in `build` leave the batch axis out.

    Parameters
    ----------
    name : str, optional
        A model gives unnamed layers Keras's names: conv2d, conv2d_1, ...

    Attributes
    ----------
    params, grads : dict of str to numpy.ndarray
        Weights, and dL/dweights after `backward`, by the same names ("kernel", "bias"); may be written in place.
    state : dict of str to numpy.ndarray
        Weights that have no gradient: `forward` itself keeps them, in place, as BatchNormalization its moving averages.
    generator : numpy.random.Generator or None
        What `forward` draws from in training; its state is part of the state of a training.
    input_shape, output_shape : tuple of int
        Without the batch axis; None before `build`.

    Examples
    --------
    A layer of one's own is a forward and a backward:

    >>> import numpy as np
    >>> from minicnn.layers import Layer
    >>> class Square(Layer):
    ...     def forward(self, x, training=False):
    ...         self.x = x
    ...         return x * x
    ...     def backward(self, dy):
    ...         return 2 * self.x * dy
    >>> from minicnn.gradcheck import check_layer
    >>> check_layer(Square(), (4,)).ok
    True
    """

    merges = False  # True if the layer is called on a list of inputs, as Add is
    in_place = False  # True if the layer may write to its input: an activation inside another layer
    generator: np.random.Generator | None = None

    def __init__(self, name: str | None = None) -> None:
        self.name, self.named = name, name is not None
        self.dtype = config.floatx()
        self.params: dict[str, np.ndarray] = {}
        self.grads: dict[str, np.ndarray] = {}
        self.state: dict[str, np.ndarray] = {}
        self.input_shape: Any = None
        self.output_shape: Any = None
        self.batch: int | None = None  # images in the last forward
        self.device = kernels.get_device()  # where the weights are
        self.saved: dict[str, np.ndarray] | None = None  # weights to build with, by name

    def build(self, input_shape: Any) -> "Layer":
        """Return the layer itself, its shapes fixed and its weights made.

        Parameters
        ----------
        input_shape : tuple of int, without the batch axis; for a layer that merges inputs, a list of them

        Raises
        ------
        ShapeError
            If the layer does not take inputs of this shape.
        """
        self.input_shape = self.output_shape = self.check_rank(input_shape, None)
        return self

    def forward(self, x: Any, training: bool = False) -> np.ndarray:
        """Return y (N, ...), of the layer's `output_shape`, for the batch x.

        Parameters
        ----------
        x : array (N, ...) of the shape that the layer was built for; for a layer that merges inputs, a list of them
        training : bool
            Whether the weights are being learned: dropout and augmentation do nothing otherwise, and batch
            normalization takes its moving averages.

        Raises
        ------
        StateError
            If the layer was not built.
        ShapeError, DtypeError
            If x is not an array of that shape, or not of numbers.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, training)")

    def backward(self, dy: np.ndarray) -> Any:
        """Return dx, of x's shape, from dy = dL/dy of the last `forward`, and fill `grads`.

        Parameters
        ----------
        dy : array of the last output's shape

        Raises
        ------
        StateError
            If there was no `forward`.
        ShapeError, DtypeError
            If dy is not an array of that shape.
        """
        raise NotImplementedError(f"{type(self).__name__} must define backward(dy)")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build an equal layer, as plain JSON values."""
        return {}

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """All weights by name, those with a gradient first: the arrays themselves."""
        return self.params | self.state

    def count_params(self) -> int:
        """Return the number of weights."""
        return sum(w.size for w in self.weights.values())

    @property
    def base_name(self) -> str:
        """Class name as Keras spells it in layer names: MaxPooling2D is max_pooling2d."""
        name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(self).__name__)
        return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()

    def __call__(self, inputs: Any) -> Node:
        """Return the symbolic result of applying the layer, which is built if it is new.

        Parameters
        ----------
        inputs : Node; for a layer that merges inputs, a list of them

        Raises
        ------
        ArgumentError, DtypeError
            If there are several inputs where one is expected, or one where several are; if they are not symbolic.
        ShapeError
            If the layer does not take inputs of their shape.
        """
        if isinstance(inputs, (list, tuple)) != self.merges:
            expected = "a list of inputs" if self.merges else "one input"
            raise ArgumentError(f"{self} expects {expected}. Received: {inputs}")
        nodes = tuple(inputs) if self.merges else (inputs,)
        for node in nodes:
            if not isinstance(node, Node):
                raise DtypeError(
                    f"{self} is called on symbolic tensors, as Input(shape) gives. Received: {type(node).__name__}. "
                    "For arrays use layer.forward(x), or put the layer into a model."
                )
        shapes = [node.output_shape for node in nodes]
        self.ensure_built(shapes if self.merges else shapes[0])
        return Node(self, nodes, self.output_shape)

    def ensure_built(self, input_shape: Any) -> None:
        """Build the layer if it is new; otherwise the shape must be the one that it was built for.

        Parameters
        ----------
        input_shape : as in `build`

        Raises
        ------
        ShapeError
            If the layer was built for another shape, or does not take this one.
        """
        if self.input_shape is None:
            self.build(input_shape)
        elif self.input_shape != input_shape:
            raise ShapeError(
                f"{self} was built for inputs of shape {self.input_shape}. Received: {input_shape}. Make a new layer."
            )

    def check(self, x: np.ndarray, cast: bool = True) -> np.ndarray:
        """Return the batch x, unless its shape is wrong, and note its size for `check_gradient`.

        Parameters
        ----------
        x : array (N, ...)
        cast : bool, whether x is returned in the layer's float type

        Raises
        ------
        StateError, DtypeError, ShapeError
            If the layer was not built, x is not an array, or has not the shape that the layer was built for.
        """
        if self.input_shape is None:
            raise StateError(f"{self} has no shapes yet. Call layer.build(input_shape) first, without the batch axis.")
        if not hasattr(x, "dtype"):
            raise DtypeError(f"{self} expects an array. Received: {type(x).__name__}. Convert it with numpy.asarray.")
        if x.shape[1:] != self.input_shape:
            expected = ", ".join(["N", *map(str, self.input_shape)])
            raise ShapeError(f"{self} expects an array of shape ({expected}). Received: {x.shape}")
        self.batch = len(x)
        self.settle()
        x = kernels.here(x)
        return x.astype(self.dtype, copy=False) if cast else x

    def check_each(self, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the batches xs of a layer that merges inputs, each of its shape, as `check` does one.

        Parameters
        ----------
        xs : list of arrays (N, ...)

        Raises
        ------
        StateError, DtypeError, ShapeError
            If the layer was not built, xs are no arrays, have not the shapes that it was built for, or N differs.
        """
        if self.input_shape is None:
            raise StateError(f"{self} has no shapes yet. Call layer.build(input_shapes) first, without the batch axis.")
        if not isinstance(xs, (list, tuple)) or not all(hasattr(x, "dtype") for x in xs):
            received = [type(x).__name__ for x in xs] if isinstance(xs, (list, tuple)) else type(xs).__name__
            raise DtypeError(f"{self} expects a list of arrays. Received: {received}. Convert with numpy.asarray.")
        if [x.shape[1:] for x in xs] != self.input_shape or len({x.shape[:1] for x in xs}) != 1:
            shapes = [x.shape for x in xs]
            raise ShapeError(f"{self} expects the shapes {self.input_shape} and equal batches. Received: {shapes}")
        self.batch = len(xs[0])
        self.settle()
        return [kernels.here(x).astype(self.dtype, copy=False) for x in xs]

    def settle(self) -> None:
        """Bring the weights to the chosen device, unless they are there; gradients of another one are dropped."""
        if self.device != kernels.get_device():
            self.params = {name: kernels.here(param) for name, param in self.params.items()}
            self.state = {name: kernels.here(array) for name, array in self.state.items()}
            self.grads = {}
            self.device = kernels.get_device()

    def check_gradient(self, dy: np.ndarray) -> np.ndarray:
        """Return dy, whose shape is that of the last output, in the layer's float type.

        Parameters
        ----------
        dy : array (N, ...)

        Raises
        ------
        StateError, ShapeError
            If there was no `forward`, or dy is not an array of that shape.
        """
        if self.batch is None or self.device != kernels.get_device():
            raise StateError(
                f"{self}.backward(dy) needs the values of a forward(x) on the same device. Call that first."
            )
        if not hasattr(dy, "dtype") or dy.shape != (self.batch, *self.output_shape):
            expected, received = (self.batch, *self.output_shape), getattr(dy, "shape", type(dy).__name__)
            raise ShapeError(f"{self}.backward expects dy of the last output's shape, {expected}. Received: {received}")
        return kernels.here(dy).astype(self.dtype, copy=False)

    def add_weight(
        self, name: str, shape: Shape, initializer: Callable[..., np.ndarray], trainable: bool = True
    ) -> None:
        """Make the weight of this name, or take it from `saved`: what comes from a file is not drawn first.

        Parameters
        ----------
        name : str
        shape : tuple of int
        initializer : callable (shape, generator, dtype), such as `minicnn.initializers.glorot_uniform`
        trainable : bool, whether it has a gradient: it is then one of `params`, else of `state`

        Raises
        ------
        ShapeError
            If the saved weight has another shape.
        """
        if self.saved is None:
            weight = initializer(shape, config.generator(), self.dtype)
        else:
            weight = self.saved[name].astype(self.dtype)
        if weight.shape != shape:
            raise ShapeError(f"{self} expects its {name} to have the shape {shape}. Received: {weight.shape}")
        (self.params if trainable else self.state)[name] = kernels.here(weight)

    def draw(self, sample: Callable[[int], np.ndarray]) -> np.ndarray:
        """Return what is drawn for the images of the batch, (N, ...): of several ranks' whole batch, this rank's part.

        Parameters
        ----------
        sample : callable, such as ``lambda N: self.generator.random((N, 4))``
        """
        assert self.batch is not None
        N, own = ranks.batch(self.batch)  # with several ranks each draws for all and takes its part
        return sample(N)[own]

    def check_rank(self, input_shape: Any, axes: Sequence[str] | None) -> Shape:
        """Return `input_shape` as a tuple if it has the axes that are expected, all of a positive size.

        Parameters
        ----------
        input_shape : as in `build`
        axes : sequence of str, such as "HWC", or None for any

        Raises
        ------
        ShapeError
            If it has not.
        """
        shape = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else (input_shape,)
        axes = ["..."] * len(shape) if axes is None else axes
        if len(shape) != len(axes) or not all(isinstance(size, (int, np.integer)) and size > 0 for size in shape):
            named = f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"
            raise ShapeError(f"{self} expects inputs of shape {named} without the batch axis. Received: {input_shape}")
        return shape

    def __repr__(self) -> str:
        shown: list[str] = []
        for key, value in self.get_config().items():
            plain = value[0] if isinstance(value, list) and len(set(value)) == 1 and len(value) == 2 else value
            default = inspect.signature(type(self).__init__).parameters[key].default
            if not shown or plain not in (default, "linear"):
                shown.append(f"{key}={plain!r}")
        return f"{type(self).__name__}({', '.join(shown)})"
