"""What int8 costs: networks trained on the digits or on photographs, and quantized: a row each of a Markdown table.

    python benchmarks/int8.py [NAME ...] [--photographs FOLDER [--weights SQUEEZENET.pt]]
    python benchmarks/int8.py --kept results/models/solar/…/0 ... [--ways]

The digits are scikit-learn's, at 32 pixels, a fifth of them to decide and two fifths to test; networks are trained from
drawn weights for a few epochs. Photographs are a folder with train, val and test, a folder a class in each; SqueezeNet
begins with its published weights there. ``--kept`` takes networks that a workflow has trained and kept, with the images
of their own data set, which is not in folds; with ``--ways`` a row each of the ways to make a file, and what the biases
that make up for rounding do to it: of the test images so many are lost, in so many does the answer change, and so far
are answers from floating point's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT)]

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from tests.unit import programs
from winnow.data import preprocessing
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import certificates, graphs, prediction, quantization, runtimes
from winnow.networks import backbones, descriptions, models

FAMILIES = ("vgg_digits", "vgg11_bn", "resnet18", "squeezenet1_1", "mobilenet_v2", "efficientnet_b0")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def stored(root: Path, dataset: dict) -> tuple[Store, Split]:
    """The store and the split of a data set, as the workflow makes them."""
    programs.run("decode", {"name": "d", "dataset": dataset}, "--output", root / "store")
    where = ["--dataset", root / "store", "--output", root / "split.parquet"]
    programs.run("split", {"dataset": dataset, "fold": None}, *where)
    store = Store.open(root / "store")
    return store, Split.open(root / "split.parquet", store)


def digits(root: Path) -> dict:
    found = load_digits()
    for number, (image, label) in enumerate(zip(found.images, found.target, strict=True)):
        path = root / "images" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC).save(path)
    return {"source": "folder", "path": str(root / "images"), "split": {"val": 0.2, "test": 0.4}}


def trained(network: nn.Module, store: Store, rows: np.ndarray, size: int, epochs: int, rate: float) -> nn.Module:
    """A network after a few epochs of Adam."""
    torch.manual_seed(0)
    views = torch.from_numpy(preprocessing.network_input(store.read(rows), size, MEAN, STD))
    labels = torch.from_numpy(store.labels[rows])
    optimizer = torch.optim.Adam(network.parameters(), rate)
    batches = epochs * (len(rows) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, batches)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(rows))
        for start in range(0, len(rows) - 31, 32):
            batch = order[start : start + 32]
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(views[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def described(name: str, store: Store, size: int) -> dict:
    """What a network that was trained here has to be known of."""
    return {
        "architecture": name,
        "head": "gap" if name == "vgg_digits" else "classifier",
        "classes": store.classes,
        "store_size": store.images.shape[1],
        "reading": preprocessing.Form(store.images.shape[1]).reading,
        "image_size": size,
        "mean": MEAN,
        "std": STD,
        "preprocessing": [],
    }


def row(folder: Path, name: str, network: nn.Module, description: dict, store: Store, split: Split) -> str:
    """The network's row: bytes in floating point, share in int8, what was taken, accuracies on the test images."""
    folder.mkdir()
    models.save(folder, network, description)
    fp32 = folder / descriptions.FILES["onnx"]
    graphs.write(fp32, network, description)
    (folder / descriptions.DESCRIPTION).unlink()
    record = quantization.write(folder, network, description, store, split, 2)
    rows = split.rows("test")
    labels = store.labels[rows]
    before = certificates.answers(prediction.load(fp32), store, rows).argmax(1)
    tried = "; ".join(f"{each['scheme']}: {each['lost']} lost" for each in record["tried"])
    start = f"| {name} | {description['image_size']} | {fp32.stat().st_size / 1e6:.2f} MB |"
    if "left_out" in record:
        return f"{start} | {100 * (before == labels).mean():.1f} % | | | | {tried}; {record['left_out']} |"
    path = folder / descriptions.FILES["int8"]
    after = certificates.answers(prediction.load(path), store, rows).argmax(1)
    elsewhere = ""
    if opener := runtimes.further().get("openvino"):
        by_it = certificates.answers(prediction.load(path, opener=opener), store, rows).argmax(1)
        elsewhere = f"{100 * (before == by_it).mean():.1f} %"
    return (
        f"{start} {100 * path.stat().st_size / fp32.stat().st_size:.1f} % | {100 * (before == labels).mean():.1f} % | "
        f"{100 * (after == labels).mean():.1f} % | {100 * (before == after).mean():.1f} % | {elsewhere} | {tried} |"
    )


def opened(place: Path) -> tuple[str, nn.Module, dict, Store, Split]:
    """A network that a workflow has kept, by its cell, with what is known of it, and its images."""
    network, description = models.load(place)
    results = next(above for above in place.resolve().parents if above.name == "models").parent
    name, *cell = place.resolve().relative_to(results / "models").parts
    store = Store.open(results / "datasets" / name)
    split = Split.open(results / "splits" / name / "only.parquet", store)
    return "/".join(cell), network, description | {"preprocessing": []}, store, split


def ways(folder: Path, name: str, network: nn.Module, description: dict, store: Store, split: Split) -> Iterator[str]:
    """A row a way, as weights are rounded and with biases that make up for it."""
    folder.mkdir()
    base, made = folder / "base.onnx", folder / "made.onnx"
    graphs.write(base, network, description, quantization.OPSET)
    rows = split.rows("test")
    labels = store.labels[rows]
    before = certificates.answers(prediction.load(base), store, rows)
    right = before.argmax(1) == labels
    images = quantization.spread(split.rows("train"), quantization.CALIBRATED)
    for scheme in quantization.SCHEMES:
        found = []
        for centre in (lambda *_: None, quantization.centring.centre):
            reader = quantization._Reader(store, images, description)
            with mock.patch.object(quantization.centring, "centre", centre):
                quantization.quantize(base, made, scheme, reader, description)
            after = certificates.answers(prediction.load(made), store, rows)
            lost = int(right.sum()) - int((after.argmax(1) == labels).sum())
            changed = int((before.argmax(1) != after.argmax(1)).sum())
            found.append(f"{lost}, {changed}, {quantization.divergence(before, after):.4f}")
        yield f"| {name} | {scheme.name} | {len(rows)} | {' | '.join(found)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of torchvision's (default: {', '.join(FAMILIES)})")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="SqueezeNet 1.1's")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--kept", type=Path, nargs="+", metavar="FOLDER", default=[])
    parser.add_argument("--ways", action="store_true", help="of each that is kept")
    arguments = parser.parse_args()
    if arguments.ways:
        print("| network | way | test images | lost, changed, divergence as rounded | made up for |")
        print("|---|---|--:|--:|--:|")
        with tempfile.TemporaryDirectory() as scratch:
            for number, place in enumerate(arguments.kept):
                for line in ways(Path(scratch) / str(number), *opened(place)):
                    print(line, flush=True)
        return
    print("| network | pixels | fp32 | int8 | accuracy | in int8 | same answer | by OpenVINO | tried in turn: lost |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|---|")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for number, place in enumerate(arguments.kept):
            print(row(root / str(number), *opened(place)), flush=True)
        if arguments.kept:
            return
        if arguments.photographs:
            parts = {part: part for part in ("train", "val", "test")}
            dataset = {"source": "folder", "path": str(arguments.photographs.resolve()), "splits": parts}
            size = 128
        else:
            dataset, size = digits(root), 32
        store, split = stored(root, dataset | {"store_size": size, "image_size": size})
        for name in arguments.names or FAMILIES:
            head = "gap" if name == "vgg_digits" else "classifier"
            torch.manual_seed(0)
            network = backbones.initialised(name, head, len(store.classes), 0)
            rate = 1e-3
            if name == "squeezenet1_1" and arguments.weights:
                state = torch.load(arguments.weights, weights_only=True)
                own = {key: value for key, value in state.items() if not key.startswith("classifier.1")}
                network.load_state_dict(network.state_dict() | own)
                rate = 2e-4
            network = trained(network, store, split.rows("train"), size, arguments.epochs, rate)
            print(row(root / name, name, network, described(name, store, size), store, split), flush=True)


if __name__ == "__main__":
    main()
