"""Kill trainings at random moments, resume them, and compare the end with that of an unbroken one, bit for bit.

python tests/kills.py [--kills 200] [--seed 0]

Each training is a process that is killed with SIGKILL at a random time, during steps, validation or the writing of its
state, resumed and killed again, until it is so lucky as to reach its end. Some processes are started anew, others are
forked from one that has trained before, whose helper threads are gone after the fork.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_resume import training

EPOCHS = 40


def run(folder: Path) -> None:
    """Train to the end, and write what is left."""
    left = training(folder, epochs=EPOCHS)
    temporary = folder / "left.tmp"
    temporary.write_text(repr(sorted(left.items())))
    temporary.rename(folder / "left")


def main(kills: int, seed: int) -> int:
    """Kill until there were so many; return how many trainings ended elsewhere."""
    rng, root = np.random.default_rng(seed), Path(tempfile.mkdtemp())
    started = time.perf_counter()
    run_whole = root / "whole"
    run_whole.mkdir()
    run(run_whole)
    expected = (run_whole / "left").read_text()
    seconds = min(timed(root / f"timed{i}") for i in range(3))
    done, writing, trainings, wrong = 0, 0, 0, 0
    anew, forked = (multiprocessing.get_context(how) for how in ("spawn", "fork"))
    while done < kills:
        folder = root / f"run{trainings}"
        folder.mkdir()
        while not (folder / "left").exists():
            fresh = rng.random() < 0.1
            process = (anew if fresh else forked).Process(target=run, args=(folder,))
            process.start()
            process.join((1.0 if fresh else 0.0) + rng.uniform(0, 0.6 * seconds))
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
                done += 1
            process.join()
            if process.exitcode not in (0, -signal.SIGKILL):
                print(f"a process ended with status {process.exitcode} in {folder}")
                return 1
        trainings += 1
        writing += len(list(folder.glob(".*")))  # what was being written when the process was killed
        if (folder / "left").read_text() != expected:
            wrong += 1
            print(f"training {trainings} ended elsewhere: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
        if trainings % 5 == 0:
            print(f"{done} kills, {trainings} trainings, {wrong} ended elsewhere", flush=True)
    print(
        f"{done} kills, {writing} while a file was written, in {trainings} trainings, seed {seed}: {trainings - wrong} "
        f"ended where the unbroken one ends, {wrong} elsewhere; {time.perf_counter() - started:.0f} s"
    )
    if not wrong:
        shutil.rmtree(root)
    return int(wrong > 0)


def timed(folder: Path) -> float:
    """Return the seconds of a whole training."""
    folder.mkdir()
    started = time.perf_counter()
    training(folder, epochs=EPOCHS)
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    raise SystemExit(main(arguments.kills, arguments.seed))
