"""The configuration: what it accepts, and that every error names the key, what was given and what is allowed."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from winnow.files import InputError
from winnow.workflow import config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw():
    return {
        "targets": ["small"],
        "datasets": {
            "digits": {"source": "digits", "classes": [5, 6], "store_size": 16, "image_size": 16, "recipe": "quick"},
            "mine": {"source": "folder", "path": "/images", "store_size": 64, "image_size": 56},
        },
        "backbones": {
            "net": {"architecture": "vgg_digits", "head": "gap", "pretrain": {"dataset": "digits", "recipe": "quick"}}
        },
        "recipes": {"quick": {"epochs": 2, "batch_size": 8, "learning_rate": 0.1}},
        "experiments": {
            "small": {
                "datasets": ["digits"],
                "backbones": ["net"],
                "criteria": ["apoz", "random"],
                "scopes": ["layer"],
                "ratios": [0.2, 0.5],
                "seeds": [0],
            }
        },
    }


def change(raw, path, value):
    """A copy of ``raw`` with the value at a dotted path replaced."""
    changed = copy.deepcopy(raw)
    *parents, last = path.split(".")
    node = changed
    for parent in parents:
        node = node[parent]
    node[last] = value
    return changed


def test_accepts_a_sound_configuration(raw):
    checked = config.load(raw)
    assert checked.experiments["small"].inits == ("inherited",)
    assert checked.recipe("digits", "net").epochs == 2


def test_timm_says_which_images_its_networks_were_trained_on(raw):
    entry = {"architecture": "timm/tf_efficientnet_lite0", "weights": "in1k", "weights_url": "http://127.0.0.1/w"}
    found = config.load(change(raw, "backbones.net", entry)).backbones["net"]
    assert (found.mean, found.std) == ((0.5,) * 3, (0.5,) * 3)
    assert found.download.name == "tf_efficientnet_lite0.in1k.safetensors"
    assert found.download.url == "http://127.0.0.1/w"
    entry = {"architecture": "timm/tf_efficientnet_lite0", "weights_file": "w.pth", "mean": [0.4] * 3}
    found = config.load(change(raw, "backbones.net", entry)).backbones["net"]
    assert (found.mean, found.std, found.download) == ((0.4,) * 3, (0.5,) * 3, None)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"architecture": "timm/resnet19"}, r"net\.architecture: unknown .*did you mean 'timm/resnet1\d"),
        ({"architecture": "timm/resnet18.a1_in1k"}, r"net\.architecture: unknown .*did you mean 'timm/resnet18'"),
        ({"architecture": "timm/resnet18", "weights": "b2"}, "unknown weights 'b2' .*: a1_in1k, .*, DEFAULT, random"),
        ({"architecture": "timm/resnet18", "weights": "a1_in1k", "mean": [0.5] * 3}, "were trained on images norm"),
        (
            {"architecture": "timm/swin_tiny_patch4_window7_224"},
            "net takes images of 224 pixels alone, those of digits",
        ),
    ],
)
def test_what_timm_does_not_have_is_an_error_before_any_job(raw, entry, says):
    with pytest.raises(InputError, match=says):
        config.load(change(raw, "backbones.net", {"weights": "random"} | entry))


def test_a_learning_rate_is_a_number_or_searched(raw):
    for given, expected in ((0.1, 0.1), ("1e-3", 0.001), (1, 1.0)):
        recipe = config.load(change(raw, "recipes.quick.learning_rate", given)).recipe("digits", "net")
        assert (recipe.learning_rate, recipe.searches) == (expected, False)
    built_in = config.load(change(raw, "datasets.digits.recipe", "auto"))
    assert built_in.recipe("digits", "net").searches
    # It stands in the report as any other does; one's own of that name is taken in its place.
    assert built_in.part("small")["recipes"].keys() == {"auto", "quick"}
    own = change(raw, "datasets.digits.recipe", "auto")
    own["recipes"]["auto"] = raw["recipes"]["quick"]
    assert config.load(own).recipe("digits", "net").learning_rate == 0.1


def test_the_projects_own_configuration_is_sound():
    checked = config.load(yaml.safe_load((ROOT / "config.yaml").read_text()))
    assert set(checked.targets) == {"global", "by_layer", "random_init"}
    assert "demo" in checked.experiments


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (
            "experiments.small.criteria",
            ["apozz"],
            ["experiments.small.criteria", "'apozz'", "did you mean 'apoz'", "average_weight"],
        ),
        ("datasets.mine.folds", 1, ["datasets.mine.folds", "greater than or equal to 2", "1"]),
        (
            "datasets.mine",
            {"source": "flowers102", "store_size": 8, "image_size": 8, "folds": 5},
            ["datasets.mine", "folds is for the source digits or cats_vs_dogs or", "folder, not for 'flowers102'"],
        ),
        (
            "datasets.mine",
            {"source": "folder", "path": "x", "store_size": 8, "image_size": 8, "folds": 2, "split": {"val": 0.5}},
            ["datasets.mine", "split.val 0.5 and 1 of 2 folds leave nothing to train on"],
        ),
        ("experiments.small.criteria", ["any"], ["experiments.small.criteria", "unknown criterion 'any'"]),
        ("experiments.small.criteria", ["reversed_random"], ["experiments.small.criteria", "'reversed_random'"]),
        ("experiments.small.criteria", ["apozz@mine"], ["experiments.small.criteria", "'apozz'", "'apoz'"]),
        ("experiments.small.criteria", ["apoz@min"], ["experiments.small.criteria", "'min'", "did you mean 'mine'"]),
        ("experiments.small.criteria", ["apoz@"], ["experiments.small.criteria", "unknown dataset ''"]),
        (
            "experiments.small.criteria",
            ["l1_norm@mine"],
            ["experiments.small.criteria", "'l1_norm@mine'", "looks at no images"],
        ),
        ("experiments.small.ratios", [1.0], ["experiments.small.ratios", "1", "[0, 1)"]),
        ("experiments.small.ratios", [-0.1], ["experiments.small.ratios", "-0.1", "[0, 1)"]),
        ("experiments.small.ratios", [0.1234], ["experiments.small.ratios", "0.1234", "three decimals"]),
        ("experiments.small.ratios", [0.2, 0.2], ["experiments.small.ratios", "0.2 stands twice"]),
        ("experiments.small.seeds", [], ["experiments.small.seeds", "the grid has no cell"]),
        ("experiments.small.seeds", [-1], ["experiments.small.seeds[0]", "-1"]),
        ("experiments.small.seeds", [0, 0], ["experiments.small.seeds", "0 stands twice"]),
        ("experiments.small.seeds", "automatic", ["experiments.small.seeds", "'automatic'", "allowed: 'auto'"]),
        ("experiments.small.first_seed", 3, ["experiments.small", "first_seed goes with seeds: auto"]),
        ("experiments.small.screening", True, ["experiments.small", "screening goes with seeds: auto"]),
        ("experiments.small.measure", "mass", ["experiments.small.measure", "'mass'", "'bytes' or 'latency_ms'"]),
        ("experiments.small.measure", "latency_ms", ["experiments.small", "measure: latency_ms needs latency: true"]),
        ("experiments.small.budget", {"latency_ms": 5}, ["experiments.small", "budget: latency_ms needs latency: tru"]),
        ("experiments.small.budget", {}, ["experiments.small.budget", "macs, params, bytes, latency_ms", "none"]),
        ("experiments.small.budget", {"macs": 1, "bytes": 2}, ["experiments.small.budget", "exactly one of macs"]),
        ("experiments.small.budget", {"mac": 1}, ["experiments.small.budget.mac", "did you mean 'macs'", "params"]),
        ("experiments.small.budget", {"macs": 0}, ["experiments.small.budget.macs", "greater than 0"]),
        (
            "experiments.small.scopes",
            ["all"],
            ["experiments.small.scopes[0]", "'all'", "'layer', 'budget_macs', 'budget_params' or 'budget_latency'"],
        ),
        ("experiments.small.protocols", ["one_shoot"], ["experiments.small.protocols", "did you mean 'one_shot'"]),
        ("experiments.small.protocols", ["short_2"], ["experiments.small.protocols", "unknown protocol 'short_2'"]),
        (
            "experiments.small.protocols",
            ["iterative_1"],
            ["experiments.small.protocols", "'iterative_1'", "iterative_2"],
        ),
        ("experiments.small.protocols", ["iterative_3"], ["experiments.small.protocols", "needs 3 epochs", "has 2"]),
        ("experiments.small.scratch_budget", "flops", ["experiments.small.scratch_budget", "'flops'", "equal_flops"]),
        ("experiments.small.round_to", 7, ["experiments.small.round_to", "7", "8, 16 or 32"]),
        ("experiments.small.datasets", ["digit"], ["experiments.small.datasets", "'digit'", "did you mean 'digits'"]),
        ("experiments.small.backbones", ["x"], ["experiments.small.backbones", "'x'", "allowed: net"]),
        ("experiments.small.controls", ["x"], ["experiments.small.controls", "'x'", "allowed: net"]),
        (
            "experiments.small.controls",
            ["net"],
            ["experiments.small.controls", "'net' is what is pruned", "none, there"],
        ),
        ("experiments.small.datasets", ["mine"], ["datasets.mine.recipe", "missing", "'net'", "allowed: auto, quick"]),
        ("datasets.digits.recipe", "slow", ["datasets.digits.recipe", "'slow'", "allowed: auto, quick"]),
        ("datasets.digits.recipe", {"other": "quick"}, ["datasets.digits.recipe", "'other'", "allowed: net"]),
        ("datasets.digits.source", "digit", ["datasets.digits", "'digit'", "allowed: cats_vs_dogs"]),
        ("datasets.digits.image_size", 17, ["datasets.digits", "image_size 17", "store_size 16"]),
        ("datasets.digits.store_size", "big", ["datasets.digits.store_size", "'big'", "integer"]),
        ("datasets.digits.path", "/x", ["datasets.digits", "path is for the source folder"]),
        ("datasets.mine.path", None, ["datasets.mine", "needs a path"]),
        ("datasets.mine.split", {"val": 0.5, "test": 0.5}, ["datasets.mine.split", "nothing to train on"]),
        ("datasets.digits.colour", "red", ["datasets.digits.colour", "unknown key", "image_size"]),
        ("recipes.quick.epoch", 3, ["recipes.quick.epoch", "did you mean 'epochs'"]),
        ("recipes.quick.epochs", 0, ["recipes.quick.epochs", "greater than 0", "0"]),
        ("recipes.quick.warmup_epochs", 2, ["recipes.quick", "warmup_epochs 2", "2 epochs"]),
        ("recipes.quick.augmentation", {"scale": [0.9, 0.1]}, ["recipes.quick.augmentation", "[0.9, 0.1]"]),
        (
            "recipes.quick.augmentation",
            {"flip": "up"},
            ["recipes.quick.augmentation.flip", "'up'", "true, false, both"],
        ),
        ("recipes.quick.augmentation", {"flap": True}, ["recipes.quick.augmentation.flap", "did you mean 'flip'"]),
        ("backbones.net.architecture", "vgg17", ["backbones.net.architecture", "'vgg17'", "vgg16"]),
        ("backbones.net.architecture", None, ["backbones.net", "exactly one of architecture and factory"]),
        ("backbones.net.factory", "mine.py:Net", ["backbones.net", "exactly one of architecture and factory"]),
        ("backbones.net", {"factory": "mine.py", "weights": "random"}, ["backbones.net.factory", "'mine.py'"]),
        ("backbones.net", {"factory": "m.py:N", "weights": "IMAGENET1K_V1"}, ["are torchvision's: a factory's"]),
        (
            "backbones.net",
            {"architecture": "vgg16", "weights": "IMAGENET"},
            ["backbones.net", "unknown weights 'IMAGENET' of vgg16", "IMAGENET1K_V1, IMAGENET1K_FEATURES", "random"],
        ),
        (
            "backbones.net",
            {"architecture": "vgg16", "weights": "IMAGENET1K_FEATURES"},
            ["backbones.net", "normalised by mean [0.48235", "set its mean and std"],
        ),
        ("datasets.weights", {"source": "digits", "store_size": 8, "image_size": 8}, ["datasets.weights", "is taken"]),
        ("backbones.net.weights", "random", ["backbones.net", "exactly one of", "['weights', 'pretrain']"]),
        ("backbones.net.pretrain", None, ["backbones.net", "exactly one of", "none"]),
        ("backbones.net.pretrain", {"dataset": "d", "recipe": "quick"}, ["backbones.net.pretrain.dataset", "'d'"]),
        (
            "recipes.quick.learning_rate",
            "automatic",
            ["recipes.quick.learning_rate: 'automatic' is not allowed; allowed: a number above 0, or auto"],
        ),
        ("recipes.quick.learning_rate", 0, ["recipes.quick.learning_rate", "greater than 0", "0"]),
        ("recipes.quick.learning_rate", "auto", ["backbones.net.pretrain.recipe: quick has learning_rate: auto"]),
        ("targets", ["large"], ["targets", "'large'", "allowed: small"]),
        ("targets", [], ["targets", "empty"]),
        ("experiment", {}, ["experiment", "did you mean 'experiments'"]),
    ],
)
def test_an_error_names_the_key_what_was_given_and_what_is_allowed(raw, path, value, says):
    with pytest.raises(InputError) as error:
        config.load(change(raw, path, value))
    for words in says:
        assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 2, str(error.value)


def test_an_experiment_does_not_take_the_name_of_a_rule(raw):
    raw["experiments"]["finetune"] = raw["experiments"]["small"]
    with pytest.raises(InputError, match=r"experiments\.finetune: the name is taken"):
        config.load(raw)


def test_reserved_names_are_those_of_the_rules():
    sources = [path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]]
    named = re.compile(r"^(?:rule|checkpoint|use rule \w+ as) (\w+)", re.MULTILINE)
    assert {name for source in sources for name in named.findall(source)} == config.RESERVED_TARGETS


def test_controls_are_criteria_and_the_other_data_set_belongs_to_the_experiment(raw):
    names = ["apoz@mine", "reversed_apoz", "reversed_mean_activation@mine"]
    checked = config.load(change(raw, "experiments.small.criteria", names))
    assert set(checked.part("small")["datasets"]) == {"digits", "mine"}


def test_a_network_in_training_is_measured_on_its_own_images(raw):
    raw["experiments"]["small"] |= {"criteria": ["apoz@mine"], "protocols": ["one_shot", "distilled"]}
    config.load(raw)
    raw["experiments"]["small"]["protocols"] = ["fine_tune_first"]
    with pytest.raises(InputError, match=r"experiments\.small: protocol 'fine_tune_first' .* criterion 'apoz@mine'"):
        config.load(raw)


def test_several_faults_are_said_at_once(raw):
    raw["recipes"]["quick"]["epochs"] = 0
    raw["backbones"]["net"]["architecture"] = "resnet"
    with pytest.raises(InputError) as error:
        config.load(raw)
    assert "recipes.quick.epochs" in str(error.value)
    assert "backbones.net.architecture" in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "does not exist"), ("- a", "is no configuration"), ("a: [", "is not valid YAML")],
)
def test_a_file_that_cannot_be_laid_over_is_named(tmp_path, raw, text, says):
    file = tmp_path / "own.yaml"
    if text:
        file.write_text(text)
    with pytest.raises(InputError, match=rf"own\.yaml {says}"):
        config.laid_over(raw, file)


def test_a_file_is_laid_over_entry_by_entry(tmp_path, raw):
    file = tmp_path / "own.yaml"
    file.write_text("datasets: {mine: {source: digits}}\ntolerance: 5")
    merged = config.laid_over(raw, file)
    assert merged == raw | {"datasets": raw["datasets"] | {"mine": {"source": "digits"}}, "tolerance": 5}


def test_a_file_of_weights_is_one_download_for_all_backbones_that_use_it(raw):
    resnet = {"architecture": "resnet50", "weights": "IMAGENET1K_V2"}
    mirror = resnet | {"weights_url": "file:///mirror.pth"}
    flowers = {"source": "flowers102", "store_size": 8, "image_size": 8, "urls": {"setid.mat": "file:///s"}}
    raw["datasets"] |= {"flowers": flowers}
    raw["backbones"] |= {
        "one": resnet,
        "default": resnet | {"weights": "DEFAULT"},
        "other": resnet | {"weights": "random"},
    }
    found = config.load(raw).downloads()
    assert sorted(found) == [
        *(f"flowers/{name}" for name in ("102flowers.tgz", "imagelabels.mat", "setid.mat")),
        "weights/resnet50-11ad3fa6.pth",
    ]
    assert found["flowers/setid.mat"].url == "file:///s"
    assert found["weights/resnet50-11ad3fa6.pth"].url.endswith("/resnet50-11ad3fa6.pth")
    assert found["weights/resnet50-11ad3fa6.pth"].digest.startswith("sha256:11ad3fa6")

    raw["backbones"] |= {"mirrored": mirror, "again": mirror, "last": resnet}
    assert config.load(raw).downloads()["weights/resnet50-11ad3fa6.pth"].url == "file:///mirror.pth"
    raw["backbones"] |= {"elsewhere": resnet | {"weights_url": "file:///x"}}
    with pytest.raises(InputError, match=r"backbones\.elsewhere\.weights_url: 'file:///x'.*backbones\.mirrored has"):
        config.load(raw).downloads()


def test_a_training_depends_on_what_its_recipe_asks_for():
    plain = config.Recipe(epochs=2, batch_size=4, learning_rate=0.1)
    assert not {"clip_norm", "sampling", "distillation"} & plain.used().keys()
    asked = plain.model_copy(update={"clip_norm": 5.0, "sampling": "balanced"}).used(distilled=True)
    assert (asked["clip_norm"], asked["sampling"]) == (5.0, "balanced")
    assert "distillation" in asked
    with pytest.raises(ValueError, match="clip_norm"):
        config.Recipe(epochs=2, batch_size=4, learning_rate=0.1, clip_norm=0)


def test_a_control_is_trained_by_its_own_recipe_and_is_part_of_the_experiment(raw):
    raw["backbones"]["tiny"] = raw["backbones"]["net"]
    raw["experiments"]["small"]["controls"] = ["tiny"]
    raw["datasets"]["digits"]["recipe"] = {"net": "quick"}
    with pytest.raises(
        InputError, match=r"datasets.digits.recipe: missing for backbone 'tiny', which experiments.small"
    ):
        config.load(raw)
    raw["recipes"]["slow"] = raw["recipes"]["quick"] | {"epochs": 9}
    raw["datasets"]["digits"]["recipe"] = {"net": "quick", "tiny": "slow"}
    part = config.load(raw).part("small")
    assert set(part["backbones"]) == {"net", "tiny"}
    assert {"quick", "slow"} <= set(part["recipes"])


def test_where_nothing_can_be_pruned_a_grid_grows_by_its_controls(raw):
    raw["backbones"]["tiny"] = raw["backbones"]["net"]
    raw["experiments"]["small"] |= {"seeds": "auto", "criteria": ["random"]}
    with pytest.raises(InputError, match="there is no network to choose"):
        config.load(raw)
    raw["experiments"]["small"]["controls"] = ["tiny"]
    config.load(raw)
