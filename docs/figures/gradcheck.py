"""Figures of the chapter on gradient checking: the V of a smooth function, a kink, and error against h on Model S.

``python docs/figures/gradcheck.py --measure`` measures Model S again, in a minute or two, and writes
measured/gradcheck.json.
"""

import json
import sys

import numpy as np
from matplotlib.figure import Figure
from style import HUES, INK, MEASURED, MUTED, save

import minicnn
from minicnn.baseline import model_s
from minicnn.gradcheck import check_model, tie_free
from minicnn.losses import SparseCategoricalCrossentropy

COMMAND = "python docs/figures/gradcheck.py --measure"
RECORD = MEASURED / "gradcheck.json"
STEPS = 10.0 ** np.arange(-12, -0.9, 0.5)  # h
ENTRIES = 150  # of each tensor, among those whose gradient is not 0; or all of a smaller one
IMAGES, SEED = 2, 0


def smooth() -> dict[str, np.ndarray]:
    """Return the relative errors of three formulas for the slope of exp at 1, for each of `STEPS`."""
    h, right = STEPS, np.e
    with np.errstate(all="ignore"):
        forward = (np.exp(1 + h) - np.exp(1)) / h
        central = (np.exp(1 + h) - np.exp(1 - h)) / (2 * h)
        narrow = (np.exp(1 + h / 2) - np.exp(1 - h / 2)) / h
    found = {"one-sided": forward, "central": central, "Richardson": (4 * narrow - central) / 3}
    return {name: abs(slope - right) / right for name, slope in found.items()}


def errors_of_model_s(dtype: str) -> np.ndarray:
    """Return relative errors (h, entries) of central differences of Model S's loss in `dtype`; backward is in float64.

    The error is relative as in `minicnn.gradcheck`: to the larger slope, or to 1/100 of the tensor's largest.
    """
    rng = np.random.default_rng(SEED)
    x = (tie_free((IMAGES, 32, 32, 3), rng) + 1) * 127.5  # (N, H, W, C), as check_model makes its images
    labels = rng.integers(0, 10, IMAGES)  # (N,)
    minicnn.utils.set_random_seed(SEED)
    weights = model_s().get_weights()
    loss = SparseCategoricalCrossentropy(from_logits=True)

    def model_in(number: str) -> minicnn.Model:
        with minicnn.using_floatx(number):
            model = model_s()
        model.set_weights([w.astype(number) for w in weights])
        return model

    exact, model, images = model_in("float64"), model_in(dtype), x.astype(dtype)
    exact.forward(x.astype(dtype).astype("float64"), training=True)
    _, dz = loss.value_and_gradient(exact.logits(), labels)
    dx = exact.backward(dz, from_logits=True, input_gradient=True)
    right = [dx, *(layer.grads[key] for layer in exact.layers for key in layer.params)]
    tensors = [images, *(param for layer in model.layers for param in layer.params.values())]

    def value() -> np.floating:
        model.forward(images, training=True)
        return loss.value_and_gradient(model.logits(), labels)[0].mean()  # of `dtype`

    columns = []
    for array, gradient in zip(tensors, right, strict=True):
        floor = max(1e-12, abs(gradient).max() / 100)
        unit = max(1.0, float(abs(array).max()))
        alive = np.flatnonzero(gradient)
        for entry in np.sort(rng.choice(alive, min(ENTRIES, alive.size), replace=False)):
            place = np.unravel_index(entry, array.shape)
            before, slopes = array[place], []
            for h in STEPS * unit:
                array[place] = before + h
                above = value()
                array[place] = before - h
                slopes.append(float(above - value()) / (2 * h))
            array[place] = before
            expected, found = gradient[place], np.array(slopes)
            columns.append(abs(found - expected) / np.maximum(np.maximum(abs(found), abs(expected)), floor))
    return np.stack(columns, axis=1)  # (h, entries)


def measure() -> None:
    """Write what the figure of Model S draws."""
    record = {
        "command": COMMAND,
        "data": f"{IMAGES} random images and labels, as check_model makes them, and model_s(), all of seed {SEED}",
        "h": STEPS.tolist(),
    }
    for dtype in ("float64", "float32"):
        errors = errors_of_model_s(dtype)
        record["entries"] = errors.shape[1]
        record[dtype] = {"median": np.median(errors, axis=1).tolist(), "worst": errors.max(axis=1).tolist()}
        record[dtype]["above 1e-6"] = (errors > 1e-6).sum(axis=1).tolist()
    minicnn.utils.set_random_seed(SEED)
    report = check_model(model_s(), seed=SEED)
    record["checker"] = {"worst": report.worst, "command": "python -m minicnn gradcheck"}
    MEASURED.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(RECORD)


def axes_of_the_v(figure: Figure, lowest: float) -> object:
    """Return axes for relative error against h, both logarithmic, h growing to the right."""
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlabel="h", ylabel="relative error", ylim=(lowest, 3))
    return axes


def draw_smooth() -> Figure:
    """Draw the V of three formulas, and the two slopes that make it."""
    figure = Figure(figsize=(6.4, 3.3))
    axes = axes_of_the_v(figure, 3e-17)
    for (name, errors), marker in zip(smooth().items(), "os^", strict=True):
        axes.plot(STEPS, np.maximum(errors, 1e-16), marker=marker, ms=3.5, lw=1.2, label=name)
    h = np.array([3e-5, 1e-1])
    axes.plot(h, h**2 / 6, color=MUTED, lw=1, ls="--")
    axes.text(1.6e-4, 2.5e-8, r"$h^2/6$", color=MUTED, ha="right")
    h = np.array([1e-12, 1e-6])
    axes.plot(h, 1.1e-16 / h, color=MUTED, lw=1, ls="--")
    axes.text(1e-11, 3e-7, r"$\epsilon/h$", color=MUTED, ha="right")
    axes.legend(loc="lower left")
    return figure


def draw_models(record: dict) -> Figure:
    """Draw median and worst error of Model S's gradient against h, in both float types."""
    figure = Figure(figsize=(6.4, 3.6))
    axes = axes_of_the_v(figure, 3e-14)
    h = np.array(record["h"])
    for dtype, colour in (("float32", HUES[1]), ("float64", HUES[0])):
        axes.plot(h, record[dtype]["worst"], color=colour, ls="--", marker="v", ms=3.5, lw=1.2, label=f"{dtype}, worst")
        axes.plot(h, record[dtype]["median"], color=colour, marker="o", ms=3.5, lw=1.2, label=f"{dtype}, median")
    axes.axhline(1e-6, color=INK, lw=0.8)
    axes.text(1.3e-12, 1.3e-6, "tolerance 1e-6", color=INK, va="bottom", fontsize=8)
    worst = record["checker"]["worst"]
    axes.axhline(worst, color=HUES[2], lw=1.2)
    axes.text(1.3e-12, worst * 0.75, "worst of minicnn's checker", color=HUES[2], va="top", fontsize=8)
    axes.legend(loc="lower left", fontsize=8)
    return figure


def draw_kink() -> Figure:
    """Draw a chord over a kink: its slope belongs to neither side, and changes as h is halved."""
    figure = Figure(figsize=(6.4, 2.3))
    t, at = np.linspace(-1.1, 1.6, 200), 0.35
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, h in ((left, 0.9), (right, 0.45)):
        axes.plot(t, np.maximum(t, 0), color=INK, lw=1.5)
        ends = np.array([at - h, at + h])
        axes.plot(ends, np.maximum(ends, 0), color=HUES[1], marker="o", ms=4)
        axes.plot(at, at, "o", color=HUES[0], ms=6)
        slope = np.diff(np.maximum(ends, 0))[0] / (2 * h)
        axes.text(-1.05, 1.15, f"slope over {'h' if axes is left else 'h/2'}: {slope:.2f}", color=HUES[1])
        axes.text(-1.05, 0.9, "slope at the point: 1", color=HUES[0])
        axes.set(xlabel="t", xticks=[0], yticks=[0], ylim=(-0.15, 1.5))
    left.set_ylabel("max(t, 0)")
    return figure


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure()
    save(draw_smooth(), "gradcheck_smooth.svg")
    save(draw_kink(), "gradcheck_kink.svg")
    save(draw_models(json.loads(RECORD.read_text())), "gradcheck_models.svg")
