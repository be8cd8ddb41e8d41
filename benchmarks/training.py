"""Fine-tuning against the bare arithmetic, and against the conventional training loop.

    python benchmarks/training.py bare [--architecture vgg16] [--size 224] [--batch 16] [--round-to 8] [--repeats 5]
                                       [--precision fp32] [--device cuda]
    python benchmarks/training.py conventional --images DIR [--architecture resnet18] [--size 128] [--epochs 1]
                                       [--precision fp32] [--repeats 1] [--device cuda]

``bare``: our epoch, augmentation and reading included, against the same optimizer steps of the same network on one
resident random batch, in the same precision and memory layout; as throughput, bare / ours.

``conventional``: one cell from files to test accuracy, against ImageFolder + DataLoader + PIL transforms + float32 NCHW
and ``.item()`` a step on the same images, the same by-layer widths at ratio 0.4, head and epochs. DIR holds train/,
val/ and test/ with a folder a class in each. Ours decodes the images and fills the store within its time; it is also
held against its own arithmetic, steps and forward passes on a resident random batch, and one such decoding.

With ``--precision fp32``, and ``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`` before the command, a processor that
has arithmetic for bfloat16 computes as one that has none.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import tempfile
from pathlib import Path

from paired import Comparison, backbone, compare, finish, machine, seconds

import numpy as np
import torch
from torch.nn import functional
from winnow.data import datasets
from winnow.data.images import Images, load_images
from winnow.data.preprocessing import Form
from winnow.data.splits import PARTS
from winnow.data.store import Store, write_store
from winnow.importance import masks
from winnow.networks import surgery
from winnow.tables import read_table
from winnow.training import judging, loop
from winnow.training.precision import precision_for

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
AUGMENTATION = {"scale": [0.35, 1.0], "ratio": [0.75, 4 / 3], "flip": True}


def recipe(batch: int, epochs: int) -> dict:
    return {
        "epochs": epochs,
        "batch_size": batch,
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


_backbone = functools.cache(backbone)


def cell(
    architecture: str, classes: int, head: str | None = None, ratio: float = 0.4, round_to: int | None = None
) -> torch.nn.Module:
    """The by-layer network at a ratio, with drawn weights; a VGG's head is the small one, unless one is named."""
    head = head or ("gap" if architecture.startswith("vgg") else "classifier")
    _, whole, names, scores = _backbone(architecture, head, 10)
    keep = masks.mask(names, scores, "layer", ratio, round_to=round_to).keep if ratio else None
    return surgery.pruned(whole, keep, classes, "inherited", 0)


def stored_size(size: int) -> int:
    return round(size * 8 / 7)


class Arithmetic:
    """What a training cannot do without: its optimizer steps and its forward passes, on one resident random batch.

    Parameters
    ----------
    network
        On any device; it is put on ``device``, channels last, and trained.
    """

    def __init__(self, network: torch.nn.Module, size: int, batch: int, precision: str, device: str):
        self.network = network.to(device, memory_format=torch.channels_last).train()
        self.optimizer = loop.optimizer_for(self.network, recipe(batch, 1))
        self.device, self.precision, self.size = device, precision, size
        self.images = self._noise(batch)
        self.labels = torch.arange(batch, device=device) % 2

    def _noise(self, count: int) -> torch.Tensor:
        noise = torch.randn(count, 3, self.size, self.size, device=self.device)
        return noise.contiguous(memory_format=torch.channels_last)

    def steps(self, count: int) -> None:
        """So many optimizer steps."""
        self.network.train()
        for _ in range(count):
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
                logits = self.network(self.images)
            functional.cross_entropy(logits.float(), self.labels).backward()
            self.optimizer.step()
        finish(self.device)

    def judge(self, images: int) -> None:
        """Forward passes of at least so many images, in evaluation's batches."""
        self.network.eval()
        batch = judging.evaluation_batch(self.device, self.size)
        noise = self._noise(min(batch, images))
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            for _ in range(0, images, batch):
                self.network(noise)
        finish(self.device)


def bare(
    architecture: str,
    size: int,
    batch: int,
    repeats: int,
    device: str,
    wanted: str = "auto",
    steps: int = 4,
    head: str | None = None,
    ratio: float = 0.4,
    round_to: int | None = None,
) -> Comparison:
    """One epoch of so many steps against the bare steps."""
    stored = stored_size(size)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch * steps, stored, stored, 3), np.uint8))
    images = Images(pixels.to(device), torch.arange(batch * steps, device=device) % 102, size, MEAN, STD)
    network = cell(architecture, 102, head, ratio, round_to)
    precision = precision_for(wanted, device, surgery.cost(cell(architecture, 102, head, 0.0), size)[1])
    network.to(device)
    rounded = f", kept counts a multiple of {round_to}" if round_to else ""
    print(f"{architecture} at {ratio}{rounded}, batch {batch}, {size} pixels, {precision}")

    def ours():
        loop.train(
            network,
            images,
            np.arange(batch * steps),
            np.arange(0),
            recipe(batch, 1),
            0,
            precision,
            report=lambda line: None,
        )
        finish(device)

    arithmetic = Arithmetic(cell(architecture, 102, head, ratio, round_to), size, batch, precision, device)
    name = "bare step / training (share of the bare step's throughput)"
    return compare(name, lambda: arithmetic.steps(steps), ours, repeats)


@dataclasses.dataclass(frozen=True)
class EndToEnd:
    """One cell from files to test accuracy, so many times.

    Attributes
    ----------
    conventional : Comparison
        The conventional loop / ours.
    arithmetic : Comparison
        Ours / its own arithmetic and the decoding.
    decoding : list of float
        What of ours, in seconds, went into decoding and storing the images.
    """

    conventional: Comparison
    arithmetic: Comparison
    decoding: list[float]


def conventional(
    folder: Path,
    architecture: str,
    size: int,
    batch: int,
    epochs: int,
    repeats: int,
    device: str,
    threads: int,
    wanted: str = "auto",
) -> EndToEnd:
    """A cell end to end, both ways, and its arithmetic."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    stored = stored_size(size)
    settings = recipe(batch, epochs)
    decoding: list[float] = []

    def store(directory: Path) -> None:
        dataset = {"source": "folder", "path": str(folder)}
        source = datasets.SOURCES["folder"](dataset, [])
        manifest = {"classes": source.classes, "store_size": stored, "image_size": size, "spec": {}}
        images = datasets.decoded(source, Form(stored), threads, [], [])
        write_store(directory, images, manifest, source.count)

    def ours():
        with tempfile.TemporaryDirectory() as directory:
            decoding.append(seconds(lambda: store(Path(directory))))
            opened = Store.open(Path(directory))
            images = load_images(opened, MEAN, STD, device)
            network = cell(architecture, len(opened.classes))
            precision = precision_for(wanted, device, surgery.cost(network, size)[1])
            network.to(device)
            parts = np.array(read_table(opened.directory / "index.parquet", "index")["official"].to_pylist())
            rows = [np.flatnonzero(parts == part) for part in PARTS]
            trained = loop.train(network, images, rows[0], rows[1], settings, 0, precision, report=lambda line: None)
            network.load_state_dict(trained.state)
            judging.evaluate(network, images, rows[2], precision)

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
                ImageFolder(folder / split, view),
                batch,
                shuffle=split == "train",
                num_workers=threads,
                pin_memory=device == "cuda",
            )
            for split, view in views.items()
        }
        network = cell(architecture, len(loaders["train"].dataset.classes)).to(device)
        optimizer = torch.optim.SGD(network.parameters(), 0.001, momentum=0.9, weight_decay=5e-4, nesterov=True)

        def judge(loader):
            network.eval()
            with torch.inference_mode():
                return sum((network(x.to(device)).argmax(1) == y.to(device)).sum().item() for x, y in loader)

        for _ in range(epochs):
            network.train()
            for x, y in loaders["train"]:
                optimizer.zero_grad()
                loss = functional.cross_entropy(network(x.to(device)), y.to(device))
                loss.backward()
                optimizer.step()
                loss.item()
            judge(loaders["val"])
        judge(loaders["test"])

    print(f"batch {batch}, {size} pixels, {epochs} epochs")
    counts = [sum(1 for _ in (folder / split).glob("*/*")) for split in ("train", "val", "test")]
    classes = sum(1 for _ in (folder / "train").iterdir())
    own = cell(architecture, classes)
    precision = precision_for(wanted, device, surgery.cost(own, size)[1])
    bare = Arithmetic(own, size, batch, precision, device)

    def arithmetic():
        bare.steps(round(epochs * counts[0] / batch))
        for _ in range(epochs):
            bare.judge(counts[1])
        bare.judge(counts[2])

    if device == "cuda":
        # A process's first kernels are loaded here: neither of the two is to pay for both.
        for known in ("bf16", "fp32"):
            Arithmetic(cell(architecture, classes), size, batch, known, device).steps(1)
    name = f"conventional loop / ours, one cell end to end, {epochs} epochs, {precision}"
    comparison = compare(name, theirs, ours, repeats, warm_up=False)
    print(f"of ours, decoding and storing: {', '.join(f'{spent:.3g} s' for spent in decoding)}")
    pairs = [(total, seconds(arithmetic) + spent) for (_, total), spent in zip(comparison.pairs, decoding, strict=True)]
    itself = Comparison(f"ours / its arithmetic and one decoding, {epochs} epochs, {precision}", pairs)
    print(itself)
    return EndToEnd(comparison, itself, decoding)


def main(arguments: argparse.Namespace) -> None:
    machine(arguments.threads)
    what = (arguments.architecture, arguments.size, arguments.batch)
    if arguments.what == "bare":
        bare(*what, arguments.repeats, arguments.device, arguments.precision, round_to=arguments.round_to)
    else:
        how = (arguments.epochs, arguments.repeats, arguments.device, arguments.threads, arguments.precision)
        conventional(arguments.images, *what, *how)


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
    result.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of ours")
    result.add_argument("--round-to", type=int, metavar="N", help="of bare: kept counts are multiples of it")
    result.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
