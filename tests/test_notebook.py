"""The baseline notebook, cell by cell: a person who ports it changes its import lines and nothing else."""

import io
import re
from collections import Counter
from contextlib import redirect_stdout

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from minicnn.data import AUTOTUNE, Dataset

FOLDERS = ["train1", "train2", "train3", "train4", "train5", "test"]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
EPOCHS = 5

CELLS = {
    "imports": """
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import accuracy_score, auc, confusion_matrix, precision_recall_fscore_support, roc_curve

import minicnn as keras
import minicnn as tf
from minicnn import callbacks, layers, models
from minicnn.utils import image_dataset_from_directory

IMG_SIZE = 32
BATCH_SIZE = 16
keras.utils.set_random_seed(1)
""",
    "data": """
train_datasets = [
    image_dataset_from_directory(f"train{i}", image_size=(IMG_SIZE, IMG_SIZE), batch_size=BATCH_SIZE)
    for i in range(1, 5)
]
class_names = train_datasets[0].class_names
train_dataset = train_datasets[0]
for dataset in train_datasets[1:]:
    train_dataset = train_dataset.concatenate(dataset)
train_dataset = train_dataset.shuffle(1000).prefetch(buffer_size=tf.data.AUTOTUNE)
validation_dataset = image_dataset_from_directory(
    "train5", image_size=(IMG_SIZE, IMG_SIZE), batch_size=BATCH_SIZE
).prefetch(buffer_size=tf.data.AUTOTUNE)
test_dataset = image_dataset_from_directory(
    "test", image_size=(IMG_SIZE, IMG_SIZE), batch_size=BATCH_SIZE, shuffle=False
)
""",
    "look": """
for data_batch, labels_batch in train_dataset:
    print("data batch shape:", data_batch.shape)
    print("labels batch shape:", labels_batch.shape)
    break
""",
    "model": """
inputs = keras.Input(shape=(IMG_SIZE, IMG_SIZE, 3))
x = layers.Rescaling(1.0 / 255)(inputs)
x = layers.Conv2D(filters=16, kernel_size=3, activation="relu", padding="same")(x)
x = layers.MaxPooling2D(pool_size=2)(x)
x = layers.Conv2D(filters=32, kernel_size=3, activation="relu", padding="same")(x)
x = layers.MaxPooling2D(pool_size=2)(x)
x = layers.Conv2D(filters=64, kernel_size=3, activation="relu", padding="same")(x)
x = layers.MaxPooling2D(pool_size=2)(x)
x = layers.Flatten()(x)
x = layers.Dense(128, activation="relu")(x)
outputs = layers.Dense(10, activation="softmax")(x)
model = keras.Model(inputs=inputs, outputs=outputs)
model.summary()
""",
    "compile": """
model.compile(
    optimizer=keras.optimizers.SGD(learning_rate=0.01, momentum=0.9),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
""",
    "callbacks": """
reduce_rate = callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.1, patience=3, verbose=1)
early_stop = callbacks.EarlyStopping(monitor="val_loss", patience=6, restore_best_weights=True, verbose=1)
checkpoint = callbacks.ModelCheckpoint("models/S.keras", monitor="val_loss", save_best_only=True, verbose=1)
""",
    "fit": f"""
history = model.fit(
    train_dataset,
    epochs={EPOCHS},
    validation_data=validation_dataset,
    callbacks=[reduce_rate, early_stop, checkpoint],
)
""",
    "curves": """
acc, val_acc = history.history["accuracy"], history.history["val_accuracy"]
loss, val_loss = history.history["loss"], history.history["val_loss"]
epochs = range(1, len(acc) + 1)
plt.plot(epochs, acc, "bo", label="Training acc")
plt.plot(epochs, val_acc, "b", label="Validation acc")
plt.title("Training and validation accuracy")
plt.legend()
plt.figure()
plt.plot(epochs, loss, "bo", label="Training loss")
plt.plot(epochs, val_loss, "b", label="Validation loss")
plt.legend()
plt.show()
""",
    "evaluate": """
best_model = keras.models.load_model("models/S.keras")
val_loss, val_acc = model.evaluate(validation_dataset)
print(f"val_acc: {val_acc:.4f}, val_loss: {val_loss:.4f}")
""",
    "predict": """
test_labels, test_predictions, test_probabilities = [], [], []
for images, labels in test_dataset:
    probabilities = model.predict(images)
    test_labels.extend(np.array(labels))
    test_predictions.extend(np.argmax(probabilities, axis=-1))
    test_probabilities.extend(probabilities)
test_labels, test_predictions = np.array(test_labels), np.array(test_predictions)
test_probabilities = np.array(test_probabilities)
at_once = model.predict(test_dataset)
""",
    "confusion": """
cm = confusion_matrix(test_labels, test_predictions)
fig, ax = plt.subplots()
ax.imshow(cm)
ax.set_xticks(range(10), class_names, rotation=90)
plt.show()
""",
    "roc": """
areas = []
for i, name in enumerate(class_names):
    fpr, tpr, _ = roc_curve(test_labels == i, test_probabilities[:, i])
    areas.append(auc(fpr, tpr))
    plt.plot(fpr, tpr, label=f"{name} (AUC {areas[-1]:.2f})")
plt.legend()
plt.show()
""",
    "metrics": """
acc = accuracy_score(y_true=test_labels, y_pred=test_predictions)
print(f"Accuracy: {acc * 100:.2f} %")
scores = {}
for average in ("macro", "weighted"):
    scores[average] = precision_recall_fscore_support(
        test_labels, test_predictions, average=average, zero_division=0
    )[:3]
    print(average, *(f"{score * 100:.2f} %" for score in scores[average]))
""",
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """Run all cells in one namespace beside six small folders; the namespace, and what each cell printed."""
    root, rng = tmp_path_factory.mktemp("notebook"), np.random.default_rng(4)
    for folder in FOLDERS:
        for label, name in enumerate(CLASSES):
            (root / folder / f"{label:03d}_{name}").mkdir(parents=True)
            for i in range(4):
                image = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                top, left = 16 * (label // 5), 6 * (label % 5)
                image[top : top + 16, left : left + 6] += 120  # each class is bright in a place of its own
                Image.fromarray(image).save(root / folder / f"{label:03d}_{name}" / f"{i}.png")
    namespace: dict = {}
    printed: dict[str, str] = {}
    plt.switch_backend("agg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(plt, "show", lambda: None)  # no window
        for name, source in CELLS.items():
            with redirect_stdout(io.StringIO()) as output:
                exec(compile(source, f"<{name}>", "exec"), namespace)
            printed[name] = output.getvalue()
    namespace["figures"] = [plt.figure(number) for number in plt.get_fignums()]
    plt.close("all")
    return namespace, printed


def test_the_data_cells_find_every_image_and_keep_batches_of_one_folder(notebook):
    cells, printed = notebook
    assert printed["data"] == "Found 40 files belonging to 10 classes.\n" * 6
    assert cells["class_names"] == [f"{label:03d}_{name}" for label, name in enumerate(CLASSES)]
    assert len(cells["train_dataset"]) == 12  # 40 images: two batches of 16 and one of 8; four times
    sizes = Counter(len(labels) for _, labels in cells["train_dataset"])
    assert sizes == {16: 8, 8: 4}
    assert len(cells["validation_dataset"]) == len(cells["test_dataset"]) == 3
    assert re.fullmatch(r"data batch shape: \((8|16), 32, 32, 3\)\nlabels batch shape: \(\1,\)\n", printed["look"])
    assert (cells["data_batch"].dtype, cells["labels_batch"].dtype) == (np.uint8, np.int32)


def test_the_notebooks_own_numbers_give_628_steps_with_four_short_ones():
    folders = [Dataset.from_arrays(np.full((10_000, 1), i), np.arange(10_000) % 10, batch_size=64) for i in range(4)]
    train = folders[0].concatenate(folders[1]).concatenate(folders[2]).concatenate(folders[3])
    train = train.shuffle(1000, seed=3).prefetch(AUTOTUNE)
    batches = [images for images, _ in train]
    assert len(train) == len(batches) == 628
    assert Counter(map(len, batches)) == {64: 624, 16: 4}
    assert all((batch == batch[0]).all() for batch in batches)
    assert Counter(int(batch[0, 0]) for batch in batches) == dict.fromkeys(range(4), 157)
    assert [int(batch[0, 0]) for batch in batches] != sorted(int(batch[0, 0]) for batch in batches)


def test_the_model_cell_builds_model_s(notebook):
    cells, printed = notebook
    model = cells["model"]
    assert model.count_params() == 156_074
    assert [w.shape for w in model.get_weights()] == [
        *((3, 3, 3, 16), (16,), (3, 3, 16, 32), (32,), (3, 3, 32, 64), (64,)),
        *((1024, 128), (128,), (128, 10), (10,)),
    ]
    assert "Total params: 156,074 (609.66 KB)" in printed["model"]
    assert len(model.layers) == 11


def test_the_fit_cell_trains_and_its_callbacks_speak(notebook):
    cells, printed = notebook
    history, lines = cells["history"].history, printed["fit"]
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    assert {len(values) for values in history.values()} == {EPOCHS}
    assert all(type(value) is float and np.isfinite(value) for values in history.values() for value in values)
    assert cells["history"].epoch == list(range(EPOCHS))
    assert history["loss"][-1] < history["loss"][0]
    assert lines.count("\n12/12 - ") == EPOCHS
    first = history["val_loss"][0]
    assert f"Epoch 1: val_loss improved from inf to {first:.5f}, saving model to models/S.keras\n" in lines
    best = int(np.argmin(history["val_loss"])) + 1
    assert f"Restoring model weights from the end of the best epoch: {best}.\n" in lines


def test_the_best_weights_are_restored_and_saved(notebook):
    cells, printed = notebook
    for kept, saved in zip(cells["model"].get_weights(), cells["best_model"].get_weights(), strict=True):
        np.testing.assert_array_equal(kept, saved)
    history = cells["history"].history
    best = int(np.argmin(history["val_loss"]))
    # the images come in another order than in the epoch itself, so that the last bits of the mean may differ
    assert cells["val_loss"] == pytest.approx(history["val_loss"][best], rel=1e-6)
    assert cells["val_acc"] == history["val_accuracy"][best]
    assert printed["evaluate"].startswith("3/3 - ")
    assert printed["evaluate"].endswith(f"val_acc: {cells['val_acc']:.4f}, val_loss: {cells['val_loss']:.4f}\n")


def test_the_curves_show_the_history(notebook):
    cells, _ = notebook
    accuracy, loss = cells["figures"][0].axes[0].lines[:2], cells["figures"][1].axes[0].lines[:2]
    for line, key in zip([*accuracy, *loss], ["accuracy", "val_accuracy", "loss", "val_loss"], strict=True):
        np.testing.assert_array_equal(line.get_ydata(), cells["history"].history[key])
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, EPOCHS + 1))


def test_the_predict_cell_gives_probabilities_in_the_order_of_the_test_set(notebook):
    cells, printed = notebook
    p = cells["test_probabilities"]
    assert p.shape == (40, 10)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1, dtype=np.float64), 1, atol=1e-6)
    np.testing.assert_array_equal(cells["at_once"], p)
    np.testing.assert_array_equal(cells["test_labels"], np.repeat(np.arange(10), 4))
    assert printed["predict"] == ""


def test_the_metric_cells_agree_with_plain_counting(notebook):
    cells, printed = notebook
    labels, predicted = cells["test_labels"], cells["test_predictions"]
    pairs = Counter(zip(labels.tolist(), predicted.tolist(), strict=True))
    assert cells["cm"].tolist() == [[pairs[true, said] for said in range(10)] for true in range(10)]
    hits = sum(pairs[k, k] for k in range(10))
    assert cells["acc"] == hits / 40
    assert printed["metrics"].startswith(f"Accuracy: {hits / 40 * 100:.2f} %\n")
    for average in ("macro", "weighted"):  # as every class has four images, both recalls are the accuracy
        assert cells["scores"][average][1] == pytest.approx(hits / 40)
    for k, area in enumerate(cells["areas"]):
        of_class, others = (cells["test_probabilities"][labels == k, k], cells["test_probabilities"][labels != k, k])
        wins = sum((a > b) + 0.5 * (a == b) for a in of_class for b in others)
        assert area == pytest.approx(wins / (4 * 36))
