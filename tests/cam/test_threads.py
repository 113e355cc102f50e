"""A block that works alone gives the threads back."""

from __future__ import annotations

import pytest
import torch

from camserve.cam.threads import alone


@pytest.fixture
def two():
    """Two threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_alone_then_as_before(two):
    with alone():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_a_block_that_fails_gives_them_back_too(two):
    with pytest.raises(ValueError, match="broken"), alone():
        raise ValueError("broken")
    assert torch.get_num_threads() == 2
