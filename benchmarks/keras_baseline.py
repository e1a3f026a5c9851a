"""The work of examples/baseline_sgd.py in Keras, as the notebook does it; `whole.py` measures both.

python benchmarks/keras_baseline.py --data FOLDERS [--epochs 30] [--seed 1]

The example also draws figures and writes a report; here the predictions are enough.
"""

import argparse
from functools import reduce
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import callbacks, layers


def main() -> None:
    """Read the folders, train Model S, evaluate on validation and test."""
    parser = argparse.ArgumentParser(description="Train and evaluate the CIFAR-10 baseline in Keras.")
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="folders train1..train5 and test")
    parser.add_argument("--epochs", type=int, default=30, help="at most this many: it stops early (30)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)

    def read(name: str, shuffle: bool) -> tf.data.Dataset:
        return keras.utils.image_dataset_from_directory(
            arguments.data / name, image_size=(32, 32), batch_size=64, shuffle=shuffle, verbose=False
        )

    parts = [read(f"train{i}", shuffle=True) for i in range(1, 5)]
    train_dataset = reduce(tf.data.Dataset.concatenate, parts).shuffle(1000).prefetch(tf.data.AUTOTUNE)
    validation_dataset, test_dataset = read("train5", shuffle=False), read("test", shuffle=False)

    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1.0 / 255)(inputs)
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, activation="relu", padding="same")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        train_dataset,
        validation_data=validation_dataset,
        epochs=arguments.epochs,
        verbose=0,
        callbacks=[
            callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.1, patience=3),
            callbacks.EarlyStopping(monitor="val_loss", patience=6, restore_best_weights=True),
        ],
    )
    loss, accuracy = model.evaluate(validation_dataset, verbose=0)
    print(f"Validation loss {loss:.4f}, accuracy {accuracy:.2%}")
    labels = np.concatenate([labels for _, labels in test_dataset])  # (N,)
    predictions = model.predict(test_dataset, verbose=0).argmax(axis=1)  # (N,)
    print(f"Test accuracy {np.mean(predictions == labels):.2%}")


if __name__ == "__main__":
    main()
