"""The training loop: its formulas, its choices, its determinism and its resumption."""

import math
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from winnow.data.augmentation import normalise
from winnow.data.images import Images
from winnow.data.preprocessing import evaluation_view
from winnow.training import checkpoints, choice, judging, loop, precision, steps
from winnow.training.checkpoints import Checkpoint
from winnow.training.distillation import Teacher
from winnow.training.judging import Diverged, evaluate
from winnow.training.loop import learning_rate, train

RECIPE = {
    "epochs": 3,
    "batch_size": 8,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "label_smoothing": 0.1,
    "augmentation": {"scale": [0.5, 1.0], "ratio": [0.8, 1.25], "flip": True},
    "precision": "fp32",
    "evaluate_every": 1,
}
MEAN, STD = [0.4, 0.5, 0.6], [0.3, 0.2, 0.25]
TRAIN, VAL, TEST = np.arange(20), np.arange(20, 30), np.arange(30, 40)


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 4
    pixels = generator.integers(0, 100, (40, 10, 10, 3)) + 40 * labels[:, None, None, None]
    return Images(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels), 8, MEAN, STD)


def network(seed=0, dropout=0.3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(32, 4)
        )


class OwnNorm(nn.BatchNorm2d):
    """As a network of somebody's own may have one."""


NORMS = {
    "1d": lambda: [nn.Flatten(), nn.BatchNorm1d(8)],
    "2d": lambda: [nn.BatchNorm2d(8)],
    "3d": lambda: [nn.Unflatten(1, (8, 1)), nn.BatchNorm3d(8)],
    "sync": lambda: [nn.SyncBatchNorm(8)],
    "own": lambda: [OwnNorm(8)],
}


def normalising_network(norm="2d"):
    """One position is left where it normalises: a single image has no variance there."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 8), *NORMS[norm](), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))


def run(images, recipe=RECIPE, val=VAL, seed=0, report=lambda line: None, **options):
    return train(network(), images, TRAIN, val, recipe, seed, "fp32", report=report, **options)


def test_training_and_judging_leave_cudnn_no_choice_between_algorithms(images, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = []
    watched = network()
    watched.register_forward_hook(
        lambda *_: seen.append((torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark))
    )
    train(watched, images, TRAIN, VAL, RECIPE, 0, "fp32", report=lambda line: None)
    judged = len(seen)
    evaluate(watched, images, TEST, "fp32")
    assert len(seen) > judged
    assert set(seen) == {(True, False)}
    # What holds a step's memory is gone.
    assert all(parameter.grad is None for parameter in watched.parameters())
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)


def same(first, second):
    return all(torch.equal(tensor, second.state[name]) for name, tensor in first.state.items())


def stripped(history):
    return [{name: row[name] for name in row if name not in ("seconds", "images_per_second")} for row in history]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_equals_a_plain_loop(images, optimizer):
    recipe = RECIPE | {"optimizer": optimizer, "augmentation": None, "learning_rate": 0.01}
    trained = train(network(dropout=0.0), images, TRAIN, VAL[:0], recipe, 5, "fp32", report=lambda line: None)

    plain = network(dropout=0.0)
    make = {
        "sgd": lambda p: torch.optim.SGD(p, 1.0, momentum=0.9, nesterov=True, weight_decay=1e-3),
        "adamw": lambda p: torch.optim.AdamW(p, 1.0, betas=(0.9, 0.999), weight_decay=1e-3),
    }
    updates = make[optimizer](plain.parameters())
    losses, step = [], 0
    for epoch in range(1, 4):
        order = np.random.default_rng((5, epoch)).permutation(TRAIN)
        total = 0.0
        for start in range(0, 20, 8):
            rows = torch.from_numpy(order[start : start + 8])
            x = normalise(evaluation_view(images.pixels[rows], 8), MEAN, STD)
            # A linear warm-up over the first epoch's 3 steps, then half a cosine over the other 6.
            rate = (step + 1) / 4 if step < 3 else 0.5 * (1 + math.cos(math.pi * (step - 3) / 6))
            updates.param_groups[0]["lr"] = 0.01 * rate
            loss = functional.cross_entropy(plain(x), images.labels[rows], label_smoothing=0.1)
            updates.zero_grad()
            loss.backward()
            updates.step()
            total += loss.item() * len(rows)
            step += 1
        losses.append(total / 20)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(trained.state[name], tensor, rtol=1e-4, atol=1e-6)
    assert [row["train_loss"] for row in trained.history] == pytest.approx(losses, rel=1e-4)


def test_the_schedule_warms_up_and_ends_at_0():
    rates = [learning_rate(RECIPE, step, 10) for step in range(30)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) / 11 for step in range(10)])
    assert rates[10] == 0.05
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert {learning_rate(RECIPE | {"schedule": "constant"}, step, 10) for step in range(10, 30)} == {0.05}


def test_views_are_drawn_from_seed_epoch_and_step_alone(images):
    def views(*drawn):
        return loop.training_views(images, torch.arange(8), RECIPE["augmentation"], *drawn)

    first = views(0, 1, 0)
    torch.manual_seed(7)
    assert torch.equal(first, views(0, 1, 0))
    assert first.is_contiguous(memory_format=torch.channels_last)
    for other in ((1, 1, 0), (0, 2, 0), (0, 1, 1)):
        assert not torch.equal(first, views(*other))


def test_the_same_seed_gives_the_same_bits_and_another_one_others(images):
    first, again, other = run(images), run(images), run(images, seed=1)
    assert same(first, again)
    assert stripped(first.history) == stripped(again.history)
    assert not same(first, other)


def test_global_random_state_is_left_as_it_was(images):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    result = run(images)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert same(result, run(images))


def test_validation_chooses_the_epoch_by_accuracy_then_loss_then_earliest(images, monkeypatch):
    judged = iter([(0.5, 1.0), (0.7, 1.0), (0.7, 0.8), (0.7, 0.8), (0.6, 0.1)])
    states = []

    def fake(net, *_):
        accuracy, loss = next(judged)
        states.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        return judging.Judgement(loss, accuracy, np.zeros(0), np.zeros(0))

    monkeypatch.setattr(choice, "evaluate", fake)
    trained = run(images, RECIPE | {"epochs": 5})
    assert (trained.epoch, trained.val_accuracy) == (3, 0.7)
    assert all(torch.equal(trained.state[name], tensor) for name, tensor in states[2].items())


# Of 10 images 5, 7 and 6 are told after the epochs. A standard error of 8 is 1.3; of 9 less than one, which counts.
@pytest.mark.parametrize(("first", "chosen"), [(0.9, 0), (0.8, 2), (0.7, 2), (0.4, 2)])
def test_a_network_that_tells_the_classes_stays_if_every_epoch_is_surely_worse(first, chosen, images, monkeypatch):
    judged = iter([(first, 1.0), (0.5, 1.0), (0.7, 0.8), (0.6, 0.9)])
    begun = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    monkeypatch.setattr(choice, "evaluate", lambda *_: judging.Judgement(*reversed(next(judged)), *[np.zeros(0)] * 2))
    trained = run(images, knows=True)
    assert trained.epoch == chosen
    assert [row["epoch"] for row in trained.history] == [1, 2, 3]
    if not chosen:
        assert trained.val_accuracy == first
        assert all(torch.equal(trained.state[name], tensor) for name, tensor in begun.items())


def test_without_validation_images_the_last_epoch_is_taken(images):
    trained = run(images, val=VAL[:0])
    assert (trained.epoch, trained.val_accuracy) == (3, None)
    assert all(row["val_loss"] is None for row in trained.history)


def test_validation_comes_no_more_often_than_asked_and_after_the_last_epoch(images):
    trained = run(images, RECIPE | {"epochs": 5, "evaluate_every": 2})
    assert [row["val_accuracy"] is not None for row in trained.history] == [False, True, False, True, True]


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_a_gradient_that_is_too_long_is_cut_to_its_length(images, micro_batch):
    plain = {"epochs": 1, "batch_size": TRAIN.size, "learning_rate": 0.5, "momentum": 0.0, "weight_decay": 0.0}
    recipe = RECIPE | plain | {"warmup_epochs": 0, "schedule": "constant"}

    def step(**keys):
        net = network(dropout=0.0)
        before = flat(net)
        train(net, images, TRAIN, VAL[:0], recipe | keys, 0, "fp32", micro_batch, report=lambda line: None)
        return flat(net) - before

    def flat(net):
        return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])

    whole = step()
    assert torch.equal(step(clip_norm=100.0), whole)
    short = step(clip_norm=0.01)
    assert short.norm() == pytest.approx(0.5 * 0.01, rel=1e-3)
    torch.testing.assert_close(short / short.norm(), whole / whole.norm(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 8])
def test_gradients_of_passes_add_up_to_the_batchs(images, micro_batch):
    def loop(size):
        net = network(dropout=0.0)
        return train(net, images, TRAIN, VAL, RECIPE, 0, "fp32", size, report=lambda line: None)

    whole, parts = loop(None), loop(micro_batch)
    for name, tensor in whole.state.items():
        torch.testing.assert_close(parts.state[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "micro_batch", "least", "sizes"),
    [
        (64, 30, 1, [22, 21, 21]),
        (64, 32, 1, [32, 32]),
        (64, 64, 2, [64]),
        (64, None, 2, [64]),
        (40, 32, 1, [20, 20]),
        (5, 2, 1, [2, 2, 1]),
        (5, 2, 2, [3, 2]),
        (3, 1, 2, [3]),
        (1, 1, 2, [1]),
    ],
)
def test_a_batchs_passes_are_of_equal_size_and_none_is_of_fewer_images_than_it_needs(count, micro_batch, least, sizes):
    views, labels = torch.randn(count, 3, 2, 2), torch.arange(count)
    parts = steps.in_passes(micro_batch, least, views, labels)
    assert [len(part) for _, part in parts] == sizes
    assert torch.equal(torch.cat([part for part, _ in parts]), views)
    assert torch.equal(torch.cat([part for _, part in parts]), labels)


def test_a_run_that_goes_on_has_no_more_images_a_pass_than_it_had(images, tmp_path):
    path = tmp_path / "checkpoint.pt"
    assert run(images, micro_batch=4, checkpoint=Checkpoint(path, "key", 0.0)).micro_batch == 4
    again = run(images, micro_batch=8, checkpoint=Checkpoint(path, "key", 1e9))
    assert (again.resumed, again.micro_batch) == (1, 4)
    assert (run(images).micro_batch, run(images, micro_batch=8).micro_batch) == (None, 8)


def test_a_loss_that_is_no_number_names_epoch_and_rate(images):
    recipe = RECIPE | {"learning_rate": 1e30, "schedule": "constant", "warmup_epochs": 0}
    with pytest.raises(Diverged, match=r"loss is (nan|inf) in epoch [12] at learning rate 1e\+30"):
        run(images, recipe)


def test_weights_that_the_last_step_threw_away_are_found_in_validation(images):
    recipe = RECIPE | {"epochs": 1, "batch_size": 20, "learning_rate": 1e30, "schedule": "constant"}
    with pytest.raises(Diverged, match=r"validation loss is (nan|inf) after epoch 1 at learning rate 1e\+30"):
        run(images, recipe | {"warmup_epochs": 0})


def test_every_image_is_trained_on_once_an_epoch(images, monkeypatch):
    seen = []
    views = loop.training_views
    monkeypatch.setattr(loop, "training_views", lambda i, rows, *rest: seen.append(rows) or views(i, rows, *rest))
    train(network(), images, np.arange(17), VAL, RECIPE, 0, "fp32", report=lambda line: None)
    assert [len(rows) for rows in seen] == [8, 8, 1] * 3
    for epoch in range(3):
        assert sorted(torch.cat(seen[3 * epoch : 3 * epoch + 3]).tolist()) == list(range(17))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("micro_batch", [None, 3, 1])
def test_no_pass_is_of_a_single_image_under_batch_norm_of_any_kind(images, norm, micro_batch):
    net, sizes = normalising_network(norm), []
    net[0].register_forward_pre_hook(lambda module, seen: sizes.append(len(seen[0])) if module.training else None)
    trained = train(net, images, np.arange(17), VAL, RECIPE, 0, "fp32", micro_batch, report=lambda line: None)
    assert sizes[: len(sizes) // 3] == {None: [8, 8], 3: [3, 3, 2] * 2, 1: [2] * 8}[micro_batch]
    assert all(np.isfinite(row["train_loss"]) for row in trained.history)


def test_a_single_image_is_no_batch_under_batch_norm(images, monkeypatch):
    seen = []
    views = loop.training_views
    monkeypatch.setattr(loop, "training_views", lambda i, rows, *rest: seen.append(rows) or views(i, rows, *rest))
    recipe = RECIPE | {"augmentation": None, "learning_rate": 0.0}
    net = normalising_network()
    trained = train(net, images, np.arange(17), VAL, recipe, 0, "fp32", report=lambda line: None)
    assert [len(rows) for rows in seen] == [8, 8] * 3
    left_out = {(set(range(17)) - set(torch.cat(seen[first : first + 2]).tolist())).pop() for first in (0, 2, 4)}
    assert len(left_out) > 1
    # Nothing was learnt: the loss is the mean over the images that were shown.
    net = normalising_network().train()
    losses = []
    for rows in seen[:2]:
        logits = net(normalise(evaluation_view(images.pixels[rows], 8), MEAN, STD))
        losses.append(functional.cross_entropy(logits, images.labels[rows], label_smoothing=0.1).item())
    assert trained.history[0]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_bfloat16_trains_to_nearly_the_same_loss(images):
    full = run(images)
    half = train(network(), images, TRAIN, VAL, RECIPE, 0, "bf16", report=lambda line: None)
    assert half.history[-1]["train_loss"] == pytest.approx(full.history[-1]["train_loss"], rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in half.state.values())


def test_in_bfloat16_logits_are_judged_in_float32_and_do_not_tie():
    """What comes before the last layer is bfloat16's, the logits are not: 102 of those are too many for eight bits."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    last = nn.Linear(64, 102)
    pixels = np.random.default_rng(0).integers(0, 256, (600, 10, 10, 3), dtype=np.uint8)
    noise = Images(torch.from_numpy(pixels), torch.arange(600) % 102, 8, MEAN, STD)
    judged = evaluate(nn.Sequential(body, last), noise, np.arange(600), "bf16")
    with torch.inference_mode():
        views = normalise(evaluation_view(noise.pixels, 8), MEAN, STD)
        with precision.autocast(views.device, "bf16"):
            features = body(views)
            rounded = last(features)
        exact = last(features.float())
    assert (features.dtype, rounded.dtype) == (torch.bfloat16,) * 2
    first, second = rounded.topk(2, 1).values.unbind(1)
    assert (first == second).sum() > 0
    assert (rounded.argmax(1) != exact.argmax(1)).any()
    assert judged.predicted.tolist() == exact.argmax(1).tolist()
    np.testing.assert_allclose(judged.probability, exact.softmax(1)[torch.arange(600), noise.labels], rtol=1e-5)


def test_evaluation_equals_one_image_at_a_time(images, monkeypatch):
    net = network().train()
    monkeypatch.setitem(judging.EVALUATION_PIXELS, "cpu", 3 * 64)
    judged = evaluate(net, images, TEST, "fp32")
    net.eval()
    for position, row in enumerate(TEST):
        x = normalise(evaluation_view(images.pixels[row : row + 1], 8), MEAN, STD)
        probabilities = net(x).softmax(1)[0]
        assert judged.predicted[position] == probabilities.argmax()
        assert judged.probability[position] == pytest.approx(probabilities[images.labels[row]].item(), rel=1e-4)
    labels = images.labels[TEST].numpy()
    assert judged.accuracy == pytest.approx((judged.predicted == labels).mean())
    assert judged.loss == pytest.approx(-np.log(judged.probability).mean(), rel=1e-4)


def test_where_memory_runs_out_an_evaluation_takes_smaller_batches(images):
    net, sizes = network(), []
    expected = evaluate(net, images, TEST, "fp32")

    def allocate(module, seen):
        sizes.append(len(seen[0]))
        if len(sizes) > 1 and sizes[-1] > 3:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    net[-1].register_forward_pre_hook(allocate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(judging.EVALUATION_PIXELS, "cpu", 6 * 64)
        judged = evaluate(net, images, TEST, "fp32")
    assert sizes == [6, 4, 3, 3, 3, 1]
    assert judged.predicted.tolist() == expected.predicted.tolist()
    np.testing.assert_allclose(judged.probability, expected.probability, rtol=1e-5)


@pytest.mark.parametrize(("temperature", "weight"), [(4.0, 0.5), (1.0, 1.0), (2.5, 0.1)])
def test_distillation_is_the_sum_of_its_formula(temperature, weight):
    generator = torch.Generator().manual_seed(0)
    logits, taught = torch.randn(2, 6, 4, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    expected = 0.0
    for student, teacher, label in zip(logits.tolist(), taught.tolist(), labels.tolist(), strict=True):
        exponentials = [[math.exp(v) for v in student], [math.exp(v / temperature) for v in teacher]]
        q, p = ([value / sum(values) for value in values] for values in exponentials)
        divergence = sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))
        entropy = -student[label] + math.log(sum(math.exp(value) for value in student))
        expected += (1 - weight) * entropy + weight * divergence
    entropy = functional.cross_entropy(logits, labels, reduction="sum")
    loss = Teacher(network(), temperature, weight).loss(entropy, logits, taught)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("size", [0.1, 10.0, 100.0])
def test_a_teacher_pulls_no_harder_than_labels_do(temperature, size):
    generator = torch.Generator().manual_seed(0)
    logits, taught = size * torch.randn(2, 6, 4, generator=generator)
    logits.requires_grad_()
    Teacher(network(), temperature, 1.0).loss(torch.zeros(()), logits, taught).backward()
    # Of cross-entropy it is at most 1 for the label, and 1 for all others together.
    assert logits.grad.abs().sum(1).max() <= 2 + 1e-5


class Recorder(nn.Module):
    """A network that remembers what it was shown in training, and by whom it was asked for gradients."""

    def __init__(self, seed, always=False):
        super().__init__()
        self.inner, self.seen, self.always = network(seed), [], always

    def forward(self, views):
        if self.training or self.always:
            self.seen.append((views.clone(), torch.is_grad_enabled()))
        return self.inner(views)


@pytest.mark.parametrize("micro_batch", [8, 3])
def test_the_teacher_sees_what_the_student_sees_and_stays_as_it_is(images, micro_batch):
    teacher, student = Recorder(1, always=True).eval(), Recorder(0)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    options = {"teacher": Teacher(teacher, 4.0, 1.0), "micro_batch": micro_batch}
    trained = train(student, images, TRAIN, VAL, RECIPE, 0, "fp32", report=lambda line: None, **options)
    assert len(teacher.seen) == len(student.seen)
    assert all(torch.equal(one[0], other[0]) for one, other in zip(teacher.seen, student.seen, strict=True))
    assert not any(gradients for _, gradients in teacher.seen)
    assert not teacher.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    # With all of the weight on the teacher the labels say nothing.
    images.labels[torch.from_numpy(TRAIN)] = 0
    again = train(Recorder(0), images, TRAIN, VAL, RECIPE, 0, "fp32", report=lambda line: None, **options)
    assert [row["train_loss"] for row in again.history] == [row["train_loss"] for row in trained.history]


def test_a_later_phase_counts_on_and_draws_its_own(images, monkeypatch):
    drawn, views = [], loop.training_views

    def noted(pixels, rows, augmentation, seed, epoch, step):
        drawn.append((epoch, step))
        return views(pixels, rows, augmentation, seed, epoch, step)

    monkeypatch.setattr(loop, "training_views", noted)
    first, second = run(images), run(images, epochs_before=3)
    assert drawn == [(epoch, step) for epoch in range(1, 7) for step in range(3)]
    assert [row["epoch"] for row in second.history] == [4, 5, 6]
    assert second.epoch in (4, 5, 6)
    assert [row["learning_rate"] for row in second.history] == [row["learning_rate"] for row in first.history]


class Killed(BaseException):
    """What a kill looks like from inside: the run is simply gone."""


@pytest.mark.parametrize(("optimizer", "knows"), [("sgd", False), ("adamw", False), ("sgd", True)])
@pytest.mark.parametrize("after", range(1, 9))
def test_a_run_resumed_from_any_step_ends_bit_for_bit_the_same(images, tmp_path, after, optimizer, knows):
    recipe = RECIPE | {"optimizer": optimizer}
    reference = run(images, recipe, knows=knows)
    path = tmp_path / "checkpoint.pt"

    class Mortal(Checkpoint):
        left = after

        def write(self, *arguments):
            super().write(*arguments)
            self.left -= 1
            if self.left == 0:
                raise Killed

    with pytest.raises(Killed):
        run(images, recipe, checkpoint=Mortal(path, "key", 0.0, lambda line: None), knows=knows)
    lines = []
    going_on = Checkpoint(path, "key", 1e9, lambda line: None)
    resumed = run(images, recipe, checkpoint=going_on, knows=knows, report=lines.append)
    assert resumed.resumed == 1
    # What it told before it was trained is asked once.
    assert not [line for line in lines if line.startswith("as it begins")]
    assert same(reference, resumed)
    assert stripped(reference.history) == stripped(resumed.history)
    assert (reference.epoch, reference.val_accuracy) == (resumed.epoch, resumed.val_accuracy)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_write_the_checkpoint_and_end_with_143(number, images, tmp_path, monkeypatch):
    reference = run(images)
    path = tmp_path / "checkpoint.pt"
    steps = []
    views = loop.training_views

    def counted(*arguments):
        steps.append(1)
        if len(steps) == 5:
            os.kill(os.getpid(), number)
        return views(*arguments)

    monkeypatch.setattr(loop, "training_views", counted)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        run(images, checkpoint=Checkpoint(path, "key", 1e9, lambda line: None))
    assert stop.value.code == 143
    assert signal.getsignal(number) == before
    assert len(steps) == 5
    assert same(reference, run(images, checkpoint=Checkpoint(path, "key", 1e9, lambda line: None)))
    assert len(steps) == 9  # three epochs of three steps, none of them twice


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_signal_while_validation_looks_is_not_lost(epoch, images, tmp_path, monkeypatch):
    reference = run(images)
    lines, look = [], loop.Chooser.look

    def looked(self, network, number, *arguments):
        judged = look(self, network, number, *arguments)
        if number == epoch and lines[-1:] != ["taken up"]:
            os.kill(os.getpid(), signal.SIGTERM)
        return judged

    monkeypatch.setattr(loop.Chooser, "look", looked)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "key", 1e9, lambda line: None)
    with pytest.raises(SystemExit):
        run(images, checkpoint=checkpoint, report=lines.append)
    assert lines[-1] == f"stopped by a signal after epoch {epoch}"
    lines.append("taken up")
    resumed = run(images, checkpoint=checkpoint)
    assert same(reference, resumed)
    assert len(resumed.history) == 3


def test_who_interrupts_twice_does_not_wait():
    with checkpoints.Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_epoch_says_of_how_many_it_is_and_how_long_the_rest_takes(images):
    lines = []
    run(images, report=lines.append, epochs_before=2)
    assert [line.partition(":")[0] for line in lines] == [f"epoch {number} of 5" for number in (3, 4, 5)]
    assert [line.endswith(" left") for line in lines] == [True, True, False]


@pytest.mark.parametrize("damage", ["other key", "cut", "text"])
def test_a_checkpoint_that_is_not_this_runs_is_not_taken_up(images, tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    lines = []
    run(images, checkpoint=Checkpoint(path, "key", 0.0))
    assert path.exists()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("no")
    key = "other" if damage == "other key" else "key"
    result = run(images, checkpoint=Checkpoint(path, key, 1e9, lines.append))
    assert result.resumed == 0
    assert "starting anew" in lines[0]
    assert same(result, run(images))


def test_a_run_that_began_on_a_cpu_has_a_generator_on_a_gpu(tmp_path):
    net = network()
    optimizer = loop.optimizer_for(net, RECIPE)
    cpu, gpu = torch.get_rng_state(), torch.ones(16, dtype=torch.uint8)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "key", 0.0, lambda line: None)
    checkpoint.write(net, optimizer, checkpoints.Run({"cpu": cpu}, epoch=2))
    run = checkpoint.restore(net, optimizer, checkpoints.Run({"cpu": torch.zeros_like(cpu), "cuda": gpu}))
    assert run.epoch == 2
    assert torch.equal(run.generator_state["cpu"], cpu)
    assert torch.equal(run.generator_state["cuda"], gpu)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("resident", [True, False])
def test_no_view_waits_for_the_gpu(images, resident):
    pixels = images.pixels.cuda() if resident else images.pixels
    images = Images(pixels, images.labels.cuda(), 8, MEAN, STD)
    rows = torch.arange(8, device=pixels.device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for augmentation in (None, RECIPE["augmentation"]):
            loop.training_views(images, rows, augmentation, 0, 1, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_auto_is_what_the_device_gains_from(monkeypatch):
    monkeypatch.setattr(precision, "_has_bf16_arithmetic", lambda: True)
    assert precision.precision_for("auto", "cpu", 10**9) == "bf16"
    assert precision.precision_for("auto", "cpu", 10**6) == "fp32"
    assert precision.precision_for("fp32", "cpu", 10**9) == "fp32"
    monkeypatch.setattr(precision, "_has_bf16_arithmetic", lambda: False)
    assert precision.precision_for("auto", "cpu", 10**9) == "fp32"
    assert precision.precision_for("bf16", "cpu", 10**6) == "bf16"


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 99))
def test_balanced_sampling_has_as_many_of_each_class_and_repeats_none_before_all_were_there(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.random.default_rng(1).permutation(1000)[: labels.size]
    found = loop.balanced(rows, labels, np.random.default_rng(seed))
    assert found.size == rows.size
    label = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    counts = np.bincount([label[row] for row in found.tolist()], minlength=len(sizes))
    assert counts.max() - counts.min() <= 1
    for own, size in enumerate(sizes):
        _, times = np.unique([row for row in found.tolist() if label[row] == own], return_counts=True)
        if times.size:
            assert times.max() - (times.min() if times.size == size else 0) <= 1
    again = loop.balanced(rows, labels, np.random.default_rng(seed))
    assert (found == again).all()


def test_an_epoch_of_balanced_sampling_shows_each_class_as_often():
    labels = torch.tensor([0] * 30 + [1] * 3)
    images = Images(torch.zeros(33, 4, 4, 3, dtype=torch.uint8), labels, 4, [0.5] * 3, [0.5] * 3)
    orders = [loop.shuffled(images, np.arange(33), 0, epoch, by_class=True) for epoch in (1, 2)]
    for order, seen in orders:
        assert torch.equal(seen, labels[order])
        assert sorted(np.bincount(seen).tolist()) == [16, 17]
    assert not torch.equal(orders[0][0], orders[1][0])
    # Without it nothing is drawn that was not drawn before.
    order, _ = loop.shuffled(images, np.arange(33), 0, 1)
    assert order.tolist() == np.random.default_rng((0, 1)).permutation(33).tolist()
