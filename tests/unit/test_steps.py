"""A recorded step, with what stands in for the device's recording: what is played back trains as what is computed.

What a GPU makes of it is tested there.
"""

import contextlib
import copy

import pytest
import torch
from torch import nn

from winnow.training import steps
from winnow.training.steps import Steps

RECIPE = {"batch_size": 4, "label_smoothing": 0.1, "clip_norm": 0.5}


class Played:
    """Keeps the addresses that a recording has: gradients are written to tensors of its own."""

    made = 0

    def __init__(self, computing, views, labels):
        type(self).made += 1
        self.computing, self.views, self.labels = computing, views.clone(), labels.clone()
        self.gradients = [torch.full_like(parameter, torch.nan) for parameter in computing.network.parameters()]

    def play(self, views, labels):
        self.views.copy_(views)
        self.labels.copy_(labels)
        network = copy.deepcopy(self.computing.network)
        network.zero_grad(set_to_none=True)
        other = copy.copy(self.computing)
        other.network = network
        loss = other._by_kernel([(self.views, self.labels)])
        both = zip(self.computing.network.parameters(), network.parameters(), self.gradients, strict=True)
        for parameter, found, gradient in both:
            parameter.grad = gradient.copy_(found.grad)
        return loss


@pytest.fixture
def device(monkeypatch):
    """As if the processor could record: with as much room, and waiting in as many steps, as is put here."""
    found = {"room": True, "waits": []}

    @contextlib.contextmanager
    def watched():
        waited = []
        yield waited
        waited += filter(None, found["waits"][:1])
        del found["waits"][:1]

    monkeypatch.setattr(Played, "made", 0)
    monkeypatch.setattr(steps, "Recording", Played)
    monkeypatch.setattr(steps, "_room", lambda: found["room"])
    monkeypatch.setattr(steps, "_watched", watched)
    return found


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def trained(recordable, sizes, left=steps.LEAST_STEPS, micro_batch=None):
    """A network's tensors and its losses after a step of each size."""
    found, generator = network(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(found.parameters(), 0.1, 0.9)
    computing, losses = Steps(found, RECIPE, "fp32", None, 1), []
    computing._recordable = recordable
    for number, size in enumerate(sizes):
        views = torch.randn(size, 3, 5, 5, generator=generator)
        labels = torch.randint(0, 3, (size,), generator=generator)
        losses.append(computing.gradients(views, labels, micro_batch, left + len(sizes) - number - 1).item())
        optimizer.step()
    return found.state_dict(), losses


def same(one, other):
    assert one[1] == other[1]
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


# Epochs whose last batch is not full.
SIZES = [4, 4, 2] * 4


def test_what_is_recorded_trains_as_what_is_not(device):
    same(trained(True, SIZES), trained(False, SIZES))
    assert Played.made == 1


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        # Too few steps are left, at the end and from the beginning.
        (SIZES, {"left": steps.LEAST_STEPS - len(SIZES)}),
        # Not one whole batch after the warm-up.
        ([4, 4, 4, 2, 2, 2], {}),
        # In parts, since memory is short.
        (SIZES, {"micro_batch": 2}),
    ],
)
def test_what_is_not_worth_it_is_not_recorded(device, sizes, options):
    same(trained(True, sizes, **options), trained(False, sizes, **options))
    assert Played.made == 0


def test_nothing_is_recorded_without_room_for_it_which_is_said(device, capsys):
    device["room"] = False
    same(trained(True, SIZES), trained(False, SIZES))
    assert Played.made == 0
    # Once, and not for the one that nobody would record.
    assert capsys.readouterr().out.count("steps are started kernel by kernel") == 1


def test_the_first_step_may_wait_for_the_device_the_last_before_a_recording_may_not(device, capsys):
    device["waits"] = [""]
    trained(True, SIZES)
    assert (Played.made, device["waits"]) == (1, [])
    assert "kernel by kernel" not in capsys.readouterr().out
    device["waits"] = ["called a synchronizing CUDA operation"]
    same(trained(True, SIZES), trained(False, SIZES))
    assert Played.made == 1
    assert "the network lets the host wait for the device amid a step" in capsys.readouterr().out


def test_a_recording_for_which_memory_runs_out_is_done_without(device, monkeypatch):
    tried = []

    def full(computing, *given):
        tried.append(1)
        for parameter in computing.network.parameters():
            parameter.grad = torch.full_like(parameter, torch.nan)
        try:
            raise torch.cuda.OutOfMemoryError("out of memory")
        finally:
            # As torch does where what was recorded so far cannot be ended.
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(steps, "Recording", full)
    same(trained(True, SIZES), trained(False, SIZES))
    assert tried == [1]


def test_a_step_that_cannot_be_recorded_is_its_workers_last(device, monkeypatch):
    def broken(*given):
        raise RuntimeError("a capture is broken")

    retired = []
    monkeypatch.setattr(steps, "Recording", broken)
    monkeypatch.setattr(steps.workers, "retire", lambda: retired.append(1))
    with pytest.raises(RuntimeError, match=r"a training step of Sequential cannot be recorded: set \w+=off"):
        trained(True, SIZES)
    assert retired == [1]


def test_partial_batches_are_no_warm_up(device):
    trained(True, [2, 2, 2, 4, 4, 4])
    assert Played.made == 0
    trained(True, [2, 2, 2, 4, 4, 4, 4])
    assert Played.made == 1


def test_gradients_are_cut_to_their_length(device):
    computing = Steps(network(), RECIPE | {"clip_norm": 0.01}, "fp32", None, 1)
    computing.gradients(torch.randn(4, 3, 5, 5), torch.arange(4) % 3, None, 1)
    length = torch.stack([parameter.grad.norm() for parameter in computing.network.parameters()]).norm()
    assert length.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("switched", [None, "off"])
def test_who_records(device, monkeypatch, switched):
    if switched:
        monkeypatch.setenv(steps.SWITCH, switched)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: switched is not None))
    computing = Steps(network(), RECIPE, "fp32", None, 1)
    for left in range(2 * steps.LEAST_STEPS, steps.LEAST_STEPS, -1):
        computing.gradients(torch.randn(4, 3, 5, 5), torch.arange(4) % 3, None, left)
    assert Played.made == 0
