"""Seeds and image folders under the names that Keras's `utils` gives them, and the generator behind the seed."""

from minicnn.config import generator, set_random_seed
from minicnn.data import image_dataset_from_directory

__all__ = ["generator", "image_dataset_from_directory", "set_random_seed"]
