"""The profile of a training step: counts as by hand, times that add up, and a model that stays as it was."""

import re
import time

import numpy as np
import pytest

import minicnn
from minicnn import layers, models, optimizers, profiler
from minicnn.__main__ import main
from minicnn.baseline import model_s
from minicnn.errors import MinicnnError
from minicnn.kernels import reference

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
LABELS = np.arange(4)


@pytest.fixture(scope="module")
def found():
    minicnn.utils.set_random_seed(0)
    return profiler.profile(model_s(), IMAGES, LABELS, steps=3)


def rows_by_name(profile):
    return {row.name: row for row in profile.rows}


def test_a_line_for_each_step_of_the_model(found):
    stages = [f"conv2d{i} + max_pooling2d{i}" for i in ("", "_1", "_2")]
    steps = ["input_layer", "rescaling", *stages, "flatten", "dense", "dense_1"]
    assert [row.name for row in found.rows] == [*steps, "loss", "optimizer", "the rest"]


def test_operations_of_model_s_are_those_counted_by_hand(found):
    """For an image: 2 * places * 9 * C * F of a convolution, 2 * In * Out of a dense layer; below the first no dx."""
    forward = {
        "conv2d + max_pooling2d": 2 * 32 * 32 * 27 * 16,
        "conv2d_1 + max_pooling2d_1": 2 * 16 * 16 * 144 * 32,
        "conv2d_2 + max_pooling2d_2": 2 * 8 * 8 * 288 * 64,
        "dense": 2 * 1024 * 128,
        "dense_1": 2 * 128 * 10,
    }
    for row in found.rows:
        once = 4 * forward.get(row.name, 0)
        assert row.forward_flops == once
        assert row.backward_flops == (1 if row.name == "conv2d + max_pooling2d" else 2) * once
    assert sum(row.forward_flops + row.backward_flops for row in found.rows) == 4 * 16_719_360


def test_bytes_are_those_counted_by_hand(found):
    rows = rows_by_name(found)
    x, y, weights = 4 * 32 * 32 * 3, 4 * 16 * 16 * 16, 27 * 16 + 16
    assert (rows["rescaling"].forward_bytes, rows["rescaling"].backward_bytes) == (x + 4 * x, 0)  # from bytes
    first = rows["conv2d + max_pooling2d"]
    assert (first.forward_bytes, first.backward_bytes) == (4 * (x + weights + y), 4 * (y + x + 2 * weights))
    dense = rows["dense_1"]
    assert dense.forward_bytes == 4 * (4 * 128 + 1290 + 4 * 10)
    assert dense.backward_bytes == 4 * (4 * 10 + 2 * 4 * 128 + 2 * 1290)
    assert (rows["flatten"].forward_bytes, rows["flatten"].backward_bytes) == (0, 0)


def test_bytes_of_the_layers_that_only_look_at_memory_and_of_those_that_do_not():
    inputs = minicnn.Input((8, 8, 2))
    x = layers.Conv2D(3, 1)(inputs)
    y = layers.Concatenate()([layers.LeakyReLU()(x), layers.GELU()(x)])
    y = layers.Dropout(0)(layers.AveragePooling2D(2)(layers.Linear()(y)))
    y = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(y))
    model = minicnn.Model(inputs, layers.Dense(4)(y))
    images = np.ones((4, 8, 8, 2), np.float32)
    found = {
        row.name: (row.forward_bytes, row.backward_bytes) for row in profiler.profile(model, images, LABELS, 1).rows
    }
    image = 4 * 4 * 8 * 8  # bytes of a channel
    assert found["gelu"] == found["leaky_re_lu"] == (6 * image, 6 * image)
    assert found["concatenate"] == (12 * image, 0)  # each dx is a part of dy
    assert found["linear"] == found["dropout"] == (0, 0)
    assert found["average_pooling2d"] == (6 * image + 6 * image // 4,) * 2
    assert found["global_average_pooling2d"] == (6 * image // 4 + 4 * 4 * 6,) * 2
    rows, vector = 4 * 4 * 6, 4 * 6
    assert found["batch_normalization"] == (2 * rows + 4 * vector, 3 * rows + 4 * vector)  # four weights, two to learn


def test_the_live_fraction_is_that_of_the_definition():
    minicnn.utils.set_random_seed(0)
    inputs = minicnn.Input((6, 8, 2))
    conv = layers.Conv2D(5, 3, padding="same", activation="relu")
    x = layers.Flatten()(layers.MaxPooling2D(2)(conv(inputs)))
    model = minicnn.Model(inputs, layers.Dense(3, activation="softmax")(x))
    rng = np.random.default_rng(0)
    conv.params["bias"][:] = rng.standard_normal(5) / 2
    images = rng.standard_normal((3, 6, 8, 2)).astype(np.float32)
    row = profiler.profile(model, images, np.arange(3), steps=1).rows[1]
    y, _ = reference.conv2d_relu_maxpool2d(images, conv.params["kernel"], conv.params["bias"])
    assert row.live == (y > 0).mean()
    assert 0 < row.live < 1


def test_shares_add_up_and_so_does_the_printed_total(found):
    assert sum(found.share(row) for row in found.rows) == pytest.approx(1)
    assert all(row.seconds >= 0 for row in found.rows)
    head, *lines, total = str(found).splitlines()
    assert re.split(r"\s\s+", head) == ["step", "forward ms", "backward ms", "GFLOP/s", "MB", "live", "share"]
    shares = [float(re.search(r"([\d.]+)%$", line)[1]) for line in lines]
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(lines))
    assert re.match(r"total .* 100\.0%$", total)
    forward, backward = (float(total.split()[i]) / 1e3 for i in (1, 2))
    assert forward == pytest.approx(sum(row.forward for row in found.rows), abs=1e-6)
    assert backward == pytest.approx(sum(row.backward for row in found.rows), abs=1e-6)


class Slow(layers.Layer):
    """Takes 5 ms forward and 10 ms backward."""

    def forward(self, x, training=False):
        time.sleep(0.005)
        return x

    def backward(self, dy):
        time.sleep(0.010)
        return dy


def test_time_is_booked_where_it_passes():
    inputs = minicnn.Input((4,))
    model = minicnn.Model(inputs, layers.Dense(3, "softmax")(Slow()(layers.Dense(3)(inputs))))
    profile = profiler.profile(model, np.ones((2, 4), np.float32), [0, 1], steps=5)
    slow = rows_by_name(profile)["slow"]
    assert slow.forward >= 0.005 and slow.backward >= 0.010
    assert max(profile.rows, key=profile.share) is slow


@pytest.mark.parametrize(
    ("fuse", "make"), [(True, lambda: optimizers.SGD(0.01, momentum=0.9)), (False, optimizers.AdamW)]
)
def test_the_model_learns_on_as_if_it_had_not_been_profiled(fuse, make):
    def trained(steps, look=lambda model: None):
        minicnn.utils.set_random_seed(3)
        model = model_s()
        model.compile(make(), metrics=["accuracy"], fuse=fuse)
        for _ in range(steps):
            model.train_on_batch(IMAGES, LABELS)
            look(model)
        return model

    plain = trained(3)
    profiled = trained(3, lambda model: profiler.profile(model, IMAGES[:2], LABELS[:2], steps=1))
    for a, b in zip(plain.get_weights(), profiled.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    assert profiled.optimizer.learning_rate == plain.optimizer.learning_rate
    names = [row.name for row in profiler.profile(profiled, IMAGES, LABELS, steps=1).rows]
    assert ("conv2d + max_pooling2d" in names) == fuse
    assert ("max_pooling2d" in names) != fuse


def test_any_model_that_learns_can_be_profiled():
    """Without a softmax, with branches, with no shapes yet, and not compiled."""
    inputs = minicnn.Input((4, 4, 3))
    x = layers.Conv2D(3, 3, padding="same")(inputs)
    branches = minicnn.Model(inputs, layers.Dense(4)(layers.Flatten()(layers.Add()([inputs, x, x]))))
    rows = rows_by_name(profiler.profile(branches, IMAGES[:, :4, :4], LABELS, steps=1))
    size = 4 * 4 * 4 * 3
    assert rows["add"].forward_bytes == size + 4 * (2 * size + size)  # bytes come in, and floats; floats go out
    deferred = models.Sequential([layers.Flatten(), layers.Dense(4, "softmax")])
    assert rows_by_name(profiler.profile(deferred, IMAGES, LABELS, steps=1))["dense"].backward_flops > 0
    assert not deferred._nodes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("model", IMAGES, LABELS), "expects a model. Received: str"),
        ((model_s(), IMAGES, LABELS, 0), r"profile\(steps\) expects an integer >= 1. Received: 0"),
        ((model_s(), IMAGES[:, :8], LABELS), r"\(N, 32, 32, 3\). Received: \(4, 8, 32, 3\)"),
        ((model_s(), None, LABELS), "array"),
        ((model_s(), IMAGES, LABELS[:3]), r"labels \(3,\)"),
        ((model_s(), IMAGES, LABELS + 8), "labels must be from 0 to 9"),
        ((model_s(), IMAGES[:0], LABELS[:0]), "without images"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, expected):
    with pytest.raises(MinicnnError, match=expected) as caught:
        profiler.profile(*arguments)
    assert "\n" not in str(caught.value)


# The command


@pytest.fixture
def run(capsys):
    """Call ``python -m minicnn profile`` in this process: its status and what it printed."""
    before = minicnn.get_num_threads()

    def call(*words):
        try:
            return main(["profile", *map(str, words)]), *capsys.readouterr()
        except SystemExit as stop:
            return stop.code, *capsys.readouterr()

    yield call
    minicnn.set_num_threads(before)


def test_the_command_profiles_model_s(run):
    status, printed, errors = run("--batch-size", 8, "--steps", 2, "--threads", 1)
    assert (status, errors) == (0, "")
    first, head, *lines = printed.splitlines()
    assert first == "model_s, training step, batch 8, 1 thread, median of 2 steps"
    assert head.startswith("step ")
    assert len(lines) == 12
    assert lines[-1].startswith("total ") and lines[-1].endswith("100.0%")


@pytest.mark.parametrize("shape", [(8, 40, 1), (6, 6, 4), (7,), (3, 2)])
def test_the_command_profiles_a_saved_model_of_any_input(run, tmp_path, shape):
    model = models.Sequential([minicnn.Input(shape), layers.Flatten(), layers.Dense(3, activation="softmax")], "own")
    model.save(tmp_path / "own")
    status, printed, errors = run(tmp_path / "own", "--batch-size", 2000, "--steps", 1)
    assert (status, errors) == (0, "")
    assert printed.startswith("own, training step, batch 2000, ")
    assert re.search(r"^dense +\d", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["missing"], "missing"),
        (["--steps", "0"], "--steps: expected an integer >= 1. Received: 0"),
        (["--threads", "many"], "--threads: expected an integer >= 1. Received: many"),
    ],
)
def test_the_command_refuses_bad_input_in_one_line(run, words, expected):
    status, printed, errors = run(*words)
    assert (status, printed) == (2, "")
    assert errors.startswith("error: ") and expected in errors and errors.count("\n") == 1
