"""A last layer for the data set's classes: the features that it is fitted to, and how it comes into the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import torch
from torch import nn

from winnow.files import InputError
from winnow.importance.passes import Batch, full_float32
from winnow.networks.backbones import last_layer

Batches = Callable[[], Iterable[Batch]]


@dataclasses.dataclass(frozen=True)
class Features:
    """What a network gives its last layer on images of some classes.

    Attributes
    ----------
    x : (N, D)
        Where the last layer is a convolution they are means over the positions.
    y : (N,) int64
        Places in ``known``.
    known : (K,) int64
        The classes that have images, at least two.
    spread : (D,) float64
        The standard deviation of each feature over images and positions.
    longest : Tensor
        The largest length of what the last layer hears at a position.
    """

    x: torch.Tensor
    y: torch.Tensor
    known: torch.Tensor
    spread: torch.Tensor
    longest: torch.Tensor


def features(network: nn.Module, batches: Batches, progress: Callable[[int], None] = lambda images: None) -> Features:
    """Run a network, in eval mode, over batches, and keep the inputs of its last layer.

    Raises
    ------
    InputError
        If there are images of fewer than two classes, or features are not finite.
    """
    name = last_layer(network)
    found, labels, squares, lengths = [], [], [], []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        vectors = inputs[0].flatten(2) if inputs[0].dim() == 4 else inputs[0][..., None]
        found.append(vectors.mean(2, dtype=torch.float64).to(vectors.dtype))
        vectors = vectors.double()
        squares.append(vectors.square().mean(2).sum(0))
        lengths.append(vectors.norm(dim=1).max())

    hook = network.get_submodule(name).register_forward_pre_hook(keep)
    try:
        with torch.inference_mode(), full_float32():
            for images, classes_of_images in batches():
                network(images)
                labels.append(classes_of_images)
                progress(images.shape[0])
    finally:
        hook.remove()
    known, y = torch.cat(labels or [torch.empty(0)]).unique(return_inverse=True)
    if known.numel() < 2:
        raise InputError(f"a gradient needs training images of at least two classes, there are {known.numel()}")
    x = torch.cat(found)
    # Each batch's share is of no more use, and they are as large as what is made from them.
    found.clear()
    if not x.isfinite().all():
        raise InputError(
            f"inputs of the last layer, {name}, are not finite numbers: "
            "check the backbone's weights and its mean and std"
        )
    spread = (torch.stack(squares).sum(0) / x.shape[0] - x.mean(0, dtype=torch.float64) ** 2).clamp(min=0).sqrt()
    return Features(x, y, known.long(), spread, torch.stack(lengths).max())


def put(
    network: nn.Module, known: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, classes: int, absent: float
) -> None:
    """Put a last layer in place of the network's own, linear or a convolution of one position as that one is.

    Parameters
    ----------
    known : (K,) int64
        The classes that ``weight``, (K, D), and ``bias``, (K,), are of.
    classes
        Number of classes.
    absent
        The bias of those that are not known; their weights are 0.

    Raises
    ------
    InputError
        If the last layer looks at more than one position.
    """
    name = last_layer(network)
    last, device = network.get_submodule(name), weight.device
    if isinstance(last, nn.Conv2d):
        if last.kernel_size != (1, 1):
            raise InputError(f"the last layer, {name}, looks at more than one position: no last layer can be fitted")
        layer: nn.Module = nn.Conv2d(weight.shape[1], classes, 1, device=device)
        weight = weight[:, :, None, None]
    else:
        layer = nn.Linear(weight.shape[1], classes, device=device)
    weights = torch.zeros(classes, *weight.shape[1:], device=device)
    biases = torch.full((classes,), float(absent), device=device)
    weights[known], biases[known] = weight.float(), bias.float()
    layer.load_state_dict({"weight": weights, "bias": biases})
    network.set_submodule(name, layer.requires_grad_(False).to(next(network.parameters())))
