"""Measure Model S on an NVIDIA GPU beside PyTorch: python -m benchmarks.gpu [--rounds 15] [--data PATH].

All programs compute in float32 without TF32, from the same bytes on the card, and none of them waits for the loss. The
clock is the card's: an event before and one after some steps, so that what the host does meanwhile counts where the
card has to wait for it. In each round every program has its turn. With --data the whole baseline is timed too.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minicnn
from benchmarks.images import cuts, photographs
from benchmarks.machine import versions
from benchmarks.programs import network, torch_network
from benchmarks.rounds import quartiles
from benchmarks.tasks import Task
from minicnn import kernels, training
from minicnn.arguments import Parser, at_least
from minicnn.errors import plain_exit

PROGRAMS = ("minicnn", "minicnn, not recorded", "torch", "torch channels_last", "torch, recorded")
TASKS = [Task("train", "Model S", batch_size) for batch_size in (64, 256, 1024)]
TASKS += [Task("predict", "Model S", batch_size) for batch_size in (64, 1024)]
EPOCHS, WARM_UP = 17, 5
Clock = Callable[[Callable[[], Any], int], float]  # seconds of a step, by the card's events around so many


def main() -> None:
    """Measure, task by task, and print the tables."""
    parser = Parser(prog="python -m benchmarks.gpu", description="Measure Model S on a GPU beside PyTorch.")
    parser.add_argument("--rounds", type=at_least(1), default=15, help="turns of each program (15)")
    parser.add_argument("--steps", type=at_least(1), default=100, help="in a turn (100)")
    parser.add_argument("--data", metavar="PATH", help="CIFAR-10's folders: the whole baseline is timed too")
    with plain_exit():
        run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Measure what is asked for."""
    minicnn.set_device("gpu")
    installed = ", ".join(f"{name} {version}" for name, version in versions().items())
    print(f"{card()}; {installed}. Medians of {arguments.rounds} turns of {arguments.steps} steps.\n", flush=True)
    for kind, unit in (("train", "ms a step"), ("predict", "images/s")):
        print(f"| {unit} | " + " | ".join(PROGRAMS) + " | ratio to the fastest torch |")
        print("|---" * (len(PROGRAMS) + 2) + "|")
        for task in (task for task in TASKS if task.kind == kind):
            print(row(task, compare(task, arguments.rounds, arguments.steps)), flush=True)
        print()
    if arguments.data:
        print(f"The whole baseline, {EPOCHS} epochs, from reading the folders to the report: {whole(arguments.data)}")


def compare(task: Task, rounds: int, steps: int) -> dict[str, np.ndarray]:
    """Return the seconds of a step of each program in each round; a program that fails is left out, and says why."""
    images, labels = cuts(photographs(), task.batch_size, task.size)
    prepared: dict[str, tuple[Callable[[], Any], Clock]] = {}
    for program in PROGRAMS:
        if task.kind == "predict" and program == "minicnn, not recorded":
            continue
        try:
            prepare = torch_step if program.startswith("torch") else minicnn_step
            step, clock = prepare(program, task, images, labels)
            clock(step, WARM_UP)
            prepared[program] = step, clock
        except Exception as error:
            if program == "minicnn":
                raise
            reason = str(error).strip().partition("\n")[0]
            print(f"left out: {program}: {type(error).__name__}: {reason}", file=sys.stderr)
    seconds: dict[str, list[float]] = {program: [] for program in prepared}
    for number in range(rounds):
        for program in list(prepared) if number % 2 == 0 else reversed(prepared):
            step, clock = prepared[program]
            seconds[program].append(clock(step, steps))
    return {program: np.array(values) for program, values in seconds.items()}


def row(task: Task, seconds: dict[str, np.ndarray]) -> str:
    """Return a line of the table: medians, and minicnn's ratio to the fastest torch, round by round."""
    cells = []
    for program in PROGRAMS:
        if program not in seconds:
            cells.append("")
            continue
        found = quartiles(seconds[program] * 1000 if task.kind == "train" else task.batch_size / seconds[program])
        cells.append(f"{found['median']:.3f}" if task.kind == "train" else f"{found['median']:,.0f}")
    peers = [program for program in seconds if program.startswith("torch")]
    ratio = ""
    if peers:
        fastest = min(peers, key=lambda program: np.median(seconds[program]))
        found = quartiles(seconds["minicnn"] / seconds[fastest])
        ratio = f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})"
    return f"| batch {task.batch_size} | " + " | ".join(cells) + f" | {ratio} |"


def minicnn_step(program: str, task: Task, images: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Any], Clock]:
    """Return the task in minicnn, the batch on the card, and the clock."""
    import cupy

    minicnn.utils.set_random_seed(0)
    model = network(minicnn, task)
    model.compile(minicnn.optimizers.SGD(0.01, momentum=0.9))
    x, y = kernels.here(images), labels

    def clock(step: Callable[[], Any], count: int) -> float:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        for _ in range(count):
            step()
        end.record()
        end.synchronize()
        return cupy.cuda.get_elapsed_time(start, end) / 1000 / count

    if task.kind == "predict":
        return lambda: model.forward(x), clock  # predictions are not recorded
    if program == "minicnn":
        return lambda: training.train_step(model, x, y), clock
    return lambda: training.plain_step(model, x, kernels.here(y)), clock


def torch_step(program: str, task: Task, images: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Any], Clock]:
    """Return the task in PyTorch, the batch on the card, and the clock."""
    import torch
    from torch import nn

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    layout = torch.contiguous_format if program == "torch" else torch.channels_last
    model = torch_network(task).cuda().to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.from_numpy(images).cuda(), torch.from_numpy(labels).long().cuda()

    def inputs() -> torch.Tensor:
        return x.permute(0, 3, 1, 2).to(torch.float32, memory_format=layout) / 255  # (N, 3, H, W)

    def train() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(inputs()), y)
        loss.backward()
        optimizer.step()
        return loss

    def predict() -> torch.Tensor:
        with torch.no_grad():
            return torch.softmax(model(inputs()), dim=1)

    def clock(step: Callable[[], Any], count: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(count):
            step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000 / count

    step = predict if task.kind == "predict" else train
    if "recorded" in program:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay, clock
    return step, clock


def card() -> str:
    """Return the name of the card and its memory."""
    import cupy

    found = cupy.cuda.runtime.getDeviceProperties(0)
    return f"{found['name'].decode()}, {found['totalGlobalMem'] / 2**30:.0f} GiB"


def whole(data: str) -> str:
    """Run the example on the GPU and return how long it took."""
    example = Path(__file__).parents[1] / "examples" / "baseline_sgd.py"
    with tempfile.TemporaryDirectory() as output:
        words = [sys.executable, str(example), "--quiet", "--data", data, "--output", output, "--epochs", str(EPOCHS)]
        started = time.perf_counter()
        subprocess.run([*words, "--device", "gpu"], check=True)
        seconds = time.perf_counter() - started
        epochs = len((Path(output) / "history.csv").read_text().splitlines()) - 1
    return f"{seconds:.1f} s, {epochs} epochs before it stopped"


if __name__ == "__main__":
    main()
