"""The channel table of any network, from torch-pruning's dependency graph: which filters must go together, and what
hangs on them.

Filters whose outputs are added up, or scale one another, go together: they are one unit. The graph says which; whether
it is right is then tried out, in double precision and with drawn weights: a network that lost units must answer as the
one in which nothing listens to them. What fails stays whole, and is named with the reason.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
import torch_pruning
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency import index_mapping
from torch_pruning.ops import OPTYPE

from winnow.files import InputError, first_line
from winnow.networks import backbones, surgery, tracing
from winnow.tables import SCHEMAS

# Sides of the image that the graph is derived with: the first that the network takes.
IMAGE_SIZES = (64, 96, 224, 32, 28, 8)
HIDDEN = 64
TOLERANCE = 1e-9  # of the largest logit, in double precision

OUTPUT = "its outputs are the network's"
REUSED = "{} is used more than once"
UNUSED = "it is not used"
UNKNOWN = "{} depends on it, a {}"
INEXACT = "removing a filter would change what others give: they are normalised or rearranged together"
SHAPES = "the network does not run without some of its filters: its shapes are fixed"


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A convolution whose filters all stay, and why."""

    layer: str
    reason: str


@dataclasses.dataclass(frozen=True)
class _Slot:
    """Indices along one dimension of one tensor: here a channel can be cut out."""

    tensor: str
    dimension: int


@dataclasses.dataclass
class _Hold:
    """What hangs on one convolution's filters: for each slot (filter, index) pairs; and why they cannot go, if so."""

    pairs: dict[_Slot, tuple[np.ndarray, np.ndarray]]
    reason: str | None = None

    def add(self, slot: _Slot, pair: tuple[np.ndarray, np.ndarray]) -> None:
        filters, indices = self.pairs.get(slot, (np.empty(0, int), np.empty(0, int)))
        self.pairs[slot] = np.concatenate([filters, pair[0]]), np.concatenate([indices, pair[1]])


def derive(
    network: nn.Module, activations: dict[str, list[tracing.Activation]]
) -> tuple[pa.Table, list[str], list[LeftOut]]:
    """The channel table of a network.

    Parameters
    ----------
    network
        It is not changed; it may lie on the meta device.
    activations
        Of its convolutions: see :func:`winnow.networks.tracing.activations`.

    Returns
    -------
    (channels, layers, left out)
        A table of the schema "channels"; the convolutions whose filters are the units' members, in network order; those
        that are not pruned.

    Raises
    ------
    InputError
        If no filter can go.
    """
    network = drawn(narrowed(network))
    image = example(network)
    order = {name: position for position, name in enumerate(activations)}
    holds = _holds(network, image, activations)
    unused = [name for name, part in network.named_modules() if isinstance(part, nn.Conv2d) and name not in order]
    left_out = dict.fromkeys(unused, UNUSED)

    nodes, groups = _components(network, holds, order)
    sound = []
    for group in groups:
        reason = next((holds[layer].reason for layer in group if holds[layer].reason), None)
        if reason is None:
            sound.append(group)
        else:
            left_out |= {layer: holds[layer].reason or reason for layer in group}
    # What scales the outputs of others goes with them, but is no filter whose outputs say what they are worth.
    scaling = {name for name, calls in activations.items() if calls[0].function in tracing.GATES}
    gates = {name for group in sound if not scaling.issuperset(group) for name in scaling.intersection(group)}
    wrong: dict[str, str] = {}

    def search(part: list[tuple[str, ...]]) -> None:
        """Find the groups that cannot go, halving what holds any."""
        problem = _difference(network, image, _table(nodes, part, gates, order))
        if problem and len(part) == 1:
            wrong.update(dict.fromkeys(part[0], problem))
        elif problem:
            search(part[: len(part) // 2])
            search(part[len(part) // 2 :])

    search(sound)
    sound = [group for group in sound if group[0] not in wrong]
    left_out |= wrong
    table = _table(nodes, sound, gates, order)
    if wrong and _difference(network, image, table):
        raise InputError(f"the filters of {type(network).__name__} cannot be removed without changing one another")
    named = [LeftOut(layer, left_out[layer]) for layer in [*order, *unused] if layer in left_out]
    if not table.num_rows:
        layers: dict[str, list[str]] = {}
        for each in named[:3]:
            layers.setdefault(each.reason, []).append(each.layer)
        reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in layers.items())
        raise InputError(f"{type(network).__name__} has no filter that can be removed: {reasons}")
    members = set(table["layer"].unique().to_pylist())
    return table, [layer for layer in order if layer in members], named


def _skeleton(network: nn.Module) -> nn.Module:
    """A copy on the meta device: shapes without values, which are not copied on the way."""
    memo: dict[int, object] = {id(tensor): tensor.to("meta") for tensor in network.buffers()}
    memo |= {id(tensor): nn.Parameter(tensor.detach().to("meta")) for tensor in network.parameters()}
    return copy.deepcopy(network, memo)


def narrowed(network: nn.Module) -> nn.Module:
    """A copy on the meta device with at most :data:`HIDDEN` outputs of linear layers that linear layers alone hear.

    No filter hangs on these, and most of a VGG's numbers are theirs: its table comes from an eighth of its weights.
    """
    copied = _skeleton(network)
    for first, second in tracing.linear_pairs(copied):
        into, out = copied.get_submodule(first), copied.get_submodule(second)
        assert isinstance(into, nn.Linear)
        assert isinstance(out, nn.Linear)
        into.out_features = out.in_features = min(into.out_features, HIDDEN)
        into.weight = nn.Parameter(into.weight.detach()[: into.out_features])
        out.weight = nn.Parameter(out.weight.detach()[:, : into.out_features])
        if into.bias is not None:
            into.bias = nn.Parameter(into.bias.detach()[: into.out_features])
    return copied


def drawn(network: nn.Module) -> nn.Module:
    """A copy in double precision and eval mode, its tensors drawn so that no channel is like another or silent.

    Raises
    ------
    InputError
        If the network takes no plain state dict.
    """
    generator = torch.Generator().manual_seed(0)
    copied = _skeleton(network).double().to_empty(device="cpu").eval()
    for name, tensor in copied.state_dict(keep_vars=True).items():
        tensor = tensor.detach()
        if not tensor.is_floating_point():
            tensor.zero_()
        elif sum(size > 1 for size in tensor.shape) > 1:
            tensor.normal_(0, math.prod(tensor.shape[1:]) ** -0.5, generator=generator)
        elif name.endswith("bias") or name.endswith("running_mean"):
            tensor.normal_(0, 0.1, generator=generator)
        else:
            tensor.uniform_(0.5, 1.5, generator=generator)
    try:
        copied.load_state_dict(dict(copied.state_dict()))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{type(network).__name__} does not load its own tensors: {first_line(error)}") from None
    return copied.requires_grad_()


def example(network: nn.Module) -> torch.Tensor:
    """An image of the first of :data:`IMAGE_SIZES` that the network takes."""
    for size in IMAGE_SIZES:
        shape = 1, backbones.input_channels(network), size, size
        image = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        try:
            with torch.inference_mode():
                answer = network(image)
        except (RuntimeError, ValueError, AssertionError) as error:  # as networks say that a size is wrong
            last = error
            continue
        if isinstance(answer, torch.Tensor) and answer.dim() == 2:
            return image
        raise InputError(f"{type(network).__name__} gives no logits of shape (images, classes)")
    raise InputError(f"{type(network).__name__} takes no image of {IMAGE_SIZES} pixels: {first_line(last)}")


@contextlib.contextmanager
def _lenient() -> Iterator[None]:
    """Let the graph be built where torch-pruning stumbles over a step that rearranges channels.

    Such a step then counts as one that leaves them where they are. Where that is wrong it is found out: all that the
    graph says is tried.
    """

    def lenient(update: Callable[..., None]) -> Callable[..., None]:
        def updated(*arguments: object) -> None:
            with contextlib.suppress(TypeError, ZeroDivisionError):
                update(*arguments)

        return updated

    with contextlib.ExitStack() as stack:
        for name in ("update_reshape_index_mapping", "update_concat_index_mapping"):
            stack.enter_context(mock.patch.object(index_mapping, name, lenient(getattr(index_mapping, name))))
        yield


@_lenient()
def _holds(
    network: nn.Module, image: torch.Tensor, activations: dict[str, list[tracing.Activation]]
) -> dict[str, _Hold]:
    """What hangs on each convolution, by name."""
    graph = torch_pruning.DependencyGraph()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph.build_dependency(network, image, verbose=False)
    except Exception as error:  # of any kind: it stumbles over what it does not know
        raise InputError(
            f"{type(network).__name__} is not covered by torch-pruning's graph: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from None
    state, found = network.state_dict(), {}
    widest = max(size for tensor in state.values() for size in tensor.shape)
    for name in activations:
        convolution = network.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        found[name] = hold = _Hold({})
        try:
            reached = _reached(graph, convolution, widest)
        except Exception as error:
            hold.reason = f"torch-pruning's graph does not cover it: {type(error).__name__}: {first_line(error)}"
            continue
        for node, outputs, pair in reached:
            slots, reason = _slots(graph, node, outputs, activations)
            hold.reason = hold.reason or reason
            if _groups(node.module) and not outputs:
                pair = _heard_by(node.module, *pair)
            for slot in slots:
                if pair[1].max() >= state[slot.tensor].shape[slot.dimension]:
                    hold.reason = hold.reason or SHAPES
                    continue
                hold.add(slot, pair)
        if _groups(convolution):
            every = np.arange(convolution.out_channels)
            each = convolution.out_channels // convolution.groups
            hold.add(_Slot(f"{name}.weight", 0), (every - every % each, every))
    return found


def _reached(
    graph: torch_pruning.DependencyGraph, convolution: nn.Conv2d, widest: int
) -> list[tuple[torch_pruning.dependency.Node, bool, tuple[np.ndarray, np.ndarray]]]:
    """What hangs on a convolution's filters: node, whether its outputs, and pairs of filter and index.

    As ``graph.get_pruning_group`` says, which compares all with all. Here an index is followed from once, for the
    filter that comes to it first; others that come there hang together with that one.
    """
    depthwise = convolution.groups == convolution.out_channels > 1
    prune = torch_pruning.prune_depthwise_conv_out_channels if depthwise else torch_pruning.prune_conv_out_channels
    root = graph.module2node[convolution]
    every = [_HybridIndex(index, index) for index in range(convolution.out_channels)]
    seen = {(root, prune): {each.idx: each.root_idx for each in every}}
    left, met = [(root, prune, every)], {(each.root_idx, each.root_idx) for each in every}
    while left:
        node, by, indices = left.pop()
        for dependency in node.dependencies:
            if not dependency.is_triggered_by(by):
                continue
            there = indices
            for mapping in filter(None, dependency.index_mapping):
                there = mapping(there)
            known, new = seen.setdefault((dependency.target, dependency.handler), {}), []
            # Round a loop that it takes for a stretching one it would count for ever.
            if max((each.idx for each in there), default=0) >= widest:
                raise IndexError("channels are rearranged in a way that it does not follow")
            for each in there:
                if each.idx not in known:
                    known[each.idx] = each.root_idx
                    new.append(each)
                else:
                    met.add((known[each.idx], each.root_idx))
            if new:
                left.append((dependency.target, dependency.handler, new))
    found = [(key, known.items()) for key, known in seen.items() if known] + [((root, prune), met)]
    return [(node, graph.is_out_channel_pruning_fn(by), _columns(pairs)) for (node, by), pairs in found]


def _columns(pairs: Iterable[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of index and filter as filters and indices."""
    indices, filters = np.array([*pairs]).T
    return filters, indices


def _groups(part: object) -> bool:
    """Whether a part is a convolution of groups that hear, or give, more than one channel: it loses whole groups."""
    return isinstance(part, nn.Conv2d) and part.groups > 1 and not part.groups == part.in_channels == part.out_channels


def _heard_by(part: nn.Conv2d, roots: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A root's pairs with inputs of a convolution of groups, as pairs with the outputs that hear them."""
    each = part.out_channels // part.groups
    outputs = (inputs // (part.in_channels // part.groups) * each)[:, None] + np.arange(each)
    return np.repeat(roots, each), outputs.ravel()


def _slots(
    graph: torch_pruning.DependencyGraph,
    node: torch_pruning.dependency.Node,
    outputs: bool,
    activations: dict[str, list[tracing.Activation]],
) -> tuple[list[_Slot], str | None]:
    """The slots of one node of the graph, and why they cannot be cut, if so."""
    part, name = node.module, graph._module2name.get(node.module)
    if isinstance(part, nn.Conv2d):
        if len(activations.get(name, [])) > 1:
            return [], REUSED.format(name)
        tensors = [_Slot(f"{name}.weight", int(not (outputs or part.groups > 1)))]
        if part.bias is not None and tensors[0].dimension == 0:
            tensors.append(_Slot(f"{name}.bias", 0))
        return tensors, None
    if isinstance(part, nn.Linear):
        bias = [_Slot(f"{name}.bias", 0)] if outputs and part.bias is not None else []
        return [_Slot(f"{name}.weight", int(not outputs)), *bias], None
    if isinstance(part, nn.LayerNorm):
        return [], INEXACT
    if isinstance(part, _BatchNorm):
        own: list[tuple[str, torch.Tensor]] = [*part.named_parameters(), *part.named_buffers()]
        return [_Slot(f"{name}.{tensor}", value.dim() - 1) for tensor, value in own if value.dim()], None
    if node.type == OPTYPE.PARAMETER:
        return [_Slot(graph._param_to_name[part], node.pruning_dim)], None
    if node.type == OPTYPE.OUTPUT:
        return [], OUTPUT
    return [], UNKNOWN.format(name, type(part).__name__) if list(part.parameters()) else None


@dataclasses.dataclass(frozen=True)
class _Nodes:
    """Every index of every slot, with the unit that it belongs to: numbers that mean nothing yet.

    Along ``apart`` each index is a channel; elsewhere neighbours may be one channel's.
    """

    slots: dict[_Slot, np.ndarray]
    apart: set[_Slot]


def _components(
    network: nn.Module, holds: dict[str, _Hold], order: dict[str, int]
) -> tuple[_Nodes, list[tuple[str, ...]]]:
    """Which indices go together, and which convolutions have filters that do: in network order."""
    state = network.state_dict()
    held = {slot for hold in holds.values() for slot in hold.pairs} | {_Slot(f"{name}.weight", 0) for name in holds}
    slots = sorted(held, key=lambda slot: (slot.tensor, slot.dimension))
    sizes = [state[slot.tensor].shape[slot.dimension] for slot in slots]
    starts = dict(zip(slots, np.concatenate([[0], np.cumsum(sizes)]).tolist(), strict=False))
    edges = [(np.empty(0, int), np.empty(0, int))] + [
        (starts[_Slot(f"{name}.weight", 0)] + pair[0], starts[slot] + pair[1])
        for name, hold in holds.items()
        for slot, pair in hold.pairs.items()
    ]
    one, other = (np.concatenate(side) for side in zip(*edges, strict=True))
    total = sum(sizes)
    _, labels = connected_components(coo_array((np.ones(one.size), (one, other)), (total, total)), directed=False)
    nodes = {slot: labels[starts[slot] : starts[slot] + size] for slot, size in zip(slots, sizes, strict=True)}

    # Convolutions that share a unit, by the same means: a convolution is coupled with its filters' units.
    rows = [(position, nodes[_Slot(f"{name}.weight", 0)]) for name, position in order.items()]
    layer = np.concatenate([np.full(labels.size, position) for position, labels in rows])
    unit = np.concatenate([labels for _, labels in rows]) + len(order)
    size = total + len(order)
    _, coupled = connected_components(coo_array((np.ones(unit.size), (layer, unit)), (size, size)), directed=False)
    groups: dict[int, list[str]] = {}
    for name, position in order.items():
        groups.setdefault(coupled[position], []).append(name)
    return _Nodes(nodes, {slot for slot in nodes if state[slot.tensor].dim() == 4}), [
        tuple(group) for group in groups.values()
    ]


def _table(nodes: _Nodes, groups: Sequence[Sequence[str]], gates: set[str], order: dict[str, int]) -> pa.Table:
    """The channel table of some groups of convolutions.

    Units are numbered by their first member in network order. A member's own weights and bias are its rows; all that is
    nobody's alone is the first member's.
    """
    members = sorted((name for group in groups for name in group if name not in gates), key=order.__getitem__)
    size = 1 + max(labels.max() for labels in nodes.slots.values())
    unit, first_layer, first_filter = (np.full(size, -1) for _ in range(3))
    count = 0
    for name in members:
        labels = nodes.slots[_Slot(f"{name}.weight", 0)]
        new, index = np.unique(labels, return_index=True)
        new, index = new[unit[new] < 0], index[unit[new] < 0]
        ranked = np.argsort(index)
        unit[new[ranked]] = count + np.arange(new.size)
        first_layer[new], first_filter[new] = order[name], index
        count += new.size

    parts = []
    slots = list(nodes.slots)
    for number, slot in enumerate(slots):
        labels, layer = nodes.slots[slot], slot.tensor.rpartition(".")[0]
        if layer in members and slot.dimension == 0:
            starts = np.flatnonzero(unit[labels] >= 0)
            of_layer, of_filter, lengths = np.full(starts.size, order[layer]), starts, np.ones(starts.size, int)
        else:
            changes = (labels[1:] != labels[:-1]) | (slot in nodes.apart)
            starts = np.flatnonzero(np.concatenate([[True], changes]))
            lengths = np.diff(np.concatenate([starts, [labels.size]]))
            lengths, starts = lengths[unit[labels[starts]] >= 0], starts[unit[labels[starts]] >= 0]
            of_layer, of_filter = first_layer[labels[starts]], first_filter[labels[starts]]
        constant = np.full((2, starts.size), [[number], [slot.dimension]])
        parts.append(np.stack([unit[labels[starts]], of_layer, of_filter, *constant, starts, lengths]))
    rows = np.concatenate(parts, axis=1)
    # By unit, its first member first, that member's own weights before what hangs on them.
    rows = rows[:, np.lexsort((rows[5], rows[3], rows[4], rows[1], rows[0]))]
    names = pa.array(list(order)), pa.array([slot.tensor for slot in slots])
    columns = [rows[0], names[0].take(rows[1]), rows[2], names[1].take(rows[3]), *rows[4:], np.ones_like(rows[0])]
    return pa.table(dict(zip(SCHEMAS["channels"].names, columns, strict=True)), schema=SCHEMAS["channels"])


def _difference(network: nn.Module, image: torch.Tensor, table: pa.Table) -> str | None:
    """What goes wrong when some units of a table are removed; None if nothing does."""
    if not table.num_rows:
        return None
    units = table["unit"].to_numpy()
    layer_of = np.empty(units.max() + 1, dtype=object)
    layer_of[units[::-1]] = table["layer"].to_numpy(zero_copy_only=False)[::-1]  # the first row's is the first member's
    keep = np.random.default_rng(0).random(layer_of.size) > 0.4
    for layer in set(layer_of):
        keep[np.flatnonzero(layer_of == layer)[0]] = True
    state = network.state_dict()
    # Nothing listens to a unit whose columns of the next layers' weights are zero.
    inputs = table.filter((table["dimension"].to_numpy() == 1) & ~keep[units]).to_pandas()
    unheard = dict(state)
    for name, rows in inputs.groupby("tensor"):
        columns = [
            np.arange(first, first + length) for first, length in zip(rows["first"], rows["length"], strict=True)
        ]
        unheard[name] = state[name].index_fill(1, torch.from_numpy(np.concatenate(columns)), 0)
    try:
        sliced = surgery.slice_state(state, table, keep)
        smaller = surgery.resize(_skeleton(network), {name: part.shape for name, part in sliced.items()})
        with torch.inference_mode():
            expected = torch.func.functional_call(network, unheard, (image,))
            smaller.load_state_dict(sliced, assign=True)
            found = smaller(image)
    except (RuntimeError, ValueError, IndexError):
        return SHAPES
    return None if (found - expected).abs().max() <= TOLERANCE * expected.abs().max() else INEXACT
