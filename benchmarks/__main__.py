"""Compare minicnn with PyTorch on this machine: python -m benchmarks [--rounds 9] [--quick] [--json FILE].

Every program runs in a process of its own; in each round each of them computes for about a third of a second, one after
the other, so that a machine whose speed drifts slows all of them alike. Quoted are medians over the rounds, and the
ratio of minicnn to the fastest peer round by round.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.programs import PROGRAMS

TASKS = [
    ("train", "model_s", 16),
    ("train", "model_s", 64),
    ("train", "model_s", 256),
    ("predict", "model_s", 256),
    ("train", "deeper", 64),
]
SECONDS = 0.3  # of one program in one round


class Process:
    """A program that waits to be told how often to repeat its task."""

    def __init__(self, program: str, task: str, network: str, batch_size: int, threads: int) -> None:
        self.program = program
        words = [sys.executable, "-m", "benchmarks.programs", program, task, network, str(batch_size), str(threads)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = self.answer()["first"]
        self.repetitions = max(1, round(SECONDS / self.measure(3)["wall"]))

    def measure(self, repetitions: int) -> dict[str, float]:
        """Run the task so often; return seconds of wall and processor a repetition, and the peak of memory in MB."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{repetitions}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, float]:
        """Return the next line that the process prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.program} ended before it answered. Its error is above.")
        return json.loads(line)

    def end(self) -> None:
        """Let the process finish."""
        self.process.communicate()


def compare(programs: list[str], task: str, network: str, batch_size: int, threads: int, rounds: int) -> dict[str, Any]:
    """Return medians of every program at one task, and the ratios of minicnn to the fastest peer."""
    processes = [Process(program, task, network, batch_size, threads) for program in programs]
    figures: dict[str, list[dict[str, float]]] = {program: [] for program in programs}
    for number in range(rounds):
        for process in processes if number % 2 == 0 else processes[::-1]:
            figures[process.program].append(process.measure(process.repetitions))
    for process in processes:
        process.end()
    kind = "cpu" if threads == 1 else "wall"  # one thread is compared by processor time: others may share the core
    medians = {
        program: {key: statistics.median(row[key] for row in rows) for key in ("wall", "cpu", "peak")}
        for program, rows in figures.items()
    }
    result = {"task": task, "network": network, "batch_size": batch_size, "threads": threads, "medians": medians}
    peers = [program for program in programs if program != "minicnn"]
    if peers:
        fastest = min(peers, key=lambda program: medians[program][kind])
        ratios = [a[kind] / b[kind] for a, b in zip(figures["minicnn"], figures[fastest], strict=True)]
        result |= {"fastest_peer": fastest, "ratio": statistics.median(ratios), "ratios": [min(ratios), max(ratios)]}
    for process in processes:
        medians[process.program]["first"] = process.first
    return result


def main() -> None:
    """Measure, print a table a task, and write everything as JSON."""
    parser = argparse.ArgumentParser(description="Compare minicnn with PyTorch, where that is installed.")
    parser.add_argument("--rounds", type=int, default=9, help="times that each program is measured (9)")
    parser.add_argument("--quick", action="store_true", help="the training step of Model S at batch 64 only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written")
    arguments = parser.parse_args()
    programs = [p for p in PROGRAMS if p == "minicnn" or importlib.util.find_spec("torch")]
    import minicnn

    machine = f"{platform.processor() or platform.machine()}, {minicnn.get_num_threads()} cores, {platform.system()}"
    print(f"{machine}; medians of {arguments.rounds} rounds, ms")
    results = []
    for task, network, batch_size in TASKS[1:2] if arguments.quick else TASKS:
        for threads in sorted({1, minicnn.get_num_threads()}):
            result = compare(programs, task, network, batch_size, threads, arguments.rounds)
            results.append(result)
            kind = "cpu" if threads == 1 else "wall"
            print(f"\n{task} {network}, batch {batch_size}, {threads} thread{'s' * (threads > 1)} ({kind} time)")
            for program, row in result["medians"].items():
                more = f"peak {row['peak']:5.0f} MB   first step {row['first']:.1f} s"
                print(f"  {program:<20} {row[kind] * 1e3:8.2f} ms   {more}")
            if "ratio" in result:
                low, high = result["ratios"]
                print(
                    f"  minicnn / {result['fastest_peer']}: {result['ratio']:.2f} ({low:.2f} to {high:.2f})", flush=True
                )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1))


if __name__ == "__main__":
    main()
