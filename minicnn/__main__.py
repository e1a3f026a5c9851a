"""The command line: train, evaluate, predict, gradcheck, profile."""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from minicnn import baseline, callbacks, data, files, layers, losses, models, optimizers, ranks, resume, utils
from minicnn.arguments import Parser, add_device, at_least
from minicnn.data.folders import read_images
from minicnn.errors import DataError, ShapeError, TrainingError, plain_exit
from minicnn.kernels import devices, threads


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0, or 1 if a gradient is wrong.

    Examples
    --------
    >>> from minicnn.__main__ import main
    >>> main(["predict", "no-such.safetensors", "cat.png"])
    Traceback (most recent call last):
        ...
    SystemExit: 2
    """
    parser = Parser(prog="python -m minicnn", description="A convolutional network, written out.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("train", help="train Model S and save it")
    command.add_argument("--data", metavar="PATH", help="image folders train1..train5 and test, or CIFAR-10's batches")
    command.add_argument("--epochs", type=at_least(1), default=30, help="at most this many (30)")
    command.add_argument("--batch-size", type=at_least(1), default=64, help="images a step (64)")
    command.add_argument("--learning-rate", type=float, default=0.01, help="of SGD with momentum 0.9 (0.01)")
    command.add_argument(
        "--seed", type=at_least(0), default=1, help="of the weights and of the order of the images (1)"
    )
    command.add_argument("--output", default="output", metavar="FOLDER", help="for model and history (output)")
    command.add_argument("--quiet", action="store_true", help="print the results only")
    command.add_argument("--resume", action="store_true", help="go on with the training that was broken off there")
    command.set_defaults(run=train)

    command = commands.add_parser("evaluate", help="measure a saved model on the test images")
    command.add_argument("model", metavar="MODEL", help="a file that train or model.save wrote")
    command.add_argument("--data", metavar="PATH", help="as for train")
    command.set_defaults(run=evaluate)

    command = commands.add_parser("predict", help="classify image files")
    command.add_argument("model", metavar="MODEL", help="a file that train or model.save wrote")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="any image file: it is resized")
    command.set_defaults(run=predict)

    command = commands.add_parser("gradcheck", help="compare every gradient with finite differences")
    command.add_argument(
        "--entries", type=at_least(0), default=64, help="random entries a tensor of Model S; 0 is all (64)"
    )
    command.add_argument("--seed", type=at_least(0), default=0, help="of weights and inputs (0)")
    command.set_defaults(run=gradcheck)

    command = commands.add_parser("profile", help="show where the time of a training step goes")
    command.add_argument("model", metavar="MODEL", nargs="?", help="a file that train or model.save wrote (Model S)")
    command.add_argument("--batch-size", type=at_least(1), default=64, help="images a step (64)")
    command.add_argument("--steps", type=at_least(1), default=20, help="how many are measured (20)")
    command.add_argument("--threads", type=at_least(1), metavar="N", help="of the kernels (all cores)")
    command.set_defaults(run=profile)

    for name in ("train", "evaluate", "predict", "gradcheck"):
        add_device(commands.choices[name])
    arguments = parser.parse_args(argv)
    device = getattr(arguments, "device", "cpu")
    with plain_exit(), devices.device(device):
        if device == "auto":
            print(f"Computing on the {devices.get_device().upper()}.")
        return arguments.run(arguments)


def train(arguments: argparse.Namespace) -> int:
    """Train Model S; write the best model and the history."""
    verbose = 0 if arguments.quiet or ranks.rank() > 0 else 1
    utils.set_random_seed(arguments.seed)
    optimizer = optimizers.SGD(arguments.learning_rate, momentum=0.9)
    if arguments.resume:
        resume.state_file(arguments.output, resume=True)  # is it there? Reading the images takes longer
    splits = data.load(arguments.data, arguments.batch_size, verbose=bool(verbose))
    output = files.output_folder(arguments.output)
    model = baseline.model_s(len(splits.class_names))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    path = output / "best_model.safetensors"
    history = model.fit(
        splits.train,
        validation_data=splits.validation,
        epochs=arguments.epochs,
        resume=resume.state_file(output, arguments.resume),
        verbose=verbose,
        callbacks=[
            callbacks.ReduceLROnPlateau(patience=3, verbose=verbose),
            callbacks.EarlyStopping(patience=6, restore_best_weights=True, verbose=verbose),
            callbacks.CSVLogger(output / "history.csv"),
            callbacks.TerminateOnNaN(),
        ],
    )
    if not np.isfinite(history.history["loss"][-1]):
        raise TrainingError(
            "the training loss is no longer a number. Expected a finite one: "
            f"take a smaller --learning-rate than {arguments.learning_rate:g}, or check the images."
        )
    if ranks.rank() > 0:
        return 0
    model.save(path)
    loss, accuracy = model.evaluate(splits.validation, verbose=0)
    print(f"Validation loss {loss:.4f}, accuracy {accuracy:.2%}. The model is in {path}")
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Print loss and metrics of a saved model on the test images."""
    from minicnn import evaluation

    model = models.load_model(arguments.model)
    splits = data.load(arguments.data)
    if model.class_names not in (None, splits.class_names):
        raise DataError(
            f"the classes of the data are not those that {arguments.model} knows. "
            f"Expected: {', '.join(model.class_names)}. Received: {', '.join(splits.class_names)}"
        )
    test = splits.test
    if model.optimizer is None:
        model.compile(metrics=["accuracy"])
    print(f"Test loss                 {model.evaluate(test, verbose=0)[0]:.4f}")
    labels = np.concatenate([labels for _, labels in test])  # (N,)
    for name, value in evaluation.test_metrics(labels, model.predict(test)).items():
        print(f"Test {name:<20} {value:.2%}")
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Print the three most probable classes of each image."""
    from minicnn.evaluation import display_name

    model = models.load_model(arguments.model)
    shape = model.layers[0].output_shape
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ShapeError(f"{arguments.model} does not take images: expected inputs (H, W, 1 or 3). Received: {shape}")
    mode = "rgb" if shape[2] == 3 else "grayscale"
    images = read_images(arguments.images, shape[:2], mode, photos=True)  # (N, H, W, C)
    probabilities = model.predict(images)  # (N, K)
    if probabilities.ndim != 2 or not (abs(probabilities.sum(axis=1) - 1) < 1e-3).all():
        raise DataError(f"{arguments.model} gives no probabilities. Expected a model whose last layer is a softmax.")
    names = model.class_names or [str(k) for k in range(probabilities.shape[1])]
    for path, p in zip(arguments.images, probabilities, strict=True):
        best = np.argsort(-p, kind="stable")[:3]
        print(f"{path}: " + ", ".join(f"{display_name(names[k])} {p[k]:.1%}" for k in best))
    return 0


def gradcheck(arguments: argparse.Namespace) -> int:
    """Print the worst relative error of every tensor of every layer, of a residual network and of Model S."""
    from minicnn.gradcheck import HEADER, check_layer, check_model

    utils.set_random_seed(arguments.seed)
    checks = [partial(check_layer, layer, shape) for layer, shape in _layers()]
    checks.append(partial(check_model, _residual_network(), name="residual network, smoothed loss"))
    model_s, entries = baseline.model_s(), arguments.entries or None
    checks.append(partial(check_model, model_s, max_entries=entries, name="Model S and loss"))
    print(HEADER)
    reports = []
    for check in checks:
        reports.append(check(seed=arguments.seed))
        print(reports[-1], flush=True)
    count, wrong = sum(len(report.rows) for report in reports), sum(len(report.wrong) for report in reports)
    worst = max(report.worst for report in reports)
    print(f"\n{count - wrong} of {count} tensors agree with finite differences; worst relative error {worst:.1e}")
    return 1 if wrong else 0


def profile(arguments: argparse.Namespace) -> int:
    """Print milliseconds, operations and bytes of each step of a saved model, or of Model S."""
    from minicnn import profiler

    if arguments.threads:
        threads.set_num_threads(arguments.threads)
    if arguments.model:
        model = models.load_model(arguments.model)
        images, labels = _examples(model, arguments.batch_size)
    else:
        utils.set_random_seed(0)
        model = baseline.model_s()
        model.compile(optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"])
        images, labels = _examples(model, arguments.batch_size)
        for _ in range(20):  # a network that learns has other live windows than one at its random start
            model.train_on_batch(images, labels)
    found = profiler.profile(model, images, labels, arguments.steps)
    count = threads.get_num_threads()
    print(
        f"{model.name}, training step, batch {len(images)}, {count} thread{'s' * (count > 1)}, "
        f"median of {arguments.steps} step{'s' * (arguments.steps > 1)}"
    )
    print(found)
    return 0


def _examples(model: models.Model, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the embedded digits in the size and with the channels that a model expects; noise if not images."""
    (shape, outputs), rng = (model.layers[i].output_shape for i in (0, -1)), np.random.default_rng(0)
    digits, labels = data.digits.load_digits()[0]  # (M, 32, 32, 3), (M,)
    which = np.arange(count) % len(digits)
    if len(shape) != 3:
        return rng.standard_normal((count, *shape), np.float32), labels[which] % outputs[-1]
    rows, columns = (np.arange(size) * 32 // size for size in shape[:2])  # the nearest of the 32
    images = digits[..., :1][which][:, rows][:, :, columns]  # (N, H, W, 1)
    return images.repeat(shape[2], axis=3), labels[which] % outputs[-1]


def _layers() -> list[tuple[layers.Layer, Any]]:
    """Return every layer in the forms that differ, with small input shapes that no size divides evenly."""
    return [
        (layers.Conv2D(4, 3, padding="same", activation="relu"), (7, 6, 3)),
        (layers.Conv2D(3, 3), (6, 7, 2)),
        (layers.Conv2D(3, 3, strides=2, padding="same", use_bias=False), (8, 7, 2)),
        (layers.Conv2D(2, (5, 2), strides=(2, 1), padding="same"), (7, 5, 3)),
        (layers.Conv2D(3, 1, activation="softmax"), (4, 5, 2)),
        (layers.MaxPooling2D(2), (7, 6, 3)),
        (layers.MaxPooling2D(3, strides=2, padding="same"), (8, 7, 2)),
        (layers.MaxPooling2D((2, 3), strides=1), (5, 6, 2)),
        (layers.Dense(4), (6,)),
        (layers.Dense(4, activation="relu", use_bias=False), (6,)),
        (layers.Dense(4, activation="softmax"), (6,)),
        (layers.ReLU(), (4, 5, 2)),
        (layers.Softmax(), (7,)),
        (layers.Flatten(), (3, 4, 2)),
        (layers.Rescaling(1 / 255, offset=-0.5), (3, 4, 2)),
        (layers.Add(), [(3, 4, 2)] * 3),
        (layers.BatchNormalization(), (5, 4, 3)),
        (layers.BatchNormalization(epsilon=0.1, scale=False), (7,)),
        (layers.Dropout(0.4), (4, 5, 2)),
        (layers.RandomFlip(), (4, 5, 2)),
        (layers.RandomTranslation(0.5, 0.4), (5, 6, 2)),
        (layers.RandomTranslation(0.5, (-1, 0), fill_mode="constant"), (5, 6, 2)),
        (layers.RandomTranslation(0.5, 0.5, fill_mode="nearest"), (4, 3, 2)),
        (layers.RandomCrop(3, 4), (4, 6, 2)),
        (layers.RandomCutout(0.5, 0.5), (5, 4, 2)),
        (layers.AveragePooling2D(2), (7, 6, 3)),
        (layers.AveragePooling2D(3, strides=2, padding="same"), (8, 7, 2)),
        (layers.AveragePooling2D((2, 3), strides=1, padding="same"), (5, 6, 2)),
        (layers.GlobalAveragePooling2D(), (5, 4, 3)),
        (layers.GELU(), (4, 5, 2)),
        (layers.Conv2D(3, 3, activation="gelu"), (6, 5, 2)),
        (layers.LeakyReLU(), (4, 5, 2)),
        (layers.Concatenate(), [(3, 4, 2), (3, 4, 1), (3, 4, 3)]),
        (layers.Concatenate(axis=1), [(2, 3), (4, 3)]),
    ]


def _residual_network() -> models.Model:
    inputs = layers.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.Add()([x, layers.Conv2D(4, 3, padding="same")(y)])
    x = layers.Flatten()(layers.MaxPooling2D(2)(layers.ReLU()(x)))
    model = models.Model(inputs, layers.Dense(5, activation="softmax")(x))
    model.compile(loss=losses.SparseCategoricalCrossentropy(label_smoothing=0.1))
    return model


if __name__ == "__main__":
    raise SystemExit(main())
