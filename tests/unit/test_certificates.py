"""Certificates: judged weights are told from all others, and what is said of a file is what it answered."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil

import numpy as np
import pytest
import scipy.stats
import torch
from safetensors.torch import load_file, save_file

from winnow.answers import words
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import bundle, certificates, runtimes
from winnow.exports.certificates import Exam
from winnow.files import InputError, read_json, write_json
from winnow.networks import models

from .test_export import exported, finetuned, made  # noqa: F401 - a fixture

PLACE = ("apoz", "layer", 0.5)


@pytest.fixture(scope="module")
def pruned(made):  # noqa: F811
    """A cell that is less well trained than the unpruned one, and says that it was pruned; and its export."""
    finetuned(made, made / "pruned", place=PLACE, epochs=2)
    exported(made, made / "certified", "pruned", "store", "--unpruned", made / "cell")
    return made


def by_hand(path):
    """The digest of a file's tensors by what its bytes say, as the docstring of the digest has it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    named = {"F32": "float32", "I64": "int64"}
    line = {name: [named[each["dtype"]], each["shape"]] for name, each in header.items()}
    text = json.dumps(line, sort_keys=True, separators=(",", ":")).encode()
    parts = [content[8 + length :][slice(*header[name]["data_offsets"])] for name in sorted(header)]
    return hashlib.sha256(text + b"".join(parts)).hexdigest()


def test_cell_kept_network_and_export_name_the_weights_by_one_digest(pruned, tmp_path):
    said = read_json(pruned / "pruned" / "metrics.json")["weights_sha256"]
    model = read_json(pruned / "certified" / "model.json")
    assert said == read_json(pruned / "pruned" / "model.json")["weights_sha256"] == model["weights_sha256"]
    assert {each["weights_sha256"] for each in model["certificates"]} == {said}
    for folder in pruned / "pruned", pruned / "certified":
        assert by_hand(folder / "model.safetensors") == said
    assert said != read_json(pruned / "cell" / "metrics.json")["weights_sha256"]
    # Trained once more it comes out the same, on one machine.
    finetuned(pruned, tmp_path / "again", place=PLACE, epochs=2)
    assert read_json(tmp_path / "again" / "metrics.json")["weights_sha256"] == said


def test_the_digest_is_of_the_weights_whatever_their_order_and_layout_and_of_all_of_them():
    generator = torch.Generator().manual_seed(0)
    state = {"b.weight": torch.randn(4, 3, 2, 2, generator=generator), "a": torch.tensor(3), "c": torch.ones(0)}
    found = models.digest(state)
    other = {name: state[name] for name in reversed(state)}
    other["b.weight"] = other["b.weight"].contiguous(memory_format=torch.channels_last)
    assert models.digest(other) == found
    flipped = state["b.weight"].clone()
    flipped.view(torch.int32)[3, 2, 1, 1] ^= 1
    for changed in (
        {"b.weight": flipped},
        {"b.weight": state["b.weight"].double()},
        {"b.weight": state["b.weight"].reshape(4, 12)},
        {"a": torch.tensor(4)},
        {"c": torch.ones(0, 2)},
        {"d": torch.ones(0)},
    ):
        assert models.digest(state | changed) != found
    assert models.digest({f"_{name}": tensor for name, tensor in state.items()}) != found


def test_a_network_of_which_one_bit_is_another_is_not_exported(pruned, tmp_path):
    network = tmp_path / "network"
    network.mkdir()
    _, description = models.load(pruned / "pruned")
    tensors = load_file(pruned / "pruned" / "model.safetensors")
    bias = next(name for name in tensors if name.endswith("bias"))
    tensors[bias].view(torch.int32)[0] ^= 1
    elsewhere = description | {"device": "a machine", "precision": "bf16", "versions": {"torch": "1.0"}}
    save_file(tensors, network / "model.safetensors", {"winnow": json.dumps(elsewhere)})
    options = ["--unpruned", pruned / "cell", "--network", network]
    with pytest.raises(InputError, match=r"the network in .*network is not the one that was judged: ") as caught:
        exported(pruned, tmp_path / "export", "pruned", "store", *options)
    told = f"trained on a machine in bf16 with torch 1.0, and what was judged on {description['device']} in fp32 with"
    assert told in str(caught.value)
    assert not (tmp_path / "export").exists()


def test_weights_that_are_written_otherwise_are_not_exported(pruned, tmp_path, monkeypatch):
    real = models.save

    def rounded(folder, network, description):
        with torch.no_grad():
            network.classifier[0].bias.copy_(network.classifier[0].bias.half())
        return real(folder, network, description)

    monkeypatch.setattr(models, "save", rounded)
    with pytest.raises(InputError, match=r"model\.safetensors is not the one that was judged"):
        exported(pruned, tmp_path / "out" / "export", "cell")
    assert list((tmp_path / "out").iterdir()) == []


def test_files_that_see_other_images_than_the_judged_network_did_are_not_exported(pruned, tmp_path, monkeypatch):
    real = certificates.network_input
    monkeypatch.setattr(certificates, "network_input", lambda squares, *how: -real(squares, *how))
    with pytest.raises(SystemExit, match=r"model\.safetensors does not answer as the judged network did: on 27 test"):
        exported(pruned, tmp_path / "out" / "export", "cell")
    assert list((tmp_path / "out").iterdir()) == []


def test_where_two_classes_are_even_for_the_precision_that_judged_either_may_have_been_named(tmp_path):
    labels = np.zeros(400, dtype=int)
    logits = np.tile(np.float32([10.0, 9.5, 0.0]), (400, 1))
    judged = np.where(np.arange(400) % 2, 1, 0)

    def exam(precision, judged=judged):
        return Exam(None, labels, labels, judged, None, "", {"precision": precision}, {})

    exam("bf16").require_alike(logits, tmp_path / "a")
    with pytest.raises(certificates.Disagreement, match="the judged network did: on 400 test images 200 predictions"):
        exam("fp32").require_alike(logits, tmp_path / "a")
    few = np.where(np.arange(400) < 2, 2, 0)
    exam("bf16", few).require_alike(logits, tmp_path / "a")
    with pytest.raises(certificates.Disagreement, match="3 predictions differ, and 99\\.5 %"):
        exam("bf16", np.where(np.arange(400) < 3, 2, 0)).require_alike(logits, tmp_path / "a")


def test_what_is_certified_is_what_was_counted(pruned):
    before, after = (read_json(pruned / name / "metrics.json")["accuracy"] for name in ("cell", "pruned"))
    assert before > after
    for each in read_json(pruned / "certified" / "model.json")["certificates"]:
        assert (each["images"], each["as_judged"]) == (27, 27)
        assert (each["unpruned_accuracy"], each["accuracy"]) == (pytest.approx(before), pytest.approx(after))
        assert each["drop"] == pytest.approx(before - after)
        assert each["low"] < each["drop"] < each["high"]
    card = (pruned / "certified" / "README.md").read_text()
    assert f"| `model.onnx` | {100 * after:.1f} % | {100 * (before - after):.1f} [" in card
    assert "| 27 of 27 | onnxruntime" in card
    assert "Of the file" not in card.split("## Certificate")[0]


def test_what_runs_the_onnx_files_elsewhere_is_named_with_its_agreement_and_decides_nothing(
    pruned, tmp_path, monkeypatch
):
    def opened(change, name):
        def opener(path, threads):
            found = runtimes.open_onnx(path, threads)
            return found._replace(logits=lambda images: change(found.logits(images)), name=name)

        return opener

    def failing(path, threads):
        raise InputError(f"{path} cannot be read by failing: unknown operator")

    # Packages that are there, but for one: by the first both files answer as they should.
    found = {"ast": opened(lambda logits: logits + 1e-6, "good 1"), "bz2": opened(lambda logits: -logits, "wrong 1")}
    found |= {"csv": failing, "no_such_package": opened(lambda logits: logits, "absent")}
    monkeypatch.setattr(runtimes, "FURTHER", found)
    exported(pruned, tmp_path / "export")
    model = read_json(tmp_path / "export" / "model.json")
    onnx, int8, *others = model["certificates"][1:]
    names = ["model.onnx", "model.int8.onnx"]
    assert [each["file"] for each in (onnx, int8)] == [each["file"] for each in others] == names
    for first, by in zip((onnx, int8), others, strict=True):
        assert by["runtime"] == "good 1"
        assert {k: v for k, v in by.items() if k not in ("runtime", "largest_difference")} == {
            k: v for k, v in first.items() if k not in ("runtime", "largest_difference")
        }
    assert 5e-7 < others[0]["largest_difference"] < 1e-5
    assert model["onnx"]["not_by"]["csv"] == "model.onnx cannot be read by failing: unknown operator"
    assert "model.onnx does not answer as PyTorch does: on 27 test" in model["onnx"]["not_by"]["bz2"]
    assert "fewer of the 27 test images than in floating point" in model["int8"]["not_by"]["bz2"]
    card = (tmp_path / "export" / "README.md").read_text()
    assert "Run by good 1, `model.onnx` names the class that PyTorch names on 27 of the 27 test images, logits" in card
    assert "`model.int8.onnx` has no certificate by csv: model.int8.onnx cannot be read by failing: unknown op" in card
    assert "absent" not in card
    assert "no_such" not in card
    # The sentences are of files, the table is of what runs them.
    sentences = words.certificates(model["certificates"])
    assert [sentence.split(" is ")[0] for sentence in sentences] == ["model.safetensors", *names]


@pytest.mark.parametrize("installed", [True, False])
def test_openvino_runs_both_files_where_it_is_installed_and_is_not_named_where_not(
    pruned, tmp_path, monkeypatch, installed
):
    if installed:
        pytest.importorskip("openvino", reason="OpenVINO is of the extra formats")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exported(pruned, tmp_path / "export")
    model, card = read_json(tmp_path / "export" / "model.json"), (tmp_path / "export" / "README.md").read_text()
    others = model["certificates"][3:]
    if not installed:
        assert others == []
        assert "openvino" not in json.dumps(model) + card
        return
    assert [each["file"] for each in others] == ["model.onnx", "model.int8.onnx"]
    assert all(re.fullmatch(r"openvino [\d.]+ \(INFERENCE_PRECISION_HINT f32\)", each["runtime"]) for each in others)
    assert others[0]["as_pytorch"] == 27
    assert 0 < others[0]["largest_difference"] <= others[0]["tolerance"]
    assert others[1]["as_pytorch"] >= 26
    assert f"Run by {others[0]['runtime']}, `model.onnx` names the class that PyTorch names on 27 of the 27" in card


def test_old_and_foreign_cells_are_named(pruned, tmp_path):
    with pytest.raises(InputError, match="of a pruned network: give the unpruned one's cell of its seed"):
        exported(pruned, tmp_path / "x", "pruned")
    with pytest.raises(InputError, match="pruned is of a pruned network: give"):
        exported(pruned, tmp_path / "x", "pruned", "store", "--unpruned", pruned / "pruned")
    shutil.copytree(pruned / "cell", tmp_path / "cell")
    metrics = read_json(tmp_path / "cell" / "metrics.json")
    store = Store.open(pruned / "store")
    split = Split.open(pruned / "store.parquet", store)
    # Its training diverged: there is nothing to compare with.
    write_json(tmp_path / "cell" / "metrics.json", metrics | {"status": "diverged"})
    assert Exam.open(pruned / "pruned", tmp_path / "cell", store, split).unpruned is None
    finetuned(pruned, tmp_path / "other", place=PLACE, epochs=1)
    with pytest.raises(InputError, match=r"other is not the unpruned network of .*'unpruned'.*but of .*'apoz'"):
        Exam.open(pruned / "pruned", tmp_path / "other", store, split)
    del metrics["weights_sha256"]
    write_json(tmp_path / "cell" / "metrics.json", metrics)
    with pytest.raises(InputError, match=r"metrics\.json does not say which weights were judged"):
        bundle.judged(tmp_path / "cell", None, pruned / "cell", store, split)


def test_the_certificates_figures_are_those_written_out():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    before, judged = (np.where(generator.random(200) < right, labels, 2 - labels) for right in (0.9, 0.8))
    file = np.where(np.arange(200) == 7, (judged + 1) % 3, judged)
    found = certificates.compared(file, labels, judged, before)
    d = [int(b == label) - int(f == label) for b, f, label in zip(before, file, labels, strict=True)]
    assert found["images"] == 200
    assert found["as_judged"] == 199
    assert found["drop"] == pytest.approx(sum(d) / 200)
    assert found["drop"] == pytest.approx(found["unpruned_accuracy"] - found["accuracy"])
    # Of n images and two that are made up, one lost and one won, Student's t.
    mean = sum(d) / 202
    variance = (sum((each - mean) ** 2 for each in d) + (1 - mean) ** 2 + (-1 - mean) ** 2) / 201 / 202
    half = scipy.stats.t.ppf(0.975, 199) * variance**0.5
    assert found["low"] == pytest.approx(sum(d) / 200 - half, rel=1e-6)
    assert found["high"] == pytest.approx(sum(d) / 200 + half, rel=1e-6)
    alone = certificates.compared(file, labels, judged, None)
    assert alone["accuracy"] == found["accuracy"]
    assert alone["drop"] is alone["low"] is alone["high"] is alone["unpruned_accuracy"] is None


@pytest.mark.parametrize(("images", "lost", "won"), [(60, 0.05, 0.02), (300, 0.02, 0.02), (1000, 0.01, 0.0)])
def test_the_interval_covers_what_the_file_loses_on_all_images_of_the_kind(images, lost, won):
    generator = np.random.default_rng(1)
    labels, covered = np.zeros(images, dtype=int), []
    for _ in range(1000):
        kind = generator.choice(3, images, p=[lost, won, 1 - lost - won])
        found = certificates.compared((kind == 0).astype(int), labels, labels, (kind == 1).astype(int))
        covered.append(found["low"] <= lost - won <= found["high"])
    assert np.mean(covered) >= 0.94  # three standard errors below 0.96


def test_logits_that_differ_by_more_than_rounding_are_no_agreement(tmp_path):
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(1000, 4)).astype(np.float32)
    found = certificates.agreement(reference + 1e-5, reference, tmp_path / "a.onnx")
    assert (found["as_pytorch"], found["tolerance"]) == (1000, pytest.approx(1e-4 * np.abs(reference).max()))
    for difference in (1e-3, np.nan):
        other = reference.copy()
        other[500, 2] += difference
        with pytest.raises(certificates.Disagreement, match=r"a\.onnx does not answer as PyTorch does: .* logits"):
            certificates.agreement(other, reference, tmp_path / "a.onnx")
    # Many images where two classes are even are more than a few that rounding decides.
    even = np.zeros((1000, 2), dtype=np.float32)
    even[:, 1] = 1e-6
    flipped = even.copy()
    flipped[:5, 0] = 2e-6
    assert certificates.agreement(flipped, even, tmp_path / "a.onnx")["as_pytorch"] == 995
    flipped[:6, 0] = 2e-6
    with pytest.raises(certificates.Disagreement, match=r"6 predictions differ, and 99\.5 % are"):
        certificates.agreement(flipped, even, tmp_path / "a.onnx")
