"""An answer in plain words: every case of it, in no word that its reader has not been told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.answers import words

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
UNPRUNED = {"bytes": 2_400_000, "params": 600_000, "macs": 50_000_000, "latency_ms": 5.0, "accuracy": 0.947}
CHOSEN = {
    **{"bytes": 910_000, "params": 230_000, "macs": 20_000_000, "latency_ms": 3.1, "accuracy": 0.961},
    **{"drop": -0.014, "low": -0.03, "high": 0.002, "class_low": -0.03, "class_high": 0.011},
    **{"lost_classes": [], "failed_seeds": "", "criterion": "apoz", "scope": "layer", "ratio": 0.4, "cell": "a/b"},
}
SMALLER = CHOSEN | {
    **{"bytes": 500_000, "latency_ms": 2.0, "accuracy": 0.93, "drop": 0.017, "low": 0.001, "high": 0.0287},
    **{"class_low": 0.0, "class_high": 0.028, "verdict": "undecided"},
}
ANSWER = {
    **{"dataset": "my_photos", "backbone": "vgg16", "verdict": "holds", "tolerance": 2.0, "confidence": 0.975},
    **{"test_images": 300, "folds": None, "trainings": 15, "unpruned": UNPRUNED, "chosen": CHOSEN, "smaller": SMALLER},
    **{"budget": None, "more_images": None},
}
UNSURE = CHOSEN | {"accuracy": 0.94, "drop": 0.007, "low": -0.02, "high": 0.0334, "class_high": 0.0289}
WORSE = CHOSEN | {"accuracy": 0.901, "drop": 0.046, "low": 0.03, "high": 0.06, "class_low": 0.03, "class_high": 0.06}
LOST = {"lost_classes": ["defect"], "verdict": "fails"}
BUDGET = {"measure": "latency_ms", "limit": 5, "runner_up": SMALLER | {"drop": 0.03, "low": 0.01, "high": 0.05}}

# Name → the answer, and its sentences less the last one, which says what it rests on.
CASES = {
    "holds, one step smaller is not certain": (
        {},
        "Your network can be 2.6 times smaller: 910 kB in place of 2.4 MB, 3.10 ms in place of 5.00 ms, 96.1 % right "
        "in place of 94.7 %. We are 97.5 % sure that it loses less than 2 points. One step smaller, 500 kB and "
        "2.00 ms, is not certain: it may lose up to 2.9 points.",
    ),
    "not timed, a point, a little smaller, nothing below it": (
        {
            "tolerance": 1.0,
            "unpruned": UNPRUNED | {"latency_ms": None, "bytes": 1_000_000},
            "chosen": CHOSEN | {"latency_ms": None},
            "smaller": None,
        },
        "Your network can be 9 % smaller: 910 kB in place of 1.0 MB, 96.1 % right in place of 94.7 %. We are 97.5 % "
        "sure that it loses less than 1 point. Nothing smaller was tested.",
    ),
    "holds, the next by what was asked for is a larger file": (
        {"smaller": SMALLER | {"bytes": 950_000}},
        "The next one tested, 950 kB and 2.00 ms, is not certain: it may lose up to 2.9 points.",
    ),
    "holds, a class is lost below it": (
        {"smaller": SMALLER | LOST},
        "One step smaller, 500 kB and 2.00 ms, is not good enough: it no longer recognises “defect”.",
    ),
    "holds, many classes are lost below it": (
        {"smaller": SMALLER | LOST | {"lost_classes": ["a", "b", "c", "d"]}},
        "is not good enough: it no longer recognises “a”, “b”, “c” and 1 more.",
    ),
    "holds, a training went wrong below it": (
        {"smaller": SMALLER | {"verdict": "fails", "failed_seeds": "3"}},
        "is not good enough: it cannot be relied on, since one of its trainings went wrong.",
    ),
    "holds, it fails below it": (
        {"smaller": SMALLER | {"verdict": "fails", "low": 0.03}},
        "is too small: it loses more than 2 points, of which we are 97.5 % sure.",
    ),
    "holds, not reached below it": (
        {"smaller": SMALLER | {"high": 0.01, "class_high": 0.02}},
        "is not certain: it looks good, but the tests ended before it.",
    ),
    "holds, and so does a smaller one by another measure": (
        {"smaller": SMALLER | {"verdict": "holds"}},
        "One step smaller, 500 kB and 2.00 ms, loses less than 2 points, too.",
    ),
    "fails": (
        {"verdict": "fails", "chosen": WORSE},
        "Your network should stay as it is: no smaller one was good enough. The best that we found, 910 kB in place of "
        "2.4 MB, 3.10 ms in place of 5.00 ms, 90.1 % right in place of 94.7 %, loses more than 2 points, of which we "
        "are 97.5 % sure.",
    ),
    "fails by a class": (
        {"verdict": "fails", "chosen": CHOSEN | {"lost_classes": ["defect", "scratch"]}},
        "96.1 % right in place of 94.7 %, no longer recognises “defect” and “scratch”.",
    ),
    "fails by a training": (
        {"verdict": "fails", "chosen": CHOSEN | {"failed_seeds": "3"}},
        "94.7 %, cannot be relied on, since one of its trainings went wrong.",
    ),
    "undecided, too few images": (
        {"verdict": "undecided", "chosen": UNSURE, "more_images": 240},
        "We cannot say yet whether your network can be 2.6 times smaller: 910 kB in place of 2.4 MB, 3.10 ms in place "
        "of 5.00 ms, 94.0 % right in place of 94.7 %. It may lose up to 3.4 points, and 2 points are allowed. About "
        "240 more images to test on would decide it.",
    ),
    "undecided, too few images in folds": (
        {"verdict": "undecided", "chosen": UNSURE, "more_images": 240, "folds": 5},
        "About 240 more images would decide it.",
    ),
    "undecided, open": (
        {"verdict": "undecided", "chosen": UNSURE},
        "More images to test on, or more trainings, may decide it.",
    ),
    "undecided, not reached": (
        {"verdict": "undecided"},
        "It looks good, but it was not tested far enough to be sure that it loses less than 2 points.",
    ),
    "every training went wrong": (
        {"verdict": "fails", "chosen": CHOSEN | {"accuracy": None, "high": None, "class_high": None}},
        "We cannot say how small your network can be: none of the trainings of a smaller one went well.",
    ),
    "holds, nothing is known below it": (
        {"smaller": SMALLER | {"accuracy": None, "high": None, "class_high": None}},
        "One step smaller, 500 kB and 2.00 ms, is not certain: none of its trainings went well.",
    ),
    "budget, the next was better": (
        {"budget": BUDGET | {"runner_up": SMALLER | {"low": -0.03, "high": -0.01}}},
        "The next best, 500 kB and 2.00 ms, turned out to be better.",
    ),
    "budget, nothing is known of the next": (
        {"budget": BUDGET | {"runner_up": SMALLER | {"low": None, "high": None}}},
        "The next best, 500 kB and 2.00 ms, had no training that went well.",
    ),
    "a smaller network that was never pruned holds, and another is below it": (
        {"chosen": CHOSEN | {"control": "squeezenet1_1"}, "smaller": SMALLER | {"control": "tiny"}},
        "A smaller network that was never pruned, “squeezenet1_1”, does it as well: 910 kB in place of 2.4 MB, 3.10 ms "
        "in place of 5.00 ms, 96.1 % right in place of 94.7 %. We are 97.5 % sure that it loses less than 2 points. "
        "One step smaller, “tiny”, never pruned, 500 kB and 2.00 ms, is not certain: it may lose up to 2.9 points.",
    ),
    "undecided, of a network that was never pruned": (
        {"verdict": "undecided", "chosen": UNSURE | {"control": "squeezenet1_1"}},
        "We cannot say yet whether a smaller network that was never pruned, “squeezenet1_1”, does it as well: 910 kB",
    ),
    "fails, as does the best that was never pruned": (
        {"verdict": "fails", "chosen": WORSE | {"control": "squeezenet1_1"}},
        "The best that we found, “squeezenet1_1”, never pruned, 910 kB in place of 2.4 MB",
    ),
    "budget, the next was never pruned": (
        {"budget": BUDGET | {"runner_up": BUDGET["runner_up"] | {"control": "tiny"}}},
        "The next best, “tiny”, never pruned, 500 kB and 2.00 ms, is surely worse.",
    ),
    "nothing to test": ({"chosen": None, "smaller": None}, "how small your network can be: no smaller one was tested."),
    "budget": (
        {"budget": BUDGET},
        "The best network within 5 ms: 910 kB in place of 2.4 MB, 3.10 ms in place of 5.00 ms, 96.1 % right in place "
        "of 94.7 %. We are 97.5 % sure that it loses less than 1.1 points. The next best, 500 kB and 2.00 ms, is "
        "surely worse.",
    ),
    "budget, a gain, and no other": (
        {"budget": BUDGET | {"runner_up": None}, "chosen": CHOSEN | {"high": -0.001, "class_high": 0.0}},
        "We are 97.5 % sure that it loses nothing.",
    ),
    "budget, the next may be as good": (
        {"budget": BUDGET | {"runner_up": SMALLER | {"low": -0.01}}},
        "The next best, 500 kB and 2.00 ms, may be as good.",
    ),
    "budget, a class is lost": (
        {"budget": BUDGET, "chosen": CHOSEN | LOST},
        "94.7 %. But it no longer recognises “defect”. The next best",
    ),
    "budget of weights, nothing fits": (
        {"budget": {"measure": "params", "limit": 100_000, "runner_up": None}, "chosen": None},
        "None of the networks that were tried stays within 100 k weights.",
    ),
    "budget of bytes, nothing fits": (
        {"budget": {"measure": "bytes", "limit": 500_000, "runner_up": None}, "chosen": None},
        "stays within 500 kB.",
    ),
    "budget of operations, nothing fits": (
        {"budget": {"measure": "macs", "limit": 30_000_000, "runner_up": None}, "chosen": None},
        "stays within 30.0 M multiplications.",
    ),
}


# Of a file.
CERTIFICATE = {"file": "model.onnx", "images": 300, "accuracy": 0.94, "unpruned_accuracy": 0.947, "confidence": 0.95}
CERTIFICATES = {
    "a loss": (
        {"drop": 0.007, "low": -0.011, "high": 0.025},
        "model.onnx is right on 94.0 % of 300 test images, and your network, trained alike, on 94.7 %: the file loses "
        "0.7 points, and on other images of this kind may gain 1.1 points or lose up to 2.5.",
    ),
    "surely a loss": ({"drop": 0.03, "low": 0.01, "high": 0.05}, "on other images of this kind may lose 1.0 to 5.0."),
    "surely a gain": ({"drop": -0.03, "low": -0.05, "high": -0.01}, "gains 3.0 points, and on other images of"),
    "nothing beside it": (
        {"drop": None, "low": None, "high": None, "unpruned_accuracy": None},
        "model.onnx is right on 94.0 % of 300 test images.",
    ),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_what_is_certified_of_a_file_has_its_words(name):
    changes, text = CERTIFICATES[name]
    assert text in words.certificate(CERTIFICATE | changes)


def test_what_both_intervals_say_is_told_apart():
    alone = words.two_intervals(None, CERTIFICATE)
    both = words.two_intervals(ANSWER, CERTIFICATE)
    assert both.endswith(alone)
    assert "95 % sure" in alone
    assert both.startswith("The answer is of all networks that are made in this way: on average these may gain 3.0 ")
    unknown = ANSWER | {"chosen": CHOSEN | {"low": None, "high": None}}
    assert words.two_intervals(unknown, CERTIFICATE) == words.two_intervals(ANSWER | {"chosen": None}, CERTIFICATE)
    assert words.two_intervals(unknown, CERTIFICATE) == alone


def said(name: str) -> str:
    return " ".join(words.sentences(ANSWER | CASES[name][0]))


@pytest.mark.parametrize("name", CASES)
def test_every_case_has_its_words(name):
    assert CASES[name][1] in said(name)


def test_it_says_what_it_rests_on():
    assert words.sentences(ANSWER)[-1] == "Tested on 300 images that no network had seen, in 15 trainings."
    assert words.sentences(ANSWER | {"folds": 5})[-1] == (
        "Tested on each of your 300 images, by networks that had not seen it, in 15 trainings."
    )


def test_of_several_answers_each_is_told_by_its_subject():
    assert words.opening([ANSWER]) == [said("holds, one step smaller is not certain")]
    first, second = words.opening([ANSWER, ANSWER | {"dataset": "others"}])
    assert first.startswith("My photos, vgg16: Your network can be")
    assert second.startswith("Others, vgg16: Your network can be")


# English that needs no explanation.
PLAIN_TEXT = """
    a about allowed and are as be before best better but by can cannot certain decide does each ended enough far found
    good had how images in is it its less longer looks lose loses may more multiplications never next no none not
    nothing of on one or place relied say seen should since small smaller stay stays step surely test tested tests
    than that the times to too tried turned up out was we weights well went were whether which within worse would
    wrong yet your
"""
PLAIN = set(PLAIN_TEXT.split())
# Of numbers of weights and multiplications, thousands and millions.
PREFIXES = {"k", "m"}


def explained() -> set[str]:
    """The words that the README's first screen, all above its first heading of a part, sets in bold to explain them."""
    first_screen = README.split("\n## ")[0]
    return {word for term in re.findall(r"\*\*(.+?)\*\*", first_screen, re.DOTALL) for word in term.lower().split()}


def test_no_word_is_one_that_its_reader_has_not_been_told():
    told = explained()
    assert {"network", "class", "training", "points", "right", "sure", "recognises", "mb", "kb", "ms"} <= told
    for name in CASES:
        # Classes are the reader's own words.
        used = set(re.findall(r"[a-z]+", re.sub(r"“.*?”", "", said(name)).lower()))
        strange = {word for word in used - PLAIN - PREFIXES if not {word, word.removesuffix("s"), f"{word}s"} & told}
        assert not strange, name
    jargon = {"mac", "macs", "criterion", "ratio", "seed", "seeds", "alpha", "interval", "filter", "fold", "backbone"}
    assert not jargon & (PLAIN | told)


def test_the_readmes_example_is_what_is_said():
    block = re.search(r"How small can it be\?\n(.*?)```", README, re.DOTALL)[1]
    told = " ".join(block.split())
    pattern = (
        r"Your network can be [\d.]+ times smaller: .* in place of .* % right in place of .* %\. "
        r"We are 97\.5 % sure that it loses less than 2 points\. (?:One step smaller|The next one tested), .*\. "
        r"Tested on \d+ images that no network had seen, in \d+ trainings\."
    )
    assert re.fullmatch(pattern, told)


@given(st.floats(-0.5, 0.5))
def test_a_bound_is_never_said_to_be_less_than_it_is(bound):
    text = " ".join(words.sentences(ANSWER | {"smaller": SMALLER | {"high": bound, "class_high": -1.0}}))
    if 100 * bound > 2.0:
        least = float(re.search(r"up to ([\d.]+) point", text)[1])
        assert 100 * bound - 1e-6 <= least < 100 * bound + 0.1 + 1e-6
    else:
        assert "the tests ended before it" in text


def test_no_line_parts_a_number_from_its_unit():
    text = words.unbroken("2.4 MB, 3.1 ms, 96.1 % right, 2 points, 1 point, 7 bytes, 5 bits")
    assert text.replace("\N{NO-BREAK SPACE}", "_") == (
        "2.4_MB, 3.1_ms, 96.1_% right, 2_points, 1_point, 7_bytes, 5 bits"
    )
