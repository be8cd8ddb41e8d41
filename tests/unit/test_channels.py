"""The channel table of the VGG family: every slice that hangs on a filter, and nothing else."""

import functools

import numpy as np
import pytest

from winnow.networks import backbones, channels

WIDTHS = {"vgg11": [64, 128, 256, 256, 512, 512, 512, 512], "vgg_digits": [16, 16, 32, 32, 64, 64]}


@functools.cache
def table_of(architecture, head):
    network = backbones.build(architecture, head, 10)
    return network, channels.of(network).table.to_pylist()


def covered(rows, tensor, dimension):
    """Indices of a tensor's dimension that some unit owns, with repetition, and those units."""
    rows = [row for row in rows if (row["tensor"], row["dimension"]) == (tensor, dimension)]
    indices = [row["first"] + row["stride"] * step for row in rows for step in range(row["length"])]
    return indices, [row["unit"] for row in rows]


@pytest.mark.parametrize("architecture", ["vgg11", "vgg11_bn", "vgg_digits"])
def test_units_are_the_filters_in_network_order(architecture):
    _, rows = table_of(architecture, "gap")
    widths = WIDTHS[architecture.removesuffix("_bn")]
    units = {row["unit"]: (row["layer"], row["filter"]) for row in rows}
    assert sorted(units) == list(range(sum(widths)))
    names = [layer for layer, _ in (units[unit] for unit in sorted(units))]
    assert list(dict.fromkeys(names)) == sorted(set(names), key=lambda name: int(name.split(".")[1]))
    assert [names.count(name) for name in dict.fromkeys(names)] == widths
    assert [units[unit][1] for unit in sorted(units)] == [index for width in widths for index in range(width)]


@pytest.mark.parametrize("head", ["gap", "classifier"])
@pytest.mark.parametrize("architecture", ["vgg11", "vgg11_bn", "vgg_digits"])
def test_every_channel_of_every_tensor_belongs_to_exactly_one_unit(architecture, head):
    network, rows = table_of(architecture, head)
    fixed = {("features.0.weight", 1)}  # the image's colours
    for name, tensor in network.state_dict().items():
        for dimension in range(min(tensor.dim(), 2)):
            indices, _ = covered(rows, name, dimension)
            pruned = name.startswith("features") or (name, dimension) == ("classifier.0.weight", 1)
            if pruned and (name, dimension) not in fixed:
                assert sorted(indices) == list(range(tensor.shape[dimension])), (name, dimension)
            else:
                assert indices == [], (name, dimension)


@pytest.mark.parametrize(("head", "columns"), [("gap", 1), ("classifier", 49)])
def test_a_filter_of_the_last_layer_owns_its_columns_of_the_first_linear_layer(head, columns):
    _, rows = table_of("vgg11", head)
    indices, units = covered(rows, "classifier.0.weight", 1)
    assert units == list(range(sum(WIDTHS["vgg11"]) - 512, sum(WIDTHS["vgg11"])))
    # Flattening (C, 7, 7) puts a channel's positions next to each other.
    assert np.array_equal(np.reshape(indices, (512, columns)), np.arange(512 * columns).reshape(512, columns))


def test_a_filter_owns_its_row_bias_and_norm_and_its_slice_of_the_next_layer():
    _, rows = table_of("vgg11_bn", "gap")
    of_unit = [row for row in rows if row["unit"] == 64 + 5]  # filter 5 of the second layer
    norm = [("features.5." + name, 0) for name in ("weight", "bias", "running_mean", "running_var")]
    assert {(row["tensor"], row["dimension"]) for row in of_unit} == {
        ("features.4.weight", 0),
        ("features.4.bias", 0),
        *norm,
        ("features.8.weight", 1),
    }
    assert len(of_unit) == 7
    assert {(row["layer"], row["filter"], row["first"], row["length"], row["stride"]) for row in of_unit} == {
        ("features.4", 5, 5, 1, 1)
    }


@pytest.mark.parametrize(("architecture", "relu"), [("vgg16", 1), ("vgg16_bn", 2)])
def test_layers_name_the_relu_behind_them(architecture, relu):
    layers = channels.of(backbones.build(architecture, "gap", 10)).layers
    assert len(layers) == 13
    for layer in layers:
        assert layer.activation == f"features.{int(layer.layer.split('.')[1]) + relu}"
