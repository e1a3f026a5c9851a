"""Feed each loader with a million inputs, chosen by the lines of the program that they reach.

`python tests/fuzz/run.py` needs the extra "fuzz": atheris, which is libFuzzer for Python. Each target runs in a process
of its own, from good files made on the spot; a hang of 30 seconds, 2 GB of memory or a crash of the process count as
findings, too. Inputs that fail are kept, and named at the end; the status is 1 if there are any.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help="names of targets (all)")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs over all targets (1,000,000)")
    parser.add_argument("--seconds", type=int, default=0, help="at most so long over all targets (no limit)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (1)")
    parser.add_argument("--findings", type=Path, help="where inputs that fail are kept (a new folder)")
    parser.add_argument("--inside", metavar="SCRATCH", help=argparse.SUPPRESS)
    arguments, passed_on = parser.parse_known_args()
    if arguments.inside:
        fuzz(arguments.targets[0], Path(arguments.inside), passed_on)

    import targets

    names = arguments.targets or [target.name for target in targets.TARGETS]
    findings = arguments.findings or Path(tempfile.mkdtemp(prefix="minicnn-findings-"))
    rows = [one(name, arguments, len(names), findings) for name in names]
    print(f"{'target':12} {'inputs':>9} {'findings':>8} {'peak MB':>8} {'seconds':>8}")
    for row in rows:
        print("{:12} {:9,} {:8} {:8} {:8.0f}".format(*row))
    found = sum(row[2] for row in rows)
    print(f"{sum(row[1] for row in rows):,} inputs, {found} findings, at most {max(row[3] for row in rows)} MB")
    if found:
        print(f"The inputs that failed are in {findings}.")
    return found > 0


def one(name, arguments, count, findings):
    """Run one target in a process of its own; return its name, inputs, findings, peak memory in MB and seconds."""
    import targets

    start, kept = time.monotonic(), findings / name
    kept.mkdir(parents=True, exist_ok=True)
    executed, peak = 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(next(t for t in targets.TARGETS if t.name == name).seeds()):
            (corpus / str(number)).write_bytes(seed)
        command = [sys.executable, __file__, name, "--inside", scratch, "--findings", str(kept), str(corpus)]
        command += [f"-runs={arguments.runs // count}", f"-max_total_time={arguments.seconds // count}"]
        command += ["-timeout=30", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1", "-len_control=0"]
        command += [f"-seed={arguments.seed}", f"-artifact_prefix={kept}/"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", cwd=ROOT)
        for line in process.stderr:
            if said := re.match(r"#(\d+)\s+(\w+).*?rss: (\d+)Mb", line):
                executed, peak = int(said[1]), max(peak, int(said[3]))
                if said[2] == "pulse":
                    print(f"{name}: {executed:,} inputs, {peak} MB, {time.monotonic() - start:.0f} s", flush=True)
            elif said := re.match(r"stat::number_of_executed_units:\s*(\d+)", line):
                executed = int(said[1])
            elif said := re.match(r"stat::peak_rss_mb:\s*(\d+)", line):
                peak = int(said[1])
            elif not line.startswith(("INFO:", "stat::", "#", "Done ", "\tNEW", "WARNING:")):
                print(f"  {line}", end="", flush=True)
        process.wait()
    found = max(len(list(kept.iterdir())), int(process.returncode != 0))
    return name, executed, found, peak, time.monotonic() - start


def fuzz(name, scratch, passed_on):
    """Be the process of one target: give its loader what libFuzzer makes, and go on after an exception."""
    import atheris

    with atheris.instrument_imports(include=["minicnn", "PIL", "tarfile", "gzip"], exclude=["minicnn.kernels"]):
        import targets

        import minicnn  # noqa: F401 - Numba cannot compile what was instrumented: not the kernels

    target = next(target for target in targets.TARGETS if target.name == name)
    place = next(Path(part.split("=", 1)[1]) for part in passed_on if part.startswith("-artifact_prefix="))
    warnings.simplefilter("ignore")  # Pillow warns of much that it reads all the same
    (folder := scratch / "files").mkdir()
    seen = set()

    def try_one(data):
        try:
            target.try_one(data, folder)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # Rust's panics are no Exception
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__}-{Path(where.filename).stem}-{where.lineno}"
            if kind not in seen:
                seen.add(kind)
                (place / kind).write_bytes(data)
                traceback.print_exc()

    atheris.Setup([sys.argv[0], *passed_on], try_one)
    atheris.Fuzz()  # does not return


if __name__ == "__main__":
    sys.exit(main())
