"""What is measured: tasks, the networks and convolutions in them, and the programs that do them."""

from typing import NamedTuple

PROGRAMS = ("minicnn", "torch", "torch channels_last", "torch compiled", "keras")
PLAIN = PROGRAMS[:3]  # those that start at once: enough where many tasks are compared


class Network(NamedTuple):
    """Stages of convolutions, given by their filters, each with a pooling behind it; then two dense layers.

    `modern` networks are normalized after each convolution and have dropout before each dense layer; they learn with
    RMSprop, the others with SGD and momentum.
    """

    stages: list[list[int]]
    units: int
    modern: bool = False


NETWORKS = {
    "Model S": Network([[16], [32], [64]], 128),
    "deeper": Network([[32, 32], [64, 64], [128, 128]], 256),
    "Model M": Network([[32, 32], [64, 64], [128, 128]], 256, modern=True),
}


class Convolution(NamedTuple):
    """One layer; torch pads "same" at stride 2 on the other side, which is as much work."""

    size: int
    channels: int
    filters: int
    kernel: int
    strides: int = 1
    padding: str = "same"


CONVOLUTIONS = {
    "5x5, 16 to 32": Convolution(32, 16, 32, 5),
    "3x3 stride 2, 32 to 64": Convolution(32, 32, 64, 3, 2),
    "1x1, 64 to 64": Convolution(16, 64, 64, 1),
    "3x3, 5 to 7": Convolution(32, 5, 7, 3),
    "3x3 valid, 32 to 32": Convolution(32, 32, 32, 3, 1, "valid"),
}


class Task(NamedTuple):
    """`kind` is train, predict or convolution; `name` that of a network or convolution; `width` multiplies filters."""

    kind: str
    name: str
    batch_size: int = 64
    size: int = 32
    width: float = 1

    def __str__(self) -> str:
        kinds = {"train": "training step", "predict": "prediction", "convolution": "convolution"}
        more = f", images of {self.size}" * (self.size != 32) + f", filters x{self.width:g}" * (self.width != 1)
        return f"{self.name}, {kinds[self.kind]}, batch {self.batch_size}{more}"


SECTIONS = {
    "train": [Task("train", "Model S", batch_size) for batch_size in (16, 64, 256)],
    "predict": [Task("predict", "Model S", 256)],
    "deeper": [Task("train", "deeper")],
    "model-m": [Task("train", "Model M")],
    "shapes": [Task("convolution", name) for name in CONVOLUTIONS],
}
GROWTH: dict[str, dict[float, Task]] = {  # the axis along which the training step of Model S grows, and where on it
    "batch size": {size: Task("train", "Model S", batch_size=size) for size in (16, 64, 256, 1024)},
    "image size": {size: Task("train", "Model S", size=size) for size in (16, 32, 64)},
    "filters": {width: Task("train", "Model S", width=width) for width in (0.5, 1, 2)},
}
