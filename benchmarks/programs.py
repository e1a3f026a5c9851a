"""One program in a process of its own: it prepares a task, then repeats it as often as each line of its input says.

python -m benchmarks.programs PROGRAM TASK NETWORK BATCH_SIZE THREADS

Programs are minicnn and PyTorch in three modes; tasks are a training step and a prediction of Model S, and a training
step of a deeper network. All train on the same images, scikit-learn's digits as 32x32x3 bytes: rescaling, forward,
backward and SGD with momentum are in the step.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

STAGES = {"model_s": ([[16], [32], [64]], 128), "deeper": ([[32, 32], [64, 64], [128, 128]], 256)}
PROGRAMS = ("minicnn", "torch", "torch channels_last", "torch compiled")
WARM_UP = 20  # steps: everything is compiled, and the network is no longer at its random start


def minicnn_task(task: str, network: str, images: np.ndarray, labels: np.ndarray, threads: int) -> Callable[[], object]:
    """Return one step of minicnn."""
    import minicnn
    from minicnn import layers

    minicnn.set_num_threads(threads)
    minicnn.utils.set_random_seed(0)
    stages, units = STAGES[network]
    inputs = minicnn.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for stage in stages:
        for filters in stage:
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(units, activation="relu")(layers.Flatten()(x))
    model = minicnn.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile(minicnn.optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"])
    if task == "predict":
        return lambda: model.predict(images, batch_size=len(images))
    return lambda: model.train_on_batch(images, labels)


def torch_task(
    task: str, network: str, images: np.ndarray, labels: np.ndarray, threads: int, mode: str
) -> Callable[[], object]:
    """Return one step of PyTorch: eager, channels_last or compiled."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    stages, units = STAGES[network]
    parts: list[nn.Module] = []
    channels = 3
    for stage in stages:
        for filters in stage:
            parts += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
            channels = filters
        parts.append(nn.MaxPool2d(2))
    parts += [nn.Flatten(), nn.Linear(16 * channels, units), nn.ReLU(), nn.Linear(units, 10)]
    model = nn.Sequential(*parts)
    layout = torch.channels_last if mode == "channels_last" else torch.contiguous_format
    model = model.to(memory_format=layout)
    run = torch.compile(model) if mode == "compiled" else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.from_numpy(images), torch.from_numpy(labels).long()

    def inputs() -> torch.Tensor:
        return x.permute(0, 3, 1, 2).to(torch.float32, memory_format=layout) / 255  # (N, 3, H, W)

    def train() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(run(inputs()), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    def predict() -> np.ndarray:
        with torch.inference_mode():
            return torch.softmax(run(inputs()), dim=1).numpy()

    return predict if task == "predict" else train


def main() -> None:
    """Prepare, say so, then answer each number of repetitions on the input with seconds, as JSON."""
    program, task, network, batch_size, threads = sys.argv[1:]
    from minicnn.data.digits import load_digits

    images, labels = load_digits()[0]
    images, labels = images[: int(batch_size)].copy(), labels[: int(batch_size)].copy()
    if program == "minicnn":
        step = minicnn_task(task, network, images, labels, int(threads))
    else:
        mode = program.removeprefix("torch").strip()
        step = torch_task(task, network, images, labels, int(threads), mode)
    started = time.perf_counter()
    step()
    first = time.perf_counter() - started
    for _ in range(WARM_UP):
        step()
    print(json.dumps({"first": first}), flush=True)
    for line in sys.stdin:
        repetitions = int(line)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repetitions):
            step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB on Linux
        print(json.dumps({"wall": wall / repetitions, "cpu": cpu / repetitions, "peak": peak}), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", sys.argv[5])  # for PyTorch, which is imported later
    main()
