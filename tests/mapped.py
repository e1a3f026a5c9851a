"""Train one epoch on a memory-mapped file of 10 GB without loading it: python tests/mapped.py [--gigabytes 10].

What counts is the memory that the process owns (RssAnon): pages of the file are the system's, which takes them back
whenever somebody needs them.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import minicnn
from minicnn import layers, models

SIZE = 256  # pixels a side


def owned() -> float:
    """Return the peak so far of the memory that this process owns, in MB, as far as it was read."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


class Watch(minicnn.callbacks.Callback):
    """Note the memory as it goes."""

    peak = 0.0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.peak = max(self.peak, owned())


def main(gigabytes: float) -> None:
    """Write the file, train on it once, and print the memory."""
    count = int(gigabytes * 1e9 / SIZE**2 / 3)
    labels = np.arange(count) % 10
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, SIZE, SIZE, 3))
        for start in range(0, count, 500):  # a shade for each class
            part = labels[start : start + 500]
            images[start : start + 500] = (25 * part)[:, None, None, None]  # (500, 1, 1, 1) -> (500, H, W, C)
        images.flush()
        del images
        images = np.load(path, mmap_mode="r")
        inputs = minicnn.Input((SIZE, SIZE, 3))
        x = layers.Conv2D(8, 16, strides=16, activation="relu")(layers.Rescaling(1 / 255)(inputs))
        x = layers.Dense(32, activation="relu")(layers.Flatten()(layers.MaxPooling2D(4)(x)))
        model = models.Model(inputs, layers.Dense(10, activation="softmax")(x))
        model.compile(minicnn.optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"])
        before, started, watch = owned(), time.perf_counter(), Watch()
        history = model.fit(images, labels, batch_size=64, epochs=1, verbose=0, callbacks=[watch]).history
        print(
            f"{path.stat().st_size / 1e9:.1f} GB, {count:,} images, {time.perf_counter() - started:.0f} s, accuracy "
            f"{history['accuracy'][0]:.1%}; memory of its own {before:.0f} MB before, at most {watch.peak:.0f} MB in it"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=10.0)
    main(parser.parse_args().gigabytes)
