"""Random bytes and damaged good files: a loader takes them or gives one of our errors, soon, with little memory.

These are some hundred inputs a loader; `tests/fuzz/run.py` tries a million, chosen by what they reach.
"""

import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_faults import little_memory

sys.path.append(str(Path(__file__).parent / "fuzz"))
import targets

from minicnn.errors import DataError

MB = 2**20


@st.composite
def damaged(draw, seeds):
    """A good input of which some bytes were changed, cut out or repeated; or any bytes."""
    if draw(st.integers(0, 7)) == 0:
        return draw(st.binary(max_size=300))
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        end = start + draw(st.sampled_from([1, 1, 1, 2, 8, 100, 1000]))
        part = data[start:end]
        change = draw(st.sampled_from(["bit", "bytes", "cut", "repeat", "end"]))
        if change == "bit" and part:
            part[0] ^= 1 << draw(st.integers(0, 7))
        elif change == "bytes":
            part = draw(st.sampled_from([b"\x00", b"\xff", b"9", b'"', b"[", b"-"])) * len(part)
        elif change == "cut":
            part = b""
        elif change == "repeat":
            part = part * draw(st.integers(2, 20))
        elif change == "end":
            del data[start:]
            part = b""
        data[start:end] = part
    return bytes(data)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it reads all the same
@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda target: target.name)
def test_only_our_errors_come_out(target):
    seen = set()

    @settings(max_examples=300, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(damaged(target.seeds()))
    def try_one(data):
        begin = time.monotonic()
        seen.add(target.try_one(data, folder) is None)
        assert time.monotonic() - begin < 5

    with tempfile.TemporaryDirectory() as name, little_memory(128 * MB):
        folder = Path(name)
        try_one()
    assert seen == {True, False}  # some were taken, and some refused


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda target: target.name)
def test_good_inputs_are_taken(target, tmp_path):
    for data in target.seeds()[: 1 if target.name == "edited" else None]:
        assert target.try_one(data, tmp_path) is None or target.name == "edited"


def test_another_error_is_found(tmp_path):
    """What the tests above would say of a loader that lets other errors out, or one of ours in several lines."""
    for error in (KeyError("x"), DataError("two\nlines")):

        def load(data, folder, error=error):
            raise error

        with pytest.raises((KeyError, AssertionError)):
            targets.Target("bad", list, load).try_one(b"", tmp_path)
