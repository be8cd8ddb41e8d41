"""The statistics pass's reductions on a GPU: every number of a map is read once.

Needs Triton, which comes with torch's wheels for CUDA, and the C compiler that Triton calls when it first meets a
device: import this module where its absence can be borne.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Positions that one program adds up: few enough to fill a GPU with programs, and enough that what they write is a small
# part of what they read. Far fewer than 2²⁴, so that a count in float32 is exact.
SPLIT = 256
# Numbers of a program's tile, and the most filters in it: of float32, two lines of 128 bytes.
TILE = 2048
COLUMNS = 64


@triton.jit(do_not_specialize=["positions", "images", "splits", "plane"])
def _reduce(
    maps,
    out,
    images,
    positions,
    filters,
    splits,
    image_stride,
    position_stride,
    filter_stride,
    plane,
    SPLIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # A program is of (image, split, block of filters), the blocks of a split one after another.
    program = tl.program_id(0)
    blocks = tl.cdiv(filters, COLUMNS)
    column = (program % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    split = (program // blocks) % splits
    image = program // blocks // splits
    inside = column < filters
    place = maps + image.to(tl.int64) * image_stride + column.to(tl.int64)[None, :] * filter_stride
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((ROWS, COLUMNS), tl.float32)
    positive = tl.zeros((ROWS, COLUMNS), tl.float32)
    # No number is negative.
    largest = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, SPLIT, ROWS):
        position = split * SPLIT + first + tl.arange(0, ROWS)
        mask = (position < positions)[:, None] & inside[None, :]
        a = tl.load(place + position.to(tl.int64)[:, None] * position_stride, mask=mask, other=0.0)
        total += a
        squares += a * a
        positive += tl.where(a > 0.0, 1.0, 0.0)
        largest = tl.maximum(largest, a)
    # (4, splits, images, filters), a plane for each sum.
    to = out + (split * images + image).to(tl.int64) * filters + column
    tl.store(to, tl.sum(total, 0), mask=inside)
    tl.store(to + plane, tl.sum(squares, 0), mask=inside)
    tl.store(to + 2 * plane, tl.sum(positive, 0), mask=inside)
    tl.store(to + 3 * plane, tl.max(largest, 0), mask=inside)


def reduce_rows(rows: torch.Tensor) -> torch.Tensor:
    """Σa, Σa², the count of a > 0 and max a over parts of the positions.

    Parameters
    ----------
    rows : (N, P, C) float32, not negative
        In memory of any order.

    Returns
    -------
    Tensor of (parts, N, 4, C) float32
    """
    images, positions, filters = rows.shape
    splits = triton.cdiv(positions, SPLIT)
    out = rows.new_empty((4, splits, images, filters))
    columns = max(16, min(COLUMNS, triton.next_power_of_2(filters)))
    grid = (images * splits * triton.cdiv(filters, columns),)
    _reduce[grid](
        *(rows, out, images, positions, filters, splits, *rows.stride(), out[0].numel()),
        SPLIT=SPLIT,
        ROWS=min(SPLIT, TILE // columns),
        COLUMNS=columns,
    )
    return out.permute(1, 2, 0, 3)
