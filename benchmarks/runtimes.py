"""Which runtimes take the ONNX files: old ones and new, each in an environment of its own, as a Markdown table.

    python benchmarks/runtimes.py [FOLDER]

FOLDER gets the environments and the files, and keeps them. Each family is written with drawn weights and statistics
that fit them; a runtime answers for one image and for three, and the largest difference of a logit from PyTorch's is
said as a share of the largest logit, or of 1 where that is less. So is what PyTorch itself differs by in double
precision: what float32 leaves open.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import numpy as np
import onnx
import torch
from torch import nn

from winnow.exports import graphs
from winnow.networks import backbones

# Name → what is installed.
RUNTIMES = {
    "onnxruntime 1.16.3": ["onnxruntime==1.16.3", "numpy<2"],
    "onnxruntime 1.17.3": ["onnxruntime==1.17.3", "numpy<2"],
    "OpenCV 4.6.0": ["opencv-python-headless==4.6.0.66", "numpy<2"],
    "OpenCV, newest": ["opencv-python-headless"],
    "OpenVINO 2026.4.1": ["openvino==2026.4.1"],
}
# A network of each family, its head and the side of its images.
FAMILIES = {
    "vgg_digits": ("gap", 8),
    "vgg11_bn": ("classifier", 64),
    "alexnet": ("classifier", 64),
    "squeezenet1_1": ("classifier", 64),
    "resnet18": ("classifier", 64),
    "resnext50_32x4d": ("classifier", 64),
    "densenet121": ("classifier", 64),
    "googlenet": ("classifier", 64),
    "inception_v3": ("classifier", 96),
    "mobilenet_v2": ("classifier", 64),
    "mobilenet_v3_small": ("classifier", 64),
    "efficientnet_b0": ("classifier", 64),
    "regnet_y_400mf": ("classifier", 64),
}
BATCHES = (1, 3)
# Runs in the other environment: for each file and batch the difference, or why there is none. A crash takes one along.
ANSWER = """
import importlib.util, json, sys
import numpy as np
path, *batches = sys.argv[1:]
installed = importlib.util.find_spec
if installed("onnxruntime"):
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer = lambda images: session.run(None, {"image": images})[0]
elif installed("openvino"):
    import openvino
    network = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = lambda images: network(images)[0]
else:
    import cv2
    network = cv2.dnn.readNetFromONNX(path)
    def answer(images):
        network.setInput(images)
        return network.forward()
for batch in batches:
    saved = np.load(batch)
    try:
        difference = float(np.abs(answer(saved["images"]) - saved["logits"]).max())
        print(json.dumps(difference / max(1.0, float(np.abs(saved["logits"]).max()))), flush=True)
    except Exception as error:
        print(json.dumps(str(error).splitlines()[0]), flush=True)
"""


def made(name: str, folder: Path) -> tuple[Path, list[Path], float]:
    """A family's file, the images with PyTorch's answers, a file a batch, and by what its answers in float64 differ."""
    head, size = FAMILIES[name]
    network = backbones.initialised(name, head, 10, 0)
    torch.manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Statistics of the images that follow, so that nothing grows or dies from layer to layer.
                module.momentum = None
                nn.init.uniform_(module.bias, -0.2, 0.2)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        network.train()(torch.randn(16, 3, size, size))
    network.eval()
    path = folder / f"{name}.onnx"
    graphs.write(path, network, {"image_size": size, "classes": [str(each) for each in range(10)], "preprocessing": []})
    batches, apart = [], []
    for images in BATCHES:
        noise = torch.randn(images, 3, size, size)
        with torch.inference_mode():
            logits = network(noise).numpy()
            exact = copy.deepcopy(network).double()(noise.double()).numpy()
        apart.append(float(np.abs(exact - logits).max()) / max(1.0, float(np.abs(logits).max())))
        batches.append(folder / f"{name}.{images}.npz")
        np.savez(batches[-1], images=noise.numpy(), logits=logits)
    return path, batches, max(apart)


def environment(name: str, folder: Path) -> Path:
    """The Python of a runtime's environment, which is made if it is not there."""
    place = folder / name.replace(" ", "-").replace(",", "")
    python = place / "bin" / "python"
    if not (place / "installed").exists():
        venv.create(place, clear=True, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *RUNTIMES[name]]
        subprocess.run(command, check=True, timeout=600)
        (place / "installed").touch()
    return python


def differences(python: Path, path: Path, batches: list[Path]) -> list[float | str]:
    """What a runtime's answers differ by, a number a batch, or why there is none."""
    done = subprocess.run([python, "-c", ANSWER, path, *batches], capture_output=True, text=True, timeout=600)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return found + [reason] * (len(batches) - len(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    with tempfile.TemporaryDirectory() as scratch:
        folder = parser.parse_args().folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        pythons = {name: environment(name, folder) for name in RUNTIMES}
        print(f"| network | IR, opset | {' | '.join(pythons)} | PyTorch, float64 |")
        print(f"|---|--:|{'--:|' * (len(pythons) + 1)}")
        for name in FAMILIES:
            path, batches, apart = made(name, folder)
            model = onnx.load(path, load_external_data=False)
            cells = []
            for python in pythons.values():
                found = differences(python, path, batches)
                numbers = [each for each in found if not isinstance(each, str)]
                text = f"{max(numbers):.0e}" if numbers else "no"
                cells.append(text if len(numbers) == len(found) else f"{text}, {len(numbers)} of {len(found)} batches")
            cells = [f"{model.ir_version}, {model.opset_import[0].version}", *cells, f"{apart:.0e}"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
