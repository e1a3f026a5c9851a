"""PyTorch's weights against a network on (N, C, H, W) in plain loops, which says what PyTorch computes with them."""

import itertools
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import special

import minicnn
from minicnn import layers
from minicnn.errors import ArgumentError, DataError, DataNotFoundError, DtypeError, ShapeError, StateError
from minicnn.foreign import load_torch_weights, save_torch_weights


def network(stride=2):
    return minicnn.Sequential(
        [
            minicnn.Input((11, 11, 3)),
            layers.Conv2D(4, (3, 2), activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(5, (2, 1), strides=stride, use_bias=False),
            layers.Flatten(),
            layers.ReLU(),
            layers.Dense(6, activation="relu"),
            layers.Dense(6),
            layers.Dense(6),
        ]
    )


NAMES = ["conv1", "conv2", "fc1", "fc2", "fc10"]


def state_dict(seed=0, names=NAMES):
    """Draw weights as PyTorch keeps them; 5 * 2 * 3 pixels reach the first dense layer."""
    rng, shapes = np.random.default_rng(seed), [(4, 3, 3, 2), (5, 4, 2, 1), (6, 30), (6, 6), (6, 6)]
    biases = [4, None, 6, 6, 6]
    found = {f"{name}.weight": rng.normal(size=shape) for name, shape in zip(names, shapes, strict=True)}
    return found | {f"{name}.bias": rng.normal(size=n) for name, n in zip(names, biases, strict=True) if n}


def conv(x, w, b=None, stride=1):
    (N, _, H, W), (F, _, KH, KW) = x.shape, w.shape
    y = np.zeros((N, F, (H - KH) // stride + 1, (W - KW) // stride + 1))
    for n, f, i, j in itertools.product(*map(range, y.shape)):
        window = x[n, :, i * stride : i * stride + KH, j * stride : j * stride + KW]
        y[n, f, i, j] = (window * w[f]).sum() + (0 if b is None else b[f])
    return y


def pool(x):
    return np.array([[[[c[i : i + 2, j : j + 2].max() for j in range(0, c.shape[1] - 1, 2)]
                       for i in range(0, c.shape[0] - 1, 2)] for c in image] for image in x])  # fmt: skip


def torchs(w, x):
    """Compute what PyTorch does with a state dict."""
    x = pool(np.maximum(conv(x, w["conv1.weight"], w["conv1.bias"]), 0))
    x = np.maximum(conv(x, w["conv2.weight"], stride=2), 0)
    x = np.array([image.ravel() for image in x])  # C, H, W
    x = np.maximum(x @ w["fc1.weight"].T + w["fc1.bias"], 0)
    x = x @ w["fc2.weight"].T + w["fc2.bias"]
    return x @ w["fc10.weight"].T + w["fc10.bias"]


IMAGES = np.random.default_rng(1).normal(size=(3, 11, 11, 3))


def renamed(weights, names):
    table = dict(zip(NAMES, names, strict=True))
    return {f"{table[name.split('.')[0]]}.{name.split('.')[1]}": w for name, w in weights.items()}


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (NAMES, None),
        (NAMES, NAMES),
        (["0", "3", "7", "9", "11"], None),  # 11 comes before 3 in the file
        (["features.0", "features.3", "classifier.1", "classifier.3", "classifier.5"], None),
        (["zebra", "ape", "bee", "cow", "ant"], ["zebra", "ape", "bee", "cow", "ant"]),
        (["conv2d", "conv2d_1", "dense", "dense_1", "dense_2"], None),
    ],
)
def test_the_network_predicts_what_pytorch_does(names, given, tmp_path):
    path, weights = tmp_path / "torch.safetensors", state_dict()
    save_file(renamed(weights, names), path)
    model = network()
    load_torch_weights(model, path, given)
    expected = torchs(weights, IMAGES.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(model.predict(IMAGES), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_what_is_written_makes_pytorch_predict_the_same(tmp_path):
    model, path = network(), tmp_path / "torch.safetensors"
    save_torch_weights(model, path, NAMES)
    expected = torchs(load_file(path), IMAGES.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(model.predict(IMAGES), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_augmentation_has_no_weights_and_changes_no_order(tmp_path):
    model, again = network(), network()
    ahead = [layers.RandomFlip(), layers.RandomTranslation(0.2, 0.2), layers.RandomCutout(0.5, 0.5)]
    augmented = minicnn.Sequential([minicnn.Input((13, 12, 3)), *ahead, layers.RandomCrop(11, 11), *model.layers[1:]])
    save_torch_weights(augmented, tmp_path / "torch.safetensors")
    load_torch_weights(again, tmp_path / "torch.safetensors")
    assert all(map(np.array_equal, again.get_weights(), model.get_weights()))


@pytest.mark.parametrize("names", [None, NAMES])
def test_weights_come_back_to_the_bit(names, tmp_path):
    model, again = network(), network()
    save_torch_weights(model, tmp_path / "torch.safetensors", names)
    load_torch_weights(again, tmp_path / "torch.safetensors")
    assert all(map(np.array_equal, again.get_weights(), model.get_weights()))


def test_flatten_is_found_behind_a_sum_and_an_image_is_flattened_at_once(tmp_path):
    inputs = minicnn.Input((3, 2, 2))
    x = layers.Flatten()(inputs)
    x = layers.Flatten()(layers.Add()([layers.ReLU()(x), x]))
    model = minicnn.Model(inputs, layers.Dense(1, use_bias=False)(x))
    save_torch_weights(model, tmp_path / "torch.safetensors", ["0"])
    w = load_file(tmp_path / "torch.safetensors")["0.weight"]
    image = np.random.default_rng(0).normal(size=(3, 2, 2)).astype(np.float32)
    expected = w @ (np.maximum(image, 0) + image).transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(model.predict(image[None])[0], expected, rtol=1e-5)


def test_rows_that_are_normalized_and_joined_keep_pytorchs_order(tmp_path):
    """Worked on (N, C, H, W): flatten, BatchNorm1d, cat with the means of the channels, GELU, Linear, BatchNorm1d."""
    rng, (H, W, C), eps = np.random.default_rng(0), (3, 2, 4), 0.125
    inputs = minicnn.Input((H, W, C))
    x = layers.BatchNormalization(epsilon=eps, center=False, scale=False)(inputs)
    y = layers.Dropout(0.5)(layers.BatchNormalization(epsilon=eps)(layers.Flatten()(x)))
    x = layers.GELU()(layers.Concatenate()([layers.GlobalAveragePooling2D()(x), y]))
    x = layers.BatchNormalization(epsilon=eps)(layers.LeakyReLU()(layers.Dense(28)(x)))  # as many as come in
    model = minicnn.Model(inputs, x)
    w = {}
    for name, size in (("a", C), ("b", H * W * C), ("d", 28)):
        w |= {f"{name}.{part}": rng.normal(size=size) for part in ("weight", "bias", "running_mean")}
        w |= {f"{name}.running_var": rng.uniform(0.5, 2, size), f"{name}.num_batches_tracked": np.int64(3)}
    w |= {"c.weight": rng.normal(size=(28, 28)), "c.bias": rng.normal(size=28)}
    del w["a.weight"], w["a.bias"]  # affine=False

    def norm(name, x):
        shape = (1, -1, *[1] * (x.ndim - 2))  # over the second axis
        mean, var = (w[f"{name}.running_{part}"].reshape(shape) for part in ("mean", "var"))
        scale, shift = (
            w.get(f"{name}.{part}", default) for part, default in (("weight", np.ones(1)), ("bias", np.zeros(1)))
        )
        return (x - mean) / np.sqrt(var + eps) * scale.reshape(shape) + shift.reshape(shape)

    images = rng.normal(size=(5, H, W, C)).astype(np.float32)
    x = norm("a", images.transpose(0, 3, 1, 2))  # (N, C, H, W)
    x = np.concatenate([x.mean(axis=(2, 3)), norm("b", x.reshape(5, -1))], axis=1)  # (N, C + C*H*W)
    x = x * special.ndtr(x) @ w["c.weight"].T + w["c.bias"]
    expected = norm("d", np.where(x > 0, x, 0.3 * x))

    path = tmp_path / "torch.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in w.items()}, path)
    load_torch_weights(model, path)
    np.testing.assert_allclose(model.predict(images), expected, rtol=1e-4, atol=1e-4)
    save_torch_weights(model, path, ["a", "b", "c", "d"])
    written = load_file(path)
    assert written.keys() == {name for name in w if "num_batches" not in name}
    for name, array in written.items():
        np.testing.assert_array_equal(array, w[name].astype(np.float32))


def test_normalization_with_half_of_its_weights_cannot_be_told(tmp_path):
    model = minicnn.Sequential([minicnn.Input((3,)), layers.BatchNormalization(scale=False)])
    with pytest.raises(ArgumentError, match="'batch_normalization' has a gamma or a beta"):
        save_torch_weights(model, tmp_path / "x")


def test_rows_in_two_orders_cannot_be_told(tmp_path):
    inputs = minicnn.Input((2, 2, 2))
    x = layers.Flatten()(inputs)
    x = layers.Add()([x, layers.Dense(8)(x)])
    with pytest.raises(ArgumentError, match="different orders"):
        save_torch_weights(minicnn.Model(inputs, layers.Dense(1)(x)), tmp_path / "x")


def test_all_differences_are_listed_and_nothing_is_changed(tmp_path):
    path, weights, model = tmp_path / "torch.safetensors", state_dict(), network()
    before = model.get_weights()
    weights["conv2.weight"] = weights["conv2.weight"][:, :3].copy()
    del weights["fc10.bias"]
    weights["bn.running_mean"] = np.zeros(4)
    save_file(weights, path)
    for names in (None, NAMES):
        with pytest.raises(ShapeError) as caught:
            load_torch_weights(model, path, names)
        message = str(caught.value)
        assert "\n" not in message
        for part in ("conv2d_1/kernel", "(5, 4, 2, 1)", "fc10.bias", "bn.running_mean (4,): not in the model"):
            assert part in message or names is None
        assert "conv1.weight" not in message
    assert "conv2.weight for conv2d_1/kernel: (5, 4, 2, 1) expected, received (5, 3, 2, 1)" in message
    assert "fc10.bias for dense_2/bias: (6,) expected, missing" in message
    assert all(map(np.array_equal, model.get_weights(), before))


def test_layers_of_one_shape_are_not_guessed_apart(tmp_path):
    model = minicnn.Sequential([minicnn.Input((3,)), layers.Dense(3), layers.Dense(3)])
    path, w = tmp_path / "torch.safetensors", {"weight": np.eye(3), "bias": np.zeros(3)}
    save_file({f"{name}.{part}": array for name in ("key", "query") for part, array in w.items()}, path)
    before = model.get_weights()
    with pytest.raises(ArgumentError, match=r"key, query .*names="):
        load_torch_weights(model, path)
    assert all(map(np.array_equal, model.get_weights(), before))
    load_torch_weights(model, path, ["query", "key"])


def test_names_that_do_not_fit(tmp_path):
    for names in ("conv1", ["a"], ["a", "a", "b", "c", "d"]):
        with pytest.raises(ArgumentError, match="names expects"):
            save_torch_weights(network(), tmp_path / "x", names)


class Scale(layers.Layer):
    def build(self, input_shape):
        super().build(input_shape)
        self.params["scale"] = np.ones(1)
        return self


def test_what_is_no_file_no_model_or_no_layer_of_pytorchs(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(ArgumentError, match="Scale"):
        save_torch_weights(minicnn.Sequential([minicnn.Input((3,)), Scale()]), path)
    with pytest.raises(StateError, match="build"):
        save_torch_weights(minicnn.Sequential([layers.Dense(2)]), path)
    with pytest.raises(DtypeError, match="model"):
        load_torch_weights(None, path)
    with pytest.raises(DataNotFoundError, match=str(path)):
        load_torch_weights(network(), path)
    header = b'{"a":{"dtype":"F32","shape":[100000000000],"data_offsets":[0,4]}}'
    for content in (b"", b"text" * 99, struct.pack("<Q", 2**63), struct.pack("<Q", len(header)) + header + bytes(4)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="safetensors"):
            load_torch_weights(network(), path)
    save_file({"0.weight": np.ones((2, 2), np.int64)}, path)
    with pytest.raises(DataError, match="int64"):
        load_torch_weights(network(), path)
    save_file({f"{'9' * 5000}.weight": np.ones((2, 2)), "1.weight": np.ones((2, 2))}, path)
    with pytest.raises(ShapeError):
        load_torch_weights(network(), path)
