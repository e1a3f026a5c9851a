"""Several processes that train one model, started for real: the weights of one, and what happens when one is lost."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import ranks, witness

PROGRAM = Path(__file__).with_name("ranks_program.py")
ROOT = Path(__file__).parents[1]
BESIDE = Path(sys.executable).with_name("mpirun")
MPIRUN = str(BESIDE) if BESIDE.exists() else shutil.which("mpirun")
pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install -e '.[mpi]'", exc_type=ImportError)
pytestmark = pytest.mark.skipif(MPIRUN is None, reason="there is no mpirun: pip install mpich")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def launch(n, *words, **options):
    """Start a Python program on n ranks, or, with n = 0, without a launcher; return the finished process."""
    launcher = [MPIRUN, "-n", str(n)] if n else []
    words = [*launcher, sys.executable, *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, **{"env": ENVIRONMENT} | options)


def train(n, out, **given):
    return launch(n, PROGRAM, out, *(f"{key}={value}" for key, value in given.items()))


def numbers(out, rank=0):
    with np.load(f"{out}.{rank}.npz") as file:
        return [file[name] for name in file.files]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process computes, by float type."""
    folder = tmp_path_factory.mktemp("alone")

    def compute(dtype):
        out = folder / dtype
        if not Path(f"{out}.0.npz").exists():
            assert train(0, out, dtype=dtype).returncode == 0
        return numbers(out)

    return compute


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_n_ranks_compute_what_one_process_computes(n, dtype, tolerance, alone, tmp_path):
    finished = train(n, tmp_path / "out", dtype=dtype)
    assert finished.returncode == 0, finished.stderr
    expected, mine = alone(dtype), numbers(tmp_path / "out")
    assert len(mine) == len(expected) == 11  # ten arrays of weights, moving averages among them, and the history
    for a, b in zip(mine, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    for rank in range(1, n):
        for a, b in zip(mine, numbers(tmp_path / "out", rank), strict=True):
            np.testing.assert_array_equal(a, b, strict=True)  # not one bit of difference between ranks
    assert finished.stdout.count("Epoch 1/3") == 1  # rank 0 speaks


def test_the_ranks_begin_alike_whatever_their_seeds(alone, tmp_path):
    assert train(3, tmp_path / "out", spread="yes").returncode == 0
    for a, b in zip(numbers(tmp_path / "out"), alone("float64"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for rank in (1, 2):
        for a, b in zip(numbers(tmp_path / "out"), numbers(tmp_path / "out", rank), strict=True):
            np.testing.assert_array_equal(a, b, strict=True)


def test_without_synchronization_each_rank_normalizes_its_share_and_the_averages_are_those_of_all(alone, tmp_path):
    assert train(2, tmp_path / "out", synchronized="no").returncode == 0
    mine, theirs = numbers(tmp_path / "out"), numbers(tmp_path / "out", 1)
    assert max(abs(a - b).max() for a, b in zip(mine, alone("float64"), strict=True)) > 1e-4
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("n", [2, 4])
def test_a_rank_that_fails_ends_all_with_one_line(n, tmp_path):
    started = time.monotonic()
    finished = train(n, tmp_path / "out", fail=6)
    assert finished.returncode != 0
    assert time.monotonic() - started < 60
    lines = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert lines == [f"error: the images of this rank are broken. (rank {n - 1})"]
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("n", [2, 4])
def test_a_rank_that_is_killed_ends_all_with_a_line_and_a_state_to_go_on_from(n, alone, tmp_path):
    state = tmp_path / "state"
    finished = train(n, tmp_path / "out", die=7, resume=state)  # in the second epoch
    assert finished.returncode != 0
    lines = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    expected = f"error: rank {n - 1} was lost, and with it the job: it was killed, or had no memory left. "
    assert lines == [
        f"{expected}The last finished epoch is in {state}: go on from there with --resume, or fit(resume=...)."
    ]
    for again in (n, 3, 0):  # with as many ranks, with others, and alone
        copy = tmp_path / f"state-{again}"
        shutil.copy(state, copy)
        assert train(again, tmp_path / f"out-{again}", resume=copy).returncode == 0
        for a, b in zip(numbers(tmp_path / f"out-{again}"), alone("float64"), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_a_signal_to_one_rank_stops_all_after_the_same_step_with_a_state(alone, tmp_path):
    finished = train(3, tmp_path / "out", signal=6, resume=tmp_path / "state")
    assert finished.returncode != 0
    assert finished.stdout.count("Stopped after step 2 of epoch 2. The state is in") == 1
    assert "was lost" not in finished.stderr
    again = train(2, tmp_path / "out", resume=tmp_path / "state")
    assert again.returncode == 0, again.stderr
    for a, b in zip(numbers(tmp_path / "out"), alone("float64"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_the_baseline_on_two_ranks_writes_and_speaks_once(tmp_path):
    arguments = ["--epochs", "1", "--data", ROOT / "nowhere"]
    finished = launch(2, ROOT / "examples" / "baseline_sgd.py", *arguments, cwd=tmp_path)
    assert finished.returncode != 0
    assert [line.partition("nowhere")[2] for line in finished.stderr.splitlines() if line.startswith("error: ")][:1]
    script = tmp_path / "digits.py"
    script.write_text(
        "import runpy, sys\nfrom minicnn.data import cifar10\nfrom minicnn.errors import DataNotFoundError\n"
        "def download(verbose):\n    raise DataNotFoundError('no network.')\ncifar10.download = download\n"
        f"sys.argv = ['x', '--epochs', '1']\nrunpy.run_path({str(ROOT / 'examples' / 'baseline_sgd.py')!r}, "
        "run_name='__main__')\n"
    )
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "MINICNN_DATA"}
    finished = launch(2, script, cwd=tmp_path, env=environment)
    assert finished.returncode == 0, finished.stderr
    for once in ("Model: ", "val_accuracy", "Validation loss", "Test accuracy", "Model, history and figures"):
        assert finished.stdout.count(once) == 1, once
    assert finished.stderr.count("CIFAR-10 IS NOT HERE") == 1
    assert (tmp_path / "output" / "report.html").exists()
    assert len((tmp_path / "output" / "history.csv").read_text().splitlines()) == 2


def test_cores_are_shared_among_the_ranks_of_a_machine(tmp_path):
    lines = "import minicnn, pathlib, sys; from minicnn import ranks; ranks.wait()\n"
    lines += "pathlib.Path(sys.argv[1], str(ranks.rank())).write_text(str(minicnn.get_num_threads()))"
    finished = launch(2, "-c", lines, tmp_path)  # into files: what two ranks print may be mixed
    assert finished.returncode == 0, finished.stderr
    share = str(max(1, minicnn.get_num_threads() // 2))
    assert [(tmp_path / name).read_text() for name in "01"] == [share, share]


def test_a_program_without_a_launcher_does_not_import_mpi():
    found = launch(0, "-c", "import sys, minicnn.ranks as r; print('mpi4py' in sys.modules, r.rank(), r.size())")
    assert found.stdout.split() == ["False", "0", "1"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            "sys.modules['mpi4py'] = None",
            "needs mpi4py, which is not installed. Install it: pip install 'minicnn[mpi]'",
        ),
        ("", "the launcher started 2 ranks, but mpi4py knows 1: they belong to different MPI libraries."),
    ],
)
def test_what_is_missing_is_said_in_a_line(program, said):
    environment = ENVIRONMENT | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    lines = f"import sys\n{program}\nfrom minicnn import errors, ranks\nwith errors.plain_exit():\n    ranks.wait()"
    found = launch(0, "-c", lines, env=environment)
    assert found.returncode != 0
    assert said in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("N", [0, 1, 2, 6, 7, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_shares_are_of_one_size_and_in_order(monkeypatch, N, size):
    parts = []
    for rank in range(size):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(ranks, "size", lambda: size)
        parts.append(list(range(N))[ranks.share(N)])
    assert list(itertools.chain(*parts)) == list(range(N))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_witness_names_the_state_only_if_there_is_one(tmp_path):
    state = tmp_path / "state"
    assert witness.line_of_loss("1", str(state)).endswith("Start the training anew.")
    state.touch()
    assert str(state) in witness.line_of_loss("1", str(state))
