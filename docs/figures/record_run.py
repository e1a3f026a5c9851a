"""Train Model S as examples/baseline_sgd.py does, and record beside it what three chapters show of a real run.

python docs/figures/record_run.py --data PATH     # about two minutes; writes docs/figures/measured/*.json

Recording draws no random number and changes no weight: the history is that of examples/baseline_sgd.py, bit for bit.
"""

import argparse
import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from style import MEASURED

import minicnn
from minicnn import callbacks, data, layers
from minicnn.baseline import model_s
from minicnn.losses import SparseCategoricalCrossentropy

SEED = 1
EVERY = 20  # of the test images, sorted by class: 500 images, 50 of each class
CATS = range(3000, 3010)  # test images: the first ten of the class "cat"
OTHERS = range(2, 7)  # seeds of which the start alone is looked at
SOURCE = {
    "command": "python docs/figures/record_run.py --data PATH",
    "run": f"Model S of examples/baseline_sgd.py, seed {SEED}",
}
Batches = Iterable[tuple[np.ndarray, np.ndarray]]


class Recorder(callbacks.Callback):
    """Measure the model before the first epoch and after each."""

    def __init__(self, images: np.ndarray, training: Batches, validation: Batches) -> None:
        self.images, self.training, self.validation = images, training, validation
        self.activations: list[dict[str, Any]] = []
        self.pooling: list[dict[str, Any]] = []
        self.losses: list[dict[str, Any]] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.record()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.record()

    def record(self) -> None:
        """Add a row to each of the three tables."""
        zeros, ties = walk(self.model, self.images[::EVERY])
        self.activations.append(zeros)
        self.pooling.append(ties)
        p = self.model.predict(self.images[CATS.start : CATS.stop])  # (N, K)
        sets = {"training": self.training, "validation": self.validation}
        self.losses.append({name: judge(self.model, batches) for name, batches in sets.items()})
        self.losses[-1]["cats"] = np.round(p.astype(float), 6).tolist()


def walk(model: minicnn.Model, x: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run images layer by layer; return the zeros of each ReLU and the ties of each pooling, by layer name."""
    zeros, ties = {}, {}
    for layer in model.layers[1:]:
        if isinstance(layer, layers.MaxPooling2D):
            ties[layer.name] = tied(x)
        x = layer.forward(x)
        if isinstance(getattr(layer, "activation", None), layers.ReLU):
            dead = (x == 0).reshape(-1, x.shape[-1]).all(axis=0)  # (F,): zero everywhere, for every image
            zeros[layer.name] = {"zeros": round(float((x == 0).mean()), 6), "dead": int(dead.sum()), "units": len(dead)}
    return zeros, ties


def tied(x: np.ndarray) -> dict[str, float]:
    """Return which share of the 2x2 windows of x (N, H, W, C) hold their maximum more than once, and above zero."""
    N, H, W, C = x.shape
    windows = x.reshape(N, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)  # (windows, PH*PW)
    peak = windows.max(axis=1)  # (windows,)
    tie = (windows == peak[:, None]).sum(axis=1) > 1  # (windows,)
    return {"tied": round(float(tie.mean()), 6), "tied_above_zero": round(float((tie & (peak > 0)).mean()), 6)}


def start(seed: int) -> minicnn.Model:
    """Return Model S as it is before training."""
    minicnn.utils.set_random_seed(seed)
    return model_s()


def judge(model: minicnn.Model, batches: Batches) -> dict[str, float]:
    """Return mean loss, accuracy, the mean losses of right and of wrong answers, and the share of the worst tenth."""
    loss, found, right = SparseCategoricalCrossentropy(from_logits=True), [], []
    for images, labels in batches:
        p = model.forward(images)  # (N, K)
        found.append(loss.value_and_gradient(model.logits(), labels)[0])  # (N,)
        right.append(p.argmax(axis=1) == labels)  # (N,)
    losses, hits = np.concatenate(found).astype(float), np.concatenate(right)  # (images,)
    worst = np.sort(losses)[-len(losses) // 10 :]
    numbers = {
        "loss": losses.mean(),
        "accuracy": hits.mean(),
        "loss_of_right": losses[hits].mean(),
        "loss_of_wrong": losses[~hits].mean(),
        "share_of_worst_tenth": worst.sum() / losses.sum(),
    }
    return {name: round(float(number), 6) for name, number in numbers.items()}


def without_drawing(dataset: data.Dataset, batches: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the first batches, and leave the generators of the order as they were."""
    states = [generator.bit_generator.state for generator in dataset.generators]
    taken = list(itertools.islice(dataset, batches))
    for generator, state in zip(dataset.generators, states, strict=True):
        generator.bit_generator.state = state
    return taken


def main() -> None:
    """Train and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="PATH", help="image folders train1..train5 and test")
    minicnn.utils.set_random_seed(SEED)
    splits = data.load(parser.parse_args().data, 64)
    model = model_s(len(splits.class_names))
    model.compile(minicnn.optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"])
    images = np.concatenate([images for images, _ in splits.test])  # (N, H, W, C)
    labels = np.concatenate([labels for _, labels in splits.test])  # (N,)
    assert {splits.class_names[label].split("_")[-1] for label in labels[CATS.start : CATS.stop]} == {"cat"}
    recorder = Recorder(images, without_drawing(splits.train, 160), splits.validation)
    history = model.fit(
        splits.train,
        validation_data=splits.validation,
        epochs=30,
        verbose=2,
        callbacks=[
            callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.1, patience=3),
            callbacks.EarlyStopping(monitor="val_loss", patience=6, restore_best_weights=True),
            recorder,
        ],
    )
    others = {seed: walk(start(seed), images[::EVERY]) for seed in OTHERS}
    shown = f"test images 0, {EVERY}, {2 * EVERY}, ... of 10,000, sorted by class; a row before epoch 1 and after each"
    for name, rows, which in (("activations", recorder.activations, 0), ("pooling", recorder.pooling, 1)):
        write(
            name, {"images": shown, "starts_of_other_seeds": [both[which] for both in others.values()], "epochs": rows}
        )
    sets = "training: the first 160 batches of an epoch; validation: all 10,000; with the weights after each epoch"
    names = [name.split("_")[-1] for name in splits.class_names]
    described = {"images": list(CATS), "class_names": names, "sets": sets}
    write("losses", described | {"history": history.history, "epochs": recorder.losses})


def write(name: str, content: dict[str, Any]) -> None:
    """Write docs/figures/measured/`name`.json, and in it how it was made."""
    MEASURED.mkdir(exist_ok=True)
    lines = []
    for key, value in (SOURCE | content).items():
        rows = isinstance(value, list) and isinstance(value[0], dict)  # a line an epoch
        shown = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]" if rows else json.dumps(value)
        lines.append(f" {json.dumps(key)}: {shown}")
    (MEASURED / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"docs/figures/measured/{name}.json")


if __name__ == "__main__":
    main()
