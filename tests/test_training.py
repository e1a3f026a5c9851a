"""The loops: what an epoch's figures mean, what callbacks see, which data are taken and which are refused."""

import numpy as np
import pytest

import minicnn
from minicnn import layers, models, optimizers
from minicnn.callbacks import Callback, EarlyStopping, ReduceLROnPlateau, TerminateOnNaN
from minicnn.data import Dataset
from minicnn.errors import MinicnnError
from minicnn.training import Running

SINGLE = np.float32


def network(rate=0.1, momentum=0.9, seed=0):
    """A linear classifier of rows of 5 into 3 classes, compiled."""
    minicnn.utils.set_random_seed(seed)
    model = models.Sequential([minicnn.Input((5,)), layers.Dense(3, activation="softmax")])
    model.compile(optimizers.SGD(rate, momentum=momentum), metrics=["accuracy"])
    return model


def data(N=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, 5)).astype(SINGLE), rng.integers(0, 3, N)


def judged(model, x, labels):
    """Each row's loss and whether it is classified rightly, in float64 NumPy."""
    kernel, bias = model.get_weights()
    z = x.astype(float) @ kernel.astype(float) + bias  # (N, K)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(x)), labels]  # (N,)
    return losses, z.argmax(axis=1) == labels


class Recorder(Callback):
    """Writes down every hook with its first argument, the logs, and the weights at each epoch's end."""

    def __init__(self):
        self.events, self.logs, self.weights = [], [], []

    def on_train_begin(self, logs=None):
        self.events.append("train begins")

    def on_train_end(self, logs=None):
        self.events.append("train ends")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(f"epoch {epoch} begins")

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(f"epoch {epoch} ends")
        self.logs.append(dict(logs))
        self.weights.append(self.model.get_weights())

    def on_train_batch_begin(self, batch, logs=None):
        self.events.append(f"batch {batch} begins")

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(f"batch {batch} ends")
        self.logs.append(dict(logs))

    def on_test_begin(self, logs=None):
        self.events.append("test begins")

    def on_test_end(self, logs=None):
        self.events.append("test ends")
        self.logs.append(dict(logs))


def same(a, b):
    return len(a) == len(b) > 0 and all(np.array_equal(v, w) for v, w in zip(a, b, strict=True))


# What the figures mean


def test_running_means_count_each_sample_once():
    running = Running(["loss", "accuracy"])
    assert running.add(np.array([1.0, 2, 3, 6]), np.array([True, False, True, True])) == {"loss": 3, "accuracy": 3 / 4}
    assert running.add(np.array([8.0]), np.array([False])) == {"loss": 4, "accuracy": 3 / 5}  # not (3 + 8) / 2
    assert Running(["loss"]).add(np.array([2.0]), np.array([True])) == {"loss": 2}


def test_figures_of_an_epoch_are_means_over_its_samples_before_each_update():
    x, labels = data(10)
    model, recorder, expected = network(), Recorder(), []
    twin = network()
    for _ in range(2):
        losses, hits = [], []
        for batch in (slice(0, 4), slice(4, 8), slice(8, 10)):  # the last one is short
            now = judged(twin, x[batch], labels[batch])
            losses += list(now[0])
            hits += list(now[1])
            expected.append({"loss": np.mean(losses), "accuracy": np.mean(hits)})
            twin.train_on_batch(x[batch], labels[batch])
        val = [part.mean() for part in judged(twin, x[:7], labels[:7])]  # with the weights after the epoch
        expected.append(dict(zip(["loss", "accuracy"], val, strict=True)))
        expected.append(expected[-2] | dict(zip(["val_loss", "val_accuracy"], val, strict=True)))
    validation = (x[:7], labels[:7])
    history = model.fit(
        x, labels, 4, epochs=2, verbose=0, callbacks=recorder, validation_data=validation, shuffle=False
    )
    for logs, by_hand in zip(recorder.logs, expected, strict=True):
        assert logs == pytest.approx(by_hand, rel=1e-6)
        assert {type(value) for value in logs.values()} == {float}
    ends = [recorder.logs[4], recorder.logs[9]]
    assert history.history == {name: [logs[name] for logs in ends] for name in ends[0]}
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]


def test_measuring_does_not_depend_on_the_batches():
    minicnn.set_floatx("float64")
    model = network()
    minicnn.set_floatx("float32")
    x, labels = data(23)
    expected = [part.mean() for part in judged(model, x, labels)]
    whole = model.predict(x)
    before = model.get_weights()
    for size in (1, 4, 22, 23, 500, None):
        assert model.evaluate(x, labels, batch_size=size, verbose=0) == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(model.predict(x, batch_size=size), whole, rtol=0, atol=1e-14)
    assert whole.shape == (23, 3)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-14)
    assert same(model.get_weights(), before)
    odd = [(x[:5], labels[:5]), (x[5:6], labels[5:6]), (x[6:], labels[6:])]
    assert model.evaluate(odd, verbose=0) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(model.predict(iter(odd)), whole, rtol=0, atol=1e-14)  # labels are left aside
    np.testing.assert_array_equal(model.predict(Dataset.from_arrays(x, labels, 23)), whole)


def test_without_metrics_there_is_only_the_loss():
    model = network()
    model.compile("sgd")
    x, labels = data()
    assert list(model.fit(x, labels, validation_data=(x, labels), verbose=0).history) == ["loss", "val_loss"]
    assert len(model.evaluate(x, labels, verbose=0)) == len(model.train_on_batch(x, labels)) == 1


# Callbacks


def test_hooks_come_in_order():
    recorder = Recorder()
    x, labels = data(3)
    network().fit(x, labels, 2, epochs=3, initial_epoch=1, callbacks=[recorder], validation_data=(x, labels), verbose=0)
    expected = ["train begins"]
    for epoch in (1, 2):
        expected += [f"epoch {epoch} begins"]
        expected += [f"batch {batch} {what}" for batch in (0, 1) for what in ("begins", "ends")]
        expected += ["test begins", "test ends", f"epoch {epoch} ends"]
    assert recorder.events == [*expected, "train ends"]
    assert recorder.params == {"epochs": 3, "steps": 2, "verbose": 0}


def test_a_callback_may_stop_the_training_after_a_batch_or_an_epoch():
    class Stop(Callback):
        def __init__(self, at):
            self.at = at

        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training |= self.at == f"batch {batch}"

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training |= self.at == f"epoch {epoch}"

    x, labels = data(9)
    model = network()
    for at, batches, epochs in [("batch 1", 2, 1), ("epoch 1", 6, 2), ("never", 15, 5)]:
        recorder = Recorder()
        history = model.fit(
            x, labels, 3, epochs=5, callbacks=[Stop(at), recorder], validation_data=(x, labels), verbose=0
        )
        assert sum("batch" in event and "ends" in event for event in recorder.events) == batches
        assert len(history.history["val_loss"]) == epochs  # the epoch that was stopped is measured too
        assert recorder.events[-1] == "train ends"


def test_a_loss_that_is_no_number_ends_the_training(capsys):
    x, labels = data(9)
    x[4] = np.nan
    history = network().fit(x, labels, 3, epochs=5, callbacks=TerminateOnNaN(), shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 1
    assert np.isnan(history.history["loss"][0])
    assert capsys.readouterr().out == "Batch 1: Invalid loss, terminating training\n"


def test_the_rate_is_cut_in_float32_and_the_velocity_stays():
    x, labels = data()
    model = network(rate=0.01)
    never = ReduceLROnPlateau(factor=0.1, patience=1, min_delta=100)  # no epoch after the first is an improvement
    history = model.fit(x, labels, epochs=4, callbacks=never, validation_data=(x, labels), verbose=0)
    rates = [0.01, 0.01, 0.0009999999776482583, 9.999999310821295e-05]  # products in float64, each of a float32
    assert history.history["learning_rate"] == [float(SINGLE(rate)) for rate in rates]
    assert model.optimizer.learning_rate == float(SINGLE(9.999999019782991e-06))
    kernel, velocity = model.get_weights()[0], model.optimizer.slots["velocity"][0].copy()
    assert velocity.any()
    model.optimizer.learning_rate = 0
    model.train_on_batch(x, labels)
    np.testing.assert_array_equal(model.get_weights()[0], kernel + SINGLE(0.9) * velocity)


def test_the_best_weights_come_back():
    x, labels = data(12)
    recorder = Recorder()
    model = network(rate=3.0, momentum=0.95)  # far too fast, so that the loss goes up and down
    stopping = EarlyStopping(patience=2, restore_best_weights=True)
    history = model.fit(
        x[:6], labels[:6], epochs=30, callbacks=[recorder, stopping], validation_data=(x[6:], labels[6:]), verbose=0
    )
    losses = history.history["val_loss"]
    best = int(np.argmin(losses))
    assert best + 3 == len(losses) < 30
    assert same(model.get_weights(), recorder.weights[best])
    assert not same(model.get_weights(), recorder.weights[-1])
    assert model.evaluate(x[6:], labels[6:], verbose=0)[0] == pytest.approx(losses[best], rel=1e-6)


# Data


class Again:
    """Batches that can be gone through as often as one likes, without a length."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_arrays_data_sets_and_any_batches_train_alike():
    x, labels = data(10)
    batches = [(x[:4], labels[:4]), (x[4:8], labels[4:8]), (x[8:], labels[8:])]
    options = {"epochs": 3, "verbose": 0}
    weights = []
    for source in (
        {"x": x, "y": labels, "batch_size": 4, "shuffle": False},
        {"x": x.tolist(), "y": labels.tolist(), "batch_size": 4, "shuffle": False},
        {"x": x, "y": labels[:, None], "batch_size": 4, "shuffle": False},
        {"x": Dataset.from_arrays(x, labels, 4)},
        {"x": Dataset.from_arrays(x, labels, 4).prefetch(2)},
        {"x": batches},
        {"x": Again([list(batch) for batch in batches])},
    ):
        model = network()
        history = model.fit(**source, **options)
        assert len(history.history["loss"]) == 3
        weights.append(model.get_weights())
    assert all(same(w, weights[0]) for w in weights[1:])
    model = network()
    for _ in range(3):
        model.fit(iter(batches), epochs=1, verbose=0)  # a generator lasts one epoch
    assert same(model.get_weights(), weights[0])


def test_thirty_two_is_the_batch_size_if_none_is_given():
    recorder = Recorder()
    network().fit(*data(70), callbacks=recorder, verbose=0)
    assert recorder.params["steps"] == 3


def test_arrays_are_shuffled_anew_each_epoch_and_as_the_seed_says():
    class Peek(Callback):
        """Keeps the first number of each row that the model was given, epoch by epoch."""

        def on_train_begin(self, logs=None):
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen += self.model.layers[-1].x[:, 0].tolist()

    x, labels = data(40)

    def run(seed, shuffle):
        model, peek = network(), Peek()
        minicnn.utils.set_random_seed(seed)
        model.fit(x, labels, 8, epochs=2, shuffle=shuffle, verbose=0, callbacks=peek)
        return peek.seen[:40], peek.seen[40:]

    in_order = x[:, 0].tolist()
    assert run(1, False) == (in_order, in_order)
    first, second = run(1, True)
    assert sorted(first) == sorted(second) == sorted(in_order)  # each row once
    assert len({tuple(order) for order in (in_order, first, second)}) == 3
    assert run(1, True) == (first, second)
    assert run(2, True)[0] != first


def test_class_names_come_from_the_data_set():
    x, labels = data()
    model = network()
    model.fit(Dataset.from_arrays(x, labels, class_names=["a", "b", "c"]), verbose=0)
    assert model.class_names == ["a", "b", "c"]
    model.fit(x, labels, verbose=0)
    assert model.class_names == ["a", "b", "c"]  # arrays know none, and take none away


X, LABELS = data()
WRONG = {
    "no labels": (lambda m: m.fit(X), ValueError, ["(x, y)"]),
    "nothing": (lambda m: m.fit(None), TypeError, ["NoneType"]),
    "no batches": (lambda m: m.fit([], verbose=0), ValueError, ["no batches"]),
    "no batches to measure": (lambda m: m.evaluate(iter([]), verbose=0), ValueError, ["no batches"]),
    "no batches for validation": (
        lambda m: m.fit(X, LABELS, validation_data=iter([]), verbose=0),
        ValueError,
        ["no batches"],
    ),
    "no rows": (lambda m: m.fit(X[:0], LABELS[:0], verbose=0), ValueError, ["(0, 5)", "(0,)"]),
    "nothing to predict": (lambda m: m.predict(X[:0]), ValueError, ["nothing to predict"]),
    "a used generator": (lambda m: m.fit(iter([(X, LABELS)]), epochs=2, verbose=0), ValueError, ["no batches"]),
    "triples": (lambda m: m.fit([(X, LABELS, LABELS)], verbose=0), ValueError, ["(images, labels)", "tuple"]),
    "batch of arrays": (lambda m: m.fit(X, LABELS, batch_size=0, verbose=0), ValueError, ["batch_size", "0"]),
    "batch to predict": (lambda m: m.predict(X, batch_size=0), ValueError, ["batch_size", "0"]),
    "batch of a data set": (
        lambda m: m.fit(Dataset.from_arrays(X, LABELS), batch_size=4),
        ValueError,
        ["batch_size", "arrays only"],
    ),
    "labels too few": (lambda m: m.fit(X, LABELS[1:], verbose=0), ValueError, ["(10, 5)", "(9,)"]),
    "label too high": (lambda m: m.fit(X, LABELS + 3, verbose=0), ValueError, ["from 0 to 2"]),
    "label of validation": (
        lambda m: m.fit(X, LABELS, validation_data=(X, LABELS + 3), verbose=0),
        ValueError,
        ["from 0 to 2"],
    ),
    "label in the second batch": (
        lambda m: m.fit([(X, LABELS), (X, LABELS + 3)], verbose=0),
        ValueError,
        ["from 0 to 2"],
    ),
    "shape": (lambda m: m.fit(X[:, 1:], LABELS, verbose=0), ValueError, ["(N, 5)", "(10, 4)"]),
    "shape to predict": (lambda m: m.predict(X[:, 1:]), ValueError, ["(N, 5)", "(10, 4)"]),
    "epochs": (lambda m: m.fit(X, LABELS, epochs=-1, verbose=0), ValueError, ["epochs", "-1"]),
    "callbacks": (lambda m: m.fit(X, LABELS, callbacks=[print], verbose=0), TypeError, ["Callback", "print"]),
    "verbose": (lambda m: m.fit(X, LABELS, verbose=3), ValueError, ["verbose", "3"]),
}


@pytest.mark.parametrize(("wrong", "kind", "named"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_named_in_one_line(wrong, kind, named):
    with pytest.raises(MinicnnError) as caught:
        wrong(network())
    assert isinstance(caught.value, kind)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in named if part not in message] == []


def test_what_is_printed(capsys):
    x, labels = data()
    model = network()
    validation = (x, labels)
    model.fit(x, labels, epochs=2, validation_data=validation, verbose=0)
    model.evaluate(x, labels, verbose=0)
    model.predict(x)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
    model.fit(x, labels, epochs=2, validation_data=validation, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" - ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2"]
    assert all("val_accuracy: " in line and "1/1" in line for line in lines)
    measured = model.evaluate(x, labels)
    (line,) = capsys.readouterr().out.splitlines()
    assert f"loss: {measured[0]:.4f} - accuracy: {measured[1]:.4f}" in line
