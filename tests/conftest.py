"""Shapes and types of the whole library are checked while the tests run."""

from collections.abc import Iterator

import pytest
import torch
from jaxtyping import install_import_hook

hook = install_import_hook("looped", "beartype.beartype")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices only wait for a second thread, and bits depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
