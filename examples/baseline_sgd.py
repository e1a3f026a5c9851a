"""The CIFAR-10 baseline, from images to a report: data, network, training, evaluation.

python examples/baseline_sgd.py                      # CIFAR-10 if it can be had, else the embedded digits
python examples/baseline_sgd.py --data PATH          # folders train1..train5 and test, or the binary batches
mpirun -n 4 python examples/baseline_sgd.py          # the same on four ranks, each with its share of every batch
"""

import time

import numpy as np

import minicnn as keras
from minicnn import callbacks, data, evaluation, files, layers, models, ranks
from minicnn.arguments import Parser, add_device, at_least
from minicnn.errors import TrainingError, plain_exit
from minicnn.resume import state_file


def main() -> None:
    parser = Parser(description="Train and evaluate the CIFAR-10 baseline.")
    parser.add_argument("--data", metavar="PATH", help="image folders train1..train5 and test, or the binary batches")
    parser.add_argument("--epochs", type=at_least(1), default=30, help="at most this many: it stops early (30)")
    parser.add_argument("--batch-size", type=at_least(1), default=64, help="images a step (64)")
    parser.add_argument("--seed", type=at_least(0), default=1, help="of the weights and of the order of the images (1)")
    parser.add_argument("--output", metavar="FOLDER", default="output", help="where everything is written (output)")
    parser.add_argument("--quiet", action="store_true", help="print the results only")
    parser.add_argument("--resume", action="store_true", help="go on with the training that was broken off there")
    add_device(parser)
    arguments = parser.parse_args()
    verbose = 0 if arguments.quiet or ranks.rank() > 0 else 1  # of several ranks, rank 0 speaks
    keras.set_device(arguments.device)
    if arguments.device == "auto" and ranks.rank() == 0:
        print(f"Computing on the {keras.get_device().upper()}.")
    keras.utils.set_random_seed(arguments.seed)

    # ---- Data: four training folders, batched one by one; a validation folder; a test folder -----------------------

    if arguments.resume:
        state_file(arguments.output, resume=True)  # is it there? Reading the images takes longer
    splits = data.load(arguments.data, arguments.batch_size, verbose=bool(verbose))
    train_dataset, validation_dataset, test_dataset = splits.train, splits.validation, splits.test
    output = files.output_folder(arguments.output)
    state = state_file(output, arguments.resume)  # written after each epoch, and after Ctrl-C

    # ---- The network: three stages of convolution and pooling, then two dense layers -------------------------------

    inputs = keras.Input(shape=(32, 32, 3))
    x = layers.Rescaling(1.0 / 255)(inputs)
    x = layers.Conv2D(filters=16, kernel_size=3, activation="relu", padding="same")(x)
    x = layers.MaxPooling2D(pool_size=2)(x)
    x = layers.Conv2D(filters=32, kernel_size=3, activation="relu", padding="same")(x)
    x = layers.MaxPooling2D(pool_size=2)(x)
    x = layers.Conv2D(filters=64, kernel_size=3, activation="relu", padding="same")(x)
    x = layers.MaxPooling2D(pool_size=2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="relu")(x)
    outputs = layers.Dense(len(splits.class_names), activation="softmax")(x)
    model = models.Model(inputs=inputs, outputs=outputs, name="model_s")
    if verbose:
        model.summary()

    # ---- Training: SGD with momentum, a lower rate on a plateau, an end when nothing improves ----------------------

    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate=0.01, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    started = time.perf_counter()
    history = model.fit(
        train_dataset,
        validation_data=validation_dataset,
        epochs=arguments.epochs,
        resume=state,
        verbose=verbose,
        callbacks=[
            callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.1, patience=3, verbose=verbose),
            callbacks.EarlyStopping(monitor="val_loss", patience=6, restore_best_weights=True, verbose=verbose),
            callbacks.ModelCheckpoint(
                output / "best_model.safetensors", monitor="val_loss", save_best_only=True, verbose=verbose
            ),
            callbacks.CSVLogger(output / "history.csv"),
            callbacks.TerminateOnNaN(),
        ],
    )
    seconds = time.perf_counter() - started
    if not np.isfinite(history.history["loss"][-1]):
        raise TrainingError("the training loss is no longer a number. Expected a finite one: check the images.")
    if ranks.rank() > 0:
        return  # rank 0 evaluates and reports

    # ---- Evaluation: validation, then the seven test metrics, the figures and the report ---------------------------

    validation_loss, validation_accuracy = model.evaluate(validation_dataset, verbose=0)
    print(f"\nValidation loss {validation_loss:.4f}, accuracy {validation_accuracy:.2%}")

    test_images = np.concatenate([images for images, labels in test_dataset])
    test_labels = np.concatenate([labels for images, labels in test_dataset])
    probabilities = model.predict(test_images, batch_size=arguments.batch_size)
    for name, value in evaluation.test_metrics(test_labels, probabilities).items():
        print(f"Test {name:<20} {value:.2%}")

    report = evaluation.write_report(
        output,
        title="Model S with SGD",
        model=model,
        history=history.history,
        labels=test_labels,
        probabilities=probabilities,
        images=test_images,
        class_names=splits.class_names,
        validation=(validation_loss, validation_accuracy),
        facts={
            "Data": splits.name,
            "Training images": train_dataset.num_samples,
            "Seed": arguments.seed,
            "Batch size": arguments.batch_size,
            "Device": keras.get_device().upper(),
            "Training time": f"{seconds:.0f} s",
        },
    )
    print(f"Model, history and figures are in {output}; open {report}")


if __name__ == "__main__":
    with plain_exit():
        main()
