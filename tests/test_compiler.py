"""Compiled kernels on disk: found again, and never in the way when the disk is."""

import os
import pickle
import shutil
import subprocess
import sys
from functools import partial

import numba
import pytest

from minicnn.kernels.compiler import _Files

PROGRAM = """
import numpy as np
from numba.core import event
from minicnn.kernels import cpu

with event.install_recorder("numba:compile") as recorder:
    y = cpu.relu(np.array([-1.0, 2.0], np.float32)), cpu.relu(np.array([-1.0, 2.0]))
print(y[0].tolist() == y[1].tolist() == [0, 2], len(recorder.buffer) // 2)
"""


def start(folder, **options):
    environment = os.environ | {"MINICNN_CACHE_DIR": str(folder)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, text=True, **pipes, **options)


def run(folder, said="", **options):
    """What the program printed: whether its results were right, and how many kernels it compiled."""
    process = start(folder, **options)
    out, error = process.communicate()
    assert (process.returncode, said in error, error.count("\n")) == (0, True, int(said != ""))
    return out.split()


def stored(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_kernel_is_compiled_once(tmp_path):
    assert run(tmp_path) == ["True", "2"]
    assert run(tmp_path) == ["True", "0"]
    assert len(list(tmp_path.iterdir())) == 1  # a folder for this processor and these versions


def test_processes_that_start_at_once(tmp_path):
    processes = [start(tmp_path) for _ in range(4)]
    for process in processes:
        out, error = process.communicate()
        assert (process.returncode, error, out.split()[0]) == (0, "", "True")
    run(tmp_path)  # compiles what one of them may have written over another's
    assert run(tmp_path) == ["True", "0"]


def test_a_folder_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    assert run(file)[0] == "True"
    assert file.read_text() == "in the way"


@pytest.mark.parametrize("damage", ["empty", "half", "noise"])
def test_damaged_files_are_compiled_again(tmp_path, damage):
    run(tmp_path)
    for path in stored(tmp_path):
        content = path.read_bytes()
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": b"\x80\x04noise" * 50}[damage])
    assert run(tmp_path) == ["True", "2"]
    assert run(tmp_path) == ["True", "0"]


# What is not ours is not loaded


def test_one_flipped_bit_anywhere_and_the_file_is_compiled_again(tmp_path):
    run(tmp_path)
    whole = {path: path.read_bytes() for path in stored(tmp_path)}
    compiled, index = [path for path in whole if path.suffix == ".nbc"], next(p for p in whole if p.suffix == ".nbi")
    for place in (0, 40, -1000):  # the digest, the pickle's head, and what would be run
        for path in compiled:
            content = bytearray(whole[path])
            content[place] ^= 16
            path.write_bytes(content)
        assert run(tmp_path) == ["True", "2"]
    index.write_bytes(whole[index][:-20] + b"?" + whole[index][-19:])
    assert run(tmp_path) == ["True", "2"]


class Harm:
    """When unpickled, it leaves a folder."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


def test_a_foreign_pickle_is_never_opened(tmp_path):
    run(tmp_path / "cache")
    harm = Harm(str(tmp_path / "harm"))
    for path in stored(tmp_path / "cache"):
        path.write_bytes(
            pickle.dumps(numba.__version__) + pickle.dumps(harm) if path.suffix == ".nbi" else pickle.dumps(harm)
        )
    assert run(tmp_path / "cache") == ["True", "2"]
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickle.dumps(harm))
    assert (tmp_path / "harm").exists()  # else it would have done no harm in any case


def test_one_kernel_does_not_pass_for_another_nor_for_its_older_self(tmp_path):
    def files(name, source=b"the source"):
        return _Files(str(tmp_path), name, source)

    files("one").save("float32", "machine code")
    files("two").save("float32", "other machine code")
    assert (files("one").load("float32"), files("two").load("float32")) == ("machine code", "other machine code")
    assert files("one", b"a newer source").load("float32") is None
    files("one", b"a newer source")._save_index({"float32": "one.1.nbc"})  # as if it had ended before the rest
    assert files("one", b"a newer source").load("float32") is None
    shutil.copy(tmp_path / "one.1.nbc", tmp_path / "two.1.nbc")
    assert files("two").load("float32") is None
    shutil.copy(tmp_path / "one.nbi", tmp_path / "two.nbi")
    assert files("two", b"a newer source").load("float32") is None


def private(folder):
    run(folder)
    return next(folder.iterdir())  # of this processor and these versions


needs_owners = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders have no owners or modes here")


@needs_owners
def test_the_folder_is_the_users_alone(tmp_path):
    ours = private(tmp_path)
    assert {folder.stat().st_mode & 0o777 for folder in (ours, *ours.iterdir())} == {0o700}


def everybody_may_write(folder):
    folder.chmod(0o777)


def a_group_may_write(folder):
    next(folder.iterdir()).chmod(0o770)


def somebody_elses(folder):
    if os.geteuid() != 0:
        pytest.skip("only root may give a folder away")
    os.chown(folder, 65534, -1)


def a_link(folder):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


@needs_owners
@pytest.mark.parametrize("change", [everybody_may_write, a_group_may_write, somebody_elses, a_link])
def test_a_folder_that_others_could_write_to_is_not_used_and_that_is_said_once(tmp_path, change):
    ours = private(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in stored(tmp_path)}
    change(ours)
    assert run(tmp_path, said="is expected to be a folder of yours that nobody else may write to") == ["True", "2"]
    assert before == {path: path.stat().st_mtime_ns for path in stored(tmp_path)} or change is a_link


@needs_owners
def test_a_full_disk_costs_a_compilation_and_leaves_nothing_half_written(tmp_path):
    import resource

    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))  # the index still fits
    assert run(tmp_path, preexec_fn=full) == ["True", "2"]
    assert all(path.suffix == ".nbi" for path in stored(tmp_path))
    assert run(tmp_path) == ["True", "2"]
    assert run(tmp_path) == ["True", "0"]
