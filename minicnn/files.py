"""Writing files so that a reader sees the old one or the new one, never a part."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minicnn.errors import MinicnnError, OutputError


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, flush that file and rename it to `path`.

    Parameters
    ----------
    path : path
        Where the finished file goes; its folder is made if it is missing.

    Yields
    ------
    pathlib.Path
        An empty file in the same folder with the same suffix. If the block raises, it is deleted.

    Raises
    ------
    OutputError
        If the folder or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from minicnn.files import replacing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(f"{folder}/note.txt") as temporary:
    ...         _ = temporary.write_text("whole or not at all")
    ...     print(Path(folder, "note.txt").read_text())
    whole or not at all
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        temporary.open("xb").close()
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except MinicnnError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Choose a folder that you may write to and that has room."
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # of a folder that cannot be written any more, the error above tells
                temporary.unlink(missing_ok=True)


def output_folder(path: str | os.PathLike) -> Path:
    """Make `path` and prove that a file can be written there, before any work is spent on what goes into it.

    Parameters
    ----------
    path : path
        The folder; its parents are made too.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    OutputError
        If it is a file, or cannot be made or written.

    Examples
    --------
    >>> import tempfile
    >>> from minicnn.files import output_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     output_folder(f"{folder}/run/1").is_dir()
    True
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file. Expected a folder, or a place for a new one: choose another.")
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except MinicnnError:
        raise
    except OSError as error:
        raise OutputError(
            f"the folder {path} cannot be written: {error.strerror or error}. "
            "Choose another folder, or change its permissions."
        ) from error
    return path
