"""The model in hand: what an exported folder holds, that both its networks answer as the cell did, and what is
predicted for files of every kind, good and bad."""

import csv
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from winnow import tables
from winnow.answers import words
from winnow.data import preprocessing, splits
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import bundle, cards, certificates, contents, graphs, prediction, quantization
from winnow.files import InputError, read_json, write_json
from winnow.networks import backbones, descriptions, models, surgery

from . import programs
from .test_backbones import imported, in_memory
from .test_finetune import RECIPE
from .test_words import ANSWER

# A folder of photographs, a folder a class; where there is none, the test that needs it is skipped.
PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "cats_vs_dogs" / "test"
COLORS = {"Füchse": (200, 40, 40), "chat, noir": (40, 200, 40), "dog": (40, 40, 200)}
# What was made of the picture, in the file that it was written to.
FORMATS = {
    "jpg": (lambda image: image.resize((200, 150)), {"quality": 90}),
    "JPG": (lambda image: image.convert("CMYK"), {"format": "JPEG"}),
    "jpeg": (lambda image: image, {"exif": 6}),
    "png": (lambda image: Image.fromarray(np.asarray(image.convert("L"), dtype=np.uint16) * 257), {}),
    "PNG": (lambda image: image.convert("RGBA"), {"format": "PNG"}),
    "gif": (lambda image: image.convert("P"), {}),
    "webp": (lambda image: image, {"exif": 3, "lossless": True}),
    "bmp": (lambda image: image.convert("L"), {}),
    "Tiff": (lambda image: image, {"format": "TIFF"}),
}


def write(path, color, seed, suffix):
    """An image file: a color with noise and something darker in one corner, so that it matters how it is turned."""
    generator = np.random.default_rng(seed)
    pixels = np.clip(generator.normal(color, 30, (20, 26, 3)), 0, 255).astype(np.uint8)
    pixels[:8, :8] //= 3
    change, options = FORMATS[suffix]
    options = dict(options)
    if "exif" in options:
        exif = Image.Exif()
        exif[0x0112] = options["exif"]
        options["exif"] = exif
    path.parent.mkdir(parents=True, exist_ok=True)
    change(Image.fromarray(pixels)).save(path, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder: ``images`` of three classes in every format, their ``store``, a ``cell`` and its ``export``."""
    root = tmp_path_factory.mktemp("made")
    suffixes = list(FORMATS)
    for label, (name, color) in enumerate(COLORS.items()):
        for number in range(18):
            suffix = suffixes[number % len(suffixes)]
            write(root / "images" / name / f"{number:02d} é.{suffix}", color, (label, number), suffix)
    dataset = {"source": "folder", "path": str(root / "images"), "split": {"val": 0.2, "test": 0.5}}
    dataset |= {"store_size": 16, "image_size": 12}
    programs.run("decode", {"name": "d", "dataset": dataset}, "--output", root / "store")
    where = ["--dataset", root / "store", "--output", root / "store.parquet"]
    programs.run("split", {"dataset": dataset, "fold": None}, *where)
    imported(root / "net", mean=[0.4, 0.5, 0.6], std=[0.3, 0.25, 0.2])
    finetuned(root, root / "cell")
    exported(root, root / "export")
    return root


def finetuned(root, output, keep=True, place=("unpruned", "none", 0.0), **recipe):
    cell = {"dataset": "d", "backbone": "net", **dict(zip(("criterion", "scope", "ratio"), place, strict=True))}
    cell |= {"round_to": None, "init": "inherited", "seed": 0, "protocol": "one_shot"}
    spec = {"cell": cell, "recipe": RECIPE | {"epochs": 6} | recipe}
    arguments = [
        *programs.dataset(root / "store"),
        "--backbone",
        root / "net",
        "--output",
        *programs.cell(output, keep),
    ]
    programs.run("finetune", spec, *arguments)


def exported(root, output, cell="cell", store="store", *options):
    place = ["--cell", root / cell, *programs.dataset(root / store), "--output", output]
    programs.run("export", {"code": "0"}, *place, *options)


def predicted(*arguments):
    """What the program says in its CSV, row by row, and its exit status."""
    status = 0
    try:
        programs.run("predict", None, *arguments)
    except SystemExit as stop:
        status = stop.code
    with open(arguments[arguments.index("--output") + 1], newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)), status


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made / "export", tmp_path / "export"))


def test_a_folder_has_all_that_its_user_needs(made):
    export = made / "export"
    assert {path.name for path in export.iterdir()} == {
        "model.safetensors", "model.onnx", "model.int8.onnx", "model.json", "README.md", "example.py",
        "preprocessing.py",
    }  # fmt: skip
    assert [path.name for path in made.iterdir() if path.name.startswith(".")] == []
    model, metrics = read_json(export / "model.json"), read_json(made / "cell" / "metrics.json")
    assert model["classes"] == sorted(COLORS)
    for name in ("accuracy", "val_accuracy", "per_class", "params", "macs", "epoch"):
        assert model[name] == metrics[name]
    assert model["images"] == {"train": 15, "val": 12, "test": 27}
    assert model["provenance"]["cell"] == metrics["spec"]
    assert model["provenance"]["versions"] == metrics["versions"]
    assert (model["mean"], model["std"]) == ([0.4, 0.5, 0.6], [0.3, 0.25, 0.2])
    assert model["preprocessing"] == preprocessing.steps(preprocessing.Form(16), 12, model["mean"], model["std"])
    assert model.keys() == contents.Exported.__annotations__.keys()
    # What a kept network is described by is all there.
    kept = models.load(made / "cell")[1]
    assert kept.keys() - {"spec", "versions", "device", "precision"} <= model.keys()
    assert model["onnx"].keys() == contents.Graph.__annotations__.keys() - {"not_by"}
    assert all(layer.keys() | {"kernel"} == contents.Layer.__annotations__.keys() for layer in model["layers"])
    assert model["provenance"].keys() == contents.Provenance.__annotations__.keys()
    assert model["int8"].keys() <= quantization.Quantized.__annotations__.keys()
    weights, onnx, int8 = model["certificates"][:3]
    kinds = certificates.Certificate, certificates.OfOnnx, certificates.OfInt8
    for certificate, kind in zip((weights, onnx, int8), kinds, strict=True):
        assert certificate.keys() == kind.__annotations__.keys()
    assert weights["images"] == weights["as_judged"] == onnx["images"] == onnx["as_judged"] == onnx["as_pytorch"] == 27
    assert onnx["largest_difference"] <= onnx["tolerance"] < 1e-2
    assert int8["images"] == 27
    assert abs(int8["accuracy"] - metrics["accuracy"]) <= 1.01 / 27
    assert int8["sha256"] == model["int8"]["sha256"] != onnx["sha256"]
    for certificate, kind in (weights, "weights"), (onnx, "onnx"):
        assert descriptions.written(export / certificate["file"]).items() <= model[kind].items()
        assert certificate["sha256"] == model[kind]["sha256"]
        assert certificate["accuracy"] == metrics["accuracy"]
        # It is the unpruned network: there is none to compare it with.
        assert certificate["drop"] is certificate["unpruned_accuracy"] is None
    assert (weights["runtime"], onnx["runtime"]) == (
        f"torch {torch.__version__}", f"onnxruntime {onnxruntime.__version__}"
    )  # fmt: skip
    for kind, name in descriptions.FILES.items():
        assert descriptions.written(export / name).items() <= model[kind].items()
    assert metrics["accuracy"] > 0.6, "a network that tells nothing apart proves nothing"


def test_the_width_of_every_layer_is_said():
    network = pruned("vgg_digits", "gap", 3)
    unpruned = backbones.build("vgg_digits", "gap", 4)
    found = bundle.layers(network, unpruned)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert [layer["layer"] for layer in found] == [name[:-7] for name in shapes if name.endswith(".weight")]
    for layer in found:
        assert (layer["outputs"], layer["inputs"]) == shapes[f"{layer['layer']}.weight"][:2]
        assert layer["unpruned"] == unpruned.get_submodule(layer["layer"]).weight.shape[0]
    assert found[0]["outputs"] < found[0]["unpruned"]


def test_the_weights_are_the_cells(made):
    (ours, said), (cells, _) = models.load(made / "export"), models.load(made / "cell")
    for (name, tensor), other in zip(ours.state_dict().items(), cells.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name
    assert said["params"] == sum(parameter.numel() for parameter in ours.parameters())


def test_an_onnx_file_carries_no_path_of_the_machine_and_is_the_same_every_time(made, tmp_path):
    exported(made, tmp_path / "again")
    content = (made / "export" / "model.onnx").read_bytes()
    assert (tmp_path / "again" / "model.onnx").read_bytes() == content
    int8 = (made / "export" / "model.int8.onnx").read_bytes()
    assert (tmp_path / "again" / "model.int8.onnx").read_bytes() == int8
    assert str(made).encode() not in int8
    assert b"site-packages" not in content
    assert b"stack_trace" not in content


def test_an_onnx_file_says_what_it_takes_and_gives(made):
    import onnx

    graph = onnx.load(made / "export" / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    assert "float32 of shape (batch, 3, 12, 12): decode" in graph.graph.input[0].doc_string
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(metadata["classes"]) == sorted(COLORS)
    assert metadata["preprocessing"].splitlines() == preprocessing.steps(
        preprocessing.Form(16), 12, [0.4, 0.5, 0.6], [0.3, 0.25, 0.2]
    )


@pytest.mark.parametrize("model", ["cell", "cell/model.safetensors", "export", "export/model.onnx", "export --onnx"])
def test_predictions_of_files_are_those_that_the_cell_was_judged_by(made, tmp_path, model):
    place, *options = model.split()
    rows, status = predicted(made / place, made / "images", *options, "--all", "--output", tmp_path / "a.csv")
    assert status == 0
    assert len(rows) == 54
    answers = {row["file"]: row for row in rows}
    index = tables.read_table(made / "store" / "index.parquet", "index").to_pylist()
    judged = tables.read_table(made / "cell" / "predictions.parquet", "predictions").to_pylist()
    classes = sorted(COLORS)
    assert len(judged) == 27
    for row in judged:
        answer = answers[index[row["image"]]["file"]]
        assert answer["class"] == classes[row["predicted"]]
        assert float(answer[f"probability_{classes[row['label']]}"]) == pytest.approx(row["probability"], abs=2e-5)
    for answer in answers.values():
        assert float(answer["probability"]) == max(float(answer[f"probability_{name}"]) for name in classes)
        assert sum(float(answer[f"probability_{name}"]) for name in classes) == pytest.approx(1, abs=1e-5)


def test_the_likeliest_classes_of_an_image_are_printed(made, capsys):
    images = sorted((made / "images" / "dog").iterdir())[:2]
    programs.run("predict", None, made / "export", *images)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(image) for image in images]
    for line in lines:
        found = re.findall(r"(?:, |: )(Füchse|chat, noir|dog) (0\.\d{4}|1\.0000)", line)
        assert {name for name, _ in found} == set(COLORS)
        assert [float(value) for _, value in found] == sorted((float(value) for _, value in found), reverse=True)


def test_the_example_runs_as_it_is_without_winnow_and_answers_the_same(made, copy, tmp_path):
    images = [path for path in sorted((made / "images").rglob("*")) if path.is_file()]
    blocked = "import sys; sys.modules |= dict.fromkeys(['torch', 'winnow', 'onnx', 'pyarrow']); import runpy\n"
    blocked += f"sys.argv[1:] = {[str(path) for path in images]}; sys.path[0] = {str(copy)!r}; "
    blocked += f"runpy.run_path({str(copy / 'example.py')!r})"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * len(images) == 162
    rows, _ = predicted(copy, *images, "--all", "--output", tmp_path / "a.csv")
    for row, line in zip(rows, lines[::3], strict=True):
        name, probability = line.removeprefix(f"{row['file']}: ").rsplit(" ", 1)
        assert name == row["class"]
        assert float(probability) == pytest.approx(float(row["probability"]), abs=1e-4)
    assert len(cards.EXAMPLE.splitlines()) < 32


def test_the_card_says_what_was_measured(made):
    card = (made / "export" / "README.md").read_text()
    metrics = read_json(made / "cell" / "metrics.json")
    assert card.startswith("# export\n")
    assert f"{100 * metrics['accuracy']:.1f} % of 27 test images" in card
    assert f"12 validation images, which chose the epoch: {100 * metrics['val_accuracy']:.1f} %" in card
    for name in COLORS:
        assert f"| `{name}` | {100 * metrics['per_class'][name]:.1f} % |" in card
    assert "Nothing was removed: this is the unpruned baseline" in card
    assert "| parameters | 72.3 k | 72.3 k | 100.0 % |" in card
    for step in preprocessing.steps(preprocessing.Form(16), 12, [0.4, 0.5, 0.6], [0.3, 0.25, 0.2]):
        assert f". {step}\n" in card


@pytest.mark.parametrize(
    ("criterion", "scope", "init", "says"),
    [
        (
            "apoz",
            "global",
            "inherited",
            "were removed globally (the least important ones by the criterion “apoz”)",
        ),
        ("random", "layer", "inherited", "Of vgg16's filters 40.2 % were removed by layer (drawn at random)"),
        ("apoz", "budget_macs", "inherited", "Of vgg16's MACs 40.2 % were removed within a budget of MACs (the least"),
        ("any", "layer", "random", "It started with random weights."),
    ],
)
def test_the_card_says_how_the_filters_were_chosen(criterion, scope, init, says):
    cell = {"backbone": "vgg16", "criterion": criterion, "scope": scope, "init": init, "protocol": "one_shot"}
    assert says in cards.method(cell, {"achieved_ratio": 0.402})


def test_the_card_of_a_smaller_network_says_that_it_was_never_pruned():
    cell = {"backbone": "tiny", "criterion": "unpruned", "scope": "none", "init": "inherited", "protocol": "one_shot"}
    said = cards.method(cell, {"achieved_ratio": 0.0, "answer": {"backbone": "vgg16"}})
    assert said.startswith("Nothing was removed: it was judged beside networks that were pruned from vgg16.")
    assert "unpruned baseline" in cards.method(cell, {"achieved_ratio": 0.0, "answer": {"backbone": "tiny"}})


@pytest.mark.parametrize(
    ("protocol", "says"),
    [
        ("one_shot", "physically, before any fine-tuning. It started"),
        ("fine_tune_first", "physically, halfway through its training. It started"),
        ("iterative_3", "physically, in 3 steps in the course of its training. It started"),
        ("distilled", "before any fine-tuning. It started with inherited weights. It learned from the fine-tuned"),
    ],
)
def test_the_card_says_when_filters_went_and_who_taught(protocol, says):
    cell = {"backbone": "vgg16", "criterion": "apoz", "scope": "layer", "init": "inherited", "protocol": protocol}
    assert says in cards.method(cell, {"achieved_ratio": 0.402})


def test_the_card_says_whose_weights_a_network_has(made):
    model = read_json(made / "export" / "model.json")
    assert "; the weights are those of epoch 4. Trained" in cards.card(model | {"epoch": 4}, "x")
    assert "those that it began with, since validation found every epoch's worse" in cards.card(
        model | {"epoch": 0}, "x"
    )


def test_the_card_counts_the_epochs_that_were_trained(made):
    model = read_json(made / "export" / "model.json")
    assert "6 epochs" in cards.card(model, "x")
    model["provenance"]["cell"]["cell"] |= {"init": "random", "protocol": "equal_flops"}
    model |= {"macs": 100, "unpruned": model["unpruned"] | {"macs": 250}}
    assert "15 epochs" in cards.card(model, "x")


def test_a_card_of_many_classes_and_odd_names_stays_readable(made):
    model = read_json(made / "export" / "model.json")
    names = [f"a|b `{number}`" for number in range(102)]
    model |= {"classes": names, "per_class": dict.fromkeys(names, 0.5), "val_accuracy": None}
    card = cards.card(model, "x")
    assert "`` a|b" not in card.split("## Accuracy")[0]
    assert "92 more, listed in `model.json`" in card
    assert "There were no validation images" in card
    assert len(card.splitlines()) < 80


def test_the_interval_is_wilsons():
    n, p, z = 746, 714 / 746, 1.959963984540054
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    assert cards.interval(p, n) == pytest.approx(expected, rel=1e-9)


def test_a_failing_check_is_an_error_and_leaves_no_folder(made, tmp_path, monkeypatch):
    real = graphs.write

    def other(path, network, description, *opset):
        with torch.no_grad():
            network.classifier[0].bias += torch.tensor([0.0, 0.0, 2e-3])
        real(path, network, description, *opset)

    monkeypatch.setattr(graphs, "write", other)
    with pytest.raises(SystemExit, match=r"error: .*cell: model.onnx does not answer as PyTorch does.* up to 0\.002"):
        exported(made, tmp_path / "out" / "export")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_not_a_number_a_class_is_not_certified(made, copy):
    model, store = prediction.load(copy), Store.open(made / "store")
    for answer in (np.full((1, 3), np.nan), np.zeros((1, 2))):
        broken = dataclasses.replace(model, logits=lambda images, answer=answer: answer.repeat(len(images), 0))
        with pytest.raises(certificates.Disagreement, match="answer with a number for each class"):
            certificates.answers(broken, store, np.arange(40))


def test_an_earlier_export_is_replaced_and_nothing_else_is(made, tmp_path):
    output = tmp_path / "export"
    (tmp_path / ".export.killed.tmp" / "export").mkdir(parents=True)
    for _ in range(2):
        exported(made, output)
        (output / "stray").touch()
    exported(made, output)
    assert not (output / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"precious exists and is no exported model"):
        exported(made, precious)
    assert (precious / "thesis.tex").exists()


def test_a_cell_without_a_network_is_named(made, tmp_path):
    finetuned(made, tmp_path / "dropped", keep=False, epochs=1)
    with pytest.raises(InputError, match=r"dropped has no network to export, it was not kept: set models: keep"):
        exported(made, tmp_path / "x", tmp_path / "dropped")
    with pytest.raises(InputError, match=r"dropped has no model\.safetensors: of this cell the model was not kept"):
        predicted(tmp_path / "dropped", made / "images", "--output", tmp_path / "a.csv")
    finetuned(made, tmp_path / "diverged", epochs=1, learning_rate=1e18)
    with pytest.raises(InputError, match=r"model.safetensors holds no network, its training diverged: .*epoch 1"):
        exported(made, tmp_path / "x", tmp_path / "diverged")
    assert not (tmp_path / "x").exists()


def test_files_that_do_not_belong_together_are_named(made, tmp_path):
    finetuned(made, tmp_path / "other", epochs=1)
    with pytest.raises(InputError, match=r"the network in .*other is not of the cell in .*cell: their specs differ"):
        programs.run(
            *("export", {"code": "0"}, "--cell", made / "cell", "--network", tmp_path / "other"),
            *(*programs.dataset(made / "store"), "--output", tmp_path / "x"),
        )
    store = Path(shutil.copytree(made / "store", tmp_path / "store"))
    parts = Split.open(made / "store.parquet", Store.open(store)).parts
    manifest = read_json(store / "manifest.json")
    splits.write(tmp_path / "store.parquet", ["test" if part == "val" else part for part in parts], manifest, {})
    with pytest.raises(InputError, match=r"cell was judged on other images than .*store.parquet has of .*store"):
        exported(made, tmp_path / "x", store=store)
    splits.write(tmp_path / "store.parquet", list(parts), {"index_sha256": "another"}, {})
    with pytest.raises(InputError, match=r"store.parquet is no split of .*store"):
        exported(made, tmp_path / "x", store=store)
    assert not (tmp_path / "x").exists()


def damage(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "changed":
        # What is said of the files is held against nothing: it was found after they were written.
        place = content.index(b"image_size") if path.suffix == ".json" else len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    else:
        path.write_bytes(b'["not what it was"]')


@pytest.mark.parametrize("how", ["cut", "empty", "foreign", "changed"])
@pytest.mark.parametrize(
    "model", ["model.safetensors", "model.onnx", "model.json", "model.safetensors alone", "model.onnx alone"]
)
def test_a_damaged_file_is_one_clear_line(made, copy, model, how):
    name, _, alone = model.partition(" ")
    if alone and how == "changed":
        return  # There is nothing to hold it against.
    damage(copy / name, how)
    options = ["--onnx"] if name == "model.onnx" else []
    if alone:
        (copy / "model.json").unlink()
        copy, options = copy / name, []
    with pytest.raises(InputError, match=re.escape(name)) as caught:
        predicted(copy, made / "images", *options, "--output", copy.parent / "a.csv")
    assert "\n" not in str(caught.value)
    assert not (copy.parent / "a.csv").exists()
    if name == "model.json":
        with pytest.raises(InputError, match=r"model\.json"):
            prediction.load(copy, onnx=True)


@pytest.mark.parametrize("key", ["accuracy", "mean", "classes"])
@pytest.mark.parametrize("onnx", [False, True])
def test_a_changed_description_is_named(copy, key, onnx):
    model = read_json(copy / "model.json")
    model[key] = model[key][::-1] if isinstance(model[key], list) else 0.99
    write_json(copy / "model.json", model)
    with pytest.raises(InputError, match=r"model\.json describes: one of them was changed"):
        prediction.load(copy, onnx)


def test_weights_that_answer_nonsense_are_named(made, copy):
    model = prediction.load(copy)
    for answer in (np.full((1, 3), np.nan), np.zeros((1, 2))):
        broken = dataclasses.replace(model, logits=lambda images, answer=answer: answer)
        with pytest.raises(InputError, match=r"model\.safetensors does not answer with a number for each class"):
            broken.probabilities(np.zeros((1, 16, 16, 3), np.uint8))


def test_an_onnx_file_of_somebody_else_is_named(made, copy):
    import onnx

    graph = onnx.load(copy / "model.onnx")
    del graph.metadata_props[:]
    onnx.save(graph, copy / "other.onnx")
    with pytest.raises(InputError, match=r"other\.onnx carries no description of its network"):
        prediction.load(copy / "other.onnx")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{made}/nowhere", "{made}/images"], "nowhere does not exist"),
        (
            ["{made}/cell/metrics.json", "{made}/images"],
            "metrics.json is no model: allowed are files that end in .safetensors, .onnx, or",
        ),
        (["{made}/cell", "{made}/images", "--onnx"], "cell has no model.onnx: export the cell with scripts/export.py"),
        (
            ["{made}/cell/model.safetensors", "{made}/images", "--onnx"],
            "is no model: allowed are files that end in .onnx, or",
        ),
        (["{made}/cell", "{made}/images", "{made}/images/dog"], "give files, or one folder"),
        (["{made}/cell", "{made}/store"], "store has no image in it"),
        (["{made}/cell", "{made}/images", "--output", "{made}"], "is a folder: --output names a file"),
    ],
)
def test_wrong_usage_is_an_error_with_what_is_allowed(made, arguments, says):
    with pytest.raises(InputError, match=re.escape(says)):
        programs.run("predict", None, *(argument.format(made=made) for argument in arguments))


@pytest.fixture(scope="module")
def thousand(made, tmp_path_factory):
    """A folder of 1,000 images in every format, in folders; number 500 cannot be read."""
    root = tmp_path_factory.mktemp("thousand")
    suffixes = list(FORMATS)
    sources = {suffix: root.parent / f"source.{suffix}" for suffix in suffixes}
    for number, (suffix, source) in enumerate(sources.items()):
        write(source, (200, 40, 40), number, suffix)
    for number in range(1000):
        suffix = suffixes[number % len(suffixes)]
        path = root / ("", "Ä", "b/ç")[number % 3] / f"p{number * 7919 % 1000:03d} 花.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources[suffix], path)
        if number == 500:
            path.write_bytes(path.read_bytes()[:40])
            bad = path.relative_to(root).as_posix()
    (root / "notes.txt").write_text("no image")
    return root, bad


@pytest.mark.parametrize("options", [[], ["--onnx"]])
def test_a_thousand_images_and_one_that_cannot_be_read(made, thousand, tmp_path, capsys, options):
    folder, bad = thousand
    rows, status = predicted(made / "export", folder, *options, "--output", tmp_path / "a.csv")
    assert status == 1
    files = [row["file"] for row in rows]
    assert files == sorted(files)
    assert set(files) == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"notes.txt"}
    assert len(files) == 1000
    assert [row["file"] for row in rows if not row["class"]] == [bad]
    for row in rows:
        assert bool(row["reason"]) == (row["file"] == bad) == (row["probability"] == "")
        assert row["class"] in {"", *COLORS}
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"{bad}: ")
    assert said[1:] == ["1 of 1000 images could not be read"]
    # The same file is the same answer, whatever was beside it in its batch.
    by_suffix = {Path(row["file"]).suffix: row["class"] for row in rows if row["class"]}
    assert all(row["class"] == by_suffix[Path(row["file"]).suffix] for row in rows if row["class"])


def test_a_run_that_breaks_off_leaves_what_it_has_under_another_name(made, tmp_path, monkeypatch):
    real = prediction.Model.probabilities
    calls = []

    def second_time(model, squares):
        calls.append(len(squares))
        if len(calls) == 2:
            raise InputError("broken off")
        return real(model, squares)

    monkeypatch.setattr(prediction.Model, "probabilities", second_time)
    monkeypatch.setattr(prediction, "BATCH_IMAGES", 20)
    output = tmp_path / "out" / "a.csv"
    with pytest.raises(InputError, match="broken off"):
        programs.run("predict", None, made / "export", made / "images", "--output", output)
    assert calls == [20, 20]
    assert [path.name for path in output.parent.iterdir()] == ["a.csv.partial"]


def run(*arguments, **environment):
    command = [sys.executable, str(programs.SCRIPTS / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env=os.environ | environment)


def test_the_exit_status_says_how_it_went(made, tmp_path):
    onnx = made / "export" / "model.onnx"
    image = next((made / "images" / "dog").iterdir())
    assert run(onnx, image).returncode == 0
    missing = run(onnx, tmp_path / "none.jpg", image)
    assert missing.returncode == 1
    assert b"none.jpg: No such file or directory\n" in missing.stderr
    assert len(missing.stdout.splitlines()) == 1
    wrong = run(onnx.with_suffix(".nowhere"), image)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(b"error: ")
    assert len(wrong.stderr.splitlines()) == 1
    assert run(onnx).returncode == 2


def test_names_that_are_no_text_come_out_anyhow(made, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    image = next((made / "images" / "dog").glob("*.jpg"))
    shutil.copy(image, os.fsencode(folder) + b"/caf\xe9.jpg")
    shutil.copy(image, folder / "caf\\xe9.jpg")
    shutil.copy(image, folder / 'a "quoted", name.jpg')
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = run(made / "export" / "model.onnx", folder, **ascii_only)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [row["file"] for row in rows] == ['a "quoted", name.jpg', "caf\\xe9.jpg", "caf\\xe9.jpg"]


def test_through_onnxruntime_no_torch_is_imported(made):
    image = next((made / "images" / "dog").iterdir())
    code = f"""
import runpy, sys
sys.path.insert(0, {str(programs.SCRIPTS)!r})
sys.argv[1:] = {[str(made / "export"), str(image), "--onnx"]!r}
runpy.run_path({str(programs.SCRIPTS / "predict.py")!r}, run_name="__main__")
heavy = {{"torch", "torchvision", "safetensors", "pandas", "pyarrow", "snakemake"}}
print("LOADED", *sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "LOADED", done.stderr


def awake(network):
    """Draw a network's weights for its widths, so that its answers differ, with statistics and biases that matter."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)


def pruned(architecture, head, every):
    """A network of four classes with drawn weights that keeps one filter of ``every``."""
    backbone = in_memory(architecture, head)
    network = surgery.pruned(backbone, np.arange(backbone.units) % every == 0, 4, "inherited", 0)
    with torch.no_grad():
        awake(network)
    return network.eval()


def checked(folder, network, architecture, head, store_size, image_size, squares):
    """Write a network's two files, and hold them against the network."""
    description = {
        "architecture": architecture,
        "head": head,
        "classes": list("abcd"),
        "store_size": store_size,
        "reading": preprocessing.Form(store_size).reading,
        "image_size": image_size,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    description["preprocessing"] = preprocessing.steps(preprocessing.Form(store_size), image_size, [0] * 3, [1] * 3)
    models.save(folder, network, description)
    graphs.write(folder / "model.onnx", network, description)
    (folder / "model.json").unlink()
    views = preprocessing.network_input(squares, image_size, description["mean"], description["std"])
    with torch.inference_mode():
        logits = network(torch.from_numpy(views)).numpy()
    assert logits.std() > 0.1, "answers that are all alike agree whatever the file says"
    source, rows = SimpleNamespace(read=squares.__getitem__), np.arange(len(squares))
    for name in models.WEIGHTS, "model.onnx":
        found = certificates.answers(prediction.load(folder / name, threads=2), source, rows)
        agreed = certificates.agreement(found, logits, folder / name)
        assert agreed["as_pytorch"] == len(squares)
        assert agreed["largest_difference"] <= 1e-4 * max(1, np.abs(logits).max())


@pytest.mark.slow("a network of each family is exported")
# The shallowest and the deepest VGG of each head, with and without batch norms: between them there is nothing new.
@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("vgg11", "classifier"),
        ("vgg19_bn", "classifier"),
        ("vgg11_bn", "gap"),
        ("vgg19", "gap"),
        *(("vgg_digits", head) for head in backbones.HEADS),
    ],
)
def test_a_backbone_answers_alike_from_memory_from_safetensors_and_from_onnx(architecture, head, tmp_path):
    size = 8 if architecture == "vgg_digits" else 32
    squares = np.random.default_rng(0).integers(0, 256, (100, size + 2, size + 2, 3), dtype=np.uint8)
    network = pruned(architecture, head, 16)
    checked(tmp_path, network, architecture, head, size + 2, size, squares)
    # Four bytes a parameter and the graph: nothing dense is left in the file.
    params = sum(parameter.numel() for parameter in network.parameters())
    assert 0 < (tmp_path / "model.onnx").stat().st_size - 4 * params < 60_000 + 0.002 * 4 * params


@pytest.mark.parametrize("architecture", ["vgg11_bn", "vgg_digits"])
def test_a_pruned_onnx_file_is_smaller_in_proportion_to_its_parameters(architecture, tmp_path):
    sizes = {}
    for every in (1, 2):
        network = pruned(architecture, "gap", every)
        description = {"image_size": 32, "classes": list("abcd"), "preprocessing": []}
        graphs.write(tmp_path / "model.onnx", network, description)
        sizes[every] = (sum(p.numel() for p in network.parameters()), (tmp_path / "model.onnx").stat().st_size)
    overhead = sizes[1][1] - 4 * sizes[1][0]
    assert (sizes[2][1] - overhead) / (sizes[1][1] - overhead) == pytest.approx(sizes[2][0] / sizes[1][0], rel=0.02)


@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason=f"{PHOTOGRAPHS} is not here")
@pytest.mark.parametrize(("architecture", "head"), [("vgg16", "classifier"), ("vgg13_bn", "gap")])
def test_on_photographs_at_full_size_they_answer_alike(architecture, head, tmp_path):
    photographs = sorted(PHOTOGRAPHS.rglob("*.jpg"))[::10]
    assert len(photographs) == 100
    squares = np.stack(
        [preprocessing.decode(path.read_bytes(), preprocessing.Form(256)).pixels for path in photographs]
    )
    checked(tmp_path, pruned(architecture, head, 8), architecture, head, 256, 224, squares)


def test_the_card_opens_with_the_answer(made):
    model = read_json(made / "export" / "model.json")
    # Of a cell by itself there is none.
    assert model["answer"] is None
    assert cards.card(model, "x").split("\n\n")[1].startswith("A convolutional network")
    assert cards.card(model | {"answer": ANSWER}, "x").split("\n\n")[1] == " ".join(words.sentences(ANSWER))


def test_what_is_answered_of_a_cell_goes_with_it(made, tmp_path):
    cell = "digits/net/apoz/layer/0.400/inherited/0"
    chosen = [{"dataset": "digits", "backbone": "net", "cell": cell}]
    answers = [ANSWER | {"dataset": "others"}, ANSWER | {"dataset": "digits", "backbone": "net"}]
    write_json(tmp_path / "recommendation.json", {"chosen": chosen, "answer": answers})
    arguments = ["--recommendation", tmp_path / "recommendation.json", "--output", tmp_path / "chosen.json"]
    programs.run("choose", {"experiment": "tiny"}, *arguments)
    assert read_json(tmp_path / "chosen.json")["chosen"] == [chosen[0] | {"answer": answers[1]}]
    write_json(tmp_path / "cells" / cell / "metrics.json", {"split": "only"})
    ((*_, answer),) = programs.load("export").places(
        SimpleNamespace(chosen=tmp_path / "chosen.json", results=tmp_path, output=tmp_path)
    )
    assert answer == answers[1]


def test_an_unpruned_network_is_looked_at_only_where_it_was_given(tmp_path):
    unpruned = tmp_path / "cells" / "d/net/unpruned/none/0.000/inherited/1"
    kept = tmp_path / "models" / "d/net/unpruned/none/0.000/inherited/1"
    find = programs.load("export").whole_network
    for files, found in (
        (None, None),
        ([], None),
        ([kept / "model.safetensors", kept / "model.json"], kept),
        ([kept.with_name("2") / "model.safetensors"], None),
    ):
        assert find(SimpleNamespace(results=tmp_path, whole=files), unpruned) == found
