"""What happens around the batches of a training: rates cut, weights kept, files written, progress shown.

Names, arguments, rules and messages are Keras's; an argument outside its range raises an ArgumentError. A callback
knows its model only through ``optimizer.learning_rate``, ``stop_training``, ``get_weights()``, ``set_weights(w)`` and
``save(path)``, so it can be tried on a stand-in.
"""

import copy
import csv
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from minicnn import checks, ranks
from minicnn.errors import ArgumentError, DtypeError, OutputError
from minicnn.files import output_folder

Logs = dict[str, Any] | None


class Callback:
    """Base of all callbacks: subclass it and override the hooks you need; each does nothing by default.

    At first ``set_model(model)`` and ``set_params(params)`` keep what they are given. Then come, around the training,
    ``on_train_begin(logs)`` and ``on_train_end(logs)``; around each epoch ``on_epoch_begin(epoch, logs)`` and
    ``on_epoch_end(epoch, logs)``; around each of its batches ``on_train_batch_begin(batch, logs)`` and
    ``on_train_batch_end(batch, logs)``; around its validation ``on_test_begin(logs)`` and ``on_test_end(logs)``, and
    around each of that one's batches ``on_test_batch_begin(batch, logs)`` and ``on_test_batch_end(batch, logs)``.

    `epoch` and `batch` are integers from 0. `logs`, a dict of floats or None, holds the running ``loss`` and
    ``accuracy``, at the end of an epoch also ``val_loss`` and ``val_accuracy``; what a callback adds to it there, later
    callbacks and the history see.

    Attributes
    ----------
    model : Model, in training
    params : dict: ``epochs``, ``steps`` (batches an epoch; None if unknown) and ``verbose``
    kept : tuple of str
        Names of attributes that a training which is resumed gets back: numbers, strings, lists of them or of arrays.
    writes : bool
        True if it writes files: with several ranks it is then called on rank 0 alone. The others are called on all, and
        must decide alike on all.

    Examples
    --------
    >>> from minicnn.callbacks import Callback
    >>> class Shout(Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         print(f"EPOCH {epoch + 1}: {logs['loss']:.2f}!")
    >>> Shout().on_epoch_end(0, {"loss": 2.3})
    EPOCH 1: 2.30!
    """

    model: Any = None
    params: dict[str, Any] | None = None
    kept: tuple[str, ...] = ()
    writes = False

    def get_state(self) -> dict[str, Any]:
        """Return what the callback remembers, for a training that is resumed."""
        return {name: getattr(self, name) for name in self.kept}

    def set_state(self, state: dict[str, Any]) -> None:
        """Remember what `get_state` returned; called after ``on_train_begin``.

        Parameters
        ----------
        state : dict of str to what `get_state` gave
        """
        for name in self.kept:
            setattr(self, name, state[name])

    def set_model(self, model: Any) -> None:
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def on_train_begin(self, logs: Logs = None) -> None: ...
    def on_train_end(self, logs: Logs = None) -> None: ...
    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None: ...
    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None: ...
    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None: ...
    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None: ...
    def on_test_begin(self, logs: Logs = None) -> None: ...
    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None: ...
    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None: ...
    def on_test_end(self, logs: Logs = None) -> None: ...


class Monitor(Callback):
    """Base of the callbacks that watch one of the logs and ask whether it got better.

    Parameters
    ----------
    monitor : str, its name in the logs
    mode : {"min", "max", "auto"}, what is better; "auto" takes "max" for accuracies and AUCs, else "min"
    min_delta : float, a smaller change is no improvement
    verbose : int, 1 prints a line when something happens

    Attributes
    ----------
    best : float, the best value so far

    Raises
    ------
    ArgumentError
        If `mode` is none of these.
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "auto", min_delta: float = 0.0, verbose: int = 0):
        if mode not in ("auto", "min", "max"):
            raise ArgumentError(f'{type(self).__name__} expects mode="auto", "min" or "max". Received: mode={mode!r}')
        if mode == "auto":
            mode = "max" if "acc" in monitor or monitor.endswith("auc") else "min"
        self.monitor, self.mode, self.verbose = monitor, mode, verbose
        self.min_delta = abs(min_delta) if mode == "max" else -abs(min_delta)  # signed: it points to what is better
        self.best = self.worst = -np.inf if mode == "max" else np.inf

    def better(self, value: float, reference: float) -> bool:
        """Tell whether `value` is strictly better than `reference`; a NaN never is.

        Parameters
        ----------
        value, reference : float
        """
        return value > reference if self.mode == "max" else value < reference

    def current(self, logs: dict[str, Any]) -> float | None:
        """Return the monitored value, or warn with the names there are and return None.

        Parameters
        ----------
        logs : dict of str to float
        """
        if self.monitor not in logs:
            problem = f"{type(self).__name__} is conditioned on metric `{self.monitor}` which is not available."
            warnings.warn(f"{problem} Available metrics are: {','.join(logs)}", stacklevel=3)
        return logs.get(self.monitor)

    def tell(self, message: str) -> None:
        """Print a line if the callback is verbose.

        Parameters
        ----------
        message : str
        """
        if self.verbose > 0:
            _say(message)


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rate by `factor` after `patience` epochs without improvement.

    The rate used in each epoch is added to its logs as ``learning_rate``. `best` survives a cut.

    Parameters
    ----------
    monitor, mode, min_delta, verbose : as in `Monitor`
    factor : float in [0, 1)
    patience : int >= 0, epochs without improvement before a cut
    cooldown : int >= 0, epochs after a cut that do not count
    min_lr : float >= 0, the rate never goes below it

    Raises
    ------
    ArgumentError
        If an argument is not as above.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from minicnn.callbacks import ReduceLROnPlateau
    >>> plateau = ReduceLROnPlateau(factor=0.5, patience=2, verbose=1)
    >>> plateau.model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.01))
    >>> for epoch, loss in enumerate([1.2, 1.0, 1.1, 1.0]):
    ...     plateau.on_epoch_end(epoch, {"val_loss": loss})
    Epoch 4: ReduceLROnPlateau reducing learning rate to 0.005.
    """

    kept = ("best", "wait", "cooldown_counter")

    def __init__(
        self, monitor: str = "val_loss", factor: float = 0.1, patience: int = 10, verbose: int = 0, mode: str = "auto",
        min_delta: float = 1e-4, cooldown: int = 0, min_lr: float = 0.0,
    ):  # fmt: skip
        super().__init__(monitor, mode, min_delta, verbose)
        if checks.number("ReduceLROnPlateau(factor)", factor, least=0) >= 1:
            raise ArgumentError(f"ReduceLROnPlateau expects 0 <= factor < 1, such as 0.1. Received: factor={factor!r}")
        for name, value in (("patience", patience), ("cooldown", cooldown), ("min_lr", min_lr)):
            checks.number(f"ReduceLROnPlateau({name})", value, least=0)
        self.factor, self.patience, self.cooldown, self.min_lr = factor, patience, cooldown, min_lr
        self.on_train_begin()

    def on_train_begin(self, logs: Logs = None) -> None:
        self.best = self.worst
        self.wait = 0
        self.cooldown_counter = 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = {} if logs is None else logs
        rate = logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        current = self.current(logs)
        if current is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.better(current, self.best + self.min_delta):
            self.best = current
            self.wait = 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience and rate > float(np.float32(self.min_lr)):  # the rate is a float32 too
                rate = max(rate * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = rate
                self.tell(f"Epoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {rate}.")
                self.cooldown_counter = self.cooldown
                self.wait = 0


class EarlyStopping(Monitor):
    """Stop the training after `patience` epochs without improvement.

    Parameters
    ----------
    monitor, mode, min_delta, verbose : as in `Monitor`
    patience : int >= 0, epochs without improvement before the stop
    baseline : float or None, an improvement restarts the waiting only if it beats this as well
    restore_best_weights : bool
        When training ends, whatever ended it, give the model its weights of the best epoch (as Keras 3; Keras 2 did
        so only when it had stopped the training itself). The learning rate and the velocities stay as they are.
    start_from_epoch : int >= 0, epochs to let pass first

    Raises
    ------
    ArgumentError
        If an argument is not as above.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from minicnn.callbacks import EarlyStopping
    >>> stopping = EarlyStopping(patience=2)
    >>> stopping.model = SimpleNamespace(stop_training=False)
    >>> for epoch, loss in enumerate([1.2, 1.0, 1.1, 1.0]):
    ...     stopping.on_epoch_end(epoch, {"val_loss": loss})
    >>> stopping.model.stop_training, stopping.best_epoch  # from 0
    (True, 1)
    """

    kept = ("best", "wait", "stopped_epoch", "best_epoch", "best_weights")

    def __init__(
        self, monitor: str = "val_loss", min_delta: float = 0, patience: int = 0, verbose: int = 0, mode: str = "auto",
        baseline: float | None = None, restore_best_weights: bool = False, start_from_epoch: int = 0,
    ):  # fmt: skip
        super().__init__(monitor, mode, min_delta, verbose)
        checks.number("EarlyStopping(patience)", patience, least=0)
        checks.number("EarlyStopping(start_from_epoch)", start_from_epoch, least=0)
        self.patience, self.baseline = patience, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch
        self.on_train_begin()

    def on_train_begin(self, logs: Logs = None) -> None:
        self.best = self.worst
        self.wait = 0
        self.stopped_epoch = 0
        self.best_epoch = 0
        self.best_weights: list | None = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        current = self.current(logs or {})
        if current is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        improved = self.better(current - self.min_delta, self.best)
        if improved:
            self.best = current
        if improved or (self.restore_best_weights and self.best_weights is None):  # even of a first epoch that gave NaN
            self.best_epoch = epoch
            if self.restore_best_weights:
                self.best_weights = copy.deepcopy(self.model.get_weights())
        if improved and (self.baseline is None or self.better(current - self.min_delta, self.baseline)):
            self.wait = 0
        elif not improved and self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        if self.stopped_epoch > 0:
            self.tell(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            self.tell(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(Monitor):
    """Save the model after every epoch, or after those only that are the best so far.

    Parameters
    ----------
    filepath : path
        Braces name the logs and the epoch, from 1: ``"{epoch:02d}-{val_loss:.2f}.keras"``. Folders are made.
    monitor, mode, verbose : as in `Monitor`
    save_best_only : bool, save only when the monitored value is strictly better than ever before
    save_weights_only : bool, call the model's ``save_weights`` instead of its ``save``
    save_freq : {"epoch"}, Keras can count batches instead; minicnn cannot
    initial_value_threshold : float or None, the first value to beat

    Raises
    ------
    ArgumentError
        If an argument is not as above; when saving, if `filepath` names what the logs lack.
    OutputError
        When saving, if the file cannot be written.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from minicnn.callbacks import ModelCheckpoint
    >>> checkpoint = ModelCheckpoint("model-{epoch:02d}-{val_loss:.2f}.safetensors", save_best_only=True)
    >>> checkpoint.model = SimpleNamespace(save=print)  # prints the path instead of saving
    >>> for epoch, loss in enumerate([1.2, 1.3, 1.0]):
    ...     checkpoint.on_epoch_end(epoch, {"val_loss": loss})
    model-01-1.20.safetensors
    model-03-1.00.safetensors
    """

    kept, writes = ("best",), True

    def __init__(
        self, filepath: str | os.PathLike, monitor: str = "val_loss", verbose: int = 0, save_best_only: bool = False,
        save_weights_only: bool = False, mode: str = "auto", save_freq: str = "epoch",
        initial_value_threshold: float | None = None,
    ):  # fmt: skip
        super().__init__(monitor, mode, verbose=verbose)
        if save_freq != "epoch":
            raise ArgumentError(f'ModelCheckpoint expects save_freq="epoch". Received: save_freq={save_freq!r}')
        self.filepath = os.fspath(filepath)
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.best = self.worst if initial_value_threshold is None else initial_value_threshold

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = logs or {}
        improvement = ""
        if self.save_best_only:
            current = self.current(logs)
            if current is None:
                return
            if not self.better(current, self.best):
                self.tell(f"Epoch {epoch + 1}: {self.monitor} did not improve from {self.best:.5f}")
                return
            improvement = f"{self.monitor} improved from {self.best:.5f} to {current:.5f}, "
            self.best = current
        fields = {**logs, "epoch": epoch + 1}
        try:
            path = self.filepath.format(**fields)
        except (LookupError, ValueError, AttributeError) as error:
            problem = f"ModelCheckpoint cannot fill in filepath={self.filepath!r} ({type(error).__name__}: {error})"
            raise ArgumentError(f"{problem}. Expected in braces only: {', '.join(fields)}") from error
        self.tell(f"Epoch {epoch + 1}: {improvement}saving model to {path}")
        output_folder(Path(path).parent)
        save = self.model.save_weights if self.save_weights_only else self.model.save
        save(path)


class History(Callback):
    """Keep every epoch's logs; ``fit`` returns it.

    Attributes
    ----------
    epoch : list of int, from 0
    history : dict of str to list
        By the names of the logs, loss, accuracy, val_loss, val_accuracy and learning_rate: a value an epoch.

    Examples
    --------
    >>> from minicnn.callbacks import History
    >>> history = History()
    >>> history.on_epoch_end(0, {"loss": 1.5, "accuracy": 0.5})
    >>> history.history
    {'loss': [1.5], 'accuracy': [0.5]}
    """

    kept = ("epoch", "history")

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list] = {}

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class CSVLogger(Callback):
    """Write a row an epoch, ``epoch`` from 0 and the logs in the order of their names, as soon as it ends.

    Parameters
    ----------
    filename : path, its folder is made if it is missing
    separator : str, one character
    append : bool, go on under the columns of a file that is there, instead of starting it anew

    Raises
    ------
    ArgumentError
        If an argument is not as above.
    OutputError
        When training begins, if the file cannot be written; later, if the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> from minicnn.callbacks import CSVLogger
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = CSVLogger(f"{folder}/history.csv")
    ...     logger.on_epoch_end(0, {"loss": 1.5, "accuracy": 0.5})
    ...     with open(f"{folder}/history.csv") as file:
    ...         print(file.read(), end="")
    epoch,accuracy,loss
    0,0.5,1.5
    """

    kept, writes = ("size",), True

    def __init__(self, filename: str | os.PathLike, separator: str = ",", append: bool = False):
        if not isinstance(separator, str) or len(separator) != 1:
            raise ArgumentError(f"CSVLogger expects separator to be one character. Received: {separator!r}")
        self.filename, self.separator, self.append = os.fspath(filename), separator, append
        self.anew = False  # whether the next row is the first of a new file
        self.size = 0  # of the file, in bytes, after the last row

    def on_train_begin(self, logs: Logs = None) -> None:
        output_folder(Path(self.filename).parent)
        with _writing(self.filename, "a"):  # now, and not after an epoch: can it be written?
            pass
        self.anew = not self.append

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on in the file as it was after the last finished epoch: what came later comes again.

        Parameters
        ----------
        state : dict, as in `Callback`
        """
        self.anew, self.size = False, int(state["size"])
        if os.path.getsize(self.filename) > self.size:
            with _writing(self.filename, "r+") as file:
                file.truncate(self.size)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        row = {"epoch": epoch, **dict(sorted((logs or {}).items()))}
        with _writing(self.filename, "w+" if self.anew else "a+") as file:  # closed for each row: a kill loses nothing
            self.anew = False
            file.seek(0)
            columns = next(csv.reader(file, delimiter=self.separator), None)
            dialect: dict[str, Any] = {"delimiter": self.separator, "lineterminator": "\n"}
            writer = csv.DictWriter(file, columns or list(row), restval="NA", extrasaction="ignore", **dialect)
            if columns is None:
                writer.writeheader()
            writer.writerow(row)
        self.size = os.path.getsize(self.filename)


class TerminateOnNaN(Callback):
    """End the training at the first batch whose running loss is not finite.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from minicnn.callbacks import TerminateOnNaN
    >>> guard = TerminateOnNaN()
    >>> guard.model = SimpleNamespace(stop_training=False)
    >>> guard.on_train_batch_end(7, {"loss": float("nan")})
    Batch 7: Invalid loss, terminating training
    >>> guard.model.stop_training
    True
    """

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            _say(f"Batch {batch}: Invalid loss, terminating training")
            self.model.stop_training = True


class ProgressBar(Callback):
    """Show an epoch while it runs and close it with a line of its figures; ``fit`` adds one.

    ``params["verbose"]``: 0 is silent; 1 or "auto" draws a bar on a terminal and prints plain lines elsewhere; 2 prints
    one line an epoch. An evaluation is shown as a training of one epoch, which needs no title.

    Raises
    ------
    ArgumentError
        When training begins, if it is none of these.
    """

    def __init__(self) -> None:
        self.bar: Any = None

    def set_params(self, params: dict[str, Any]) -> None:
        if params["verbose"] not in ("auto", 0, 1, 2):
            raise ArgumentError(f'verbose must be "auto", 0, 1 or 2. Received: {params["verbose"]!r}')
        self.verbose = 1 if params["verbose"] == "auto" else int(params["verbose"])
        self.verbose *= ranks.rank() == 0
        self.epochs, self.steps = params["epochs"], params["steps"]

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.title = f"Epoch {epoch + 1}/{self.epochs}" if self.epochs > 1 else ""
        self.seen = 0
        self.started = time.perf_counter()
        if self.verbose == 1 and self.title:
            _say(self.title)
        if self.verbose == 1 and sys.stdout.isatty():
            from tqdm import tqdm

            width = shutil.get_terminal_size().columns - 1  # 79 where the terminal does not tell
            self.bar = tqdm(total=self.steps, unit="step", file=sys.stdout, leave=False, ncols=width, nrows=20)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self.seen += 1
        if self.bar is not None:
            self.bar.set_postfix_str(" - ".join(_figures(logs)), refresh=False)
            self.bar.update()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.clear()
        if self.verbose == 0:
            return
        seconds = time.perf_counter() - self.started
        line = [f"{self.seen}/{self.steps or self.seen}", f"{seconds:.0f}s {_per_step(seconds / max(self.seen, 1))}"]
        if self.verbose == 2 and self.title:
            line.insert(0, self.title)  # the only line of its epoch says which one it is
        _say(" - ".join(line + _figures(logs)))

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *problem: object) -> None:
        self.clear()  # so that an error's message starts on a line of its own

    def skip(self, steps: int) -> None:
        """Count steps that were made before the training was interrupted.

        Parameters
        ----------
        steps : int
        """
        self.seen += steps
        if self.bar is not None:
            self.bar.update(steps)

    def clear(self) -> None:
        """Take the bar off the terminal, if there is one."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class CallbackList:
    """The callbacks of a training: the user's in their order, then the history, then the progress bar.

    So each sees what the earlier ones added to the logs, and an epoch's closing line follows their messages. A
    `History` or `ProgressBar` of the user's takes the place of ours. `DtypeError` for what is not a `Callback`.
    """

    def __init__(
        self, callbacks: Callback | Sequence[Callback] | None, model: Any,
        epochs: int = 1, steps: int | None = None, verbose: int | str = "auto",
    ):  # fmt: skip
        given = callbacks or [] if isinstance(callbacks, list | tuple | None) else [callbacks]
        for callback in given:
            if not isinstance(callback, Callback):
                expected = "callbacks expects instances of minicnn.callbacks.Callback, such as EarlyStopping()"
                raise DtypeError(f"{expected}. Received: {callback!r}")
        self.history = next((c for c in given if isinstance(c, History)), History())
        self.progress = next((c for c in given if isinstance(c, ProgressBar)), ProgressBar())
        self.callbacks = [*given, *(c for c in (self.history, self.progress) if c not in given)]
        self.call("set_model", model)
        self.call("set_params", {"epochs": epochs, "steps": steps, "verbose": verbose})

    def call(self, hook: str, *arguments: Any) -> None:
        """Call the hook of this name of every callback: ``call("on_epoch_end", epoch, logs)``."""
        if hook == "on_epoch_end":
            self.progress.clear()  # what the callbacks print then starts on a line of its own
        for callback in self.callbacks:
            if ranks.rank() == 0 or not callback.writes:
                getattr(callback, hook)(*arguments)


def _say(message: str) -> None:
    """Print a line at once, above the bar if one is showing; of several ranks, rank 0 does."""
    if ranks.rank() > 0:
        return
    from tqdm import tqdm

    tqdm.write(message, file=sys.stdout)
    sys.stdout.flush()


def _figures(logs: Logs) -> list[str]:
    """Return "name: value" for each of the logs: four decimals, or scientific where those would show too little."""
    items = (logs or {}).items()
    return [f"{name}: {value:.4f}" if abs(value) > 1e-3 else f"{name}: {value:.4e}" for name, value in items]


def _per_step(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.0f}s/step"
    return f"{seconds * 1e3:.0f}ms/step" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us/step"


@contextmanager
def _writing(path: str, mode: str) -> Iterator[IO[str]]:
    """Open a text file, with `OutputError` for what goes wrong there."""
    try:
        with open(path, mode, newline="", encoding="utf-8") as file:
            yield file
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}. Choose a file that you may write.") from error
