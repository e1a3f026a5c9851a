"""Models and weights in other frameworks' files: Keras's and PyTorch's, read and written, and ONNX, written."""

from minicnn.foreign.keras import load_keras_model, load_keras_weights, save_keras_model, save_keras_weights
from minicnn.foreign.onnx import export_onnx
from minicnn.foreign.torch import load_torch_weights, save_torch_weights

__all__ = [
    "export_onnx",
    "load_keras_model",
    "load_keras_weights",
    "load_torch_weights",
    "save_keras_model",
    "save_keras_weights",
    "save_torch_weights",
]
