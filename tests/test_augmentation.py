"""Augmentation: kernels against plain loops, layers against every picture that they may show and how often."""

import os
import signal
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resume import Killed, Killer

import minicnn
from minicnn import layers, profiler, ranks
from minicnn.errors import ArgumentError, MinicnnError, ShapeError, StateError
from minicnn.gradcheck import check_layer, check_model
from minicnn.kernels import cpu, reference
from minicnn.layers import RandomCrop, RandomCutout, RandomFlip, RandomTranslation

quick = settings(deadline=None, max_examples=60)
SIZES = st.tuples(st.sampled_from([0, 1, 3, 17]), *[st.integers(1, 6)] * 4, st.sampled_from([1, 2, 3, 19]))
SEEDS, DTYPES = st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.float32, np.float64])


def same(mine, theirs):
    """Equal to the bit, in shape and in type too."""
    np.testing.assert_array_equal(mine, theirs, strict=True)


@quick
@given(SEEDS, DTYPES, SIZES)
def test_the_kernels_are_the_plain_loops_and_each_others_transpose(seed, dtype, sizes):
    rng, (N, H, W, OH, OW, C) = np.random.default_rng(seed), sizes
    x = rng.integers(0, 256, (N, H, W, C)).astype(dtype)
    rows = rng.integers(-1, H, (N, OH)).astype(np.int32)
    cols = rng.integers(-1, W, (N, OW)).astype(np.int32)
    y = cpu.gather_pixels(x, rows, cols)
    same(y, reference.gather_pixels(x, rows, cols))
    dy = rng.integers(-4, 5, y.shape).astype(np.float64 if dtype == np.uint8 else dtype)
    dx = cpu.gather_pixels_backward(dy, rows, cols, x.shape)
    same(dx, reference.gather_pixels_backward(dy, rows, cols, x.shape))
    assert (y * dy.astype(float)).sum() == (x * dx.astype(float)).sum()  # whole numbers: no rounding
    ends = np.sort(rng.integers(0, [[[H + 1], [W + 1]]] * max(N, 1), (max(N, 1), 2, 2)), axis=2)[:N]
    boxes = ends.reshape(N, 4).astype(np.int32)
    same(cpu.cutout(x, boxes, 7.0), reference.cutout(x, boxes, 7.0))
    turned = np.ascontiguousarray(x.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)  # not C's order
    same(cpu.gather_pixels(turned, rows, cols), y)
    same(cpu.cutout(turned, boxes, 7.0), cpu.cutout(x, boxes, 7.0))


@pytest.mark.parametrize("shape", [(37, 60, 50, 3), (2, 400, 500, 3)])  # cut into parts: of images, or one each
def test_many_pixels_are_cut_into_parts(shape):
    (N, H, W, _), rng = shape, np.random.default_rng(0)
    x = rng.integers(-4, 5, shape).astype(np.float32)
    rows, cols = rng.integers(0, H, (N, H), np.int32), rng.integers(0, W, (N, W), np.int32)
    at = np.arange(N)[:, None, None], rows[:, :, None], cols[:, None, :]
    y, dx = cpu.gather_pixels(x, rows, cols), np.zeros_like(x)
    assert y.size > cpu.CHUNK
    same(y, x[at])
    np.add.at(dx, at, y)
    same(cpu.gather_pixels_backward(y, rows, cols, shape), dx)


# What each layer may show: numbered pixels, so that two different pictures are never equal


def numbered(H, W, N=1, dtype=np.uint8):
    """N equal images (H, W, 1) with the pixels 1, 2, 3, ..."""
    return np.tile(np.arange(1, H * W + 1, dtype=dtype).reshape(1, H, W, 1), (N, 1, 1, 1))


def flipped(mode):
    image = numbered(3, 4)[0]
    up, left = [[False, True] if name in mode else [False] for name in ("vertical", "horizontal")]
    return [np.flip(image, [axis for axis, flip in enumerate(both) if flip]) for both in product(up, left)]


PAD = {"reflect": "symmetric", "constant": "constant", "nearest": "edge", "wrap": "wrap"}  # as NumPy calls them


def shifted(image, down, right, fill_mode):
    (H, W, _), (top, left) = image.shape, (max(down, 0), max(right, 0))
    padded = np.pad(image, ((top, max(-down, 0)), (left, max(-right, 0)), (0, 0)), PAD[fill_mode])
    return padded[max(-down, 0) :][:H, max(-right, 0) :][:, :W]


def translated(fill_mode):
    return [shifted(numbered(4, 5)[0], i, j, fill_mode) for i in range(-2, 3) for j in range(-1, 4)]


def cropped():
    return [numbered(4, 5)[0, i : i + 3, j : j + 3] for i in range(2) for j in range(3)]


def covered(height, width):
    """One picture for each centre: rectangles that are cut off at the border may look alike."""
    found = []
    for i, j in product(range(4), range(5)):
        image = numbered(4, 5)[0]
        for u, v in product(range(height), range(width)):
            if 0 <= i - height // 2 + u < 4 and 0 <= j - width // 2 + v < 5:
                image[i - height // 2 + u, j - width // 2 + v] = 99
        found.append(image)
    return found


CASES = {
    "horizontal": (lambda: RandomFlip("horizontal", seed=1), (3, 4), lambda: flipped("horizontal")),
    "vertical": (lambda: RandomFlip("vertical", seed=2), (3, 4), lambda: flipped("vertical")),
    "both": (lambda: RandomFlip(seed=3), (3, 4), lambda: flipped("horizontal_and_vertical")),
    **{
        mode: (
            lambda mode=mode: RandomTranslation(0.5, (-0.2, 0.6), fill_mode=mode, seed=4),
            (4, 5),
            lambda mode=mode: translated(mode),
        )
        for mode in PAD
    },
    "crop": (lambda: RandomCrop(3, 3, seed=5), (4, 5), cropped),
    "cutout 3x2": (lambda: RandomCutout(0.75, 0.4, 99, seed=6), (4, 5), lambda: covered(3, 2)),
    "cutout 4x3": (lambda: RandomCutout(1, 0.6, 99, seed=7), (4, 5), lambda: covered(4, 3)),
    "cutout of a pixel": (lambda: RandomCutout(0.01, 0.01, 99, seed=8), (4, 5), lambda: covered(1, 1)),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("make", "size", "allowed"), CASES.values(), ids=CASES)
def test_every_image_is_one_that_may_come_and_all_come_equally_often(make, size, allowed, dtype):
    N, pictures = 20_000, [np.array(picture, dtype).tobytes() for picture in allowed()]
    layer = make().build((*size, 1))
    y = layer.forward(numbered(*size, N, dtype), training=True)
    assert (y.dtype, y.shape) == (dtype, (N, *layer.output_shape))
    expected, found = Counter(pictures), Counter(image.tobytes() for image in y)
    assert found.keys() == expected.keys()
    for picture, ways in expected.items():
        p = ways / len(pictures)
        assert abs(found[picture] - N * p) < 5 * np.sqrt(N * p * (1 - p))  # five standard deviations


@pytest.mark.parametrize("make", [case[0] for case in CASES.values()], ids=CASES)
def test_neighbours_in_a_batch_and_in_time_are_independent(make):
    layer, N = make(), 20_000
    size = (3, 4) if isinstance(layer, RandomFlip) else (4, 5)
    first, second = (layer.build((*size, 1)).forward(numbered(*size, N), training=True).copy() for _ in range(2))
    chance = sum(count**2 for count in Counter(image.tobytes() for image in first).values()) / N**2
    for a, b in ((first[:-1], first[1:]), (first, second)):
        agree = sum(one.tobytes() == other.tobytes() for one, other in zip(a, b, strict=True))
        assert abs(agree - len(a) * chance) < 5 * np.sqrt(N * chance * (1 - chance))


def test_the_edges_by_hand():
    def row(width_factor, fill_mode):
        layer = RandomTranslation(0, (width_factor, width_factor), fill_mode).build((1, 4, 1))
        return layer.forward(numbered(1, 4), training=True).ravel().tolist()

    assert row(0.5, "reflect") == [2, 1, 1, 2]
    assert row(-0.75, "reflect") == [4, 4, 3, 2]
    assert row(1, "reflect") == [4, 3, 2, 1]
    assert row(0.5, "constant") == [0, 0, 1, 2]
    assert row(-0.25, "nearest") == [2, 3, 4, 4]
    assert row(0.25, "wrap") == [4, 1, 2, 3]
    layer = RandomTranslation((0.5, 0.5), 0).build((4, 1, 1))  # above 0 is down
    assert layer.forward(numbered(4, 1), training=True).ravel().tolist() == [2, 1, 1, 2]


@pytest.mark.parametrize("factor", [0.29, 0.28, 0.7, (0.29, 0.29), 0.3, 1])
def test_a_range_ends_at_the_whole_pixel_that_it_names(factor):
    layer = RandomTranslation(factor, 0).build((100, 2, 1))  # 0.29 * 100 is less than 29 by rounding
    assert layer.high[0] == round(100 * (factor[1] if isinstance(factor, tuple) else factor))


ALL = [
    lambda **more: RandomFlip(**more),
    lambda **more: RandomTranslation(0.3, 0.3, **more),
    lambda **more: RandomCrop(5, 4, **more),
    lambda **more: RandomCutout(0.5, 0.5, **more),
]
NAMED = pytest.mark.parametrize("make", ALL, ids=["flip", "translation", "crop", "cutout"])


@NAMED
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_outside_training_nothing_is_drawn_and_the_image_or_its_middle_is_seen(make, dtype):
    layer = make(seed=0).build((8, 7, 2))
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 7, 2)).astype(dtype)
    before = layer.generator.bit_generator.state
    y = layer.forward(x)
    kind = np.uint8 if dtype == np.uint8 else np.float32
    expected = x[:, 1:6, 1:5] if isinstance(layer, RandomCrop) else x
    same(y, expected.astype(kind))
    assert layer.generator.bit_generator.state == before
    if not isinstance(layer, RandomCrop) and dtype == kind:
        assert y is x
    assert layer.forward(x, training=True).dtype == kind
    assert layer.generator.bit_generator.state != before


@NAMED
def test_the_gradient_outside_training(make):
    layer, dy = make().build((8, 7, 2)), np.random.default_rng(0).normal(size=(3, 8, 7, 2)).astype(np.float32)
    layer.forward(np.zeros((3, 8, 7, 2), np.uint8), training=True)
    layer.forward(np.zeros((3, 8, 7, 2), np.uint8))
    if isinstance(layer, RandomCrop):
        dx = layer.backward(dy[:, :5, :4])
        same(dx[:, 1:6, 1:5], dy[:, :5, :4])
        assert np.count_nonzero(dx) == 3 * 5 * 4 * 2
    else:
        same(layer.backward(dy), dy)
    assert check_layer(layer, (8, 7, 2), training=False).ok


@NAMED
def test_the_gradient_of_bytes_is_a_float_and_as_large_as_what_is_seen(make):
    layer = make(seed=0).build((8, 7, 2))
    x = np.random.default_rng(0).integers(1, 256, (5, 8, 7, 2), dtype=np.uint8)
    y = layer.forward(x, training=True)
    dx = layer.backward(np.ones(y.shape, np.float32))
    assert (dx.dtype, dx.shape) == (np.float32, x.shape)
    assert dx.sum() == np.count_nonzero(y)  # what is covered is 0


@NAMED
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_same_seed_gives_the_same_bits_at_any_number_of_threads(make, count):
    def run():
        layer, rng = make(seed=9).build((90, 80, 3)), np.random.default_rng(0)
        y = layer.forward(rng.integers(0, 256, (40, 90, 80, 3), dtype=np.uint8), training=True)
        return y.tobytes(), layer.backward(rng.normal(size=y.shape)).tobytes()

    cores, expected = minicnn.get_num_threads(), run()
    minicnn.set_num_threads(count)
    try:
        assert run() == expected
    finally:
        minicnn.set_num_threads(cores)


@NAMED
def test_the_shared_seed_decides_where_none_is_given(make):
    def draw(shared, **more):
        minicnn.utils.set_random_seed(shared)
        layer = make(**more).build((9, 8, 3))
        return layer.forward(np.random.default_rng(0).normal(size=(20, 9, 8, 3)), training=True).tobytes()

    assert draw(1) == draw(1) != draw(2)
    assert draw(1, seed=5) == draw(2, seed=5)
    assert make().get_config()["seed"] is None
    assert make(seed=5).get_config()["seed"] == 5
    assert make(seed=np.random.default_rng(5)).get_config()["seed"] is None


@NAMED
def test_ranks_show_their_parts_of_what_one_process_shows(make, monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (11, 8, 7, 2), dtype=np.uint8)
    whole = make(seed=6).build((8, 7, 2)).forward(x, training=True)
    for part in (slice(0, 6), slice(6, 11)):
        monkeypatch.setattr(ranks, "batch", lambda size, part=part: (11, part))
        same(make(seed=6).build((8, 7, 2)).forward(x[part], training=True), whole[part])


# In a model


def network(**first):
    return minicnn.Sequential(
        [
            minicnn.Input((8, 8, 3), **first),
            RandomFlip("horizontal"),
            RandomTranslation(0.25, 0.25),
            RandomCutout(0.25, 0.25),
            RandomCrop(6, 6),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(3, "softmax"),
        ]
    )


def examples(N=30):
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8), rng.integers(0, 3, N)


@pytest.mark.parametrize("first", [{}, {"dtype": "uint8"}, {"dtype": "float32"}], ids=str)
def test_bytes_reach_rescaling_as_bytes(first, monkeypatch):
    seen, rescale = [], layers.Rescaling.forward
    monkeypatch.setattr(layers.Rescaling, "forward", lambda self, x, t=False: seen.append(x.dtype) or rescale(self, x))
    model = network(**first)
    model.compile("sgd")
    model.train_on_batch(*examples())
    model.predict(examples()[0])
    assert seen == [np.float32 if first.get("dtype") == "float32" else np.uint8] * 2


def test_a_network_passes_the_gradient_check_with_inputs_as_rescaling_expects_them(monkeypatch):
    minicnn.utils.set_random_seed(0)
    largest, flip = [], RandomFlip.forward
    monkeypatch.setattr(RandomFlip, "forward", lambda self, x, t: largest.append(x.max()) or flip(self, x, t))
    report = check_model(network())
    assert report.ok, str(report)
    assert [row.tensor for row in report.rows][:2] == ["dx", "conv2d/dkernel"]
    assert 200 < largest[0] < 255
    assert check_model(network(), *examples(2)).ok  # of bytes it makes floats


def test_training_draws_and_evaluation_does_not():
    minicnn.utils.set_random_seed(0)
    model, (x, y) = network(), examples()
    model.compile(minicnn.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"])
    assert model.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    model.compile(minicnn.optimizers.SGD(0.0), metrics=["accuracy"])
    assert model.train_on_batch(x, y) != model.train_on_batch(x, y)
    plain = minicnn.Sequential([minicnn.Input((6, 6, 3)), *model.layers[5:]])
    same(plain.predict(x[:, 1:7, 1:7]), model.predict(x))


def test_a_saved_network_predicts_alike_and_keeps_its_seeds(tmp_path):
    model = minicnn.Sequential([minicnn.Input((8, 7, 2)), *(make(seed=4) for make in ALL[:2]), *(m() for m in ALL[2:])])
    model.save(tmp_path / "model.safetensors")
    loaded = minicnn.models.load_model(tmp_path / "model.safetensors")
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 7, 2), dtype=np.uint8)
    same(loaded.predict(x), model.predict(x))
    for a, b in zip(loaded.layers, model.layers, strict=True):
        assert (a.get_config(), repr(a)) == (b.get_config(), repr(b))
    assert [layer.seed for layer in loaded.layers[1:]] == [4, 4, None, None]
    for a, b in zip(loaded.layers[1:3], model.layers[1:3], strict=True):
        same(a.forward(x, training=True), b.forward(x, training=True))


def test_the_names_are_kerass_and_a_pair_is_not_taken_for_a_number():
    assert [make().base_name for make in ALL] == ["random_flip", "random_translation", "random_crop", "random_cutout"]
    assert repr(RandomTranslation(0.1, (0.1, 0.1))) == "RandomTranslation(height_factor=0.1, width_factor=(0.1, 0.1))"
    assert repr(RandomFlip("vertical", seed=3)) == "RandomFlip(mode='vertical', seed=3)"


def test_the_profile_has_a_row_for_each():
    rows = {row.name: row for row in profiler.profile(network(), *examples(), steps=2).rows}
    assert rows["random_flip"].forward_bytes == 2 * examples()[0].nbytes
    assert rows["random_flip"].backward == 0  # below the first weights


def trained(path=None, *hooks, epochs=5):
    minicnn.utils.set_random_seed(3)
    model, (x, y) = network(), examples()
    model.compile(minicnn.optimizers.SGD(0.1, momentum=0.9))
    history = model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(hooks) or [Killer()], resume=path)
    states = [repr(layer.generator.bit_generator.state) for layer in model.layers if layer.generator]
    assert len(states) == 4
    return [w.tobytes() for w in model.get_weights()], history.history, states


@pytest.mark.parametrize("batch", [None, 1])
def test_a_training_that_was_killed_ends_where_the_unbroken_one_ends(batch, tmp_path):
    expected = trained()
    with pytest.raises(Killed):
        trained(tmp_path / "state", Killer(2, batch))
    assert trained(tmp_path / "state") == expected


def test_a_training_that_was_terminated_within_an_epoch_goes_on_from_that_step(tmp_path):
    class Killer(minicnn.callbacks.Callback):  # of the name of the other: the state tells callbacks by it
        def on_train_batch_end(self, batch, logs=None):
            if (self.model.optimizer.iterations, batch) == (6, 1):
                os.kill(os.getpid(), signal.SIGTERM)

    expected = trained()
    with pytest.raises(SystemExit):
        trained(tmp_path / "state", Killer())
    assert minicnn.saving.read_all(tmp_path / "state")[1]["training"]["step"] == 2
    assert trained(tmp_path / "state") == expected


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomFlip("sideways"), 'RandomFlip(mode) expects "horizontal", "vertical" or'),
        (lambda: RandomFlip(seed=-1), "seed expects an integer >= 0. Received: -1"),
        (lambda: RandomTranslation(1.5, 0), "RandomTranslation(height_factor) expects a finite number >= 0 and"),
        (lambda: RandomTranslation(0, -0.1), "RandomTranslation(width_factor) expects a finite number >= 0 and <= 1"),
        (lambda: RandomTranslation(0, (0, 1.1)), "RandomTranslation(width_factor) expects a finite number >= -1 and"),
        (lambda: RandomTranslation(0, (0.2, -0.2)), "expects a number or a pair (low, high) with low <= high"),
        (lambda: RandomTranslation(0, (0.2,)), "expects a number or a pair (low, high) with low <= high"),
        (lambda: RandomTranslation("far", 0), "Received: 'far'"),
        (
            lambda: RandomTranslation(0, 0, "mirror"),
            'expects one of "reflect", "constant", "nearest", "wrap". Received',
        ),
        (lambda: RandomCrop(0, 3), "RandomCrop(height) expects an integer >= 1. Received: 0"),
        (lambda: RandomCrop(3, 2.5), "RandomCrop(width) expects an integer >= 1. Received: 2.5"),
        (
            lambda: RandomCutout(0, 0.5),
            "RandomCutout(height_factor) expects a number above 0: nothing would",
        ),
        (lambda: RandomCutout(0.5, 2), "RandomCutout(width_factor) expects a finite number >= 0 and <= 1. Received: 2"),
        (lambda: RandomCutout(0.5, 0.5, np.nan), "RandomCutout(fill_value) expects a finite number. Received: nan"),
    ],
)
def test_a_bad_argument_is_one_clear_line(make, message):
    with pytest.raises(ArgumentError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            RandomCrop(9, 3),
            (8, 8, 3),
            "expects images of at least 9x3 pixels. Received: 8x8. Cut out a",
        ),
        (
            RandomCrop(3, 9),
            (8, 8, 3),
            "expects images of at least 3x9 pixels. Received: 8x8. Cut out a",
        ),
        (
            RandomTranslation(0, (0.01, 0.02)),
            (8, 8, 3),
            "a whole number of pixels within its width_factor. Received",
        ),
        (RandomFlip(), (8,), "expects inputs of shape (H, W, C) without the batch axis. Received: (8,)"),
        (RandomCutout(0.5, 0.5), (8, 8), "expects inputs of shape (H, W, C) without the batch axis. Received: (8, 8)"),
    ],
)
def test_an_image_that_does_not_fit_is_one_clear_line(layer, shape, message):
    with pytest.raises(ShapeError) as error:
        layer.build(shape)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [0.5, -1, 256])
def test_bytes_are_covered_with_bytes(value):
    layer = RandomCutout(0.5, 0.5, value).build((4, 4, 1))
    with pytest.raises(ArgumentError, match="expects a fill_value that is a byte") as error:
        layer.forward(numbered(4, 4), training=True)
    assert "\n" not in str(error.value)
    assert (layer.forward(numbered(4, 4, dtype=np.float32), training=True) == value).any()


@NAMED
def test_what_is_no_batch_is_refused(make):
    layer = make()
    with pytest.raises(StateError):
        layer.forward(np.zeros((1, 8, 7, 2)))
    layer.build((8, 7, 2))
    with pytest.raises(StateError):
        layer.backward(np.zeros((1, *layer.output_shape)))
    for wrong in (np.zeros((1, 7, 8, 2)), [[1]], "image"):
        with pytest.raises(MinicnnError):
            layer.forward(wrong, training=True)
    layer.forward(np.zeros((2, 8, 7, 2)), training=True)
    with pytest.raises(ShapeError):
        layer.backward(np.zeros((3, *layer.output_shape)))
