"""LiteRT: ONNX files of networks trained on the digits as .tflite files, in floating point and int8, run on all test
images: a row each of a Markdown table.

    python benchmarks/litert.py [NAME ...] [--folder FOLDER]

onnx2tf converts, in an environment of its own: it asks for TensorFlow, and for older packages than the pinned ones.
int8 is TensorFlow's, a scale a channel, calibrated by the images that calibrate model.int8.onnx; both files take and
give float32, images (batch, side, side, channels). FOLDER gets the environment and the files, and keeps them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from int8 import MEAN, STD, digits, stored, trained

import numpy as np
import torch

from winnow.data.preprocessing import network_input
from winnow.exports import graphs, quantization
from winnow.networks import backbones

NAMES = ("vgg_digits",)
PACKAGES = ("onnx2tf==1.29.24", "ai-edge-litert==2.1.0", "tensorflow-cpu==2.19.0")
SIZE, BATCH = 32, 64
# Run in the other environment: logits of all images, by one file.
ANSWER = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
path, images, answers, batch = sys.argv[1:]
images, batch, found = np.load(images), int(batch), []
interpreter = Interpreter(model_path=path)
for start in range(0, len(images), batch):
    part = images[start : start + batch]
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], part.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], part)
    interpreter.invoke()
    found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
np.save(answers, np.concatenate(found))
"""


def environment(folder: Path) -> Path:
    """The Python of the converter's environment, which is made if it is not there."""
    place = folder / "environment"
    python = place / "bin" / "python"
    if not (place / "installed").exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, place], check=True)
        # What it asks for is TensorFlow as it is built for GPUs.
        (place / "instead").write_text('tensorflow; sys_platform == "none"\n')
        command = [uv, "pip", "install", "--quiet", "--python", python, "--override", place / "instead", *PACKAGES]
        subprocess.run(command, check=True, timeout=900)
        (place / "installed").touch()
    return python


def converted(python: Path, onnx: Path, calibration: Path, folder: Path) -> dict[str, Path]:
    """The .tflite files of an ONNX file: ``float`` and ``int8``, which the images in a .npy file calibrate."""
    ones, zeros = json.dumps([[[[1.0] * len(STD)]]]), json.dumps([[[[0.0] * len(MEAN)]]])
    command = [python, "-m", "onnx2tf", "-i", onnx, "-o", folder, "-nuo", "-n", "-v", "error"]
    command += ["-oiqt", "-qt", "per-channel", "-cind", graphs.INPUT, calibration, zeros, ones]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900)
    if done.returncode:
        raise SystemExit(f"error: onnx2tf: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    suffixes = {"float": "float32", "int8": "integer_quant"}
    return {kind: folder / f"{onnx.stem}_{suffix}.tflite" for kind, suffix in suffixes.items()}


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        python = environment(folder)
        root = Path(scratch) / "digits"
        store, split = stored(root, digits(root) | {"store_size": SIZE, "image_size": SIZE})
        rows = {"test": split.rows("test"), "calibration": quantization.spread(split.rows("train"), 256)}
        files = {part: folder / f"{part}.npy" for part in rows}
        images = {part: network_input(store.read(each), SIZE, MEAN, STD) for part, each in rows.items()}
        for part, file in files.items():
            np.save(file, images[part].transpose(0, 2, 3, 1))
        labels = store.labels[rows["test"]]
        print("| network | .tflite | bytes | accuracy | same answer as PyTorch | largest difference of a logit |")
        print("|---|---|--:|--:|--:|--:|")
        for name in arguments.names or NAMES:
            head = "gap" if name == "vgg_digits" else "classifier"
            torch.manual_seed(0)
            network = backbones.initialised(name, head, len(store.classes), 0)
            network = trained(network, store, split.rows("train"), SIZE, arguments.epochs, 1e-3)
            with torch.inference_mode():
                reference = network(torch.from_numpy(images["test"])).numpy()
            onnx = folder / f"{name}.onnx"
            described = {"image_size": SIZE, "classes": store.classes, "preprocessing": []}
            graphs.write(onnx, network, described)
            for kind, path in converted(python, onnx, files["calibration"], folder / name).items():
                answers = folder / f"{name}.{kind}.npy"
                subprocess.run([python, "-c", ANSWER, path, files["test"], answers, str(BATCH)], check=True)
                found = np.load(answers)
                same = int((found.argmax(1) == reference.argmax(1)).sum())
                print(
                    f"| {name} | {kind} | {100 * path.stat().st_size / onnx.stat().st_size:.1f} % of "
                    f"{onnx.stat().st_size / 1e6:.2f} MB | {100 * (found.argmax(1) == labels).mean():.1f} % | "
                    f"{same} of {len(labels)} | {np.abs(found - reference).max() / np.abs(reference).max():.0e} |",
                    flush=True,
                )


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("names", nargs="*", metavar="NAME", help=f"of torchvision's (default: {', '.join(NAMES)})")
    result.add_argument("--folder", type=Path, metavar="FOLDER")
    result.add_argument("--epochs", type=int, default=8)
    return result


if __name__ == "__main__":
    main(parser().parse_args())
