"""Augmentation against an image-by-image reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.data.augmentation import boxes, crop, normalise
from winnow.data.preprocessing import evaluation_view


def images(count=3, size=12):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def reference(image, box, size):
    """Bilinear samples of one crop, pixel by pixel, clamped at the border."""
    x, y, width, height, flip = (float(value) for value in box)
    side = image.shape[0]
    result = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            u = x + flip * width * ((j + 0.5) / size - 0.5)
            v = y + height * ((i + 0.5) / size - 0.5)
            column, row = min(max(u * side - 0.5, 0), side - 1), min(max(v * side - 0.5, 0), side - 1)
            left, top = int(column), int(row)
            right, bottom = min(left + 1, side - 1), min(top + 1, side - 1)
            a, b = column - left, row - top
            result[i, j] = (1 - b) * ((1 - a) * image[top, left] + a * image[top, right]) + b * (
                (1 - a) * image[bottom, left] + a * image[bottom, right]
            )
    return result


@pytest.mark.parametrize("flip", [True, False, "both"])
@pytest.mark.parametrize("size", [7, 12, 16])
def test_crops_equal_the_reference(flip, size):
    augmentation = {"scale": [0.2, 1.0], "ratio": [0.5, 2.0], "flip": flip}
    batch = images(6)
    box = boxes(6, augmentation, np.random.default_rng(1))
    got = crop(batch, torch.from_numpy(box), size)
    expected = np.stack([reference(image.numpy().astype(float), b, size) for image, b in zip(batch, box, strict=True)])
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-2)
    assert got.is_contiguous()


def test_the_whole_image_is_itself_and_its_mirror():
    batch = images(2)
    whole = torch.tensor([[0.5, 0.5, 1, 1, 1], [0.5, 0.5, 1, 1, -1]])
    got = crop(batch, whole, 12)
    torch.testing.assert_close(got[0], batch[0].float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(got[1], batch[1].flip(1).float(), atol=1e-3, rtol=0)
    upside_down = crop(batch, torch.tensor([[0.5, 0.5, 1, -1, 1]] * 2), 12)
    torch.testing.assert_close(upside_down, batch.flip(1).float(), atol=1e-3, rtol=0)


@given(
    st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted),
    st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)).map(sorted),
    st.integers(0, 100),
)
@settings(max_examples=60)
def test_crops_lie_in_the_image_and_have_the_asked_area(scale, ratio, seed):
    augmentation = {"scale": scale, "ratio": ratio, "flip": False}
    x, y, width, height, _ = boxes(50, augmentation, np.random.default_rng(seed)).T.astype(np.float64)
    for centre, side in ((x, width), (y, height)):
        assert (centre - side / 2 >= -1e-6).all()
        assert (centre + side / 2 <= 1 + 1e-6).all()
    whole = (width < 1) & (height < 1)
    assert (width * height <= scale[1] + 1e-5).all()
    assert (width * height)[whole].min(initial=1) >= scale[0] - 1e-5
    assert ((width / height)[whole] >= ratio[0] - 1e-4).all()
    assert ((width / height)[whole] <= ratio[1] + 1e-4).all()


def test_half_of_the_images_are_mirrored():
    flips = boxes(4000, {"scale": [0.5, 1], "ratio": [1, 1], "flip": True}, np.random.default_rng(0))[:, 4]
    assert abs((flips < 0).mean() - 0.5) < 0.03
    assert set(flips.tolist()) == {-1.0, 1.0}


def test_top_to_bottom_is_mirrored_apart_and_leaves_the_rest_as_it_was():
    drawn = {
        flip: boxes(4000, {"scale": [0.5, 1], "ratio": [1, 1], "flip": flip}, np.random.default_rng(0))
        for flip in (True, "both")
    }
    assert np.array_equal(np.abs(drawn["both"]), np.abs(drawn[True]))
    assert (drawn[True][:, 3] > 0).all()
    quarters = np.unique(np.sign(drawn["both"][:, 3:]), axis=0, return_counts=True)[1]
    assert quarters.shape == (4,)
    assert (np.abs(quarters / 4000 - 0.25) < 0.03).all()


def test_the_evaluation_view_is_the_exact_centre():
    batch = images(2, 10)
    assert torch.equal(evaluation_view(batch, 6), batch[:, 2:8, 2:8])
    assert torch.equal(evaluation_view(batch, 10), batch)


def test_normalisation_is_the_formula_in_channels_last_memory():
    batch, mean, std = images(2), [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    got = normalise(batch, mean, std)
    expected = (batch.permute(0, 3, 1, 2) / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert got.is_contiguous(memory_format=torch.channels_last)
