"""What people do by mistake, and what once went wrong silently: each ends well or in one of our errors."""

import json
import sys
import threading

import numpy as np
import pytest
from safetensors.numpy import save

import minicnn
from minicnn import layers, models, optimizers
from minicnn.errors import MinicnnError
from minicnn.kernels import threads


def classifier(inputs=4, units=3):
    model = models.Sequential([minicnn.Input((inputs,)), layers.Dense(units, "softmax")])
    return model


def ready(layer, shape):
    layer.build(shape)
    layer.forward(np.zeros((1, *shape), np.float32))
    return layer


@pytest.mark.parametrize("dtype", [np.float64, int])
def test_dy_comes_in_the_layers_float_type(dtype):
    layer = ready(layers.Conv2D(2, 3, padding="same"), (4, 4, 2))
    assert layer.backward(np.ones((1, 4, 4, 2), dtype)).dtype == np.float32
    layer = ready(layers.Dense(2), (3,))
    assert layer.backward(np.ones((1, 2), dtype)).dtype == np.float32
    assert layer.grads["kernel"].dtype == np.float32


@pytest.mark.parametrize(
    ("layer", "shape", "dy"),
    [
        (layers.Conv2D(2, 3, padding="same"), (4, 4, 2), (1, 3, 4, 2)),
        (layers.Conv2D(2, 3, padding="same"), (4, 4, 2), (2, 4, 4, 2)),
        (layers.Conv2D(2, 3, padding="same"), (4, 4, 2), (1, 4, 4, 3)),
        (layers.MaxPooling2D(2), (4, 4, 2), (1, 1, 1, 2)),
        (layers.Dense(2), (3,), (1, 3)),
        (layers.ReLU(), (3,), (1, 2)),
        (layers.AveragePooling2D(2), (4, 4, 2), (1, 1, 1, 2)),
        (layers.GlobalAveragePooling2D(), (4, 4, 2), (1, 1, 1, 2)),
        (layers.GELU(), (3,), (1, 2)),
        (layers.LeakyReLU(), (3,), (1, 2)),
    ],
)
def test_dy_of_another_shape_is_refused(layer, shape, dy):
    ready(layer, shape)
    with pytest.raises(MinicnnError):
        layer.backward(np.ones(dy, np.float32))


@pytest.mark.parametrize("size", [(1, 2), (1, 4), (2, 3)])
def test_dy_of_another_shape_is_not_cut(size):
    layer = layers.Concatenate().build([(2,), (1,)])
    layer.forward([np.zeros((1, 2), np.float32), np.zeros((1, 1), np.float32)])
    with pytest.raises(MinicnnError):
        layer.backward(np.ones(size, np.float32))


@pytest.mark.parametrize(
    ("layer", "shape", "dy"),
    [
        (layers.Conv2D(2, 3, padding="same"), (4, 4, 2), (1, 4, 4, 2)),
        (layers.AveragePooling2D(), (4, 4, 2), (1, 2, 2, 2)),
        (layers.GlobalAveragePooling2D(), (4, 4, 2), (1, 2)),
        (layers.GELU(), (3,), (1, 3)),
        (layers.LeakyReLU(), (3,), (1, 3)),
        (layers.Add(), [(2,), (2,)], (1, 2)),
        (layers.Concatenate(), [(2,), (1,)], (1, 3)),
    ],
)
def test_backward_before_forward_is_refused(layer, shape, dy):
    with pytest.raises(MinicnnError):
        layer.build(shape).backward(np.ones(dy, np.float32))


def test_add_does_not_wrap_bytes_around():
    layer = layers.Add().build([(2,), (2,)])
    assert layer.forward([np.array([[200, 100]], np.uint8)] * 2).tolist() == [[400, 200]]


def test_bytes_beside_floats_become_floats():
    layer = layers.Concatenate().build([(1,), (1,)])
    y = layer.forward([np.array([[200]], np.uint8), np.array([[0.5]])])
    assert y.tolist() == [[200, 0.5]]
    assert y.dtype == np.float32


def test_an_empty_batch_passes_through_every_layer():
    for layer, shape in ((layers.AveragePooling2D(), (4, 4, 2)), (layers.GlobalAveragePooling2D(), (4, 4, 2)),
                         (layers.GELU(), (3,)), (layers.LeakyReLU(), (3,))):  # fmt: skip
        y = layer.build(shape).forward(np.zeros((0, *shape), np.float32))
        assert y.shape == (0, *layer.output_shape)
        assert layer.backward(y).shape == (0, *shape)
    layer = layers.Concatenate().build([(2,), (1,)])
    y = layer.forward([np.zeros((0, 2), np.float32), np.zeros((0, 1), np.float32)])
    assert [dx.shape for dx in layer.backward(y)] == [(0, 2), (0, 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: layers.Dense(2, activation=["relu"]),
        lambda: layers.Rescaling("a"),
        lambda: layers.Dense(2, activation=layers.GELU()),
        lambda: layers.LeakyReLU(float("nan")),
        lambda: layers.Concatenate(True),
        lambda: layers.Concatenate(1.0),
        lambda: layers.Concatenate().build([]),
        lambda: layers.Concatenate().build([(None,), (2,)]),
        lambda: layers.Flatten().build((None, 3)),
        lambda: optimizers.SGD("fast"),
        lambda: optimizers.SGD(0.1, momentum=None),
        lambda: classifier().compile(loss=["mse"]),
        lambda: models.load_model(None),
    ],
)
def test_a_mistake_is_one_of_our_errors(wrong):
    with pytest.raises(MinicnnError):
        wrong()


@pytest.mark.parametrize("inputs", [4, 5])
def test_an_optimizer_is_not_shared_between_models(inputs):
    """Velocities of another shape would be read outside of their arrays."""
    optimizer = optimizers.SGD(0.1, momentum=0.9)
    first, second = classifier(4), classifier(inputs)
    first.compile(optimizer)
    first.train_on_batch(np.ones((1, 4), np.float32), [0])
    with pytest.raises(MinicnnError):
        second.compile(optimizer)


def test_a_layer_that_cannot_be_added_is_not_added():
    model = models.Sequential([minicnn.Input((3,)), layers.Dense(3, name="a")])
    with pytest.raises(MinicnnError):
        model.add(layers.Dense(3, name="a"))
    assert len(model.layers) == 2


def test_a_build_that_fails_may_be_done_again():
    model = models.Sequential([layers.Conv2D(3, 3)])
    with pytest.raises(MinicnnError):
        model.build((4,))
    model.build((4, 4, 1))
    assert model.count_params() == 30


def test_weights_in_another_memory_order_learn_too():
    model = classifier(3, 3)
    model.layers[-1].params["kernel"] = np.ones((3, 3), np.float32, order="F")
    model.compile(optimizers.SGD(0.1))
    model.train_on_batch(np.eye(3, dtype=np.float32), np.arange(3))
    assert (model.get_weights()[0] != 1).any()


X, LABELS = np.zeros((6, 4), np.float32), np.zeros(6, int)


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.predict([(X, LABELS), (X[:3], LABELS[:3])]),
        lambda m: m.predict(iter([[X, LABELS]])),
        lambda m: m.fit([(X, LABELS)], validation_data=[(X, LABELS), (X[:3], LABELS[:3])], verbose=0),
    ],
)
def test_a_list_of_batches_is_a_data_set(use):
    model = classifier()
    model.compile()
    use(model)


def test_ragged_images_are_refused():
    model = classifier()
    model.compile()
    with pytest.raises(MinicnnError):
        model.fit([[1, 2], [3]], [0, 1], verbose=0)


def test_a_deferred_model_takes_a_list_of_batches():
    model = models.Sequential([layers.Dense(3, "softmax")])
    model.compile()
    model.fit([(X, LABELS)], verbose=0)


def test_a_float64_model_comes_back_in_float64(tmp_path):
    minicnn.set_floatx("float64")
    try:
        inputs = minicnn.Input((6, 6, 2))
        x = layers.Flatten()(layers.Conv2D(3, 3, activation="relu")(inputs))
        model = minicnn.Model(inputs, layers.Dense(3, activation="softmax")(x))
        model.compile(optimizers.SGD(0.01))
    finally:
        minicnn.set_floatx("float32")
    model.save(tmp_path / "model")
    again = models.load_model(tmp_path / "model")
    images = np.random.default_rng(0).standard_normal((2, 6, 6, 2))
    np.testing.assert_array_equal(again.predict(images), model.predict(images), strict=True)
    assert again.optimizer.learning_rate == 0.01


def test_a_layer_that_is_not_in_the_file_type_is_refused(tmp_path):
    model = classifier()
    description = model.get_config()
    description["layers"][1]["dtype"] = "int8"
    tensors = {"dense/kernel": np.ones((4, 3), np.float32), "dense/bias": np.zeros(3, np.float32)}
    (tmp_path / "model").write_bytes(save(tensors, {"minicnn": json.dumps({"format": "1", "model": description})}))
    with pytest.raises(MinicnnError):
        models.load_model(tmp_path / "model")


def test_numpy_booleans_are_saved(tmp_path):
    model = models.Sequential([minicnn.Input((4,)), layers.Dense(3, use_bias=np.bool_(False))])
    model.save(tmp_path / "model")


def test_while_one_thread_holds_blas_another_waits():
    with threads.single_threaded_blas():
        pass
    before = [library.num_threads for library in threads._blas]
    for library in threads._blas:
        library.set_num_threads(2)
    entered = threading.Event()

    def hold():
        with threads.single_threaded_blas():
            entered.set()

    try:
        other = threading.Thread(target=hold)
        with threads.single_threaded_blas():
            other.start()
            assert not entered.wait(0.2)
            assert {library.num_threads for library in threads._blas} == {1}
        other.join()
        assert entered.is_set()
        assert {library.num_threads for library in threads._blas} == {2}
    finally:
        for library, number in zip(threads._blas, before, strict=True):
            library.set_num_threads(number)


def test_two_threads_predict_with_one_model():
    """Layers keep their last batch for `backward`; what forward returns must not be read back from there."""
    model = models.Sequential([minicnn.Input((2,)), layers.ReLU(), layers.Dense(2, "softmax")])
    inputs = [np.array([[0, 9]], np.float32), np.array([[9, 0]], np.float32)]
    expected = [model.predict(x) for x in inputs]
    wrong = []

    def work(x, answer):
        wrong.extend(1 for _ in range(2000) if (model.predict(x) != answer).any())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_a_refused_compile_changes_nothing():
    model, optimizer = minicnn.Sequential([minicnn.Input((4,)), layers.Dense(3)]), optimizers.SGD(0.1)
    with pytest.raises(MinicnnError):
        model.compile(optimizer)  # no softmax
    with pytest.raises(MinicnnError, match="compile"):
        model.train_on_batch(np.zeros((1, 4), np.float32), [0])
    classifier().compile(optimizer)


class Own(layers.ReLU):
    """A layer of the user's own."""


@pytest.mark.parametrize(
    "model", [models.Sequential([layers.Dense(3)]), models.Sequential([minicnn.Input((4,)), Own()])]
)
def test_what_could_not_be_loaded_is_not_saved(model, tmp_path):
    with pytest.raises(MinicnnError):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_best_weights_come_back_after_an_error():
    class Break(minicnn.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    model = classifier()
    model.compile(optimizers.SGD(0.5))
    stopping = minicnn.callbacks.EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)  # the first
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABELS, epochs=5, verbose=0, callbacks=[stopping, Break()])
    assert stopping.best_epoch == 0
    for w, best in zip(model.get_weights(), stopping.best_weights, strict=True):
        np.testing.assert_array_equal(w, best)
