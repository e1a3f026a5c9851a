"""Graphs of layers: how they are joined, named, shown and refused, and that a step is the step of the formulas."""

import numpy as np
import pytest

import minicnn
from minicnn import layers, losses, models, optimizers
from minicnn.baseline import model_s
from minicnn.callbacks import Callback
from minicnn.errors import MinicnnError


@pytest.fixture
def float64():
    minicnn.set_floatx("float64")
    yield
    minicnn.set_floatx("float32")


def data(N=12, seed=0):
    """Random images (N, 6, 6, 2) and labels of three classes."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, 6, 6, 2)).astype(np.float32), rng.integers(0, 3, N)


def stack():
    """The layers of a small network, new ones each time."""
    return [layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3, activation="softmax")]


def functional():
    inputs = x = minicnn.Input((6, 6, 2))
    for layer in stack():
        x = layer(x)
    return minicnn.Model(inputs, x)


def sequential():
    return models.Sequential([minicnn.Input((6, 6, 2)), *stack()])


def trained(make, steps=3):
    minicnn.utils.set_random_seed(5)
    model = make()
    model.compile(optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"])
    logs = [model.train_on_batch(*data(seed=step)) for step in range(steps)]
    return model, logs


def same_weights(a, b):
    pairs = list(zip(a, b, strict=True))
    return bool(pairs) and all(np.array_equal(v, w) for v, w in pairs)


# Graphs


def residual():
    inputs = minicnn.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.ReLU()(layers.Add()([x, y]))
    return minicnn.Model(inputs, layers.Dense(3, "softmax")(layers.Flatten()(x)))


def test_a_residual_block_learns():
    minicnn.utils.set_random_seed(1)
    model = residual()
    model.compile(optimizers.SGD(0.05, momentum=0.9), metrics=["accuracy"])
    history = model.fit(*data(32), epochs=20, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 4
    assert history["accuracy"][-1] == 1
    assert [type(layer).__name__ for layer in model.layers[:5]] == ["InputLayer", "Conv2D", "Conv2D", "Add", "ReLU"]


def test_gradients_of_all_branches_add_up():
    inputs = minicnn.Input((2,))
    doubled = layers.Add()([inputs, inputs])
    tripled = layers.Add()([doubled, inputs])
    model = minicnn.Model(inputs, layers.Add()([tripled, doubled]))  # 3x + 2x
    x = np.array([[1.0, 10.0]], np.float32)
    assert model(x).tolist() == [[5, 50]]
    assert model.backward(x, input_gradient=True).tolist() == [[5, 50]]


def test_below_the_first_weights_nothing_is_computed():
    inputs = minicnn.Input((2, 2, 1))
    x = layers.Flatten()(layers.Rescaling(3)(inputs))
    model = minicnn.Model(inputs, layers.Dense(2)(x))
    y = model(np.ones((1, 2, 2, 1), np.float32))
    assert model.backward(y) is None
    without = [g.copy() for g in model.gradients()]
    assert model.backward(y, input_gradient=True).shape == (1, 2, 2, 1)
    assert same_weights(without, model.gradients())


def test_a_deep_graph_is_no_problem():
    inputs = x = minicnn.Input((3,))
    for number in range(2000):  # more than Python nests calls
        x = layers.Rescaling(1, offset=1, name=f"plus_one_{number}")(x)
    model = minicnn.Model(inputs, x)
    assert len(model.layers) == 2001
    assert model(np.zeros((1, 3), np.float32)).tolist() == [[2000] * 3]


def two_inputs():
    a, b = minicnn.Input((2,)), minicnn.Input((2,))
    return minicnn.Model(a, layers.Add()([a, b]))


def used_twice():
    inputs, dense = minicnn.Input((2,)), layers.Dense(2)
    return minicnn.Model(inputs, dense(dense(inputs)))


def same_name_twice():
    return models.Sequential([minicnn.Input((2,)), layers.Dense(2, name="a"), layers.Dense(2, name="a")])


WRONG = {
    "unconnected": (
        lambda: minicnn.Model(minicnn.Input((2,)), layers.ReLU()(minicnn.Input((2,)))),
        ["from the given input alone", "(None, 2)"],
    ),
    "two inputs": (two_inputs, ["from the given input alone", "(None, 2)"]),
    "list of inputs": (
        lambda: minicnn.Model([1, 2], minicnn.Input((2,))),
        ["Model(inputs)", "one symbolic tensor", "[1, 2]"],
    ),
    "inner input": (
        lambda: minicnn.Model(x := layers.ReLU()(minicnn.Input((2,))), layers.ReLU()(x)),
        ["Input(shape)", "ReLU"],
    ),
    "a layer as output": (lambda: minicnn.Model(minicnn.Input((2,)), layers.ReLU()), ["Model(outputs)", "ReLU()"]),
    "used twice": (used_twice, ["Dense(units=2)", "twice"]),
    "used twice in a row": (
        lambda: models.Sequential([minicnn.Input((2,)), *[layers.Dense(2)] * 2]),
        ["Dense(units=2)", "twice"],
    ),
    "name twice": (same_name_twice, ["names must differ", "'a'"]),
    "no layer": (lambda: models.Sequential([minicnn.Input((2,)), "dense"]), ["Sequential expects layers", "'dense'"]),
    "model in model": (lambda: sequential()(minicnn.Input((6, 6, 2))), ["model", "layer"]),
    "shapes that do not join": (
        lambda: models.Sequential([minicnn.Input((6, 6, 2)), layers.Dense(3)]),
        ["Dense(units=3)", "(In,)", "(6, 6, 2)"],
    ),
    "optimizer": (lambda: functional().compile("adamant"), ["optimizer", "'adamant'", "sgd"]),
    "loss": (lambda: functional().compile(loss="mse"), ["loss", "'mse'", "sparse_categorical_crossentropy"]),
    "metric": (lambda: functional().compile(metrics=["accuracy", "auc"]), ["metric", "'auc'", '"accuracy"']),
    "logits after softmax": (
        lambda: functional().compile(loss=losses.SparseCategoricalCrossentropy(from_logits=True)),
        ["softmax", "from_logits=True"],
    ),
    "probabilities without softmax": (
        lambda: models.Sequential([minicnn.Input((2,)), layers.Dense(2)]).compile(),
        ["softmax", "from_logits=False"],
    ),
    "rate": (lambda: optimizers.SGD(-0.1), ["learning rate", ">= 0", "-0.1"]),
    "rate NaN": (lambda: optimizers.SGD(float("nan")), ["learning rate", "finite", "nan"]),
    "momentum": (lambda: optimizers.SGD(momentum=1.5), ["SGD(momentum)", "1.5"]),
}


@pytest.mark.parametrize(("wrong", "named"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_named_in_one_line(wrong, named):
    with pytest.raises(MinicnnError) as caught:
        wrong()
    assert isinstance(caught.value, ValueError)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in named if part not in message] == []


# Names, table, weights


def test_names_are_keras_names_counted_in_each_model():
    names = ["input_layer", "rescaling", "conv2d", "max_pooling2d", "conv2d_1", "max_pooling2d_1"]
    names += ["conv2d_2", "max_pooling2d_2", "flatten", "dense", "dense_1"]
    for _ in range(2):
        assert [layer.name for layer in model_s().layers] == names
    inputs = minicnn.Input((2,), name="here")
    x = layers.Dense(2)(layers.Dense(2, name="dense")(layers.Dense(2)(inputs)))
    model = minicnn.Model(inputs, layers.ReLU()(x))
    assert [layer.name for layer in model.layers] == ["here", "dense_1", "dense", "dense_2", "re_lu"]


def test_the_table_of_model_s():
    lines = []
    model = model_s()
    model.summary(print_fn=lines.append)
    rows = {line.split()[0]: line.split("  ")[-1].strip() for line in lines if "(None" in line}
    counts = {"conv2d": "448", "conv2d_1": "4,640", "conv2d_2": "18,496", "dense": "131,200", "dense_1": "1,290"}
    assert rows == {layer.name: counts.get(layer.name, "0") for layer in model.layers}
    assert any("conv2d_2 (Conv2D)" in line and "(None, 8, 8, 64)" in line for line in lines)
    assert lines[-1] == "Total params: 156,074 (609.66 KB)"
    assert model.count_params() == 156_074
    assert max(map(len, lines)) == len(lines[1])


def test_the_table_of_a_graph_says_what_is_joined(capsys):
    residual().summary()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("Connected to")
    assert next(line for line in lines if line.startswith("add (Add)")).endswith("conv2d, conv2d_1")


def test_weights_are_copies_in_layer_order():
    model = functional()
    weights = model.get_weights()
    assert [w.shape for w in weights] == [(3, 3, 2, 4), (4,), (64, 3), (3,)]
    weights[0][:] = 7
    assert not (model.get_weights()[0] == 7).any()
    model.set_weights([np.full(w.shape, k, np.float64) for k, w in enumerate(weights)])
    assert [set(w.ravel().tolist()) for w in model.get_weights()] == [{0}, {1}, {2}, {3}]
    assert {w.dtype for w in model.get_weights()} == {np.dtype(np.float32)}
    given = [np.zeros_like(w) for w in weights]
    model.set_weights(given)
    given[0][:] = 9
    assert not model.get_weights()[0].any()
    model.layers[1].params["kernel"][:] = 4  # written in place, it is what the model computes with
    assert (model.get_weights()[0] == 4).all()


@pytest.mark.parametrize(
    "spoil", [lambda w: w[:-1], lambda w: [*w, w[0]], lambda w: w[::-1], lambda w: [*w[:-1], np.zeros((1, 3))]]
)
def test_weights_that_do_not_fit_change_nothing(spoil):
    model = functional()
    before = model.get_weights()
    with pytest.raises(MinicnnError, match=r"set_weights expects .*\(3, 3, 2, 4\).*Received"):
        model.set_weights(spoil([w + 1 for w in before]))
    assert same_weights(model.get_weights(), before)


def test_three_ways_to_build_one_network():
    expected, logs = trained(functional)
    deferred = trained(lambda: models.Sequential(stack()))
    one_by_one = models.Sequential()

    def grow():
        for layer in [minicnn.Input((6, 6, 2)), *stack()]:
            one_by_one.add(layer)
        return one_by_one

    for model, own_logs in (trained(sequential), deferred, trained(grow)):
        assert own_logs == logs
        assert same_weights(model.get_weights(), expected.get_weights())
        assert [layer.name for layer in model.layers] == [layer.name for layer in expected.layers]


def test_a_sequential_without_an_input_learns_its_shape():
    x, labels = data()
    for use in (
        lambda model: model.build((6, 6, 2)),
        lambda model: model.fit(x, labels, verbose=0),
        lambda model: model.fit(minicnn.data.Dataset.from_arrays(x, labels), verbose=0),
        lambda model: model.evaluate(x, labels, verbose=0),
        lambda model: model.predict(x),
        lambda model: model(x),
    ):
        model = models.Sequential(stack())
        model.compile()
        use(model)
        assert [w.shape for w in model.get_weights()] == [(3, 3, 2, 4), (4,), (64, 3), (3,)]
    late = models.Sequential([layers.Flatten(), layers.Dense(3)])
    late.compile()  # whether a softmax is at the end shows only when the graph is built
    with pytest.raises(MinicnnError, match="softmax"):
        late.fit(x, labels, verbose=0)


# Learning


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_step_is_the_formulas(float64, nesterov):
    """Two dense layers by hand in NumPy, several steps with momentum."""
    rng = np.random.default_rng(3)
    model = models.Sequential([minicnn.Input((5,)), layers.Dense(7, "relu"), layers.Dense(4, "softmax")])
    model.compile(optimizers.SGD(0.3, momentum=0.8, nesterov=nesterov), metrics=["accuracy"])
    weights = model.get_weights()
    velocities = [np.zeros_like(w) for w in weights]
    for _ in range(4):
        x, labels = rng.standard_normal((6, 5)), rng.integers(0, 4, 6)
        w1, b1, w2, b2 = weights
        h = np.maximum(x @ w1 + b1, 0)  # (N, 7)
        p = softmax(h @ w2 + b2)  # (N, 4)
        loss = -np.log(p[np.arange(6), labels]).mean()
        dz = (p - np.eye(4)[labels]) / 6  # (N, 4)
        dh = dz @ w2.T * (h > 0)  # (N, 7)
        gradients = [x.T @ dh, dh.sum(axis=0), h.T @ dz, dz.sum(axis=0)]
        velocities = [0.8 * v - 0.3 * g for v, g in zip(velocities, gradients, strict=True)]
        steps = [0.8 * v - 0.3 * g if nesterov else v for v, g in zip(velocities, gradients, strict=True)]
        weights = [w + step for w, step in zip(weights, steps, strict=True)]
        accuracy = (p.argmax(axis=1) == labels).mean()
        assert model.train_on_batch(x, labels) == pytest.approx([loss, accuracy], rel=1e-12)  # from before the step
        for mine, expected in zip(model.gradients(), gradients, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-13)
        for mine, expected in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-13)


def test_a_tiny_step_lowers_the_loss_by_the_gradient_squared(float64):
    x, labels = data()
    model = residual()
    rate = 1e-6
    model.compile(optimizers.SGD(rate))
    (before,) = model.train_on_batch(x, labels)
    expected = rate * sum((g**2).sum() for g in model.gradients())
    (after,) = model.evaluate(x, labels, verbose=0)
    assert before - after == pytest.approx(expected, rel=1e-3)


def test_logits_and_softmax_train_alike():
    def logits():
        model = models.Sequential([minicnn.Input((6, 6, 2)), *stack()[:2], layers.Dense(3)])
        return model

    with_softmax, logs = trained(functional)
    minicnn.utils.set_random_seed(5)
    model = logits()
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    assert [model.train_on_batch(*data(seed=step)) for step in range(3)] == logs
    assert same_weights(model.get_weights(), with_softmax.get_weights())
    separate = trained(lambda: models.Sequential([*logits().layers[1:], layers.Softmax()]))[0]
    assert same_weights(separate.get_weights(), with_softmax.get_weights())


def test_a_certain_mistake_is_not_clipped():
    model = models.Sequential([minicnn.Input((2,)), layers.Dense(2, "softmax", use_bias=False)])
    model.set_weights([np.eye(2)])
    model.compile()
    assert model.evaluate(np.array([[0.0, 100]], np.float32), np.array([0]), verbose=0) == [100]
    assert losses.SparseCategoricalCrossentropy()([0], [[0.0, 1.0]]) == pytest.approx(-np.log(1e-7))


def test_equal_scores_count_for_the_first_class():
    model = models.Sequential([minicnn.Input((2,)), layers.Dense(3, "softmax")])
    model.set_weights([np.zeros((2, 3)), np.zeros(3)])
    model.compile(metrics=["accuracy"])
    for label, accuracy in [(0, 1), (1, 0), (2, 0)]:
        assert model.evaluate(np.ones((1, 2), np.float32), np.array([label]), verbose=0)[1] == accuracy


def test_float64_end_to_end(float64):
    model = model_s()
    model.compile(optimizers.SGD(0.1, momentum=0.9))
    minicnn.set_floatx("float32")  # what is built stays as it was built
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    model.train_on_batch(images, np.arange(4))
    before = [np.round(w, 3) for w in model.get_weights()]
    model.set_weights([w + 2.0**-40 for w in before])  # a part that float32 cannot hold
    assert same_weights(model.get_weights(), [w + 2.0**-40 for w in before])
    assert model.optimizer.learning_rate == 0.1
    arrays = [*model.weights(), *model.gradients(), *model.optimizer.slots["velocity"], model.predict(images)]
    assert {array.dtype for array in arrays} == {np.dtype(np.float64)}
    assert optimizers.SGD(0.1).learning_rate == float(np.float32(0.1))


def test_bytes_and_floats_are_the_same_images():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    model = model_s()
    np.testing.assert_array_equal(model.predict(images), model.predict(images.astype(np.float32)))
    assert images.dtype == np.uint8


BATCHES = {
    "a label too high": (lambda x, y: (x, y + 1), ValueError, ["from 0 to 2", "3"]),
    "a negative label": (lambda x, y: (x, y - 1), ValueError, ["from 0 to 2", "-1"]),
    "labels that are fractions": (lambda x, y: (x, y / 2), ValueError, ["integers", "float64"]),
    "one-hot labels": (lambda x, y: (x, np.eye(3)[y]), ValueError, ["one integer label each", "(12, 3)"]),
    "a label too few": (lambda x, y: (x, y[1:]), ValueError, ["(12, 3)", "(11,)"]),
    "images of another size": (lambda x, y: (x[:, 1:], y), ValueError, ["(N, 6, 6, 2)", "(12, 5, 6, 2)"]),
    "one image": (lambda x, y: (x[0], y), ValueError, ["(N, 6, 6, 2)", "(6, 6, 2)"]),
    "no images": (lambda x, y: (x[:0], y[:0]), ValueError, ["without images"]),
    "words": (lambda x, y: (np.full(x.shape, "a"), y), TypeError, ["numbers", "<U1"]),
}


@pytest.mark.parametrize(("spoil", "kind", "named"), BATCHES.values(), ids=BATCHES)
def test_a_batch_that_does_not_fit_changes_nothing(spoil, kind, named):
    model = functional()
    model.compile()
    before = model.get_weights()
    x, labels = data()
    with pytest.raises(MinicnnError) as caught:
        model.train_on_batch(*spoil(x, np.concatenate([[0, 1, 2], labels[3:]])))
    assert isinstance(caught.value, kind)
    assert "\n" not in str(caught.value)
    assert [part for part in named if part not in str(caught.value)] == []
    assert same_weights(model.get_weights(), before)


@pytest.mark.parametrize("use", ["fit", "evaluate", "train_on_batch"])
def test_first_compile(use):
    with pytest.raises(MinicnnError, match=rf"compile.* before model\.{use}") as caught:
        getattr(functional(), use)(*data())
    assert isinstance(caught.value, RuntimeError)


def test_compiling_again_begins_with_no_velocity():
    model, _ = trained(functional)
    assert model.optimizer.slots["velocity"]
    model.compile(optimizers.SGD(0.1, momentum=0.9))
    before = model.get_weights()
    model.train_on_batch(*data())
    for w, old, g in zip(model.get_weights(), before, model.gradients(), strict=True):
        np.testing.assert_allclose(w, old - np.float32(0.1) * g, rtol=0, atol=1e-6)


def test_a_user_needs_nothing_but_the_top():
    assert minicnn.Sequential is models.Sequential
    assert minicnn.Model is models.Model
    assert issubclass(models.Sequential, models.Model)
    assert issubclass(minicnn.callbacks.EarlyStopping, Callback)
