"""Every update rule against its restatement in NumPy, against steps worked by hand, and against Keras's numbers."""

import copy
from pathlib import Path

import numpy as np
import pytest

import minicnn
from minicnn import config, kernels, layers, models, optimizers
from minicnn.errors import ArgumentError, StateError
from minicnn.kernels import cpu, reference
from minicnn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop

SHAPES = [(3, 3, 2, 4), (4,), (8, 5), (5,)]
BETAS = {"beta_1": 0.875, "beta_2": 1 - 2**-10, "epsilon": 2.0**-23}  # exact in binary: Keras keeps some in float32
RULES = {
    "sgd": lambda **more: SGD(2**-7, **more),
    "momentum": lambda **more: SGD(2**-7, 0.875, **more),
    "nesterov": lambda **more: SGD(2**-7, 0.875, nesterov=True, **more),
    "rmsprop": lambda **more: RMSprop(2**-10, 0.875, 2.0**-23, **more),
    "adam": lambda **more: Adam(2**-10, **BETAS, **more),
    "adamw": lambda **more: AdamW(2**-10, **{"weight_decay": 2**-3, **more}, **BETAS),
}
OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": 2**-3},
    "clipnorm": {"clipnorm": 2.0},
    "global_clipnorm": {"global_clipnorm": 4.0},
    "both": {"weight_decay": 2**-2, "global_clipnorm": 2.0},
}
CASES = pytest.mark.parametrize(("rule", "option"), [(rule, option) for rule in RULES for option in OPTIONS])
GOLDEN = np.load(Path(__file__).parent / "golden" / "rules_keras215.npz")


def recipe():
    """Weights, and six steps' gradients, small and large in turn: some are clipped, some are not."""
    rng = np.random.default_rng(5)
    weights = [rng.standard_normal(shape) for shape in SHAPES]
    return weights, [[rng.standard_normal(s) * (3 if t % 2 else 0.1) for s in SHAPES] for t in range(6)]


def made(rule, option="plain", dtype="float64"):
    with config.using_floatx(dtype):
        return RULES[rule](**OPTIONS[option])


def steps(optimizer, dtype=np.float64):
    """Return the weights after the recipe's steps, as one array."""
    weights, gradients = recipe()
    weights = [w.astype(dtype) for w in weights]
    for each in gradients:
        optimizer.apply([dw.astype(dtype) for dw in each], weights)
    return np.concatenate([w.ravel() for w in weights])  # (125,)


def restated(rule, option):
    """The same in NumPy's float64, as the rules are written in Keras's documentation."""
    weights, gradients = recipe()
    first, second = [[np.zeros_like(w) for w in weights] for _ in range(2)]
    options = {"weight_decay": 2**-3} if rule == "adamw" else {}
    options |= OPTIONS[option]
    for t, each in enumerate(gradients, 1):
        norms = [np.sqrt((g**2).sum()) for g in each]
        if "clipnorm" in options:
            each = [g * min(1, options["clipnorm"] / norm) for g, norm in zip(each, norms, strict=True)]
        if "global_clipnorm" in options:
            each = [g * min(1, options["global_clipnorm"] / np.hypot.reduce(norms)) for g in each]
        for k, g in enumerate(each):
            w, lr = weights[k], 2**-7 if rule in ("sgd", "momentum", "nesterov") else 2**-10
            w -= lr * options.get("weight_decay", 0) * w
            if rule == "sgd":
                w -= lr * g
            elif rule in ("momentum", "nesterov"):
                first[k] = 0.875 * first[k] - lr * g
                w += 0.875 * first[k] - lr * g if rule == "nesterov" else first[k]
            elif rule == "rmsprop":
                first[k] = 0.875 * first[k] + 0.125 * g**2
                w -= lr * g / np.sqrt(first[k] + 2**-23)
            else:
                b1, b2 = 0.875, 1 - 2**-10
                first[k] = b1 * first[k] + (1 - b1) * g
                second[k] = b2 * second[k] + (1 - b2) * g**2
                w -= lr * np.sqrt(1 - b2**t) / (1 - b1**t) * first[k] / (np.sqrt(second[k]) + 2**-23)
    return np.concatenate([w.ravel() for w in weights])  # (125,)


@CASES
def test_the_rule_is_its_restatement(rule, option):
    np.testing.assert_allclose(steps(made(rule, option)), restated(rule, option), rtol=1e-13, atol=1e-14)


@CASES
def test_the_rule_is_what_keras_computed(rule, option):
    np.testing.assert_allclose(steps(made(rule, option)), GOLDEN[f"{rule}/{option}"], rtol=1e-13, atol=1e-14)


@CASES
def test_the_plain_loops_are_the_rule_too(rule, option, monkeypatch):
    monkeypatch.setattr(kernels, "room", lambda array: reference)
    np.testing.assert_allclose(steps(made(rule, option)), restated(rule, option), rtol=1e-13, atol=1e-14)


@CASES
def test_float32_is_float64_to_rounding(rule, option):
    mine = steps(made(rule, option, "float32"), np.float32)
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, restated(rule, option), rtol=0, atol=1e-6)  # of weights up to 3


# The comparison bites


class WithoutCorrection(Adam):
    def step(self, room, weights, gradients):
        numbers = self.learning_rate, self.beta_1, self.beta_2, self.epsilon
        room.adam_step(weights, gradients, *self.slots.values(), *numbers)


class DecayInTheGradient(SGD):
    def apply(self, gradients, weights):
        self.weight_decay, decay = None, self.weight_decay
        super().apply([dw + decay * w for dw, w in zip(gradients, weights, strict=True)], weights)
        self.weight_decay = decay


class DecayAfterwards(SGD):
    def apply(self, gradients, weights):
        self.weight_decay, decay = None, self.weight_decay
        super().apply(gradients, weights)
        self.weight_decay = decay
        for w in weights:
            w -= self.learning_rate * decay * w


class OneStepTooMany(Adam):
    def step(self, room, weights, gradients):
        self.iterations += 1
        super().step(room, weights, gradients)


def clipping_after_the_momentum(monkeypatch):
    right = cpu.sgd_step

    def wrong(ws, dws, velocities, learning_rate, momentum, nesterov):
        right(ws, dws, velocities, learning_rate, momentum, nesterov)
        velocities[:] = cpu.clip_by_norm(velocities, 2.0**-5, False)

    monkeypatch.setattr(cpu, "sgd_step", wrong)
    return made("momentum", "plain")


MISTAKES = {
    "no correction for the first steps": ("adam", "plain", lambda patch: WithoutCorrection(2**-10, **BETAS)),
    "the steps counted from 2": ("adam", "plain", lambda patch: OneStepTooMany(2**-10, **BETAS)),
    "decay in the gradient": ("momentum", "decay", lambda patch: DecayInTheGradient(2**-7, 0.875, weight_decay=0.125)),
    "decay after the step": ("momentum", "decay", lambda patch: DecayAfterwards(2**-7, 0.875, weight_decay=0.125)),
    "each clipped instead of all": ("sgd", "global_clipnorm", lambda patch: SGD(2**-7, clipnorm=4.0)),
    "all clipped instead of each": ("sgd", "clipnorm", lambda patch: SGD(2**-7, global_clipnorm=2.0)),
    "the velocity clipped instead": ("momentum", "clipnorm", clipping_after_the_momentum),
    "momentum for Nesterov": ("nesterov", "plain", lambda patch: SGD(2**-7, 0.875)),
    "epsilon in the other place": ("rmsprop", "plain", lambda patch: RMSprop(2**-10, 0.875, 2.0**-46)),
    "no decay": ("adamw", "plain", lambda patch: AdamW(2**-10, weight_decay=0.0, **BETAS)),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_found(name, monkeypatch):
    rule, option, wrong = MISTAKES[name]
    with config.using_floatx("float64"):
        mine = steps(wrong(monkeypatch))
    assert not np.allclose(mine, restated(rule, option), rtol=1e-9, atol=1e-9)


# By hand


def one_step(optimizer, w, dw):
    w = np.array(w)
    optimizer.apply([np.array(dw)], [w])
    return w.tolist()


def test_first_steps_by_hand():
    with config.using_floatx("float64"):
        assert one_step(RMSprop(0.5, rho=0.75, epsilon=3.0), [1.0], [2.0]) == [1 - 0.5 * 2 / 2]  # 0.25 * 4 + 3 = 2^2
        first = one_step(Adam(0.5, beta_1=0.75, beta_2=0.75, epsilon=1.0), [1.0], [4.0])
        # mean 1, square 4, corrected by sqrt(1/4) / (1/4) = 2: 0.5 * 2 * 1 / (2 + 1)
        assert first == pytest.approx([1 - 1 / 3], abs=1e-15)
        assert one_step(SGD(0.5, weight_decay=0.25), [8.0], [2.0]) == [8 - 0.125 * 8 - 0.5 * 2]
        assert one_step(SGD(1.0, clipnorm=1.0), [0.0, 0.0], [3.0, 4.0]) == pytest.approx([-0.6, -0.8], abs=1e-15)
        assert one_step(SGD(1.0, clipnorm=5.0), [0.0, 0.0], [3.0, 4.0]) == [-3, -4]  # 5 is not too much
        assert one_step(AdamW(0.5, weight_decay=0.5, epsilon=1e-9), [8.0], [-3.0]) == pytest.approx([8 - 2 + 0.5])


def test_the_first_step_of_adam_is_the_rate_whatever_the_gradient():
    for scale in (0.1, 1.0, 1e6):
        w = one_step(Adam(0.25), np.zeros(2, np.float32), np.array([scale, -scale], np.float32))
        assert w == pytest.approx([-0.25, 0.25], rel=1e-3)


# Clipping


def test_a_norm_over_many_weights_and_many_threads():
    rng = np.random.default_rng(0)
    dws = [rng.standard_normal(shape).astype(np.float32) for shape in [(700, 800), (31,), (1,), (0,), (65,)]]
    before, results = copy.deepcopy(dws), []
    cores = minicnn.get_num_threads()
    for count in (1, 2, 5):
        minicnn.set_num_threads(count)
        results.append(cpu.clip_by_norm(dws, 0.5, True) + cpu.clip_by_norm(dws, 0.5, False))
    minicnn.set_num_threads(cores)
    for one, two, five in zip(*results, strict=True):
        assert one.tobytes() == two.tobytes() == five.tobytes()
    whole = np.sqrt(sum((dw.astype(np.float64) ** 2).sum() for dw in dws))
    for dw, together, alone in zip(dws, results[0][:5], results[0][5:], strict=True):
        np.testing.assert_allclose(together, dw * (0.5 / whole), rtol=1e-6)
        norm = np.sqrt((dw.astype(np.float64) ** 2).sum())
        np.testing.assert_allclose(alone, dw * (0.5 / norm) if norm > 0.5 else dw, rtol=1e-6)
    assert all(map(np.array_equal, dws, before))


def test_the_squares_do_not_overflow_and_a_nan_stays_one():
    huge = np.full(4, 1e30, np.float32)  # its square is beyond float32
    np.testing.assert_allclose(cpu.clip_by_norm([huge], 1.0, False)[0], np.full(4, 0.5), rtol=1e-6)
    for room in (cpu, reference):
        broken = [np.array([1.0, np.nan]), np.array([0.25])]
        alone, other = room.clip_by_norm(broken, 0.5, False)
        assert np.isnan(alone).any() and other == [0.25]
    assert np.isnan(np.concatenate(cpu.clip_by_norm(broken, 0.5, True))).all()  # it is everybody's norm


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("option", ["clipnorm", "global_clipnorm", "decay"])
def test_gradients_stay_as_they_are(rule, option):
    weights, gradients = recipe()
    before, optimizer = copy.deepcopy(gradients), made(rule, option)
    for each in gradients:
        optimizer.apply(each, weights)
    assert all(np.array_equal(a, b) for p, q in zip(gradients, before, strict=True) for a, b in zip(p, q, strict=True))


def test_an_optimizer_of_ones_own_is_clipped_and_decays():
    class Plain(Optimizer):
        def step(self, room, weights, gradients):
            for w, dw in zip(weights, gradients, strict=True):
                w -= self.learning_rate * dw

    with config.using_floatx("float64"):
        mine, ours = Plain(2**-7, weight_decay=0.25, global_clipnorm=2.0), made("sgd", "both")
    np.testing.assert_allclose(steps(mine), steps(ours), rtol=1e-14, atol=1e-15)


# What an optimizer keeps


@pytest.mark.parametrize("rule", RULES)
def test_weights_in_another_order_are_stepped_alike(rule):
    """A kernel that somebody has put into a layer transposed: what is kept of it must not be a copy."""
    rng = np.random.default_rng(0)
    w, dws = rng.standard_normal((4, 6)), rng.standard_normal((3, 4, 6))
    turned, plain = np.asfortranarray(w), w.copy()
    for array in (turned, plain):
        optimizer = made(rule, "decay")
        for dw in dws:
            optimizer.apply([dw], [array])
    assert turned.flags.f_contiguous and not np.array_equal(plain, w)
    np.testing.assert_array_equal(turned, plain)


@pytest.mark.parametrize(
    ("rule", "kept"), [("nesterov", ["velocity"]), ("rmsprop", ["square"]), ("adam", ["mean", "square"])]
)
def test_slots_are_zeros_at_first_then_what_the_rule_says(rule, kept):
    optimizer = made(rule)
    assert optimizer.slots == {} and optimizer.iterations == 0
    steps(optimizer)
    assert list(optimizer.slots) == list(optimizer.kept) == kept and optimizer.iterations == 6
    for slot in optimizer.slots.values():
        assert [array.shape for array in slot] == SHAPES and all(array.any() for array in slot)
    with pytest.raises(StateError, match="has served other weights"):
        optimizer.apply([np.zeros(3)], [np.zeros(3)])


def test_only_adam_counts():
    assert {rule: made(rule).counts for rule in RULES} == {rule: rule.startswith("adam") for rule in RULES}


@CASES
def test_a_config_builds_an_equal_optimizer(rule, option):
    optimizer = made(rule, option)
    with config.using_floatx("float64"):
        again = type(optimizer)(**optimizer.get_config())
    assert again.get_config() == optimizer.get_config() and repr(again) == repr(optimizer)
    np.testing.assert_array_equal(steps(again), steps(optimizer))


def test_options_that_are_not_chosen_are_not_shown():
    assert repr(Adam(0.5)) == "Adam(learning_rate=0.5, beta_1=0.9, beta_2=0.999, epsilon=1e-07)"
    assert "clipnorm=2.0" in repr(SGD(0.5, clipnorm=2)) and "weight_decay=0.004" in repr(AdamW())


@pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("rmsprop", RMSprop), ("Adam", Adam), ("AdamW", AdamW)])
def test_names_are_kerass(name, kind):
    assert type(optimizers.get(name)) is kind
    assert type(optimizers.get(name.lower())) is kind


KERASS = {
    SGD: {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False},
    RMSprop: {"learning_rate": 0.001, "rho": 0.9, "epsilon": 1e-7},
    Adam: {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    AdamW: {"learning_rate": 0.001, "weight_decay": 0.004, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
}


@pytest.mark.parametrize("kind", KERASS)
def test_defaults_are_kerass(kind):
    found = kind().get_config()
    assert found.pop("learning_rate") == float(np.float32(KERASS[kind]["learning_rate"]))
    assert found == {name: value for name, value in KERASS[kind].items() if name != "learning_rate"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RMSprop(-1), "the learning rate expects a finite number >= 0. Received: -1"),
        (lambda: RMSprop(rho=1), r"RMSprop\(rho\) expects a finite number >= 0 and < 1. Received: 1"),
        (lambda: RMSprop(epsilon=0), r"RMSprop\(epsilon\) expects a finite number >= 1.17.*e-38. Received: 0"),
        (lambda: Adam(beta_1=1.0), r"Adam\(beta_1\) expects a finite number >= 0 and < 1. Received: 1.0"),
        (lambda: Adam(beta_2=-0.1), r"Adam\(beta_2\) expects"),
        (lambda: Adam(epsilon=1e-60), r"Adam\(epsilon\) expects"),  # 0 in float32
        (lambda: Adam("fast"), "the learning rate expects a finite number >= 0. Received: 'fast'"),
        (lambda: AdamW(weight_decay=-1), r"AdamW\(weight_decay\) expects a finite number >= 0. Received: -1"),
        (lambda: AdamW(weight_decay=None), r"AdamW\(weight_decay\) expects"),
        (lambda: SGD(weight_decay=np.nan), r"SGD\(weight_decay\) expects"),
        (lambda: SGD(clipnorm=0), r"SGD\(clipnorm\) expects"),
        (lambda: SGD(global_clipnorm=-2), r"SGD\(global_clipnorm\) expects"),
        (lambda: SGD(clipnorm=1, global_clipnorm=1), "SGD expects clipnorm, .* or global_clipnorm, .* not both"),
        (lambda: optimizers.get("adamax"), "unknown optimizer 'adamax'. Expected one of: sgd, rmsprop, adam, adamw"),
    ],
)
def test_a_bad_argument_is_one_clear_line(make, said):
    with pytest.raises(ArgumentError, match=said) as error:
        make()
    assert "\n" not in str(error.value)


# In a model


def network(rule, option="plain"):
    minicnn.utils.set_random_seed(0)
    model = models.Sequential([
        minicnn.Input((6, 6, 2)), layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(),
        layers.Flatten(), layers.Dense(3, "softmax"),
    ])  # fmt: skip
    model.compile(RULES[rule](**OPTIONS[option]), metrics=["accuracy"])
    return model


def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, 6, 6, 2)).astype(np.float32), rng.integers(0, 3, 8)


@CASES
def test_a_model_learns_and_comes_back_from_its_file(rule, option, tmp_path):
    model, (x, y) = network(rule, option), batch()
    losses = [model.train_on_batch(x, y)[0] for _ in range(30)]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model")
    again = models.load_model(tmp_path / "model")
    assert type(again.optimizer) is type(model.optimizer)
    assert again.optimizer.get_config() == model.optimizer.get_config()


@pytest.mark.parametrize("rule", ["momentum", "rmsprop", "adam"])
def test_decay_leaves_the_moving_averages_alone(rule):
    plain, decaying = network(rule), network(rule, "decay")
    begun = {name: w.any() for name, w in plain.named_weights().items()}
    for model in (plain, decaying):
        model.train_on_batch(*batch())
    for name, w in plain.named_weights().items():
        decayed = not np.array_equal(w, decaying.named_weights()[name])
        assert decayed == (begun[name] and "moving" not in name)  # biases begin at 0, from which nothing decays
