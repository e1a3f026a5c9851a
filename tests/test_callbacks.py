"""The callbacks on a stand-in model: the scripted replay, each rule by itself, and the two hardest ones restated."""

import csv
import io
import math
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.callbacks import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    History,
    ModelCheckpoint,
    ProgressBar,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from minicnn.errors import ArgumentError, DtypeError, OutputError

REPLAY = [1.43607, 1.24996, 1.15490, 1.01155, 1.00895, 0.94372, 0.91953, 0.9825, 0.9320, 0.9420, 0.91586]
REPLAY += [0.9378, 0.9595, 0.9820, 0.9786, 0.9842, 0.9868]


class Optimizer:
    """Holds its rate as a float32, as the real one does."""

    def __init__(self, rate):
        self.learning_rate = rate

    @property
    def learning_rate(self):
        return float(self._rate)

    @learning_rate.setter
    def learning_rate(self, rate):
        self._rate = np.float32(rate)


class Model:
    """A stand-in whose only weight is the number of the epoch, from 1, that trained it last."""

    def __init__(self, rate=0.01):
        self.optimizer = Optimizer(rate)
        self.stop_training = False
        self.weights = [np.zeros(1)]
        self.saved = []

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights

    def save(self, path):
        self.saved.append((path, int(self.weights[0][0])))
        with open(path, "w") as file:
            file.write("model")

    def save_weights(self, path):
        self.saved.append((f"weights {path}", int(self.weights[0][0])))


def train(callbacks, values, monitor="val_loss", model=None, verbose=0, epochs=None, steps=2):
    """Run the hooks as ``fit`` does, with `values` as the monitored ones; return the model and the history."""
    model = model or Model()
    hooks = CallbackList(callbacks, model, epochs=epochs or len(values), steps=steps, verbose=verbose)
    hooks.call("on_train_begin", {})
    for epoch, value in enumerate(values):
        hooks.call("on_epoch_begin", epoch, {})
        for batch in range(steps):
            hooks.call("on_train_batch_begin", batch, {})
            hooks.call("on_train_batch_end", batch, {"loss": 0.5, "accuracy": 0.25})
        hooks.call("on_test_begin", {})
        hooks.call("on_test_end", {})
        model.weights[0][0] = epoch + 1  # in place: a callback that keeps no copy loses the best weights
        hooks.call("on_epoch_end", epoch, {"loss": 0.5, "accuracy": 0.25, monitor: value})
        if model.stop_training:
            break
    hooks.call("on_train_end", {})
    return model, hooks.history


def test_the_scripted_replay(tmp_path, capsys):
    path = tmp_path / "best.model"
    callbacks = [
        ReduceLROnPlateau(patience=3, verbose=1),
        EarlyStopping(patience=6, verbose=1, restore_best_weights=True),
        ModelCheckpoint(path, save_best_only=True, verbose=1),
    ]
    model, history = train(callbacks, [*REPLAY, 0.1], epochs=30)  # the 0.1 would be best, but comes too late
    rates = [0.009999999776482582] * 10 + [0.0009999999310821295] * 4 + [9.999999019782990e-05] * 3
    assert history.history["learning_rate"] == rates
    assert history.history["val_loss"] == REPLAY
    assert model.optimizer.learning_rate == float(np.float32(9.999999019782991e-06))
    assert model.weights[0][0] == 11
    assert model.saved[-1] == (str(path), 11)
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "reducing" in line or "Restoring" in line or "stopping" in line] == [
        "Epoch 10: ReduceLROnPlateau reducing learning rate to 0.0009999999776482583.",
        "Epoch 14: ReduceLROnPlateau reducing learning rate to 9.999999310821295e-05.",
        "Epoch 17: ReduceLROnPlateau reducing learning rate to 9.999999019782991e-06.",
        "Epoch 17: early stopping",
        "Restoring model weights from the end of the best epoch: 11.",
    ]
    assert printed[0] == f"Epoch 1: val_loss improved from inf to 1.43607, saving model to {path}"
    assert printed[7] == "Epoch 8: val_loss did not improve from 0.91953"
    assert len(printed) == 17 + 5


# ReduceLROnPlateau ---------------------------------------------------------------------------------------------------


def cuts(values, monitor="val_loss", rate=1.0, **arguments):
    """Return the epochs, from 1, after which the rate was cut, and the last rate."""
    model, history = train([ReduceLROnPlateau(monitor, **arguments)], values, monitor, Model(rate))
    rates = [*history.history["learning_rate"], model.optimizer.learning_rate]
    return [epoch + 1 for epoch in range(len(values)) if rates[epoch + 1] != rates[epoch]], rates[-1]


def test_cooldown_epochs_do_not_count():
    values = [1.0] * 10
    assert cuts(values, patience=2, factor=0.5) == ([3, 5, 7, 9], 2.0**-4)
    assert cuts(values, patience=2, factor=0.5, cooldown=1) == ([3, 5, 7, 9], 2.0**-4)  # the last cooling epoch counts
    assert cuts(values, patience=2, factor=0.5, cooldown=2) == ([3, 6, 9], 2.0**-3)
    assert cuts(values, patience=1, factor=0.5, cooldown=3) == ([2, 5, 8], 2.0**-3)


def test_the_rate_never_goes_below_min_lr(capsys):
    for min_lr in (0.03, 0.001):  # one is smaller as a float32, the other larger
        epochs, rate = cuts([1.0] * 10, rate=min_lr * 20, patience=1, factor=0.1, min_lr=min_lr, verbose=1)
        assert epochs == [2, 3]
        assert rate == float(np.float32(min_lr))
        assert len(capsys.readouterr().out.splitlines()) == 2  # at its floor it is not "reduced" to what it is


def test_min_delta_is_what_an_improvement_must_exceed():
    falling = [1.0, 0.875, 0.75, 0.625]
    assert cuts(falling, patience=1, min_delta=0.0625)[0] == []
    assert cuts(falling, patience=1, min_delta=0.125)[0] == [2, 4]  # 0.75 beats the best, which stayed 1.0


def test_mode_max_and_auto_want_accuracy_to_rise():
    rising = [0.1, 0.2, 0.3, 0.4]
    assert cuts(rising, "val_accuracy", patience=1)[0] == []
    assert cuts(rising, "val_accuracy", patience=1, mode="min")[0] == [2, 3, 4]
    assert cuts(rising, "val_loss", patience=1, mode="max")[0] == []
    assert cuts(rising, "val_loss", patience=1)[0] == [2, 3, 4]
    assert cuts(rising, "val_auc", patience=1)[0] == []


def test_best_survives_a_cut():
    assert cuts([1.0, 2.0, 1.5, 1.4, 0.9], patience=1)[0] == [2, 3, 4]


def test_a_callback_starts_anew_in_each_training():
    plateau, stop = ReduceLROnPlateau(patience=2, cooldown=5), EarlyStopping(patience=3)
    for _ in range(2):
        model, _history = train([plateau, stop], [1.0, 1.0, 1.0])
        assert model.optimizer.learning_rate == float(np.float32(0.0009999999776482583))
        assert not model.stop_training


# EarlyStopping -------------------------------------------------------------------------------------------------------


def test_best_weights_come_back_when_the_epochs_run_out(capsys):
    stop = EarlyStopping(patience=5, restore_best_weights=True, verbose=1)
    model, _ = train([stop], [3.0, 1.0, 2.0])
    assert not model.stop_training
    assert model.weights[0][0] == 2
    assert capsys.readouterr().out == "Restoring model weights from the end of the best epoch: 2.\n"


def test_without_restoring_the_last_weights_stay(capsys):
    stop = EarlyStopping(patience=1, verbose=1)
    model, history = train([stop], [1.0, 2.0, 0.5])
    assert (history.epoch, model.weights[0][0]) == ([0, 1], 2)
    assert (stop.stopped_epoch, stop.best_epoch, stop.best, stop.wait) == (1, 0, 1.0, 1)
    assert stop.best_weights is None
    assert capsys.readouterr().out == "Epoch 2: early stopping\n"


def test_patience_zero_stops_at_the_first_epoch_without_improvement_but_never_after_the_first():
    assert train([EarlyStopping()], [1.0, 0.5, 0.5, 0.1])[1].epoch == [0, 1, 2]
    assert train([EarlyStopping()], [math.nan, 0.5, 0.1])[1].epoch == [0, 1, 2]


def test_a_stop_must_improve_by_more_than_min_delta():
    falling = [1.0, 0.875, 0.75, 0.5]
    assert len(train([EarlyStopping(patience=1, min_delta=0.125)], falling)[1].epoch) == 2
    assert len(train([EarlyStopping(patience=1, min_delta=-0.0625)], falling)[1].epoch) == 4  # its sign is ignored
    rising = [1.0, 1.125, 1.25, 1.5]
    assert len(train([EarlyStopping(patience=1, min_delta=-0.125, mode="max")], rising)[1].epoch) == 2


def test_baseline_must_be_beaten_too():
    falling = [1.0, 0.9, 0.8, 0.85, 0.7]
    stop = EarlyStopping(patience=3, baseline=0.5, restore_best_weights=True)
    model, history = train([stop], falling)
    assert len(history.epoch) == 4  # an improvement never stops, so epoch 4 does, three after the start
    assert model.weights[0][0] == 3
    assert len(train([EarlyStopping(patience=3, baseline=0.95)], falling)[1].epoch) == 5
    flat = [2.0, 0.875, 0.875, 0.875, 0.875]  # never beats 1.0 by 0.25
    assert len(train([EarlyStopping(patience=3, baseline=1.0, min_delta=0.25)], flat)[1].epoch) == 3


def test_the_first_epochs_can_be_left_out():
    stop = EarlyStopping(patience=1, start_from_epoch=2, restore_best_weights=True)
    model, history = train([stop], [0.1, 0.2, 1.0, 2.0, 3.0])
    assert len(history.epoch) == 4
    assert model.weights[0][0] == 3


def test_weights_of_a_first_nan_are_better_than_none():
    stop = EarlyStopping(patience=2, restore_best_weights=True)
    model, history = train([stop], [math.nan] * 4)
    assert len(history.epoch) == 2
    assert model.weights[0][0] == 1


# The two rules, restated ---------------------------------------------------------------------------------------------

# Sixty-fourths are exact in binary, so ties with min_delta are ties in any way of writing the comparison.
sixty_fourths = st.integers(0, 64).map(lambda k: k / 64)
values_of_a_run = st.lists(st.one_of(sixty_fourths, st.just(math.nan)), min_size=1, max_size=40)
deltas = st.sampled_from([0.0, 1 / 64, 1 / 16])


@settings(deadline=None)  # the clock of a busy machine proves nothing
@given(values_of_a_run, st.integers(0, 5), st.integers(0, 4), deltas, st.sampled_from([0.0, 0.05]), st.booleans())
def test_rates_follow_the_rules_restated(values, patience, cooldown, delta, min_lr, rising):
    expected, rate, best, waited, cooling = [], np.float32(0.5), math.inf, 0, 0
    for value in [-v for v in values] if rising else values:
        expected.append(float(rate))
        if cooling:
            cooling, waited = cooling - 1, 0
        if value < best - delta:
            best, waited = value, 0
            continue
        if cooling:
            continue
        waited += 1
        if waited >= patience and rate > np.float32(min_lr):
            rate = np.float32(max(float(rate) * 0.25, min_lr))
            cooling, waited = cooldown, 0
    callback = ReduceLROnPlateau(
        factor=0.25,
        patience=patience,
        mode="max" if rising else "min",
        min_delta=delta,
        cooldown=cooldown,
        min_lr=min_lr,
    )
    model, history = train([callback], values, model=Model(0.5), steps=0)
    assert history.history["learning_rate"] == expected
    assert model.optimizer.learning_rate == float(rate)


@settings(deadline=None)
@given(
    values_of_a_run,
    st.integers(0, 5),
    deltas,
    st.none() | sixty_fourths,
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
)
def test_stops_follow_the_rules_restated(values, patience, delta, baseline, start, rising, restore):
    sign = -1 if rising else 1
    heights = [sign * value for value in values]
    records = []  # the epochs that improved on all records before them
    for epoch in range(start, len(values)):
        if heights[epoch] < (heights[records[-1]] if records else math.inf) - delta:
            records.append(epoch)
    restarts = [e for e in records if baseline is None or heights[e] < sign * baseline - delta]
    waits = {e: e - max([r for r in restarts if r <= e], default=start - 1) for e in range(start, len(values))}
    last = next((e for e in waits if e > 0 and e not in records and waits[e] >= patience), len(values) - 1)
    best = next((e for e in reversed(records) if e <= last), start)

    mode = "max" if rising else "min"
    callback = EarlyStopping("val_loss", delta, patience, 0, mode, baseline, restore, start)
    model, history = train([callback], values, steps=0)
    assert history.epoch == list(range(last + 1))
    assert model.stop_training == (callback.stopped_epoch > 0)
    assert model.weights[0][0] == (best + 1 if restore and start < len(values) else last + 1)


# ModelCheckpoint -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_an_epoch_fills_in_its_path_and_makes_the_folder(tmp_path, capsys):
    model, _ = train([ModelCheckpoint(f"{tmp_path}/new/{{epoch:02d}}-{{val_loss:.2f}}.model", verbose=1)], [0.5, 0.75])
    paths = [f"{tmp_path}/new/01-0.50.model", f"{tmp_path}/new/02-0.75.model"]
    assert model.saved == [(paths[0], 1), (paths[1], 2)]
    assert sorted(str(path) for path in (tmp_path / "new").iterdir()) == paths
    assert capsys.readouterr().out.splitlines() == [f"Epoch {i}: saving model to {p}" for i, p in enumerate(paths, 1)]


def test_a_checkpoint_of_the_best_is_strict_and_knows_modes_and_thresholds(tmp_path):
    path = str(tmp_path / "best.model")
    values = [0.5, 0.5, 0.75, 0.25]
    for arguments, expected in [
        ({}, [1, 4]),
        ({"mode": "max"}, [1, 3]),
        ({"monitor": "val_accuracy"}, [1, 3]),
        ({"initial_value_threshold": 0.5}, [4]),
        ({"initial_value_threshold": 0.1}, []),
    ]:
        checkpoint = ModelCheckpoint(path, save_best_only=True, **arguments)
        model, _ = train([checkpoint], values, checkpoint.monitor)
        assert model.saved == [(path, epoch) for epoch in expected]


def test_a_checkpoint_goes_on_with_its_best_in_a_second_training(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path / "best.model", save_best_only=True)
    train([checkpoint], [0.5])
    assert train([checkpoint], [0.75])[0].saved == []


def test_a_checkpoint_can_save_weights_only(tmp_path):
    path = str(tmp_path / "best.weights")
    assert train([ModelCheckpoint(path, save_weights_only=True)], [0.5])[0].saved == [(f"weights {path}", 1)]


@pytest.mark.parametrize("name", ["{val_acc:.2f}", "{}", "{epoch:q}", "{epoch.year}"])
def test_a_path_that_cannot_be_filled_in_says_what_can(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"cannot fill in filepath.*loss, accuracy, val_loss, epoch"):
        train([ModelCheckpoint(f"{tmp_path}/{name}.model")], [0.5])


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        train([ModelCheckpoint(tmp_path / "file" / "best.model")], [0.5])


# History, CSVLogger, TerminateOnNaN ----------------------------------------------------------------------------------


def test_csv_has_a_row_an_epoch_under_sorted_names(tmp_path):
    path = tmp_path / "new" / "log.csv"
    train([ReduceLROnPlateau(), CSVLogger(path)], [0.5, 0.25], model=Model(0.5))
    expected = "epoch,accuracy,learning_rate,loss,val_loss\n0,0.25,0.5,0.5,0.5\n1,0.25,0.5,0.5,0.25\n"
    assert path.read_text() == expected
    train([CSVLogger(path, separator=";")], [1 / 3])
    assert path.read_text() == f"epoch;accuracy;loss;val_loss\n0;0.25;0.5;{1 / 3!r}\n"  # every digit is there


def test_csv_appends_under_the_columns_that_are_there(tmp_path):
    path = tmp_path / "log.csv"
    train([CSVLogger(path)], [0.5])
    train([ReduceLROnPlateau("loss"), CSVLogger(path, append=True)], [0.25], "loss")
    assert path.read_text() == "epoch,accuracy,loss,val_loss\n0,0.25,0.5,0.5\n0,0.25,0.25,NA\n"
    train([CSVLogger(tmp_path / "other.csv", append=True)], [0.5])
    assert (tmp_path / "other.csv").read_text() == "epoch,accuracy,loss,val_loss\n0,0.25,0.5,0.5\n"


def test_csv_rows_are_on_disk_when_the_epoch_ends(tmp_path):
    logger = CSVLogger(tmp_path / "log.csv")
    logger.on_train_begin()
    for epoch in range(3):
        logger.on_epoch_end(epoch, {"loss": 0.5})
        with open(tmp_path / "log.csv", newline="") as file:
            assert len(list(csv.DictReader(file))) == epoch + 1


def test_csv_that_cannot_be_written_says_so_before_the_first_epoch(tmp_path):
    with pytest.raises(OutputError, match=f"cannot write {tmp_path}"):
        CSVLogger(tmp_path).on_train_begin()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        CSVLogger(tmp_path / "file" / "log.csv").on_train_begin()


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_training_ends_at_a_loss_that_is_no_number(loss, capsys):
    model = Model()
    callback = TerminateOnNaN()
    callback.set_model(model)
    callback.on_train_batch_end(6, {"loss": 1e30})
    assert not model.stop_training
    callback.on_train_batch_end(7, {"loss": loss})
    assert model.stop_training
    assert capsys.readouterr().out == "Batch 7: Invalid loss, terminating training\n"


def test_history_sees_what_callbacks_add_and_one_of_the_user_s_is_used():
    class Square(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["square"] = logs["val_loss"] ** 2

    mine = History()
    _, history = train([mine, Square()], [2.0, 3.0])
    assert history is mine
    assert "square" not in mine.history  # it was asked first
    _, history = train([Square()], [2.0, 3.0])
    assert history.history == {"loss": [0.5] * 2, "accuracy": [0.25] * 2, "val_loss": [2.0, 3.0], "square": [4.0, 9.0]}
    assert history.epoch == [0, 1]


# CallbackList and arguments ------------------------------------------------------------------------------------------


def test_every_hook_reaches_every_callback_in_order():
    calls = []

    class Recorder(Callback):
        def __init__(self, name):  # without super().__init__(), as users write it
            self.name = name

        def on_train_begin(self, logs=None):
            calls.append((self.name, "train begin", self.params, self.model is model))

        def on_epoch_begin(self, epoch, logs=None):
            calls.append((self.name, "epoch begin", epoch))

        def on_train_batch_begin(self, batch, logs=None):
            calls.append((self.name, "batch begin", batch))

        def on_train_batch_end(self, batch, logs=None):
            calls.append((self.name, "batch end", batch, logs["loss"]))

        def on_test_begin(self, logs=None):
            calls.append((self.name, "test begin"))

        def on_test_end(self, logs=None):
            calls.append((self.name, "test end"))

        def on_epoch_end(self, epoch, logs=None):
            calls.append((self.name, "epoch end", epoch, logs["val_loss"]))

        def on_train_end(self, logs=None):
            calls.append((self.name, "train end"))

    model = Model()
    train((Recorder("a"), Recorder("b")), [2.0], model=model, steps=1)
    events = [
        ("train begin", {"epochs": 1, "steps": 1, "verbose": 0}, True),
        ("epoch begin", 0),
        ("batch begin", 0),
        ("batch end", 0, 0.5),
        ("test begin",),
        ("test end",),
        ("epoch end", 0, 2.0),
        ("train end",),
    ]
    assert calls == [(name, *event) for event in events for name in "ab"]
    calls.clear()
    train(Recorder("alone"), [2.0], model=model, steps=1)
    assert len(calls) == len(events)


@pytest.mark.parametrize("wrong", [EarlyStopping, "EarlyStopping", lambda epoch: None])
def test_what_is_no_callback_is_refused(wrong):
    with pytest.raises(DtypeError, match=r"expects instances of minicnn\.callbacks\.Callback.*Received: "):
        CallbackList([History(), wrong], Model())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReduceLROnPlateau(factor=1.0), "factor < 1.*factor=1.0"),
        (lambda: ReduceLROnPlateau(factor=-0.1), r"factor\) expects a finite number >= 0\. Received: -0\.1"),
        (lambda: ReduceLROnPlateau(patience=-1), r"ReduceLROnPlateau\(patience\) expects .* >= 0\. Received: -1"),
        (lambda: ReduceLROnPlateau(cooldown="2"), r"cooldown\) expects .*'2'"),
        (lambda: ReduceLROnPlateau(min_lr=math.nan), r"min_lr\) expects .*nan"),
        (lambda: EarlyStopping(mode="lowest"), "EarlyStopping expects mode=.*'lowest'"),
        (lambda: EarlyStopping(patience=None), r"EarlyStopping\(patience\) expects .*None"),
        (lambda: ModelCheckpoint("best.model", save_freq=100), 'save_freq="epoch".*100'),
        (lambda: ModelCheckpoint("best.model", mode=None), "ModelCheckpoint expects mode"),
        (lambda: CSVLogger("log.csv", separator=", "), "one character.*', '"),
        (lambda: CallbackList([], Model(), verbose=3), "verbose must be.*3"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize("kind", [ReduceLROnPlateau, EarlyStopping, ModelCheckpoint])
def test_an_unknown_monitor_is_a_warning_that_lists_the_metrics(kind, tmp_path):
    callback = ModelCheckpoint(tmp_path / "m", save_best_only=True) if kind is ModelCheckpoint else kind()
    callback.set_model(Model())
    message = (
        f"{kind.__name__} is conditioned on metric `val_loss` which is not available. Available metrics are: loss,acc"
    )
    with pytest.warns(UserWarning, match=message):
        callback.on_epoch_end(1, {"loss": 0.5, "accuracy": 0.25})
    assert not callback.model.stop_training
    assert callback.model.saved == []


# ProgressBar ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


LINE = r"2/2 - \ds \d+\w?s/step - loss: 0\.5000 - accuracy: 0\.2500 - val_loss: 2\.0000"


def printed(monkeypatch, stream, **arguments):
    monkeypatch.setattr(sys, "stdout", stream)
    train([], [2.0, 2.0], **arguments)
    return stream.getvalue()


def matches(text, *patterns):
    """Tell whether the lines of `text` are described by `patterns`, one for one."""
    return re.fullmatch("".join(f"{pattern}\n" for pattern in patterns), text) is not None


def test_plain_output_has_plain_lines(monkeypatch):
    for verbose in (1, "auto"):
        text = printed(monkeypatch, io.StringIO(), verbose=verbose)
        assert matches(text, "Epoch 1/2", LINE, "Epoch 2/2", LINE)


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_verbose_2_prints_one_line_an_epoch_and_0_none(monkeypatch, stream):
    assert matches(printed(monkeypatch, stream(), verbose=2), f"Epoch 1/2 - {LINE}", f"Epoch 2/2 - {LINE}")
    assert printed(monkeypatch, stream(), verbose=0) == ""


def test_a_terminal_gets_a_bar_that_ends_as_the_same_lines(monkeypatch):
    text = printed(monkeypatch, Terminal(), verbose=1)
    assert "| 0/2 [00:00<?, ?step/s]" in text
    assert matches(on_screen(text), "Epoch 1/2", LINE, "Epoch 2/2", LINE)


def test_the_bar_shows_steps_time_left_and_running_figures(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    hooks = CallbackList([], Model(), steps=4, verbose=1)
    hooks.call("on_epoch_begin", 0, {})
    for batch in range(2):
        hooks.call("on_train_batch_end", batch, {"loss": 0.5 - batch, "accuracy": 1e-3})
    hooks.progress.bar.start_t -= 4  # as if the two steps had taken four seconds
    hooks.progress.bar.refresh()
    shown = on_screen(sys.stdout.getvalue())
    assert re.search(r"50%\|.* 2/4 \[00:04<00:04,  +2\.00s/step, loss: -0\.5000 - accuracy: 1\.0000e-03\]$", shown)
    hooks.progress.clear()
    assert on_screen(sys.stdout.getvalue()).strip() == ""


def test_messages_do_not_tear_the_bar(monkeypatch):
    class Talker(Callback):
        def on_epoch_end(self, epoch, logs=None):
            print("a user prints")

    monkeypatch.setattr(sys, "stdout", Terminal())
    hooks = CallbackList([TerminateOnNaN(), Talker()], Model(), epochs=2, steps=2, verbose=1)
    hooks.call("on_epoch_begin", 0, {})
    hooks.call("on_train_batch_end", 0, {"loss": math.nan})
    hooks.call("on_epoch_end", 0, {"loss": math.nan})
    shown = on_screen(sys.stdout.getvalue())
    said = "Batch 0: Invalid loss, terminating training"
    assert matches(shown, "Epoch 1/2", said, "a user prints", r"1/2 - \ds \d+\w?s/step - loss: nan")


def test_an_epoch_without_a_number_of_steps_counts_them(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    hooks = CallbackList([], Model(), verbose=1)
    hooks.call("on_epoch_begin", 0, {})
    for batch in range(3):
        hooks.call("on_train_batch_end", batch, {})
    hooks.call("on_epoch_end", 0, {"loss": 0.00012345, "accuracy": 0.0})
    assert matches(sys.stdout.getvalue(), r"3/3 - \ds \d+\w?s/step - loss: 1\.2345e-04 - accuracy: 0\.0000e\+00")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(9.0, "9s 14ms/step"), (0.03, "0s 48us/step"), (1884.0, "1884s 3s/step")]
)
def test_time_is_told_in_the_unit_that_fits(monkeypatch, seconds, shown):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    now = iter([100.0, 100.0 + seconds])
    monkeypatch.setattr("minicnn.callbacks.time.perf_counter", lambda: next(now))
    bar = ProgressBar()
    bar.set_params({"epochs": 1, "steps": 628, "verbose": 2})
    bar.on_epoch_begin(0)
    for batch in range(628):
        bar.on_train_batch_end(batch)
    bar.on_epoch_end(0, {"loss": 1.77123})
    assert sys.stdout.getvalue() == f"628/628 - {shown} - loss: 1.7712\n"


def on_screen(text):
    """Return what a terminal shows of `text`: a carriage return goes back to overwrite its line."""
    lines = []
    for line in text.split("\n"):
        cells = ""
        for part in line.split("\r"):
            cells = part + cells[len(part) :]
        lines.append(cells.rstrip())
    return "\n".join(lines)
