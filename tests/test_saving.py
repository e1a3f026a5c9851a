"""Models on disk: what comes back is what was saved, and a file that is not whole or not ours says so."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

import minicnn
from minicnn import layers, losses, models, optimizers
from minicnn.errors import DataError, DataNotFoundError, MinicnnError, OutputError, ShapeError
from minicnn.models import load_model


def network():
    """A graph with a branch, every kind of layer, and no argument at its default."""
    inputs = minicnn.Input((8, 8, 2), dtype="uint8")
    x = layers.Rescaling(1 / 255, offset=-0.5)(inputs)
    x = layers.Conv2D(4, (3, 2), strides=(1, 2), padding="same", activation="relu", name="first")(x)
    x = layers.Add()([layers.Conv2D(4, 1, use_bias=False)(x), x])
    x = layers.MaxPooling2D((3, 2), strides=1, padding="same")(layers.ReLU()(x))
    y = layers.AveragePooling2D((1, 2), strides=1, padding="same")(layers.LeakyReLU(0.1)(x))
    x = layers.Concatenate(axis=-2)([layers.GELU()(x), y])
    x = layers.Concatenate()([layers.Flatten()(x), layers.GlobalAveragePooling2D()(y)])
    outputs = layers.Dense(3, activation="softmax")(layers.Dense(5, activation="gelu")(x))
    return minicnn.Model(inputs, outputs, name="a model")


def data(N=6):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 8, 8, 2), dtype=np.uint8), rng.integers(0, 3, N)


@pytest.fixture
def saved(tmp_path):
    """A trained model and the file that holds it."""
    model = network()
    model.compile(optimizers.SGD(0.05, momentum=0.9, nesterov=True), metrics=["accuracy"])
    model.train_on_batch(*data())
    model.class_names = ["cat", "dog", "écureuil"]
    path = tmp_path / "model.safetensors"
    model.save(path)
    return model, path


def same(a, b):
    return len(a) == len(b) > 0 and all(v.dtype == w.dtype and np.array_equal(v, w) for v, w in zip(a, b, strict=True))


def test_a_model_comes_back_to_the_bit(saved):
    model, path = saved
    again = load_model(path)
    assert same(again.get_weights(), model.get_weights())
    assert again.get_config() == model.get_config()
    assert again.name == "a model"
    assert again.class_names == ["cat", "dog", "écureuil"]
    assert [repr(layer) for layer in again.layers] == [repr(layer) for layer in model.layers]
    assert repr(again.optimizer) == repr(model.optimizer)
    assert again.optimizer.nesterov
    images, labels = data()
    np.testing.assert_array_equal(again.predict(images), model.predict(images))
    model.compile(optimizers.SGD(0.05, momentum=0.9, nesterov=True), metrics=["accuracy"])
    for _ in range(3):  # both begin with no velocity
        assert again.train_on_batch(images, labels) == model.train_on_batch(images, labels)
    assert same(again.get_weights(), model.get_weights())


def test_a_model_that_was_not_compiled_and_one_for_logits(tmp_path):
    path = tmp_path / "model"  # any name will do
    model = models.Sequential([minicnn.Input((4,)), layers.Dense(2)])
    model.save(path)
    with pytest.raises(MinicnnError, match="compile"):
        load_model(path).evaluate(np.zeros((1, 4)), [0])
    model.compile(optimizers.SGD(0.5), losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(path)
    assert load_model(path).loss.from_logits
    assert load_model(path).metrics == ["loss"]


def test_a_loaded_model_may_be_saved_over_its_own_file(saved):
    model, path = saved
    again = load_model(path)
    again.save(path)
    assert same(load_model(path).get_weights(), model.get_weights())


def test_weights_alone(saved, tmp_path):
    model, path = saved
    model.save_weights(tmp_path / "weights")
    for source in (tmp_path / "weights", path):
        other = network()
        assert not same(other.get_weights(), model.get_weights())
        other.load_weights(source)
        assert same(other.get_weights(), model.get_weights())
    with pytest.raises(DataError):
        load_model(tmp_path / "weights")


def test_the_file_is_plain_safetensors(saved):
    model, path = saved
    tensors = load(path.read_bytes())
    names = ["first/kernel", "first/bias", "conv2d/kernel", "dense/kernel", "dense/bias"]
    names += ["dense_1/kernel", "dense_1/bias"]
    assert sorted(tensors) == sorted(names)
    assert same([tensors[name] for name in names], model.get_weights())
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_all_differences_are_listed_and_nothing_is_changed(tmp_path):
    def dense(*units, name="dense"):
        rows = [layers.Dense(n, name=f"{name}_{i}") for i, n in enumerate(units)]
        return models.Sequential([minicnn.Input((4,)), *rows])

    path = tmp_path / "weights"
    dense(3, 2).save_weights(path)
    model = dense(3, 5, 2)
    before = model.get_weights()
    with pytest.raises(ShapeError) as caught:
        model.load_weights(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("dense_1/kernel", "(3, 5)", "(3, 2)", "dense_1/bias", "(5,)", "dense_2/kernel", "dense_2/bias"):
        assert part in message
    assert "dense_0" not in message  # it fits
    with pytest.raises(ShapeError, match="dense_1/bias: not in the model"):
        dense(3).load_weights(path)
    assert same(model.get_weights(), before)


# Damaged and foreign files


def described(change, tensors=None):
    """The bytes of a saved model whose description was changed."""
    model = models.Sequential([minicnn.Input((4,)), layers.Dense(3, "softmax")])
    model.compile()
    description = model.get_config()
    description = change(description) or description
    weights = {"dense/kernel": np.zeros((4, 3), np.float32), "dense/bias": np.zeros(3, np.float32)}
    text = description if isinstance(description, str) else json.dumps(description)
    return save(weights if tensors is None else tensors, {"minicnn": f'{{"format": "1", "model": {text}}}'})


def raw(tensor, size):
    """The bytes of a safetensors file with one tensor, whose header says what it likes."""
    header = f'{{"__metadata__":{{"minicnn":"{{\\"format\\":\\"1\\",\\"model\\":{{}}}}"}},"a":{{{tensor}}}}}'.encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def entry(**changes):
    return lambda description: description["layers"][1].update(changes)


def option(**changes):
    return lambda description: description["compiled"]["optimizer"].update(changes)


FILES = {
    "empty": b"",
    "text": b"these are no weights\n" * 100,
    "png": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "a header that claims 8 exabytes": struct.pack("<Q", 2**63) + b"{}",
    "a tensor that claims 400 gigabytes": raw('"dtype":"F32","shape":[100000000000],"data_offsets":[0,4]', 4),
    "a type that NumPy lacks": raw('"dtype":"BF16","shape":[2],"data_offsets":[0,4]', 4),
    "another program's weights": save({"w": np.zeros(3)}, {"format": "pt"}),
    "no description": save({"w": np.zeros(3)}),
    "a later format": save({"w": np.zeros(3)}, {"minicnn": '{"format": "2", "model": {}}'}),
    "no JSON": described(lambda description: "{"),
    "JSON of another kind": described(lambda description: "[1, 2]"),
    "JSON with a huge number": described(lambda description: '{"layers": ' + "9" * 5000 + "}"),
    "JSON that nests 100,000 deep": described(lambda description: "[" * 100_000),
    "a layer of 400 terabytes": described(entry(config={"units": 10**13})),
    "no layers": described(lambda description: {"layers": [], "name": "a", "class_names": None, "compiled": None}),
    "an unknown layer": described(entry(**{"class": "Teleport"})),
    "something that is no layer": described(entry(**{"class": "__builtins__"})),
    "a function": described(entry(**{"class": "Input"})),
    "an unknown argument": described(entry(config={"units": 3, "command": "rm"})),
    "a wrong argument": described(entry(config={"units": -3})),
    "an input that comes later": described(entry(inputs=[1])),
    "no inputs": described(entry(inputs=[])),
    "a wrong rate": described(option(learning_rate="fast")),
    "an unknown optimizer": described(option(**{"class": "os.system"})),
    "a weight is missing": described(lambda description: None, {"dense/kernel": np.zeros((4, 3), np.float32)}),
    "a weight of another shape": described(
        lambda description: None, {"dense/kernel": np.zeros((3, 4), np.float32), "dense/bias": np.zeros(3)}
    ),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_what_is_no_model_is_refused_in_one_line(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert path.read_bytes() == content


def test_the_described_file_is_good_when_nothing_is_changed(tmp_path):
    """Else the test above could refuse every file for a reason of its own."""
    (tmp_path / "good").write_bytes(described(lambda description: None))
    assert load_model(tmp_path / "good").count_params() == 15


def test_a_file_that_was_cut_off_is_refused_wherever_it_ends(saved):
    model, path = saved
    content = path.read_bytes()
    sizes = {0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1}
    before = model.get_weights()
    for size in sizes:
        path.write_bytes(content[:size])
        for read in (load_model, model.load_weights):
            with pytest.raises(DataError, match="damaged"):
                read(path)
    assert same(model.get_weights(), before)


def test_a_file_that_is_not_there(tmp_path):
    for path, problem in ((tmp_path / "nothing", "no model file"), (tmp_path, "is a folder")):
        for read in (load_model, network().load_weights):
            with pytest.raises(DataNotFoundError, match=problem) as caught:
                read(path)
            assert str(path) in str(caught.value)


# A file is written whole or not at all


def to_a_full_disk(path, content):
    """Instead of Path.write_bytes: writes some of it, then fails as a disk without room does."""
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(28, "No space left on device")


def interrupted(*paths):
    raise KeyboardInterrupt


def test_a_failure_while_writing_leaves_the_old_file(saved, monkeypatch):
    model, path = saved
    content = path.read_bytes()
    model.set_weights([0 * w for w in model.get_weights()])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", to_a_full_disk)
        for write in (model.save, model.save_weights):
            with pytest.raises(OutputError, match="No space left on device"):
                write(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.save(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]  # nothing half-written is left
    model.save(path)
    assert path.read_bytes() != content


def test_a_place_that_cannot_be_written(saved):
    model, path = saved
    for place in (path / "below a file", path.parent):
        with pytest.raises(OutputError) as caught:
            model.save(place)
        assert str(place) in str(caught.value)
    assert list(path.parent.iterdir()) == [path]
    model.save(path.parent / "new" / "folder" / "model")
    assert load_model(path.parent / "new" / "folder" / "model").count_params() == model.count_params()


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"])
def test_a_file_of_keras_is_told_from_a_damaged_one(tmp_path, start):
    (tmp_path / "model.keras").write_bytes(start + bytes(100))
    with pytest.raises(DataError, match=r"it is one of Keras's, for minicnn\.foreign\.load_keras_model"):
        models.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("names", [[], {"a": 1}, "abc", ["a", 1], ["\x1b[31mred"]])
def test_class_names_that_are_no_names_are_refused(tmp_path, names):
    model = models.Sequential([minicnn.Input((4,)), layers.Dense(3)])
    model.class_names = names
    model.save(tmp_path / "model")
    with pytest.raises(DataError, match="does not describe a model"):
        models.load_model(tmp_path / "model")
