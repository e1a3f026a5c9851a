"""The chapter on plateau and early stopping: five recorded runs, rates by plan, and what the page says of them."""

import json
from pathlib import Path

import numpy as np

from minicnn.callbacks import EarlyStopping, ReduceLROnPlateau
from minicnn.optimizers import SGD

DOCS = Path(__file__).parents[2] / "docs"
MEASURED = json.loads((DOCS / "figures" / "measured" / "seeds.json").read_text())
RUNS = MEASURED["runs"]
PAGE = (DOCS / "callbacks.md").read_text()


def restored(run):
    return int(np.argmin(run["val_loss"]))


def first_cut(run):
    return int(np.flatnonzero(np.diff(run["learning_rate"]))[0]) + 1


def test_the_figure_is_made_of_five_named_runs():
    assert MEASURED["command"].startswith("python benchmarks/seeds.py --data PATH")
    assert list(RUNS) == ["1", "2", "3", "4", "5"] == [str(seed) for seed in MEASURED["seeds"]]


def test_after_the_cut_all_reach_what_the_caption_says_and_three_go_back():
    after = [100 * run["val_accuracy"][first_cut(run)] for run in RUNS.values()]
    assert (round(min(after), 1), round(max(after), 1)) == (71.1, 72.1)
    assert "stand at 71.1 to 72.1 %" in PAGE
    back = {
        seed: 100 * run["val_accuracy"][restored(run)] for seed, run in RUNS.items() if restored(run) < first_cut(run)
    }
    assert list(back) == ["1", "2", "3"]
    assert (round(min(back.values()), 1), round(max(back.values()), 1)) == (68.4, 69.6)
    kept = [round(100 * RUNS[seed]["val_accuracy"][restored(RUNS[seed])], 1) for seed in "45"]
    assert kept == [72.1, 71.6]
    assert "at 68.4 to 69.6 %" in PAGE and "at 72.1 and 71.6 %" in PAGE


def test_the_callbacks_decide_again_what_they_decided_in_the_runs():
    class Model:
        def __init__(self):
            self.optimizer, self.stop_training, self.weights = SGD(0.01), False, [0]

        def get_weights(self):
            return self.weights

        def set_weights(self, weights):
            self.weights = weights

    for run in RUNS.values():
        model, rates = Model(), []
        callbacks = [ReduceLROnPlateau(patience=3), EarlyStopping(patience=6, restore_best_weights=True)]
        for epoch, loss in enumerate(run["val_loss"]):
            assert not model.stop_training
            rates.append(model.optimizer.learning_rate)
            model.weights[0] = epoch
            for callback in callbacks:
                callback.model = model
                callback.on_epoch_end(epoch, {"val_loss": loss})
        assert model.stop_training
        callbacks[1].on_train_end()
        assert (rates, model.weights) == (run["learning_rate"], [restored(run)])


def test_the_training_loss_starts_above_the_validation_loss_and_confident_mistakes_raise_the_mean():
    assert all(run["loss"][0] > run["val_loss"][0] for run in RUNS.values())
    losses = json.loads((DOCS / "figures" / "measured" / "losses.json").read_text())
    assert losses["history"]["val_loss"] == RUNS["1"]["val_loss"]  # the same run
    early, late = (losses["epochs"][epoch]["validation"] for epoch in (7, 13))
    assert late["accuracy"] > early["accuracy"] and late["loss"] > early["loss"]
    assert (round(early["loss_of_wrong"], 2), round(late["loss_of_wrong"], 2)) == (2.31, 3.09)
    assert (round(early["share_of_worst_tenth"], 2), round(late["share_of_worst_tenth"], 2)) == (0.42, 0.56)
    assert round(losses["epochs"][1]["training"]["loss"], 3) == 1.486 < RUNS["1"]["loss"][0]


def test_less_patience_stops_before_a_lower_rate_is_used():
    best = [np.minimum.accumulate(run["val_loss"][: first_cut(run)])[-1] for run in RUNS.values()]
    accuracies = [
        run["val_accuracy"][run["val_loss"].index(loss)] for run, loss in zip(RUNS.values(), best, strict=True)
    ]
    assert round(100 * max(accuracies), 1) == 69.6
    assert "None of the five would hold more than 69.6 %" in PAGE


def test_the_plans_of_the_figure_are_what_its_text_says(figures):
    total, (step, cosine, cycle, warm) = figures.EPOCHS * figures.STEPS, figures.PLANS.values()
    assert total == 3000 and "*30 epochs of 100 steps." in PAGE

    def rate(plan, epoch):
        return plan.rate(int(epoch * figures.STEPS), total, figures.STEPS)

    assert [round(rate(step, epoch), 4) for epoch in (0, 9.99, 10, 20)] == [0.1, 0.1, 0.01, 0.001]
    assert [round(rate(cosine, epoch), 4) for epoch in (0, 15, 30)] == [0.1, 0.05, 0]
    assert [round(rate(cycle, epoch), 4) for epoch in (0, 8.99, 30)] == [0.004, 0.1, 0]
    assert np.isclose(rate(cycle, 29.99), 0.1 / 250_000) and "m/250,000" in PAGE
    assert [round(rate(warm, epoch), 4) for epoch in (0, 2.5, 5, 30)] == [0, 0.05, 0.1, 0]
