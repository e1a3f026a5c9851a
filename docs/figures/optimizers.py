"""Figures of the chapter on optimizers: paths through a narrow valley, steps around a cut rate, Adam's first steps."""

import numpy as np
from matplotlib.figure import Figure
from style import HUES, INK, MUTED, save

from minicnn.losses import SparseCategoricalCrossentropy
from minicnn.optimizers import SGD, Adam, Optimizer, RMSprop

PIXELS = (4, 20)  # of 64: two of the upper strokes of a digit, both dark in most of the images
START = (0.0, -4.0)
RATE, STEPS = 1.0, 100
MOMENTA = (0.0, 0.5, 0.9, 0.99)


class Outside(SGD):
    """SGD with the rate outside the velocity: velocity = momentum * velocity + dw; w -= rate * velocity."""

    def step(self, room, weights, gradients):
        for w, velocity, dw in zip(weights, self.slots["velocity"], gradients, strict=True):
            velocity[...] = self.momentum * velocity + dw
            w -= self.learning_rate * velocity


class Uncorrected(Adam):
    """Adam without its correction for means that begin at 0."""

    def step(self, room, weights, gradients):
        numbers = self.learning_rate, self.beta_1, self.beta_2, self.epsilon
        room.adam_step(weights, gradients, self.slots["mean"], self.slots["square"], *numbers)


def ones_and_sevens() -> tuple[np.ndarray, np.ndarray]:
    """Return two pixels, from 0 to 1, of scikit-learn's ones and sevens, (361, 2), and which of them are sevens."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = np.isin(digits.target, (1, 7))  # (1797,)
    return digits.data[chosen][:, PIXELS] / 16, (digits.target[chosen] == 7).astype(int)


def loss_and_gradient(w: np.ndarray, x: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the cross-entropy of the logits 0 and x w, and its gradient for w (2,)."""
    z = np.stack([np.zeros(len(x)), x @ w], axis=1)  # (N, 2)
    losses, dz = SparseCategoricalCrossentropy(from_logits=True).value_and_gradient(z, labels)
    return float(losses.mean()), x.T @ dz[:, 1]  # (2,)


def path(optimizer: Optimizer, steps: int = STEPS) -> np.ndarray:
    """Return where `optimizer` goes from START, (steps + 1, 2)."""
    x, labels = ones_and_sevens()
    w = np.array(START)
    places = [w.copy()]
    for _ in range(steps):
        optimizer.apply([loss_and_gradient(w, x, labels)[1]], [w])
        places.append(w.copy())
    return np.array(places)


def minimum() -> tuple[np.ndarray, float, np.ndarray]:
    """Return the minimum, by Newton's method, its loss, and the two curvatures there, the smaller first."""
    x, labels = ones_and_sevens()
    w = np.zeros(2)
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))  # (N,)
        hessian = (x * (p * (1 - p))[:, None]).T @ x / len(x)  # (2, 2)
        w = w - np.linalg.solve(hessian, loss_and_gradient(w, x, labels)[1])
    return w, loss_and_gradient(w, x, labels)[0], np.linalg.eigvalsh(hessian)


def around_a_cut(optimizer: SGD, before: int = 60, after: int = 90) -> np.ndarray:
    """Return the length of each step on a constant slope of 1; after `before` steps the rate is cut to a tenth."""
    w, lengths = np.zeros(1), []
    for step in range(before + after):
        if step == before:
            optimizer.learning_rate *= 0.1
        last = w.copy()
        optimizer.apply([np.ones(1)], [w])
        lengths.append(abs(w - last).item())
    return np.array(lengths)


def first_steps(optimizer: Optimizer, steps: int, slope: float = 1.0) -> np.ndarray:
    """Return the lengths of the first steps on a constant slope, in units of the rate, (steps,)."""
    w, places = np.zeros(1), [0.0]
    for _ in range(steps):
        optimizer.apply([np.array([slope])], [w])
        places.append(w.item())
    return -np.diff(places) / optimizer.learning_rate


def draw_valley() -> Figure:
    """Draw the four paths over the lines of equal loss; the last needs a wider view."""
    x, labels = ones_and_sevens()
    best, lowest, _ = minimum()
    figure = Figure(figsize=(6.4, 5.8))
    figure.get_layout_engine().set(h_pad=0.1)
    for axes, momentum in zip(figure.subplots(2, 2).ravel(), MOMENTA, strict=True):
        left, right, low, high = (-2, 11, -10.5, -1) if momentum < 0.99 else (-16, 29, -29, 4)
        across, up = np.linspace(left, right, 120), np.linspace(low, high, 100)
        surface = [[loss_and_gradient(np.array([a, b]), x, labels)[0] for a in across] for b in up]  # (100, 120)
        levels = lowest + np.geomspace(0.003, 3, 11)
        axes.contour(across, up, surface, levels=levels, colors=MUTED, linewidths=0.6, alpha=0.7)
        places = path(SGD(RATE, momentum))
        axes.plot(*places.T, color=HUES[0], lw=1.1, marker="o", ms=2.2)
        axes.plot(*places[0], marker="s", ms=6, color=INK)
        axes.plot(*best, marker="*", ms=12, color=HUES[1], mec="white", mew=0.6, zorder=4)
        end = loss_and_gradient(places[-1], x, labels)[0]
        axes.set_title(f"momentum {momentum:g}: loss {end:.4f}", fontsize=9.5)
        if momentum == MOMENTA[-1]:
            axes.text(0.97, 0.95, "wider view", ha="right", va="top", color=MUTED, transform=axes.transAxes)
        axes.grid(False)
        axes.set(xlim=(left, right), ylim=(low, high))
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("weight of pixel 4")
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel("weight of pixel 20")
    return figure


def draw_cut() -> Figure:
    """Draw the length of the steps around a cut, for the two ways to write momentum."""
    figure = Figure(figsize=(6.4, 2.6))
    axes = figure.add_subplot()
    for optimizer, label, hue, dashes in (
        (SGD(0.01, 0.9), "rate inside the velocity (Keras, minicnn)", HUES[0], "-"),
        (Outside(0.01, 0.9), "rate outside (PyTorch)", HUES[1], "--"),
    ):
        lengths = around_a_cut(optimizer)
        axes.plot(np.arange(-60, 90) + 1, lengths, color=hue, ls=dashes, lw=2, label=label)
        if dashes == "-":
            late = int(np.flatnonzero(lengths[60:] > 1.1 * 0.01)[-1]) + 1
            axes.axvspan(0.5, late + 0.5, color=HUES[0], alpha=0.1, lw=0)
            axes.text(late + 2, 0.0215, f"{late} steps are more than\n10 % too long", color=HUES[0])
    axes.axvline(0.5, ymax=0.95, color=MUTED, lw=1, ls=":")
    axes.text(-1, 0.0105, "rate cut to a tenth", ha="right", color=MUTED)
    axes.set(yscale="log", xlim=(-60, 90), xlabel="steps after the cut", ylabel="length of a step", ylim=(0.009, 0.13))
    axes.set_yticks([0.01, 0.02, 0.05, 0.1], ["0.01", "0.02", "0.05", "0.1"])
    axes.set_yticks([], minor=True)
    axes.legend(loc="upper right")
    return figure


def draw_first_steps(steps: int = 10_000) -> Figure:
    """Draw the first steps on a constant slope, for RMSprop and for Adam with and without its correction."""
    figure = Figure(figsize=(6.4, 2.8))
    axes = figure.add_subplot()
    for optimizer, label, hue, dashes in (
        (Uncorrected(0.001), "Adam without the correction", HUES[1], "--"),
        (RMSprop(0.001), "RMSprop", HUES[2], "-"),
        (Adam(0.001), "Adam", HUES[0], "-"),
    ):
        lengths = first_steps(optimizer, steps)
        shown = np.unique(np.geomspace(1, steps, 150).astype(int))
        axes.plot(shown, lengths[shown - 1], color=hue, ls=dashes, lw=2, label=label)
        if dashes == "--":
            longest = int(np.argmax(lengths))
            axes.annotate(
                f"step {longest + 1}: {lengths[longest]:.1f} times too long", (longest + 1, lengths[longest]),
                (longest + 16, lengths[longest] + 0.2), color=HUES[1], va="center",
            )  # fmt: skip
    axes.set(xscale="log", xlim=(1, steps), ylim=(0, 7.4), xlabel="step", ylabel="length of a step / rate")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.85))
    return figure


if __name__ == "__main__":
    save(draw_valley(), "optimizers_valley.svg")
    save(draw_cut(), "optimizers_cut.svg")
    save(draw_first_steps(), "optimizers_first_steps.svg")
