"""Statistics as they are kept: what is written comes back, and what is damaged is named by whoever reads it."""

import numpy as np
import pytest

from winnow.files import InputError, read_json
from winnow.importance import criteria, sums

from .fabricated import activations_of, table_of

LAYERS = {"a": 7, "b": 1, "c.d": 12}
SPEC = {"dataset": "d", "code": "0"}


@pytest.fixture
def written(tmp_path):
    made = activations_of(LAYERS, 9)
    made.images[4] = 0
    sums.write(tmp_path / "activations.json", made, SPEC)
    return made, tmp_path / "activations.json"


def test_what_is_written_comes_back_and_the_manifest_says_what_it_is_of(written):
    made, path = written
    found = sums.read(path, "activations")
    assert (found.kind, found.images.tolist(), found.layers) == (made.kind, made.images.tolist(), made.layers)
    for name, array in made.arrays.items():
        assert found.arrays[name].dtype == (np.int64 if name.endswith("zeros") else np.float64)
        np.testing.assert_array_equal(found.arrays[name], array)
    assert read_json(path)["spec"] == SPEC
    assert sorted(each.name for each in path.parent.iterdir()) == ["activations.json", "activations.npz"]


@pytest.mark.parametrize("classes", [None, [2], [0, 3, 8]])
def test_over_classes_adds_up_what_a_table_of_rows_would_bit_for_bit(written, classes):
    found = sums.read(written[1], "activations")
    rows = table_of(found)
    if classes is not None:
        rows = rows[rows["class"].isin(classes)]
    for layer, filters in LAYERS.items():
        merged = found.over_classes(layer, filters, classes)
        assert list(merged) == ["images", "positions", "sum", "sum_sq", "zeros", "max"]
        part = rows[rows["layer"] == layer]
        for name in ("images", "sum", "sum_sq", "zeros"):
            np.testing.assert_array_equal(merged[name], np.bincount(part["filter"], weights=part[name]))
        for name in ("positions", "max"):
            np.testing.assert_array_equal(merged[name], part.groupby("filter")[name].max())
        assert {merged[name].dtype for name in merged} == {np.dtype(np.float64)}


def test_what_a_layer_or_a_mapping_does_not_have_is_an_error(written):
    found = sums.read(written[1], "activations")
    with pytest.raises(KeyError):
        found.over_classes("a", 7)["mean"]
    with pytest.raises(InputError, match="know 0 filters of layer z, the backbone has 7"):
        found.over_classes("z", 7)


def flip(path, array):
    """Change a byte of one array in the file."""
    content = bytearray(path.read_bytes())
    content[content.index(array.tobytes()) + 11] ^= 4
    path.write_bytes(content)


def test_a_changed_byte_is_named_by_whoever_reads_it_and_by_nobody_else(written):
    made, path = written
    arrays = path.with_suffix(".npz")
    flip(arrays, made.of("c.d", "zeros"))
    merged = sums.read(path, "activations").over_classes("c.d", 12)
    assert criteria.mean_activation(merged).shape == (12,)
    with pytest.raises(InputError, match=r"activations\.npz cannot be read \(Bad CRC-32 for file 'c\.d\.zeros\.npy'\)"):
        criteria.apoz(merged)


@pytest.mark.parametrize("cut", [1, 100, 10_000_000])
def test_arrays_that_were_cut_short_are_named(written, cut):
    arrays = written[1].with_suffix(".npz")
    content = arrays.read_bytes()
    arrays.write_bytes(content[: max(0, len(content) - cut)])
    with pytest.raises(InputError, match=r"activations\.npz cannot be read"):
        sums.read(written[1], "activations")


def test_a_missing_file_one_of_another_kind_and_arrays_of_another_pass_are_named(written, tmp_path):
    path = written[1]
    with pytest.raises(InputError, match=r"activations\.json is not a manifest of gradients"):
        sums.read(path, "gradients")
    sums.write(tmp_path / "other" / "activations.json", activations_of(LAYERS, 9, seed=1), SPEC)
    arrays = path.with_suffix(".npz")
    arrays.write_bytes((tmp_path / "other" / "activations.npz").read_bytes())
    with pytest.raises(InputError, match=r"activations\.npz is not what .*activations\.json speaks of"):
        sums.read(path, "activations")
    arrays.unlink()
    with pytest.raises(InputError, match=r"activations\.npz does not exist"):
        sums.read(path, "activations")
    path.unlink()
    with pytest.raises(InputError, match=r"activations\.json does not exist"):
        sums.read(path, "activations")
