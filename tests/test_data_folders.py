"""Image folders: formats, colours, sizes, what is skipped, and what is refused."""

import io
import os
import sys
import threading
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from minicnn.data import folders, image_dataset_from_directory
from minicnn.data.folders import read_images
from minicnn.errors import ArgumentError, DataError, DataNotFoundError, MinicnnError

NOISE = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)  # (H, W, C)


def save(pixels, path, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **kwargs)
    return path


def folder_of(tmp_path, sizes, **kwargs):
    """Class folders with so many 2x2 images; image `i` of class `c` is filled with (c, i, 0)."""
    for number, (name, size) in enumerate(sizes.items()):
        for i in range(size):
            save(np.full((2, 2, 3), (number, i, 0)), tmp_path / name / f"{i:03}.png")
    return image_dataset_from_directory(tmp_path, image_size=(2, 2), verbose=False, **kwargs)


def contents(dataset):
    return [(int(label), image[0, 0].tolist()) for images, labels in dataset for image, label in zip(images, labels)]  # noqa: B905


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Classes and order


def test_classes_are_the_sorted_folders_and_files_are_sorted_within(tmp_path):
    dataset = folder_of(tmp_path, {"b_dog": 2, "a_cat": 3}, shuffle=False)
    assert dataset.class_names == ["a_cat", "b_dog"]
    assert contents(dataset) == [(0, [1, i, 0]) for i in range(3)] + [(1, [0, i, 0]) for i in range(2)]
    images, labels = next(iter(dataset))
    assert (images.dtype, labels.dtype, images.shape) == (np.uint8, np.int32, (5, 2, 2, 3))


def test_dot_folders_and_other_files_are_skipped_and_sub_folders_of_a_class_are_not(tmp_path):
    save(NOISE, tmp_path / ".cache" / "1.png")
    save(NOISE, tmp_path / "loose.png")
    save(NOISE, tmp_path / "cat" / "._2.png")
    save(NOISE, tmp_path / "cat" / "1.PNG")
    save(NOISE, tmp_path / "cat" / "kittens" / "3.png")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    dataset = image_dataset_from_directory(tmp_path, verbose=False)
    assert (dataset.class_names, dataset.num_samples) == (["cat"], 2)


def test_class_names_may_give_another_order(tmp_path):
    assert contents(folder_of(tmp_path, {"a": 1, "b": 1}, shuffle=False, class_names=["b", "a"])) == [
        (0, [1, 0, 0]),
        (1, [0, 0, 0]),
    ]


def test_shuffle_keeps_labels_with_images_and_is_repeatable_and_new_each_epoch(tmp_path):
    dataset = folder_of(tmp_path, {"a": 30, "b": 30}, batch_size=4, seed=3)
    epochs = [contents(dataset) for _ in range(2)]
    again = image_dataset_from_directory(tmp_path, image_size=(2, 2), verbose=False, batch_size=4, seed=3)
    assert epochs == [contents(again) for _ in range(2)]
    assert epochs[0] != epochs[1]
    expected = Counter((label, (label, i, 0)) for label in range(2) for i in range(30))
    for pairs in epochs:
        assert Counter((label, tuple(pixel)) for label, pixel in pairs) == expected


def test_the_files_are_shuffled_once_and_then_through_a_reservoir_of_eight_batches(tmp_path):
    dataset = folder_of(tmp_path, {"a": 40}, batch_size=1, seed=3)
    epochs = [[pixel[1] for _, pixel in contents(dataset)] for _ in range(40)]
    first_out = {order[0] for order in epochs}  # only the first eight of the shuffled list can be
    assert 1 < len(first_out) <= 8
    assert not first_out <= set(range(8))


def test_the_line_that_says_what_was_found(tmp_path, capsys):
    folder_of(tmp_path, {"a": 2, "b": 1})
    image_dataset_from_directory(tmp_path)
    assert capsys.readouterr() == ("Found 3 files belonging to 2 classes.\n", "")


def test_a_progress_bar_on_a_terminal_only(tmp_path, monkeypatch):
    path = save(NOISE, tmp_path / "1.png")
    for terminal in (True, False):
        written = io.StringIO()
        written.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr(sys, "stderr", written)
        read_images([path] * 3, (6, 5), verbose=True)
        assert ("0/3" in written.getvalue()) is terminal


# Formats, colours, sizes


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpeg", "jpg", "png"])
def test_every_format_is_read(tmp_path, suffix):
    path = save(np.full((8, 8, 3), (200, 100, 50)), tmp_path / f"1.{suffix}")
    images = read_images([path], (8, 8))
    assert np.abs(images.astype(int) - [200, 100, 50]).max() <= (2 if suffix.startswith("jp") else 0)  # JPEG rounds


@pytest.mark.parametrize("suffix", ["bmp", "png"])
def test_an_image_of_the_right_size_is_left_as_it_is(tmp_path, suffix):
    for interpolation in ("nearest", "bilinear", "bicubic", "lanczos"):
        images = read_images([save(NOISE, tmp_path / f"1.{suffix}")], (6, 5), interpolation=interpolation)
        np.testing.assert_array_equal(images, NOISE[None])


def test_other_colours_become_rgb(tmp_path):
    grey, alpha = NOISE[:, :, 0], np.dstack([NOISE, NOISE[:, :, 1]])
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(grey.astype(np.uint16) * 256 + 77).save(tmp_path / "grey16.png")
    Image.fromarray(grey > 127).save(tmp_path / "bits.png")
    expected = {
        save(grey, tmp_path / "grey.png"): np.dstack([grey] * 3),
        save(alpha, tmp_path / "alpha.png"): NOISE,
        tmp_path / "palette.png": np.array([[[10, 20, 30], [40, 50, 60]], [[40, 50, 60], [10, 20, 30]]]),
        tmp_path / "grey16.png": np.dstack([grey] * 3),
        tmp_path / "bits.png": np.dstack([(grey > 127) * 255] * 3),
    }
    for path, pixels in expected.items():
        np.testing.assert_array_equal(read_images([path], pixels.shape[:2])[0], pixels, err_msg=path.name)


def test_grayscale_and_rgba_modes(tmp_path):
    path = save(np.full((2, 2, 3), 90), tmp_path / "1.png")
    np.testing.assert_array_equal(read_images([path], (2, 2), "grayscale"), np.full((1, 2, 2, 1), 90))
    np.testing.assert_array_equal(read_images([path], (2, 2), "rgba")[0, 0, 0], [90, 90, 90, 255])


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (50, 150)]
    frames[0].save(tmp_path / "1.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_images([tmp_path / "1.gif"], (4, 4)), np.full((1, 4, 4, 3), 50))


def test_enlarging_is_bilinear_between_pixel_centres(tmp_path):
    def along(positions, size):
        """Weights (positions, size) of linear interpolation with the edge pixels held."""
        source = np.clip((np.arange(positions) + 0.5) * size / positions - 0.5, 0, size - 1)
        return np.maximum(0, 1 - np.abs(source[:, None] - np.arange(size)))

    images = read_images([save(NOISE, tmp_path / "1.png")], (13, 20))
    expected = np.einsum("ih,jw,hwc->ijc", along(13, 6), along(20, 5), NOISE)  # (13, 20, 3)
    assert images.shape == (1, 13, 20, 3)
    assert np.abs(images[0] - expected).max() <= 1  # Pillow rounds twice, to whole numbers


def test_shrinking_averages(tmp_path):
    checkerboard = np.indices((64, 64)).sum(0)[:, :, None].repeat(3, 2) % 2 * 255
    images = read_images([save(checkerboard, tmp_path / "1.png")], (4, 4))
    assert np.abs(images.astype(int) - 127.5).max() <= 2


@pytest.mark.parametrize("side", [2, 60])  # noise of 60x60 takes more than 4 kB: several threads
def test_many_files_stay_in_their_order(tmp_path, monkeypatch, side):
    pixels = np.random.default_rng(0).integers(0, 256, (200, side, side, 3), dtype=np.uint8)
    paths = [save(image, tmp_path / f"{i}.png") for i, image in enumerate(pixels)]
    seen = set()
    convert = folders._pixels
    monkeypatch.setattr(folders, "_pixels", lambda *args: seen.add(threading.get_ident()) or convert(*args))
    monkeypatch.setattr(folders, "CHUNK", 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    np.testing.assert_array_equal(read_images(paths, (side, side)), pixels)
    assert (len(seen) > 1) is (side == 60)


# Bad input


def broken(tmp_path, kind):
    path = tmp_path / "cat" / "2.png"
    save(NOISE, tmp_path / "cat" / "1.png")
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        buffer, "JPEG" if kind == "cut jpeg" else "PNG"
    )
    content = {"empty": b"", "text": b"hello", "cut header": buffer.getvalue()[:20]}
    path.write_bytes(content.get(kind, buffer.getvalue()[: len(buffer.getvalue()) // 2]))
    return path


@pytest.mark.parametrize("kind", ["empty", "text", "cut header", "cut png", "cut jpeg"])
def test_a_file_that_is_no_whole_image_is_named(tmp_path, kind):
    path = broken(tmp_path, kind)
    with pytest.raises(DataError) as caught:
        image_dataset_from_directory(tmp_path, verbose=False)
    assert f"the file {path} is " in one_line(caught)
    assert one_line(caught).endswith("Replace it or remove it.")


def test_an_image_beyond_pillows_limit_is_refused(tmp_path, monkeypatch):
    path = save(NOISE, tmp_path / "1.png")
    for limit in (20, 10):  # 30 pixels: Pillow itself would warn at the first and refuse at the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=f"1.png has more than Pillow's limit of {limit} pixels"):
            read_images([path], (6, 5))


def test_a_missing_file_and_a_folder_in_its_place(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"no\.png does not exist"):
        read_images([tmp_path / "no.png"], (6, 5))
    with pytest.raises(DataError, match="cannot be opened"):
        read_images([tmp_path], (6, 5))


def test_missing_and_empty_folders(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no images" / "cat").mkdir(parents=True)
    save(NOISE, tmp_path / "no classes" / "1.png")
    for name, problem in {
        "missing": "cannot be opened: No such file or directory",
        "file": "cannot be opened: Not a directory",
        "empty": "it is empty",
        "no classes": "it has files, but no sub-folder",
        "no images": "no image is in cat of",
    }.items():
        with pytest.raises(DataNotFoundError) as caught:
            image_dataset_from_directory(tmp_path / name)
        assert problem in one_line(caught)
        assert str(tmp_path / name) in one_line(caught)
        assert "Expected" in one_line(caught)


@pytest.mark.parametrize(
    ("kwargs", "kind", "message"),
    [
        ({"labels": None}, ArgumentError, "Received: None and 'int'"),
        ({"label_mode": "categorical"}, ArgumentError, "'categorical'"),
        ({"color_mode": "bgr"}, ArgumentError, "color_mode expects one of grayscale, rgb, rgba. Received: 'bgr'"),
        ({"interpolation": "magic"}, ArgumentError, "Received: 'magic'"),
        ({"image_size": 32}, ArgumentError, "(height, width)"),
        ({"image_size": (32, 0)}, ArgumentError, "Received: 0"),
        ({"batch_size": None}, ArgumentError, "Received: None"),
        ({"seed": "x"}, ArgumentError, "Received: 'x'"),
        ({"class_names": ["cat", "dog"]}, DataError, "['cat']. Received: ['cat', 'dog']"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(tmp_path, kwargs, kind, message):
    save(NOISE, tmp_path / "cat" / "1.png")
    with pytest.raises(MinicnnError) as caught:
        image_dataset_from_directory(tmp_path, verbose=False, **kwargs)
    assert type(caught.value) is kind
    assert message in one_line(caught)


def test_a_class_that_lost_its_images_is_not_passed_over(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cat" / "1.png")
    with pytest.raises(DataNotFoundError, match="no image is in dog of"):
        image_dataset_from_directory(tmp_path, image_size=(4, 4), verbose=False)
