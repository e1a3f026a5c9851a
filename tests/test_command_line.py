"""`python -m minicnn`: its four commands, and what each says about bad input."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import minicnn
from minicnn import layers, losses, models, optimizers
from minicnn.__main__ import main
from minicnn.baseline import model_s
from minicnn.data import Dataset, cifar10
from minicnn.errors import MinicnnError

ROOT = Path(minicnn.__file__).parents[1]
COMMANDS = ["train", "evaluate", "predict", "gradcheck"]
COLOURS = ["red", "green", "blue"]
FOLDERS = ["train1", "train2", "train3", "train4", "train5", "test"]
MODEL = "best_model.safetensors"


def process(*words, cwd, script=None):
    """Run the command line, or a script of its own, as a person's shell does."""
    start = ["-m", "minicnn"] if script is None else ["-c", script]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {name: value for name, value in os.environ.items() if name != "MINICNN_DATA"} | {"PYTHONPATH": path}
    command = [sys.executable, *start, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def picture(colour, rng, size=(32, 32)):
    """A noisy image whose channel `colour` stands out."""
    pixels = rng.integers(0, 100, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., COLOURS.index(colour)] += 100
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The notebook's layout, small: six images of each colour in each of six folders."""
    root, rng = tmp_path_factory.mktemp("data") / "colours", np.random.default_rng(8)
    for folder in FOLDERS:
        for number, name in enumerate(COLOURS):
            (root / folder / f"{number:03d}_{name}").mkdir(parents=True)
            for i in range(6):
                picture(name, rng).save(root / folder / f"{number:03d}_{name}" / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    """The finished process of `train` on the folders, and its output folder."""
    cwd = tmp_path_factory.mktemp("trained")
    arguments = ["--data", folders, "--epochs", 4, "--batch-size", 4, "--output", "run"]
    return process("train", *arguments, cwd=cwd), cwd / "run"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Call the command line inside this process, from `tmp_path`: status, standard output, standard error."""
    monkeypatch.delenv("MINICNN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*words):
        try:
            return main([str(word) for word in words]), *capsys.readouterr()
        except SystemExit as stop:
            return stop.code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(run, tmp_path):
    """Call the command line with bad input; return its one line when it left nothing behind."""

    def call(*words):
        before = set(tmp_path.rglob("*"))
        status, _, errors = run(*words)
        assert status == 2
        assert errors.startswith("error: ") and errors.count("\n") == 1, errors
        assert "Traceback" not in errors
        assert set(tmp_path.rglob("*")) == before
        return errors.removeprefix("error: ").rstrip("\n")

    return call


# The four commands


def test_train_writes_a_model_that_has_learned(trained):
    finished, output = trained
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("Found 18 files belonging to 3 classes.\n" * 6 + "Epoch 1/4\n")
    assert len(re.findall(r"^20/20 - .*val_loss: ", finished.stdout, re.M)) == 4
    last = finished.stdout.splitlines()[-1]
    found = re.fullmatch(r"Validation loss \d\.\d{4}, accuracy (\d+\.\d\d)%\. The model is in (.+)", last)
    assert found and float(found[1]) > 90
    assert output.parent / found[2] == output / MODEL
    assert sorted(path.name for path in output.iterdir()) == [MODEL, "history.csv", "state.safetensors"]
    assert models.load_model(output / MODEL).class_names == ["000_red", "001_green", "002_blue"]


def test_train_quietly_prints_the_result_alone_and_the_same_bytes(run, trained, folders):
    words = ["--data", folders, "--epochs", 4, "--batch-size", 4, "--output", "run", "--quiet"]
    status, printed, errors = run("train", *words)
    assert (status, errors) == (0, "")
    assert printed == trained[0].stdout.splitlines(keepends=True)[-1]
    assert Path("run/history.csv").read_bytes() == (trained[1] / "history.csv").read_bytes()
    assert Path("run", MODEL).read_bytes() == (trained[1] / MODEL).read_bytes()


def test_evaluate_measures_the_test_images(run, folders, tmp_path):
    model = model_s(classes=3)  # has learned nothing, so that its figures differ from images to images
    model.save(tmp_path / "new")
    status, printed, errors = run("evaluate", "new", "--data", folders)
    assert (status, errors) == (0, "")
    paths = sorted((folders / "test").rglob("*.png"))
    images = np.stack([np.asarray(Image.open(path)) for path in paths])  # (N, H, W, C)
    labels = np.array([int(path.parent.name[:3]) for path in paths])  # (N,)
    p = model.predict(images)  # (N, K)
    shown = dict(re.findall(r"^Test (\w+) +([\d.]+%?)$", printed, re.M))
    assert list(shown) == [
        *("loss", "accuracy", "precision_macro", "recall_macro", "f1_macro"),
        *("precision_weighted", "recall_weighted", "f1_weighted"),
    ]
    assert shown["accuracy"] == f"{np.mean(p.argmax(axis=1) == labels):.2%}"
    loss = -np.log(p[np.arange(len(labels)), labels].astype(np.float64)).mean()
    assert float(shown["loss"]) == pytest.approx(loss, abs=6e-5)


def test_predict_names_the_three_best_classes_of_each_image(run, trained, folders):
    paths = [folders / "test" / f"{number:03d}_{name}" / "0.png" for number, name in enumerate(COLOURS)]
    status, printed, errors = run("predict", trained[1] / MODEL, *paths)
    assert (status, errors) == (0, "")
    lines = printed.splitlines()
    assert len(lines) == 3
    p = models.load_model(trained[1] / MODEL).predict(np.stack([np.asarray(Image.open(path)) for path in paths]))
    for path, colour, row, line in zip(paths, COLOURS, p, lines, strict=True):
        name, _, best = line.rpartition(": ")
        assert name == str(path)
        order = np.argsort(-row)
        assert best == ", ".join(f"{COLOURS[k]} {row[k]:.1%}" for k in order)
        assert best.startswith(f"{colour} ")


@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [
        ("large.png", "RGB", (300, 200)),
        ("tiny.png", "RGB", (3, 5)),
        ("photo.jpg", "RGB", (64, 48)),
        ("print.jpeg", "CMYK", (40, 40)),
        ("alpha.png", "RGBA", (32, 32)),
        ("palette.gif", "P", (50, 20)),
        ("palette.bmp", "P", (32, 33)),
        ("web.webp", "RGB", (60, 60)),
        ("scan.tiff", "RGB", (60, 60)),
    ],
)
def test_predict_takes_any_image_file(run, trained, tmp_path, name, mode, size):
    Image.new("RGB", size, (20, 180, 30)).convert(mode).save(tmp_path / name)
    status, printed, errors = run("predict", trained[1] / MODEL, name)
    assert (status, errors) == (0, "")
    assert re.match(rf"{re.escape(name)}: green \d+\.\d%, ", printed)


def test_predict_turns_a_photograph_upright(run, trained, tmp_path, folders):
    image = Image.open(folders / "test" / "000_red" / "1.png")
    image.save(tmp_path / "upright.png")
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    one, two = run("predict", trained[1] / MODEL, "upright.png", "turned.png")[1].splitlines()
    assert one.removeprefix("upright.png") == two.removeprefix("turned.png")


def test_gradcheck_agrees_and_says_so(tmp_path):
    finished = process("gradcheck", "--entries", 2, cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    ending = r"(\d+) of \1 tensors agree with finite differences; worst relative error (.+)"
    last = re.fullmatch(ending, finished.stdout.splitlines()[-1])
    assert last and float(last[2]) <= 1e-6
    assert len(re.findall(" ok$", finished.stdout, re.M)) == int(last[1])
    for name in ("Conv2D", "MaxPooling2D", "Dense", "ReLU", "Softmax", "Flatten", "Rescaling", "Add", "Model S"):
        assert re.search(rf"^{name}\b", finished.stdout, re.M), name
    errors = re.findall(r" (\d\.\de[-+]\d\d) +ok$", finished.stdout, re.M)
    assert max(map(float, errors)) == float(last[2])


def test_gradcheck_with_a_planted_bug_has_status_1_and_names_the_tensor(tmp_path):
    script = """
import sys
import minicnn.__main__ as command_line
from minicnn.layers import Dense

right = Dense.backward

def wrong(self, dy, **options):
    dx = right(self, dy, **options)
    self.grads["bias"] = self.grads["bias"] / len(dy)
    return dx

Dense.backward = wrong
command_line._layers = lambda: [(Dense(3), (5,))]
raise SystemExit(command_line.main(sys.argv[1:]))
"""
    finished = process("gradcheck", "--entries", 4, cwd=tmp_path, script=script)
    assert (finished.returncode, finished.stderr) == (1, "")
    verdicts = re.findall(r"(\S+) +(?:all [\d,]+|[\d,]+ of [\d,]+) +\d\.\de[-+]\d\d +(ok|WRONG)", finished.stdout)
    assert {tensor for tensor, verdict in verdicts if verdict == "WRONG"} == {"dbias", "dense/dbias", "dense_1/dbias"}
    assert re.match(rf"{len(verdicts) - 4} of {len(verdicts)} tensors agree", finished.stdout.splitlines()[-1])


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help(run, words):
    status, printed, errors = run(*words)
    assert (status, errors) == (0, "")
    assert printed.startswith(f"usage: python -m minicnn {words[0] if len(words) > 1 else '[-h] COMMAND'}")
    assert all(name in printed for name in COMMANDS if len(words) == 1)


def test_ctrl_c_ends_with_one_line(run, folders, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("minicnn.training.train_step", interrupted)
    status, _, errors = run("train", "--data", folders, "--quiet")
    assert (status, errors) == (130, "interrupted\n")


# Bad data


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def remove_images(folder):
    for path in folder.rglob("*.png"):
        path.unlink()


@pytest.mark.parametrize(
    ("place", "spoil", "expected"),
    [
        ("", shutil.rmtree, ["copy does not exist. Expected the image folders train1,", "Check the path."]),
        ("", empty, ["copy holds no data set. Expected the image folders train1,", "Check the path."]),
        ("train2", shutil.rmtree, ["copy lacks train2. Expected", "Check the path."]),
        ("train2", empty, ["no class is in the image folder copy/train2: it is empty. Expected"]),
        (
            "test",
            remove_images,
            ["no image is in 000_red, 001_green, 002_blue of copy/test. Expected files ending in .bmp,"],
        ),
        (
            "train4/002_blue",
            lambda folder: folder.rename(folder.with_name("002_cyan")),
            ["copy/train1 lacks 002_cyan", "copy/train4 lacks 002_blue", "Add what is missing"],
        ),
        (
            "train3/001_green/4.png",
            lambda path: path.write_bytes(path.read_bytes()[:150]),
            ["copy/train3/001_green/4.png is a broken image", "Replace it or remove it."],
        ),
        (
            "test/000_red/0.png",
            lambda path: path.write_text("not an image"),
            ["copy/test/000_red/0.png is not a", "image", "Replace it or remove it."],
        ),
    ],
)
def test_spoiled_folders(refused, folders, tmp_path, place, spoil, expected):
    shutil.copytree(folders, tmp_path / "copy")
    spoil(tmp_path / "copy" / place)
    message = refused("train", "--data", "copy", "--output", "run").replace(os.sep, "/")
    assert all(part in message for part in expected), message


def test_the_environment_variable_is_named(refused, monkeypatch):
    monkeypatch.setenv("MINICNN_DATA", "missing")
    assert refused("train", "--output", "run").startswith("$MINICNN_DATA: missing does not exist. Expected")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_spoiled_binary_batches(refused, trained, tmp_path, monkeypatch, command):
    monkeypatch.setattr(cifar10, "RECORDS", 10)
    batch = np.zeros((10, 3073), np.uint8)
    (tmp_path / "bin").mkdir()
    for name in cifar10.BATCHES:
        (tmp_path / "bin" / name).write_bytes(batch.tobytes())
    words = ["train", "--output", "run"] if command == "train" else ["evaluate", trained[1] / MODEL]
    batch[7, 0] = 10
    (tmp_path / "bin" / "data_batch_3.bin").write_bytes(batch.tobytes())
    message = refused(*words, "--data", "bin")
    assert message.startswith("data_batch_3.bin in bin: labels are expected from 0 to 9. Received: 10 in record 7. ")
    (tmp_path / "bin" / "data_batch_3.bin").write_bytes(batch.tobytes()[:-1])
    message = refused(*words, "--data", "bin")
    assert message.startswith("data_batch_3.bin in bin is expected to have 30,730 bytes. Received: 30,729. ")
    (tmp_path / "bin" / "data_batch_3.bin").unlink()
    assert "bin lacks data_batch_3.bin. " in refused(*words, "--data", "bin")


def test_a_file_that_is_no_archive(refused, tmp_path):
    (tmp_path / "cifar.tar.gz").write_text("not an archive")
    message = refused("train", "--data", "cifar.tar.gz", "--output", "run")
    assert message.startswith("cifar.tar.gz is not a whole tar.gz archive (Not a gzipped file (b'no')). Get ")


# Bad places to write to, bad numbers


def test_unwritable_output(refused, folders, tmp_path):
    (tmp_path / "file").write_text("kept")
    assert refused("train", "--data", folders, "--output", "file").startswith("file is a file.")
    below = str(Path("file", "below"))
    message = refused("train", "--data", folders, "--output", below)
    assert message.startswith(f"the folder {below} cannot be written: Not a directory. Choose another folder")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--epochs", 0], "--epochs: expected an integer >= 1. Received: 0"),
        (["--epochs", -1], "--epochs: expected an integer >= 1. Received: -1"),
        (["--batch-size", 0], "--batch-size: expected an integer >= 1. Received: 0"),
        (["--seed", -1], "--seed: expected an integer >= 0. Received: -1"),
        (["--learning-rate", -0.1], "the learning rate expects a finite number >= 0. Received: -0.1"),
        (["--learning-rate", "nan"], "the learning rate expects a finite number >= 0. Received: nan"),
        (["--epochs", "many"], "--epochs: expected an integer >= 1. Received: many"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_train_with_bad_numbers(refused, folders, words, expected):
    assert expected in refused("train", "--data", folders, "--output", "run", *words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gradcheck", "--seed", -1], "--seed: expected an integer >= 0. Received: -1"),
        (["gradcheck", "--entries", -1], "entries"),
        (["fly"], "invalid choice: 'fly' (choose from "),
        ([], "the following arguments are required: COMMAND"),
        (["predict", "model.safetensors"], "the following arguments are required: IMAGE"),
    ],
)
def test_commands_with_bad_arguments(refused, words, expected):
    assert expected in refused(*words)


@pytest.mark.parametrize("rate", [1e5, 1e9, 1e30])
def test_a_loss_that_is_no_number(run, folders, rate):
    words = ["--data", folders, "--epochs", 3, "--batch-size", 4, "--learning-rate", rate, "--output", "run"]
    status, printed, errors = run("train", *words)
    assert status == 2
    assert re.fullmatch(r"error: the training loss is no longer a number\. .* smaller --learning-rate .*\n", errors)
    assert "Epoch 2/3" not in printed
    assert {path.name for path in Path("run").iterdir()} <= {"history.csv"}  # the epoch that failed, as it was


def test_a_failed_run_keeps_the_model_of_the_run_before(run, folders):
    words = ["train", "--data", folders, "--batch-size", 4, "--output", "run", "--quiet", "--epochs"]
    assert run(*words, 1)[0] == 0
    before = Path("run", MODEL).read_bytes()
    assert run(*words, 0)[0] == 2
    assert Path("run", MODEL).read_bytes() == before


# Bad models, bad images


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_what_is_no_model(refused, trained, folders, tmp_path, command):
    whole = (trained[1] / MODEL).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:1000])
    (tmp_path / "tail").write_bytes(whole[:-4])
    (tmp_path / "text").write_text("not a model")
    (tmp_path / "none").write_bytes(b"")
    save_file({"a": np.zeros(3)}, tmp_path / "foreign")
    save_file({"a": np.zeros(3)}, tmp_path / "later", metadata={"minicnn": "2", "model": "{}"})
    models.load_model(trained[1] / MODEL).save_weights(tmp_path / "weights")
    last = ["--data", folders] if command == "evaluate" else [folders / "test" / "000_red" / "0.png"]
    for name in ("missing", "cut", "tail", "text", "none", "foreign", "later", "weights"):
        message = refused(command, name, *last)
        assert re.search(rf"\b{name}\b", message), message
        assert "model.save" in message, message  # what makes a good one


def test_what_is_no_image(refused, trained, tmp_path, folders):
    good = folders / "test" / "000_red" / "0.png"
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:150])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder").mkdir()
    for name, expected in [
        ("missing.png", "the image missing.png does not exist."),
        ("cut.png", "the file cut.png is a broken image"),
        ("text.png", "the file text.png is not an image"),
        ("folder", "the file folder cannot be opened (it is not a regular file)"),
    ]:
        assert refused("predict", trained[1] / MODEL, good, name).startswith(expected)


def flat_inputs():
    return models.Sequential([minicnn.Input((7,)), layers.Dense(3, activation="softmax")])


def a_map_of_classes():
    return models.Sequential([minicnn.Input((32, 32, 3)), layers.Conv2D(3, 3, activation="softmax")])


def logits():
    return models.Sequential([minicnn.Input((32, 32, 3)), layers.Flatten(), layers.Dense(3)])


def weights_of_a_run_that_failed():
    model = models.Sequential([minicnn.Input((32, 32, 3)), layers.Flatten(), layers.Dense(3, activation="softmax")])
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("build", [flat_inputs, a_map_of_classes, logits, weights_of_a_run_that_failed])
def test_predict_with_a_model_that_gives_no_probabilities_of_classes(refused, tmp_path, folders, build):
    build().save(tmp_path / "other")
    assert "expected" in refused("predict", "other", folders / "test" / "000_red" / "0.png").lower()


def test_evaluate_with_a_model_of_other_classes(refused, folders, tmp_path):
    model = models.Sequential([minicnn.Input((32, 32, 3)), layers.Flatten(), layers.Dense(2, activation="softmax")])
    model.save(tmp_path / "two")
    message = refused("evaluate", "two", "--data", folders)
    assert re.search(r"\b2 (outputs|classes)\b", message), message


def test_the_shell_sees_status_2_and_no_traceback(tmp_path):
    for words in (["train", "--data", "missing", "--output", "run"], ["predict", "missing", "cat.png"], ["fly"]):
        finished = process(*words, cwd=tmp_path)
        assert (finished.returncode, finished.stdout) == (2, "")
        assert re.fullmatch(r"error: .+\n", finished.stderr), finished.stderr


# The same kinds of errors from Python


def head(loss):
    return models.Sequential([minicnn.Input((4,)), layers.Dense(3, activation="softmax")]).compile("sgd", loss)


def fitted(x, y):
    model = models.Sequential([minicnn.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile()
    model.fit(x, y, verbose=0)


X, Y = np.zeros((6, 4), np.float32), np.arange(6) % 3


@pytest.mark.parametrize(
    ("call", "kind", "expected"),
    [
        (lambda: layers.Dense(3, activation="swish"), ValueError, "unknown activation 'swish'. Expected one of: "),
        (lambda: layers.Activation("tanh"), ValueError, "unknown activation 'tanh'. Expected one of: linear, relu"),
        (lambda: layers.Conv2D(3, 3, padding="full"), ValueError, "padding expects"),
        (lambda: layers.Conv2D(0, 3), ValueError, "Conv2D(filters) expects an integer >= 1. Received: 0"),
        (
            lambda: layers.MaxPooling2D((2, 0)),
            ValueError,
            "MaxPooling2D(pool_size) expects an integer >= 1. Received: 0",
        ),
        (lambda: head("mse"), ValueError, "unknown loss 'mse'. Expected one of: sparse_categorical_crossentropy"),
        (lambda: head(losses.SparseCategoricalCrossentropy(from_logits=True)), ValueError, "do not fit"),
        (lambda: optimizers.get("lion"), ValueError, "unknown optimizer 'lion'. Expected one of: sgd"),
        (lambda: models.Sequential().compile(metrics=["auc"]), ValueError, "unknown metric 'auc'. Expected: "),
        (lambda: models.Sequential(["dense"]), ValueError, "Sequential expects layers"),
        (lambda: layers.Conv2D(2, 5).build((4, 4, 1)), ValueError, "does not fit into an image of (4, 4)"),
        (lambda: layers.Conv2D(2, 3).build((4, 4)), ValueError, "expects inputs of shape (H, W, C)"),
        (lambda: fitted(X[:, :3], Y), ValueError, "(N, 4). Received: (6, 3)"),
        (lambda: fitted(X, Y[:5]), ValueError, "Received: images (6, 4), labels (5,)"),
        (lambda: fitted(X, Y + 1), ValueError, "labels must be from 0 to 2, since the model has 3 outputs."),
        (lambda: fitted(X, -Y), ValueError, "Received: -1"),
        (lambda: fitted(X, Y / 2), TypeError, "labels are expected as integers"),
        (lambda: fitted(X[:0], Y[:0]), ValueError, "N >= 1. Received: images (0, 4)"),
        (lambda: Dataset.from_arrays(X, Y, class_names=["a", "b"]), ValueError, "from 0 to 1. Received: 2 at index 2"),
        (lambda: models.Sequential([layers.Dense(2)]).fit(X, Y), RuntimeError, "call model.compile(optimizer, loss"),
    ],
)
def test_errors_from_python_are_ours_and_of_the_fitting_kind_and_one_line(call, kind, expected):
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, MinicnnError)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_layer_in_a_model_file_is_named(trained, tmp_path):
    content = (trained[1] / MODEL).read_bytes()
    (tmp_path / "odd").write_bytes(content.replace(rb"\"class\": \"Flatten\"", rb"\"class\": \"Fletten\""))
    with pytest.raises(MinicnnError, match="unknown layer 'Fletten'") as caught:
        models.load_model(tmp_path / "odd")
    assert str(tmp_path / "odd") in str(caught.value)
