"""Arguments of programs: a mistake in them is one line and status 2, as every other mistake is."""

import argparse
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end the program."""
        self.exit(2, f"error: {message}. Try: {self.prog} --help\n")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, which is for `minicnn.set_device`."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="cpu",
        help="where to compute; auto is the GPU where it can be used (cpu)",
    )


def at_least(least: int) -> Callable[[str], int]:
    """Return a `type` for arguments that are whole numbers from `least` on.

    >>> at_least(1)("64")
    64
    """

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected an integer >= {least}. Received: {text}")
        return int(text)

    return number
