"""The report: one page that is whole, loads nothing, and shows what its sources say, whatever characters they hold."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
import shutil
import subprocess

import altair as alt
import numpy as np
import pandas as pd
import pytest
import yaml

import plot
from winnow import tables
from winnow.answers import gallery, summary, words
from winnow.answers import report as pages
from winnow.data import corruptions, splits
from winnow.data.store import Entry, Store, write_store
from winnow.files import InputError, write_json
from winnow.workflow import grid, promises

from . import programs

# What breaks a page that does not escape it: in text, in an attribute, in a script.
NASTY = "</script><script>alert(\"x\")</script> <!-- & 'Blüte' 花 {{ 7 * 7 }}"
CONFIGURATION = {
    "experiments": {
        "tiny": {
            "datasets": ["digits"],
            "backbones": ["net"],
            "criteria": ["apoz", "random"],
            "scopes": ["layer"],
            "ratios": [0.2, 0.4],
            "inits": ["inherited"],
            "seeds": [0, 1],
            "models": "drop",
        }
    },
    "datasets": {"digits": {"source": "folder", "path": f"/where/{NASTY}", "recipe": "quick"}},
    "backbones": {"net": {"architecture": "vgg_digits", "weights": "random"}},
    "recipes": {"quick": {"epochs": 2, "learning_rate": 0.05}},
}
SPEC = {"experiment": "tiny", "configuration": CONFIGURATION, "code": "c" * 32}
CELLS = grid.cells(CONFIGURATION["experiments"]["tiny"])
RECORD = {
    **{"dataset": "digits", "backbone": "net", "measure": "macs", "criterion": "apoz", "scope": "layer", "ratio": 0.4},
    **{
        "round_to": None,
        "control": None,
        "init": "inherited",
        "protocol": "one_shot",
        "seeds": 2,
        "size": 226000,
        "baseline_size": 618000,
        "accuracy": 0.954,
    },
    **{"baseline_accuracy": 0.94, "drop": -0.014, "drop_low": -0.022, "drop_high": -0.005, "unequal_seeds": ""},
    **{"class_drop": -0.01, "class_drop_low": -0.03, "class_drop_high": 0.01, "lost_classes": [], "failed_seeds": ""},
    "verdict": "holds",
    "sentence": f"A claim {NASTY}",
}
MEASURED = {"params": 10_000, "macs": 200_000, "bytes": 40_000, "latency_ms": None, "accuracy": 0.9}
CHOSEN = MEASURED | {
    **{
        "bytes": 20_000,
        "accuracy": 0.88,
        "drop": 0.02,
        "low": -0.01,
        "high": 0.05,
        "class_low": 0.0,
        "class_high": 0.04,
    },
    **{"lost_classes": [f"5 {NASTY}"], "failed_seeds": "", "criterion": "apoz", "scope": "layer", "ratio": 0.4},
    "cell": "digits/net/apoz/layer/0.400/inherited/0",
}
ANSWER = {
    **{"dataset": "digits", "backbone": "net", "verdict": "fails", "tolerance": 2.0, "confidence": 0.975},
    **{"test_images": 6, "folds": None, "trainings": 6, "unpruned": MEASURED, "chosen": CHOSEN, "smaller": None},
    **{"budget": None, "more_images": None},
}
CLASSES = [f"5 {NASTY}", "six"]
RECOMMENDATION = {
    "experiment": "tiny",
    "answer": [ANSWER],
    "tolerance": 2.0,
    "lines": [f"Take apoz {NASTY}", "A second line."],
    "notes": [f"A note {NASTY}"],
    "verdicts": [RECORD, RECORD | {"measure": "latency_ms", "size": 3.21, "baseline_size": 9.87}],
    "ladder": [
        RECORD | {"ratio": 0.2, "round_to": 16, "verdict": "undecided"},
        RECORD | {"verdict": "fails", "lost_classes": [f"5 {NASTY}", "7"], "failed_seeds": "1"},
    ],
    "claims": [RECORD | {"measure": None, "size": None, "baseline_size": None, "unequal_seeds": "1"}],
    "chosen": [{"dataset": "digits", "backbone": "net", "cell": CELLS[-1].path}],
}


def metrics(cell: grid.Cell) -> dict:
    diverged = cell.criterion == "random" and cell.ratio == 0.4 and cell.seed == 1
    accuracy = 0.9 - 0.1 * cell.ratio - 0.05 * (cell.criterion == "random") + 0.01 * cell.seed
    return {
        **{"status": "diverged" if diverged else "finished", "reason": None, "seconds": {"total": 2.5}},
        **dict.fromkeys(("accuracy", "class_accuracy", "val_accuracy"), None if diverged else accuracy),
        **{"params": int(10_000 * (1.2 - cell.ratio)), "macs": int(200_000 * (1.2 - cell.ratio)), "bytes": 40_000},
        **{"achieved_ratio": cell.ratio, "device": f"Card {NASTY}", "precision": "bf16", "threads": 4},
        **{"versions": {"torch": "2.0", "winnow": "0.1"}, "spec": {"code": "a" * 32 if cell.seed else "b" * 32}},
    }


def write_images(results, channels=3) -> None:
    """A store of eight images, and its split: two of them to train on."""
    entries = [Entry(f"{n}.png", n % 2, None, None, 8, 8) for n in range(8)]
    pixels = np.random.default_rng(0).integers(256, size=(8, 8, 8, channels), dtype=np.uint8)
    manifest = {"classes": CLASSES, "store_size": 8, "image_size": 8, "spec": {"code": "d" * 32}}
    manifest["skipped"] = [{"file": f"bad {NASTY}", "reason": "cannot be read"}]
    manifest |= {
        "passed": {},
        "copies": None,
        "ranges": {},
        "reading": {"channels": channels},
        "notes": ["labels come from labels.csv"],
    }
    manifest = write_store(results / "datasets/digits", zip(entries, pixels, strict=True), manifest)
    splits.write(results / "splits/digits/only.parquet", ["train"] * 2 + ["test"] * 6, manifest, {})


def predictions(cell: grid.Cell) -> dict:
    """All right with the unpruned network, save image 7; with others, image 2 is wrong and 7 is right."""
    images = np.arange(2, 8)
    labels = images % 2
    wrong = images == (7 if cell.criterion == "unpruned" else 2)
    found = {"image": images, "label": labels, "predicted": np.where(wrong, 1 - labels, labels)}
    return found | {"probability": np.where(wrong, 0.2, 0.8), "correct": ~wrong}


def draw(folder, entries) -> None:
    folder.mkdir()
    for entry in entries:
        data = pd.DataFrame({"x": [1, 2, 3], "y": [2, 1, 3], "name": [NASTY, "b", "c"]})
        chart = alt.Chart(data, title=entry["title"]).mark_line(point=True).encode(x="x", y="y", tooltip="name")
        for suffix in "svg", "json":
            chart.save(str(folder / f"{entry['name']}.{suffix}"), format=suffix)
    write_json(folder / "index.json", entries)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A results folder with a tiny experiment, and its page."""
    results = tmp_path_factory.mktemp("report") / "results"
    for cell in CELLS:
        write_json(results / "cells" / cell.path / "metrics.json", metrics(cell))
        if metrics(cell)["status"] == "finished":
            table = results / "cells" / cell.path / "predictions.parquet"
            tables.write_table(table, predictions(cell), "predictions", {})
    write_images(results)
    experiment = results / "experiments" / "tiny"
    rows = summary.summarise((cell, metrics(cell)) for cell in CELLS)
    tables.write_table(experiment / "summary.parquet", rows, "summary", {"spec": {"code": "e" * 32}})
    write_json(experiment / "recommendation.json", RECOMMENDATION)
    draw(
        experiment / "figures",
        [
            {"name": "digits-net-layer", "group": "Accuracy", "title": f"One {NASTY}", "caption": f"How {NASTY}"},
            {"name": "digits-net-global", "group": "Accuracy", "title": "Two", "caption": "How to read it."},
            {"name": "sizes", "group": f"Sizes {NASTY}", "title": "Three", "caption": "And this."},
        ],
    )
    report(results)
    return results


def report(results) -> None:
    experiment = results / "experiments" / "tiny"
    programs.run(
        *("report", SPEC, "--experiment", experiment, "--results", results, "--output", experiment / "report.html")
    )


def text_of(results) -> str:
    return (results / "experiments" / "tiny" / "report.html").read_text(encoding="utf-8")


def test_gray_pictures_are_shown_as_others_are(made, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(made, results)
    shutil.rmtree(results / "datasets")
    write_images(results, channels=1)
    report(results)
    assert text_of(results).count("data:image/png") == text_of(made).count("data:image/png") > 0


class Reader(html.parser.HTMLParser):
    """A page's elements, with their attributes and texts; elements that are not closed in order are an error."""

    VOID = ("meta", "link", "img", "input", "br")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[dict] = []
        self.elements: list[dict] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "attributes": dict(attributes), "text": ""}
        self.elements.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, "attributes": dict(attributes), "text": ""})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def find(self, tag, **attributes):
        return [
            element
            for element in self.elements
            if element["tag"] == tag
            and all(element["attributes"].get(name) == value for name, value in attributes.items())
        ]


@pytest.fixture(scope="module")
def page(made) -> Reader:
    return Reader(text_of(made))


def fields(page: Reader, table: str) -> list[list[dict]]:
    """A table's rows, heading first, as the elements of their fields."""
    rows: list[list[dict]] = []
    position = page.elements.index(page.find("table", id=f"table-{table}")[0])
    for element in page.elements[position + 1 :]:
        if element["tag"] == "table":
            break
        if element["tag"] == "tr":
            rows.append([])
        elif element["tag"] in ("th", "td"):
            rows[-1].append(element)
    return rows


def columns(page: Reader, table: str) -> dict[str, list[str]]:
    heading, *rows = [[field["text"] for field in row] for row in fields(page, table)]
    return dict(zip(heading, zip(*rows, strict=True), strict=True))


def test_it_has_every_section_and_a_table_of_contents_that_leads_there(page):
    links = [a["attributes"]["href"] for a in page.find("a") if a["attributes"].get("class") != "anchor"]
    sections = ["answer", "images", "data", "verdict", "figures", "summary", "configuration", "provenance"]
    assert links == [f"#{section}" for section in sections]
    identities = [element["attributes"]["id"] for element in page.elements if "id" in element["attributes"]]
    assert len(identities) == len(set(identities))
    assert {link[1:] for link in links} <= set(identities)
    anchors = [a["attributes"]["href"][1:] for a in page.find("a", **{"class": "anchor"})]
    headings = [
        e["attributes"]["id"] for e in page.elements if e["tag"] in ("h2", "h3", "h4") and "id" in e["attributes"]
    ]
    assert anchors == headings
    assert page.find("h1")[0]["text"] == "tiny"


def test_whatever_its_sources_say_is_text(page):
    # Three figures' data, the Vega bundle and the page's own script; none is of the sources' making.
    assert len(page.find("script")) == 3
    assert not any("alert" in script["text"] and "vega" not in script["text"] for script in page.find("script")[2:])
    items = [li["text"] for li in page.find("li")]
    assert RECOMMENDATION["lines"][0] in items
    assert RECOMMENDATION["notes"][0] in items
    assert f"5 {NASTY}" in [h4["text"] for h4 in page.find("h4")]
    assert columns(page, "skipped-digits") == {
        **{"reason": ("cannot be read",), "files": ("1",), "such as": (f"bad {NASTY}",)}
    }
    assert promises.sentence(6, 8, None, 2.0, 0) in [p["text"] for p in page.find("p")]
    remarks = [p for p in page.find("p") if p["text"] == "labels come from labels.csv" or "WARNING" in p["text"]]
    assert ["warning" in remark["attributes"]["class"] for remark in remarks] == [True, False]
    assert any(caption["text"] == f"How {NASTY}" for caption in page.find("figcaption"))
    assert f"One {NASTY}. How {NASTY}" in [img["attributes"]["alt"] for img in page.find("img")]
    assert any(f"Sizes {NASTY}" in heading["text"] for heading in page.find("h3"))
    assert columns(page, "environments")["device"] == (f"Card {NASTY}",)
    charts = json.loads(page.find("script", id="charts")[0]["text"])
    assert next(iter(charts["digits-net-layer"]["datasets"].values()))[0]["name"] == NASTY


def test_the_data_section_names_the_smallest_class_and_what_its_folds_can_tell(made):
    store = dataclasses.replace(Store.open(made / "datasets/digits"), labels=np.repeat([0, 1], [6, 2]))
    remarks = pages.data_set("digits", store, None, 4, 5, 2.0).remarks
    assert remarks[0] == "the smallest class is six, 2 images"
    assert remarks[-1] == promises.sentence(0, 8, 5, 2.0)


def test_it_loads_nothing(made, page):
    for element in page.elements:
        for name in ("src", "href", "data", "action", "poster", "srcset", "xlink:href"):
            value = element["attributes"].get(name, "")
            assert value.startswith(("#", "data:")) or not value, (element["tag"], name, value[:80])
    assert page.find("link") == page.find("link", rel="icon")
    (style,) = page.find("style")
    assert "@import" not in style["text"]
    assert "url(" not in style["text"]
    policy = page.find("meta", **{"http-equiv": "Content-Security-Policy"})[0]["attributes"]["content"]
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*|unsafe-eval", policy)
    assert len(text_of(made).encode()) < 2e6


def test_it_opens_with_the_answer_in_plain_words(page):
    place = page.elements.index(page.find("div", **{"class": "lead"})[0])
    first = [element for element in page.elements[place + 1 :] if element["tag"] == "p"][: len(words.sentences(ANSWER))]
    assert [p["text"].replace("\N{NO-BREAK SPACE}", " ") for p in first] == words.sentences(ANSWER)
    assert "no longer recognises" in first[1]["text"]
    assert page.find("figure")[0]["attributes"] == {"id": "figure-digits-net-answer", "class": "opening"}
    assert all(place < page.elements.index(each) for each in page.find("table") + page.find("figure"))


def test_it_shows_the_images_that_the_networks_disagree_on(page, made):
    galleries = page.find("ul", **{"class": "gallery"})
    assert len(galleries) == 2
    shown = [element for element in page.elements if element["tag"] in ("ul", "img")]
    lost, gained = (shown[shown.index(each) + 1]["attributes"] for each in galleries)
    pixels = np.load(made / "datasets" / "digits" / "images.npy")
    assert lost["src"] == gallery.thumbnail(pixels[2])
    assert lost["alt"] == CLASSES[0]
    assert gained["src"] == gallery.thumbnail(pixels[7])
    # Of what the other four cells answered nothing is shown, and of the diverged one there is nothing.
    assert [li["text"] for li in page.find("li") if "→" in li["text"]] == [
        f"{CLASSES[0]}→ {CLASSES[1]}",
        f"{CLASSES[1]}→ {CLASSES[0]}",
    ]
    pairs = columns(page, "confusions-digits-net")
    assert list(zip(pairs["images of"], pairs["smaller network %"], pairs["your network %"], strict=True)) == [
        (CLASSES[0], "33.3", "0.0"),
        (CLASSES[1], "0.0", "33.3"),
    ]


def test_it_shows_what_the_data_set_is(page):
    assert any(
        p["text"].startswith("digits: 8 images of 2") and "2 to train on, 6 to test on" in p["text"]
        for p in page.find("p")
    )
    (classes,) = page.find("ul", **{"class": "classes"})
    place = page.elements.index(classes)
    images = [each for each in page.elements[place:] if each["tag"] == "img" and "width" in each["attributes"]]
    assert [each["attributes"]["alt"] for each in images] == [CLASSES[0]] * 4 + [CLASSES[1]] * 4


def test_of_a_data_set_with_folds_the_page_names_no_parts(made, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(made, results)
    shutil.rmtree(results / "splits")
    configuration = CONFIGURATION | {"datasets": {"digits": CONFIGURATION["datasets"]["digits"] | {"folds": 2}}}
    experiment = results / "experiments" / "tiny"
    arguments = ["--experiment", experiment, "--results", results, "--output", experiment / "report.html"]
    programs.run("report", SPEC | {"configuration": configuration}, *arguments)
    page = Reader(text_of(results))
    assert any(" ".join(p["text"].split()) == "digits: 8 images of 2 classes." for p in page.find("p"))


def test_an_answer_without_a_network_has_its_words_alone(made, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(made, results)
    answer = ANSWER | {"chosen": None}
    write_json(results / "experiments" / "tiny" / "recommendation.json", RECOMMENDATION | {"answer": [answer, answer]})
    report(results)
    page = Reader(text_of(results))
    assert page.find("a", href="#images") == []
    assert [h["text"].removesuffix(" #") for h in page.find("h3")][:2] == ["Digits, net"] * 2


def test_the_libraries_are_there_once(made):
    assert text_of(made).count("window.vegaEmbed=") == 1


def test_figures_are_grouped_in_order_with_an_image_beneath(page):
    first = ["figure-digits-net-answer", "figure-digits-net-confusion"]
    names = [figure["attributes"]["id"] for figure in page.find("figure")]
    assert names == [*first, "figure-digits-net-layer", "figure-digits-net-global", "figure-sizes"]
    groups = [h["text"] for h in page.find("h3") if h["attributes"]["id"].startswith("figures-")]
    assert [group.removesuffix(" #") for group in groups] == ["Accuracy", f"Sizes {NASTY}"]
    drawn = [img for img in page.find("img") if "width" not in img["attributes"]]
    assert all(img["attributes"]["src"].startswith("data:image/svg+xml;base64,") for img in drawn)
    assert len(drawn) == 5
    assert list(json.loads(page.find("script", id="charts")[0]["text"])) == [name[7:] for name in names]


def test_the_summary_has_all_rows_and_the_numbers_behind_them(page, made):
    frame = summary.read(made / "experiments" / "tiny" / "summary.parquet")
    heading, *rows = fields(page, "summary")
    assert len(rows) == len(frame) == 5
    names = [field["text"] for field in heading]
    # What is the same in all rows stands above the table; latencies were not measured.
    assert names[:5] == ["scope", "criterion", "ratio", "accuracy %", "drop, points"]
    assert names[5:] == ["removed", "params", "MACs", "seeds", "failed seeds"]
    assert any("All rows: data set digits, backbone net, init inherited." in p["text"] for p in page.find("p"))
    for row, record in zip(rows, frame.to_dict("records"), strict=True):
        found = dict(zip(names, row, strict=True))
        assert found["criterion"]["text"] == record["criterion"]
        assert float(found["accuracy %"]["attributes"]["data-value"]) == record["accuracy"]
        assert float(found["MACs"]["attributes"]["data-value"]) == record["macs"]
        assert found["MACs"]["text"] == summary.quantity(record["macs"])
    unpruned = dict(zip(names, rows[0], strict=True))
    assert unpruned["drop, points"]["text"] == "–"


def test_the_summary_shows_latencies_where_there_are_any(made):
    frame = summary.read(made / "experiments" / "tiny" / "summary.parquet")
    frame.loc[0, "latency_ms"] = 12.34
    table = pages.summary_table(frame)
    assert table.columns["latency, ms"]
    assert table.rows[0]["latency, ms"] == ("12.3", 12.34)
    assert table.rows[1]["latency, ms"] == ("–", None)


def test_a_network_of_which_no_seed_finished_has_a_row():
    rows = summary.summarise((cell, None if cell.criterion == "random" else metrics(cell)) for cell in CELLS)
    lost = pages.summary_table(rows).rows[-1]
    assert lost["criterion"].text == "random"
    assert lost["accuracy %"] == lost["MACs"] == ("–", None)
    assert lost["failed seeds"].text == "0, 1"


def test_two_data_sets_have_a_column(made):
    frame = summary.read(made / "experiments" / "tiny" / "summary.parquet")
    table = pages.summary_table(pd.concat([frame, frame.assign(dataset="others")]))
    assert [row["data set"].text for row in table.rows] == ["digits"] * 5 + ["others"] * 5


def test_verdicts_are_tables(page):
    smallest = columns(page, "verdicts")
    assert smallest["measure"] == ("MACs", "latency")
    assert smallest["size"] == ("226 k (37 %)", "3.21 ms (33 %)")
    assert smallest["drop, points"] == ("-1.4 [-2.2, -0.5]",) * 2
    assert smallest["verdict"] == ("holds", "holds")
    assert smallest["averaged over classes"] == ("-1.0 [-3.0, 1.0]",) * 2
    assert not {"lost classes", "failed seeds"} & set(smallest)
    ladder = columns(page, "ladder")
    assert ladder["ratio"] == ("0.2~16", "0.4")
    assert ladder["verdict"] == ("undecided", "fails")
    assert ladder["lost classes"] == ("–", f"5 {NASTY}, 7")
    assert ladder["failed seeds"] == ("–", "1")
    claims = columns(page, "claims")
    assert list(claims) == ["claim", "verdict", "accuracy %", "drop, points", "averaged over classes", "seeds"]
    assert claims["claim"] == (f"A claim {NASTY}",)
    # Of networks that were not trained alike.
    assert claims["drop, points"] == ("-1.4 [-2.2, -0.5] ≠",)
    assert CELLS[-1].path in [code["text"] for code in page.find("code")]


def test_an_experiment_with_one_seed_and_no_figure_has_a_page(made, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(made, results)
    experiment = results / "experiments" / "tiny"
    rows = summary.summarise((cell, metrics(cell)) for cell in CELLS if cell.seed == 0)
    tables.write_table(experiment / "summary.parquet", rows, "summary", {"spec": {"code": "e"}})
    write_json(experiment / "figures" / "index.json", [])
    write_json(
        experiment / "recommendation.json",
        RECOMMENDATION | {name: [] for name in ("answer", "verdicts", "ladder", "claims", "chosen", "notes")},
    )
    report(results)
    page = Reader(text_of(results))
    assert page.find("figure") == []
    assert page.find("a", href="#figures") == []
    assert page.find("a", href="#answer") == []
    assert len(text_of(results)) < 60_000
    assert columns(page, "summary")["accuracy %"][0] == "90.0"


def test_the_configuration_is_yaml_and_whole(page):
    (block,) = page.find("pre")
    assert yaml.safe_load(block["text"]) == CONFIGURATION
    assert block["text"].startswith("experiments:")


def test_provenance_tells_devices_versions_digests_and_failures(page):
    environments = columns(page, "environments")
    assert environments["precision"] == ("bf16",)
    assert environments["torch"] == ("2.0",)
    assert environments["cells"] == (str(len(CELLS)),)
    codes = columns(page, "codes")
    assert dict(zip(codes["what"], codes["digest of the code"], strict=True)) == {
        "cells": f"{'a' * 32}, {'b' * 32}",
        "summary": "e" * 32,
        "verdict": "unknown",
        "page": "c" * 32,
    }
    assert codes["results"][0] == str(len(CELLS))
    facts = dict(zip([e["text"] for e in page.find("dt")], [e["text"] for e in page.find("dd")], strict=True))
    assert facts["Cells"] == f"{len(CELLS)}, of which {len(CELLS) - 1} finished, 1 diverged"
    assert facts["Time in them"] == "0:00:25"
    assert facts["Failed seeds"] == "digits, net: random, layer, ratio 0.4, inherited: seed 1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", facts["Page made"])


def test_a_cell_without_result_is_counted():
    told = pages.facts(None, dict.fromkeys(CELLS))
    assert told["Cells"] == f"{len(CELLS)}, of which 0 finished, {len(CELLS)} have no result"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("recommendation.json", lambda path: path.unlink(), r"recommendation\.json does not exist"),
        ("recommendation.json", lambda path: path.write_text("{}"), r"recommendation\.json has no 'answer'"),
        ("figures/index.json", lambda path: path.unlink(), r"index\.json does not exist"),
        ("figures/sizes.svg", lambda path: path.unlink(), r"sizes\.svg does not exist, but .*index\.json names it"),
        ("figures/sizes.json", lambda path: path.write_text("{"), r"sizes\.json is not valid JSON"),
        ("summary.parquet", lambda path: path.write_bytes(b"PAR1"), r"summary\.parquet cannot be read"),
        ("../../splits/digits/only.parquet", lambda path: path.unlink(), r"only\.parquet does not exist"),
        ("../../datasets/digits/images.npy", lambda path: path.unlink(), r"images\.npy cannot be read"),
        (f"../../cells/{CHOSEN['cell']}/predictions.parquet", lambda path: path.unlink(), r"predictions\.parquet does"),
    ],
)
def test_a_missing_or_damaged_source_is_named_and_the_old_page_stays(made, tmp_path, name, damage, message):
    results = tmp_path / "results"
    shutil.copytree(made, results)
    before = text_of(results)
    damage(results / "experiments" / "tiny" / name)
    with pytest.raises(InputError, match=message):
        report(results)
    assert text_of(results) == before


# Put into the page: notes every complaint from the start, and at the end tries out what a reader would.
EARS = """<script>
window.complaints = [];
const complain = (...words) => window.complaints.push(words.join(" "));
for (const kind of ["error", "warn"]) console[kind] = complain;
addEventListener("error", (event) => complain("error:", event.message || event.target.outerHTML), true);
addEventListener("unhandledrejection", (event) => complain("rejection:", event.reason));
addEventListener("securitypolicyviolation", (event) => complain("policy:", event.violatedDirective));
</script>"""
HANDS = """<script>
addEventListener("load", async () => {
  const told = {};
  const boxes = [...document.querySelectorAll(".drawing")];
  for (let wait = 0; wait < 400 && !boxes.every((box) => box.classList.contains("drawn")); wait++)
    await new Promise((resolve) => setTimeout(resolve, 50));
  told.drawn = boxes.map((box) => box.querySelectorAll(".vega-embed svg path").length);
  told.images = boxes.filter((box) => getComputedStyle(box.querySelector("img")).display !== "none").length;
  told.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  const table = document.getElementById("table-summary");
  const headings = [...table.tHead.rows[0].cells];
  const column = (place) => [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
  told.sorted = {};
  for (const name of ["drop, points", "MACs", "criterion"]) {
    const place = headings.findIndex((heading) => heading.textContent === name);
    const button = headings[place].querySelector("button");
    told.sorted[name] = [];
    for (let click = 0; click < 2; click++) {
      button.click();
      told.sorted[name].push([headings.map((heading) => heading.getAttribute("aria-sort"))[place], column(place)]);
    }
  }
  told.one = headings.filter((heading) => heading.getAttribute("aria-sort") !== "none").length;
  const input = document.querySelector("input[type=search]");
  input.value = "Random 0.4";
  input.dispatchEvent(new Event("input"));
  told.left = [...table.tBodies[0].rows].filter((row) => row.offsetHeight).length;
  told.count = document.querySelector(".filter output").textContent;
  told.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  told.complaints = window.complaints;
  const probe = document.createElement("pre");
  probe.id = "told";
  probe.textContent = JSON.stringify(told);
  document.body.append(probe);
});
</script>"""


@pytest.mark.parametrize("width", [500, 1600])
def test_a_browser_draws_every_figure_sorts_and_filters_without_complaint(browser, made, tmp_path, width):
    text = text_of(made).replace("<head>", f"<head>{EARS}", 1)
    # Vega's code holds a </body>, too.
    text = f"{HANDS}</body>".join(text.rsplit("</body>", 1))
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=60000", f"--window-size={width},1000"),
            *("--dump-dom", (tmp_path / "page.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    (told,) = Reader(done.stdout).find("pre", id="told")
    told = json.loads(told["text"])
    assert told["complaints"] == []
    assert [name for name in told["loaded"] if not name.startswith("data:")] == []
    assert len(told["drawn"]) == 5
    assert all(told["drawn"])
    assert told["images"] == 0
    assert not told["wide"]
    (ascending, up), (descending, down) = told["sorted"]["drop, points"]
    assert (ascending, descending) == ("ascending", "descending")
    numbers = [float(field.split()[0]) for field in up if field != "–"]
    assert numbers == sorted(numbers)
    assert numbers[::-1] == [float(field.split()[0]) for field in down if field != "–"]
    assert up[-1] == down[-1] == "–"
    # As numbers: 96 k comes before 200 k.
    assert [field for _, field in zip(range(5), told["sorted"]["MACs"][0][1], strict=True)] == [
        *("160 k", "160 k", "200 k", "200 k", "240 k")
    ]
    assert told["sorted"]["criterion"][0][1] == ["apoz", "apoz", "random", "random", "unpruned"]
    assert told["one"] == 1
    assert told["left"] == 1
    assert told["count"] == "1 of 5 rows"


def test_figures_may_come_in_one_file_and_a_damaged_one_is_named(made, tmp_path):
    results, archive = tmp_path / "results", tmp_path / "figures.zip"
    shutil.copytree(made, results)
    experiment = results / "experiments" / "tiny"
    before = re.findall(r'<figure id="[^"]*"', text_of(results))
    plot.pack(experiment / "figures", archive)
    shutil.rmtree(experiment / "figures")
    arguments = ["--experiment", experiment, "--results", results, "--output", experiment / "report.html"]
    programs.run("report", SPEC, *arguments, "--figures", archive)
    assert re.findall(r'<figure id="[^"]*"', text_of(results)) == before
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(InputError, match=r"figures\.zip cannot be read"):
        programs.run("report", SPEC, *arguments, "--figures", archive)


CERTIFICATE = {
    **{"file": "model.onnx", "sha256": "f" * 64, "weights_sha256": "0" * 64, "runtime": "onnxruntime 1.27.0"},
    **{"images": 6, "accuracy": 0.875, "as_judged": 5, "confidence": 0.95, "unpruned_accuracy": 0.9},
    **{"drop": 0.025, "low": -0.013, "high": 0.063},
}


DROPS = {"drop": 0.05, "low": 0.02, "high": 0.078}
SPOILED = {
    **{"images": 500, "test_images": 900, "confidence": 0.95},
    "networks": [{"file": name, "sha256": "0" * 64} for name in ("model.safetensors", "model.onnx", "model.int8.onnx")],
    "corruptions": [
        {"name": name, "accuracy": [0.97, 0.965, 0.9], "drops": [DROPS | {"drop": drop}, DROPS | {"drop": 0.07}]}
        for name, drop in zip(("none", *corruptions.CORRUPTIONS), (0.005, 0.01, 0.0, 0.02, 0.049, -0.01), strict=True)
    ],
}


def test_what_is_certified_of_exported_files_stands_beside_the_answer(made, page, tmp_path):
    assert not page.find("h2", id="files")
    model = {"dataset": "digits", "backbone": "net", "folder": "digits-net", "corruptions": None}
    alone = CERTIFICATE | {"file": f"{NASTY}.onnx"} | dict.fromkeys(("drop", "low", "high", "unpruned_accuracy"))
    write_json(tmp_path / "certificates.json", {"models": [model | {"certificates": [CERTIFICATE, alone]}]})
    experiment = made / "experiments" / "tiny"
    arguments = ["--experiment", experiment, "--results", made, "--certificates", tmp_path / "certificates.json"]
    programs.run("report", SPEC, *arguments, "--output", tmp_path / "page.html")
    found = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    (heading,) = found.find("h2", id="files")
    assert heading["text"].startswith("The files")
    said = [each["text"].replace("\N{NO-BREAK SPACE}", " ") for each in found.find("p", **{"class": "prose"})]
    assert words.certificate(CERTIFICATE) in said
    assert words.two_intervals(ANSWER, CERTIFICATE) in said
    (name, accuracy, drop, alike, runtime, digest), second = (
        [field["text"] for field in row] for row in fields(found, "certificates-digits-net")[1:]
    )
    assert (name, accuracy, drop, alike) == ("model.onnx", "87.5", "2.5 [-1.3, 6.3]", "5 of 6")
    assert (runtime, digest) == ("onnxruntime 1.27.0", "f" * 64)
    assert second[2] == "–"
    assert not found.find("table", id="table-spoiled-digits-net")
    # What they lose on spoiled images, where the unpruned network was at hand.
    more = {"models": [model | {"certificates": [CERTIFICATE], "corruptions": SPOILED}]}
    write_json(tmp_path / "certificates.json", more)
    programs.run("report", SPEC, *arguments, "--output", tmp_path / "page.html")
    found = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    said = [each["text"].replace("\N{NO-BREAK SPACE}", " ") for each in found.find("p", **{"class": "prose"})]
    assert set(words.spoiled(SPOILED)) <= set(said)
    rows = [[field["text"] for field in row] for row in fields(found, "spoiled-digits-net")[1:]]
    assert len(rows) == 12
    assert rows[0] == ["as they are", "model.onnx", "97.0", "96.5", "0.5 [2.0, 7.8]"]
    assert rows[9] == ["poorly saved", "model.int8.onnx", "97.0", "90.0", "7.0 [2.0, 7.8]"]
    # Of another data set nothing is said.
    other = {"models": [model | {"dataset": "others", "certificates": [CERTIFICATE]}]}
    write_json(tmp_path / "certificates.json", other)
    programs.run("report", SPEC, *arguments, "--output", tmp_path / "page.html")
    assert 'id="files"' not in (tmp_path / "page.html").read_text(encoding="utf-8")
