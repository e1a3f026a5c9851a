"""A training that survives its process: all that the next step depends on, in one file, after every epoch.

The file is a model file, which `load_model` reads, with tensors and a header entry more: weights, the optimizer's slots
and learning rate, epoch and step, the running means, what callbacks remember, and the states of all random generators.
So a run that was killed and goes on ends, bit for bit, where the unbroken run ends.
"""

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from minicnn import config, kernels, ranks, saving
from minicnn.callbacks import CallbackList
from minicnn.checks import whole_number
from minicnn.errors import ArgumentError, DataError, DataNotFoundError, MinicnnError, ShapeError


class Keeper:
    """Writes the state of one training to `path`, and restores what is there."""

    def __init__(
        self, path: str | os.PathLike | None, model: Any, hooks: CallbackList, data_sets: Sequence[Any]
    ) -> None:
        self.path, self.model, self.hooks = None if path is None else Path(path), model, hooks
        self.generators = [g for data_set in data_sets for g in getattr(data_set, "generators", [])]
        self.signal: int | None = None  # that asked for an end

    def restore(self, batches: Any) -> dict[str, Any] | None:
        """Bring model, callbacks and generators to where the file left them; return epoch, step and running means.

        Raises
        ------
        DataError
            If the file is damaged or holds no state of a training.
        ArgumentError, ShapeError
            If it is that of another network, optimizer, data set or list of callbacks: nothing is changed then.
        """
        if self.path is None or not self.path.exists():
            return None
        if hasattr(batches, "image_shape"):
            self.model.ensure_built(np.empty((0, *batches.image_shape)))
        tensors, header = saving.read_all(self.path)
        state = header.get("training")
        if not isinstance(state, dict):
            raise DataError(
                f"{self.path} holds a model but no state of a training. Expected what fit(resume=...) wrote."
            )
        try:
            state = _from_json(state, tensors)
            self._check(header["model"], state)
            self._restore(tensors, state)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            if isinstance(error, MinicnnError):
                raise
            raise DataError(f"{self.path} is damaged: {error!r}. Start the training anew.") from None
        return state

    def _check(self, description: dict[str, Any], state: dict[str, Any]) -> None:
        for what, mine, theirs in (
            ("network", _described(self.model).get("layers"), description.get("layers")),
            ("optimizer and loss", _compiled(self.model), state["compiled"]),
            ("callbacks", self._names(), state["names"]),
            ("number of data sets that are shuffled", len(self.generators), len(state["orders"])),
        ):
            if json.loads(json.dumps(mine)) != theirs:
                shown = "" if what == "network" else f" Expected: {theirs}. Received: {mine}."
                raise ArgumentError(
                    f"{self.path} is the state of another training: its {what} differs.{shown} "
                    "Go on with the same program, or choose another file."
                )

    def _restore(self, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        weights = [tensor for name, tensor in tensors.items() if not name.startswith(":")]
        named = self.model.named_weights()
        wrong = [name for name, w in named.items() if name not in tensors or tensors[name].shape != w.shape]
        if wrong or len(weights) != len(named):
            raise ShapeError(
                f"the weights in {self.path} do not fit the model: {', '.join(wrong) or 'there are others'}"
            )
        optimizer, trainable = self.model.optimizer, self.model.trainable_weights()
        slots = {slot: [tensors[f":{slot}/{i}"] for i in range(len(trainable))] for slot in optimizer.kept}
        for slot, arrays in slots.items():
            if [array.shape for array in arrays] != [w.shape for w in trainable]:
                raise ShapeError(f"each {slot} in {self.path} must fit its weight. Start the training anew.")
        epoch, step = (whole_number(f"the state's {name}", state[name]) for name in ("epoch", "step"))
        samples, loss, correct = state["running"] or (0, 0.0, 0)
        if whole_number("samples", samples) < step or whole_number("correct", correct) > samples or epoch + step == 0:
            raise DataError(f"the sums in {self.path} do not fit its {step} steps. Start the training anew.")
        float(loss)
        self.model.set_weights([tensors[name] for name in named])
        optimizer.learning_rate = state["learning_rate"]
        optimizer.iterations = whole_number("the optimizer's steps", state["iterations"])
        optimizer.slots = {slot: [kernels.here(array) for array in arrays] for slot, arrays in slots.items()}
        self.model.stop_training = state["stopped"]
        for callback, saved in zip(self.hooks.callbacks, state["callbacks"], strict=True):
            if ranks.rank() == 0 or not callback.writes:
                callback.set_state(saved)
        states = [state["generator"], *state["draws"], *state["orders"]]
        for generator, saved in zip([config.generator(), *self._layers(), *self.generators], states, strict=True):
            generator.bit_generator.state = saved

    def agree(self, batches: Any) -> None:
        """With several ranks, give all of them rank 0's weights, slots and generators."""
        if ranks.size() == 1:
            return
        ranks.tell_witness(f"state {'' if self.path is None else self.path.absolute()}")
        if hasattr(batches, "image_shape"):
            self.model.ensure_built(np.empty((0, *batches.image_shape)))
        slots = [array for slot in self.model.optimizer.slots.values() for array in slot]
        for array in (*self.model.weights(), *slots):
            ranks.agree(array)
        generators = [config.generator(), *self._layers(), *self.generators]
        states = [generator.bit_generator.state for generator in generators]
        states = json.loads(ranks.agree_text(json.dumps(states, default=np.ndarray.tolist)))
        for generator, state in zip(generators, states, strict=True):
            generator.bit_generator.state = state

    def begin_epoch(self) -> None:
        """Note the generators' states, from which the order of the epoch follows."""
        self.order = [g.bit_generator.state for g in self.generators]

    def save(self, epoch: int, step: int = 0, running: Sequence[float] = ()) -> None:
        """Write the state: `epoch` epochs are done, and of the next one `step` steps, with these running sums.

        Raises
        ------
        OutputError
            If the file cannot be written; the old one is still there then.
        """
        if self.path is None or ranks.rank() > 0:
            return
        orders = self.order if step else [g.bit_generator.state for g in self.generators]
        tensors = dict(self.model.named_weights())
        for slot, arrays in self.model.optimizer.slots.items():
            tensors |= {f":{slot}/{i}": kernels.on_host(array) for i, array in enumerate(arrays)}
        state = {
            "epoch": epoch,
            "step": step,
            "running": list(running),
            "stopped": bool(self.model.stop_training),
            "learning_rate": self.model.optimizer.learning_rate,
            "iterations": self.model.optimizer.iterations,
            "compiled": _compiled(self.model),
            "names": self._names(),
            "callbacks": [callback.get_state() for callback in self.hooks.callbacks],
            "generator": config.generator().bit_generator.state,
            "draws": [generator.bit_generator.state for generator in self._layers()],
            "orders": orders,
        }
        training = _to_json(state, tensors, ":state")
        saving.write(self.path, tensors, _described(self.model), training=training)

    def _layers(self) -> list[np.random.Generator]:
        """Return what the layers draw from, each generator once."""
        generators = [layer.generator for layer in self.model.layers if layer.generator is not None]
        return list(dict.fromkeys(generators))

    def _names(self) -> list[str]:
        return [type(callback).__name__ for callback in self.hooks.callbacks]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM wait for the end of the step; a second one does not wait."""
        if self.path is None or threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self.signal = ranks.signals.mine = number
            for each, handler in before.items():
                signal.signal(each, handler)

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def end_if_asked(self, epoch: int, step: int = 0, running: Sequence[float] = ()) -> None:
        """After a signal: save, say how to go on, and end as the signal would have.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C.
        SystemExit
            After SIGTERM, with status 143, as shells expect.
        """
        if ranks.size() > 1:
            self.signal = ranks.signals.agreed
        if self.signal is None:
            return
        if step and not np.isfinite(running[1]):  # of a loss that is no number; the last state that was good stays
            step = 0
        if step:
            self.save(epoch, step, running)
        where = f"after step {step} of epoch {epoch + 1}" if step else f"after epoch {epoch}"
        if ranks.rank() == 0:
            print(f"\nStopped {where}. The state is in {self.path}: fit(resume=...), or --resume, goes on from there.")
        ranks.wait()
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.signal)


def state_file(folder: str | os.PathLike, resume: bool) -> Path:
    """Return where a program keeps its state: what is there from before is deleted, unless it is to be resumed.

    Raises
    ------
    DataNotFoundError
        If it is to be resumed and is not there.
    """
    path = Path(folder) / "state.safetensors"
    if resume and not path.exists():
        raise DataNotFoundError(f"there is nothing to resume: expected {path}. Start without --resume.")
    if not resume and ranks.rank() == 0:
        path.unlink(missing_ok=True)
    return path


def _described(model: Any) -> dict[str, Any]:
    """Return the description of the model, or nothing if it has layers of the user's."""
    try:
        return model.get_config()
    except ArgumentError:
        return {}


def _compiled(model: Any) -> dict[str, Any]:
    """Return what a training may not change on its way; the learning rate may change."""
    optimizer = {"class": type(model.optimizer).__name__, **model.optimizer.get_config()}
    del optimizer["learning_rate"]
    return {"optimizer": optimizer, "loss": model.loss.get_config(), "metrics": model.metrics, "fuse": model.fuse}


def _to_json(value: Any, tensors: dict[str, np.ndarray], name: str) -> Any:
    """Return a value as strict JSON: arrays go among the tensors, numbers that are not finite become their names."""
    if isinstance(value, np.ndarray):
        tensors[name] = value
        return {"array": name}
    if isinstance(value, dict):
        return {key: _to_json(each, tensors, f"{name}/{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(each, tensors, f"{name}/{i}") for i, each in enumerate(value)]
    value = value.item() if isinstance(value, np.generic) else value
    return {"number": repr(value)} if isinstance(value, float) and not np.isfinite(value) else value


def _from_json(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    """Undo `_to_json`."""
    if isinstance(value, list):
        return [_from_json(each, tensors) for each in value]
    if isinstance(value, dict) and set(value) == {"array"}:
        return tensors[value["array"]]
    if isinstance(value, dict) and set(value) == {"number"}:
        return float(value["number"])
    if isinstance(value, dict):
        return {key: _from_json(each, tensors) for key, each in value.items()}
    return value
