"""Tests of models in `transformers`, if it is installed."""

from collections.abc import Iterator

import jaxtyping
import pytest

pytest.importorskip("transformers")

from transformers import logging

logging.disable_progress_bar()
logging.set_verbosity_error()


@pytest.fixture
def untyped() -> Iterator[None]:
    """No check of shapes, which takes most of the time of a tiny model."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
