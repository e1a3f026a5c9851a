"""A small training that tests/test_ranks.py starts under mpirun: python ranks_program.py OUT key=value ...

Each rank writes its weights and the history to OUT.<rank>.npz. Keys: dtype, synchronized, epochs, resume; die, fail,
signal (the step at which the last rank kills itself, raises, gets SIGTERM); spread (each rank has a seed of its own).
"""

import os
import signal
import sys

import numpy as np

import minicnn
from minicnn import layers, ranks
from minicnn.callbacks import Callback
from minicnn.errors import DataError, plain_exit

given = dict(word.split("=") for word in sys.argv[2:])


class Accident(Callback):
    """Something that happens to the last rank before a step."""

    def __init__(self) -> None:
        self.step = 0

    def on_train_batch_begin(self, batch, logs=None):
        self.step += 1
        if ranks.rank() < ranks.size() - 1:
            return
        if self.step == int(given.get("die", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.step == int(given.get("fail", 0)):
            raise DataError("the images of this rank are broken.")
        if self.step == int(given.get("signal", 0)):
            os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Train and write."""
    minicnn.set_floatx(given.get("dtype", "float64"))
    minicnn.utils.set_random_seed(5 + ("spread" in given) * ranks.rank())
    model = minicnn.Sequential(
        [
            minicnn.Input((8, 8, 3)),
            layers.RandomFlip(),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(synchronized=given.get("synchronized", "yes") == "yes"),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(5, "softmax"),
        ]
    )
    model.compile(minicnn.optimizers.SGD(0.05, momentum=0.9), metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 8, 8, 3)), rng.integers(0, 5, 20)
    history = model.fit(
        x,
        y,
        batch_size=6,  # 6, 6, 6 and 2 images: four ranks share them unevenly, and two images not all
        epochs=int(given.get("epochs", 3)),
        validation_data=(x[:7], y[:7]),
        callbacks=[Accident()],
        resume=given.get("resume"),
        verbose=2,
    )
    numbers = [*model.get_weights(), np.array(list(history.history.values()))]
    np.savez(f"{sys.argv[1]}.{ranks.rank()}.npz", *numbers)


if __name__ == "__main__":
    with plain_exit():
        main()
