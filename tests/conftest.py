"""Options of the tests."""


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        choices=["cpu", "gpu"],
        default="cpu",
        help="where tests/gpu runs the GPU's kernels: on the processor, behind a stand-in for CuPy, or on a card (cpu)",
    )
