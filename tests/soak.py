"""Train for a long time and watch the memory: python tests/soak.py [--minutes 30].

Model S trains on the digits, epoch after epoch, with every callback and with its state written after each; now and
then a model is made anew, predicted with, saved and loaded. Resident memory is read from the system.
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path

import numpy as np

import minicnn
from minicnn import callbacks, models
from minicnn.baseline import model_s
from minicnn.data.digits import load_digits


def resident() -> float:
    """Return the resident memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def main(minutes: float) -> None:
    """Train until the time is over; print the memory as it goes, and the slope of its second half."""
    (images, labels), (held_out, _), _ = load_digits()
    started, seen, epochs, steps = time.monotonic(), [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while (elapsed := time.monotonic() - started) < 60 * minutes:
            minicnn.utils.set_random_seed(epochs)
            model = model_s()
            model.compile(minicnn.optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"])
            path = Path(folder) / "state"
            path.unlink(missing_ok=True)
            kept = [
                callbacks.ReduceLROnPlateau(monitor="loss", patience=1),
                callbacks.EarlyStopping(monitor="loss", patience=9, restore_best_weights=True),
                callbacks.ModelCheckpoint(Path(folder) / "best", monitor="loss", save_best_only=True),
                callbacks.CSVLogger(Path(folder) / "history.csv"),
            ]
            model.fit(images, labels, batch_size=64, epochs=10, verbose=0, callbacks=kept, resume=path)
            loaded = models.load_model(Path(folder) / "best")
            assert np.isfinite(loaded.predict(held_out)).all()
            epochs += 10
            steps += 10 * -(-len(images) // 64)
            gc.collect()
            seen.append((elapsed / 60, resident()))
            if len(seen) % 25 == 1:
                print(f"{seen[-1][0]:6.1f} min  {epochs:6} epochs  {steps:8,} steps  {seen[-1][1]:7.1f} MB", flush=True)
    half = np.array(seen[len(seen) // 2 :])
    slope = np.polyfit(half[:, 0], half[:, 1], 1)[0]
    print(
        f"{minutes:g} minutes, {epochs:,} epochs, {steps:,} steps: {half[:, 1].min():.1f} to {half[:, 1].max():.1f} MB "
        f"in the second half, slope {60 * slope:+.2f} MB an hour"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    main(parser.parse_args().minutes)
