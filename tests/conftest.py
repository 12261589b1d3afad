"""Shapes and types of the whole library are checked while the tests run."""

import os
from collections.abc import Iterator

import pytest
import torch
from jaxtyping import install_import_hook

# One thread here and in child processes: tiny matrices only wait for a second one, and bits depend on the number.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

hook = install_import_hook("looped", "beartype.beartype")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices only wait for a second thread, and bits depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
