"""Measure minicnn beside PyTorch and Keras on this machine: python -m benchmarks [--quick] [--json FILE] [--plot FILE].

Tables go to the output, and a line for each result, as it comes, to the error stream. Quoted are medians of the rounds
with half the distance of the quartiles, and minicnn's ratio to PyTorch's fastest mode and to Keras, round by round.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minicnn
from benchmarks import tables
from benchmarks.floors import floors
from benchmarks.images import photographs
from benchmarks.machine import machine, versions
from benchmarks.processes import SECONDS, ProgramError
from benchmarks.rounds import compare
from benchmarks.starts import starts
from benchmarks.tasks import GROWTH, PLAIN, PROGRAMS, SECTIONS, Task
from benchmarks.whole import whole
from minicnn.arguments import Parser, at_least
from minicnn.errors import plain_exit
from minicnn.files import replacing

ALL = (*SECTIONS, "growth", "start", "floors", "whole")
SECONDS_TO_START = {"torch compiled": 20, "keras": 8}  # and to warm up; the others take about 4
CORES = minicnn.get_num_threads()


def main() -> None:
    """Measure what is asked for, section by section."""
    arguments = _arguments()
    parts = {"torch": "torch", "keras": "tensorflow"}
    found = {name: importlib.util.find_spec(module) is not None for name, module in parts.items()}
    programs = [p for p in PROGRAMS if p == "minicnn" or found[p.split()[0]]]
    results: dict[str, Any] = {"machine": machine(), "versions": versions(), "rounds": arguments.rounds}
    print(f"{results['machine']['processor']}, {CORES} cores; " + ", ".join(f"{k} {v}" for k, v in versions().items()))
    clocks = "1 thread: processor time" + f"; {CORES} threads: wall time" * (CORES > 1)
    print(f"Medians of {arguments.rounds} rounds. {clocks}.", flush=True)
    for name in (name for name in found if not found[name]):
        print(f"{parts[name]} is not installed, so it is left out: pip install -e '.[bench]'", file=sys.stderr)
    minutes = sum(_seconds(section, programs, arguments) for section in arguments.only) / 60
    _say(
        f"Minutes that this takes: about {max(1, minutes):.0f}"
        + " and the whole baseline" * ("whole" in arguments.only)
    )
    with tempfile.TemporaryDirectory() as folder:
        pictures = f"{folder}/photographs.npy"
        np.save(pictures, photographs())
        for section in arguments.only:
            results[section] = _measure(section, programs, arguments, pictures)
            print(f"\n## {section}\n\n{_table(section, results[section])}", flush=True)
            if arguments.json:  # each time, so that what was measured is kept if the rest is not
                with replacing(arguments.json) as temporary:
                    temporary.write_text(json.dumps(results, indent=1))
            if arguments.plot:
                from benchmarks.plot import draw

                with replacing(arguments.plot) as temporary:
                    draw(results, temporary)


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks", description="Measure minicnn beside PyTorch and Keras.")
    parser.add_argument("--rounds", type=at_least(1), default=7, help="times that each program is measured (7)")
    parser.add_argument("--quick", action="store_true", help="the training step of Model S at batch 64 only")
    parser.add_argument("--only", metavar="PART,...", help=f"some of {', '.join(ALL)}")
    parser.add_argument(
        "--whole", metavar="DATA", help="run the whole baseline, too, on folders train1..train5 and test"
    )
    parser.add_argument("--epochs", type=at_least(1), default=30, help="of the whole baseline, at most (30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where the picture is written (.png, .svg, .pdf)")
    arguments = parser.parse_args()
    asked = ["train"] if arguments.quick else (arguments.only or ",".join(ALL[:-1])).split(",")
    if unknown := sorted(set(asked) - set(ALL)):
        parser.error(f"argument --only: expected some of {', '.join(ALL)}. Received: {', '.join(unknown)}")
    if "whole" in asked and not arguments.whole:
        parser.error("the whole baseline needs images: add --whole DATA")
    arguments.only = [part for part in ALL if part in asked or (part == "whole" and arguments.whole)]
    if arguments.plot and arguments.plot.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"argument --plot: expected a file .png, .svg or .pdf. Received: {arguments.plot}")
    return arguments


def _measure(section: str, programs: list[str], arguments: argparse.Namespace, pictures: str) -> Any:
    if section == "start":
        return starts(programs, CORES, pictures)
    if section == "floors":
        return [floors(threads, pictures) for threads in sorted({1, CORES})]
    if section == "whole":
        return whole(arguments.whole, arguments.epochs, programs)

    done: dict[Any, dict[str, Any]] = {}

    def measure(task: Task, threads: int, chosen: list[str], clock: str = "") -> dict[str, Any]:
        if (task, threads) not in done:  # the axes of growth meet in one task
            result = done[task, threads] = compare(chosen, task, threads, arguments.rounds, pictures, clock)
            figures = ", ".join(f"{name} {found['median'] * 1e3:.2f}" for name, found in result["programs"].items())
            _say(f"{task}, {threads} thread{'s' * (threads > 1)}: {figures} ms")
        return done[task, threads]

    plain = [program for program in programs if program in PLAIN]
    if section == "growth":
        lines = {a: [(v, task, CORES) for v, task in places.items()] for a, places in GROWTH.items()}
        lines["threads"] = [(count, Task("train", "Model S"), count) for count in _counts()]
        return {
            axis: [measure(task, threads, plain, "wall") | {"value": value} for value, task, threads in line]
            for axis, line in lines.items()
        }
    tasks = [Task("train", "Model S")] if arguments.quick else SECTIONS[section]
    chosen = plain if section == "shapes" else programs
    return [measure(task, threads, chosen) for task in tasks for threads in sorted({1, CORES})]


def _counts() -> list[int]:
    """Return 1, 2, 4, ... threads, and as many as there are cores."""
    return sorted({2**i for i in range(CORES.bit_length()) if 2**i <= CORES} | {CORES})


def _table(section: str, found: Any) -> str:
    if section in ("train", "deeper", "model-m"):
        return f"{tables.comparison(found)}\n\n{tables.memory(found)}"
    if section == "predict":
        return f"{tables.comparison(found)}\n\n{tables.images_a_second(found)}\n\n{tables.memory(found)}"
    kinds: dict[str, Callable] = {
        "shapes": tables.comparison,
        "growth": tables.growth,
        "start": tables.starts,
        "floors": tables.floors,
        "whole": tables.whole,
    }
    return kinds[section](found)


def _seconds(section: str, programs: list[str], arguments: argparse.Namespace) -> float:
    """Return about how long a section takes; the whole baseline depends on its images."""
    if section in ("start", "floors", "whole"):
        return {"start": 60, "floors": 40, "whole": 0}[section]
    comparisons = {"growth": 9}.get(section) or 2 * (1 if arguments.quick else len(SECTIONS[section]))
    chosen = [p for p in programs if p in PLAIN] if section in ("shapes", "growth") else programs
    return comparisons * sum(SECONDS_TO_START.get(p, 4) + 1.5 * SECONDS * arguments.rounds for p in chosen)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    with plain_exit():
        try:
            main()
        except ProgramError as error:
            raise SystemExit(f"error: {error}") from None
