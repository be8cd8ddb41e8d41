"""Settings for somebody's own images: what is chosen, what is written, and what is refused."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from winnow.files import InputError
from winnow.workflow import config, defaults

from . import programs

ROOT = Path(__file__).parents[2]
RAW = yaml.safe_load((ROOT / "config.yaml").read_text())
KNOWN = config.load(RAW)
# The smallest image that there is.
DOT = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


def images(folder: Path, counts: dict[str, int]) -> Path:
    for place, count in counts.items():
        (folder / place).mkdir(parents=True)
        for number in range(count):
            (folder / place / f"{number}.png").write_bytes(DOT)
    return folder


def merged(text: str) -> config.Config:
    """The configuration laid over config.yaml, as Snakemake does it, and checked."""
    overlay = yaml.safe_load(text)
    return config.load(
        {key: {**value, **overlay.get(key, {})} if isinstance(value, dict) else value for key, value in RAW.items()}
    )


def configure(*arguments: object) -> None:
    program = programs.load("configure")
    program.main(program.parser().parse_args([str(argument) for argument in arguments]))


@given(st.integers(1, 10**6))
def test_a_recipe_fits_any_size(count):
    chosen = defaults.recipe(count)
    assert 10 <= chosen["epochs"] <= 40
    assert chosen["batch_size"] == 8 or count // chosen["batch_size"] >= 8
    # More images never mean more epochs or a smaller batch.
    more = defaults.recipe(count * 2)
    assert more["epochs"] <= chosen["epochs"]
    assert more["batch_size"] >= chosen["batch_size"]
    config.Recipe.model_validate(chosen)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (40, {"epochs": 40, "batch_size": 8, "learning_rate": "auto", "warmup_epochs": 1}),
        (180, {"epochs": 17, "batch_size": 16, "learning_rate": "auto", "warmup_epochs": 1}),
        (1020, {"epochs": 15, "batch_size": 64, "learning_rate": "auto", "warmup_epochs": 1}),
        (17500, {"epochs": 10, "batch_size": 64, "learning_rate": "auto", "warmup_epochs": 1}),
    ],
)
def test_recipes_of_known_sizes(count, expected):
    assert defaults.recipe(count) == expected


def test_a_folder_of_classes_gets_a_split_and_a_grid(tmp_path):
    folder = images(tmp_path / "My bees, 2024", {"honey": 50, "bumble": 50})
    text = defaults.configuration(folder, defaults.name_of(folder), "vgg16", KNOWN)
    checked = merged(text)
    dataset = checked.datasets["My_bees_2024"]
    assert (dataset.path, dataset.image_size, dataset.store_size) == (str(folder), 224, 256)
    assert (dataset.split.val, dataset.folds) == (0.2, 5)
    # 60 of the 100 images are for training.
    assert checked.recipe("My_bees_2024", "vgg16").batch_size == 8
    experiment = checked.experiments["My_bees_2024"]
    assert (experiment.seeds, experiment.screening, experiment.budget) == ("auto", True, None)


@pytest.mark.parametrize(
    ("count", "folds", "says"),
    [
        (100, 5, "# 40 test images alone tell no drop below 7.4 points from none, all 200 none below 2.4 to 3.7;"),
        (1900, 5, "760 test images alone tell no drop below 0.7 points from none"),
        (2000, None, "split: {val: 0.2, test: 0.2} # shares of each class"),
    ],
)
def test_a_test_part_that_could_not_decide_makes_way_for_folds(tmp_path, count, folds, says):
    text = defaults.configuration(images(tmp_path / "bees", {"a": count, "b": count}), "bees", "vgg16", KNOWN)
    assert says in text
    assert all(len(line) <= 120 for line in text.splitlines() if "path:" not in line)
    assert merged(text).datasets["bees"].folds == folds


def test_a_class_of_fewer_images_than_folds_has_none(tmp_path):
    text = defaults.configuration(images(tmp_path / "bees", {"a": 40, "b": 4}), "bees", "vgg16", KNOWN)
    assert merged(text).datasets["bees"].folds is None


@pytest.mark.parametrize(("rare", "sampling"), [(10, "balanced"), (14, "uniform")])
def test_uneven_classes_are_sampled_evenly_and_it_is_said(tmp_path, capsys, rare, sampling):
    folder, own = images(tmp_path / "bees", {"a": 40, "b": rare}), tmp_path / "own"
    configure(folder, "--folder", own)
    said = "the largest class has 40 images: sampling: balanced in the recipe"
    assert (said in capsys.readouterr().err) == (sampling == "balanced")
    checked = merged((own / "bees.yaml").read_text())
    assert checked.recipe("bees", "vgg16").sampling == sampling
    assert ("sampling" in checked.recipe_for("bees", "vgg16", "one_shot")) == (sampling == "balanced")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 ms", {"latency_ms": 5}),
        ("0.5MB", {"bytes": 500_000}),
        (".25 kB", {"bytes": 250}),
        ("100 kparams", {"params": 100_000}),
        ("30 MMACs", {"macs": 30_000_000}),
        (" 1.5 GMACs ", {"macs": 1_500_000_000}),
        ("2.5 ms", {"latency_ms": 2.5}),
    ],
)
def test_a_budget_is_asked_for_in_words(tmp_path, capsys, text, expected):
    assert defaults.budget(text) == expected
    folder, own = images(tmp_path / "bees", {"a": 50, "b": 50}), tmp_path / "own"
    configure(folder, "--folder", own, "--budget", text)
    assert capsys.readouterr().out == "bees\n"
    found = merged((own / "bees.yaml").read_text()).experiments["bees"]
    assert found.asks_for == next(iter(expected.items()))
    # Once more, and without saying so again: the file is the user's.
    configure(folder, "--folder", own, "--budget", text)
    configure(folder, "--folder", own)


@pytest.mark.parametrize(
    "text", ["5", "ms", "5 s", "0 ms", "-1 ms", "5 kms", "3 mb", "1e3 B", "5 ms or less", "1.2.3 B"]
)
def test_what_is_no_budget_is_refused_with_what_is_one(text):
    with pytest.raises(InputError, match=r"allowed: .*ms, B, params or MACs .*5 ms, 0\.5 MB, 100 kparams, 30 MMACs"):
        defaults.budget(text)


def test_a_split_of_its_own_is_kept(tmp_path):
    folder = images(tmp_path / "bees", {"train/a": 100, "train/b": 100, "test/a": 5, "test/b": 5})
    text = defaults.configuration(folder, "bees", "vgg16", KNOWN)
    assert merged(text).datasets["bees"].split is merged(text).datasets["bees"].folds is None
    assert merged(text).recipe("bees", "vgg16").batch_size == defaults.recipe(200)["batch_size"]


def test_any_vgg_will_do_and_the_small_one_sees_small_images(tmp_path):
    folder = images(tmp_path / "bees", {"a": 50, "b": 50})
    checked = merged(defaults.configuration(folder, "bees", "vgg11_bn", KNOWN, 128))
    assert checked.backbones["vgg11_bn"].weights == "IMAGENET1K_V1"
    assert (checked.datasets["bees"].image_size, checked.datasets["bees"].store_size) == (128, 146)
    assert merged(defaults.configuration(folder, "bees", "vgg_digits", KNOWN)).datasets["bees"].image_size == 8


def test_timm_says_how_large_its_networks_see_images(tmp_path):
    folder = images(tmp_path / "bees", {"a": 50, "b": 50})
    checked = merged(defaults.configuration(folder, "bees", "timm/resnet10t", KNOWN))
    (name,) = checked.experiments["bees"].backbones
    backbone = checked.backbones[name]
    assert (name, backbone.architecture, backbone.weights) == ("timm_resnet10t", "timm/resnet10t", "c3_in1k")
    assert (checked.datasets["bees"].image_size, checked.datasets["bees"].store_size) == (176, 201)
    assert checked.recipe("bees", name).epochs


@pytest.mark.parametrize(
    ("counts", "name", "backbone", "said"),
    [
        ({"a": 3, "b": 3}, "demo", "vgg16", "the name 'demo' is taken"),
        ({"a": 3, "b": 3}, "export", "vgg16", "the name 'export' is taken"),
        ({"a": 3, "b": 3}, "../bees", "vgg16", "the name '../bees' is none"),
        ({"a": 3, "b": 3}, "bees", "vgg17", "unknown backbone 'vgg17'; allowed: .*vgg16"),
        ({"a": 3, "b": 3}, "bees", "timm/vgg17", "unknown architecture 'timm/vgg17' .*did you mean 'timm/vgg1"),
        ({"a": 3}, "bees", "vgg16", "has one class, 'a'"),
        ({"a/deep/er": 3}, "bees", "vgg16", "has one class, 'er'"),
        ({"a": 0}, "bees", "vgg16", "has no image in it"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, counts, name, backbone, said):
    folder = images(tmp_path / "bees", counts)
    with pytest.raises(InputError, match=said):
        defaults.configuration(folder, name, backbone, KNOWN)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder"):
        defaults.survey(tmp_path / "nowhere")


def test_rules_say_how_a_folder_is_read_and_stand_in_the_file(tmp_path, capsys):
    places = {f"{place}/{kind}": 20 for place in ("in", "out", "old") for kind in ("chair", "table")}
    folder, own = images(tmp_path / "rooms", places), tmp_path / "own"
    with pytest.raises(InputError, match="images lie one folder deeper than classes do"):
        configure(folder, "--folder", own)
    rules = "{splits: {train: in, test: out}, ignore: [old]}"
    configure(folder, "--folder", own, "--rules", rules)
    said = capsys.readouterr()
    assert said.out == "rooms\n"
    assert "80 images of 2 classes: 40 train, 40 test" in said.err
    assert "40 passed over, named by ignore: old/chair/" in said.err
    dataset = merged((own / "rooms.yaml").read_text()).datasets["rooms"]
    assert (dataset.splits.train, dataset.splits.test, dataset.ignore) == ("in", "out", ("old",))
    configure(folder, "--folder", own, "--rules", rules)
    program = programs.load("configure")
    for wrong, says in (("old", "keys and values"), ("seeds: [1]", "unknown key 'seeds'"), ("{", "not YAML")):
        with pytest.raises(SystemExit):
            program.parser().parse_args([str(folder), "--rules", wrong])
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("bees", "bees"),
        ("2024 bees!", "images_2024_bees"),
        ("Blüten", "Bluten"),
        ("日本", "images"),
        ("a.b-c", "a_b-c"),
    ],
)
def test_names(tmp_path, folder, name):
    assert defaults.name_of(tmp_path / folder) == name


def test_a_configuration_is_written_once_and_is_its_users(tmp_path, capsys):
    folder = images(tmp_path / "bees", {"a": 50, "b": 50})
    own = tmp_path / "own"
    configure(folder, "--folder", own)
    assert capsys.readouterr().out == "bees\n"
    path = own / "bees.yaml"
    path.write_text(path.read_text().replace("seeds: auto", "first_seed: 7\n    seeds: auto"))
    configure(folder, "--folder", own, "--backbone", "vgg16", "--size", 224)
    assert merged(path.read_text()).experiments["bees"].first_seed == 7
    for arguments in [("--backbone", "vgg19"), ("--size", 128)]:
        with pytest.raises(InputError, match="edit it, delete it, or give another name"):
            configure(folder, "--folder", own, *arguments)
    with pytest.raises(InputError, match="is of the images in"):
        configure(images(tmp_path / "x" / "bees", {"a": 5, "b": 5}), "--folder", own)
    with pytest.raises(InputError, match=r"says budget: None, and --budget .* asks for \{'latency_ms': 5\}"):
        configure(folder, "--folder", own, "--budget", "5 ms")
    with pytest.raises(InputError, match=r"has ignore: None, --rules .* says \['old'\]: edit it"):
        configure(folder, "--folder", own, "--rules", "ignore: [old]")
    path.write_text("experiments: 3\n")
    with pytest.raises(InputError, match="mend it or delete it"):
        configure(folder, "--folder", own)
