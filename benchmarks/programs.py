"""The same tasks in minicnn, PyTorch and Keras, each as a function that does the task once.

All compute in float32 from the same bytes: rescaling, forward, backward and the optimizer are in a training step.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.tasks import CONVOLUTIONS, NETWORKS, Task

Step = Callable[[], object]


def prepare(program: str, task: Task, images: np.ndarray, labels: np.ndarray, threads: int) -> Step:
    """Return what does the task once with one of `tasks.PROGRAMS`."""
    if program == "minicnn":
        return minicnn_step(task, images, labels, threads)
    if program == "keras":
        return keras_step(task, images, labels, threads)
    return torch_step(task, images, labels, threads, mode=program.removeprefix("torch").strip())


def network(keras: Any, task: Task) -> Any:
    """Return the model of a task; `keras` may be minicnn, whose names are Keras's."""
    stages, units, modern = NETWORKS[task.name]
    inputs = keras.Input((task.size, task.size, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for stage in stages:
        for filters in stage:
            x = keras.layers.Conv2D(int(task.width * filters), 3, padding="same", activation="relu")(x)
            x = keras.layers.BatchNormalization()(x) if modern else x
        x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.5)(x) if modern else x
    x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(0.5)(x) if modern else x
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))


def optimizer(keras: Any, task: Task) -> Any:
    """Return what the network of a task learns with; `keras` may be minicnn."""
    modern = NETWORKS[task.name].modern
    return keras.optimizers.RMSprop(0.001) if modern else keras.optimizers.SGD(0.01, momentum=0.9)


def maps(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return random x (N, H, W, C) and dy (N, OH, OW, F) for a task that is a convolution."""
    shape, rng = CONVOLUTIONS[task.name], np.random.default_rng(0)
    size = shape.size if shape.padding == "same" else shape.size - shape.kernel + 1
    places = -(-size // shape.strides)
    x = rng.standard_normal((task.batch_size, shape.size, shape.size, shape.channels), np.float32)
    return x, rng.standard_normal((task.batch_size, places, places, shape.filters), np.float32)


def minicnn_step(task: Task, images: np.ndarray, labels: np.ndarray, threads: int) -> Step:
    """Return the task in minicnn."""
    import minicnn

    minicnn.set_num_threads(threads)
    minicnn.utils.set_random_seed(0)
    if task.kind == "convolution":
        shape, (x, dy) = CONVOLUTIONS[task.name], maps(task)
        layer = minicnn.layers.Conv2D(shape.filters, shape.kernel, shape.strides, shape.padding).build(x.shape[1:])
        return lambda: (layer.forward(x, training=True), layer.backward(dy))
    model = network(minicnn, task)
    if task.kind == "predict":
        return lambda: model.predict(images, batch_size=len(images))
    model.compile(optimizer(minicnn, task), metrics=["accuracy"])
    return lambda: model.train_on_batch(images, labels)


def torch_step(task: Task, images: np.ndarray, labels: np.ndarray, threads: int, mode: str) -> Step:
    """Return the task in PyTorch; `mode` is "" (eager), channels_last or compiled."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layout = torch.channels_last if mode == "channels_last" else torch.contiguous_format
    if task.kind == "convolution":
        shape, arrays = CONVOLUTIONS[task.name], maps(task)
        padding = shape.kernel // 2 if shape.padding == "same" else 0
        conv = nn.Conv2d(shape.channels, shape.filters, shape.kernel, shape.strides, padding).to(memory_format=layout)
        maps_in, dy = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=layout) for a in arrays)
        maps_in.requires_grad_()

        def convolve() -> None:
            maps_in.grad = conv.weight.grad = conv.bias.grad = None
            conv(maps_in).backward(dy)

        return convolve

    model = torch_network(task).to(memory_format=layout)
    run = torch.compile(model) if mode == "compiled" else model
    if NETWORKS[task.name].modern:
        optimizer: Any = torch.optim.RMSprop(model.parameters(), lr=0.001, alpha=0.9, eps=1e-7)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.from_numpy(images), torch.from_numpy(labels).long()

    def inputs() -> torch.Tensor:
        return x.permute(0, 3, 1, 2).to(torch.float32, memory_format=layout) / 255  # (N, 3, H, W)

    def train() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(run(inputs()), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    def predict() -> np.ndarray:
        with torch.inference_mode():
            return torch.softmax(run(inputs()), dim=1).numpy()

    model.train(task.kind == "train")
    return predict if task.kind == "predict" else train


def torch_network(task: Task) -> Any:
    """Return the network of a task for PyTorch, up to its logits."""
    from torch import nn

    stages, units, modern = NETWORKS[task.name]
    parts: list[nn.Module] = []
    channels = 3
    for stage in stages:
        for filters in stage:
            parts += [nn.Conv2d(channels, int(task.width * filters), 3, padding=1), nn.ReLU()]
            channels = int(task.width * filters)
            parts += [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)] * modern
        parts.append(nn.MaxPool2d(2))
    places = (task.size // 8) ** 2
    before, between = [nn.Dropout(0.5)] * modern, [nn.Dropout(0.5)] * modern
    parts += [nn.Flatten(), *before, nn.Linear(places * channels, units), nn.ReLU(), *between, nn.Linear(units, 10)]
    return nn.Sequential(*parts)


def keras_step(task: Task, images: np.ndarray, labels: np.ndarray, threads: int) -> Step:
    """Return the task in Keras on TensorFlow, compiled by tf.function.

    Measured, that is its fastest way: ahead of `train_on_batch`, `predict_on_batch` and a plain call of the model, and
    three times as fast as with XLA (jit_compile).
    """
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    import keras

    keras.utils.set_random_seed(0)
    model = network(keras, task)
    x, y = tf.constant(images), tf.constant(labels)
    if task.kind == "predict":
        run = tf.function(lambda x: model(x, training=False))
        return lambda: run(x).numpy()
    loss_of, updates = keras.losses.SparseCategoricalCrossentropy(), optimizer(keras, task)
    weights = model.trainable_variables
    updates.build(weights)

    @tf.function
    def train(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        updates.apply(tape.gradient(loss, weights))
        return loss

    return lambda: float(train(x, y))
