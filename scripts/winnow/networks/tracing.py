"""What a network computes, step by step: which step is a filter's activation, and watching steps as they run."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Collection, Mapping

import torch
import torch.nn.functional as F
from torch import fx, nn
from torchvision.models.feature_extraction import NodePathTracer
from torchvision.ops import StochasticDepth

from winnow.files import InputError, first_line

# What a layer's "function" may say. Of the outputs of RECTIFIERS a zero means that the filter is silent; GATES scale
# other filters' outputs and are nobody's activation.
RECTIFIERS = ("relu", "relu6")
GATES = ("sigmoid", "hardsigmoid")
NONE = "none"
_NONLINEARITIES = (
    *RECTIFIERS,
    *GATES,
    *("silu", "hardswish", "gelu", "elu", "leaky_relu", "mish", "prelu", "selu", "softplus", "tanh"),
)
# Modules whose names in lower case are not their functions'.
_MODULES = {"leakyrelu": "leaky_relu"}
# A layer is one step, whoever's class it is of.
_LAYERS = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
# An activation is looked for behind these: they keep a filter's outputs in its channel.
_PASSED_MODULES = (nn.modules.batchnorm._BatchNorm, nn.Identity, nn.Dropout, nn.Dropout2d, StochasticDepth)
_PASSED_FUNCTIONS = (operator.add, operator.iadd, torch.add, F.dropout, F.batch_norm)


@dataclasses.dataclass(frozen=True)
class Activation:
    """The step that is a filter's output, and its function: a nonlinearity's name, or ``none``."""

    step: str
    function: str


class _Tracer(NodePathTracer):  # type: ignore[misc]  # torchvision has no types
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LAYERS) or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> tuple[fx.GraphModule, dict[fx.Node, str]]:
    """A network as a graph of its steps, and their names: that of the module with, from its second call on, a number.

    Raises
    ------
    InputError
        If the steps depend on the values that flow through them.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(network)
    except (fx.proxy.TraceError, TypeError) as error:
        raise InputError(
            f"{type(network).__name__} cannot be traced, its forward pass is no fixed sequence of steps: "
            f"{first_line(error)}"
        ) from None
    return fx.GraphModule(network, graph), dict(tracer.node_to_qualname)


def activations(network: nn.Module) -> dict[str, list[Activation]]:
    """Each convolution's activation, one for each time that it is called, in the order of the calls.

    It is the nonlinearity that the convolution's output goes into, perhaps after batch norm and the sum with a
    residual. Where there is none before the output goes into anything else, or into more than one step, it is the
    output itself, after batch norm and sum, with the function ``none``.
    """
    module, names = trace(network)
    modules = dict(network.named_modules())
    found: dict[str, list[Activation]] = {}
    for node in module.graph.nodes:
        if node.op == "call_module" and isinstance(modules[node.target], nn.Conv2d):
            found.setdefault(node.target, []).append(_activation(node, modules, names))
    return found


def _activation(node: fx.Node, modules: Mapping[str, nn.Module], names: Mapping[fx.Node, str]) -> Activation:
    while len(node.users) == 1:
        user = next(iter(node.users))
        function = _function(user, modules)
        if function in _NONLINEARITIES:
            return Activation(names[user], function)
        part = modules.get(str(user.target)) if user.op == "call_module" else None
        if not isinstance(part, _PASSED_MODULES) and user.target not in (*_PASSED_FUNCTIONS, "add", "add_"):
            break
        node = user
    return Activation(names[node], NONE)


def _function(node: fx.Node, modules: Mapping[str, nn.Module]) -> str | None:
    if callable(node.target):
        return node.target.__name__.removesuffix("_")
    if node.op == "call_module":
        name = type(modules[node.target]).__name__.lower()
        return _MODULES.get(name, name)
    return node.target.removesuffix("_") if node.op == "call_method" else None


def linear_pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Linear layers, each called once, of which the second alone takes what the first gives, number by number."""
    module, _ = trace(network)
    modules = dict(network.named_modules())
    targets = [node.target for node in module.graph.nodes if node.op == "call_module"]

    def is_linear(node: fx.Node) -> bool:
        called = node.op == "call_module" and targets.count(node.target) == 1
        return called and isinstance(modules[node.target], nn.Linear)

    def keeps_apart(node: fx.Node) -> bool:
        if node.op == "call_module" and isinstance(modules[node.target], nn.Dropout | nn.Identity):
            return True
        function = _function(node, modules)
        return node.target is F.dropout or (function in _NONLINEARITIES and function != "prelu")

    found = []
    for node in filter(is_linear, module.graph.nodes):
        after = node
        while len(after.users) == 1 and (after is node or keeps_apart(after)):
            after = next(iter(after.users))
        if after is not node and is_linear(after):
            found.append((node.target, after.target))
    return found


class Watch(fx.Interpreter):
    """A network that shows what some of its steps gave, as soon as they gave it.

    Parameters
    ----------
    network
        On any device.
    steps
        Names of steps.
    show
        Called with a step's name and output.
    whole
        Whether all steps run, or those up to the last of ``steps``.

    Raises
    ------
    InputError
        If the network has no such step.
    """

    def __init__(
        self,
        network: nn.Module,
        steps: Collection[str],
        show: Callable[[str, torch.Tensor], None],
        whole: bool = False,
    ) -> None:
        module, names = trace(network)
        super().__init__(module)
        self.show = show
        self.watched = {node: names[node] for node in module.graph.nodes if names.get(node) in set(steps)}
        absent = set(steps) - set(self.watched.values())
        if absent:
            raise InputError(f"the network has no step {sorted(absent)[0]!r}: its backbone is of another network")
        self.last = None if whole else list(self.watched)[-1]

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if n in self.watched:
            self.show(self.watched[n], result)
        if n is self.last:
            raise _Done
        return result

    def __call__(self, images: torch.Tensor) -> torch.Tensor | None:
        """Run the steps on images (N, 3, H, W). The network's answer, if all of them ran."""
        try:
            return self.run(images)
        except _Done:
            # An interpreter keeps what its steps gave until it has come to its end.
            self.env = {}
            return None


class _Done(Exception):
    """The last step of interest has been seen: the rest of the network need not run."""
