"""Training in the GPU room: Keras's numbers, gradients, recorded steps, and weights that move."""

import numpy as np
import pytest
import stand_in
import test_augmentation
import test_golden
import test_resume

import minicnn
from minicnn import kernels, layers
from minicnn.__main__ import _layers, _residual_network
from minicnn.errors import ArgumentError, DeviceError, DeviceMemoryError, MinicnnError, StateError
from minicnn.gradcheck import check_layer, check_model
from minicnn.kernels import devices

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_is_what_keras_computed(dtype, fuse, on_card):
    if not on_card and fuse != (dtype == "float64"):
        pytest.skip("on the processor each takes 20 seconds: two of the four have to do")
    seen = test_golden.run.__wrapped__(dtype, fuse)
    bounds = test_golden.FLOAT64 if dtype == "float64" else test_golden.FLOAT32
    for name in test_golden.GOLDEN.files:
        kind, key = name.split("/")[:2]
        if kind != dtype or key not in bounds:
            continue
        expected = test_golden.GOLDEN[name].astype(np.float64).ravel()
        mine = np.asarray(kernels.on_host(seen[name.removeprefix(f"{dtype}/")]), np.float64).ravel()
        mine = mine[:: mine.size // 512] if mine.size > 1023 else mine
        assert np.abs(mine - expected).max() / np.abs(expected).max() <= bounds[key], name


@pytest.mark.parametrize("number", range(len(_layers())))
def test_gradients_agree_with_finite_differences(number):
    layer, shape = _layers()[number]
    report = check_layer(layer, shape)
    assert report.ok, str(report)


def test_gradients_of_a_network_agree_with_finite_differences():
    report = check_model(_residual_network())
    assert report.ok, str(report)


def test_a_wrong_gradient_is_found():
    class Halved(layers.Dense):
        def backward(self, dy, **options):
            dx = super().backward(dy, **options)
            self.grads["kernel"] = self.grads["kernel"] / 2
            return dx

    report = check_layer(Halved(3), (4,))
    assert [row.tensor for row in report.wrong] == ["dkernel"]


def network(layer=layers.ReLU, optimizer=None):
    minicnn.utils.set_random_seed(5)
    inputs = minicnn.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.MaxPooling2D(2)(layers.Conv2D(5, 3, padding="same", activation="relu")(x))
    x = layer()(layers.Dense(7)(layers.Flatten()(x)))
    model = minicnn.Model(inputs, layers.Dense(4, activation="softmax")(x))
    model.compile(optimizer or minicnn.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"])
    return model


def examples(N=22):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8), rng.integers(0, 4, N)


def trained(model, epochs=4):
    (images, labels), rate = examples(), model.optimizer.learning_rate

    def cut(epoch, logs):
        model.optimizer.learning_rate = rate if epoch < 1 else rate / 2

    hook = minicnn.callbacks.Callback()
    hook.on_epoch_begin = cut
    history = model.fit(images, labels, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=[hook])
    return history.history, model.get_weights()


def test_a_recorded_step_computes_what_the_step_computes(on_card):
    class Own(layers.ReLU):
        """Not the package's, so that its steps are not recorded."""

    stand_in.recorded.clear()
    history, weights = trained(network())
    assert on_card or len(stand_in.recorded) == 2  # batches of 8 and of 6, at the rate that stays
    plain_history, plain_weights = trained(network(Own))
    assert on_card or len(stand_in.recorded) == 2
    assert history == plain_history
    for a, b in zip(weights, plain_weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_step_that_cannot_be_recorded_runs_kernel_by_kernel_and_says_so(monkeypatch, capsys):
    expected = trained(network())
    relu_forward = layers.ReLU.forward

    def looking(self, x, training=False):
        y = relu_forward(self, x, training)
        kernels.on_host(y)  # the host cannot look at what is only being recorded
        return y

    monkeypatch.setattr(layers.ReLU, "forward", looking)
    history, weights = trained(network())
    assert history == expected[0]
    for a, b in zip(weights, expected[1], strict=True):
        np.testing.assert_array_equal(a, b)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(
        line.startswith("a step is not recorded, but runs kernel by kernel") for line in lines
    )


OPTIMIZERS = {
    "sgd": lambda: minicnn.optimizers.SGD(0.1, momentum=0.9),
    "clipped": lambda: minicnn.optimizers.SGD(0.1, 0.9, nesterov=True, weight_decay=0.01, clipnorm=0.1),
    "rmsprop": lambda: minicnn.optimizers.RMSprop(0.001, global_clipnorm=0.5),
    "adamw": lambda: minicnn.optimizers.AdamW(0.001, weight_decay=0.1),
}


@pytest.mark.parametrize("name", ["clipped", "rmsprop"])
def test_a_recorded_step_clips_as_the_step_clips(name, on_card):
    class Own(layers.ReLU):
        """Not the package's, so that its steps are not recorded."""

    stand_in.recorded.clear()
    recorded, plain = (trained(network(kind, OPTIMIZERS[name]()))[1] for kind in (layers.ReLU, Own))
    assert on_card or len(stand_in.recorded) == 2
    for a, b in zip(recorded, plain, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_both_rooms_train_alike(name):
    history, weights = trained(network(optimizer=OPTIMIZERS[name]()))
    with minicnn.device("cpu"):
        expected_history, expected = trained(network(optimizer=OPTIMIZERS[name]()))
    for name, values in history.items():
        np.testing.assert_allclose(values, expected_history[name], rtol=1e-5)
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_normalization_dropout_and_rmsprop_train_alike_in_both_rooms():
    def train(device):
        minicnn.set_device(device)
        minicnn.utils.set_random_seed(5)
        stage = [layers.Conv2D(5, 3, activation="relu"), layers.BatchNormalization(), layers.GlobalAveragePooling2D()]
        head = [layers.Dropout(0.3), layers.Dense(4, activation="softmax")]
        model = minicnn.Sequential([minicnn.Input((8, 8, 3)), layers.Rescaling(1 / 255), *stage, *head])
        model.compile(minicnn.optimizers.RMSprop(0.01), metrics=["accuracy"])
        history = model.fit(*examples(), batch_size=8, epochs=3, verbose=0).history
        return [*model.get_weights(), np.array(history["loss"])]

    mine, theirs = train("gpu"), train("cpu")
    minicnn.set_device("gpu")
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_weights_and_velocities_move_both_ways(gpu, tmp_path):
    images, labels = examples()
    model = network()
    start = model.get_weights()
    with minicnn.device("cpu"):
        for own, there in zip(model.get_weights(), start, strict=True):
            np.testing.assert_array_equal(own, there)
        model.train_on_batch(images, labels)
        assert isinstance(model.layers[2].params["kernel"], np.ndarray)
        assert isinstance(model.optimizer.slots["velocity"][0], np.ndarray)
        on_cpu = model.predict(images)
        model.save(tmp_path / "from_cpu.safetensors")
    np.testing.assert_allclose(model.predict(images), on_cpu, rtol=1e-5, atol=1e-6)
    assert isinstance(model.layers[2].params["kernel"], gpu.cupy.ndarray)
    model.train_on_batch(images, labels)
    assert isinstance(model.optimizer.slots["velocity"][0], gpu.cupy.ndarray)
    loaded = minicnn.models.load_model(tmp_path / "from_cpu.safetensors")
    assert isinstance(loaded.layers[2].params["kernel"], gpu.cupy.ndarray)
    np.testing.assert_allclose(loaded.predict(images), on_cpu, rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "from_gpu.safetensors")
    here = model.predict(images)
    with minicnn.device("cpu"):
        back = minicnn.models.load_model(tmp_path / "from_gpu.safetensors")
        np.testing.assert_allclose(back.predict(images), here, rtol=1e-5, atol=1e-6)


def merging():
    minicnn.utils.set_random_seed(5)
    inputs = minicnn.Input((8, 8, 3))
    x = layers.LeakyReLU()(layers.Conv2D(4, 3, padding="same")(layers.Rescaling(1 / 255)(inputs)))
    x = layers.Add()([x, layers.Conv2D(4, 1, activation="gelu")(x)])
    x = layers.Concatenate()([layers.AveragePooling2D(2)(x), layers.MaxPooling2D(2)(x)])
    x = layers.GELU()(layers.Conv2D(5, 3)(x))
    model = minicnn.Model(inputs, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    model.compile(minicnn.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"])
    return model


def test_a_network_that_was_made_on_the_cpu_trains_here_alike(on_card):
    with minicnn.device("cpu"):
        expected = trained(merging())[1]
        model = merging()
    stand_in.recorded.clear()
    for a, b in zip(trained(model)[1], expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert on_card or len(stand_in.recorded) == 2  # none of these layers keeps a step from being recorded


def test_a_training_that_was_killed_ends_where_the_unbroken_one_ends(tmp_path):
    for folder in ("whole", "broken", "between"):
        (tmp_path / folder).mkdir()
    unbroken = test_resume.training(tmp_path / "whole", epochs=4)
    with pytest.raises(test_resume.Killed):
        test_resume.training(tmp_path / "broken", test_resume.Killer(2, 3), epochs=4)
    assert test_resume.training(tmp_path / "broken", epochs=4) == unbroken
    with pytest.raises(test_resume.Killed):  # begun on the GPU, it ends on the CPU: alike, but not to the bit
        test_resume.training(tmp_path / "between", test_resume.Killer(2, 3), epochs=4)
    with minicnn.device("cpu"):
        history = test_resume.training(tmp_path / "between", epochs=4)["history"]
    np.testing.assert_allclose(history["loss"], unbroken["history"]["loss"], rtol=1e-4)


def test_augmentation_shows_the_same_pictures_in_both_rooms(gpu):
    x = np.random.default_rng(0).integers(0, 256, (9, 8, 7, 3), dtype=np.uint8)
    for make in test_augmentation.ALL:
        for images in (x, x.astype(np.float32)):
            seen = []
            for device in ("gpu", "cpu"):
                with minicnn.device(device):
                    layer = make(seed=4).build((8, 7, 3))
                    y = layer.forward(kernels.here(images), training=True)
                    assert isinstance(y, np.ndarray) == (device == "cpu")
                    dx = layer.backward(np.ones(y.shape, np.float32))
                    seen.append([kernels.on_host(array) for array in (y, dx, layer.forward(images))])
            for mine, theirs in zip(*seen, strict=True):
                np.testing.assert_array_equal(mine, theirs, strict=True)


def test_a_step_that_draws_is_not_recorded(on_card):
    stand_in.recorded.clear()
    trained = test_augmentation.trained(epochs=2)
    assert on_card or stand_in.recorded == []
    assert test_augmentation.trained(epochs=2) == trained


def test_set_weights_and_evaluate():
    images, labels = examples()
    model = network()
    model.set_weights([np.zeros(w.shape) for w in model.get_weights()])
    loss, _ = model.evaluate(images, labels, verbose=0)
    assert loss == pytest.approx(np.log(4), rel=1e-6)


def test_backward_on_another_device_than_forward_is_refused(gpu):
    layer = layers.Dense(3).build((4,))
    y = layer.forward(np.ones((2, 4), np.float32))
    assert isinstance(y, gpu.cupy.ndarray)
    with minicnn.device("cpu"), pytest.raises(StateError, match="on the same device"):
        layer.backward(np.ones((2, 3), np.float32))


def test_batches_arrive_in_their_order_whatever_their_sizes(gpu):
    rng = np.random.default_rng(0)
    batches = [(rng.integers(0, 256, (n, 2, 2, 3), dtype=np.uint8), np.arange(n)) for n in (4, 4, 3, 4, 4, 1)]
    batches.append((rng.standard_normal((4, 2, 2, 3)), np.arange(4)))
    for (images, labels), (expected, expected_labels) in zip(gpu.ahead(iter(batches)), batches, strict=True):
        assert isinstance(images, gpu.cupy.ndarray)
        np.testing.assert_array_equal(images.get(), expected, strict=True)
        assert labels is expected_labels
    assert list(gpu.ahead(iter([]))) == []


def test_wrong_batches_are_told_as_on_the_cpu():
    model, (images, labels) = network(), examples()
    for x, y in ((images[:, :4], labels), (images, labels + 4), (images, labels[:3])):
        said = []
        for name in ("gpu", "cpu"):
            with minicnn.device(name), pytest.raises(MinicnnError) as error:
                model.train_on_batch(x, y)
            said.append(str(error.value))
        assert said[0] == said[1]


def test_a_full_card_says_how_much_was_asked_for_and_what_to_do(gpu, on_card, monkeypatch):
    if on_card:
        with pytest.raises(
            DeviceMemoryError, match=r"the GPU's memory is full: [\d,]+ MB were asked for, [\d,]+ MB of"
        ):
            gpu._empty((1 << 50,), np.uint8)
        return
    model, (images, labels) = network(), examples()
    model.train_on_batch(images, labels)

    def full(*_):
        raise stand_in.OutOfMemoryError

    monkeypatch.setattr(gpu.cupy, "empty", full)
    with pytest.raises(DeviceMemoryError) as error:
        model.predict(images)
    assert str(error.value) == (
        "the GPU's memory is full: 0 MB were asked for, 2 MB of 80 MB are free. Make the batches or the network "
        "smaller. The batch has 22 images: try batch_size=11."
    )
    assert isinstance(error.value, MemoryError)


@pytest.fixture
def broken(on_card, monkeypatch):
    """Give a function that breaks the stand-in."""
    if on_card:
        pytest.skip("the card is not broken")

    def breaking(error=None, count=0, driver=13000):
        import cupy

        def devices_():
            if error:
                raise stand_in.CUDARuntimeError(error)
            return count

        monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", devices_)
        monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: driver)

    return breaking


@pytest.mark.parametrize(
    ("error", "driver", "said"),
    [
        ("cudaErrorInsufficientDriver: too old", 0, "the GPU needs NVIDIA's driver, and there is none"),
        ("cudaErrorInsufficientDriver: too old", 12040, "it serves CUDA 12.4, CuPy needs 13.2"),
        ("cudaErrorNoDevice: no device", 13000, "there is no NVIDIA GPU in this machine"),
        ("cudaErrorUnknown: unknown error", 13000, "NVIDIA's driver does not answer"),
        (None, 13000, "there is no NVIDIA GPU in this machine"),
    ],
)
def test_what_is_missing_is_said_in_a_line(broken, error, driver, said):
    broken(error, driver=driver)
    with pytest.raises(DeviceError) as raised:
        minicnn.set_device("gpu")
    assert said in str(raised.value) and "\n" not in str(raised.value)
    before = minicnn.get_device()
    minicnn.set_device("auto")
    assert minicnn.get_device() == "cpu"
    devices._device = before  # the room of the other tests


def test_a_card_that_the_compiler_does_not_know_is_said(gpu, on_card, monkeypatch):
    if on_card:
        pytest.skip("the card is known")

    def unknown(*_):
        raise RuntimeError("nvrtc: error: invalid value for --gpu-architecture\nmore")

    monkeypatch.setattr(gpu, "_kernel", unknown)
    assert gpu.complaint() == (
        "the GPU does not run minicnn's kernels: RuntimeError: nvrtc: error: invalid value for --gpu-architecture"
    )
    monkeypatch.setattr(gpu, "_kernel", lambda *_: lambda *_: None)
    assert "computes wrong numbers" in gpu.complaint()


def test_an_unknown_device_is_refused():
    with pytest.raises(ArgumentError, match='expects "cpu", "gpu" or "auto"'):
        minicnn.set_device("tpu")
