"""What runs a network's file: one function a kind of file, each of which imports its own library and no other."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from winnow.files import InputError, first_line
from winnow.networks import descriptions


class Opened(NamedTuple):
    """A file that is ready to answer.

    Attributes
    ----------
    logits : function
        (N, channels, image_size, image_size) float32 → (N, classes) float32.
    description : dict
        That the file carries.
    name : str
        Of what runs it, with its version: "onnxruntime 1.27.0".
    """

    logits: Callable[[np.ndarray], np.ndarray]
    description: dict[str, Any]
    name: str


# Opens a file, to be run by so many threads, 0 for as many as there are cores.
Opener = Callable[[Path, int], Opened]


def open_weights(path: Path, threads: int) -> Opened:
    """A file of weights, by PyTorch, which has its own threads."""
    import torch

    from winnow.networks import models

    network, description = models.load(path)

    @torch.inference_mode()
    def logits(images: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(images)).numpy()

    return Opened(logits, description, f"torch {torch.__version__}")


def open_onnx(path: Path, threads: int) -> Opened:
    """An ONNX file, in floating point or int8, by onnxruntime."""
    import onnxruntime

    descriptions.check_file(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # What is wrong is said once, by the exception.
    options.intra_op_num_threads = threads
    with _failing(path, "read", "onnxruntime"):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name, metadata = session.get_inputs()[0].name, session.get_modelmeta().custom_metadata_map
    description = descriptions.unpack(metadata.get(descriptions.KEY), path)
    descriptions.check_description(path, description)

    def logits(images: np.ndarray) -> np.ndarray:
        with _failing(path, "run", "onnxruntime"):
            return session.run(None, {name: images})[0]

    return Opened(logits, description, f"onnxruntime {onnxruntime.__version__}")


def open_openvino(path: Path, threads: int) -> Opened:
    """An ONNX file, in floating point or int8, by OpenVINO.

    In float32: unless told, it takes bfloat16 where the processor has it.
    """
    import openvino

    descriptions.check_file(path)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    with _failing(path, "read", "OpenVINO"):
        core, place = openvino.Core(), ["framework", descriptions.KEY]
        model = core.read_model(path)
        network = core.compile_model(model, "CPU", options)
        text = model.get_rt_info(place).value if model.has_rt_info(place) else None
    description = descriptions.unpack(text, path)
    descriptions.check_description(path, description)

    def logits(images: np.ndarray) -> np.ndarray:
        with _failing(path, "run", "OpenVINO"):
            return network(images)[0]

    return Opened(
        logits, description, f"openvino {openvino.__version__.partition('-')[0]} (INFERENCE_PRECISION_HINT f32)"
    )


def further() -> dict[str, Opener]:
    """Those of :data:`FURTHER` whose package is installed."""
    return {package: opener for package, opener in FURTHER.items() if importlib.util.find_spec(package)}


@contextlib.contextmanager
def _failing(path: Path, what: str, runtime: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Runtimes' errors have no base of their own.
        raise InputError(f"{path} cannot be {what} by {runtime}: {first_line(error)}") from None


# By a file's suffix: what opens it.
RUNTIMES: dict[str, Opener] = {".safetensors": open_weights, ".onnx": open_onnx}

# By its package, which only an extra has: what else opens an ONNX file.
FURTHER: dict[str, Opener] = {"openvino": open_openvino}
