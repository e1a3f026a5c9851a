"""A small residual network: a graph with branches, written with the functional interface.

python examples/residual_network.py                   # CIFAR-10 if it can be had, else the embedded digits
python examples/residual_network.py --data PATH       # folders train1..train5 and test, or the binary batches
"""

import numpy as np

import minicnn as keras
from minicnn import callbacks, data, files, layers, models, ranks, schedules
from minicnn.arguments import Parser, add_device, at_least
from minicnn.errors import TrainingError, plain_exit
from minicnn.layers import Node
from minicnn.resume import state_file


def convolve(x: Node, filters: int, size: int, strides: int = 1) -> Node:
    """Convolve and normalize: beta does what a bias would."""
    x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def block(x: Node, filters: int, strides: int = 1) -> Node:
    """Add to x what two convolutions make of it; where the shape changes, x takes a convolution of one pixel."""
    y = layers.ReLU()(convolve(x, filters, 3, strides))
    y = convolve(y, filters, 3)
    if x.shape[1:] != y.shape[1:]:
        x = convolve(x, filters, 1, strides)
    return layers.ReLU()(layers.Add()([x, y]))


def residual_network(classes: int) -> models.Model:
    """Three stages of one block each, with half the pixels and twice the channels from stage to stage."""
    inputs = keras.Input(shape=(32, 32, 3))
    x = layers.RandomFlip("horizontal")(inputs)
    x = layers.RandomTranslation(0.125, 0.125, fill_mode="reflect")(x)
    x = layers.Rescaling(1.0 / 127.5, offset=-1.0)(x)
    x = layers.ReLU()(convolve(x, 16, 3))
    x = block(x, 16)
    x = block(x, 32, strides=2)
    x = block(x, 64, strides=2)
    x = layers.GlobalAveragePooling2D()(x)
    return models.Model(inputs, layers.Dense(classes, activation="softmax")(x), name="residual_network")


def main() -> None:
    parser = Parser(description="Train a small residual network on CIFAR-10.")
    parser.add_argument("--data", metavar="PATH", help="image folders train1..train5 and test, or the binary batches")
    parser.add_argument("--epochs", type=at_least(1), default=30, help="over which the rate rises and falls (30)")
    parser.add_argument("--batch-size", type=at_least(1), default=64, help="images a step (64)")
    parser.add_argument("--seed", type=at_least(0), default=1, help="of weights, order and augmentation (1)")
    parser.add_argument("--output", metavar="FOLDER", default="output", help="where everything is written (output)")
    parser.add_argument("--quiet", action="store_true", help="print the results only")
    parser.add_argument("--resume", action="store_true", help="go on with the training that was broken off there")
    add_device(parser)
    arguments = parser.parse_args()
    verbose = 0 if arguments.quiet or ranks.rank() > 0 else 1  # of several ranks, rank 0 speaks
    keras.set_device(arguments.device)
    keras.utils.set_random_seed(arguments.seed)

    if arguments.resume:
        state_file(arguments.output, resume=True)  # is it there? Reading the images takes longer
    splits = data.load(arguments.data, arguments.batch_size, verbose=bool(verbose))
    output = files.output_folder(arguments.output)

    model = residual_network(len(splits.class_names))
    if verbose:
        model.summary()
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = model.fit(
        splits.train,
        validation_data=splits.validation,
        epochs=arguments.epochs,
        resume=state_file(output, arguments.resume),
        verbose=verbose,
        callbacks=[
            schedules.OneCycle(0.1),
            callbacks.CSVLogger(output / "history.csv"),
            callbacks.TerminateOnNaN(),
        ],
    )
    if not np.isfinite(history.history["loss"][-1]):
        raise TrainingError("the training loss is no longer a number. Expected a finite one: check the images.")
    if ranks.rank() > 0:
        return  # rank 0 evaluates and reports
    model.save(output / "model.safetensors")
    loss, accuracy = model.evaluate(splits.test, verbose=0)
    print(f"Test loss {loss:.4f}, accuracy {accuracy:.2%}. The model is in {output}")


if __name__ == "__main__":
    with plain_exit():
        main()
