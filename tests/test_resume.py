"""Training that is broken off and resumed: it ends, bit for bit, where the unbroken one ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import callbacks, layers, models, schedules
from minicnn.data import Dataset
from minicnn.errors import ArgumentError, DataError, DataNotFoundError, OutputError
from minicnn.kernels import on_host
from minicnn.resume import state_file

ROOT = Path(minicnn.__file__).parents[1]


class Killed(Exception):  # noqa: N818 - it is no error
    """What stands for the end of the process."""


class Killer(callbacks.Callback):
    """Raise after a batch, or after an epoch, as if the process had ended there."""

    def __init__(self, epoch=None, batch=None):
        self.at = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Killed

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, None) == self.at:
            raise Killed


def data(seed=None):
    rng = np.random.default_rng(3)
    images, labels = rng.integers(0, 256, (40, 6, 6, 2), dtype=np.uint8), rng.integers(0, 3, 40)
    first = Dataset.from_arrays(images[:30], labels[:30], 8, shuffle=True, seed=seed)
    second = Dataset.from_arrays(images[20:], labels[20:], 8, shuffle=True, seed=seed, buffer_size=5)
    return first.concatenate(second).shuffle(3).prefetch(2), Dataset.from_arrays(images[:15], labels[:15], 4)


def training(folder, killer=None, resume=True, epochs=7, optimizer=None, hooks=()):
    """Train with everything that remembers something; return what is left, to the bit."""
    minicnn.utils.set_random_seed(1)
    train, validation = data()
    model = models.Sequential([
        minicnn.Input((6, 6, 2)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(5, activation="relu"), layers.Dense(3, "softmax"),
    ])  # fmt: skip
    model.compile(optimizer or minicnn.optimizers.SGD(0.3, momentum=0.9), metrics=["accuracy"])
    history = model.fit(
        train, validation_data=validation, epochs=epochs, verbose=0, resume=folder / "state" if resume else None,
        callbacks=[
            callbacks.ReduceLROnPlateau(patience=1, factor=0.5),
            callbacks.EarlyStopping(patience=4, restore_best_weights=True),
            callbacks.ModelCheckpoint(folder / "best", save_best_only=True),
            callbacks.CSVLogger(folder / "history.csv"),
            *hooks,
            killer or Killer(),
        ],
    )  # fmt: skip
    left = {f"weight {i}": w.tobytes() for i, w in enumerate(model.get_weights())}
    for slot, arrays in model.optimizer.slots.items():
        left |= {f"{slot} {i}": on_host(array).tobytes() for i, array in enumerate(arrays)}
    left |= {file: (folder / file).read_bytes() for file in ("best", "history.csv")}
    return left | {"history": history.history, "epochs": history.epoch, "rate": model.optimizer.learning_rate}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    left = training(tmp_path_factory.mktemp("unbroken"), resume=False)
    assert len(set(left["history"]["learning_rate"])) > 1, "the rate is cut on the way"
    return left


def test_keeping_the_state_changes_nothing(unbroken, tmp_path):
    assert training(tmp_path) == unbroken


@pytest.mark.parametrize("epoch", range(5))
@pytest.mark.parametrize("batch", [0, 3, None])
def test_a_training_that_was_killed_ends_where_the_unbroken_one_ends(unbroken, tmp_path, epoch, batch):
    with pytest.raises(Killed):
        training(tmp_path, Killer(epoch, batch))
    with pytest.raises(Killed):
        training(tmp_path, Killer(epoch + 1, batch))
    assert training(tmp_path) == unbroken


OPTIMIZERS = {
    "nesterov": lambda: minicnn.optimizers.SGD(0.1, 0.9, nesterov=True, weight_decay=0.01, clipnorm=0.5),
    "rmsprop": lambda: minicnn.optimizers.RMSprop(0.01, global_clipnorm=1.0),
    "adam": lambda: minicnn.optimizers.Adam(0.01),
    "adamw": lambda: minicnn.optimizers.AdamW(0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_goes_on_where_it_was(name, tmp_path):
    class Signal(Killer):
        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == self.at:
                os.kill(os.getpid(), signal.SIGTERM)

    for folder in ("whole", "broken"):
        (tmp_path / folder).mkdir()
    whole = training(tmp_path / "whole", Signal(), optimizer=OPTIMIZERS[name]())
    for at in ((0, 2), (1, 4)):  # within an epoch
        with pytest.raises(SystemExit):
            training(tmp_path / "broken", Signal(*at), optimizer=OPTIMIZERS[name]())
    assert training(tmp_path / "broken", Signal(), optimizer=OPTIMIZERS[name]()) == whole
    slots = {key.split()[0] for key in whole} & {"velocity", "mean", "square"}
    assert slots == set(OPTIMIZERS[name]().kept)


SCHEDULES = {
    "cosine": lambda: schedules.CosineDecay(0.3),
    "one cycle": lambda: schedules.OneCycle(0.3),
    "steps after a warm-up": lambda: schedules.WarmUp(schedules.StepDecay(0.3, 2, 0.5), 9),
    "of the epoch": lambda: schedules.LearningRateScheduler(lambda epoch: 0.3 / (epoch + 1)),
    "of the rate": lambda: schedules.LearningRateScheduler(lambda epoch, rate: rate * 0.75),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule_goes_on_where_it_was(name, tmp_path):
    class Signal(Killer):
        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == self.at:
                os.kill(os.getpid(), signal.SIGTERM)

    for folder in ("whole", "broken"):
        (tmp_path / folder).mkdir()
    whole = training(tmp_path / "whole", Signal(), epochs=5, hooks=[SCHEDULES[name]()])
    assert len(set(whole["history"]["learning_rate"])) > 2
    for at in ((0, 2), (1, 6), (3, 0)):
        with pytest.raises(SystemExit):
            training(tmp_path / "broken", Signal(*at), epochs=5, hooks=[SCHEDULES[name]()])
    assert training(tmp_path / "broken", Signal(), epochs=5, hooks=[SCHEDULES[name]()]) == whole


def test_the_number_of_steps_is_part_of_the_state(tmp_path):
    """Adam's correction follows from it: a state that forgot it would go on with the steps of a beginning."""
    training(tmp_path, optimizer=OPTIMIZERS["adam"](), epochs=2)
    tensors, header = minicnn.saving.read_all(tmp_path / "state")
    assert header["training"]["iterations"] == 14
    right = training(tmp_path, optimizer=OPTIMIZERS["adam"](), epochs=3)
    header["training"]["iterations"] = 0
    minicnn.saving.write(tmp_path / "state", tensors, header["model"], training=header["training"])
    assert training(tmp_path, optimizer=OPTIMIZERS["adam"](), epochs=3) != right


def test_a_finished_training_is_not_trained_again(unbroken, tmp_path):
    assert training(tmp_path) == training(tmp_path) == unbroken


def test_more_epochs_than_at_first(tmp_path, unbroken):
    training(tmp_path, epochs=2)
    assert training(tmp_path) == unbroken


def test_the_state_is_a_model_file_too(tmp_path):
    training(tmp_path, epochs=1)
    model = models.load_model(tmp_path / "state")
    assert model.layers[2].filters == 4 and model.count_params() == training_weights(tmp_path)
    model.load_weights(tmp_path / "state")


def training_weights(folder):
    return sum(tensor.size for tensor in minicnn.saving.read(folder / "state")[0].values())


def test_data_that_is_given_as_arrays_comes_in_its_order_again(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)).astype(np.float32), rng.integers(0, 2, 20)

    def trained(path, *hooks):
        minicnn.utils.set_random_seed(2)
        model = models.Sequential([minicnn.Input((4,)), layers.Dense(2, "softmax")])
        model.compile(minicnn.optimizers.SGD(0.1))
        model.fit(x, y, batch_size=6, epochs=4, verbose=0, callbacks=list(hooks), resume=path)
        return [w.tobytes() for w in model.get_weights()]

    expected = trained(None, Killer())
    with pytest.raises(Killed):
        trained(tmp_path / "state", Killer(2, 1))
    assert trained(tmp_path / "state", Killer()) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_and_says_how_to_go_on(unbroken, tmp_path, number, capsys):
    class Signal(Killer):
        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == self.at:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as stop:
        training(tmp_path, Signal(2, 3))
    assert signal.getsignal(number) is before
    assert isinstance(stop.value, KeyboardInterrupt) == (number == signal.SIGINT)
    assert getattr(stop.value, "code", None) == (143 if number == signal.SIGTERM else None)
    said = capsys.readouterr().out
    assert f"Stopped after step 4 of epoch 3. The state is in {tmp_path / 'state'}" in said and "--resume" in said
    state = minicnn.saving.read_all(tmp_path / "state")[1]["training"]
    assert (state["epoch"], state["step"]) == (2, 4)
    assert training(tmp_path, Signal()) == unbroken


def test_the_last_step_of_an_epoch_is_no_special_case(unbroken, tmp_path):
    class Signal(Killer):
        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == self.at:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        training(tmp_path, Signal(1, 6))
    assert minicnn.saving.read_all(tmp_path / "state")[1]["training"]["step"] == 7
    assert training(tmp_path, Signal()) == unbroken


def test_without_a_state_ctrl_c_comes_at_once(tmp_path):
    class Signal(Killer):
        def on_train_batch_end(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, Signal(), resume=False)


def other(**changes):
    """A training that is another one in one respect."""
    model = models.Sequential([minicnn.Input((4,)), layers.Dense(changes.get("units", 3), "softmax")])
    model.compile(changes.get("optimizer") or minicnn.optimizers.SGD(0.1, momentum=changes.get("momentum", 0.9)))
    shuffled = Dataset.from_arrays(
        np.zeros((9, 4), np.float32), np.arange(9) % 2, 4, shuffle=changes.get("shuffle", True)
    )
    model.fit(shuffled, epochs=changes.get("epochs", 1), verbose=0, callbacks=changes.get("hooks", []), resume="state")
    return model


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"units": 2}, "its network differs"),
        ({"momentum": 0.8}, "its optimizer and loss differs"),
        ({"optimizer": minicnn.optimizers.Adam(0.1)}, "its optimizer and loss differs"),
        ({"shuffle": False}, "its number of data sets that are shuffled differs. Expected: 1. Received: 0."),
        ({"hooks": [callbacks.TerminateOnNaN()]}, "its callbacks differs"),
    ],
)
def test_the_state_of_another_training_is_refused(changes, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other()
    before = Path("state").read_bytes()
    with pytest.raises(ArgumentError, match=said):
        other(**changes, epochs=2)
    assert Path("state").read_bytes() == before
    other(epochs=2)


def test_a_file_without_a_state_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = models.Sequential([minicnn.Input((4,)), layers.Dense(3, "softmax")])
    model.save("state")
    with pytest.raises(DataError, match="holds a model but no state of a training"):
        other()


@pytest.mark.parametrize("part", ["epoch", "running", "callbacks", "orders", "learning_rate", "names"])
def test_a_state_with_a_part_missing_or_wrong_is_refused(part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other()
    tensors, header = minicnn.saving.read_all("state")
    for wrong in (None, "x", -1, [1, "y"], {"z": 2}):
        broken = json.loads(json.dumps(header["training"]))
        broken[part] = wrong
        if wrong is None:
            del broken[part]
        minicnn.saving.write("state", tensors, header["model"], training=broken)
        with pytest.raises(minicnn.MinicnnError):
            other(epochs=2)


def test_a_state_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("state").mkdir()
    with pytest.raises((OutputError, DataNotFoundError)):
        other()


def test_weights_that_exploded_do_not_replace_a_good_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = np.ones((8, 4), np.float32), np.arange(8) % 3

    def trained(epochs, poisoned):
        model = models.Sequential([minicnn.Input((4,)), layers.Dense(3, "softmax")])
        model.compile(minicnn.optimizers.SGD(0.1))
        hook = callbacks.Callback()
        hook.on_epoch_begin = lambda epoch, logs: (
            poisoned == epoch and model.set_weights([np.full((4, 3), np.nan), np.zeros(3)])
        )
        hooks = [hook, callbacks.TerminateOnNaN()]
        return model.fit(x, y, epochs=epochs, shuffle=False, verbose=0, callbacks=hooks, resume="state")

    good = trained(2, None).history
    assert not np.isfinite(trained(3, 2).history["loss"][-1])
    resumed = trained(3, None).history
    assert np.isfinite(resumed["loss"]).all() and resumed["loss"][:2] == good["loss"]


def test_a_signal_after_weights_that_exploded_leaves_the_good_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other()
    good = Path("state").read_bytes()

    def end(self, batch, logs=None):
        self.model.set_weights([np.full((4, 3), np.nan), np.zeros(3)])
        if batch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(callbacks.History, "on_train_batch_end", end)
    with pytest.raises(SystemExit):
        other(epochs=2)
    assert Path("state").read_bytes() == good


def test_the_state_file_of_a_program(tmp_path):
    with pytest.raises(DataNotFoundError, match="there is nothing to resume"):
        state_file(tmp_path, resume=True)
    path = state_file(tmp_path, resume=False)
    path.write_text("old")
    assert state_file(tmp_path, resume=True) == path and path.exists()
    assert not state_file(tmp_path, resume=False).exists()


def test_the_command_line_is_terminated_and_resumed(tmp_path):
    rng = np.random.default_rng(0)
    from PIL import Image

    for folder in ("train1", "train2", "train3", "train4", "train5", "test"):
        for name in ("a", "b"):
            (tmp_path / "data" / folder / name).mkdir(parents=True)
            for i in range(8):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / folder / name / f"{i}.png")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "minicnn", "train", "--data", "data", "--epochs", "6", "--batch-size", "4"]
    run = {"cwd": tmp_path, "env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    assert subprocess.run([*words, "--output", "whole"], **run).returncode == 0
    process = subprocess.Popen([*words, "--output", "broken"], **run)
    while not (tmp_path / "broken" / "state.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have been quick enough to finish
        assert process.returncode == 143 and "Stopped after" in out and err == ""
    assert subprocess.run([*words, "--output", "broken", "--resume"], **run).returncode == 0
    for file in ("best_model.safetensors", "history.csv"):
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
