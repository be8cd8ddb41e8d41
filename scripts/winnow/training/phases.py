"""Between two phases of a training: prune what the phase before has trained.

What is gone stays gone, and the last phase's mask keeps to the ratio as any other does. Cells of one phase have no use
for this module, and the digest of their code leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import torch

from winnow.importance import budgets, gradients, masks, passes, scores, statistics, sums
from winnow.importance.criteria import CRITERIA
from winnow.networks import surgery, units
from winnow.runtime.memory import in_smaller_parts
from winnow.training import cells, loop


def cut(
    network: torch.nn.Module,
    trained: loop.Training,
    before: cells.Before,
    ratio: Fraction,
    last: bool,
    bench: cells.Bench,
) -> tuple[torch.nn.Module, masks.Mask]:
    """Prune what a phase has trained, by what its filters do now.

    Parameters
    ----------
    network
        As it was trained, on the device. It is not to be trained any further.
    before
        With the mask that it has.
    ratio
        Share of the backbone's filters, or of a budget of what they cost, that is gone afterwards.
    last
        Whether no further phase prunes.

    Returns
    -------
    (network, mask)
        The network for the next phase, with the chosen epoch's weights, and all that is gone.
    """
    network.load_state_dict(trained.state)
    spec, backbone, prices = bench.arguments.spec, bench.backbone, bench.arguments.prices
    found = masks.mask(
        units.named(backbone.manifest["layers"], backbone.channels)[0],
        measured(network, before.kept, bench),
        spec["cell"]["scope"],
        ratio,
        spec["min_filters"],
        spec["cell"]["round_to"],
        gone=None if before.kept is None else ~before.kept,
        last=last,
        costs=prices and budgets.Costs.read(prices, backbone.channels),
    )
    if not bench.repairs:
        return surgery.cut(backbone, trained.state, found.keep, before.kept), found
    # Here, and not above: cells without repairs depend on none of it.
    from winnow.training import repair

    return repair.cut(network, trained.state, found.keep, before.kept, bench), found


def measured(network: torch.nn.Module, keep: np.ndarray | None, bench: cells.Bench) -> np.ndarray:
    """Every unit's score on a network in training, (units,); 0 for those that are gone.

    The network is measured as a backbone is (float32, evaluation transform, training images), its last layer being its
    own. It is not to be trained any further.
    """
    cell, manifest, store = bench.arguments.spec["cell"], bench.backbone.manifest, bench.store
    channels, device = bench.backbone.channels, bench.lease.device
    layers = scores.remaining(manifest["layers"], channels, keep)
    needs = CRITERIA[cell["criterion"]].needs
    classes = len(store.classes)

    def batches(batch: int) -> Iterator[passes.Batch]:
        return passes.batches_of(store, bench.split.rows("train"), manifest, device, batch)

    def activations(batch: int) -> sums.Sums:
        return statistics.measure(network, layers, batches(batch), classes)

    def of_gradients(batch: int) -> sums.Sums:
        return gradients.measure(network, layers, lambda: batches(batch), classes)

    network.eval()
    found = None
    if needs == "activations":
        batch = passes.batch_size(store.image_size, statistics.BATCH_BYTES[device])
        found, _ = in_smaller_parts(batch, activations)
    elif needs == "gradients":
        batch = passes.batch_size(store.image_size, gradients.BATCH_BYTES)
        found, _ = in_smaller_parts(batch, of_gradients)
    state = network.state_dict()
    _, score = scores.score(
        cell["criterion"],
        manifest["layers"],
        channels,
        lambda names: [state[name].cpu().numpy() for name in names],
        found,
        cell["seed"],
        keep,
    )
    return np.nan_to_num(score)
