"""A grid that grows: what chooses, what judges, and nothing twice, whatever is asked, deleted or stopped in between."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from winnow.answers import growth
from winnow.networks import models
from winnow.tables import read_table, write_table
from winnow.workflow import grid

from .checkout import SMALL_GRID, Checkout, jobs

pytestmark = pytest.mark.slow("grids are run that grow until they have an answer")

AXES = {
    "datasets": ["digits"],
    "criteria": ["apoz", "average_weight", "l1_norm", "random"],
    "scopes": ["layer"],
    "ratios": [0.3, 0.6],
    "seeds": "auto",
    "first_seed": 1,
    "screening": True,
}
EXPERIMENT = "results/experiments/small"
UNPRUNED = "digits/net/unpruned/none/0.000/inherited"
# What little these networks learn differs by processor and seed; with these tolerances nothing fails.
LAX = {"tolerance": 70.0, "class_margin": 100.0}


def growing_grid(**changes) -> dict:
    raw = copy.deepcopy(SMALL_GRID) | LAX
    raw["recipes"]["quick"]["epochs"] = 16
    raw["experiments"]["small"] |= AXES | changes
    return raw


@pytest.fixture(scope="module")
def finished(shared) -> Checkout:
    """A grid that has grown."""
    return shared("grown", growing_grid())


def cells_of(found: set[str]) -> set[str]:
    return {job.split(" ")[1] for job in found if job.startswith(("finetune ", "finetune_kept "))}


def steps_of(checkout: Checkout) -> list[dict]:
    """The steps' files in their order, to the one that is done."""
    steps = []
    while not steps or not steps[-1]["done"]:
        steps.append(growth.read(checkout.path / EXPERIMENT / f"growth/{len(steps)}.json"))
    return steps


def recommendation(checkout: Checkout) -> dict:
    return json.loads((checkout.path / EXPERIMENT / "recommendation.json").read_text())


def judge_as(checkout: Checkout, right) -> None:
    """Overwrite the test predictions of finished cells: cell, image → whether it is right."""
    for path in (checkout.path / "results/cells").rglob("predictions.parquet"):
        cell = grid.parse_path(str(path.parent.relative_to(checkout.path / "results/cells")))
        table = pq.read_table(path)
        correct = [bool(right(cell, image)) for image in table["image"].to_pylist()]
        write_table(path, table.set_column(4, "correct", [correct]), "predictions", {})


def test_short_trainings_choose_and_fresh_ones_judge(finished, tmp_path):
    checkout, done = finished, jobs(finished.account())
    first = {cell for cell in cells_of(done) if "~short_4" in cell}
    assert len(first) == 3 * 2 + 1
    # A dry run shows what is known: the first comparison.
    planned = Checkout(tmp_path / "checkout", growing_grid()).snakemake("-n")
    assert cells_of(jobs(planned)) == first
    assert re.search(r"Disk: about [\d.]+ [kMGT]B for 7 cells", planned)
    steps = steps_of(checkout)
    assert {cell for cell in cells_of(done) if "~short_2" in cell} == set(steps[0]["asked"])
    assert f"{UNPRUNED}~short_2/1" in steps[0]["asked"]
    full = {cell for cell in cells_of(done) if "~" not in cell}
    assert full == set(steps[-1]["cells"])
    # Seed 1 chose, those after it judge.
    assert {cell.rsplit("/")[-1] for cell in full} == {"2", "3", "4"}
    assert {f"{UNPRUNED}/{seed}" for seed in (2, 3, 4)} < full
    assert {job for job in done if job.startswith("grow")} == {f"grow small/{number}" for number in range(len(steps))}
    assert not any("random" in job for job in done)

    rows = read_table(checkout.path / EXPERIMENT / "summary.parquet", "summary").to_pylist()
    judged = {(cell.criterion, cell.ratio) for cell in map(grid.parse_path, full)}
    assert {(row["criterion"], row["ratio"]) for row in rows} == judged
    assert {row["seeds"] for row in rows} == {3}
    answer = recommendation(checkout)
    assert answer["lines"][0].startswith("Digits, net: HOLDS")
    assert answer["lines"][-1] == growth.sentence(steps[-1])
    (told,) = answer["answer"]
    assert (told["verdict"], told["trainings"], told["folds"]) == ("holds", len(full), None)
    assert told["chosen"]["ratio"] == 0.6
    page = (checkout.path / EXPERIMENT / "report.html").read_text()
    assert answer["lines"][-1] in page.replace("&#39;", "'")
    assert 'id="table-candidates"' in page


def test_again_there_is_nothing_to_do(finished):
    assert finished.planned() == set()


def test_the_networks_that_judged_are_kept_and_what_is_exported_is_one_of_them(checkout):
    done = jobs(checkout.account())
    judged = steps_of(checkout)[-1]["cells"]
    assert {job.split(" ")[1] for job in done if job.startswith("finetune_kept ")} == set(judged)
    kept = {str(path.parent.relative_to(checkout.path / "results/models")): path for path in networks(checkout)}
    assert kept.keys() == set(judged)
    # Nothing is trained for an export.
    assert checkout.run("export") == {"choose small", "export_chosen small", "write_certified small"}
    (chosen,) = json.loads((checkout.path / EXPERIMENT / "chosen.json").read_text())["chosen"]
    (certified,) = json.loads((checkout.path / EXPERIMENT / "certificates.json").read_text())["models"]
    metrics = json.loads((checkout.path / "results/cells" / chosen["cell"] / "metrics.json").read_text())
    for place in kept[chosen["cell"]], checkout.path / EXPERIMENT / "models/digits-net/model.safetensors":
        assert models.digest(models.load(place)[0].state_dict()) == metrics["weights_sha256"]
    assert {each["weights_sha256"] for each in certified["certificates"]} == {metrics["weights_sha256"]}
    # The one that did best on validation.
    rivals = [f"{chosen['cell'].rpartition('/')[0]}/{seed}" for seed in (2, 3, 4)]
    found = [json.loads((checkout.path / "results/cells" / each / "metrics.json").read_text()) for each in rivals]
    assert metrics["val_accuracy"] == max(each["val_accuracy"] for each in found)
    # The weights and the ONNX file answer as the network did when it was judged.
    for each in certified["certificates"][:2]:
        outcomes = [right(checkout, f"{UNPRUNED}/{chosen['cell'][-1]}"), right(checkout, chosen["cell"])]
        assert each["drop"] == pytest.approx(outcomes[0].mean() - outcomes[1].mean())
        assert each["low"] < each["drop"] < each["high"]
    card = (checkout.path / EXPERIMENT / "models/digits-net/README.md").read_text()
    assert metrics["weights_sha256"] in card
    assert "The answer is of all networks that are made in this way" in card
    assert 'id="files"' in (checkout.path / EXPERIMENT / "report_models.html").read_text()
    assert 'id="files"' not in (checkout.path / EXPERIMENT / "report.html").read_text()
    # The unpruned network of its seed is kept, too: both are held against each other where images are corrupted.
    kinds = certified["corruptions"]["corruptions"]
    assert [each["name"] for each in kinds] == ["none", "noise", "blur", "brightness", "jpeg", "crop"]
    # On so many of the test images that they are nearly all.
    assert certified["corruptions"]["images"] == 500 < len(outcomes[0])
    assert kinds[0]["accuracy"][:2] == pytest.approx([outcomes[0].mean(), outcomes[1].mean()], abs=0.02)
    assert [each["file"] for each in certified["corruptions"]["networks"]] == [
        "model.safetensors", "model.onnx", "model.int8.onnx"
    ]  # fmt: skip
    assert "## Beyond the test images" in card
    assert 'id="table-spoiled-digits-net"' in (checkout.path / EXPERIMENT / "report_models.html").read_text()
    # They are a step on the way: who needs the room may delete them.
    shutil.rmtree(checkout.path / "results/models")
    assert checkout.planned() == checkout.planned("export") == set()


def networks(checkout: Checkout) -> list[Path]:
    return list((checkout.path / "results/models").rglob("model.safetensors"))


def right(checkout: Checkout, cell: str) -> np.ndarray:
    return pq.read_table(checkout.path / "results/cells" / cell / "predictions.parquet")["correct"].to_numpy()


def test_another_tolerance_trains_what_it_asks_for_more(checkout):
    before = cells_of(jobs(checkout.account()))
    checkout.configure(growing_grid() | {"tolerance": 0.0})
    done = checkout.run()
    # Short trainings are there, and so are those that judged: it is asked anew of them.
    new = cells_of(done)
    assert not new & before
    assert not any("~" in cell for cell in new)
    assert {"grow small/0", "recommend small"} <= done
    assert new <= set(steps_of(checkout)[-1]["cells"])
    checkout.configure(growing_grid())
    assert cells_of(checkout.run()) == set()
    assert recommendation(checkout)["lines"][0].startswith("Digits, net: HOLDS")


def test_a_network_that_judgement_leaves_open_gets_more_trainings(checkout):
    steps = steps_of(checkout)
    chosen = steps[-1]["places"][0]["finalists"][-1]["cell"]
    network = grid.parse_path(chosen)

    def right(cell, image):
        # It loses 4 images of a hundred in one training, and none in another: with a tolerance of 5 that is open.
        lost = image % 25 == 0 and cell.seed % 2 == 0 and cell.criterion == network.criterion
        return image % 10 and not lost

    judge_as(checkout, right)
    checkout.configure(growing_grid() | {"tolerance": 5.0})
    done = checkout.run()
    seeds = {int(cell.rsplit("/")[-1]) for cell in cells_of(done) if "~" not in cell}
    assert seeds >= {5, 6}
    assert checkout.planned() == set()


def test_a_training_that_diverged_counts_against_its_network(checkout):
    before = steps_of(checkout)[-1]
    network = before["places"][0]["finalists"][-1]["cell"]
    path = checkout.path / "results/cells" / network.rsplit("/", 1)[0] / "3/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "diverged", "reason": "loss is nan"}))
    done = checkout.run()
    # The larger one was tested first, and is there; if what it learns from the other is missing it is trained on.
    assert f"grow small/{len(steps_of(checkout)) - 1}" in done
    assert not any("/0.600/" in cell for cell in cells_of(done))
    assert not cells_of(done) & set(before["cells"])
    larger, smaller = recommendation(checkout)["ladder"]
    assert (larger["ratio"], larger["failed_seeds"]) == (0.3, "")
    assert larger["seeds"] >= 3
    assert (smaller["ratio"], smaller["verdict"], smaller["failed_seeds"]) == (0.6, "fails", "3")


def test_a_run_that_was_stopped_between_steps_goes_on(tmp_path):
    checkout = Checkout(tmp_path / "checkout", growing_grid())
    began = checkout.run(f"{EXPERIMENT}/growth/1.json")
    assert all("~short" in cell for cell in cells_of(began))
    # Of the step's own trainings some are there when it is stopped.
    some = steps_of_at(checkout, 1)["asked"][:2]
    began |= checkout.run(*(f"results/cells/{cell}/metrics.json" for cell in some))
    done = checkout.run()
    assert not cells_of(done) & cells_of(began)
    assert cells_of(done) | set(some) == set(steps_of(checkout)[-1]["cells"])
    assert checkout.planned() == set()


def steps_of_at(checkout: Checkout, number: int) -> dict:
    return growth.read(checkout.path / EXPERIMENT / f"growth/{number}.json")


@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_step_whose_file_is_gone_is_found_anew_and_nothing_trained(checkout, number):
    steps = steps_of(checkout)
    number %= len(steps)
    path = checkout.path / EXPERIMENT / f"growth/{number}.json"
    content = path.read_text()
    path.unlink()
    done = checkout.run()
    assert cells_of(done) == set()
    assert f"grow small/{number}" in done
    assert path.read_text() == content
    assert checkout.planned() == set()


def test_another_criterion_is_all_that_is_compared_anew(checkout):
    before = cells_of(jobs(checkout.account()))
    checkout.configure(growing_grid(criteria=[*AXES["criteria"], "l2_norm"]))
    done = checkout.run()
    short = {cell for cell in cells_of(done) if "~short_4" in cell}
    assert short == {f"digits/net/l2_norm/layer/{ratio}/inherited~short_4/1" for ratio in ("0.300", "0.600")}
    assert not cells_of(done) & before


def test_a_list_of_seeds_reuses_the_cells_and_the_grid_that_grew_keeps_its_own(checkout):
    full = {cell for cell in cells_of(jobs(checkout.account())) if "~short" not in cell}
    checkout.configure(growing_grid(seeds=[2, 3], screening=False, first_seed=0))
    added = cells_of(checkout.run())
    assert not added & full
    assert len(added | {cell for cell in full if not cell.endswith("/4")}) == 2 * (1 + 4 * 2)
    assert any("by seed 3" in note for note in recommendation(checkout)["notes"])
    checkout.configure(growing_grid())
    assert cells_of(checkout.planned()) == set()


def test_without_screening_full_trainings_choose_with_controls_beside_and_a_budget_is_met(tmp_path):
    raw = growing_grid(screening=False, criteria=["apoz", "average_weight", "random"], models="keep")
    # What ratio 0.3 leaves is above it.
    raw["experiments"]["small"]["budget"] = {"macs": 250_000}
    checkout = Checkout(tmp_path / "checkout", raw)
    done = checkout.run()
    trained = {job.split(" ")[1] for job in done if job.startswith("finetune_kept")}
    chose = {cell for cell in trained if cell.endswith("/1")}
    assert len(chose) == 1 + 3 * 2
    assert {cell.split("/")[4] for cell in trained - chose} == {"0.000", "0.600"}
    # Both networks of ratio 0.6 are judged, by the same seeds.
    judged = [cell.split("/")[2] for cell in trained - chose]
    assert judged.count("apoz") == judged.count("average_weight") == judged.count("unpruned") > 0
    rows = read_table(checkout.path / EXPERIMENT / "summary.parquet", "summary").to_pylist()
    seeds = {(row["criterion"], row["ratio"]): row["seeds"] for row in rows}
    assert len(seeds) == 7
    assert {seeds[name, 0.3] for name in ("apoz", "average_weight", "random")} | {seeds["random", 0.6]} == {1}
    (told,) = recommendation(checkout)["answer"]
    assert told["budget"]["runner_up"]["ratio"] == told["chosen"]["ratio"] == 0.6
    assert told["chosen"]["macs"] <= 250_000
    # It asks for more than there is: that is said, and nothing new is trained.
    raw["experiments"]["small"]["budget"] = {"macs": 10}
    checkout.configure(raw)
    assert not any(job.startswith("finetune") for job in checkout.run())
    assert recommendation(checkout)["lines"][0] == "Digits, net: no network takes 10 MACs or less."


def test_with_folds_every_image_judges_once_a_round(tmp_path):
    raw = growing_grid(criteria=["apoz", "average_weight"], ratios=[0.5])
    del raw["datasets"]["digits"]["train_per_class"], raw["datasets"]["digits"]["val_per_class"]
    raw["datasets"]["digits"] |= {"folds": 3, "split": {"val": 0.1}, "classes": [5, 6]}
    # Of so many images few epochs are enough.
    raw["recipes"]["quick"]["epochs"] = 4
    checkout = Checkout(tmp_path / "checkout", raw)
    checkout.run()
    cells = [grid.parse_path(cell) for cell in steps_of(checkout)[-1]["cells"]]
    # Seed 1 chose on fold 1; whole rounds of three follow.
    seeds = sorted({cell.seed for cell in cells})
    rounds = len(seeds) // 3
    assert seeds == list(range(2, 2 + 3 * rounds))
    images = [
        pq.read_table(checkout.path / "results/cells" / cell.path / "predictions.parquet")["image"].to_numpy()
        for cell in cells
        if cell.ratio == 0
    ]
    total = json.loads((checkout.path / "results/datasets/digits/manifest.json").read_text())["images"]
    assert sorted(np.concatenate(images).tolist()) == sorted(rounds * list(range(total)))
    (told,) = recommendation(checkout)["answer"]
    assert (told["folds"], told["test_images"]) == (3, total)
    assert (checkout.path / EXPERIMENT / "report.html").exists()
    assert checkout.planned() == set()
