"""Learning rates that follow a plan: each against its formula, and set where it should be in a training."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicnn
from minicnn import layers, models, optimizers
from minicnn.callbacks import Callback, CSVLogger
from minicnn.errors import ArgumentError
from minicnn.schedules import CosineDecay, LearningRateScheduler, OneCycle, Schedule, StepDecay, WarmUp

GOLDEN = np.load(Path(__file__).parent / "golden" / "rules_keras215.npz")
quick = settings(deadline=None, max_examples=100)


def rates(plan, total, per_epoch=1, count=None):
    return [plan.rate(step, total, per_epoch) for step in range(count or total)]


# Formulas


def test_cosine_decay_is_what_keras_computed():
    expected = GOLDEN["cosine"]  # every tenth step, 20 beyond the end; in float32
    mine = rates(CosineDecay(0.1, decay_steps=100, alpha=0.05), 1000, count=121)[::10]
    rounding = {"rtol": 0, "atol": 0.1 * np.finfo(np.float32).eps}
    np.testing.assert_allclose(mine, expected, **rounding)
    plan = WarmUp(CosineDecay(0.1, decay_steps=100, alpha=0.05), warmup_steps=20)
    np.testing.assert_allclose(rates(plan, 1000, count=141)[::10], GOLDEN["cosine after a warm-up"], **rounding)


def test_start_middle_and_end():
    assert rates(CosineDecay(0.5), 4, count=7) == pytest.approx([0.5, 0.4267767, 0.25, 0.0732233, 0, 0, 0], abs=1e-7)
    assert rates(CosineDecay(0.5, alpha=0.5), 2, count=4) == pytest.approx([0.5, 0.375, 0.25, 0.25])
    assert rates(StepDecay(0.5, 2, 0.5), 12, per_epoch=2) == [0.5] * 4 + [0.25] * 4 + [0.125] * 4
    cycle = rates(OneCycle(0.5, pct_start=0.25, div_factor=5, final_div_factor=10), 101)
    assert [cycle[0], cycle[100]] == pytest.approx([0.1, 0.01]) and max(cycle) == pytest.approx(0.5, rel=1e-3)
    assert 24 <= int(np.argmax(cycle)) <= 25  # 0.25 * 101 - 1
    assert rates(WarmUp(0.5, 4), 6) == [0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert rates(WarmUp(0.5, 2, initial_learning_rate=0.25), 4) == [0.25, 0.375, 0.5, 0.5]


def one_cycle(step, total, max_lr, pct_start, div, final):
    """The rate after `step` calls of PyTorch's OneCycleLR.step, phase by phase as its documentation has them."""
    initial = max_lr / div
    phases = [(pct_start * total - 1, initial, max_lr), (total - 1, max_lr, initial / final)]
    begins = 0
    for ends, low, high in phases:
        if step <= ends:
            return high + (low - high) / 2 * (1 + math.cos(math.pi * (step - begins) / (ends - begins)))
        begins = ends
    raise AssertionError(step)


@quick
@given(st.integers(10, 500), st.floats(0.15, 0.9), st.floats(1, 100), st.floats(1, 1e4))
def test_one_cycle_is_pytorchs(total, pct_start, div, final):
    mine = rates(OneCycle(0.1, None, pct_start, div, final), total)
    theirs = [one_cycle(step, total, 0.1, pct_start, div, final) for step in range(total)]
    np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-15)
    assert OneCycle(0.1, total, pct_start, div, final).rate(total + 50, 7, 1) == pytest.approx(theirs[-1])


PLANS = [CosineDecay(0.1), CosineDecay(0.1, 7), OneCycle(0.1), OneCycle(0.1, pct_start=0), StepDecay(0.1, 3, 0.5)]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: type(plan).__name__)
@pytest.mark.parametrize("warmup", [1, 5, 40])
def test_a_warm_up_leads_to_where_the_plan_begins(plan, warmup):
    warm = rates(WarmUp(plan, warmup), 30 + warmup, 4)
    first = plan.rate(0, 30, 4)
    np.testing.assert_allclose(warm[:warmup], first * np.arange(warmup) / warmup, rtol=1e-12)
    assert warm[warmup:] == rates(plan, 30, 4)


@pytest.mark.parametrize("plan", [*PLANS, WarmUp(CosineDecay(0.1), 50), WarmUp(WarmUp(0.1, 2), 3)])
@pytest.mark.parametrize("total", [1, 2, 3, 40])
def test_every_step_of_every_training_has_a_rate(plan, total):
    found = rates(plan, total, 1, total + 3)
    assert all(0 <= rate <= 0.1 + 1e-12 for rate in found)


# In a training


class Recorder(Callback):
    """Keeps the rate that each step ran at."""

    def __init__(self):
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(self.model.optimizer.learning_rate)


def network():
    model = models.Sequential([minicnn.Input((4,)), layers.Dense(3, "softmax")])
    model.compile(optimizers.SGD(7.0))
    return model


def trained(plan, epochs=3, **options):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((20, 4)).astype(np.float32), rng.integers(0, 3, 20)
    recorder = Recorder()
    history = network().fit(x, labels, 4, epochs=epochs, callbacks=[plan, recorder], verbose=0, **options)
    return recorder.rates, history.history["learning_rate"]


@pytest.mark.parametrize("plan", [*PLANS, WarmUp(0.1, 7), WarmUp(CosineDecay(0.1), 7)])
def test_a_rate_is_set_before_every_step_and_logged_at_the_epochs_end(plan):
    ran, logged = trained(plan)
    expected = [float(np.float32(rate)) for rate in rates(plan, 15, 5)]  # the optimizer keeps a float32
    assert ran == expected and logged == expected[4::5]
    assert trained(plan)[0] == expected  # nothing is left of the first training


def test_a_training_that_begins_later_has_the_rates_of_its_epochs():
    assert trained(CosineDecay(0.1), initial_epoch=2)[0] == trained(CosineDecay(0.1))[0][10:]


def test_the_rate_is_in_the_csv_file(tmp_path):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((8, 4)).astype(np.float32), rng.integers(0, 3, 8)
    hooks = [StepDecay(0.5, 1, 0.5), CSVLogger(tmp_path / "history.csv")]
    network().fit(x, labels, 4, epochs=3, callbacks=hooks, verbose=0)
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [float(row["learning_rate"]) for row in rows] == [0.5, 0.25, 0.125]


class Unmeasured:
    """Batches without a length."""

    def __iter__(self):
        return iter([(np.zeros((2, 4), np.float32), np.zeros(2, int))] * 3)


@pytest.mark.parametrize("plan", [CosineDecay(0.1), CosineDecay(0.1, 6), StepDecay(0.1, 1), WarmUp(0.1, 2)])
def test_an_unknown_number_of_batches_is_one_clear_line(plan):
    said = f"^{type(plan).__name__} must know how many batches an epoch has, and this data set does not tell.*length.$"
    with pytest.raises(ArgumentError, match=said):
        network().fit(Unmeasured(), epochs=2, callbacks=plan, verbose=0)
    history = network().fit(Unmeasured(), epochs=2, callbacks=LearningRateScheduler(lambda epoch: 0.5), verbose=0)
    assert history.history["learning_rate"] == [0.5, 0.5]


# Planted mistakes: what the tests above compare with finds each


class OneTooLate(CosineDecay):
    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch + 1)


class OncePerEpoch(CosineDecay):
    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(0)


class EpochsForgotten(CosineDecay):
    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(0)


class AfterTheStep(CosineDecay):
    def on_train_batch_begin(self, batch, logs=None):
        pass

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_begin(batch)


@pytest.mark.parametrize("kind", [OneTooLate, OncePerEpoch, EpochsForgotten])
def test_a_planted_mistake_is_found(kind):
    assert trained(kind(0.1))[0] != trained(CosineDecay(0.1))[0]


def test_a_rate_that_comes_after_its_step_is_found():
    class Before(Recorder):
        def on_train_batch_begin(self, batch, logs=None):
            self.rates.append(self.model.optimizer.learning_rate)

        def on_train_batch_end(self, batch, logs=None):
            pass

    found = []
    for plan in (CosineDecay(0.1), AfterTheStep(0.1)):
        recorder = Before()
        network().fit(np.zeros((8, 4), np.float32), np.arange(8) % 3, 4, callbacks=[plan, recorder], verbose=0)
        found.append(recorder.rates)
    assert found[0][0] == float(np.float32(0.1)) and found[1][0] == 7


# A function of the epoch


def scheduled(schedule, rate=0.5, verbose=0):
    scheduler = LearningRateScheduler(schedule, verbose)
    scheduler.model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=rate))
    return scheduler


def test_a_function_is_given_epoch_and_rate_or_the_epoch(capsys):
    scheduler, seen = scheduled(lambda epoch, rate: rate / 2, verbose=1), []
    for epoch in range(3):
        scheduler.on_epoch_begin(epoch)
        logs = {"loss": 1.0}
        scheduler.on_epoch_end(epoch, logs)
        seen.append(logs["learning_rate"])
    assert seen == [0.25, 0.125, 0.0625]
    assert capsys.readouterr().out.splitlines()[2] == (
        "Epoch 3: LearningRateScheduler setting learning rate to 0.0625."
    )
    for schedule in (lambda epoch: 0.1 * epoch, (0.0, 0.1, 0.2).__getitem__):
        scheduler = scheduled(schedule)
        scheduler.on_epoch_begin(2)
        assert scheduler.model.optimizer.learning_rate == pytest.approx(0.2)
    assert capsys.readouterr().out == ""


def test_an_epoch_that_begins_again_gets_the_rate_that_it_had():
    first = scheduled(lambda epoch, rate: rate / 2)
    first.on_epoch_begin(3)
    again = scheduled(lambda epoch, rate: rate / 2, rate=0.25)  # what the state of the broken epoch holds
    again.set_state(first.get_state())
    again.on_epoch_begin(3)
    assert again.model.optimizer.learning_rate == 0.25
    again.on_epoch_begin(4)
    assert again.model.optimizer.learning_rate == 0.125
    again.on_train_begin()
    again.on_epoch_begin(4)  # another training
    assert again.model.optimizer.learning_rate == 0.0625


def test_an_error_inside_the_function_is_the_functions():
    def schedule(epoch, rate):
        return epoch + "1"

    with pytest.raises(TypeError, match="unsupported operand"):
        scheduled(schedule).on_epoch_begin(0)


@pytest.mark.parametrize("value", [None, "fast", np.nan, -0.5])
def test_a_function_that_returns_no_rate_is_one_clear_line(value):
    with pytest.raises(ArgumentError, match="what LearningRateScheduler's function returns expects a finite number"):
        scheduled(lambda epoch: value).on_epoch_begin(0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: StepDecay(-1, 2), r"StepDecay\(initial_learning_rate\) expects a finite number >= 0"),
        (lambda: StepDecay(0.1, 0), r"StepDecay\(step_size\) expects an integer >= 1. Received: 0"),
        (lambda: StepDecay(0.1, 2, "x"), r"StepDecay\(gamma\) expects"),
        (lambda: CosineDecay(np.inf), r"CosineDecay\(initial_learning_rate\) expects"),
        (lambda: CosineDecay(0.1, 2.5), r"CosineDecay\(decay_steps\) expects an integer >= 1. Received: 2.5"),
        (lambda: CosineDecay(0.1, alpha=2), r"CosineDecay\(alpha\) expects a finite number >= 0 and <= 1"),
        (lambda: OneCycle(0.1, 0), r"OneCycle\(total_steps\) expects"),
        (
            lambda: OneCycle(0.1, pct_start=1),
            r"OneCycle\(pct_start\) expects a finite number >= 0 and < 1. Received: 1",
        ),
        (lambda: OneCycle(0.1, div_factor=0), r"OneCycle\(div_factor\) expects a finite number >= 1"),
        (lambda: OneCycle(0.1, final_div_factor=0.5), r"OneCycle\(final_div_factor\) expects"),
        (lambda: WarmUp("slow", 3), r"WarmUp\(schedule\), if it is no Schedule, expects a finite number >= 0"),
        (lambda: WarmUp(LearningRateScheduler(lambda epoch: 1.0), 3), r"WarmUp\(schedule\), if it is no Schedule,"),
        (lambda: WarmUp(0.1, 0), r"WarmUp\(warmup_steps\) expects"),
        (lambda: WarmUp(0.1, 3, -1), r"WarmUp\(initial_learning_rate\) expects"),
        (lambda: LearningRateScheduler(0.1), "LearningRateScheduler expects a function of epoch and rate"),
    ],
)
def test_a_bad_argument_is_one_clear_line(make, said):
    with pytest.raises(ArgumentError, match=said) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_plan_without_a_formula_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"Schedule must define rate\(step, total, per_epoch\)"):
        Schedule().rate(0, 1, 1)
