"""The next network, Model M: six convolutions, batch normalization, dropout, RMSprop; with or without augmentation.

python examples/model_m_rmsprop.py                    # CIFAR-10 if it can be had, else the embedded digits
python examples/model_m_rmsprop.py --augment          # each image flipped and moved anew each time
python examples/model_m_rmsprop.py --data PATH        # folders train1..train5 and test, or the binary batches
"""

import time

import numpy as np

import minicnn as keras
from minicnn import callbacks, data, evaluation, files, layers, models, ranks, schedules
from minicnn.arguments import Parser, add_device, at_least
from minicnn.errors import TrainingError, plain_exit
from minicnn.resume import state_file


def main() -> None:
    parser = Parser(description="Train and evaluate Model M on CIFAR-10.")
    parser.add_argument("--data", metavar="PATH", help="image folders train1..train5 and test, or the binary batches")
    parser.add_argument("--augment", action="store_true", help="flip and move each training image at random")
    parser.add_argument("--epochs", type=at_least(1), default=30, help="the rate falls to 0 over this many (30)")
    parser.add_argument("--batch-size", type=at_least(1), default=64, help="images a step (64)")
    parser.add_argument("--seed", type=at_least(0), default=1, help="of weights, order, dropout and augmentation (1)")
    parser.add_argument("--output", metavar="FOLDER", default="output", help="where everything is written (output)")
    parser.add_argument("--quiet", action="store_true", help="print the results only")
    parser.add_argument("--resume", action="store_true", help="go on with the training that was broken off there")
    add_device(parser)
    arguments = parser.parse_args()
    verbose = 0 if arguments.quiet or ranks.rank() > 0 else 1  # of several ranks, rank 0 speaks
    keras.set_device(arguments.device)
    keras.utils.set_random_seed(arguments.seed)

    # ---- Data: as in the baseline ----------------------------------------------------------------------------------

    if arguments.resume:
        state_file(arguments.output, resume=True)  # is it there? Reading the images takes longer
    splits = data.load(arguments.data, arguments.batch_size, verbose=bool(verbose))
    output = files.output_folder(arguments.output)
    state = state_file(output, arguments.resume)  # written after each epoch, and after Ctrl-C

    # ---- The network: three stages of two convolutions, each normalized; dropout before the dense layers -----------

    inputs = x = keras.Input(shape=(32, 32, 3))
    if arguments.augment:  # in training only; on bytes, which are a quarter of the floats to move
        x = layers.RandomFlip("horizontal")(x)
        x = layers.RandomTranslation(0.125, 0.125, fill_mode="reflect")(x)  # by up to 4 pixels
    x = layers.Rescaling(1.0 / 255)(x)
    for filters in (32, 64, 128):
        for _ in range(2):
            x = layers.Conv2D(filters=filters, kernel_size=3, activation="relu", padding="same")(x)
            x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D(pool_size=2)(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Dense(256, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    outputs = layers.Dense(len(splits.class_names), activation="softmax")(x)
    model = models.Model(inputs=inputs, outputs=outputs, name="model_m")
    if verbose:
        model.summary()

    # ---- Training: RMSprop, its rate on half a cosine from 0.001 down to 0 -----------------------------------------

    model.compile(
        optimizer=keras.optimizers.RMSprop(learning_rate=0.001),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    started = time.perf_counter()
    history = model.fit(
        splits.train,
        validation_data=splits.validation,
        epochs=arguments.epochs,
        resume=state,
        verbose=verbose,
        callbacks=[
            schedules.CosineDecay(0.001),
            callbacks.CSVLogger(output / "history.csv"),
            callbacks.TerminateOnNaN(),
        ],
    )
    seconds = time.perf_counter() - started
    if not np.isfinite(history.history["loss"][-1]):
        raise TrainingError("the training loss is no longer a number. Expected a finite one: check the images.")
    if ranks.rank() > 0:
        return  # rank 0 evaluates and reports
    model.save(output / "model.safetensors")

    # ---- Evaluation: as in the baseline ----------------------------------------------------------------------------

    validation_loss, validation_accuracy = model.evaluate(splits.validation, verbose=0)
    print(f"\nValidation loss {validation_loss:.4f}, accuracy {validation_accuracy:.2%}")

    test_images = np.concatenate([images for images, labels in splits.test])
    test_labels = np.concatenate([labels for images, labels in splits.test])
    probabilities = model.predict(test_images, batch_size=arguments.batch_size)
    for name, value in evaluation.test_metrics(test_labels, probabilities).items():
        print(f"Test {name:<20} {value:.2%}")

    report = evaluation.write_report(
        output,
        title="Model M with RMSprop" + " and augmentation" * arguments.augment,
        model=model,
        history=history.history,
        labels=test_labels,
        probabilities=probabilities,
        images=test_images,
        class_names=splits.class_names,
        validation=(validation_loss, validation_accuracy),
        facts={
            "Data": splits.name,
            "Training images": splits.train.num_samples,
            "Augmentation": "random flips and translations" if arguments.augment else "none",
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
