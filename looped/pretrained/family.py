"""A family of models: how its configuration and its weights become ours."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from looped.model_config import ModelConfig


class Source(NamedTuple):
    """The tensors of a file that make one weight of ours, joined along the rows."""

    names: tuple[str, ...]
    change: Callable[..., Tensor] | None = None
    """Applied to each of them, such as a transposition. None: they are read as they are, a block of rows at a time."""
    together: bool = False
    """Whether `change` takes all of them at once instead, and returns the weight."""


Table = dict[str, Source]
"""By the name of a weight of ours."""


class Family(NamedTuple):
    """How to read the models of one architecture. Each file of `looped/pretrained/families/` describes one."""

    name: str
    model_types: tuple[str, ...]
    """The values of `model_type` in config.json."""
    config: Callable[[Mapping[str, Any]], ModelConfig]
    """From the content of config.json. Raises ValueError with the reason for what we cannot compute, and KeyError."""
    weights: Callable[[ModelConfig], Table]
    """All weights. If embeddings are tied, a file may lack that of `head.weight`."""
    prefix: str = ""
    """A prefix that all names may lack, because the file was saved from the model without its head."""
    ignored: str = r".*rotary_emb\.inv_freq"
    """A pattern of names that are no weights: buffers in files of older versions."""
    zero: str = ""
    """A pattern of names of tensors that have no place in our model, because they are zero in all published ones."""
    note: str = ""
    """A difference from the published program that its users should know, in one sentence."""


def rows(*names: str) -> Source:
    """Tensors that are joined along the rows."""
    return Source(names)


def transposed(name: str) -> Source:
    """A matrix that is stored as (inputs, outputs)."""
    return Source((name,), lambda tensor: tensor.mT)


def numbered(layer: Mapping[str, Source], ours: str, theirs: str, count: int) -> Table:
    """The table of `count` layers, from that of one.

    Args:
        layer: names within a layer.
        ours, theirs: what is before the number of a layer, such as "core" and "model.layers".
    """
    return {
        f"{ours}.{i}.{name}": source._replace(names=tuple(f"{theirs}.{i}.{part}" for part in source.names))
        for i in range(count)
        for name, source in layer.items()
    }
