"""Fine-tuning against the bare arithmetic, and against the conventional training loop.

    python benchmarks/training.py bare [--architecture vgg16] [--size 224] [--batch 16] [--repeats 5]
    python benchmarks/training.py conventional --images DIR [--size 128] [--epochs 1] [--repeats 1]

``bare``: our epoch, augmentation and reading included, against the same optimizer steps of the same network on one
resident random batch, in the same precision and memory layout; as throughput, bare / ours.

``conventional``: one cell from files to test accuracy, against ImageFolder + DataLoader + PIL transforms + float32 NCHW
and ``.item()`` a step on the same images, the same by-layer widths at ratio 0.4, head and epochs. DIR holds train/,
val/ and test/ with a folder a class in each. Ours decodes the images and fills the store within its time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from paired import backbone, compare, machine

import numpy as np
import torch
from torch.nn import functional
from winnow.data import datasets
from winnow.importance import masks
from winnow.networks import surgery
from winnow.training import loop
from winnow.data.images import load_images
from winnow.data.store import Store, write_store
from winnow.training.loop import Images

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
AUGMENTATION = {"scale": [0.35, 1.0], "ratio": [0.75, 4 / 3], "flip": True}


def recipe(arguments: argparse.Namespace, epochs: int) -> dict:
    return {
        "epochs": epochs,
        "batch_size": arguments.batch,
        "optimizer": "sgd",
        "learning_rate": 0.001,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "constant",
        "warmup_epochs": 0,
        "label_smoothing": 0.0,
        "augmentation": AUGMENTATION,
        "precision": "auto",
        "evaluate_every": 1,
    }


def cell(architecture: str, classes: int) -> torch.nn.Module:
    """The by-layer network at ratio 0.4, with drawn weights."""
    _, whole, names, scores = backbone(architecture, "gap", 10)
    keep = masks.mask(names, scores, "layer", 0.4).keep
    return surgery.pruned(whole, keep, classes, "inherited", 0)


def bare(arguments: argparse.Namespace) -> None:
    size, batch, steps = arguments.size, arguments.batch, 4
    stored = round(size * 8 / 7)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch * steps, stored, stored, 3), np.uint8))
    images = Images(pixels, torch.arange(batch * steps) % 102, size, MEAN, STD)
    network = cell(arguments.architecture, 102)
    precision = loop.precision_for("auto", "cpu", surgery.cost(network, size)[1])
    print(f"batch {batch}, {size} pixels, {precision}")

    def ours():
        loop.train(
            network,
            images,
            np.arange(batch * steps),
            np.arange(0),
            recipe(arguments, 1),
            0,
            precision,
            report=lambda line: None,
        )

    resident = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 102
    plain = cell(arguments.architecture, 102).to(memory_format=torch.channels_last).train()
    optimizer = loop.optimizer_for(plain, recipe(arguments, 1))

    def steps_alone():
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = plain(resident)
            functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

    compare("bare step / training (share of the bare step's throughput)", steps_alone, ours, arguments.repeats)


def conventional(arguments: argparse.Namespace) -> None:
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    size, stored = arguments.size, round(arguments.size * 8 / 7)
    settings = recipe(arguments, arguments.epochs)

    def ours():
        with tempfile.TemporaryDirectory() as folder:
            dataset = {"source": "folder", "path": str(arguments.images)}
            source = datasets.SOURCES["folder"](dataset, [])
            manifest = {"classes": source.classes, "store_size": stored, "image_size": size, "spec": {}}
            write_store(
                Path(folder),
                datasets.decoded(source.candidates, stored, arguments.threads, []),
                lambda entries: datasets.assign(dataset, source.classes, entries),
                manifest,
            )
            store = Store.open(Path(folder))
            images = load_images(store, MEAN, STD, "cpu")
            network = cell(arguments.architecture, len(store.classes))
            precision = loop.precision_for("auto", "cpu", surgery.cost(network, size)[1])
            rows = [store.rows(split) for split in ("train", "val", "test")]
            trained = loop.train(network, images, rows[0], rows[1], settings, 0, precision, report=lambda line: None)
            network.load_state_dict(trained.state)
            loop.evaluate(network, images, rows[2], precision)

    def theirs():
        normal = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        crops = transforms.RandomResizedCrop(size, (0.35, 1.0))
        views = {
            "train": transforms.Compose([crops, transforms.RandomHorizontalFlip(), *normal]),
            "val": transforms.Compose([transforms.Resize(stored), transforms.CenterCrop(size), *normal]),
        }
        views["test"] = views["val"]
        loaders = {
            split: DataLoader(
                ImageFolder(arguments.images / split, view),
                arguments.batch,
                shuffle=split == "train",
                num_workers=arguments.threads,
            )
            for split, view in views.items()
        }
        network = cell(arguments.architecture, len(loaders["train"].dataset.classes))
        optimizer = torch.optim.SGD(network.parameters(), 0.001, momentum=0.9, weight_decay=5e-4, nesterov=True)

        def judge(loader):
            network.eval()
            with torch.inference_mode():
                return sum((network(x).argmax(1) == y).sum().item() for x, y in loader)

        for _ in range(arguments.epochs):
            network.train()
            for x, y in loaders["train"]:
                optimizer.zero_grad()
                loss = functional.cross_entropy(network(x), y)
                loss.backward()
                optimizer.step()
                loss.item()
            judge(loaders["val"])
        judge(loaders["test"])

    print(f"batch {arguments.batch}, {size} pixels, {arguments.epochs} epochs")
    compare("conventional loop / ours, one cell end to end", theirs, ours, arguments.repeats, warm_up=False)


def main(arguments: argparse.Namespace) -> None:
    machine(arguments.threads)
    {"bare": bare, "conventional": conventional}[arguments.what](arguments)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("what", choices=["bare", "conventional"])
    result.add_argument("--architecture", default="vgg16")
    result.add_argument("--images", type=Path)
    result.add_argument("--size", type=int, default=224)
    result.add_argument("--batch", type=int, default=16)
    result.add_argument("--epochs", type=int, default=1)
    result.add_argument("--repeats", type=int, default=5)
    result.add_argument("--threads", type=int, default=os.cpu_count())
    return result


if __name__ == "__main__":
    main(parser().parse_args())
