"""From files to a network's input: the same bits with and without torch, streams in order."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.data import preprocessing
from winnow.data.augmentation import normalise
from winnow.data.preprocessing import Form

SHARES = st.tuples(*[st.floats(0.01, 1)] * 3)


@given(SHARES, SHARES, st.integers(1, 9), st.integers(0, 4), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_numpy_and_torch_make_the_same_bits(mean, std, size, margin, seed):
    squares = np.random.default_rng(seed).integers(0, 256, (2, size + margin, size + margin, 3), dtype=np.uint8)
    by_numpy = preprocessing.network_input(squares, size, mean, std)
    by_torch = normalise(preprocessing.evaluation_view(torch.from_numpy(squares), size), mean, std)
    assert by_numpy.shape == (2, 3, size, size)
    assert by_numpy.dtype == np.float32
    assert by_numpy.tobytes() == by_torch.contiguous().numpy().tobytes()


def test_the_input_is_the_formula():
    squares = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 3), dtype=np.uint8)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    expected = (squares[0, 1:5, 1:5].astype(float) / 255 - mean) / std
    found = preprocessing.network_input(squares, 4, mean, std)[0]
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_is_decoded_in_order_with_reasons_and_few_at_a_time(threads):
    ahead, lock, begun, ended = 0, threading.Lock(), 0, 0

    def read(number):
        nonlocal begun, ahead
        with lock:
            begun += 1
            ahead = max(ahead, begun - ended)
        if number % 7 == 3:
            raise FileNotFoundError(2, "No such file or directory", str(number))
        return preprocessing.Image.new("RGB", (5, 5), (number, 0, 0))

    for expected, (number, result) in enumerate(preprocessing.decode_all(range(60), read, Form(4), threads)):
        ended += 1
        assert number == expected
        if number % 7 == 3:
            assert result == "No such file or directory"
        else:
            assert result[0].shape == (4, 4, 3)
            assert (result[0][..., 0] == number).all()
    assert ended == 60
    assert ahead <= 4 * threads


def test_the_steps_name_the_sizes_and_numbers_that_they_need():
    text = "\n".join(preprocessing.steps(Form(256), 224, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    for part in ("(512, 512)", "(256, 256)", "224 × 224", "[0.1, 0.2, 0.3]", "[0.4, 0.5, 0.6]", "(N, 3, 224, 224)"):
        assert part in text
