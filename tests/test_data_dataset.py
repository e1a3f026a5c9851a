"""Dataset: what an epoch holds, in which order, and what the prefetch thread leaves behind."""

import threading
import time
from collections import Counter

import numpy as np
import pytest

from minicnn import config
from minicnn.data import AUTOTUNE, Dataset
from minicnn.data.dataset import reservoir
from minicnn.errors import ArgumentError, DataError, DtypeError, MinicnnError, ShapeError


def numbered(size, batch_size=2, **kwargs):
    """Images whose every value is their own label."""
    labels = np.arange(size)
    images = np.repeat(labels, 12).reshape(size, 2, 2, 3).astype(np.int16)  # (N, 2, 2, 3)
    return Dataset.from_arrays(images, labels, batch_size, **kwargs)


def epoch(dataset):
    return [labels.tolist() for _, labels in dataset]


def flat(batches):
    return [label for batch in batches for label in batch]


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minicnn-prefetch")]


# What an epoch holds


def test_batches_carry_each_image_with_its_label():
    for dataset in (numbered(7), numbered(7, shuffle=True), numbered(7, shuffle=True, buffer_size=3).shuffle(2)):
        batches = list(dataset)
        assert [images.shape for images, _ in batches] == [(len(labels), 2, 2, 3) for _, labels in batches]
        assert all((images == labels[:, None, None, None]).all() for images, labels in batches)
        assert all(labels.dtype == np.int32 and images.dtype == np.int16 for images, labels in batches)
        assert sorted(flat(epoch(dataset))) == list(range(7))


def test_without_shuffle_the_order_is_that_of_the_arrays_and_the_last_batch_is_short():
    assert epoch(numbered(5)) == [[0, 1], [2, 3], [4]]
    assert len(numbered(5)) == 3
    assert numbered(5).num_samples == 5
    assert numbered(5).image_shape == (2, 2, 3)


def test_labels_may_be_a_column():
    assert epoch(Dataset.from_arrays(np.zeros((3, 4)), np.array([[2], [0], [1]]))) == [[2, 0, 1]]


def test_four_concatenated_folders_make_628_steps_with_four_short_batches_that_mix_nothing():
    folders = [np.full(10_000, folder) for folder in range(4)]
    train, *others = (Dataset.from_arrays(np.zeros((10_000, 1)), labels, 64, shuffle=True) for labels in folders)
    for other in others:
        train = train.concatenate(other)
    train = train.shuffle(1000).prefetch(AUTOTUNE)
    assert len(train) == 628
    assert train.num_samples == 40_000
    for _ in range(2):
        batches = epoch(train)
        assert len(batches) == 628
        assert Counter(map(len, batches)) == {64: 624, 16: 4}
        assert all(len(set(batch)) == 1 for batch in batches)
        assert Counter(flat(batches)) == {0: 10_000, 1: 10_000, 2: 10_000, 3: 10_000}


def test_take_keeps_the_first_batches():
    assert epoch(numbered(7).take(2)) == [[0, 1], [2, 3]]
    assert (len(numbered(7).take(2)), numbered(7).take(2).num_samples) == (2, 4)
    assert (len(numbered(7).take(99)), numbered(7).take(99).num_samples) == (4, 7)


def test_num_samples_of_a_shuffled_take_is_the_most_there_can_be():
    taken = numbered(5).shuffle(9).take(2)
    assert taken.num_samples == max(len(flat(epoch(taken))) for _ in range(50)) == 4


def test_concatenate_keeps_the_class_names_that_one_of_them_has():
    named = numbered(2, class_names=["a", "b"])
    assert numbered(2).concatenate(named).class_names == named.concatenate(numbered(2)).class_names == ["a", "b"]


def test_repr_tells_the_sizes():
    assert repr(numbered(5)) == "<Dataset: 5 images of 2x2x3 in 3 batches>"


# In which order


def composed(seed):
    first, second = (numbered(9, shuffle=True, seed=seed + i, buffer_size=4) for i in range(2))
    return first.concatenate(second).shuffle(3, seed=seed + 2)


def test_the_same_seed_gives_the_same_epochs_and_each_epoch_another_order():
    one, two, other = composed(1), composed(1), composed(50)
    epochs = [epoch(one) for _ in range(3)]
    assert epochs == [epoch(two) for _ in range(3)]
    assert len({str(batches) for batches in epochs}) == 3
    assert epochs != [epoch(other) for _ in range(3)]


def test_without_a_seed_the_shared_generator_decides():
    state = config.generator().bit_generator.state
    try:
        config.generator().bit_generator.state = {**np.random.default_rng(5).bit_generator.state}
        one, two = (numbered(50, shuffle=True) for _ in range(2))
        config.generator().bit_generator.state = {**np.random.default_rng(5).bit_generator.state}
        again = numbered(50, shuffle=True)
    finally:
        config.generator().bit_generator.state = state
    first = epoch(one)
    assert first != epoch(two)
    assert first == epoch(again)


def test_the_order_depends_neither_on_prefetch_nor_on_how_much_of_an_epoch_was_used():
    plain, ahead, left_early = composed(1), composed(1).prefetch(3), composed(1).prefetch(1)
    iter(plain)  # an epoch of which nothing is used
    epoch(ahead)
    next(iter(left_early))
    assert epoch(plain) == epoch(ahead) == epoch(left_early)


def test_the_generators_are_all_that_the_next_epoch_depends_on():
    dataset = composed(1).prefetch(2)
    assert len(dataset.generators) == 3
    epoch(dataset)
    states = [generator.bit_generator.state for generator in dataset.generators]
    second = epoch(dataset)
    resumed = composed(99)
    for generator, state in zip(resumed.generators, states, strict=True):
        generator.bit_generator.state = state
    assert epoch(resumed) == second


def test_a_generator_that_is_used_twice_is_listed_once():
    shuffled = numbered(4, shuffle=True, seed=1)
    assert len(shuffled.concatenate(shuffled).generators) == 1
    assert numbered(4).generators == []


def test_shuffle_permutes_batches_and_leaves_them_whole():
    batches = epoch(numbered(9).shuffle(1000, seed=1))
    assert sorted(batches) == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]


@pytest.mark.parametrize("buffer_size", [1, 2, 7, 19, 20, 21, 1000])
def test_a_reservoir_gives_everything_once_and_nothing_before_it_is_filled_that_far(buffer_size):
    shuffled = reservoir(list(range(20)), buffer_size, np.random.default_rng(0))
    assert sorted(shuffled) == list(range(20))
    assert all(item - place < buffer_size for place, item in enumerate(shuffled))


@pytest.mark.parametrize("buffer_size", [1, 2, 3, 4, 9])
def test_a_reservoir_gives_every_order_as_often_as_its_definition_says(buffer_size):
    def outcomes(given, held, waiting, probability):
        if not held:
            yield given, probability
        for place in range(len(held)):
            left = held[:place] + held[place + 1 :]
            yield from outcomes(given + held[place], left + waiting[:1], waiting[1:], probability / len(held))

    expected = Counter()
    for order, probability in outcomes("", "abcd"[:buffer_size], "abcd"[buffer_size:], 1.0):
        expected[order] += probability
    generator, trials = np.random.default_rng(0), 10_000
    seen = Counter("".join(reservoir(list("abcd"), buffer_size, generator)) for _ in range(trials))
    assert seen.keys() == expected.keys()
    for order, probability in expected.items():
        assert abs(seen[order] - trials * probability) <= 5 * np.sqrt(trials * probability * (1 - probability))


def test_images_too_go_through_the_reservoir():
    labels = flat(epoch(numbered(100, shuffle=True, buffer_size=8)))
    assert sorted(labels) == list(range(100))
    assert 0 < max(label - place for place, label in enumerate(labels)) < 8


# Prefetch


class Stored:
    """Stands for the images of a recipe: counts how often a batch is gathered, and fails at one of them."""

    def __init__(self, fails_at=None):
        self.gathered, self.fails_at = 0, fails_at

    def __getitem__(self, rows):
        self.gathered += 1
        if self.gathered == self.fails_at:
            raise OSError("the disk is gone")
        return rows


def stored_dataset(stored, batches=8):
    recipe = (stored, np.arange(1), np.zeros(1, int))
    return Dataset(lambda: [recipe] * batches, [1] * batches, (1,))


def test_prefetch_gives_the_same_batches():
    for ahead in (1, 2, 100, AUTOTUNE):
        assert epoch(numbered(7).prefetch(ahead)) == epoch(numbered(7))
        assert len(numbered(7).prefetch(ahead)) == 4
    assert epoch(numbered(7).prefetch(2).take(2)) == [[0, 1], [2, 3]]
    assert prefetch_threads() == []


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_prefetch_gathers_so_many_batches_ahead_and_no_more(ahead):
    stored = Stored()
    iterator = iter(stored_dataset(stored).prefetch(ahead))
    next(iterator)
    deadline = time.monotonic() + 5
    while stored.gathered < 1 + ahead and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert stored.gathered == 1 + ahead
    iterator.close()


def test_what_is_made_of_a_prefetched_data_set_is_prefetched():
    ahead = numbered(7).prefetch(2)
    for dataset in (ahead.take(3), ahead.shuffle(9), ahead.concatenate(numbered(7)), numbered(7).concatenate(ahead)):
        iterator = iter(dataset)
        next(iterator)
        assert len(prefetch_threads()) == 1
        iterator.close()
    assert prefetch_threads() == []


def test_an_error_in_the_thread_is_raised_where_the_batches_are_used():
    batches = iter(stored_dataset(Stored(fails_at=3)).prefetch(2))
    next(batches)
    next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert prefetch_threads() == []


@pytest.mark.parametrize("ahead", [1, 2, 100])
def test_leaving_early_leaves_no_thread(ahead):
    for _ in numbered(40).prefetch(ahead):
        assert len(prefetch_threads()) <= 1
        break
    assert prefetch_threads() == []


def test_an_error_of_the_caller_leaves_no_thread():
    def use():
        for _ in numbered(40).prefetch(1):
            raise KeyError("the caller's own")

    with pytest.raises(KeyError) as caught:
        use()
    del caught  # the traceback holds the loop
    assert prefetch_threads() == []


# Bad input


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Dataset.from_arrays(np.zeros((3, 2)), np.zeros(4, int)), ShapeError, "images (3, 2), labels (4,)"),
        (lambda: Dataset.from_arrays(np.zeros((0, 2)), np.zeros(0, int)), ShapeError, "N >= 1"),
        (lambda: Dataset.from_arrays(np.zeros(3), np.zeros(3, int)), ShapeError, "images (3,)"),
        (lambda: Dataset.from_arrays(np.zeros((3, 2)), np.zeros((3, 10), int)), ShapeError, "(3, 10)"),
        (lambda: Dataset.from_arrays(np.zeros((3, 2)), np.zeros(3)), DtypeError, "float64"),
        (lambda: Dataset.from_arrays(np.zeros((3, 2)), [0, 5, -1]), DataError, "Received: -1 at index 2"),
        (lambda: Dataset.from_arrays(np.zeros((3, 2)), [0, 2, 1], class_names=["a", "b"]), DataError, "from 0 to 1"),
        (lambda: numbered(3, batch_size=0), ArgumentError, "batch_size expects an integer >= 1. Received: 0"),
        (lambda: numbered(3, batch_size=2.0), ArgumentError, "Received: 2.0"),
        (lambda: numbered(3, shuffle=True, buffer_size=True), ArgumentError, "Received: True"),
        (lambda: numbered(3, shuffle=True, seed=-1), ArgumentError, "seed expects an integer >= 0"),
        (lambda: numbered(3).shuffle(0), ArgumentError, "buffer_size"),
        (lambda: numbered(3).prefetch(-2), ArgumentError, "buffer_size"),
        (lambda: numbered(3).take(0), ArgumentError, "n expects"),
        (
            lambda: numbered(2, class_names=["a", "b"]).concatenate(numbered(2, class_names=["a", "c"])),
            DataError,
            "['a', 'b'] and ['a', 'c']",
        ),
        (
            lambda: numbered(2).concatenate(Dataset.from_arrays(np.zeros((2, 4, 4, 3)), [0, 1])),
            ShapeError,
            "(2, 2, 3) and (4, 4, 3)",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(make, kind, message):
    with pytest.raises(MinicnnError) as caught:
        make()
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
