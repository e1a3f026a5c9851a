"""The GPU room for the tests: on the processor behind a stand-in for CuPy, or, with --device gpu, on the card."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # the tests of the other rooms: their cases serve here too

import host
import stand_in

import minicnn
from minicnn.kernels import devices


@pytest.fixture(scope="session")
def on_card(request):
    return request.config.getoption("--device") == "gpu"


@pytest.fixture(scope="module")
def gpu(on_card):
    """The room itself; layers compute in it meanwhile."""
    if on_card:
        if missing := devices.what_is_missing():
            pytest.fail(f"--device gpu: {missing}")
        with minicnn.device("gpu"):
            yield minicnn.kernels.chosen_room()
        return
    if host.COMPILER is None:
        pytest.skip("the CUDA text is compiled for the processor by g++, which is not installed")
    with pytest.MonkeyPatch.context() as patch:
        stand_in.install(patch)
        with minicnn.device("gpu"):
            yield minicnn.kernels.chosen_room()
        sys.modules.pop("minicnn.kernels.gpu", None)  # which holds the stand-in
        vars(minicnn.kernels).pop("gpu", None)
