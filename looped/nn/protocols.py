"""Interfaces between the parts of a looped model. Your own part can take the place of any of ours.

A block is anything that is called as `block(x, context)`. It may use all, some or nothing of the context.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looped.nn.graphs import SharedGraph
from looped.nn.positions import Rotation

Section = Literal["prelude", "core", "coda"]


@runtime_checkable
class KVSlot(Protocol):
    """The keys and values that one layer attends to in one loop, besides or instead of its own."""

    computes: bool
    """Whether the layer computes keys and values in this loop (`write`); otherwise it only reads."""

    def write(self, new: Float[Tensor, "two batch heads new head_dim"]) -> Float[Tensor, "two batch heads keys d"]:
        """Store keys and values of the current tokens (stacked); returns those of all tokens to attend to."""
        ...

    def read(self) -> Float[Tensor, "two batch heads keys d"]:
        """The stored keys and values of all tokens to attend to."""
        ...

    def part(self, i: int, parts: int) -> "KVSlot":
        """The slot of part i among equal `parts` of the heads, for a block that attends several times in a loop."""
        ...


@runtime_checkable
class KVStore(Protocol):
    """Keeps keys and values between tokens (`Cache`), or between the loops of one pass."""

    def slot(self, section: Section, layer: int, t: int) -> KVSlot:
        """The slot of a layer in loop t = 0, 1, ..."""
        ...


class Context(NamedTuple):
    """All that a block may use besides its input. The model makes one for every block and loop."""

    mask: Bool[Tensor, "#batch 1 #seq keys"] | None = None
    """True if a query (third axis) may attend to a key (fourth axis); None allows every pair."""
    rotary: Rotation | None = None
    """Cosines and sines of the rotary angles of the current positions."""
    modulation: Mapping[str, Float[Tensor, " d_model"]] = {}
    """Vectors for this layer in this loop, by name, such as `attention_scale`."""
    kv: KVSlot | None = None
    """Keys and values that are shared with other tokens or loops; None means the current tokens alone."""
    loop: int = 0
    """The timestep t = 0 .. num_loops-1; 0 in the prelude. In the coda, the loop that is decoded, which is the last
    one of the whole batch after an early exit."""
    embedded: Float[Tensor, "batch seq d_model"] | None = None
    """Output of the prelude, which an injection may add to the state. None inside the prelude."""
    position_embedding: Float[Tensor, "*batch seq d_model"] | None = None
    """Vectors of the positions, if the model adds such."""
    graphs: Mapping[str, Float[Tensor, "batch seq seq"] | SharedGraph] = {}
    """Matrices by name, which came with the input or which all inputs share. Row i holds the factors of the tokens that
    token i sums."""


@runtime_checkable
class Block(Protocol):
    """One layer, called as `block(x, context)`; input and output are (batch, seq, d_model).

    Three optional attributes say what else the block supports:

    - `modulation_names`: names of the modulation that it reads from `context.modulation`. A model refuses a
      modulation that a core block does not read.
    - `kv_shape`: (heads, head_dim) of the keys and values that it passes through `context.kv`. A block without this
      attribute cannot be cached. A block that looks at one token at a time has (0, 0); a convolution does not.
    - `graph_heads`: names of the matrices that it reads from `context.graphs`.
    """

    def __call__(self, x: Tensor, context: Context, /) -> Tensor: ...


@runtime_checkable
class Modulation(Protocol):
    """Vectors that depend on the loop index, for every layer of the core."""

    @property
    def names(self) -> Sequence[Sequence[str]]:
        """For each core layer, the names under which it finds its vectors in `context.modulation`."""
        ...

    def __call__(self, num_loops: int, device: torch.device, /) -> Float[Tensor, "loops rows d_model"]:
        """The vectors of all loops at once. The rows follow `names`, layer after layer.

        An optional attribute `max_loops` limits num_loops. An optional attribute `uses_fraction` says that loop t
        also depends on num_loops.
        """
        ...


@runtime_checkable
class Injection(Protocol):
    """How the embedded input enters the loop."""

    adds_positions: bool
    """Whether it adds `context.position_embedding` in every loop, which the embedding then does not contain."""

    def initial(self, embedded: Float[Tensor, "batch seq d_model"], /) -> Float[Tensor, "batch seq d_model"]:
        """The state before the first loop."""
        ...

    def __call__(self, state: Tensor, context: Context, /) -> Tensor:
        """The input of the core in one loop; both are (batch, seq, d_model)."""
        ...


def modulation_names(block: Any) -> Sequence[str]:
    """The modulation that a block reads; ValueError if it is one string instead of a tuple."""
    names = getattr(block, "modulation_names", ())
    if isinstance(names, str):
        raise ValueError(f"{type(block).__name__}.modulation_names={names!r}: expected a tuple of names")
    return names


def graph_heads(block: Any) -> Sequence[str]:
    """The names of the graphs that a block reads from `context.graphs`."""
    return getattr(block, "graph_heads", ())


def kv_shape(block: Any) -> tuple[int, int] | None:
    """(heads, head_dim) of a block's keys and values; None if the block cannot be cached."""
    return getattr(block, "kv_shape", None)
