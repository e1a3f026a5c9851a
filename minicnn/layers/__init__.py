"""The layers, one a file: forward above backward, on NHWC arrays."""

from minicnn.layers.activations import GELU, Activation, LeakyReLU, Linear, ReLU, Softmax
from minicnn.layers.add import Add
from minicnn.layers.augmentation import RandomCrop, RandomCutout, RandomFlip, RandomTranslation
from minicnn.layers.base import Layer, Node
from minicnn.layers.batch_normalization import BatchNormalization
from minicnn.layers.concatenate import Concatenate
from minicnn.layers.conv import Conv2D
from minicnn.layers.dense import Dense
from minicnn.layers.dropout import Dropout
from minicnn.layers.flatten import Flatten
from minicnn.layers.input import Input, InputLayer
from minicnn.layers.pooling import AveragePooling2D, GlobalAveragePooling2D, MaxPooling2D
from minicnn.layers.rescaling import Rescaling

__all__ = [
    "GELU",
    "Activation",
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "Input",
    "InputLayer",
    "Layer",
    "LeakyReLU",
    "Linear",
    "MaxPooling2D",
    "Node",
    "RandomCrop",
    "RandomCutout",
    "RandomFlip",
    "RandomTranslation",
    "ReLU",
    "Rescaling",
    "Softmax",
]
