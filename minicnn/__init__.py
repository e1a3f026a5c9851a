"""minicnn: a convolutional network written out, every layer forward and backward, every gradient checked."""

from minicnn import callbacks, data, gradcheck, layers, losses, models, optimizers, schedules, utils
from minicnn.config import floatx, set_floatx, using_floatx
from minicnn.data import AUTOTUNE
from minicnn.errors import MinicnnError
from minicnn.kernels.devices import device, get_device, set_device
from minicnn.kernels.threads import get_num_threads, set_num_threads
from minicnn.layers import Input
from minicnn.models import Model, Sequential

__version__ = "0.1.0"
__all__ = [
    "AUTOTUNE",
    "Input",
    "MinicnnError",
    "Model",
    "Sequential",
    "callbacks",
    "data",
    "device",
    "floatx",
    "get_device",
    "get_num_threads",
    "gradcheck",
    "layers",
    "losses",
    "models",
    "optimizers",
    "schedules",
    "set_device",
    "set_floatx",
    "set_num_threads",
    "using_floatx",
    "utils",
]
