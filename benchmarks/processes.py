"""Programs in processes of their own, which answer in lines of JSON.

Nothing but the standard library is imported here: `starts` measures imports.
"""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.tasks import Task

SECONDS = 0.3  # of one program in one round
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}  # TensorFlow tells much otherwise


class ProgramError(Exception):
    """A program that ended before it answered; the last line of its errors is the message."""

    def __init__(self, program: str, errors: str) -> None:
        super().__init__(f"{program} ended: {(errors.strip() or 'no error was printed').splitlines()[-1]}")


class Process:
    """A program that has prepared its task and waits to be told how often to repeat it."""

    def __init__(self, program: str, task: Task, threads: int, photographs: str) -> None:
        words = [sys.executable, "-m", "benchmarks.worker", program, json.dumps(task), str(threads), photographs]
        environment = os.environ | QUIET | {"OMP_NUM_THREADS": str(threads)}
        self.program = program
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open until `end`; a pipe could fill up
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )
        self.answer()
        self.repetitions = max(1, round(SECONDS / self.measure(3)["wall"]))

    def measure(self, repetitions: int) -> dict[str, float]:
        """Repeat the task so often; return seconds of wall and processor for once, and the peak of memory in MB."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{repetitions}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """Return the next line that the process prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            errors = self.errors.read()
            self.end()
            raise ProgramError(self.program, errors)
        return json.loads(line)

    def end(self) -> None:
        """Let the process finish."""
        self.process.communicate()
        self.errors.close()


def answer(program: str, words: list[Any], environment: dict[str, str] | None = None) -> Any:
    """Run ``python -m words...`` to its end; return the last line that it prints, read as JSON."""
    command = [sys.executable, "-m", *map(str, words)]
    run = subprocess.run(command, env=os.environ | QUIET | (environment or {}), capture_output=True, text=True)
    if run.returncode:
        raise ProgramError(program, run.stderr)
    return json.loads(run.stdout.splitlines()[-1])
