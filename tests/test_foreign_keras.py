"""Keras's files: models that Keras 2.15 and 3 saved come here with their predictions, and ours say what Keras's say.

golden/model_s.keras is of Keras 2.15.0. golden/residual_keras3.keras is `residual` below, built and saved by Keras
3.15.1 after its weights were drawn from default_rng(3).normal(0, 0.5); the .npz has six images and its probabilities.
golden/augmented_keras3.keras is a small network behind RandomFlip and RandomTranslation, made in the same way.
golden/mixed_keras215.keras and mixed_keras3.keras are `mixed`, drawn alike from default_rng(4), variances as |v| + 0.5.
"""

import io
import json
import struct
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import minicnn
from minicnn import layers
from minicnn.baseline import model_s
from minicnn.errors import ArgumentError, DataError, DataNotFoundError, DtypeError, OutputError, ShapeError, StateError
from minicnn.foreign import load_keras_model, load_keras_weights, save_keras_model, save_keras_weights

GOLDEN = Path(__file__).parent / "golden"
MODEL_S, RESIDUAL = GOLDEN / "model_s.keras", GOLDEN / "residual_keras3.keras"
AUGMENTED = GOLDEN / "augmented_keras3.keras"
KNOWN = np.load(GOLDEN / "residual_keras3.npz")
MIXED_2, MIXED = GOLDEN / "mixed_keras215.keras", GOLDEN / "mixed_keras3.keras"
KNOWN_MIXED = np.load(GOLDEN / "mixed_keras3.npz")
ALL = [MODEL_S, RESIDUAL, AUGMENTED, MIXED_2, MIXED]


def residual():
    """Two branches, of which Keras lists the longer one first, and all three of their kernels could be exchanged."""
    inputs = minicnn.Input((9, 8, 2), dtype="uint8")
    x = layers.Rescaling(1 / 255, offset=-0.5)(inputs)
    x = layers.Conv2D(4, (3, 2), strides=(1, 2), padding="same", activation="relu")(x)
    short = layers.Conv2D(4, 1, use_bias=False)(x)
    long = layers.Conv2D(4, 1, use_bias=False)(layers.ReLU()(layers.Conv2D(4, 1, use_bias=False)(x)))
    x = layers.Add()([short, long, x])
    x = layers.Activation("relu")(layers.MaxPooling2D((3, 2), strides=2, padding="same")(x))
    x = layers.Dense(5, activation="relu")(layers.Flatten()(x))
    return minicnn.Model(inputs, layers.Softmax()(layers.Dense(3)(x)), name="residual")


def mixed():
    """Every kind of layer that `residual` has not."""
    inputs = minicnn.Input((7, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", activation="gelu")(inputs)
    x = layers.BatchNormalization(name="first")(x)
    y = layers.MaxPooling2D(2, padding="same")(layers.LeakyReLU(0.25)(x))
    x = layers.Concatenate()([layers.AveragePooling2D(2, padding="same")(x), y])
    x = layers.Dropout(0.25)(layers.Activation("gelu")(x))
    y = layers.BatchNormalization(epsilon=0.125, scale=False)(layers.Flatten()(x))
    x = layers.Concatenate(axis=1)([y, layers.GlobalAveragePooling2D()(x)])
    return minicnn.Model(inputs, layers.Dense(3, activation="softmax")(x), name="mixed")


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def config(path):
    return json.loads(members(path)["config.json"])


def arrays(content):
    """Return all that an HDF5 file holds below layers/: arrays by name, and None for a group."""
    found = {}
    with h5py.File(io.BytesIO(content)) as file:
        file["layers"].visititems(lambda name, item: found.update({name: getattr(item, "shape", None) and item[()]}))
    return found


def test_the_model_of_keras_2_predicts_here_what_it_predicted_there():
    images = np.random.default_rng(2024).integers(0, 256, (208, 32, 32, 3), dtype=np.uint8)
    model = load_keras_model(MODEL_S)
    expected = np.load(GOLDEN / "model_s_keras215.npz")["float32/probabilities_last16"]
    np.testing.assert_allclose(model.predict(images[192:]), expected, atol=1e-6)
    other = model_s()
    load_keras_weights(other, MODEL_S)
    np.testing.assert_allclose(other.predict(images[192:]), expected, atol=1e-6)


def test_the_model_of_keras_3_predicts_here_what_it_predicted_there(tmp_path):
    model = load_keras_model(RESIDUAL)
    assert model.name == "residual"
    assert [layer.name for layer in model.layers if layer.params] == [
        "first", "conv2d", "conv2d_2", "conv2d_1", "dense", "dense_1"
    ]  # fmt: skip
    np.testing.assert_allclose(model.predict(KNOWN["images"]), KNOWN["probabilities"], atol=1e-6)
    (tmp_path / "x.weights.h5").write_bytes(members(RESIDUAL)["model.weights.h5"])
    for path in (RESIDUAL, tmp_path / "x.weights.h5"):
        model = residual()
        load_keras_weights(model, path)
        np.testing.assert_allclose(model.predict(KNOWN["images"]), KNOWN["probabilities"], atol=1e-6)


def test_the_augmented_model_of_keras_3_predicts_here_what_it_predicted_there():
    model, known = load_keras_model(AUGMENTED), np.load(AUGMENTED.with_suffix(".npz"))
    np.testing.assert_allclose(model.predict(known["images"]), known["probabilities"], atol=1e-6)
    assert list(map(repr, model.layers[1:3])) == [
        "RandomFlip(mode='horizontal')",
        "RandomTranslation(height_factor=0.25, width_factor=(-0.5, 0.0), fill_mode='nearest', seed=3)",
    ]


def test_what_keras_has_not_is_written_as_what_it_does_outside_training(tmp_path):
    model = minicnn.Sequential([minicnn.Input((9, 8, 2)), layers.RandomCutout(0.5, 0.5), layers.RandomCrop(6, 5)])
    save_keras_model(model, tmp_path / "x.keras")
    cutout, crop = config(tmp_path / "x.keras")["config"]["layers"][1:]
    assert (cutout["class_name"], cutout["config"]["activation"]) == ("Activation", "linear")
    options = {name: crop["config"][name] for name in crop["config"] if name not in ("name", "trainable", "dtype")}
    assert (crop["class_name"], options) == ("CenterCrop", {"height": 6, "width": 5, "data_format": "channels_last"})


@pytest.mark.parametrize("path", [MIXED_2, MIXED], ids=["2.15", "3"])
def test_the_other_layers_predict_here_what_they_predicted_there(path):
    model, other = load_keras_model(path), mixed()
    assert {repr(layer) for layer in model.layers} == {repr(layer) for layer in other.layers}
    load_keras_weights(other, path)
    for each in (model, other):
        np.testing.assert_allclose(each.predict(KNOWN_MIXED["images"]), KNOWN_MIXED["probabilities"], atol=1e-6)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_the_weights_are_written_where_keras_writes_them(path, tmp_path):
    model = load_keras_model(path)
    save_keras_weights(model, tmp_path / "x.weights.h5")
    save_keras_model(model, tmp_path / "x.keras")
    expected = arrays(members(path)["model.weights.h5"])
    for content in (members(tmp_path / "x.keras")["model.weights.h5"], (tmp_path / "x.weights.h5").read_bytes()):
        found = arrays(content)
        assert found.keys() >= expected.keys()
        assert all(expected[name] is None for name in expected if found[name] is None)
        for name in [name for name in found if found[name] is not None]:
            np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("path", [RESIDUAL, AUGMENTED, MIXED], ids=lambda path: path.stem)
def test_what_the_config_says_keras_says_too(path, tmp_path):
    save_keras_model(load_keras_model(path), tmp_path / "x.keras")
    found, expected = config(tmp_path / "x.keras"), config(path)
    theirs = {entry["name"]: entry for entry in expected["config"]["layers"]}
    assert [entry["name"] for entry in found["config"]["layers"]] == list(theirs)
    for entry in found["config"]["layers"]:
        entry["config"] = {key: value for key, value in entry["config"].items() if value is not None}  # defaults
        if (entry["name"], path) != ("activation", RESIDUAL):  # a ReLU here
            assert contained(entry, theirs[entry["name"]]), entry
    assert found["config"].pop("layers")
    assert contained(found, expected)


def contained(part, whole):
    """Tell whether what a JSON value says is in another one too; Keras's objects have more keys."""
    if isinstance(part, dict):
        return all(key in whole and contained(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(contained, part, whole))
    return part == whole


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("make", "known"), [(residual, KNOWN), (mixed, KNOWN_MIXED)], ids=["residual", "mixed"])
def test_a_model_comes_back_to_the_bit(make, known, dtype, tmp_path):
    with minicnn.using_floatx(dtype):
        model = make()
    model.layers[-1].name = "écureuil"
    save_keras_model(model, tmp_path / "x.keras")
    again = load_keras_model(tmp_path / "x.keras")
    assert {layer.name: repr(layer) for layer in again.layers} == {layer.name: repr(layer) for layer in model.layers}
    np.testing.assert_array_equal(again.predict(known["images"]), model.predict(known["images"]))
    assert again.get_weights()[0].dtype == dtype
    save_keras_model(again, tmp_path / "y.keras")
    with zipfile.ZipFile(tmp_path / "y.keras") as archive:
        assert {member.date_time[0] for member in archive.infolist()} == {
            1980
        }  # no time, so equal models are equal files
    assert (tmp_path / "y.keras").read_bytes() == (tmp_path / "x.keras").read_bytes()


def test_all_differences_are_listed_and_nothing_is_changed(tmp_path):
    def dense(*units):
        return minicnn.Sequential([minicnn.Input((4,)), *(layers.Dense(n, name=f"my_{n}") for n in units)])

    save_keras_weights(dense(3, 2), tmp_path / "x.weights.h5")
    model = dense(3, 5, 2)
    before = model.get_weights()
    with pytest.raises(ShapeError) as caught:
        load_keras_weights(model, tmp_path / "x.weights.h5")
    for part in ("my_5/kernel", "(3, 5)", "(3, 2)", "my_5/bias", "dense_2/vars/0", "dense_2/vars/1", "missing"):
        assert part in str(caught.value)
    assert "my_3" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ShapeError, match=r"dense_1/vars/0 .* not in the model"):
        load_keras_weights(dense(3), tmp_path / "x.weights.h5")
    assert all(map(np.array_equal, model.get_weights(), before))


# What minicnn has not is named


def changed(path, change, source=RESIDUAL):
    """Write a `.keras` file whose description was changed."""
    description = config(source)
    rows = {entry["name"]: entry for entry in description["config"]["layers"]}
    text = change(description, rows)
    write(path, {**members(source), "config.json": (text or json.dumps(description)).encode()})


def write(path, files, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def option(layer, **options):
    return lambda description, rows: rows[layer]["config"].update(options)


def entry(layer, **values):
    return lambda description, rows: rows[layer].update(values)


def whole(**values):
    return lambda description, rows: description.update(values)


CHANGES = {
    "nothing": (option("first"), None),
    "an option that is off": (option("first", news=None, more=False), None),
    "what concerns training": (option("first", trainable=False, kernel_regularizer={"class_name": "L2"}), None),
    "another layer": (entry("re_lu", class_name="Lambda"), "'re_lu' of class 'Lambda' is not known"),
    "somebody's layer": (entry("dense", module="mylayers"), "'dense' of class 'Dense' is not known"),
    "a nested model": (entry("dense", class_name="Functional"), "'Functional' is not known"),
    "dilation": (option("first", dilation_rate=[2, 2]), "'first' .*dilation_rate=.2, 2."),
    "groups": (option("first", groups=2), "'first' .*groups=2"),
    "channels first": (option("flatten", data_format="channels_first"), "'flatten' .*data_format"),
    "a leaky ReLU": (option("re_lu", negative_slope=0.5), "'re_lu' .*negative_slope=0.5"),
    "a capped ReLU": (option("re_lu", max_value=6.0), "'re_lu' .*max_value=6.0"),
    "another axis": (option("softmax", axis=1), "'softmax' .*axis=1"),
    "a new option": (option("dense", quantization_config={"bits": 8}), "'dense' .*quantization_config"),
    "an activation": (option("dense", activation="swish"), "swish"),
    "an activation object": (option("dense", activation={"class_name": "Lambda"}), "Lambda"),
    "padding": (option("first", padding="causal"), "causal"),
    "half precision": (option("dense", dtype="mixed_float16"), "mixed_float16"),
    "a sparse input": (option("input_layer", sparse=True), "sparse=True"),
    "open sizes": (option("input_layer", batch_shape=[None, None, None, 3]), "Input"),
    "applied twice": (lambda d, rows: rows["re_lu"]["inbound_nodes"].append({}), "'re_lu' is applied 2 times"),
    "called with": (lambda d, rows: rows["softmax"]["inbound_nodes"][0]["kwargs"].update(mask=1), "called with mask"),
    "two outputs": (lambda d, rows: d["config"].update(output_layers=[["add", 0, 0], ["dense", 0, 0]]), "one output"),
    "another kind of model": (whole(class_name="Subclassed"), "kind of model 'Subclassed'"),
    "somebody's model": (whole(module="mymodels"), "kind of model"),
    "no name": (lambda d, rows: rows["dense"]["config"].pop("name"), "damaged"),
    "a name twice": (option("conv2d", name="conv2d_1"), "two layers"),
    "an input from nowhere": (entry("re_lu", inbound_nodes=[[["nothing", 0, 0]]]), "damaged"),
    "two inputs": (entry("re_lu", inbound_nodes=[[["first", 0, 0], ["first", 0, 0]]]), "takes one input"),
    "a layer of terabytes": (option("dense", units=10**13), "kernel"),
    "no bias": (option("dense", use_bias=False), "'dense' has the weights"),
    "a bias": (option("conv2d", use_bias=True), "'bias' of the layer 'conv2d'"),
    "no JSON": (lambda d, rows: "{", "damaged"),
    "another JSON": (lambda d, rows: "[1]", "damaged"),
    "a huge number": (lambda d, rows: '{"config": ' + "9" * 5000 + "}", "damaged"),
    "JSON that nests 100,000 deep": (lambda d, rows: "[" * 100_000, "damaged"),
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (option("random_translation", interpolation="bilinear", seed=None), None),
        (option("random_translation", fill_value=0.5), "'random_translation' .*fill_value=0.5"),
        (option("random_translation", fill_mode="mirror"), "fill_mode.*'mirror'"),
        (option("random_flip", data_format="channels_first"), "'random_flip' .*data_format"),
        (entry("random_flip", class_name="RandomCrop"), "'random_flip' of class 'RandomCrop' is not known"),
    ],
)
def test_what_an_augmentation_may_say(change, problem, tmp_path):
    changed(tmp_path / "x.keras", change, AUGMENTED)
    if problem is None:
        assert load_keras_model(tmp_path / "x.keras").layers[2].seed is None
        return
    with pytest.raises(DataError, match=problem):
        load_keras_model(tmp_path / "x.keras")


def call(layer, **options):
    return lambda description, rows: rows[layer]["inbound_nodes"][0]["kwargs"].update(options)


MIXED_CHANGES = {
    "the last axis by its number": (option("first", axis=3), None),
    "the last axis in a list": (option("first", axis=[3]), None),
    "a slope as Keras 2 says it": (
        lambda d, rows: rows["leaky_re_lu"]["config"].update(alpha=rows["leaky_re_lu"]["config"].pop("negative_slope")),
        None,
    ),
    "a call that trains as fit says": (call("first", training=False), None),
    "another axis normalized": (option("first", axis=1), "'first' normalizes the axis 1. Expected the last one"),
    "two axes normalized": (option("first", axis=[1, 3]), r"'first' normalizes the axis \[1, 3\]"),
    "renormalization": (option("first", renorm=True), "'first' .*renorm=True"),
    "no beta": (option("first", center=False), "'first' has the weights|no layer: batch_normalization/vars/3"),
    "a gamma": (option("batch_normalization", scale=True), "'batch_normalization'"),
    "an epsilon of 0": (option("first", epsilon=0), "epsilon"),
    "always in training": (call("dropout", training=True), "'dropout' is called with training"),
    "noise of a shape": (option("dropout", noise_shape=[None, 1]), "'dropout' .*noise_shape"),
    "a rate of 2": (option("dropout", rate=2), "Dropout.rate."),
    "kept axes": (option("global_average_pooling2d", keepdims=True), "keepdims=True"),
    "means with the channels first": (option("average_pooling2d", data_format="channels_first"), "data_format"),
    "strides of 0": (option("average_pooling2d", strides=[0, 1]), "AveragePooling2D.strides."),
    "the batches joined": (option("concatenate", axis=0), "Concatenate.axis."),
    "shapes that do not join": (option("concatenate", axis="last"), "Concatenate.axis."),
    "the other GELU": (option("activation", activation="gelu_tanh"), "gelu_tanh"),
}
ALL_CHANGES = {name: (RESIDUAL, *change) for name, change in CHANGES.items()}
ALL_CHANGES |= {name: (MIXED, *change) for name, change in MIXED_CHANGES.items()}


@pytest.mark.parametrize(("source", "change", "problem"), ALL_CHANGES.values(), ids=ALL_CHANGES)
def test_what_cannot_be_built_is_named(source, change, problem, tmp_path):
    path = tmp_path / "x.keras"
    changed(path, change, source)
    if problem is None:
        make = {RESIDUAL: residual, MIXED: mixed}[source]
        assert load_keras_model(path).count_params() == make().count_params()
        return
    with pytest.raises(DataError, match=problem) as caught:
        load_keras_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_belong_to_no_layer_are_named(tmp_path):
    content = io.BytesIO(members(RESIDUAL)["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        file["layers/dense/vars/2"] = file["layers/odd/vars/0"] = np.zeros(3)
    write(tmp_path / "x.keras", {**members(RESIDUAL), "model.weights.h5": content.getvalue()})
    with pytest.raises(DataError, match="no layer: dense/vars/2, odd/vars/0"):
        load_keras_model(tmp_path / "x.keras")


# Damaged and hostile files


def h5(fill):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        fill(file)
    return content.getvalue()


def claims(file, **options):
    file.create_dataset("layers/dense/vars/0", (10**6, 10**7), "f4", **options)  # 40 TB, none of it stored


def leads_out(file):
    file.create_group("layers/dense/vars")
    file["layers/dense/vars/0"] = h5py.ExternalLink(str(MODEL_S), "layers/dense/vars/0")
    file["layers/dense/vars/1"] = h5py.SoftLink("/layers")


def in_a_circle(file):
    file.create_group("layers/dense/vars")
    file["layers/dense/vars/again"] = file["layers"]


def stored_elsewhere(file):
    file.create_dataset("layers/dense/vars/0", (4, 2), "f4", external=[(str(MODEL_S), 0, 32)])


def words(file):
    file["layers/dense/vars/0"] = [[b"word"] * 2] * 4


WEIGHTS = {
    "empty": b"",
    "text": b"these are no weights\n" * 100,
    "terabytes": h5(claims),
    "terabytes in pieces": h5(lambda file: claims(file, chunks=(1000, 1000), compression="gzip")),
    "zeros that were compressed": h5(
        lambda file: file.create_dataset("layers/dense/vars/0", data=np.zeros((9999, 99)), compression="gzip")
    ),
    "a file elsewhere": h5(stored_elsewhere),
    "words": h5(words),
    "a header only": b"\x89HDF\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("content", WEIGHTS.values(), ids=WEIGHTS)
def test_what_are_no_weights_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "x.weights.h5").write_bytes(content)
    write(tmp_path / "x.keras", {**members(RESIDUAL), "model.weights.h5": content})
    model = minicnn.Sequential([minicnn.Input((4,)), layers.Dense(2)])
    for path, read in (("x.weights.h5", lambda path: load_keras_weights(model, path)), ("x.keras", load_keras_model)):
        with pytest.raises(DataError) as caught:
            read(tmp_path / path)
        assert str(tmp_path / path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fill", [leads_out, in_a_circle])
def test_links_are_not_followed(fill, tmp_path):
    (tmp_path / "x.weights.h5").write_bytes(h5(fill))
    model = minicnn.Sequential([minicnn.Input((4,)), layers.Dense(2)])
    with pytest.raises(ShapeError, match=r"dense/vars/0 for dense/kernel: .* missing; dense/vars/1 .* missing"):
        load_keras_weights(model, tmp_path / "x.weights.h5")


def lying(content):
    """Let the directory of a zip claim 4 GB for its last member."""
    at = content.rindex(b"PK\x01\x02")
    return content[: at + 20] + struct.pack("<II", 2**32 - 2, 2**32 - 2) + content[at + 28 :]


def bomb(tmp_path):
    write(tmp_path / "bomb", {**members(RESIDUAL), "model.weights.h5": bytes(2**26)}, zipfile.ZIP_DEFLATED)
    return (tmp_path / "bomb").read_bytes()


def zipped(tmp_path, method=zipfile.ZIP_STORED, without=None, **more):
    files = {name: content for name, content in members(RESIDUAL).items() if name != without}
    write(tmp_path / "other", {**files, **more}, method)
    return (tmp_path / "other").read_bytes()


ARCHIVES = {
    "a bomb": (bomb, "claims 67,108,864 bytes"),
    "a long description": (
        lambda tmp_path: zipped(tmp_path, zipfile.ZIP_DEFLATED, **{"config.json": b" " * 2**25}),
        "config.json claims",
    ),
    "a lie about a size": (lambda tmp_path: lying(RESIDUAL.read_bytes()), "claims 4,294,967,294 bytes"),
    "a way out": (lambda tmp_path: zipped(tmp_path, **{"../../evil": b""}), "'../../evil' leads out"),
    "a way to the root": (lambda tmp_path: zipped(tmp_path, **{"/etc/evil": b""}), "'/etc/evil' leads out"),
    "a way out of Windows": (lambda tmp_path: zipped(tmp_path, **{"a\\..\\..\\evil": b""}), "leads out"),
    "unusual compression": (lambda tmp_path: zipped(tmp_path, zipfile.ZIP_LZMA), "unusual"),
    "no weights": (lambda tmp_path: zipped(tmp_path, without="model.weights.h5"), "model.weights.h5"),
    "no description": (lambda tmp_path: zipped(tmp_path, without="config.json"), "config.json"),
    "no zip": (lambda tmp_path: b"PK\x03\x04" + bytes(100), "not a .keras file"),
    "a changed byte": (lambda tmp_path: RESIDUAL.read_bytes().replace(b"softmax", b"softmix", 1), "CRC"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("make", "problem"), ARCHIVES.values(), ids=ARCHIVES)
def test_a_damaged_or_hostile_archive_is_refused_in_one_line(make, problem, tmp_path):
    path = tmp_path / "x.keras"
    path.write_bytes(make(tmp_path))
    with pytest.raises(DataError, match=problem) as caught:
        load_keras_model(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_archive_that_somebody_compressed_is_read(tmp_path):
    path = tmp_path / "x.keras"
    path.write_bytes(zipped(tmp_path, zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < RESIDUAL.stat().st_size
    np.testing.assert_allclose(load_keras_model(path).predict(KNOWN["images"]), KNOWN["probabilities"], atol=1e-6)


@pytest.mark.parametrize("name", ["x.keras", "x.weights.h5"])
def test_a_file_that_was_cut_off_is_refused_wherever_it_ends(name, tmp_path):
    content = RESIDUAL.read_bytes() if name == "x.keras" else members(RESIDUAL)["model.weights.h5"]
    path, model = tmp_path / name, residual()
    for size in {0, 1, 7, 8, 100, 2000, len(content) // 2, len(content) - 1}:
        path.write_bytes(content[:size])
        with pytest.raises(DataError):
            load_keras_weights(model, path)
        with pytest.raises(DataError):
            load_keras_model(path)


# The doors


def test_what_is_no_file_or_no_model(tmp_path):
    for read in (load_keras_model, lambda path: load_keras_weights(residual(), path)):
        for path in (tmp_path / "nothing", tmp_path):
            with pytest.raises(DataNotFoundError, match=str(path)):
                read(path)
        with pytest.raises(DtypeError, match="path"):
            read(7)
    with pytest.raises(DtypeError, match="model"):
        save_keras_model("model", tmp_path / "x.keras")
    with pytest.raises(StateError, match="build"):
        save_keras_weights(minicnn.Sequential([layers.Dense(2)]), tmp_path / "x.weights.h5")


def test_what_keras_would_not_read_is_not_written(tmp_path):
    class Mine(layers.ReLU):
        pass

    for layer, problem in ((Mine(name="odd"), "'odd'"), (layers.ReLU(name="a/b"), "'a/b'")):
        with pytest.raises(ArgumentError, match=problem):
            save_keras_model(minicnn.Sequential([minicnn.Input((4,)), layer]), tmp_path / "x.keras")
    assert list(tmp_path.iterdir()) == []


def test_without_h5py_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    model = residual()
    monkeypatch.setitem(sys.modules, "h5py", None)
    for door in (
        lambda: load_keras_model(RESIDUAL),
        lambda: load_keras_weights(model, RESIDUAL),
        lambda: save_keras_model(model, tmp_path / "x.keras"),
        lambda: save_keras_weights(model, tmp_path / "x.weights.h5"),
    ):
        with pytest.raises(StateError, match=r"pip install 'minicnn\[keras\]'"):
            door()


def test_a_failure_while_writing_leaves_the_old_file(monkeypatch, tmp_path):
    def to_a_full_disk(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    model, path = residual(), tmp_path / "x"
    for save in (save_keras_model, save_keras_weights):
        save(model, path)
        content = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", to_a_full_disk)
            with pytest.raises(OutputError, match="No space left"):
                save(model, path)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]
