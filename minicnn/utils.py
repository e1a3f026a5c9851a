"""Keras's `utils` that the baseline uses."""

from minicnn.config import generator, set_random_seed
from minicnn.data import image_dataset_from_directory

__all__ = ["generator", "image_dataset_from_directory", "set_random_seed"]
