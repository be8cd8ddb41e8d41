"""An answer in plain words: what somebody reads first who has never heard of filters, ratios or intervals.

An answer is an object of ``recommendation.json``, one a data set and backbone:

``dataset``, ``backbone``
``verdict``
    ``holds``, ``fails`` or ``undecided``: of ``chosen``.
``tolerance``
    How much a smaller network may lose, in points.
``confidence``
    How sure a bound of an interval is, by itself, as a share of 1.
``test_images``, ``trainings``, ``folds``
    On how many images the networks were tested and in how many trainings; ``folds``: whether every image was tested on
    (their number), or those of one part (None).
``unpruned``
    ``bytes``, ``params``, ``macs``, ``latency_ms`` (None where not timed), ``accuracy``.
``chosen``, ``smaller``
    The network that the answer speaks of and the next smaller one, or None: what ``unpruned`` has, and ``drop``,
    ``low``, ``high``, ``class_low``, ``class_high`` (shares of 1), ``lost_classes``, ``failed_seeds``, ``criterion``,
    ``scope``, ``ratio``, ``cell``, and ``control``, the name of a network that was never pruned (None of a pruned one);
    of ``smaller`` also its ``verdict``.
``budget``
    None, or what was asked for: ``measure``, ``limit`` and ``runner_up``, the second best within it (None, or what
    ``unpruned`` has, and ``low`` and ``high``: of how much more accurate ``chosen`` is).
``more_images``
    How many more test images would decide, where no number of trainings can; else None.

Accuracies and bounds are None where no training of a network went well.

What is certified of a file that was exported is an object of :func:`winnow.exports.certificates.compared`.

Every word here is either plain English or explained on the README's first screen; a test holds them together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from winnow.answers import summary
from winnow.answers.procedure import FAILS, HOLDS
from winnow.files import readable

# More of a network's lost classes are counted, not named.
NAMED_CLASSES = 3
# What the network is called that comes after the chosen one: by another measure than bytes its file may be larger.
STEPS = SMALLER, NEXT = "one step smaller", "the next one tested"
# From here on one says how many times smaller a network is, and below it how many percent.
TIMES = 1.25
# Measure of a budget → what an amount of it is called; bytes and milliseconds have units of their own.
_UNITS = {"params": "weights", "macs": "multiplications"}


def opening(answers: Iterable[Mapping[str, Any]]) -> list[str]:
    """The first lines of several answers, a paragraph each; where there are several, each begins with its subject."""
    answers = list(answers)
    paragraphs = [" ".join(sentences(answer)) for answer in answers]
    if len(answers) == 1:
        return paragraphs
    return [f"{subject(answer)}: {text}" for answer, text in zip(answers, paragraphs, strict=True)]


def subject(answer: Mapping[str, Any]) -> str:
    return f"{summary.title(answer['dataset'])}, {answer['backbone']}"


def sentences(answer: Mapping[str, Any]) -> list[str]:
    """What an answer says, in plain words, the answer itself first."""
    chosen = answer["chosen"]
    if chosen is None:
        return [_nothing(answer)]
    if chosen["accuracy"] is None:
        return ["We cannot say how small your network can be: none of the trainings of a smaller one went well."]
    if answer["budget"]:
        text = _within_budget(answer, chosen)
    elif answer["verdict"] == HOLDS:
        text = [
            f"{_claim(chosen, answer['unpruned'])}: {_compared(answer, chosen)}.",
            f"We are {_sure(answer)} sure that it loses less than {points(answer['tolerance'])}.",
            _step(answer),
        ]
    elif answer["verdict"] == FAILS:
        text = [
            "Your network should stay as it is: no smaller one was good enough.",
            f"The best that we found, {_kind(chosen)}{_compared(answer, chosen)}, {_failing(answer, chosen)}.",
        ]
    else:
        text = [
            f"We cannot say yet whether {_lowered(_claim(chosen, answer['unpruned']))}: {_compared(answer, chosen)}.",
            f"{_doubt(answer, chosen)}.",
            _remedy(answer),
        ]
    return [*filter(None, text), _basis(answer)]


def certificate(found: Mapping[str, Any]) -> str:
    """What was found of one file, as a sentence that begins with its name."""
    right = f"{found['file']} is right on {summary.percent(found['accuracy'])} % of {found['images']} test images"
    if found["drop"] is None:
        return f"{right}."
    return (
        f"{right}, and your network, trained alike, on {summary.percent(found['unpruned_accuracy'])} %: the file "
        f"{summary.points(found['drop'])}, and on other images of this kind {_between(found)}."
    )


def certificates(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence a file: by what it was run first, which is what it is exported for."""
    first: dict[str, Mapping[str, Any]] = {}
    for each in found:
        first.setdefault(each["file"], each)
    return list(map(certificate, first.values()))


def two_intervals(answer: Mapping[str, Any] | None, found: Mapping[str, Any]) -> str:
    """What a file's interval says and, where there is an answer, what the answer's says."""
    file = (
        "What is said of a file is of this file alone, and nothing but the images is left to chance: we are "
        f"{100 * found['confidence']:g} % sure of its bounds."
    )
    chosen = answer and answer["chosen"]
    if not chosen or chosen["low"] is None:
        return file
    return (
        f"The answer is of all networks that are made in this way: on average these {_between(chosen)}, with other "
        f"images and other trainings. {file}"
    )


# Corruption, see :mod:`winnow.data.corruptions` → what such photographs are called.
SPOILED = {
    "noise": "noisy",
    "blur": "blurred",
    "brightness": "too bright",
    "jpeg": "poorly saved",
    "crop": "badly aimed",
}


def spoiled(found: Mapping[str, Any]) -> list[str]:
    """What files lose on photographs that were spoiled, of :func:`winnow.exports.robustness.measured`, in sentences."""
    clean, *kinds = found["corruptions"]
    *names, last = (SPOILED[each["name"]] for each in kinds)
    sentences = [
        f"Photographs are not always as good as these: {found['images']} test images were made {', '.join(names)} and "
        f"{last}, and each file was held against your network on them."
    ]
    for place, network in enumerate(found["networks"][1:]):
        worst = max(kinds, key=lambda each: each["drops"][place]["drop"])
        drops = clean["drops"][place], worst["drops"][place]
        sentences.append(
            f"{network['file']} {summary.points(drops[0]['drop'])} on them as they are and, at worst, where they are "
            f"{SPOILED[worst['name']]}, it {summary.points(drops[1]['drop'])}: on other images of this kind it "
            f"{_between(drops[1])}."
        )
    return sentences


def _between(found: Mapping[str, Any]) -> str:
    """What lies between both bounds of a drop: "may lose 0.1 to 1.1", "may gain 0.3 points or lose up to 1.1"."""
    low, high = (summary.percent(abs(found[name])) for name in ("low", "high"))
    if found["low"] < 0 < found["high"]:
        return f"may gain {low} points or lose up to {high}"
    return f"may lose {low} to {high}" if found["low"] >= 0 else f"may gain {high} to {low}"


def unbroken(text: str) -> str:
    """The text with a space between a number and its unit at which no line is broken."""
    return re.sub(r"(?<=\d) (?=(?:%|[kMG]B|bytes|ms|points?)(?!\w))", "\N{NO-BREAK SPACE}", text)


def _nothing(answer: Mapping[str, Any]) -> str:
    if answer["budget"]:
        return f"None of the networks that were tried stays within {_amount(**_asked(answer))}."
    return "We cannot say how small your network can be: no smaller one was tested."


def _within_budget(answer: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    asked = _asked(answer)
    text = [f"The best network within {_amount(**asked)}: {_kind(chosen)}{_compared(answer, chosen)}."]
    if chosen["failed_seeds"] or chosen["lost_classes"]:
        text.append(f"But it {_failing(answer, chosen)}.")
    elif (most := _tenth_above(_worst(chosen))) > 0:
        text.append(f"We are {_sure(answer)} sure that it loses less than {points(most)}.")
    else:
        text.append(f"We are {_sure(answer)} sure that it loses nothing.")
    if runner_up := answer["budget"]["runner_up"]:
        text.append(f"The next best, {_kind(runner_up)}{_size(runner_up)}, {_rivalled(runner_up)}.")
    return text


def _rivalled(runner_up: Mapping[str, Any]) -> str:
    """What the second best within a budget is beside the chosen one."""
    if runner_up["low"] is None:
        return "had no training that went well"
    if runner_up["low"] > 0:
        return "is surely worse"
    return "turned out to be better" if runner_up["high"] < 0 else "may be as good"


def step(answer: Mapping[str, Any]) -> str:
    """One of :data:`STEPS`: what an answer's ``smaller`` network is called, of which there is one."""
    return SMALLER if answer["smaller"]["bytes"] < answer["chosen"]["bytes"] else NEXT


def _step(answer: Mapping[str, Any]) -> str:
    """The sentence on the network one step smaller than one that holds."""
    smaller = answer["smaller"]
    if smaller is None:
        return "Nothing smaller was tested."
    name = f"{step(answer).capitalize()}, {_kind(smaller)}{_size(smaller)},"
    if smaller["verdict"] == FAILS:
        if smaller["failed_seeds"] or smaller["lost_classes"]:
            return f"{name} is not good enough: it {_failing(answer, smaller)}."
        return f"{name} is too small: it {_failing(answer, smaller)}."
    if smaller["verdict"] == HOLDS:
        return f"{name} loses less than {points(answer['tolerance'])}, too."
    if smaller["accuracy"] is None:
        return f"{name} is not certain: none of its trainings went well."
    if 100 * _worst(smaller) <= answer["tolerance"]:
        return f"{name} is not certain: it looks good, but the tests ended before it."
    return f"{name} is not certain: it may lose up to {points(_tenth_above(_worst(smaller)))}."


def _failing(answer: Mapping[str, Any], network: Mapping[str, Any]) -> str:
    """Why a network fails, as what it does."""
    if network["lost_classes"]:
        return f"no longer recognises {_named(network['lost_classes'])}"
    if network["failed_seeds"]:
        return "cannot be relied on, since one of its trainings went wrong"
    return f"loses more than {points(answer['tolerance'])}, of which we are {_sure(answer)} sure"


def _doubt(answer: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    allowed = points(answer["tolerance"])
    if 100 * _worst(chosen) <= answer["tolerance"]:
        return f"It looks good, but it was not tested far enough to be sure that it loses less than {allowed}"
    return f"It may lose up to {points(_tenth_above(_worst(chosen)))}, and {allowed} are allowed"


def _remedy(answer: Mapping[str, Any]) -> str:
    if answer["more_images"]:
        # Where every image is tested on, every further image is.
        purpose = "" if answer["folds"] else " to test on"
        return f"About {answer['more_images']} more images{purpose} would decide it."
    return "More images to test on, or more trainings, may decide it."


def _basis(answer: Mapping[str, Any]) -> str:
    images = f"{answer['test_images']} images"
    tested = (
        f"each of your {images}, by networks that had not seen it"
        if answer["folds"]
        else f"{images} that no network had seen"
    )
    return f"Tested on {tested}, in {answer['trainings']} trainings."


def _compared(answer: Mapping[str, Any], network: Mapping[str, Any]) -> str:
    """A network beside the unpruned one: "0.9 MB in place of 2.4 MB, 96.1 % right in place of 94.7 %"."""
    whole = answer["unpruned"]
    pairs = [_file_sizes(network, whole)]
    if network["latency_ms"] is not None and whole["latency_ms"] is not None:
        after, before = (f"{summary.milliseconds(each['latency_ms'])} ms" for each in (network, whole))
        pairs.append((after, before))
    pairs.append((f"{summary.percent(network['accuracy'])} % right", f"{summary.percent(whole['accuracy'])} %"))
    return ", ".join(f"{after} in place of {before}" for after, before in pairs)


def _file_sizes(network: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[str, str]:
    return readable(network["bytes"]), readable(whole["bytes"])


def _size(network: Mapping[str, Any]) -> str:
    timed = network["latency_ms"] is not None
    return readable(network["bytes"]) + (f" and {summary.milliseconds(network['latency_ms'])} ms" if timed else "")


def _claim(network: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """What is found of a network, or is not: what it is."""
    if network.get("control"):
        return f"A smaller network that was never pruned, “{network['control']}”, does it as well"
    return f"Your network can be {_smaller(network, whole)}"


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _kind(network: Mapping[str, Any]) -> str:
    """What comes before the size of one that was never pruned: its name."""
    return f"“{network['control']}”, never pruned, " if network.get("control") else ""


def _smaller(network: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    times = whole["bytes"] / network["bytes"]
    if times < TIMES:
        return f"{100 * (1 - 1 / times):.0f} % smaller"
    return f"{times:.1f} times smaller" if times < 10 else f"{times:.0f} times smaller"


def _worst(network: Mapping[str, Any]) -> float:
    """How much it may lose, by the worse of both intervals, as a share of 1."""
    return max(network["high"], network["class_high"])


def _tenth_above(share: float) -> float:
    """Points, rounded up: what is said of a bound stays true. A float's last digit rounds nothing up."""
    return math.ceil(round(1000 * share, 6)) / 10 + 0.0


def points(count: float) -> str:
    return f"{count:g} point" + "s" * (count != 1)


def _sure(answer: Mapping[str, Any]) -> str:
    return f"{100 * answer['confidence']:g} %"


def _named(lost: Sequence[str]) -> str:
    named = [f"“{name}”" for name in lost[:NAMED_CLASSES]]
    if more := len(lost) - len(named):
        return f"{', '.join(named)} and {more} more"
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def _asked(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer["budget"][name] for name in ("measure", "limit")}


def _amount(measure: str, limit: float) -> str:
    if measure == "bytes":
        return readable(limit)
    return f"{limit:g} ms" if measure == "latency_ms" else f"{summary.quantity(limit)} {_UNITS[measure]}"
