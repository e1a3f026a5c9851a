"""The baseline as functions, for the command line and the tests; `examples/baseline_sgd.py` spells it out."""

from minicnn import layers
from minicnn.layers import Input
from minicnn.models import Model


def model_s(classes: int = 10) -> Model:
    """Build Model S: three stages of convolution and pooling, two dense layers; for 10 classes 156,074 weights.

    Parameters
    ----------
    classes : int
        The number of outputs.

    Returns
    -------
    Model
        Not compiled; takes batches (N, 32, 32, 3) of bytes or floats from 0 to 255.

    Raises
    ------
    ArgumentError
        If `classes` is not a positive integer.

    Examples
    --------
    >>> from minicnn.baseline import model_s
    >>> model_s()
    <Model "model_s": 11 layers, 156,074 weights>
    """
    inputs = Input((32, 32, 3))
    x = layers.Rescaling(1.0 / 255)(inputs)
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, activation="relu", padding="same")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="relu")(x)
    return Model(inputs, layers.Dense(classes, activation="softmax")(x), name="model_s")
