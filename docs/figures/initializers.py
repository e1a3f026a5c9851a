"""Figure of the chapter on initialisation: how strong the signals of Model S are before training, layer by layer.

``python docs/figures/initializers.py --data PATH`` measures on CIFAR-10 and records; without it the record is drawn.
"""

import argparse
import json
import math
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from style import HUES, MEASURED, save

import minicnn
from minicnn import layers, losses

RECORD = MEASURED / "initializers.json"
SEEDS = range(5)
WEIGHTED = ("conv 1", "conv 2", "conv 3", "dense 1", "dense 2")


def glorot(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draw as the layers do."""
    return minicnn.initializers.glorot_uniform(shape, generator)


def he(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draw from a normal distribution of variance 2 / fan_in."""
    return generator.normal(0, math.sqrt(2 / math.prod(shape[:-1])), shape)


def normal(deviation: float) -> Callable[[tuple[int, ...], np.random.Generator], np.ndarray]:
    """Return a function that draws from a normal distribution of this standard deviation."""
    return lambda shape, generator: generator.normal(0, deviation, shape)


SCHEMES = {"sd 0.01": normal(0.01), "Glorot": glorot, "He": he, "sd 0.2": normal(0.2)}


def model_s(draw: Callable, seed: int) -> list[layers.Layer]:
    """Return the layers of Model S with each ReLU apart, so that its input can be seen, and kernels drawn by `draw`."""
    generator = np.random.default_rng(seed)
    chain: list[layers.Layer] = [layers.Rescaling(1 / 255)]
    for filters in (16, 32, 64):
        chain += [layers.Conv2D(filters, 3, padding="same"), layers.ReLU(), layers.MaxPooling2D(2)]
    chain += [layers.Flatten(), layers.Dense(128), layers.ReLU(), layers.Dense(10)]
    shape = (32, 32, 3)
    for layer in chain:
        shape = layer.build(shape).output_shape
        if layer.params:
            layer.params["kernel"][:] = draw(layer.params["kernel"].shape, generator)
    return chain


def spread(images: np.ndarray, labels: np.ndarray, draw: Callable, seed: int) -> dict[str, object]:
    """Return what `signals` says of Model S with kernels drawn by `draw`."""
    return signals(model_s(draw, seed), images, labels)


def signals(chain: list[layers.Layer], images: np.ndarray, labels: np.ndarray) -> dict[str, object]:
    """Return the standard deviation of z and of each image's dz at the layers with a kernel, and the loss."""
    x, z = images, []
    for layer in chain:
        x = layer.forward(x, training=True)
        z += [float(x.std())] if "kernel" in layer.params else []
    loss, dy = losses.SparseCategoricalCrossentropy(from_logits=True).value_and_gradient(x, labels)
    dz = []
    for layer in reversed(chain):
        if "kernel" in layer.params:
            dz.append(float(dy.std()) * len(images))  # times N: of an image's own loss, not of the mean
        dy = layer.backward(dy)
    return {"z": rounded(z), "dz": rounded(dz[::-1]), "loss": round(float(loss.mean()), 4)}


def rounded(numbers: list[float]) -> list[float]:
    """Return the numbers to four digits."""
    return [float(f"{number:.4g}") for number in numbers]


def measure(path: str) -> dict[str, object]:
    """Return the spread for each scheme and seed on the first batch of the training data at `path`."""
    images, labels = next(iter(minicnn.data.load(path, seed=0).train))
    schemes = {name: [spread(images, labels, draw, seed) for seed in SEEDS] for name, draw in SCHEMES.items()}
    return {
        "command": "python docs/figures/initializers.py --data PATH",
        "data": "CIFAR-10, the 64 images of the first training batch of minicnn.data.load(PATH, seed=0)",
        "model": "Model S before training, biases 0, float32",
        "seeds": list(SEEDS),
        "layers": list(WEIGHTED),
        "figures": "standard deviation of z, and of dz for the loss of one image, over images, places and units",
        "schemes": schemes,
    }


def medians(record: dict) -> dict[str, dict[str, object]]:
    """Return for each scheme the median over the seeds of z and dz at each layer, and of the loss."""
    return {
        name: {key: np.median([run[key] for run in runs], axis=0) for key in ("z", "dz", "loss")}
        for name, runs in record["schemes"].items()
    }


def draw(record: dict) -> Figure:
    """Draw the spread of z and of dz along the layers, one line a scheme."""
    figure = Figure(figsize=(6.4, 3.1))
    left, between, right = figure.subplots(1, 3, sharey=True, width_ratios=(1, 0.42, 1))
    between.axis("off")
    for (name, median), hue in zip(medians(record).items(), (HUES[3], HUES[0], HUES[2], HUES[1]), strict=True):
        for axes, key in ((left, "z"), (right, "dz")):
            values = np.array([run[key] for run in record["schemes"][name]])  # (seeds, layers)
            axes.fill_between(range(5), values.min(axis=0), values.max(axis=0), color=hue, alpha=0.2, lw=0)
            axes.plot(range(5), median[key], "o-", color=hue, ms=4)
        label = f"{name}\nloss {median['loss']:.2f}"
        place = median["z"][4] * {"He": 1.5, "Glorot": 0.6}.get(name, 1)  # so that no label covers another
        between.text(-0.08, place, label, color=hue, va="center", fontsize=9, linespacing=1.05)
    between.set(xlim=(0, 1))
    left.set(yscale="log", title="forward: sd of z")
    right.set(title="backward: sd of dz")
    right.tick_params(labelleft=True)
    for axes in (left, right):
        axes.set(xticks=range(5), xticklabels=[name.replace(" ", "\n") for name in WEIGHTED], xlim=(-0.2, 4.2))
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the figure of the chapter on initialisation.")
    parser.add_argument("--data", metavar="PATH", help="CIFAR-10, to measure again before drawing")
    if path := parser.parse_args().data:
        RECORD.write_text(json.dumps(measure(path), indent=1) + "\n")
        print(f"docs/figures/measured/{RECORD.name}")
    save(draw(json.loads(RECORD.read_text())), "initializers_spread.svg")
