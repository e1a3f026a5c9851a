"""The gradient checker: correct layers pass at every seed, and planted bugs, each a plausible mistake, never do."""

import numpy as np
import pytest
from scipy import special

import minicnn
from minicnn import layers, losses
from minicnn.baseline import model_s
from minicnn.gradcheck import check_layer, check_model
from minicnn.kernels import cpu
from minicnn.layers import (
    GELU,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    LeakyReLU,
    MaxPooling2D,
    RandomCrop,
    RandomCutout,
    RandomFlip,
    RandomTranslation,
    ReLU,
    Rescaling,
    Softmax,
)

SOUND = [
    (lambda: Conv2D(3, 3, padding="same", activation="relu"), (5, 5, 2)),
    (lambda: Conv2D(2, (2, 3), strides=2, use_bias=False), (7, 6, 2)),
    (lambda: Conv2D(2, 4, strides=(2, 1), padding="same"), (6, 5, 2)),
    (lambda: Conv2D(3, 2, activation="softmax"), (3, 3, 2)),
    (lambda: MaxPooling2D(2), (5, 4, 2)),
    (lambda: MaxPooling2D(3, 2, "same"), (5, 4, 3)),
    (lambda: MaxPooling2D((1, 3), 1), (3, 5, 2)),
    (lambda: Dense(4, "relu"), (5,)),
    (lambda: Dense(4, "softmax", use_bias=False), (5,)),
    (lambda: ReLU(), (3, 4)),
    (lambda: Softmax(), (5,)),
    (lambda: layers.Activation(None), (5,)),
    (lambda: Flatten(), (2, 3, 4)),
    (lambda: Rescaling(1 / 255, 0.5), (4,)),
    (lambda: Add(), [(3, 2), (3, 2), (3, 2)]),
    (lambda: BatchNormalization(), (4, 3, 2)),
    (lambda: BatchNormalization(scale=False), (6,)),
    (lambda: Dropout(0.5), (4, 3, 2)),
    (lambda: RandomFlip(), (4, 3, 2)),
    (lambda: RandomTranslation(0.5, 1), (4, 3, 2)),
    (lambda: RandomTranslation(0.5, 1, fill_mode="constant"), (4, 3, 2)),
    (lambda: RandomCrop(2, 3), (4, 5, 2)),
    (lambda: RandomCutout(0.5, 0.5, fill_value=3), (4, 5, 2)),
    (lambda: AveragePooling2D(2), (5, 4, 2)),
    (lambda: AveragePooling2D(3, 2, "same"), (5, 4, 3)),
    (lambda: AveragePooling2D((1, 3), 1, "same"), (3, 5, 2)),
    (lambda: GlobalAveragePooling2D(), (3, 5, 2)),
    (lambda: GELU(), (3, 4)),
    (lambda: Dense(4, "gelu"), (5,)),
    (lambda: LeakyReLU(), (3, 4)),
    (lambda: LeakyReLU(0), (3, 4)),
    (lambda: Concatenate(), [(3, 2), (3, 1), (3, 4)]),
    (lambda: Concatenate(1), [(1, 2), (3, 2), (2, 2)]),
]


@pytest.mark.parametrize(("make", "input_shape"), SOUND)
def test_every_layer_passes_at_every_seed(make, input_shape):
    for seed in range(4):
        layer = make()
        report = check_layer(layer, input_shape, seed=seed)
        assert report.ok, str(report)
        assert report.worst <= report.tolerance == 1e-6
        checked = [f"dx{i + 1}" for i in range(3)] if layer.merges else ["dx"]
        if isinstance(layer, (Conv2D, Dense)):
            checked += ["dkernel", "dbias"] if layer.use_bias else ["dkernel"]
        if isinstance(layer, BatchNormalization):
            checked += ["dgamma", "dbeta"] if layer.scale else ["dbeta"]
        assert [row.tensor for row in report.rows] == checked


def test_model_s_passes_at_every_seed():
    for seed in range(3):
        minicnn.utils.set_random_seed(seed)
        report = check_model(model_s(), seed=seed, max_entries=24)
        assert report.ok, str(report)
        assert len(report.rows) == 11  # ten weights and the images
        assert "24 of 131,072" in str(report)


def residual():
    """A small network with everything that Model S has, and a branch."""
    inputs = minicnn.Input((6, 6, 2))
    x = Conv2D(2, 3, padding="same", activation="relu")(Rescaling(1 / 255)(inputs))
    x = Add()([x, Conv2D(2, 3, padding="same")(x), x])
    x = Flatten()(MaxPooling2D(2)(x))
    return minicnn.Model(inputs, Dense(3, "softmax")(x))


def test_a_graph_with_branches_passes_and_stays_as_it_was():
    model = residual()
    old = model.get_weights()
    assert check_model(model, max_entries=None).ok
    assert check_model(model, x=np.full((1, 6, 6, 2), 7.5) + np.arange(72).reshape(1, 6, 6, 2), labels=[2]).ok
    for w, before_it in zip(model.get_weights(), old, strict=True):
        np.testing.assert_array_equal(w, before_it, strict=True)  # float32 still


# Planted bugs. Each class is a layer whose backward makes one mistake.


def before(base, change):
    """A `base` whose backward gets a changed dy."""

    class Wrong(base):
        def backward(self, dy, **options):
            return super().backward(change(dy), **options)

    return Wrong


def after(base, change):
    """A `base` whose backward computes well and then changes dx or `grads`: change(layer, dy, dx) returns dx."""

    class Wrong(base):
        def backward(self, dy, **options):
            return change(self, dy, super().backward(dy, **options))

    return Wrong


def spoiled(name, change):
    def spoil(layer, dy, dx):
        layer.grads[name] = change(layer.grads[name], dy)
        return dx

    return spoil


def with_other(name, value):
    """Compute backward once more with another `pads`, `strides`, ... than forward had."""

    def spoil(layer, dy, dx):
        right = getattr(layer, name)
        setattr(layer, name, value)
        try:
            return type(layer).__mro__[1].backward(layer, dy)
        finally:
            setattr(layer, name, right)

    return spoil


def with_other_kernel(change):
    """Compute dx, and dx alone, with a kernel that is turned the wrong way."""

    def spoil(layer, dy, dx):
        return cpu.conv2d_backward(dy, layer.x, change(layer.params["kernel"]), layer.strides, layer.pads)[0]

    return spoil


def without_bias(layer, dy, dx):
    del layer.grads["bias"]
    return dx


def to_every_pixel(layer, dy, dx):
    return np.repeat(np.repeat(dy, 2, axis=1), 2, axis=2) / 4  # (N, OH, OW, C) -> (N, H, W, C)


def to_the_last_pixel(layer, dy, dx):
    return cpu.maxpool2d_backward(dy, np.full_like(layer.argmax, 3), dx.shape, (2, 2), (2, 2), layer.pads)


def counting_the_padding(layer, dy, dx):
    ((top, bottom), (left, right)), (N, H, W, C) = layer.pads, dx.shape
    padded, none = (N, top + H + bottom, left + W + right, C), ((0, 0), (0, 0))
    shares = cpu.averagepool2d_backward(dy, padded, layer.pool_size, layer.strides, none)
    return shares[:, top : top + H, left : left + W]


def cut_elsewhere(layer, dy, dx):
    return [dy[..., :2], dy[..., 1:3]]


def sigmoid_slope(layer, dy, dx):
    s = special.expit(1.702 * layer.x)
    return dy * (s + 1.702 * layer.x * s * (1 - s))


def shifted_relu(layer, dy, dx):
    return dy * (layer.y >= 1)  # the step of a clipped ReLU, at 1 instead of 0


def diagonal_softmax(layer, dy, dx):
    return dy * layer.p * (1 - layer.p)  # dp_k/dz_k alone, as if each were a sigmoid


def one_of_many(layer, dy, dx):
    layer.grads["kernel"][700, 100] *= 2
    return dx


def overwritten(layer, dy, dx):
    dx, (rows, cols) = np.zeros_like(dx), layer.moved
    for n, i, j in np.ndindex(dy.shape[:3]):
        dx[n, rows[n, i], cols[n, j]] = dy[n, i, j]  # without adding, where a pixel is seen twice
    return dx


conv = (lambda kind: kind(3, 3, padding="same"), (5, 5, 3))
strided = (lambda kind: kind(3, 3, strides=2), (7, 7, 3))
dense = (lambda kind: kind(4), (4,))
pool = (lambda kind: kind(2), (4, 4, 2))
plain = (lambda kind: kind(), (4, 5))
scaled = (lambda kind: kind(1 / 255), (4,))

padded_pool = (lambda kind: kind(3, 2, "same"), (5, 4, 2))
image = (lambda kind: kind(), (4, 3, 2))
joined = (lambda kind: kind(), [(3, 2), (3, 2)])
normalized = (lambda kind: kind(), (3, 4, 2))
dropped = (lambda kind: kind(0.5), (3, 4, 2))
flipped = (lambda kind: kind(seed=1), (3, 4, 2))  # with this seed one of the two images is
moved = (lambda kind: kind((0.5, 0.5), (-0.4, -0.4)), (4, 5, 2))
windowed = (lambda kind: kind(2, 3), (4, 5, 2))
covered = (lambda kind: kind(0.5, 0.5), (4, 5, 2))
BUGS = {
    "conv: kernel gradient flipped": (Conv2D, after, spoiled("kernel", lambda g, dy: g[::-1, ::-1]), conv),
    "conv: kernel gradient transposed": (
        Conv2D,
        after,
        spoiled("kernel", lambda g, dy: g.transpose(0, 1, 3, 2)),
        conv,
    ),
    "conv: dy flipped": (Conv2D, before, lambda dy: dy[:, ::-1, ::-1], conv),
    "conv: dy transposed": (Conv2D, before, lambda dy: dy.transpose(0, 2, 1, 3), conv),
    "conv: dy rolled": (Conv2D, before, lambda dy: np.roll(dy, 1, axis=1), conv),
    "conv: dy averaged": (Conv2D, before, lambda dy: 0 * dy + dy.mean(axis=(1, 2), keepdims=True), conv),
    "conv: no bias gradient": (Conv2D, after, without_bias, conv),
    "conv: bias gradient zero": (Conv2D, after, spoiled("bias", lambda g, dy: 0 * g), conv),
    "conv: bias gradient a mean": (
        Conv2D,
        after,
        spoiled("bias", lambda g, dy: dy.mean(axis=(0, 1, 2))),
        conv,
    ),
    "conv: padding off by one": (Conv2D, after, with_other("pads", ((0, 2), (1, 1))), conv),
    "conv: stride forgotten": (Conv2D, after, with_other("strides", (1, 1)), strided),
    "conv: dx with a flipped kernel": (Conv2D, after, with_other_kernel(lambda w: w[::-1, ::-1]), conv),
    "conv: dx with in and out swapped": (
        Conv2D,
        after,
        with_other_kernel(lambda w: w.transpose(0, 1, 3, 2)),
        conv,
    ),
    "conv: dx of the first image alone": (
        Conv2D,
        after,
        lambda layer, dy, dx: dx * (np.arange(len(dx)) == 0)[:, None, None, None],
        conv,
    ),
    "dense: kernel gradient transposed": (Dense, after, spoiled("kernel", lambda g, dy: g.T), dense),
    "dense: kernel gradient a mean": (Dense, after, spoiled("kernel", lambda g, dy: g / len(dy)), dense),
    "dense: bias gradient a mean": (
        Dense,
        after,
        spoiled("bias", lambda g, dy: dy.mean(axis=0)),
        dense,
    ),
    "dense: dx with the kernel as it is": (
        Dense,
        after,
        lambda layer, dy, dx: dy @ layer.params["kernel"],
        dense,
    ),
    "dense: dy rolled over the batch": (Dense, before, lambda dy: np.roll(dy, 1, axis=0), dense),
    "pool: to every pixel of the window": (MaxPooling2D, after, to_every_pixel, pool),
    "pool: to the last pixel": (MaxPooling2D, after, to_the_last_pixel, pool),
    "pool: dy transposed": (MaxPooling2D, before, lambda dy: dy.transpose(0, 2, 1, 3), pool),
    "relu: from 1 on": (ReLU, after, shifted_relu, plain),
    "relu: everywhere": (ReLU, after, lambda layer, dy, dx: dy, plain),
    "softmax: diagonal alone": (Softmax, after, diagonal_softmax, plain),
    "add: half to each": (Add, before, lambda dy: dy / 2, (lambda kind: kind(), [(3,), (3,)])),
    "add: nothing to the second": (
        Add,
        after,
        lambda layer, dy, dx: [dx[0], 0 * dx[1]],
        (lambda kind: kind(), [(3,), (3,)]),
    ),
    "rescaling: scale forgotten": (Rescaling, after, lambda layer, dy, dx: dy, scaled),
    "flatten: channels first": (
        Flatten,
        after,
        lambda layer, dy, dx: np.moveaxis(dy.reshape(len(dy), 4, 2, 3), 1, -1),
        (lambda kind: kind(), (2, 3, 4)),
    ),
    "batch normalization: mean and variance taken for constants": (
        BatchNormalization,
        after,
        lambda layer, dy, dx: dy * layer.params["gamma"] * layer.rstd,
        normalized,
    ),
    "batch normalization: the variance taken for a constant": (
        BatchNormalization,
        after,
        lambda layer, dy, dx: (dy - dy.mean(axis=(0, 1, 2))) * layer.params["gamma"] * layer.rstd,
        normalized,
    ),
    "batch normalization: gamma's gradient by the variance alone": (
        BatchNormalization,
        after,
        lambda layer, dy, dx: layer.grads.update(gamma=layer.grads["gamma"] * layer.rstd) or dx,
        normalized,
    ),
    "batch normalization: beta's gradient a mean": (
        BatchNormalization,
        after,
        spoiled("beta", lambda g, dy: dy.mean(axis=(0, 1, 2))),
        normalized,
    ),
    "dropout: not scaled": (Dropout, after, lambda layer, dy, dx: dy * layer.kept, dropped),
    "dropout: everything kept": (Dropout, after, lambda layer, dy, dx: dy / (1 - layer.rate), dropped),
    "flip: not flipped back": (RandomFlip, after, lambda layer, dy, dx: dy, flipped),
    "translation: a pixel that is seen twice counts once": (RandomTranslation, after, overwritten, moved),
    "translation: shifted further": (RandomTranslation, before, lambda dy: np.roll(dy, 1, axis=2), moved),
    "crop: another window": (RandomCrop, after, lambda layer, dy, dx: np.roll(dx, 1, axis=1), windowed),
    "cutout: what is covered gets a gradient": (RandomCutout, after, lambda layer, dy, dx: dy, covered),
    "average pool: padding counted": (AveragePooling2D, after, counting_the_padding, padded_pool),
    "average pool: to every pixel whole": (AveragePooling2D, after, lambda layer, dy, dx: 4 * dx, pool),
    "average pool: dy transposed": (AveragePooling2D, before, lambda dy: dy.transpose(0, 2, 1, 3), pool),
    "average pool: to the first pixel": (
        AveragePooling2D,
        after,
        lambda layer, dy, dx: cpu.maxpool2d_backward(
            dy, np.zeros(dy.shape, np.int32), dx.shape, (2, 2), (2, 2), layer.pads
        ),
        pool,
    ),
    "global average pool: not divided": (GlobalAveragePooling2D, after, lambda layer, dy, dx: dx * 12, image),
    "global average pool: channels rolled": (
        GlobalAveragePooling2D,
        before,
        lambda dy: np.roll(dy, 1, axis=1),
        image,
    ),
    "gelu: x taken for a constant factor": (GELU, after, lambda layer, dy, dx: dy * special.ndtr(layer.x), plain),
    "gelu: the slope at y": (GELU, after, lambda layer, dy, dx: cpu.gelu_backward(dy, cpu.gelu(layer.x)), plain),
    "gelu: the slope of its approximation by a sigmoid": (GELU, after, sigmoid_slope, plain),
    "leaky relu: the sides exchanged": (LeakyReLU, after, lambda layer, dy, dx: 1.3 * dy - dx, plain),
    "leaky relu: the negative side cut off": (LeakyReLU, after, lambda layer, dy, dx: dy * (layer.y > 0), plain),
    "concatenate: cut at another place": (Concatenate, after, cut_elsewhere, joined),
    "concatenate: parts exchanged": (Concatenate, after, lambda layer, dy, dx: dx[::-1], joined),
    "concatenate: along another axis": (
        Concatenate,
        after,
        lambda layer, dy, dx: np.split(dy.swapaxes(1, 2), 2, axis=2),
        (lambda kind: kind(), [(4, 2), (4, 2)]),
    ),
    "a NaN": (ReLU, after, lambda layer, dy, dx: dx * np.nan, plain),
}


@pytest.mark.parametrize(("base", "plant", "mistake", "use"), BUGS.values(), ids=BUGS)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_planted_bugs_are_caught_at_every_seed(base, plant, mistake, use):
    make, input_shape = use
    assert check_layer(make(base), input_shape).ok
    for seed in range(3):
        report = check_layer(make(plant(base, mistake)), input_shape, seed=seed)
        assert not report.ok
        assert report.worst > 1e-3  # not by a hair: a wrong gradient is wrong by much
        assert "WRONG" in str(report)


def test_one_wrong_element_of_131072_is_caught():
    kind = after(Dense, one_of_many)
    for seed in range(3):
        assert check_layer(Dense(128), (1024,), seed=seed, max_entries=8).ok
        report = check_layer(kind(128), (1024,), seed=seed, max_entries=8)
        assert [(row.tensor, row.index) for row in report.wrong] == [("dkernel", "a random direction")]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda losses, dz: (losses, dz * len(dz)),  # 1/N forgotten
        lambda losses, dz: (losses, -dz),
        lambda losses, dz: (losses, dz + 1 / dz.size),  # the label's 1 taken away nowhere
        lambda losses, dz: (losses, np.roll(dz, 1, axis=1)),
    ],
)
def test_a_wrong_gradient_of_the_loss_is_caught(spoil, monkeypatch):
    model = residual()
    assert check_model(model).ok
    right = losses.SparseCategoricalCrossentropy.value_and_gradient
    monkeypatch.setattr(
        losses.SparseCategoricalCrossentropy,
        "value_and_gradient",
        lambda self, logits, labels: spoil(*right(self, logits, labels)),
    )
    assert not check_model(model).ok


def test_a_wrong_layer_inside_a_model_is_caught_and_named():
    inputs = minicnn.Input((4, 4, 1))
    kind = before(MaxPooling2D, lambda dy: np.roll(dy, 1, axis=1))
    x = kind(2)(Conv2D(2, 3, padding="same")(inputs))
    report = check_model(minicnn.Model(inputs, Dense(3, "softmax")(Flatten()(x))))
    assert [row.tensor for row in report.wrong] == ["dx", "conv2d/dkernel"]  # a sum over all windows is not moved


class SplitsTies(MaxPooling2D):
    """Shares the gradient among all equal maxima, as a hand-written mask does."""

    def forward(self, x, training=False):
        self.x = x
        return super().forward(x, training)

    def backward(self, dy):
        up = [np.repeat(np.repeat(a, 2, axis=1), 2, axis=2) for a in (super().forward(self.x), dy)]  # (N, H, W, C)
        mask = (self.x == up[0]).astype(dy.dtype)
        N, H, W, C = mask.shape
        number = mask.reshape(N, H // 2, 2, W // 2, 2, C).sum(axis=(2, 4))  # (N, OH, OW, C)
        return mask * up[1] / np.repeat(np.repeat(number, 2, axis=1), 2, axis=2)  # (N, H, W, C)


def test_ties_are_beyond_finite_differences_and_decided_by_rule():
    found = {}
    for kind in (MaxPooling2D, SplitsTies):
        assert check_layer(kind(2), (4, 4, 2)).ok  # right wherever a derivative exists
        layer = kind(2).build((2, 2, 1))
        layer.forward(np.full((1, 2, 2, 1), 3, np.float32))
        found[kind] = layer.backward(np.full((1, 1, 1, 1), 8, np.float32)).ravel().tolist()
    assert found == {MaxPooling2D: [8, 0, 0, 0], SplitsTies: [2, 2, 2, 2]}


def test_why_dy_is_random(monkeypatch):
    """With dy = 1 the scalar is sum(y), and every bug that only rearranges dy passes: all its values are equal."""

    class Ones:
        """A random generator whose normal numbers, of which dy is made, are all 1."""

        def __init__(self, seed):
            self.generator = real(seed)

        def __getattr__(self, name):
            return getattr(self.generator, name)

        def standard_normal(self, shape):
            return np.ones(shape)

    real = np.random.default_rng
    names = ["conv: dy flipped", "conv: dy transposed", "conv: dy rolled", "conv: dy averaged", "pool: dy transposed"]
    for random, passes in [(True, False), (False, True)]:
        if not random:
            monkeypatch.setattr(np.random, "default_rng", Ones)
        for name in names:
            base, plant, mistake, (make, input_shape) = BUGS[name]
            assert check_layer(make(plant(base, mistake)), input_shape).ok is passes, name


def test_a_layer_is_copied_and_a_kink_is_stepped_around():
    layer = Dense(2, "relu").build((3,))
    layer.params["kernel"][:] = 7
    assert check_layer(layer, (3,)).ok
    assert (layer.params["kernel"] == 7).all()
    assert layer.params["kernel"].dtype == np.float32
    assert not layer.grads

    class Bent(layers.Layer):
        """Two kinks, 3e-5 and 3e-6 beside the tie-free values 0.1 and -0.3: one step or all of them reach over."""

        def forward(self, x, training=False):
            self.x = x
            return np.abs(x - 0.10003) + np.abs(x + 0.300003)

        def backward(self, dy):
            return dy * (np.sign(self.x - 0.10003) + np.sign(self.x + 0.300003))

    for seed in range(3):
        assert check_layer(Bent(), (2,), seed=seed).ok
        assert not check_layer(after(Bent, lambda layer, dy, dx: -dx)(), (2,), seed=seed).ok


def test_a_report_says_where_and_how_much():
    kind = after(Dense, spoiled("bias", lambda g, dy: 3 * g))
    report = check_layer(kind(2), (3,))
    (row,) = report.wrong
    assert row.tensor == "dbias"
    assert row.analytic == pytest.approx(3 * row.numeric)
    assert row.error == pytest.approx(2 / 3)
    assert f"WRONG at {row.index}" in str(report)
    assert not check_layer(after(Dense, lambda layer, dy, dx: dx[:, :1])(2), (3,)).ok  # a wrong shape
