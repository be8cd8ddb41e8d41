"""What a kept network says of images that no data set holds: files, one after the other, through torch or onnxruntime.

Through onnxruntime no torch is imported.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from winnow.data.preprocessing import Form, decode_all, network_input
from winnow.exports import runtimes
from winnow.files import InputError, first_line
from winnow.networks import descriptions

Item = TypeVar("Item")

# A batch, in pixels: 20 images at 224, of which VGG-16 in float32 takes half a gigabyte.
BATCH_PIXELS = 2**20
BATCH_IMAGES = 256


@dataclasses.dataclass(frozen=True)
class Model:
    """A network that is ready to answer.

    Attributes
    ----------
    path : Path
        Its file.
    classes : list of str
    form : Form
    image_size : int
    mean, std : a float a channel each
        How a file becomes the network's input, see :mod:`winnow.data.preprocessing`.
    logits : function
        (N, channels, image_size, image_size) float32 → (N, classes) float32.
    runtime : str
        What runs it, with its version: "onnxruntime 1.27.0".
    """

    path: Path
    classes: list[str]
    form: Form
    image_size: int
    mean: list[float]
    std: list[float]
    logits: Callable[[np.ndarray], np.ndarray]
    runtime: str

    def probabilities(self, squares: np.ndarray) -> np.ndarray:
        """Of each class, (N, classes) float64, for decoded squares (N, S, S, C) uint8.

        Raises
        ------
        InputError
            If the network's answers are not one number a class: its weights are damaged.
        """
        logits = self.logits(network_input(squares, self.image_size, self.mean, self.std)).astype(np.float64)
        if logits.shape != (len(squares), len(self.classes)) or not np.isfinite(logits).all():
            raise InputError(f"{self.path} does not answer with a number for each class: it is damaged")
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def load(place: Path, onnx: bool = False, threads: int = 0, opener: runtimes.Opener | None = None) -> Model:
    """Open a network.

    Parameters
    ----------
    place
        An exported folder, a cell's folder whose model was kept, or a file of weights: ``.safetensors`` or ``.onnx``.
    onnx
        Take the folder's ONNX file and onnxruntime, not the safetensors file and torch.
    threads
        That onnxruntime may use; 0 for as many as there are cores.
    opener
        What opens the file; None for what opens files of its suffix.

    Raises
    ------
    InputError
        If there is no such file, or it is damaged; the message names it.
    """
    path = place
    if place.is_dir():
        path = place / descriptions.FILES["onnx" if onnx else "weights"]
        if not path.exists():
            why = "export the cell with scripts/export.py" if onnx else "of this cell the model was not kept"
            raise InputError(f"{place} has no {path.name}: {why}")
    elif not place.exists():
        raise InputError(f"{place} does not exist")
    allowed = [".onnx"] if onnx else list(runtimes.RUNTIMES)
    if path.suffix not in allowed:
        raise InputError(
            f"{path} is no model: allowed are files that end in {', '.join(allowed)}, or a folder with one"
        )
    opened = (opener or runtimes.RUNTIMES[path.suffix])(path, threads)
    description = opened.description
    try:
        return Model(
            path,
            [str(name) for name in description["classes"]],
            Form.of(int(description["store_size"]), description["reading"]),
            int(description["image_size"]),
            [float(value) for value in description["mean"]],
            [float(value) for value in description["std"]],
            opened.logits,
            opened.name,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not say how its images are prepared: {first_line(error)}") from None


def batch_size(image_size: int) -> int:
    """How many images a network is given at a time."""
    return max(1, min(BATCH_IMAGES, BATCH_PIXELS // image_size**2))


def predict(
    model: Model, items: Iterable[Item], read: Callable[[Item], bytes], threads: int
) -> Iterator[tuple[Item, np.ndarray | str]]:
    """Every item, in order, with the probabilities of its classes, (classes,) float64, or why there are none.

    A batch of images is in memory at any time. What ``read`` raises is a reason, as is what Pillow raises.
    """
    size = batch_size(model.image_size)
    stream = decode_all(items, read, model.form, threads)
    while batch := list(itertools.islice(stream, size)):
        squares = [result.pixels for _, result in batch if not isinstance(result, str)]
        answers = iter(model.probabilities(np.stack(squares)) if squares else ())
        for item, result in batch:
            yield item, result if isinstance(result, str) else next(answers)
