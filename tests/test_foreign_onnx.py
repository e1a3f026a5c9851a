"""Exported models: ONNX Runtime computes from the file what minicnn does."""

import sys

import numpy as np
import onnx
import pytest

import minicnn
from minicnn import layers
from minicnn.baseline import model_s
from minicnn.errors import ArgumentError, OutputError, StateError
from minicnn.foreign import export_onnx

runtime = pytest.importorskip("onnxruntime")


def residual(conv, x, F):
    return layers.Add()([conv(F)(x), x, layers.ReLU()(conv(F)(x))])


def network(shape=(9, 8, 2), strides=1, padding="same", pool=2, pool_strides=None, use_bias=True, dtype=None):
    """A network with every kind of layer."""

    def conv(F, kernel=3, strides=1, padding="same"):
        return layers.Conv2D(F, kernel, strides, padding, activation="relu", use_bias=use_bias)

    inputs = minicnn.Input(shape, dtype)
    x = conv(3, (3, 2), strides, padding)(layers.Rescaling(1 / 255, offset=-0.5)(inputs))
    x = layers.MaxPooling2D(pool, pool_strides, padding)(residual(conv, x, 3))
    x = layers.Linear()(layers.Dense(5, use_bias=use_bias)(layers.Flatten()(x)))
    return minicnn.Model(inputs, layers.Dense(4, activation="softmax", use_bias=use_bias)(x))


def mixed(shape=(9, 8, 2), strides=1, padding="same", pool=2, pool_strides=None, axis=-1):
    """A network with the other kinds of layer, before and behind the images' transposition."""
    inputs = minicnn.Input(shape)
    x = layers.GELU()(layers.BatchNormalization()(layers.Rescaling(1 / 64, offset=-2)(inputs)))
    x = layers.LeakyReLU()(layers.Conv2D(3, (3, 2), strides, padding, activation="gelu")(x))
    x = layers.BatchNormalization(scale=False)(layers.AveragePooling2D(pool, pool_strides, padding)(x))
    x = layers.Dropout(0.5)(layers.Concatenate(axis)([x, layers.Softmax()(x), x]))
    rows = [layers.Flatten()(x), layers.GlobalAveragePooling2D()(x)]
    x = layers.BatchNormalization(center=False, epsilon=0.1)(layers.Concatenate(axis=1)(rows))
    model = minicnn.Model(inputs, layers.Dense(4, activation="softmax")(layers.LeakyReLU(0)(x)))
    rng = np.random.default_rng(1)
    positive = ("gamma", "variance")
    draw = {name: rng.uniform(0.5, 2, w.shape) if name.endswith(positive) else rng.normal(0, 0.3, w.shape)
            for name, w in model.named_weights().items()}  # fmt: skip
    model.set_weights(list(draw.values()))
    return model


def difference(model, path, N=3):
    """Return the largest difference between what ONNX Runtime computes and what minicnn predicts."""
    export_onnx(model, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (N, *model.layers[0].output_shape), dtype=np.uint8)
    (given,) = session.get_inputs()
    x = images.astype({"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[given.type])
    (result,) = session.run(["output"], {"input": x})
    expected = model.predict(images)
    assert result.shape == expected.shape
    return np.abs(result - expected).max()


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2, (1, 3)])
@pytest.mark.parametrize("shape", [(9, 8, 2), (10, 7, 1)])
@pytest.mark.parametrize(("pool", "pool_strides"), [(2, None), ((3, 2), 2), (2, 1)])
def test_the_probabilities_are_the_same(shape, strides, padding, pool, pool_strides, tmp_path):
    model = network(shape, strides, padding, pool, pool_strides)
    assert difference(model, tmp_path / "x.onnx") < 1e-5


@pytest.mark.parametrize("axis", [-1, 1, -2])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [(9, 8, 2), (10, 7, 1)])
@pytest.mark.parametrize(("strides", "pool", "pool_strides"), [(1, 2, None), (2, (3, 2), 2), (1, (1, 3), (2, 1))])
def test_the_probabilities_of_the_other_layers_are_the_same(
    shape, strides, padding, pool, pool_strides, axis, tmp_path
):
    model = mixed(shape, strides, padding, pool, pool_strides, axis)
    assert difference(model, tmp_path / "x.onnx") < 1e-5


@pytest.mark.parametrize("options", [{"use_bias": False}, {"dtype": "uint8"}, {"dtype": "float32"}], ids=str)
def test_the_other_options(options, tmp_path):
    assert difference(network(**options), tmp_path / "x.onnx") < 1e-5


def test_a_model_in_float64_is_exported_in_float32(tmp_path):
    with minicnn.using_floatx("float64"):
        model = network()
    assert difference(model, tmp_path / "x.onnx") < 1e-5


@pytest.mark.parametrize("size", [(6, 5), (7, 7), (8, 8)])
def test_augmentation_is_what_it_is_outside_training(size, tmp_path):
    ahead = [layers.RandomFlip(), layers.RandomTranslation(0.2, 0.2), layers.RandomCutout(0.5, 0.5)]
    stack = [*ahead, layers.Conv2D(3, 2), layers.RandomCrop(*size), layers.RandomFlip(), layers.MaxPooling2D(2)]
    model = minicnn.Sequential([minicnn.Input((10, 9, 2), "uint8"), *stack, layers.RandomCutout(0.5, 0.5)])
    assert difference(model, tmp_path / "x.onnx") < 1e-3  # of values up to 255


def test_model_s_for_batches_of_any_size(tmp_path):
    model = model_s()
    assert max(difference(model, tmp_path / "x.onnx", N) for N in (1, 5)) < 1e-5
    graph = onnx.load(tmp_path / "x.onnx").graph
    assert [axis.dim_param or axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim] == ["N", 32, 32, 3]
    assert [node.op_type for node in graph.node].count("Transpose") == 2  # in, and out again for Flatten


@pytest.mark.parametrize(
    "stack",
    [
        [
            layers.Conv2D(3, 2, activation="softmax")
        ],  # the channels are the second axis while it runs, the last at the end
        [layers.Conv2D(3, 2), layers.Softmax()],
        [layers.MaxPooling2D(2), layers.Rescaling(2.0)],
        [layers.AveragePooling2D(3, 2, "same")],
        [layers.Conv2D(3, 2), layers.GELU(), layers.LeakyReLU(), layers.Dropout(0.5)],
        [layers.BatchNormalization()],
        [layers.GlobalAveragePooling2D()],
        [layers.GlobalAveragePooling2D(), layers.Softmax()],
        [layers.Flatten(), layers.BatchNormalization(), layers.Softmax()],
        [layers.Softmax()],
        [layers.Flatten()],
        [],
    ],
    ids=lambda stack: "-".join(type(layer).__name__ for layer in stack),
)
def test_a_model_may_end_anywhere(stack, tmp_path):
    model = minicnn.Sequential([minicnn.Input((4, 5, 2)), layers.Rescaling(1 / 255), *stack], name="")
    assert difference(model, tmp_path / "x.onnx") < 1e-5


def test_of_images_that_are_joined_none_is_transposed_back(tmp_path):
    inputs = minicnn.Input((4, 5, 2))
    x = [
        layers.Conv2D(3, 2)(inputs),
        layers.AveragePooling2D(2, 1)(inputs),
        layers.LeakyReLU()(layers.MaxPooling2D(2, 1)(inputs)),
    ]
    model = minicnn.Model(inputs, layers.GlobalAveragePooling2D()(layers.GELU()(layers.Concatenate()(x))))
    assert difference(model, tmp_path / "x.onnx") < 1e-4  # of values up to 700
    assert [node.op_type for node in onnx.load(tmp_path / "x.onnx").graph.node].count("Transpose") == 1


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 3)])
def test_images_of_other_ranks_are_normalized_over_their_last_axis(shape, tmp_path):
    model = minicnn.Sequential([minicnn.Input(shape), layers.Rescaling(1 / 255), layers.BatchNormalization()])
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 2, 3) for _ in range(4)])
    assert difference(model, tmp_path / "x.onnx") < 1e-5


def test_what_cannot_be_exported(monkeypatch, tmp_path):
    class Mine(layers.ReLU):
        pass

    path = tmp_path / "x.onnx"
    with pytest.raises(ArgumentError, match="'odd'"):
        export_onnx(minicnn.Sequential([minicnn.Input((4,)), Mine(name="odd")]), path)
    with pytest.raises(StateError, match="build"):
        export_onnx(minicnn.Sequential([layers.Dense(2)]), path)
    with pytest.raises(OutputError):
        export_onnx(network(), tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(StateError, match=r"pip install 'minicnn\[onnx\]'"):
        export_onnx(network(), path)
    assert list(tmp_path.iterdir()) == []
