"""A finished cell as a folder that its user takes home: the network's files, what it is, and how it is used.

The folder is whole or absent, and it is checked before it appears: its weights are those that were judged, and each
file, as it was written, answers for all test images as the judged network did. What it is worth is certified, see
:mod:`winnow.exports.certificates`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

from torch import nn

from winnow.data import preprocessing
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import cards, certificates, graphs, prediction, quantization, robustness, runtimes
from winnow.exports.certificates import Certificate, Disagreement, Exam, OfInt8, OfOnnx
from winnow.exports.contents import Exported, Graph, Layer, Network
from winnow.files import InputError, atomic_folder, write_json
from winnow.networks import backbones, descriptions, models, surgery


def export(
    cell: Path,
    unpruned: Path | None,
    network: Path,
    dataset: Path,
    split: Path,
    output: Path,
    spec: dict[str, Any],
    threads: int,
    answer: dict[str, Any] | None = None,
    whole_network: Path | None = None,
) -> Exported:
    """Export a cell.

    Parameters
    ----------
    cell
        Folder of a finished cell.
    unpruned
        Folder of the unpruned network's cell of the same seed, which the files are held against; None where ``cell`` is
        of such a network.
    network
        Folder of its network, as it was kept or trained once more.
    dataset
        Folder of the store that it was judged on.
    split
        Of this store: which images it was judged on.
    output
        The folder to make. An earlier export there is replaced.
    spec
        Of this export, for its provenance.
    threads
        That onnxruntime may use.
    answer
        Of the experiment that chose the cell, as :mod:`winnow.answers.words` takes it; None where none did.
    whole_network
        Folder of the unpruned network, with which the files are run on corrupted images too; None where it was not
        kept.

    Returns
    -------
    dict
        The content of the new ``model.json``.

    Raises
    ------
    InputError
        If the cell is not finished, its model was not kept or is not the one that was judged, its files do not belong
        together, or the output is a folder of something else.
    Disagreement
        If a file does not answer as it should. There is no folder then.
    """
    if output.exists() and not (output / descriptions.DESCRIPTION).exists():
        raise InputError(f"{output} exists and is no exported model: give another --output")
    store = Store.open(dataset)
    parts = Split.open(split, store)
    kept, found, exam = judged(cell, unpruned, network, store, parts)
    description = described(kept, found, parts, store, spec, answer)
    with atomic_folder(output) as folder:
        weights = models.save(folder, kept, description)
        onnx = folder / descriptions.FILES["onnx"]
        graphs.write(onnx, kept, description)
        own, both = descriptions.written(onnx), graphs.interface(description)
        graph: Graph = {
            "file": own["file"],
            "sha256": own["sha256"],
            "bytes": own["bytes"],
            "input": both["input"],
            "output": both["output"],
        }
        files: dict[str, object] = {"weights": weights, "onnx": graph}
        write_json(folder / descriptions.DESCRIPTION, {**description, **files})
        int8 = quantization.write(folder, kept, description, store, parts, threads)
        write_json(folder / descriptions.DESCRIPTION, {**description, **files, "int8": int8})
        found_of_files, refused, elsewhere = certified(folder, exam, threads)
        if "onnx" in elsewhere:
            graph["not_by"] = elsewhere["onnx"]
        if "int8" in elsewhere:
            int8["not_by"] = elsewhere["int8"]
        if refused:
            int8 = quantization.left_out(folder / descriptions.FILES["int8"], int8, refused)
        elif "left_out" not in int8:
            int8["latency"] = quantization.timed(folder, threads)
        corrupted = robustness.measured(whole_network, folder, store, parts, threads) if whole_network else None
        whole: Exported = {
            **description,
            "weights": weights,
            "onnx": graph,
            "int8": int8,
            "certificates": found_of_files,
            "corruptions": corrupted,
        }
        write_json(folder / descriptions.DESCRIPTION, whole)
        (folder / "README.md").write_text(cards.card(whole, output.name), encoding="utf-8")
        (folder / "example.py").write_text(cards.EXAMPLE, encoding="utf-8")
        # The very code that the images went through that the network has learned from.
        shutil.copyfile(preprocessing.__file__, folder / "preprocessing.py")
    return whole


def judged(
    cell: Path, unpruned: Path | None, place: Path, store: Store, split: Split
) -> tuple[nn.Module, dict[str, Any], Exam]:
    """The network that a cell was judged by, its description, and what its files are held against.

    Raises
    ------
    InputError
        If the network was not kept, its training diverged, or it is not of this cell, store and split, or not the one
        that was judged.
    """
    if not (place / models.WEIGHTS).exists():
        raise InputError(f"{place} has no network to export, it was not kept: set models: keep for it in config.yaml")
    network, description = models.load(place)
    exam = Exam.open(cell, unpruned, store, split)
    if description["spec"] != exam.spec:
        raise InputError(f"the network in {place} is not of the cell in {cell}: their specs differ")
    if description["classes"] != store.classes:
        raise InputError(f"the network in {place} knows other classes than {store.directory}")
    exam.require_judged(models.digest(network.state_dict()), place, description)
    return network, description, exam


def certified(
    folder: Path, exam: Exam, threads: int
) -> tuple[list[Certificate], str | None, dict[str, dict[str, str]]]:
    """The certificates of a folder's files, as they were written.

    Returns
    -------
    certificates : list of dict
        The weights come first, then the ONNX file and, where there is one that is to be kept, int8; then both once
        more by each of :func:`winnow.exports.runtimes.further`.
    refused : str or None
        Why the int8 file is none to be kept, if so.
    elsewhere : dict
        Kind of file → package → why the file has no certificate by it, of those that have none.

    Raises
    ------
    InputError
        If the weights are not those that were judged.
    Disagreement
        If a file in floating point does not answer as it should.
    """
    weights = folder / models.WEIGHTS
    exam.require_judged(models.digest(models.load(folder)[0].state_dict()), weights, exam.made)
    model = prediction.load(folder)
    reference = certificates.answers(model, exam.store, exam.rows)
    exam.require_alike(reference, weights)
    found = [exam.certificate(weights, reference, model.runtime)]
    onnx, int8 = (folder / descriptions.FILES[kind] for kind in ("onnx", "int8"))

    def certificate(path: Path, opener: runtimes.Opener | None = None) -> Certificate:
        model = prediction.load(path, threads=threads, opener=opener)
        answers, images = certificates.answers(model, exam.store, exam.rows), len(exam.rows)
        made = exam.certificate(path, answers, model.runtime)
        if path == onnx:
            alike: OfOnnx = {**made, **certificates.agreement(answers, reference, path)}
            return alike
        lost = round(images * (in_floating_point["accuracy"] - made["accuracy"]))
        if lost > quantization.allowed(images):
            raise Disagreement(f"it is right on {lost} fewer of the {images} test images than in floating point")
        quantized: OfInt8 = {**made, "as_pytorch": int((answers.argmax(1) == reference.argmax(1)).sum())}
        return quantized

    in_floating_point: Certificate = certificate(onnx)
    found.append(in_floating_point)
    kept, refused = {"onnx": onnx}, None
    if int8.exists():
        try:
            found.append(certificate(int8))
            kept["int8"] = int8
        except Disagreement as disagreement:
            refused = str(disagreement)
    elsewhere: dict[str, dict[str, str]] = {}
    for package, opener in runtimes.further().items():
        for kind, path in kept.items():
            # Nothing that only an extra has may decide on an export.
            try:
                found.append(certificate(path, opener))
            except (InputError, Disagreement) as error:
                elsewhere.setdefault(kind, {})[package] = str(error).replace(str(path), path.name)
    return found, refused, elsewhere


def described(
    network: nn.Module,
    kept: dict[str, Any],
    split: Split,
    store: Store,
    spec: dict[str, Any],
    answer: dict[str, Any] | None = None,
) -> Network:
    """All that is to be known about a network, less what is known of its files."""
    unpruned = backbones.build(kept["architecture"], kept["head"], len(kept["classes"]))
    params, macs = surgery.cost(unpruned, kept["image_size"])
    form = preprocessing.Form.of(kept["store_size"], kept["reading"])
    return {
        "architecture": kept["architecture"],
        "head": kept["head"],
        "classes": kept["classes"],
        "image_size": kept["image_size"],
        "store_size": kept["store_size"],
        "reading": kept["reading"],
        "mean": kept["mean"],
        "std": kept["std"],
        "params": kept["params"],
        "macs": kept["macs"],
        "bytes": models.stored_bytes(network),
        "unpruned": {"params": params, "macs": macs, "bytes": models.stored_bytes(unpruned)},
        "accuracy": kept["accuracy"],
        "class_accuracy": kept["class_accuracy"],
        "per_class": kept["per_class"],
        "val_accuracy": kept["val_accuracy"],
        "epoch": kept["epoch"],
        "requested_ratio": kept["requested_ratio"],
        "achieved_ratio": kept["achieved_ratio"],
        "learning_rate": kept["learning_rate"],
        "weights_sha256": kept["weights_sha256"],
        "layers": layers(network, unpruned),
        "images": split.counts,
        "skipped": len(store.manifest.get("skipped", ())),
        "preprocessing": preprocessing.steps(form, kept["image_size"], kept["mean"], kept["std"]),
        "provenance": {
            "cell": kept["spec"],
            "export": spec,
            "versions": kept["versions"],
            "device": kept["device"],
            "precision": kept["precision"],
        },
        "answer": answer,
    }


def layers(network: nn.Module, unpruned: nn.Module) -> list[Layer]:
    """Every layer that has weights, in network order: name, kind, widths, and the outputs that it had unpruned."""
    found: list[Layer] = []
    for name, module in network.named_modules():
        before, kind = unpruned.get_submodule(name), type(module).__name__
        if isinstance(module, nn.Conv2d):
            inputs, outputs, unpruned_outputs = module.in_channels, module.out_channels, before.out_channels
        elif isinstance(module, nn.Linear):
            inputs, outputs, unpruned_outputs = module.in_features, module.out_features, before.out_features
        elif isinstance(module, nn.BatchNorm2d):
            inputs, outputs, unpruned_outputs = module.num_features, module.num_features, before.num_features
        else:
            continue
        row: Layer = {
            "layer": name,
            "kind": kind,
            "inputs": inputs,
            "outputs": outputs,
            "unpruned": cast("int", unpruned_outputs),
        }
        if isinstance(module, nn.Conv2d):
            row["kernel"] = list(module.kernel_size)
        found.append(row)
    return found
