"""A training comes out the same, bit for bit, each time that it runs on a device, and after an interruption."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch.backends import cudnn


@contextlib.contextmanager
def reproducible() -> Iterator[None]:
    """None of cuDNN's algorithms that add up in the order in which threads come by, nor a choice by the clock.

    Precision, and with it TF32, stays as it is. Whatever else adds up on a GPU in a training does so in a fixed order:
    cuBLAS where one stream uses it; pooling where memory is channels last; the augmentation, which has no backward.
    """
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
