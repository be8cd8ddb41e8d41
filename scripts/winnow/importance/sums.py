"""Statistics as they are kept: sums over images and positions, an array (classes, filters) for each layer and sum; of
moments, which are not told apart by class, the arrays of :func:`winnow.importance.moments.measure`.

They lie in two files: ``{name}.npz`` with the arrays ``{layer}.{sum}``, uncompressed, of which a reader reads what it
asks for; and ``{name}.json``, which says what they are of and has their digest. Any criterion, subset of classes or
number of images is a query over them.
"""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from winnow.files import InputError, atomic_path, file_digest, first_line, read_json, write_json

# Which sums there are of each kind of statistics.
SUMS = {
    # Of a(n, i, j) >= 0, the output after the ReLU, over the images and positions of a class.
    # sum: Σa, sum_sq: Σa², max: the largest a, 0 where there is no image; float64. zeros: how many a are 0; int64.
    "activations": ("sum", "sum_sq", "zeros", "max"),
    # sum: over the images of a class, |Σ a · ∂loss/∂a|, the inner sum over the positions; float64.
    "gradients": ("sum",),
    # gram, outputs: see winnow.importance.moments; float64.
    "moments": ("gram", "outputs"),
}


class OverClasses(Mapping[str, np.ndarray]):
    """A layer's sums over all classes, (filters,) each: made, and what they are made from read, when asked for."""

    def __init__(self, make: Callable[[str], np.ndarray], names: Sequence[str]):
        self._make, self._names = make, names

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Summed(TypedDict):
    """A layer of which something was added up.

    Of its outputs, class by class: how many ``filters`` it has, ``activation``, the step that was looked at, and
    ``positions``, the height × width of its map. Of moments: their ``kind``, how many ``channels``, and the ``map``'s
    height and width, see :func:`winnow.importance.moments.measure`.
    """

    layer: str
    filters: NotRequired[int]
    activation: NotRequired[str]
    positions: NotRequired[int]
    kind: NotRequired[str]
    channels: NotRequired[int]
    map: NotRequired[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Sums:
    """Statistics of a network's filters on a data set's images.

    Attributes
    ----------
    kind : str
        A key of :data:`SUMS`.
    images : (classes,) int64
        How many there are of each class.
    layers : list of Summed
        In network order.
    arrays : mapping
        ``{layer}.{sum}`` → (classes, filters).
    path : Path or None
        The manifest that they were read by.
    """

    kind: str
    images: np.ndarray
    layers: list[Summed]
    arrays: Mapping[str, np.ndarray]
    path: Path | None = None

    def of(self, layer: str, name: str) -> np.ndarray:
        """One sum of one layer, (classes, filters).

        Raises
        ------
        InputError
            If it is not what was written.
        """
        try:
            return self.arrays[f"{layer}.{name}"]
        except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
            raise InputError(_damaged(self.path, error)) from None

    def over_classes(self, layer: str, filters: int, classes: Sequence[int] | None = None) -> OverClasses:
        """One layer's statistics over classes, as criteria want them.

        Parameters
        ----------
        layer, filters
            Its name and how many filters the network has of it.
        classes
            Which ones; None for all.

        Returns
        -------
        mapping
            Name → (filters,) float64: ``images``, ``positions`` and the sums; of ``max`` the largest.

        Raises
        ------
        InputError
            If the statistics are of another network, or were measured on no image.
        """
        nothing: Summed = {"layer": layer, "filters": 0, "positions": 0}
        known = next((each for each in self.layers if each["layer"] == layer), nothing)
        if known["filters"] != filters:
            raise InputError(
                f"the statistics know {known['filters']} filters of layer {layer}, the backbone has {filters}: "
                "they were measured on another network"
            )
        chosen = np.arange(self.images.size) if classes is None else np.asarray(classes)
        images = self.images[chosen].sum()
        if not images:
            raise InputError(f"the statistics of layer {layer} were measured on no image: is the training split empty?")

        positions = known["positions"]

        def make(name: str) -> np.ndarray:
            if name in ("images", "positions"):
                return np.full(filters, images if name == "images" else positions, dtype=np.float64)
            array = self.of(layer, name)
            rows = (array[number] for number in chosen)
            # Class after class, so that last bits do not depend on how many filters there are.
            return functools.reduce(np.maximum if name == "max" else np.add, rows).astype(np.float64)

        return OverClasses(make, ("images", "positions", *SUMS[self.kind]))


def write(path: Path, sums: Sums, spec: dict[str, Any]) -> None:
    """Write statistics: the arrays beside ``path`` and last, at ``path``, the manifest, with what made them."""
    arrays = path.with_suffix(".npz")
    with atomic_path(arrays) as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, **sums.arrays)  # type: ignore[arg-type]  # the stubs take any for allow_pickle
        manifest = {
            "kind": sums.kind,
            "images": sums.images.tolist(),
            "layers": sums.layers,
            "arrays_sha256": file_digest(temporary),
            "arrays_bytes": temporary.stat().st_size,
            "arrays_crc32": _checksums(temporary),
            "spec": spec,
        }
    write_json(path, manifest)


def read(path: Path, kind: str) -> Sums:
    """Open the statistics that :func:`write` wrote; each array is read, and held against its checksum, when asked for.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another kind, or the two are not of one pass; the message names it.
    """
    manifest = read_json(path)
    arrays = path.with_suffix(".npz")
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        raise InputError(f"{path} is not a manifest of {kind}: delete it and run again to make it anew")
    try:
        checksums, opened = _checksums(arrays), np.load(arrays, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{arrays} does not exist") from None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise InputError(_damaged(path, error)) from None
    if checksums != manifest["arrays_crc32"]:
        raise InputError(f"{arrays} is not what {path} speaks of: delete both and run again to make them anew")
    return Sums(kind, np.array(manifest["images"], dtype=np.int64), manifest["layers"], opened, path)


def _checksums(arrays: Path) -> dict[str, int]:
    """CRC-32 of each array, as the file says it: of its directory's few bytes, without reading the arrays."""
    with zipfile.ZipFile(arrays) as file:
        return {member.filename.removesuffix(".npy"): member.CRC for member in file.infolist()}


def _damaged(path: Path | None, error: Exception) -> str:
    arrays = path and path.with_suffix(".npz")
    return f"{arrays} cannot be read ({first_line(error)}): delete it and run again to make it anew"
