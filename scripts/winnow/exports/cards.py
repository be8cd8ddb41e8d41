"""What an exported folder says to people: README.md, the model card, and example.py, which uses the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from scipy.stats import binomtest

from winnow.answers import words
from winnow.answers.intervals import CONFIDENCE
from winnow.answers.summary import INIT_NAMES, SCOPE_NAMES, bracketed, label, quantity
from winnow.exports.certificates import Certificate, OfInt8, OfOnnx
from winnow.exports.contents import Exported
from winnow.files import readable
from winnow.importance.scopes import share_of
from winnow.training import rates
from winnow.training.protocols import (
    COMPENSATED,
    DISTILLED,
    FINE_TUNE_FIRST,
    FITTED,
    RECALIBRATED,
    budget,
    plain,
    repairs,
    steps,
)
from winnow.workflow.grid import ANY, RANDOM, UNPRUNED

# Longer lists of classes are cut short in sentences, and make no table.
NAMED_CLASSES = 10
LISTED_CLASSES = 30

RUNTIMES = "onnxruntime from 1.16 on, OpenCV's dnn from 4.6 on and other ONNX runtimes"

_REPAIRS = {
    COMPENSATED: "what removed inputs gave was predicted from those that stayed, and folded into the weights",
    RECALIBRATED: "the outputs' means and variances were measured anew",
    FITTED: "the last layer began as the logistic regression on the network's features",
}

EXAMPLE = '''\
"""Classify images: python example.py photo.jpg ...   (needs onnxruntime, pillow, pillow-heif and numpy)"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from preprocessing import Form, decode, network_input  # the file beside this one

session = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"))
model = json.loads(session.get_modelmeta().custom_metadata_map["winnow"])
form = Form.of(model["store_size"], model["reading"])

for name in sys.argv[1:]:
    square = decode(Path(name).read_bytes(), form).pixels
    view = network_input(square[None], model["image_size"], model["mean"], model["std"])
    logits = session.run(None, {"image": view})[0][0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    for number in np.argsort(-probabilities)[:3]:
        print(f"{name}: {model['classes'][number]} {probabilities[number]:.4f}")
'''


# Of int8 files whose weights have all bits.
NARROW = (
    " On x86 processors without VNNI it may answer otherwise: they add products up in 16 bits, and such ones need not "
    "fit."
)


def card(model: Exported, name: str) -> str:
    """The model card, in Markdown.

    Parameters
    ----------
    model
        The content of the folder's ``model.json``.
    name
        The folder's.
    """
    cell, provenance = model["provenance"]["cell"]["cell"], model["provenance"]
    recipe = provenance["cell"]["recipe"]
    epochs = budget(cell["protocol"], recipe["epochs"], model["macs"], model["unpruned"]["macs"])
    images, unpruned = model["images"], model["unpruned"]
    low, high = interval(model["accuracy"], images["test"])
    worst = min(model["per_class"], key=model["per_class"].__getitem__)
    certified = model["certificates"]
    by_onnx = cast("OfOnnx", next(each for each in certified if each["file"] == model["onnx"]["file"]))
    int8 = model["int8"]
    size, stored, channels = model["image_size"], model["store_size"], len(model["mean"])
    sections = [
        f"# {name}",
        *([" ".join(words.sentences(model["answer"]))] if model["answer"] else []),
        f"A convolutional network ({model['architecture']}, head: {model['head']}) that tells {len(model['classes'])} "
        f"classes of images apart: {classes(model['classes'])}. It is {cell['backbone']} fine-tuned on the images of "
        f"{cell['dataset']}{removed(model)}.",
        table(
            ["", "this network", "unpruned", "share"],
            [
                [what, form(own), form(whole), f"{100 * own / whole:.1f} %"]
                for what, own, whole, form in (
                    ("parameters", model["params"], unpruned["params"], quantity),
                    ("multiply-accumulates an image", model["macs"], unpruned["macs"], quantity),
                    ("weights", model["bytes"], unpruned["bytes"], readable),
                )
            ],
        ),
        "## Accuracy",
        f"{percent(model['accuracy'])} of {images['test']} test images, which had no part in training or in choosing "
        f"the epoch ({100 * CONFIDENCE:g} % interval {percent(low)} to {percent(high)}). {validation(model)}"
        f"{skipped(model)}"
        f"Mean over classes: {percent(model['class_accuracy'])}; the class with the lowest accuracy is "
        f"{code(worst)}, {percent(model['per_class'][worst])}.",
    ]
    if len(model["classes"]) <= LISTED_CLASSES:
        accuracies = [[code(each), percent(model["per_class"][each])] for each in model["per_class"]]
        sections.append(table(["class", "accuracy"], accuracies))
    sections += [
        "## Certificate",
        f"Each file was run on all {images['test']} test images, as it lies here. Its drop is against the unpruned "
        "network that was trained with the same seed, on the same images.",
        certificates(certified),
        words.two_intervals(model["answer"], certified[0]),
        f"The files are made of the weights that were judged, SHA-256 `{model['weights_sha256']}`; their own are in "
        "`model.json`.",
        *(spoiled(model["corruptions"]) if model["corruptions"] else []),
        "## How it was made",
        f"{method(cell, model)} Then it was fine-tuned on {images['train']} images: {epochs} epochs, batches "
        f"of {recipe['batch_size']}, {recipe['optimizer']} at learning rate {model['learning_rate']:g}"
        f"{', which short trainings had found' * (recipe['learning_rate'] == rates.AUTO)}, seed {cell['seed']}; "
        f"{of_epoch(model['epoch'])}. Trained and measured on {provenance['device']} in {provenance['precision']} with "
        f"{', '.join(f'{package} {version}' for package, version in sorted(provenance['versions'].items()))}. "
        "`model.json` has the whole specification, and the width of every layer.",
        "## Use",
        "```sh\npip install onnxruntime pillow pillow-heif numpy\npython example.py photo.jpg\n```",
        "With Winnow's sources: `python scripts/predict.py THIS_FOLDER photo.jpg`, or a folder of images, for a CSV; "
        "`winnow.networks.models.load` gives the network as a torch module.",
        table(
            ["file", "size", ""],
            [
                ["`model.safetensors`", readable(model["weights"]["bytes"]), "weights for PyTorch"],
                ["`model.onnx`", readable(model["onnx"]["bytes"]), f"the network for {RUNTIMES}"],
                *(
                    [["`model.int8.onnx`", readable(int8["bytes"]), "the same in int8, for onnxruntime from 1.16 on"]]
                    if "file" in int8
                    else []
                ),
                ["`model.json`", "", "all that is known of it"],
                ["`example.py`", "", "how to use it"],
                ["`preprocessing.py`", "", "from a file to the network's input, as in training"],
            ],
        ),
        f"The ONNX file's input `{model['onnx']['input']['name']}` is float32 of shape (batch, {channels}, {size}, "
        f"{size}), its output `{model['onnx']['output']['name']}` one logit a class; its metadata holds the classes "
        f"and what follows. On {by_onnx['as_pytorch']} of the {by_onnx['images']} test images it names the class that "
        f"PyTorch names, logits to within {by_onnx['largest_difference']:.1g}.",
        quantized(model),
        *elsewhere(model),
        "An image becomes the input so:",
        "\n".join(f"{number}. {step}" for number, step in enumerate(model["preprocessing"], 1)),
        "## Limits",
        "\n".join(
            f"- {limit}"
            for limit in (
                "It always answers with one of its classes, whatever an image shows; it knows no “none of these”.",
                "The accuracy is that of images like the data set's. Others (another camera, background or framing) "
                "may do worse: measure it on some of your own before you rely on it.",
                "Its probabilities were not calibrated: 0.9 need not be right nine times in ten.",
                f"It sees the centre square of an image, at {stored} pixels a side"
                + (f", and of that the centre {size}" if size < stored else "")
                + ": what lies outside, or is too small for that, is lost.",
                "The licences of the pretrained weights and of the images that it was trained on apply to it.",
            )
        ),
    ]
    return "\n\n".join(sections) + "\n"


def quantized(model: Exported) -> str:
    """What is to be known of the int8 file, or why there is none."""
    int8 = model["int8"]
    decided = int8["decided_on"]
    part = {"val": "validation", "train": "training"}[decided["part"]]
    if "left_out" in int8:
        tried = "; ".join(f"{each['scheme']}: {each['lost']} lost" for each in int8["tried"])
        return (
            f"There is no int8 file: {int8['left_out']}. Tried on {decided['images']} {part} images, in this order: "
            f"{tried}."
        )
    others = len(int8["tried"]) - 1
    ways = f"{others} other way{'s' * (others > 1)}"
    costly = f" {ways} cost more than is allowed or answered less alike, see `model.json`." if others else ""
    certified = cast("OfInt8", next(each for each in model["certificates"] if each["file"] == int8["file"]))
    times = ", ".join(
        f"{each['int8_ms']['median']:.3g} ms and {each['fp32_ms']['median']:.3g} ms in floating point for "
        f"{count(each['images'])}"
        for each in int8["latency"]
    )
    threads = int8["latency"][0]["threads"]
    return (
        f"`{int8['file']}` has {100 * int8['bytes'] / model['onnx']['bytes']:.1f} % of the bytes of "
        f"`{model['onnx']['file']}`: weights and activations of 8 bits, {int8['scheme']}, ranges measured on "
        f"{int8['calibration']} training images. What rounding the weights adds on average is taken off the "
        f"biases.{costly} On {certified['as_pytorch']} of the {certified['images']} "
        f"test images it names the class that PyTorch names. Where it was made, on {threads} "
        f"thread{'s' * (threads != 1)}, it takes {times}.{NARROW * (int8['weight_bits'] == 8)}"
    )


def elsewhere(model: Exported) -> list[str]:
    """What was found of the ONNX files by what only an extra has, a sentence each: none where it is absent."""
    said: list[str] = []
    by: dict[str, str] = {}
    for each in cast("list[OfOnnx]", model["certificates"]):
        first = by.setdefault(each["file"], each["runtime"])
        if each["runtime"] != first:
            logits = f", logits to within {each['largest_difference']:.1g}" if "largest_difference" in each else ""
            said.append(
                f"Run by {each['runtime']}, {code(each['file'])} names the class that PyTorch names on "
                f"{each['as_pytorch']} of the {each['images']} test images{logits}."
            )
    for kind in ("onnx", "int8"):
        for package, reason in model[kind].get("not_by", {}).items():
            said.append(f"{code(model[kind]['file'])} has no certificate by {package}: {reason}.")
    return [" ".join(said)] if said else []


def count(images: int) -> str:
    return "one image" if images == 1 else f"{images} images"


def certificates(certified: list[Certificate]) -> str:
    """What is certified of each file, as a table."""
    rows = [
        [
            code(each["file"]),
            percent(each["accuracy"]),
            bracketed(each["drop"], each["low"], each["high"]),
            f"{each['as_judged']} of {each['images']}",
            each["runtime"],
        ]
        for each in certified
    ]
    drop = f"drop, points [{100 * CONFIDENCE:g} %]"
    return table(["file", "accuracy", drop, "same answer as when judged", "run by"], rows)


def spoiled(found: Mapping[str, Any]) -> list[str]:
    """The section on what the files lose on corrupted images, of :func:`winnow.exports.robustness.measured`."""
    files = [code(each["file"]) for each in found["networks"][1:]]
    rows = [
        [
            words.SPOILED.get(each["name"], "as they are"),
            *map(percent, each["accuracy"]),
            *(bracketed(drop["drop"], drop["low"], drop["high"]) for drop in each["drops"]),
        ]
        for each in found["corruptions"]
    ]
    header = ["images", "unpruned", *files, *(f"drop of {file}, points" for file in files)]
    return ["## Beyond the test images", " ".join(words.spoiled(found)), table(header, rows)]


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson's interval of an accuracy over so many images, which stand for all others of their kind."""
    found = binomtest(round(accuracy * images), images).proportion_ci(CONFIDENCE, "wilson")
    return float(found.low), float(found.high)


def removed(model: Exported) -> str:
    if not model["achieved_ratio"]:
        return ", with all of its filters"
    share = model["params"] / model["unpruned"]["params"]
    lost = share_of(model["provenance"]["cell"]["cell"]["scope"])
    return f", less {percent(model['achieved_ratio'])} of its {lost}: {percent(share)} of the parameters are left"


def method(cell: dict[str, Any], model: Exported) -> str:
    """How the filters were chosen, in a sentence or two."""
    start = f"It started with {INIT_NAMES[cell['init']]}."
    if cell["criterion"] == UNPRUNED:
        place = (model["answer"] or {}).get("backbone", cell["backbone"])
        if place != cell["backbone"]:
            return f"Nothing was removed: it was judged beside networks that were pruned from {place}. {start}"
        return f"Nothing was removed: this is the unpruned baseline. {start}"
    how = {
        RANDOM: "drawn at random",
        ANY: "as many in every layer, which ones makes no difference to random weights",
    }.get(cell["criterion"], f"the least important ones by the criterion “{label(cell['criterion'])}”")
    when = "before any fine-tuning"
    if plain(cell["protocol"]) == FINE_TUNE_FIRST:
        when = "halfway through its training"
    elif steps(cell["protocol"]):
        when = f"in {steps(cell['protocol'])} steps in the course of its training"
    elif plain(cell["protocol"]) == DISTILLED:
        start += " It learned from the fine-tuned unpruned network, too."
    done = [_REPAIRS[name] for name in repairs(cell["protocol"])]
    if done:
        start += f" After the cut, {' and '.join(done)}."
    return (
        f"Of {cell['backbone']}'s {share_of(cell['scope'])} {percent(model['achieved_ratio'])} were removed "
        f"{SCOPE_NAMES[cell['scope']]} ({how}), physically, {when}. {start}"
    )


def validation(model: Exported) -> str:
    if model["val_accuracy"] is None:
        return "There were no validation images: the last epoch was taken. "
    return (
        f"On the {model['images']['val']} validation images, which chose the epoch: {percent(model['val_accuracy'])}. "
    )


def of_epoch(epoch: int) -> str:
    """Whose weights a network has."""
    if not epoch:
        return "the weights are those that it began with, since validation found every epoch's worse"
    return f"the weights are those of epoch {epoch}"


def skipped(model: Exported) -> str:
    """That files of the data set could not be read, where there were some."""
    if not model["skipped"]:
        return ""
    whole = model["skipped"] + sum(model["images"].values())
    return f"{model['skipped']} of {whole} files could not be read and had no part in any of this. "


def classes(names: list[str]) -> str:
    shown = ", ".join(code(name) for name in names[:NAMED_CLASSES])
    more = len(names) - NAMED_CLASSES
    return f"{shown} and {more} more, listed in `model.json`" if more > 0 else shown


def code(name: str) -> str:
    """A class's name as Markdown that shows it as it is."""
    fence = "``" if "`" in name else "`"
    return f"{fence}{name}{fence}".replace("|", "\\|")


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, columns without a heading and the first to the left, the others to the right."""
    rule = ["---", *("--:" if heading else "---" for heading in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])
