"""Weights of every origin, fitted to the network that they are for: torchvision's, one's own as a training left them,
or pretrained here. Nothing in a file is ever run."""

from __future__ import annotations

import collections
import pickletools
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from winnow.files import InputError, first_line
from winnow.networks import backbones, published, zoo

# Of drawn weights, for a backbone that has nothing better.
RANDOM_SEED = 0
# Of a last layer whose weights are drawn. It is replaced in every cell.
CLASSES = 1000

# Where checkpoints keep a network, the averaged one before the last: both are there to be used, and that one answers
# better.
NETWORKS = (
    *("model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "params_ema", "ema"),
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module"),
)
# How files begin that are something else, and what they are.
_IMPOSTORS = (
    (b"<!doctype html", "a web page: what was downloaded was an error, or a form to log in"),
    (b"<html", "a web page: what was downloaded was an error, or a form to log in"),
    (b"<?xml", "XML, perhaps an error that was downloaded"),
    (b"version https://git-lfs", "a Git-LFS pointer and not the file that it stands for: fetch that with git lfs pull"),
    (b"\x89hdf", "an HDF5 file, as Keras writes them; needed are tensors of PyTorch"),
    (b"\x1f\x8b", "compressed with gzip: unpack it"),
)
# Names that a message has room for.
_NAMED = 5


class _Inert:
    """Stands for any object of a checkpoint that is no tensor: it takes whatever it is given, and does nothing."""

    def __new__(cls, *arguments: Any, **names: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **names: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_state(path: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """A network's tensors from a .safetensors file or a checkpoint, and what else is in the file, by name.

    A checkpoint is a state dict, or has one under one of the names in :data:`NETWORKS`. Nothing in it is run: whatever
    is no tensor becomes an object that does nothing.

    Raises
    ------
    InputError
        If there is no such file, or it is something else; the message says what.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    with open(path, "rb") as file:
        start = file.read(200).lstrip().lower()
    for begins, what in _IMPOSTORS:
        if start.startswith(begins):
            raise InputError(f"{path} is {what}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path), []
        foreign = _foreign(path)
        with torch.serialization.safe_globals([(_Inert, name) for name in foreign]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as a state dict: {first_line(error)}") from None
    except InputError:
        raise
    except Exception:  # torch's unpickler raises its own kinds, and says how to have code from the file run
        kinds = f", of the kinds {some(foreign)}" if foreign else ""
        raise InputError(
            f"{path} is damaged, or holds more than tensors{kinds}: save just the tensors, "
            "torch.save(model.state_dict(), …)"
        ) from None
    return _network(loaded, path)


def _foreign(path: Path) -> list[str]:
    """What a checkpoint names that is nothing of torch's.

    Raises
    ------
    InputError
        If it holds a network as an object, or as a program.
    """
    pickles = []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("/constants.pkl") for name in names):
                raise InputError(
                    f"{path} is a TorchScript archive, a network with its program, of which nothing is run: where it "
                    "was made, save its tensors, torch.save(model.state_dict(), …)"
                )
            pickles = [archive.read(name) for name in names if name.endswith("/data.pkl")]
    else:
        # As torch wrote them before 1.6: five pickles, one behind the other, and the tensors.
        pickles = [path.read_bytes()]
    named = list(dict.fromkeys(name for content in pickles for name in _globals(content)))
    if any(name.startswith("torch.nn.modules.") for name in named):
        kinds = [name for name in named if not name.startswith(("torch.", "collections.", "builtins.", "__builtin__."))]
        kinds = kinds or [name for name in named if name.startswith("torch.nn.modules.")]
        raise InputError(
            f"{path} is a whole model as Python objects ({some(kinds)}), of which nothing is run: where it was made, "
            "save its tensors, torch.save(model.state_dict(), …)"
        )
    return [name for name in named if not name.startswith(("torch.", "collections."))]


def _globals(content: bytes) -> list[str]:
    """The classes and functions that pickles name, as ``module.name``."""
    found: list[str] = []
    at = 0
    for _ in range(5):
        try:
            for code, argument, position in pickletools.genops(content[at:]):
                if code.name == "GLOBAL":
                    found.append(str(argument).replace(" ", "."))
                elif code.name == "STOP" and position is not None:
                    at += position + 1
        except (ValueError, IndexError):
            break
        if at >= len(content):
            break
    return found


def _network(loaded: Any, path: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The state dict within what a checkpoint holds, and the names of what is beside it."""
    left: list[str] = []
    while isinstance(loaded, Mapping):
        inner = next((name for name in NETWORKS if isinstance(loaded.get(name), Mapping) and loaded[name]), None)
        if inner is None:
            break
        left += [str(name) for name in loaded if name != inner]
        loaded = loaded[inner]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path} is not a state dict (a mapping of names to tensors)")
    state = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    left += [str(name) for name in loaded if str(name) not in state]
    if not state:
        raise InputError(f"{path} holds more than tensors, or none at all: it has {some(left) or 'nothing in it'}")
    return state, left


def fitted(architecture: str, head: str, state: dict[str, torch.Tensor]) -> tuple[nn.Module, list[str], list[str]]:
    """The architecture's network with a state dict's tensors.

    The features must be there, whole, under their names or all of them under one prefix, as trainers and compilers put
    it. The head may be missing, not be numbers, which is how torchvision publishes weights of the features alone, or
    be another one. Under the head ``gap`` those of another head are left out.

    Returns
    -------
    (network, drawn, left)
        The names of the tensors that the state lacks and that are drawn, and of those that it has and that are left.

    Raises
    ------
    InputError
        If a tensor of the features is missing, any has another shape, or one belongs nowhere; the first are named.
    """
    skeleton = backbones.build(architecture, head, 1)
    prefix = backbones.head_prefix(skeleton)
    # What timm makes with a network and writes to no file.
    made_with: frozenset[str] = getattr(skeleton, "made_with", frozenset())
    features = [name for name in skeleton.state_dict() if not name.startswith(prefix) and name not in made_with]
    wanted = skeleton.state_dict()
    state, left = _unprefixed(renamed(architecture, state, wanted), features)
    state = _as_convolutions(renamed(architecture, state, wanted), wanted)
    last = backbones.last_layer(skeleton)
    last_weight = f"{last}.weight"
    shapes = {name: tensor.shape for name, tensor in skeleton.state_dict().items()}
    of_this_head = last_weight in state and state[last_weight].shape[1:] == shapes[last_weight][1:]

    def of_no_use(name: str, tensor: torch.Tensor) -> bool:
        """Whether a tensor of the head is another head's, or no numbers."""
        if (head == "gap" and not of_this_head) or not bool(torch.isfinite(tensor).all()):
            return True
        if name.startswith(f"{last}."):
            return not of_this_head
        return name not in shapes or shapes[name] != tensor.shape

    dropped = [name for name, tensor in state.items() if name.startswith(prefix) and of_no_use(name, tensor)]
    left += [name for name in dropped if bool(torch.isfinite(state[name]).all())]
    state = {name: tensor for name, tensor in state.items() if name not in dropped}
    classes = state[last_weight].shape[0] if last_weight in state else CLASSES
    network = backbones.build(architecture, head, classes)
    wanted = network.state_dict()

    faults = []
    for name, tensor in wanted.items():
        if name not in state:
            # Batch norm's counter came late to torch; files that are older than it do not have it.
            known = name in made_with or name.endswith(".num_batches_tracked")
            if not name.startswith(prefix) and not known:
                faults.append(f"{name} needs shape {tuple(tensor.shape)}, found nothing of that name")
        elif state[name].shape != tensor.shape:
            faults.append(f"{name} needs shape {tuple(tensor.shape)}, found {tuple(state[name].shape)}")
        elif state[name].is_floating_point() != tensor.is_floating_point():
            faults.append(f"{name} needs {tensor.dtype}, found {state[name].dtype}")
        elif not torch.isfinite(state[name]).all():
            faults.append(f"{name} holds values that are not finite")
    faults += [f"{name} belongs to no layer of it" for name in state if name not in wanted]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(f"the weights do not fit {architecture} with the head {head}: {'; '.join(faults[:3])}{more}")

    missing = [name for name in wanted if name not in state]
    if missing:
        state = backbones.initialised(architecture, head, classes, RANDOM_SEED).state_dict() | state
    network.load_state_dict(state, assign=True)
    if any(buffer.is_meta for buffer in network.buffers()):
        raise InputError(f"{architecture} has buffers that no state dict carries: register them as persistent")
    return network, [name for name in missing if name.startswith(prefix)], left


def check_published(architecture: str, name: str, network: nn.Module, drawn: list[str], left: list[str]) -> None:
    """Hold what :func:`fitted` made of a file against the network that torchvision or timm publishes under this name:
    all of it, and nothing else.

    Raises
    ------
    InputError
        If a tensor was drawn or left out, or there are other classes; the first are named.
    """
    faults = [f"{each} is not in it" for each in drawn if name != published.FEATURES]
    faults += [f"{each} is nothing of it" for each in left]
    classes, wanted = backbones.classes(network), CLASSES
    publisher = published.publisher(architecture)
    if zoo.is_name(architecture):
        wanted = zoo.configuration(architecture, name).classes
    if classes != wanted:
        faults.append(f"it has {classes} classes, not {wanted}")
    if faults:
        raise InputError(f"the file is not {architecture}'s {name} as {publisher} publishes it: {some(faults)}")


def _as_convolutions(state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict in which linear layers' weights are those of convolutions of 1 × 1, where the network has these."""
    found = dict(state)
    for name, tensor in state.items():
        if name in wanted and tensor.dim() == 2 and wanted[name].shape[2:] == (1, 1):
            found[name] = tensor[:, :, None, None]
    return found


def _unprefixed(
    state: Mapping[str, torch.Tensor], features: Iterable[str]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of the one network in a state dict, less what is put before all their names, and the others' names.

    Raises
    ------
    InputError
        If there are two networks, and none is the average of the other.
    """
    wanted = set(features)
    found: collections.Counter[str] = collections.Counter()
    for name in state:
        parts = name.split(".")
        for at in range(len(parts)):
            if ".".join(parts[at:]) in wanted:
                found["".join(f"{part}." for part in parts[:at])] += 1
                break
    if not found:
        return dict(state), []
    most = max(found.values())
    prefixes = [prefix for prefix, count in found.items() if count == most]
    if len(prefixes) > 1:
        averages = [prefix for prefix in prefixes if "ema" in re.split(r"[._]", prefix.lower())]
        if len(averages) != 1:
            raise InputError(
                f"the file has more than one network, {' and '.join(repr(each) for each in prefixes)}: save one of them"
            )
        prefixes = averages
    (prefix,) = prefixes
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return own, [name for name in state if not name.startswith(prefix)]


def some(names: Iterable[str]) -> str:
    """Names as a message has room for."""
    names = list(names)
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def renamed(
    architecture: str, state: Mapping[str, torch.Tensor], wanted: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """A state dict as torchvision or timm publishes it, under the names of the architecture's network: ``wanted``."""
    if zoo.is_name(architecture):
        return zoo.renamed(state, wanted)
    dropped = backbones.AUXILIARY.get(architecture, ())
    state = {name: tensor for name, tensor in state.items() if not name.startswith(dropped)} if dropped else {**state}
    if architecture.startswith("densenet"):
        # The files are older than the names: norm.1 has become norm1.
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name): t for name, t in state.items()}
    return state
