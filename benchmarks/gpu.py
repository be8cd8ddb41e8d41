"""The GPU check: what can be said of a GPU only on one, in a few minutes, with one command.

    python benchmarks/gpu.py --output gpu.json [--photos DIR] [--only SECTION ...] [--seconds 400]
    python benchmarks/gpu.py --output gpu.json --device cpu --small

Needs what the stages need (torch, torchvision, Torch-Pruning, requests, pyarrow, …) and pytest; no Snakemake, no
network. Each section is a process with a time of its own: whatever happens to it, the others run, and the file has what
it found until then. ``--photos`` has train/, val/ and test/ with a folder a class in each; without it, photographs are
drawn. ``--small`` tries every line on a small network; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import itertools
import json
import operator
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from paired import Comparison, compare, machine, seconds

import numpy as np
from winnow.files import canonical_json, read_json, write_json
from winnow.runtime import workers

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
MET = {"≥": operator.ge, "≤": operator.le, "=": operator.eq}
# For all sections; their own times grow and shrink with it.
SECONDS = 400.0
# A section that would have less time is not begun.
LEAST_SECONDS = 10.0
# Through one warm worker: the first, and those that find there what it left.
CELLS = 5
# For the last output of a section that was ended.
GRACE_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large the check is. Images are a class's, in training, validation and test."""

    architecture: str = "vgg16"
    head: str = "classifier"
    size: int = 224
    store_size: int = 256
    batch: int = 64
    classes: int = 102
    images: tuple[int, int, int] = (10, 10, 10)
    steps: int = 40  # of an epoch that is compared with the bare steps
    measured: int = 512  # images of a statistics pass
    repeats: int = 3
    epochs: int = 3  # of a cell
    long: int = 4  # of a cell that is interrupted
    conventional: tuple[tuple[int, int], ...] = ((1, 1), (12, 1))  # epochs, and pairs of them
    photo: tuple[int, int] = (500, 375)
    latency: tuple[int, ...] = (1, 32)
    threads: int = os.cpu_count() or 1


SMALL = Sizes("vgg_digits", "gap", 8, 10, 4, 3, (4, 2, 2), 2, 8, 1, 2, 40, ((1, 1),), (40, 30), (1,), 1)


@dataclasses.dataclass
class Check:
    """What a section is given, and where it puts what it finds."""

    device: str
    sizes: Sizes
    work: Path
    photos: Path | None
    file: Path
    figures: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def gpu(self) -> int:
        return int(self.device == "cuda")

    def put(self, name: str, value: Any, wanted: str | None = None, **more: Any) -> None:
        """Keep a figure and print it. ``wanted`` is one of ≥, ≤ and =, a space and a number."""
        met = None
        if wanted is not None:
            sign, limit = wanted.split()
            met = MET[sign](float(value), float(limit))
        self.figures.append({"name": name, "value": value, "wanted": wanted, "met": met} | more)
        write_json(self.file, self.figures)
        print(f"-- {line(self.figures[-1])}")

    def compared(self, comparison: Comparison, wanted: str | None = None, **more: Any) -> None:
        ratios = {"least": comparison.ratios[0], "most": comparison.ratios[-1], "pairs": comparison.pairs}
        self.put(comparison.name, comparison.ratio, wanted, **ratios, **more)

    @property
    def store(self) -> Path:
        return self.work / "store"

    @property
    def split(self) -> Path:
        return self.work / "split.parquet"

    def backbone(self, head: str) -> Path:
        return self.work / "backbones" / head

    def mask(self, head: str, number: int) -> Path:
        return self.work / "masks" / head / f"{number}.parquet"

    def environment(self, warm: bool, at_a_time: int = 1) -> dict[str, str]:
        """Of a job, as the workflow gives it. All sections' parent stands for Snakemake: they share warm workers."""
        found = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        found |= {
            workers.SWITCH: "on" if warm else "off",
            workers.OWNER: str(os.getppid()),
            "WINNOW_LEASES": str(self.work / "leases"),
            "OMP_NUM_THREADS": str(max(1, self.sizes.threads // at_a_time)),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")])),
        }
        if self.gpu:
            found.setdefault("CUDA_VISIBLE_DEVICES", "0")
        return found

    def cell(
        self,
        output: str,
        number: int = 0,
        *,
        head: str | None = None,
        epochs: int | None = None,
        keep: bool = False,
        checkpoint_seconds: float = 1e6,
    ) -> list[str]:
        """The command of the cell of a mask; its folder is ``output``."""

        head, sizes = head or self.sizes.head, self.sizes
        spec = {
            "cell": {"dataset": "drawn", "backbone": head, "criterion": f"random~{number}", "scope": "layer"}
            | {"ratio": 0.4, "round_to": None, "init": "inherited", "seed": 0, "protocol": "one_shot"},
            "recipe": recipe(sizes.batch, epochs or sizes.epochs),
            "code": "0",
        }
        options = ["--spec", canonical_json(spec), "--gpu", self.gpu, "--checkpoint-seconds", checkpoint_seconds]
        options += ["--dataset", self.store, "--split", self.split, "--backbone", self.backbone(head)]
        options += ["--mask", self.mask(head, number)]
        names = ("metrics.json", "history.parquet", "predictions.parquet", "mask.parquet")
        names += ("model.safetensors", "model.json") if keep else ()
        options += ["--output", *(self.work / output / name for name in names)]
        return [sys.executable, str(SCRIPTS / "finetune.py"), *map(str, options)]

    def run(self, command: list[str], warm: bool, at_a_time: int = 1) -> float:
        """Seconds that a job takes, from the start of its process to its end; its output is printed if it fails."""
        start = time.perf_counter()
        job = subprocess.run(
            command, env=self.environment(warm, at_a_time), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        spent = time.perf_counter() - start
        if job.returncode:
            raise RuntimeError(f"{Path(command[1]).name} ended with status {job.returncode}: {job.stdout[-3000:]}")
        return spent

    def metrics(self, output: str) -> dict[str, Any]:
        return read_json(self.work / output / "metrics.json")


def recipe(batch: int, epochs: int) -> dict[str, Any]:
    import training

    return training.recipe(batch, epochs)


def line(figure: dict[str, Any]) -> str:
    """A figure in a line."""
    value = figure["value"]
    text = f"{figure['name']}: {value:.4g}" if isinstance(value, float) else f"{figure['name']}: {value}"
    if "pairs" in figure and len(figure["pairs"]) > 1:
        text += f" ({figure['least']:.3f} to {figure['most']:.3f}, {len(figure['pairs'])} pairs)"
    if figure["wanted"]:
        text += f"; wanted {figure['wanted']}: {'met' if figure['met'] else 'MISSED'}"
    return text


def tests(check: Check) -> None:
    """The tests that need a GPU, where they lie."""
    marked = [path for path in sorted(ROOT.glob("tests/unit/test_*.py")) if "mark.gpu" in path.read_text()]
    report = check.work / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    status = subprocess.run([*command, *map(str, marked)], cwd=ROOT, env=environment).returncode
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case.get("name") for case in cases if case.find("skipped") is not None]
    check.put("exit status of pytest -m gpu", status, "= 0")
    check.put("tests that ran", len(cases) - len(skipped), skipped=skipped)
    for case in bad:
        said = "".join(part.text or "" for part in case).strip()
        check.put(f"failed: {case.get('name')}", said.splitlines()[-1] if said else "", text=said[-3000:])


def prepare(check: Check) -> None:
    """A store of drawn images, backbones of drawn weights, and a by-layer mask at 0.4 for each cell."""
    from winnow import tables
    from winnow.data import splits
    from winnow.data.store import Entry, write_store
    from winnow.importance import masks

    sizes = check.sizes

    side = sizes.store_size

    def drawn(number: int) -> tuple[Entry, np.ndarray]:
        label = number // sum(sizes.images)
        return Entry(str(number), label, None, None, side, side), photograph(number, label, (side, side))

    def write() -> None:
        count = sizes.classes * sum(sizes.images)
        manifest = {"classes": [f"class {label}" for label in range(sizes.classes)], "spec": {}}
        manifest |= {"store_size": sizes.store_size, "image_size": sizes.size}
        with ThreadPoolExecutor(sizes.threads) as pool:
            images = pool.map(drawn, range(count))
            written = write_store(check.store, images, manifest, count)
        splits.write(check.split, np.repeat(splits.PARTS, sizes.images).tolist() * sizes.classes, written, {})

    heads = tuple(dict.fromkeys((sizes.head, "gap")))

    def imported(head: str) -> float:
        backbone = {"architecture": sizes.architecture, "head": head, "weights": "random", "mean": MEAN, "std": STD}
        spec = canonical_json({"name": head, "backbone": backbone, "code": "0"})
        command = [sys.executable, str(SCRIPTS / "import_backbone.py"), "--spec", spec, "--output"]
        return check.run([*command, str(check.backbone(head))], warm=False)

    with ThreadPoolExecutor(len(heads)) as pool:
        imports = pool.map(imported, heads)
        check.put("seconds to draw and store the images", seconds(write))
        for head, spent in zip(heads, imports, strict=True):
            check.put(f"seconds to import the backbone with the head {head}, all at once", spent)
    for head in heads:
        layers = read_json(check.backbone(head) / "manifest.json")["layers"]
        names = np.repeat([layer["layer"] for layer in layers], [layer["filters"] for layer in layers])
        index = np.concatenate([np.arange(layer["filters"]) for layer in layers])
        for number in range(CELLS):
            mask = masks.mask(names, np.random.default_rng(number).random(names.size), "layer", 0.4)
            rows = {"layer": names, "filter": index, "keep": mask.keep, "rank": mask.rank}
            said = {"requested": 0.4, "achieved": mask.achieved}
            tables.write_table(check.mask(head, number), rows, "mask", said)


def photograph(number: int, label: int, shape: tuple[int, int]) -> np.ndarray:
    """A drawn image, (height, width, 3) uint8: smooth, with a little grain, and of its class's colour."""
    from PIL import Image

    generator = np.random.default_rng((number, label))
    colour = np.random.default_rng(label).integers(0, 128, 3)
    coarse = (generator.integers(0, 128, (9, 12, 3)) + colour).astype(np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize(shape, Image.Resampling.BICUBIC), dtype=np.int16)
    grain = generator.integers(-6, 7, image.shape, np.int16)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def bare(check: Check) -> None:
    """Training against the bare steps: of the unpruned network, and of one at 0.4, with and without rounding."""
    import training

    sizes = check.sizes
    rates = {}
    for ratio, round_to in ((0.0, None), (0.4, None), (0.4, 8)):
        work = (sizes.architecture, sizes.size, sizes.batch, sizes.repeats, check.device)
        found = training.bare(*work, "auto", sizes.steps, sizes.head, ratio, round_to)
        what = f"at ratio {ratio}" + (f", round_to {round_to}" if round_to else "")
        theirs, ours = (
            sizes.batch * sizes.steps / statistics.median(times) for times in zip(*found.pairs, strict=True)
        )
        rates[what] = ours
        named = dataclasses.replace(found, name=f"{found.name}, {what}")
        check.compared(named, "≥ 0.95", images_per_second_bare=theirs, images_per_second=ours)
    check.put("images a second in training", "; ".join(f"{what}: {rate:.0f}" for what, rate in rates.items()))


def passes(check: Check) -> None:
    """The statistics pass against a plain forward; what it takes without its reductions, and with torch's own."""
    import statistics_pass
    import torch
    from paired import finish
    from winnow.importance import statistics as measurement

    sizes = check.sizes
    work = (sizes.architecture, sizes.size, sizes.measured, sizes.repeats, check.device)
    for number, comparison in enumerate(statistics_pass.comparisons(*work)):
        check.compared(comparison, None if number else "≤ 1.10", images=sizes.measured)
    whole = measurement.reduce_maps
    measurement.reduce_maps = lambda maps: maps.new_zeros((4, *maps.shape[:2]), dtype=torch.float64)
    found = next(statistics_pass.comparisons(*work))
    check.compared(dataclasses.replace(found, name=f"{found.name}, nothing reduced"))
    measurement.reduce_maps = whole
    if not check.gpu:
        return
    rows = torch.rand(20, sizes.size**2, 64, device=check.device)
    for reducer in (measurement._on_gpu(), measurement._by_torch):
        spent = min(seconds(lambda reduce=reducer: (reduce(rows), finish(check.device))) for _ in range(5))
        check.put(f"GB/s of a map of 64 filters, by {reducer.__name__}", 4e-9 * rows.numel() / spent)
    measurement._on_gpu = lambda: measurement._by_torch
    found = next(statistics_pass.comparisons(*work))
    check.compared(dataclasses.replace(found, name=f"{found.name}, by torch's reductions"))


def cells(check: Check) -> None:
    """A cell in a process of its own, and cells through one warm worker, against their arithmetic."""
    import training
    from winnow.networks import backbones, surgery
    from winnow.training.precision import precision_for

    sizes = check.sizes
    backbone = backbones.load(check.backbone(sizes.head))
    keep = surgery.read_mask(check.mask(sizes.head, 0), backbone)[0]
    network = surgery.pruned(backbone, keep, sizes.classes, "inherited", 0)
    unpruned = backbones.build(sizes.architecture, sizes.head, sizes.classes)
    precision = precision_for("auto", check.device, surgery.cost(unpruned, sizes.size)[1])
    bare = training.Arithmetic(network, sizes.size, sizes.batch, precision, check.device)
    train, val, test = (sizes.classes * images for images in sizes.images)

    def arithmetic() -> None:
        bare.steps(round(sizes.epochs * train / sizes.batch))
        for _ in range(sizes.epochs):
            bare.judge(val)
        bare.judge(test)

    arithmetic()  # A process's first kernels are loaded here.
    own = statistics.median(seconds(arithmetic) for _ in range(3))

    def cell(output: str, number: int, warm: bool) -> tuple[float, float]:
        return check.run(check.cell(output, number), warm), own

    def parts(outputs: list[str]) -> dict[str, float]:
        found = [check.metrics(output)["seconds"] for output in outputs]
        return {name: statistics.median(one[name] for one in found) for name in found[0]}

    pairs = [cell("cold/0", 0, False)]
    check.compared(Comparison("cold cell / its arithmetic", pairs), parts=parts(["cold/0"]))
    pairs = [cell(f"warm/{number}", number, True) for number in range(CELLS)]
    check.compared(Comparison("a warm worker's first cell / its arithmetic", pairs[:1]), parts=parts(["warm/0"]))
    outputs = [f"warm/{number}" for number in range(1, CELLS)]
    check.compared(Comparison("warm cell / its arithmetic", pairs[1:]), "≤ 1.3", parts=parts(outputs))
    total = Comparison(f"{CELLS} cells of one worker / their arithmetic", [tuple(map(sum, zip(*pairs, strict=True)))])
    check.compared(total)
    metrics = check.metrics(f"warm/{CELLS - 1}")
    check.put("device of a cell", f"{metrics['device']}, {metrics['precision']}, lease {metrics['lease']}")
    same = [check.metrics(f"{kind}/0")["test_loss"] for kind in ("cold", "warm")]
    check.put("test loss of one cell, warm - cold", same[1] - same[0], "= 0")


def side_by_side(check: Check) -> None:
    """Two workers on one device against one, by the throughput of cells."""

    def run(at_a_time: int, kind: str) -> None:
        with ThreadPoolExecutor(at_a_time) as pool:
            list(pool.map(lambda n: check.run(check.cell(f"{kind}/{n}", n), True, at_a_time), range(4)))

    # Both workers start here, and load what they keep.
    run(2, "start")
    name = "four cells, one at a time / two at a time"
    found = compare(name, lambda: run(1, "one"), lambda: run(2, "two"), 1, warm_up=False)
    check.compared(found)
    leases = {check.metrics(f"two/{number}")["lease"] for number in range(4)}
    check.put("devices that they leased", sorted(map(str, leases)))


def photographs(check: Check) -> Path:
    """The folder of photographs: the one that is given, else drawn, once."""
    if check.photos is not None:
        return check.photos
    folder = check.work / "photos"
    if folder.exists():
        return folder
    from PIL import Image
    from winnow.data.splits import PARTS

    sizes = check.sizes
    begun = folder.with_suffix(".begun")
    files = [
        (begun / split / f"{label:03}" / f"{number}.jpg", label)
        for label in range(sizes.classes)
        for split, images in zip(PARTS, sizes.images, strict=True)
        for number in range(images)
    ]

    def write(item: tuple[int, tuple[Path, int]]) -> int:
        number, (path, label) = item
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(number, label, sizes.photo)).save(path, quality=90)
        return path.stat().st_size

    with ThreadPoolExecutor(sizes.threads) as pool:
        written = list(pool.map(write, enumerate(files)))
    begun.rename(folder)
    width, height = sizes.photo
    check.put("photographs", f"{len(written)} JPEGs, {width} x {height}, {sum(written) // len(written)} bytes")
    return folder


def decoding(check: Check) -> None:
    """Images a second of decoding alone, into nothing."""
    from training import stored_size
    from winnow.data import datasets
    from winnow.data.preprocessing import Form

    folder, stored = photographs(check), stored_size(check.sizes.size)
    processes, threads = datasets.PROCESSES, check.sizes.threads
    for workers_, least in ((1, processes), (4, processes), (threads, processes), (threads, threads + 1)):
        source = datasets.SOURCES["folder"]({"source": "folder", "path": str(folder)}, [])
        count = min(source.count, 300 * workers_)
        datasets.PROCESSES = least
        images = datasets.decoded(source, Form(stored), workers_, [], [])
        spent = seconds(lambda images=images, count=count: list(itertools.islice(images, count)))
        images.close()
        kind = "processes" if workers_ >= least else "threads"
        check.put(f"images a second, decoded by {workers_} {kind}", count / spent)
    datasets.PROCESSES = processes


def conventional(check: Check) -> None:
    """Ours against the conventional loop, from files to test accuracy."""
    import training

    sizes, threads, folder = check.sizes, check.sizes.threads, photographs(check)
    # Loaders hand batches over in shared memory, of which a container may have little: two batches each, three loaders.
    batch_bytes = 4 * 3 * sizes.batch * sizes.size**2
    shared = shutil.disk_usage("/dev/shm").free
    fitting = shared // (3 * batch_bytes)
    loaders = max(1, min(threads, fitting))
    check.put("loaders' processes", loaders, shared_memory=shared)
    for epochs, repeats in sizes.conventional:
        work = (folder, sizes.architecture, sizes.size, sizes.batch, epochs, repeats, check.device, loaders)
        found = training.conventional(*work)
        check.compared(found.conventional, "≥ 10", decoding=found.decoding)
        pairs = zip(found.conventional.pairs, found.decoding, strict=True)
        stored = [(theirs, ours - spent) for (theirs, ours), spent in pairs]
        check.compared(Comparison(f"{found.conventional.name}, of images that are stored", stored))
        check.compared(found.arithmetic, "≤ 1.15")


def resume(check: Check) -> None:
    """A cell that is told to end and goes on, against one that was left alone; and whether two of those are alike."""

    def files(output: str) -> list[bytes]:
        return [(check.work / output / name).read_bytes() for name in ("predictions.parquet", "model.safetensors")]

    options = {"head": "gap", "epochs": check.sizes.long, "keep": True}
    for output in ("whole", "again"):
        check.run(check.cell(output, **options), True)
    check.put("two uninterrupted runs are alike, bit for bit", files("whole") == files("again"), "= 1")

    command = check.cell("stopped", checkpoint_seconds=0.3, **options)
    checkpoint = check.work / "stopped" / "checkpoint.pt"
    with subprocess.Popen(command, env=check.environment(True), stdout=subprocess.DEVNULL) as job:
        while not checkpoint.exists() and job.poll() is None:
            time.sleep(0.005)
        job.send_signal(signal.SIGTERM)
    check.put("exit status after SIGTERM", job.returncode, "= 143")
    # In a process of its own, which has none of the first one's state.
    check.run(check.cell("stopped", checkpoint_seconds=1e6, **options), False)
    check.put("times that it was taken up", check.metrics("stopped")["resumed"], "= 1")
    check.put("the resumed run is the uninterrupted one, bit for bit", files("stopped") == files("whole"), "= 1")
    losses = [check.metrics(output)["test_loss"] for output in ("whole", "again", "stopped")]
    check.put("test losses: uninterrupted, once more, resumed", losses)


def determinism(check: Check) -> None:
    """Whether one training is alike twice, also with cuDNN's own choice of algorithms, and what the former costs."""
    import torch
    import training
    from winnow.data.images import Images
    from winnow.training import loop

    sizes = check.sizes
    rows = np.arange(sizes.batch * sizes.steps)
    side = sizes.store_size
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (rows.size, side, side, 3), np.uint8))
    labels = torch.arange(rows.size) % sizes.classes
    images = Images(pixels.to(check.device), labels.to(check.device), sizes.size, MEAN, STD)

    def train(precision: str, run: Callable[..., Any]) -> dict[str, torch.Tensor]:
        network = training.cell(sizes.architecture, sizes.classes).to(check.device)
        return run(
            network, images, rows, rows[:0], recipe(sizes.batch, 1), 0, precision, report=lambda line: None
        ).state

    # What the decorator wraps leaves cuDNN its choice.
    ways = {"as it is": loop.train, "with cuDNN's own choice": loop.train.__wrapped__}
    for precision in ("bf16", "fp32"):
        for way, run in ways.items():
            first, second = train(precision, run), train(precision, run)
            differing = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
            wanted = "= 1" if run is loop.train else None
            check.put(f"{precision}, training {way}: alike twice", not differing, wanted, differing=differing)
        one, other = (lambda precision=precision, run=run: train(precision, run) for run in ways.values())
        name = f"{precision}: training as it is / with cuDNN's own choice of algorithms"
        check.compared(compare(name, one, other, sizes.repeats, warm_up=False))


LIMITED = """
import runpy, sys
limit, program = float(sys.argv[1]), sys.argv[2]
import winnow.runtime, torch
if limit:
    torch.cuda.set_per_process_memory_fraction(limit, 0)
sys.argv[:] = sys.argv[2:]
runpy.run_path(program, run_name="__main__")
if torch.cuda.is_available():
    print("PEAK", torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(0).total_memory)
"""


def memory(check: Check) -> None:
    """A cell whose batch does not fit: it runs once more in parts, and comes out close to the whole one's."""
    options = {"head": "gap", "epochs": 2}

    def run(output: str, limit: float) -> str:
        command = check.cell(output, **options)
        command[1:1] = ["-c", LIMITED, str(limit)]
        job = subprocess.run(
            command, env=check.environment(False), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if job.returncode:
            raise RuntimeError(f"a cell in {limit:.3g} of the memory ended with {job.returncode}: {job.stdout[-3000:]}")
        return job.stdout

    said = run("roomy", 0.0)
    if not check.gpu:
        check.put("limits", "a processor has none to set")
        return
    peak, total = map(int, said.split("PEAK ")[1].split()[:2])
    images = (check.store / "images.npy").stat().st_size
    check.put("peak of a cell whose batch fits, bytes", peak, images=images, total=total)
    whole = check.metrics("roomy")
    for share in (0.65, 0.45):
        run(f"limited/{share}", (images + share * (peak - images)) / total)
        parts = check.metrics(f"limited/{share}")
        check.put(f"images a pass in {share} of what it takes beside its images", parts["micro_batch"])
        if parts["micro_batch"] < check.sizes.batch:
            break
    check.put("images a pass are fewer", parts["micro_batch"] < whole["micro_batch"], "= 1")
    difference = abs(parts["test_loss"] - whole["test_loss"]) / whole["test_loss"]
    losses = {"whole": whole["test_loss"], "parts": parts["test_loss"]}
    check.put("test loss in parts, relative difference from the whole batch's", difference, "≤ 0.02", **losses)


def speed_ups(check: Check) -> None:
    """Latency against multiply-accumulates at 0.4, with and without rounding."""
    import latency

    sizes = check.sizes
    for precision in ("bf16", "fp32"):
        for batch in sizes.latency:
            work = (sizes.architecture, sizes.size, batch, precision, check.device, [0.4], (None, 8, 16))
            for row in latency.rows(*work):
                what = "{scope}, round_to {round_to}, batch {batch}, {precision}".format(**row)
                check.put(f"{what}: speed-up / MAC reduction", row["share"], row=row)


def recorded(check: Check) -> None:
    """Training of small networks with its step recorded against one that is started kernel by kernel, and whether both
    come to the same, bit for bit."""
    import torch
    from winnow.data.images import Images
    from winnow.networks import backbones
    from winnow.training import loop, steps

    size = 128 if check.gpu else 32
    rows = np.arange(min(1020, 8 * check.sizes.measured))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (rows.size, size, size, 3), np.uint8))
    labels = torch.arange(rows.size) % check.sizes.classes
    images = Images(pixels.to(check.device), labels.to(check.device), size, MEAN, STD)
    short = recipe(32, 2) | {"learning_rate": 0.001, "clip_norm": 5.0}

    def train(network: torch.nn.Module, least: float) -> dict[str, torch.Tensor]:
        network = copy.deepcopy(network).to(check.device)
        steps.LEAST_STEPS = least
        return loop.train(network, images, rows, rows[:0], short, 0, "bf16", report=lambda line: None).state

    usual = steps.LEAST_STEPS
    for name in ("squeezenet1_1", "googlenet", "mobilenet_v2")[: None if check.gpu else 1]:
        network = backbones.initialised(name, "classifier", check.sizes.classes, 0)
        first, second = train(network, usual), train(network, float("inf"))
        differing = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
        check.put(f"{name}: recorded or not, the same weights", not differing, "= 1", differing=differing[:9])
        ways = (functools.partial(train, network, least) for least in (usual, float("inf")))
        found = compare(f"{name}, 2 epochs of {rows.size} at {size}: recorded / by kernel", *ways, 3, warm_up=False)
        check.compared(found, steps=2 * -(-rows.size // 32))
        steps.LEAST_STEPS = usual


# What they do, and for how many seconds at most; the most important first: a run that is cut short has them.
SECTIONS: dict[str, tuple[Callable[[Check], None], float]] = {
    "tests": (tests, 70),
    "recorded": (recorded, 30),
    "training": (bare, 40),
    "statistics": (passes, 45),
    "prepare": (prepare, 35),
    "cells": (cells, 75),
    "side_by_side": (side_by_side, 50),
    "resume": (resume, 45),
    "memory": (memory, 50),
    "decoding": (decoding, 30),
    "conventional": (conventional, 90),
    "determinism": (determinism, 40),
    "latency": (speed_ups, 60),
}
PREPARED = {"cells", "side_by_side", "resume", "memory"}


def section(arguments: argparse.Namespace) -> None:
    """One section, in its own process."""
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: torch sees no GPU: give --device cpu to try the check without one")
    sizes = SMALL if arguments.small else Sizes()
    torch.set_num_threads(sizes.threads)
    file = arguments.work / f"{arguments.section}.json"
    SECTIONS[arguments.section][0](Check(arguments.device, sizes, arguments.work, arguments.photos, file))


def run_section(name: str, arguments: argparse.Namespace, work: Path, limit: float) -> dict[str, Any]:
    """Start a section, pass its output on, and end it when its time is over."""
    print(f"== {name} (at most {limit:.0f} s)", flush=True)
    options = ["--section", name, "--work", str(work), "--device", arguments.device]
    options += ["--small"] * arguments.small + (["--photos", str(arguments.photos)] if arguments.photos else [])
    start, log = time.perf_counter(), []
    process = subprocess.Popen(
        [sys.executable, "-u", __file__, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )

    def pass_on() -> None:
        for text in process.stdout:
            log.append(text.rstrip("\n"))
            print(text, end="", flush=True)

    reader = threading.Thread(target=pass_on, daemon=True)
    reader.start()
    status = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        status = process.wait(limit)
    # Also what a section that failed has left running.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reader.join(GRACE_SECONDS)
    file = work / f"{name}.json"
    found = {
        "status": "out of time" if status is None else "done" if status == 0 else f"failed with status {status}",
        "seconds": round(time.perf_counter() - start, 1),
        "figures": read_json(file) if file.exists() else [],
        "log": log[-200:],
    }
    print(f"== {name}: {found['status']} after {found['seconds']} s", flush=True)
    return found


def card() -> str | None:
    """What the driver says of the first GPU."""
    query = "name,driver_version,memory.total,power.limit,clocks.max.sm"
    try:
        found = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return found.stdout.strip() or found.stderr.strip()


def about() -> dict[str, Any]:
    """The machine, and what the leases see of it."""
    import torch
    from winnow.runtime import devices

    return machine(os.cpu_count() or 1) | {
        "card": card(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "capability": torch.cuda.get_device_capability() if torch.cuda.is_available() else None,
        "candidates": devices.candidates(),
        "visible": os.environ.get(devices.VISIBLE),
        "device_files": sorted(path.name for path in Path("/dev").glob("nvidia*")),
    }


def main(arguments: argparse.Namespace) -> None:
    start = time.perf_counter()
    found: dict[str, Any] = {"command": sys.argv, "sizes": dataclasses.asdict(SMALL if arguments.small else Sizes())}
    try:
        found["machine"] = about()
        print(json.dumps(found["machine"], ensure_ascii=False, indent=1))
    except Exception:
        found["machine"] = {"error": traceback.format_exc()}
        print(found["machine"]["error"])
    found["sections"] = {}
    with tempfile.TemporaryDirectory(prefix="winnow-gpu-", ignore_cleanup_errors=True) as work:
        for name, (_, limit) in SECTIONS.items():
            if (
                arguments.only
                and name not in arguments.only
                and (name != "prepare" or not PREPARED & {*arguments.only})
            ):
                continue
            left = arguments.seconds - (time.perf_counter() - start)
            if left < LEAST_SECONDS:
                found["sections"][name] = {"status": "no time left", "seconds": 0.0, "figures": [], "log": []}
            else:
                found["sections"][name] = run_section(
                    name, arguments, Path(work), min(limit * arguments.seconds / SECONDS, left)
                )
            found["seconds"] = round(time.perf_counter() - start, 1)
            write_json(arguments.output, found)
    print(f"\n{'section':<13} figure")
    for name, part in found["sections"].items():
        print(f"{name:<13} {part['status']}, {part['seconds']} s")
        for figure in part["figures"]:
            print(f"{'':<13} {line(figure)[:160]}")
    print(f"{found['seconds']} s in all")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--output", type=Path, default=Path("gpu.json"), metavar="FILE")
    result.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    result.add_argument("--small", action="store_true", help="a small network, to try every line")
    result.add_argument("--photos", type=Path, metavar="DIR", help="train/, val/ and test/, a folder a class in each")
    result.add_argument("--only", nargs="+", choices=list(SECTIONS), metavar="SECTION")
    result.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=f"for all (default: {SECONDS:.0f})")
    result.add_argument("--section", choices=list(SECTIONS), help=argparse.SUPPRESS)
    result.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return result


if __name__ == "__main__":
    given = parser().parse_args()
    (section if given.section else main)(given)
