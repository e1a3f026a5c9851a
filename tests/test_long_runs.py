"""The long runs of docs/reliability.md, in short: the scripts work, and what they show begins to show."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def said(script, *arguments):
    """Run a script; return its last line."""
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_processes_that_are_killed_at_random_moments_end_where_the_unbroken_one_ends():
    assert ", 0 elsewhere" in said("kills.py", "--kills", "12")


def test_a_file_that_is_mapped_is_not_loaded():
    line = said("mapped.py", "--gigabytes", "0.6")
    before, most = map(int, re.search(r"own (\d+) MB before, at most (\d+) MB", line).groups())
    assert most - before < 400, "the file has 600 MB"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory is read from Linux's /proc")
def test_memory_stays_where_it_is():
    line = said("soak.py", "--minutes", "0.2")
    low, high = map(float, re.search(r"([\d.]+) to ([\d.]+) MB", line).groups())
    assert high - low < 20
