"""Data: image folders, CIFAR-10, the embedded digits; batching, shuffling and prefetch.

`load` finds CIFAR-10 or falls back on the digits; `image_dataset_from_directory` reads any folder of images;
`Dataset.from_arrays` takes arrays.
"""

from minicnn.data.dataset import AUTOTUNE, Dataset
from minicnn.data.folders import image_dataset_from_directory
from minicnn.data.sources import Splits, load

__all__ = ["AUTOTUNE", "Dataset", "Splits", "image_dataset_from_directory", "load"]
