"""Models: layers joined to a graph that runs forward, backward, and learns."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minicnn import config, fusion, kernels, losses, optimizers, saving, training
from minicnn import layers as all_layers
from minicnn.callbacks import Callback, History
from minicnn.errors import ArgumentError, DataError, ShapeError, StateError
from minicnn.layers import Conv2D, Dense, Input, InputLayer, Layer, Node, Softmax


class Model:
    """A graph of layers from one input to one output.

    Parameters
    ----------
    inputs : Node
        What `Input` returned.
    outputs : Node
        What the last layer returned.
    name : str

    Attributes
    ----------
    layers : list of Layer
        In the order in which they run, the input first.
    class_names : list of str or None
        Taken from the data set by `fit`, and saved with the model.
    fuse : bool
        Whether layers that have a common kernel run as one; `compile` sets it.
    stop_training : bool
        A callback sets it to end `fit` after the running epoch.

    Raises
    ------
    ArgumentError
        If the graph does not lead from `inputs` to `outputs`, or a layer occurs in it twice.

    Examples
    --------
    A residual block:

    >>> import minicnn
    >>> from minicnn import layers, models
    >>> inputs = minicnn.Input((8, 8, 4))
    >>> x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    >>> x = layers.Add()([inputs, x])
    >>> outputs = layers.Dense(10, activation="softmax")(layers.Flatten()(x))
    >>> model = models.Model(inputs, outputs)
    >>> model.count_params()
    2718
    """

    def __init__(self, inputs: Any, outputs: Any, name: str = "model") -> None:
        self._prepare(name)
        self._connect(_single(inputs, "inputs"), _single(outputs, "outputs"))

    def _prepare(self, name: str) -> None:
        self.name = name
        self.optimizer: Any = None
        self.loss: Any = None
        self.metrics: list[str] = []
        self.class_names: list[str] | None = None
        self.stop_training = False
        self._nodes: list[Node] = []
        self.fuse = True

    def _connect(self, first: Node, last: Node) -> None:
        if not isinstance(first.layer, InputLayer):
            raise ArgumentError(f"Model(inputs) expects what Input(shape) returned. Received: {first!r}")
        nodes = _topological_order(last)
        inputs = [node for node in nodes if isinstance(node.layer, InputLayer)]
        if inputs != [first]:
            raise ArgumentError(
                f"the outputs must be computed from the given input alone. Expected: {first!r}. Found: {inputs}"
            )
        seen: set[Layer] = set()
        learning: set[Node] = set()  # nodes whose output depends on a weight
        for node in nodes:
            if node.layer in seen:
                raise ArgumentError(
                    f"{node.layer} occurs twice in this model, but keeps one batch only. Make two layers."
                )
            seen.add(node.layer)
            if node.layer.params or learning.intersection(node.inputs):
                learning.add(node)
        _name_layers([node.layer for node in nodes])
        self._nodes, self._learning = nodes, learning
        self._steps = fusion.plan(nodes, self.fuse)

    @property
    def layers(self) -> list[Layer]:
        """The layers in the order in which they run."""
        return [node.layer for node in self._nodes]

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return the output (N, K) for one batch; the layers keep what `backward` needs.

        Parameters
        ----------
        x : array (N, H, W, C), or of another shape that the model was built for
        training : bool, passed on to the layers

        Raises
        ------
        ShapeError, DtypeError
            If x has another shape or does not hold numbers.
        """
        self.ensure_built(x)
        values: dict[Node, np.ndarray] = {}
        for step in self._steps:
            inputs = [values[parent] for parent in step.inputs] if step.inputs else [x]
            values[step.output] = step.layer.forward(inputs if step.layer.merges else inputs[0], training)
        output = self._output = values[self._nodes[-1]]
        return output  # not the attribute: another thread may be predicting with the same model

    def backward(self, dy: np.ndarray, from_logits: bool = False, input_gradient: bool = False) -> np.ndarray | None:
        """Fill every layer's `grads` from the gradient of the last output.

        Parameters
        ----------
        dy : array (N, K)
        from_logits : bool, whether dy is the gradient of the last logits instead of the last output
        input_gradient : bool; without it nothing is computed below the first weights

        Returns
        -------
        array (N, H, W, C) or None
            dx, with `input_gradient`.

        Raises
        ------
        StateError, ShapeError
            If there was no `forward`, or dy has not the shape of its output.
        """
        wanted = set(self._nodes) if input_gradient else self._learning
        gradients = {self._nodes[-1]: dy}
        for step in reversed(self._steps[1:]):
            if step.output not in wanted:
                continue
            options: dict[str, bool] = {}
            if from_logits and step.output is self._nodes[-1] and self._softmax() is not None:
                options["from_logits"] = True
            if isinstance(step.layer, (Conv2D, Dense, fusion.ConvReLUPool)):
                options["input_gradient"] = not wanted.isdisjoint(step.inputs)
            dx = step.layer.backward(gradients.pop(step.output), **options)
            for parent, part in zip(step.inputs, dx if step.layer.merges else [dx], strict=True):
                if parent in wanted:
                    gradients[parent] = gradients[parent] + part if parent in gradients else part
        return gradients.get(self._nodes[0])

    def __call__(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return the output (N, K) for one batch, as `forward` does.

        Parameters
        ----------
        x : array-like (N, ...)
        training : as in `forward`

        Raises
        ------
        ArgumentError
            If x is a symbolic tensor: a model is no layer.
        ShapeError, DtypeError
            As in `forward`.
        """
        if isinstance(x, Node):
            raise ArgumentError("a model cannot be a layer of another. Call its layers on the symbolic tensor instead.")
        return self.forward(x if hasattr(x, "dtype") else np.asarray(x), training)

    def logits(self) -> np.ndarray:
        """Return what the last `forward` had before its softmax, (N, K); without a softmax, its output."""
        softmax = self._softmax()
        return self._output if softmax is None else softmax.z

    def _softmax(self) -> Softmax | None:
        last = self._nodes[-1].layer
        last = getattr(last, "activation", last)
        return last if isinstance(last, Softmax) else None

    def compile(
        self,
        optimizer: Any = "sgd",
        loss: Any = "sparse_categorical_crossentropy",
        metrics: Sequence[str] | None = None,
        fuse: bool = True,
    ) -> None:
        """Choose how to learn.

        Parameters
        ----------
        optimizer : Optimizer, "sgd", "rmsprop", "adam" or "adamw"
        loss : SparseCategoricalCrossentropy or "sparse_categorical_crossentropy"
        metrics : sequence of {"accuracy"}, optional
        fuse : bool
            Whether layers that have a common kernel run as one; the results are equal but for rounding.

        Raises
        ------
        ArgumentError
            If a name is unknown, or the loss expects probabilities and the model does not end in a softmax.

        Examples
        --------
        >>> import minicnn
        >>> model = minicnn.models.Sequential([minicnn.Input((4,)), minicnn.layers.Dense(2, activation="softmax")])
        >>> model.compile(minicnn.optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"])
        """
        metrics = [metrics] if isinstance(metrics, str) else list(metrics or [])
        unknown = [metric for metric in metrics if metric != "accuracy"]
        if unknown:
            raise ArgumentError(f'unknown metric {unknown[0]!r}. Expected: "accuracy"')
        optimizer, loss = optimizers.get(optimizer), losses.get(loss)
        if self._nodes:
            self._check_head(loss)
        if optimizer.owner not in (None, self):
            raise ArgumentError(f"{optimizer} has served another model. Make a new one for each model.")
        optimizer.owner = self
        self.optimizer, self.loss, self.metrics = optimizer, loss, ["loss", *metrics]
        self.fuse = fuse
        self._steps = fusion.plan(self._nodes, fuse)

    def _check_head(self, loss: losses.SparseCategoricalCrossentropy) -> None:
        if loss.from_logits == (self._softmax() is not None):
            raise ArgumentError(
                "the loss and the last layer do not fit. Expected a softmax at the end, or "
                "SparseCategoricalCrossentropy(from_logits=True) and none. "
                f"Received: from_logits={loss.from_logits} after {self.layers[-1]}"
            )

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Callback | Sequence[Callback] | None = None,
        validation_data: Any = None,
        shuffle: bool = True,
        initial_epoch: int = 0,
        resume: str | os.PathLike | None = None,
    ) -> History:
        """Train for some epochs.

        Parameters
        ----------
        x : Dataset, iterable of (images, labels), or array (N, H, W, C)
        y : array (N,) of int, optional
            Labels, if x is an array.
        batch_size : int, optional
            Only if x is an array; 32 if None.
        epochs : int
            The number of the last epoch, counted from 1.
        verbose : {"auto", 0, 1, 2}
            0 silent; 1 a bar on a terminal and plain lines elsewhere; 2 a line an epoch; "auto" is 1.
        callbacks : Callback or sequence of Callback, optional
        validation_data : Dataset or (x, y), optional
            Measured after each epoch.
        shuffle : bool
            Whether arrays come in a new order each epoch.
        initial_epoch : int
            How many epochs are done already.
        resume : path, optional
            Where the state of the training is kept, written after each epoch. If the file is there, the training goes
            on from it and ends, bit for bit, where an unbroken one ends. Ctrl-C and SIGTERM then wait for the end of
            the step, and the state is written.

        Returns
        -------
        History
            ``history.history["loss"]`` and so on: one value an epoch.

        Raises
        ------
        StateError
            If the model is not compiled.
        ArgumentError
            If an argument is not as above.
        ShapeError, DataError, DtypeError
            If batches do not fit the model or labels its outputs, or `resume` is a file of another kind.
        DeviceMemoryError
            If the GPU has no room for a batch.
        OutputError
            If the state cannot be written.

        Examples
        --------
        >>> import minicnn, numpy as np
        >>> minicnn.utils.set_random_seed(0)
        >>> model = minicnn.models.Sequential([minicnn.Input((2,)), minicnn.layers.Dense(2, activation="softmax")])
        >>> model.compile(minicnn.optimizers.SGD(0.5), metrics=["accuracy"])
        >>> x = np.array([[0, 1], [1, 0]], np.float32)
        >>> history = model.fit(x, np.array([0, 1]), epochs=50, verbose=0)
        >>> history.history["loss"][-1] < history.history["loss"][0]
        True
        """
        self._require_compiled("fit")
        return training.fit(
            self, x, y, batch_size, epochs, verbose, callbacks, validation_data, shuffle, initial_epoch, resume
        )

    def evaluate(
        self, x: Any, y: Any = None, batch_size: int | None = None, verbose: int | str = "auto"
    ) -> list[float]:
        """Return the loss and the compiled metrics, in their order; the weights stay.

        Parameters
        ----------
        x, y, batch_size, verbose : as in `fit`

        Raises
        ------
        StateError, ArgumentError, ShapeError, DataError, DtypeError, DeviceMemoryError
            As in `fit`.
        """
        self._require_compiled("evaluate")
        return training.evaluate(self, x, y, batch_size, verbose)

    def predict(self, x: Any, batch_size: int | None = None, verbose: int | str = 0) -> np.ndarray:
        """Return the outputs (N, K).

        Parameters
        ----------
        x : as in `fit`; labels in it are ignored
        batch_size, verbose : as in `fit`

        Raises
        ------
        ArgumentError, ShapeError, DataError, DtypeError
            If an argument is not as above, the batches do not fit the model, or there are none.
        DeviceMemoryError
            As in `fit`.
        """
        return training.predict(self, x, batch_size, verbose)

    def train_on_batch(self, x: np.ndarray, y: np.ndarray) -> list[float]:
        """Update the weights once from one batch.

        Parameters
        ----------
        x : array (N, H, W, C), or of another shape that the model was built for
        y : array (N,) of int

        Returns
        -------
        list of float
            The loss and the compiled metrics of the batch, from before the update.

        Raises
        ------
        StateError
            If the model is not compiled, or its optimizer served another.
        ShapeError, DataError, DtypeError
            If the batch does not fit the model or labels its outputs.
        DeviceMemoryError
            If the GPU has no room for it.
        """
        self._require_compiled("train_on_batch")
        return list(training.Running(self.metrics).add(*training.train_step(self, np.asarray(x), y)).values())

    def weights(self) -> list[np.ndarray]:
        """Return the weights themselves, in layer order, kernel before bias; the layers tell their shapes."""
        return [w for layer in self.layers for w in layer.weights.values()]

    def trainable_weights(self) -> list[np.ndarray]:
        """Return those of the `weights` that have a gradient, in the same order and shapes: without moving averages."""
        return [param for layer in self.layers for param in layer.params.values()]

    def gradients(self) -> list[np.ndarray]:
        """Return the gradients that the last `backward` left, in the order and shapes of `trainable_weights`.

        Raises
        ------
        StateError
            If there was none.
        """
        if any(layer.params.keys() - layer.grads.keys() for layer in self.layers):
            raise StateError("there are no gradients yet. Call forward and backward, or train_on_batch, first.")
        return [layer.grads[name] for layer in self.layers for name in layer.params]

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of the weights as NumPy arrays, in layer order, kernel before bias, in Keras's shapes."""
        return [np.array(kernels.on_host(w)) for w in self.weights()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Copy the given arrays into the weights.

        Parameters
        ----------
        weights : sequence of arrays, in the order and shapes of `get_weights`

        Raises
        ------
        ShapeError
            If their number or a shape differs; nothing is changed then.
        """
        for layer in self.layers:
            layer.settle()
        new, own = [np.asarray(kernels.on_host(w)) for w in weights], self.weights()
        if [w.shape for w in new] != [w.shape for w in own]:
            raise ShapeError(
                f"set_weights expects arrays of shapes {[w.shape for w in own]}. Received: {[w.shape for w in new]}"
            )
        for target, w in zip(own, new, strict=True):
            target[...] = kernels.here(w)

    def count_params(self) -> int:
        """Return the number of weights."""
        return sum(layer.count_params() for layer in self.layers)

    def save(self, path: str | os.PathLike) -> None:
        """Write architecture, weights and how the model was compiled to one safetensors file, whatever its name.

        Parameters
        ----------
        path : path

        Raises
        ------
        StateError, ArgumentError
            If the model has no shapes yet, or layers that are not minicnn's.
        OutputError
            If the file cannot be written.
        """
        saving.write(path, self.named_weights(), self.get_config())

    def save_weights(self, path: str | os.PathLike) -> None:
        """Write the weights alone to a safetensors file.

        Parameters
        ----------
        path : path

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        saving.write(path, self.named_weights(), {})

    def load_weights(self, path: str | os.PathLike) -> None:
        """Read weights that `save` or `save_weights` of an equal model wrote.

        Parameters
        ----------
        path : path

        Raises
        ------
        DataNotFoundError, DataError, DtypeError
            If the file is missing or damaged, or `path` is not a path.
        ShapeError
            If names or shapes differ: all differences are listed and nothing is changed.
        """
        tensors, _ = saving.read(path)
        own = self.named_weights()
        wrong = [f"{name}: {own[name].shape} expected, missing" for name in own if name not in tensors]
        wrong += [f"{name}: not in the model" for name in tensors if name not in own]
        wrong += [
            f"{name}: {own[name].shape} expected, received {tensors[name].shape}"
            for name in own
            if name in tensors and tensors[name].shape != own[name].shape
        ]
        if wrong:
            raise ShapeError(f"the weights in {path} do not fit the model: " + "; ".join(wrong))
        self.set_weights([tensors[name] for name in own])

    def named_weights(self) -> dict[str, np.ndarray]:
        """Return the weights as NumPy arrays, in the shapes of `get_weights`, by layer and name: "conv2d/kernel"."""
        named = ((f"{layer.name}/{name}", w) for layer in self.layers for name, w in layer.weights.items())
        return {name: kernels.on_host(w) for name, w in named}

    def get_config(self) -> dict[str, Any]:
        """Return what `load_model` needs to build an equal model, as plain JSON values.

        Raises
        ------
        StateError, ArgumentError
            As in `save`.
        """
        if not self._nodes:
            raise StateError("the model has no shapes yet. Call build(input_shape), or fit, before it is saved.")
        for layer in self.layers:
            if type(layer) is not getattr(all_layers, type(layer).__name__, None):
                raise ArgumentError(
                    f"{layer} is not one of minicnn's layers, so load_model could not build it. "
                    "Use save_weights, and load_weights into a model that you build in the same way."
                )
        index = {node: i for i, node in enumerate(self._nodes)}
        compiled = None
        if self.optimizer is not None:
            optimizer = {"class": type(self.optimizer).__name__, **self.optimizer.get_config()}
            compiled = {"optimizer": optimizer, "loss": self.loss.get_config(), "metrics": self.metrics[1:]} | {
                "fuse": self.fuse
            }
        return {
            "name": self.name,
            "class_names": self.class_names,
            "layers": [
                {
                    "class": type(node.layer).__name__,
                    "name": node.layer.name,
                    "dtype": node.layer.dtype,
                    "inputs": [index[parent] for parent in node.inputs],
                    "config": node.layer.get_config(),
                }
                for node in self._nodes
            ],
            "compiled": compiled,
        }

    def summary(self, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print a table of the layers, their output shapes and their numbers of weights.

        Parameters
        ----------
        print_fn : callable, optional
            Gets each line; `print` if None.

        Examples
        --------
        >>> import minicnn
        >>> model = minicnn.models.Sequential([minicnn.Input((4,)), minicnn.layers.Dense(2)])
        >>> model.summary()
        Model: "sequential"
        _________________________________________________
        Layer (type)              Output shape    Param #
        =================================================
        input_layer (InputLayer)  (None, 4)             0
        dense (Dense)             (None, 2)            10
        =================================================
        Total params: 10 (40.00 B)
        """
        show = print if print_fn is None else print_fn
        branches = any(node.layer.merges for node in self._nodes)
        header = ["Layer (type)", "Output shape", "Param #"] + ["Connected to"] * branches
        rows = []
        for node in self._nodes:
            layer = node.layer
            row = [f"{layer.name} ({type(layer).__name__})", str(node.shape), f"{layer.count_params():,}"]
            rows.append(row + [", ".join(str(parent.layer.name) for parent in node.inputs)] * branches)
        widths = [max(len(row[i]) for row in [header, *rows]) + 2 * (i != 2) for i in range(len(header))]
        widths[1] += 2

        def line(row: list[str]) -> str:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            cells[2] = row[2].rjust(widths[2]) + "  " * branches
            return "".join(cells)

        size = len(line(header).rstrip())
        show(f'Model: "{self.name}"')
        show("_" * size)
        show(line(header).rstrip())
        show("=" * size)
        for row in rows:
            show(line(row).rstrip())
        show("=" * size)
        groups = {"Total": self.weights()}
        if any(layer.state for layer in self.layers):
            groups["Trainable"] = self.trainable_weights()
            groups["Non-trainable"] = [w for layer in self.layers for w in layer.state.values()]
        for name, weights in groups.items():
            show(f"{name} params: {sum(w.size for w in weights):,} ({_bytes(sum(w.nbytes for w in weights))})")

    def ensure_built(self, x: Any) -> None:
        """Do nothing, since a graph knows its shapes; a `Sequential` without an input learns them here.

        Parameters
        ----------
        x : array (N, ...)
        """

    def _require_compiled(self, method: str) -> None:
        if self.optimizer is None:
            raise StateError(f'call model.compile(optimizer, loss, metrics=["accuracy"]) before model.{method}.')

    def __repr__(self) -> str:
        return f'<{type(self).__name__} "{self.name}": {len(self.layers)} layers, {self.count_params():,} weights>'


class Sequential(Model):
    """A model whose layers follow one another.

    Parameters
    ----------
    layers : sequence of Layer
        Begins with ``Input(shape)``; without one, the first batch tells the shape.
    name : str

    Raises
    ------
    ArgumentError
        If an element is not a layer, or a layer occurs twice.

    Examples
    --------
    >>> import minicnn
    >>> from minicnn import layers
    >>> model = minicnn.models.Sequential([minicnn.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)])
    >>> model
    <Sequential "sequential": 3 layers, 195 weights>
    """

    def __init__(self, layers: Sequence[Any] = (), name: str = "sequential") -> None:
        self._waiting: list[Layer] = []  # for the shape of the input
        self._prepare(name)
        for layer in layers:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Append a layer.

        Parameters
        ----------
        layer : Layer, or what `Input` returned if it is the first

        Raises
        ------
        ArgumentError
            If it is neither, or is in the model already.
        ShapeError
            If it does not take inputs of the last layer's output shape.
        """
        if isinstance(layer, Node) and isinstance(layer.layer, InputLayer) and not self._nodes and not self._waiting:
            self._connect(layer, layer)
        elif not isinstance(layer, Layer):
            raise ArgumentError(f"Sequential expects layers, the first may be Input(shape). Received: {layer!r}")
        elif self._nodes:
            self._connect(self._nodes[0], layer(self._nodes[-1]))
        else:
            self._waiting.append(layer)

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Fix the shapes and make the weights.

        Parameters
        ----------
        input_shape : tuple of int, without the batch axis

        Raises
        ------
        ShapeError, ArgumentError
            If a layer does not take inputs of its shape, or the model does not fit the loss that it was compiled with.
        """
        first = last = Input(input_shape)
        for layer in self._waiting:
            last = layer(last)
        self._connect(first, last)
        if self.loss is not None:
            self._check_head(self.loss)

    def ensure_built(self, x: Any) -> None:
        """Build the model for batches like x if that has not been done.

        Raises
        ------
        ShapeError, ArgumentError
            As in `build`.
        """
        if not self._nodes:
            self.build(np.shape(x)[1:])


def load_model(path: str | os.PathLike) -> Model:
    """Return the model that `Model.save` wrote: architecture, weights, optimizer, loss and class names.

    Parameters
    ----------
    path : path

    Raises
    ------
    DtypeError
        If `path` is not a path.
    DataNotFoundError
        If there is no such file.
    DataError
        If it is not a model of this package, or is damaged.

    Examples
    --------
    >>> import tempfile, minicnn
    >>> model = minicnn.models.Sequential([minicnn.Input((4,)), minicnn.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model.safetensors")
    ...     minicnn.models.load_model(f"{folder}/model.safetensors")
    <Model "sequential": 2 layers, 10 weights>
    """
    tensors, description = saving.read(path)
    if not description:
        raise DataError(f"{path} holds weights only. Expected a file of model.save(path), which keeps the layers too.")
    try:
        return _from_config(description, tensors)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, MemoryError) as error:
        raise DataError(f"{path} does not describe a model that can be built: {error}. Save the model again.") from None


def _from_config(description: dict[str, Any], tensors: dict[str, np.ndarray]) -> Model:
    nodes: list[Node] = []
    saved: dict[str, dict[str, np.ndarray]] = defaultdict(dict)  # weights by layer
    for name, w in tensors.items():
        owner, _, own = name.rpartition("/")
        saved[owner][own] = w
    for entry in description["layers"]:
        _check_name(entry["name"])
        kind = getattr(all_layers, entry["class"]) if entry["class"] in all_layers.__all__ else None
        if not (isinstance(kind, type) and issubclass(kind, Layer)):
            raise ArgumentError(f"unknown layer {entry['class']!r}")
        with config.using_floatx(entry["dtype"]):
            layer = kind(**entry["config"], name=entry["name"])
        layer.saved = saved.get(entry["name"], {})
        parents = [nodes[i] for i in entry["inputs"]]
        if isinstance(layer, InputLayer):
            nodes.append(Node(layer, (), layer.output_shape))
        else:
            nodes.append(layer(parents if layer.merges else parents[0]))
        layer.saved = None
    model = Model(nodes[0], nodes[-1], _check_name(description["name"]))
    names = model.class_names = description["class_names"]
    if names is not None and not (isinstance(names, list) and [_check_name(name) for name in names]):
        raise ArgumentError(f"expected a list of the classes' names. Received: {names!r}")
    if (compiled := description["compiled"]) is not None:
        options = dict(compiled["optimizer"])
        with config.using_floatx(nodes[-1].layer.dtype):
            optimizer = optimizers.OPTIMIZERS[options.pop("class").lower()](**options)
        model.compile(
            optimizer, losses.SparseCategoricalCrossentropy(**compiled["loss"]), compiled["metrics"], compiled["fuse"]
        )
    return model


def _check_name(name: Any) -> str:
    """Return a name that may be printed: what a file holds could be an order to the terminal."""
    if not isinstance(name, str) or not name.isprintable():
        raise ArgumentError(f"expected a printable name. Received: {name!r}")
    return name


def _single(value: Any, what: str) -> Node:
    node = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
    if not isinstance(node, Node):
        raise ArgumentError(f"Model({what}) expects one symbolic tensor. Received: {value!r}")
    return node


def _topological_order(last: Node) -> list[Node]:
    """Return the nodes that `last` depends on, each after its inputs; without recursion, so that depth is no limit."""
    order: list[Node] = []
    stack = [(last, False)]
    seen: set[Node] = set()
    while stack:
        node, finished = stack.pop()
        if finished:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(node.inputs))
    return order


def _name_layers(layers: Sequence[Layer]) -> None:
    """Give layers without a name of the user's Keras's names, counted within the model: conv2d, conv2d_1, ..."""
    given = [layer.name for layer in layers if layer.named]
    if len(set(given)) < len(given):
        raise ArgumentError(f"layer names must differ. Received: {given}")
    taken, counts = set(given), Counter[str]()
    for layer in layers:
        while not layer.named and (layer.name is None or layer.name in taken):
            number = counts[layer.base_name]
            counts[layer.base_name] += 1
            layer.name = layer.base_name + f"_{number}" * (number > 0)
        taken.add(layer.name)


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} GB"
