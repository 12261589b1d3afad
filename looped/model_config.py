"""The configuration of a model. `looped.config` has the configuration of a run, and imports this one."""

from dataclasses import fields
from typing import Any, Literal

from looped.strict import check, forbid_unused, frozen, positive

EQUAL_LOOPS = {
    "modulation": ("none", "rezero"), "core_tied": ("all",), "lora_rank": (0,), "layer_order": ("cycle",),
    "cache": ("all",),
}  # fmt: skip
"""The options with which all loops are the same function of the state."""
MAX_LAYERS = 10_000
"""More layers are refused in each part of a model, because to build them would take minutes. One layer can loop."""


@frozen
class ModelConfig:
    """The sizes and options of a looped transformer: prelude layers, a core applied `num_loops` times, coda layers."""

    inputs: Literal["tokens", "vectors"] = "tokens"
    """Type of the input at a position: an integer token or a real vector."""
    vocab_size: int | None = None
    """Number of input tokens; None takes the task's."""
    input_dim: int | None = None
    """Width of an input vector (inputs=vectors); None takes the task's."""
    output_size: int | None = None
    """Number of outputs per position; None takes the task's."""
    max_seq_len: int | None = None
    """Longest sequence, in positions; None takes the task's."""
    causal: bool = False
    """Whether a position attends only to itself and earlier positions."""
    d_model: int = 256
    num_heads: int = 4
    """Heads that compare queries with keys; 0 leaves the graph heads alone."""
    num_kv_heads: int | None = None
    """Heads of keys and values. Equal numbers of query heads share one (grouped-query attention: Ainslie et al., 2023).
    None is num_heads."""
    d_head: int | None = None
    """Width of an attention head; None is d_model / num_heads."""
    graph_heads: tuple[str, ...] = ()
    """Further heads in every layer. Each multiplies its values by the matrix of this name, which comes with the input
    (graph heads: Back de Luca & Fountoulakis, 2024), such as the edges of a graph, or which the task gives
    (`Task.graphs`), such as the cells in one row of a board."""
    d_ff: int | None = None
    """Width of the feed-forward layer; None is 4 * d_model."""
    embedding_dim: int | None = None
    """Width of the embedding; None is d_model. Another width factorises it (ALBERT: Lan et al., 2020): a linear layer
    widens the embedding to d_model, and before the output another one narrows the state, followed by the activation
    and the final norm."""
    embedding_scale: float = 1.0
    """Factor on the embedding, before positions are added."""
    prelude_layers: int = 0
    """Layers before the loop."""
    core_layers: int = 1
    """Layers inside the loop. A standard transformer of L layers is core_layers=L, num_loops=1."""
    coda_layers: int = 0
    """Layers after the loop."""
    num_loops: int = 1
    """Number of times that the core is applied, unless a call gives another number."""
    layer_order: Literal["cycle", "sequence", "reverse"] = "cycle"
    """Order of the core's layers, such as A and B in two loops (Takase & Kiyono, 2021). cycle: A B A B. sequence:
    A A B B, which has a readable state after the last loop only. reverse: A B B A, inverted in the last loop."""
    core_tied: Literal["all", "attention", "feedforward"] = "all"
    """The weights that a core layer shares between loops (ALBERT, 2020). The others have a copy for each loop, so the
    model runs at most `num_loops` loops."""
    lora_rank: int = 0
    """Rank of a change of each matrix of the core for each loop, which then also has norms and biases of its own (Bae
    et al., 2025). 0 shares everything."""
    norm: Literal["rms", "layer", "none"] = "rms"
    norm_place: Literal["before", "after", "branch", "before_branch", "before_after"] = "before"
    """before: each sublayer reads the normalised state, x + f(norm(x)). after: the sum is normalised, norm(x + f(x)),
    as in the original transformer (Vaswani et al., 2017). branch: the output of a sublayer is normalised,
    x + norm(f(x)) (OLMo 2). before_branch: x + norm(f(norm(x))) (Ouro). before_after: norm(x + f(norm(x))) (Huginn)."""
    norm_epsilon: float = 1e-5
    """Added to the mean square, or to the variance, before the root of a norm."""
    norm_gain: bool = True
    """Whether the norms inside the layers have a learned gain, and the norm of both states of inner_loops."""
    final_norm: Literal["rms", "layer", "none"] | None = None
    """Norm before the output, always with a learned gain. None is the same kind as `norm`, or none with
    norm_place=after or before_after and without embedding_dim, because the state is then normalised already."""
    coda_norm: bool = False
    """Whether the final norm is applied before the coda too, with the same weights (Huginn)."""
    loop_norm: bool = False
    """Whether the final norm is applied after every loop instead of once; with inner_loops, to each state after every
    update."""
    embedding_norm: bool = False
    """Whether a LayerNorm follows the embedding (published for edit distance and LCS)."""
    feedforward_norm: bool = True
    """False feeds the raw state to the feed-forward layer (published language-model baseline)."""
    values: Literal["normalised", "state"] = "normalised"
    """Input of the attention values: the normalised state, or the raw state (published language-model baseline)."""
    attention: Literal["softmax", "hardmax", "linear"] = "softmax"
    """Map from scores to attention weights. softmax; hardmax: the limit of softmax for large scores (ties averaged);
    linear: the scores themselves."""
    qk_norm: Literal["none", "head", "full"] = "none"
    """RMSNorm of queries and keys, before a rotation: over each head (Qwen 3), or over all heads together (OLMo 2)."""
    gated_attention: bool = False
    """Whether the heads' outputs are multiplied by sigmoid(W x) of the same input (HRM-Text)."""
    activation: Literal["gelu", "gelu_tanh", "silu", "relu", "swiglu"] = "gelu"
    bias: bool = False
    """Whether linear layers, LayerNorms and the output have a bias."""
    qkv_bias: bool | None = None
    """Whether queries, keys and values have one (Qwen 2); None is `bias`."""
    positions: Literal["learned", "sinusoidal", "rotary", "none"] = "learned"
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies theta^(-2k / d_head)."""
    rope_factor: float = 1.0
    """The rotary frequencies are divided by this number, for longer sequences than in training."""
    rope_bands: tuple[float, ...] = ()
    """Llama 3: (low, high, length). Frequencies with more than `high` turns in `length` positions are not divided,
    those with less than `low` turns are divided, and those between are interpolated. Empty divides all."""
    positions_every_loop: bool = False
    """Whether positions are added again before every loop instead of once at the input."""
    input_injection: Literal["none", "add", "concat"] = "none"
    """How the embedded input is combined with the state in each loop. none: the loop only starts from it."""
    initial_state: Literal["zero", "input"] = "zero"
    """The state before the first loop with an input injection: zero, or the embedded input, as without injection."""
    inner_loops: int | None = None
    """None: one state. A number: in each loop the core updates a latent state so many times, and then once an answer
    state, which is read out (TRM: Jolicoeur-Martineau, 2025). With input_injection=add both start from zero; without,
    the answer starts from the embedded input (HRM-Text)."""
    latent_layers: int = 0
    """Layers that update the latent state (HRM: Wang et al., 2025). With 0 the core layers update both states."""
    modulation: Literal["none", "additive", "scale_gate", "adaln_zero", "table", "rezero"] = "none"
    """How the loop index acts on the core. additive: a sinusoid is added to the state (Universal Transformer).
    scale_gate: scales and gates (TMLT, the paper's model). adaln_zero: scales, gates and shifts (DiT). table: a learned
    table of scales and gates. rezero: one learned scalar gate for each sublayer, independent of the index (ReZero)."""
    gate_offset: Literal[0, 1] = 0
    """Value of the gate at initialisation: 0 (published, the layer is the identity) or 1 (as without modulation)."""
    timestep: Literal["index", "fraction", "both"] = "index"
    """Input of the modulation: t, t / num_loops, or both."""
    max_loops: int | None = None
    """Number of rows of the learned table (modulation=table)."""
    cache: Literal["all", "first"] = "all"
    """The loops with keys and values of their own. all: every loop. first: only the first `cache_loops` loops; later
    loops attend to the keys and values of the last of these, so the cache is smaller."""
    cache_loops: int | None = None
    """Number of loops with keys and values of their own (cache=first); None is 1."""
    halting: Literal["none", "gate", "act"] = "none"
    """Learned halting. gate: a probability of exiting after each loop (PonderNet, 2021). act: adaptive computation time
    (Graves, 2016), whose output is a weighted mean of the states. Causal models halt per token, others per sequence."""
    tie_embeddings: bool = False
    """Whether the output matrix is the transposed token embedding."""
    initialisation: Literal["gpt2", "pytorch", "in_context"] = "gpt2"
    """gpt2: N(0, 0.02), residual projections divided by sqrt(2 * depth). pytorch: PyTorch's defaults. in_context: gpt2
    between an embedding and an output with PyTorch's defaults, and in a modulation too (published in-context code)."""
    initialisation_depth: int | None = None
    """The depth in that formula; None is the effective depth. The public code uses a constant 12."""

    def __post_init__(self) -> None:
        positive(
            self, "vocab_size", "input_dim", "output_size", "max_seq_len", "d_model", "d_head",
            "d_ff", "core_layers", "num_loops", "max_loops", "initialisation_depth", "cache_loops", "inner_loops",
            "num_kv_heads", "embedding_dim",
        )  # fmt: skip
        for name in ("prelude_layers", "core_layers", "coda_layers", "latent_layers"):
            check(
                0 <= getattr(self, name) <= MAX_LAYERS, name, getattr(self, name), f"at least 0, at most {MAX_LAYERS}"
            )
        least = "at least 1, or 0 beside graph_heads and d_head"
        alone = self.num_heads == 0 and bool(self.graph_heads) and self.d_head is not None
        check(self.num_heads >= 1 or alone, "num_heads", self.num_heads, least)
        divides = self.d_head is not None or self.d_model % self.num_heads == 0
        check(divides, "num_heads", self.num_heads, f"a divisor of d_model={self.d_model}, or d_head beside it")
        groups = self.num_kv_heads is None or (self.num_heads > 0 and self.num_heads % self.num_kv_heads == 0)
        check(groups, "num_kv_heads", self.num_kv_heads, f"a divisor of num_heads={self.num_heads}")
        names = self.graph_heads
        check(all(names) and len({*names}) == len(names), "graph_heads", names, "different names")
        even = self.positions == "sinusoidal" or self.modulation == "additive"
        check(not even or self.d_model % 2 == 0, "d_model", self.d_model, "an even number for sinusoids")
        if self.embedding_dim is not None:
            even = self.positions != "sinusoidal" or self.embedding_dim % 2 == 0
            check(even, "embedding_dim", self.embedding_dim, "an even number for sinusoids")
            for name in ("loop_norm", "coda_norm", "positions_every_loop", "halting", "inner_loops"):
                value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
                check(value == default, name, value, f"{default!r} with embedding_dim, whose output is narrower")
        rotary = self.positions == "rotary"
        check(not rotary or self.head_dim % 2 == 0, "d_model", self.d_model, "an even width of a head for rotary")
        if self.inputs == "tokens":
            forbid_unused(self, "inputs='tokens'", "input_dim")
        else:
            forbid_unused(self, "inputs='vectors'", "vocab_size", "tie_embeddings")
        if self.norm == "none":
            forbid_unused(self, "norm='none'", "norm_gain", "norm_place", "feedforward_norm", "values")
        if self.norm_place != "before":
            forbid_unused(self, f"norm_place={self.norm_place!r}", "feedforward_norm", "values")
        if self.last_norm == "none":
            forbid_unused(self, "there is no final norm", "loop_norm", "coda_norm")
            if self.norm == "none" and not self.embedding_norm and self.qk_norm == "none":
                forbid_unused(self, "there is no norm", "norm_epsilon")
        check(self.norm_epsilon > 0, "norm_epsilon", self.norm_epsilon, "above 0")
        if self.coda_layers == 0:
            forbid_unused(self, "coda_layers=0", "coda_norm")
        if self.loop_norm:
            forbid_unused(self, "loop_norm=True", "coda_norm")
        if self.num_heads == 0:
            forbid_unused(self, "num_heads=0", "qk_norm", "gated_attention", "qkv_bias")
        self._check_rope()
        if self.positions in ("rotary", "none"):
            forbid_unused(self, f"positions={self.positions!r}", "positions_every_loop")
        if self.modulation in ("none", "additive"):
            forbid_unused(self, f"modulation={self.modulation!r}", "gate_offset")
        if self.modulation not in ("scale_gate", "adaln_zero", "additive"):
            forbid_unused(self, f"modulation={self.modulation!r}", "timestep")
        both = self.timestep == "both" and self.modulation == "additive"
        check(not both, "timestep", self.timestep, "index or fraction with modulation='additive', one sinusoid")
        if self.modulation == "table":
            check(self.max_loops is not None, "max_loops", None, "the table's number of loops")
            check(self.num_loops <= (self.max_loops or 0), "num_loops", self.num_loops, f"<= {self.max_loops}")
        else:
            forbid_unused(self, f"modulation={self.modulation!r}", "max_loops")
        check(0 <= self.lora_rank <= self.d_model, "lora_rank", self.lora_rank, f"0 to d_model={self.d_model}")
        if self.num_loops == 1:
            forbid_unused(self, "num_loops=1", "core_tied", "lora_rank")
        if self.core_tied != "all":
            forbid_unused(self, f"core_tied={self.core_tied!r}", "lora_rank")
        if self.core_layers == 1:
            forbid_unused(self, "core_layers=1", "layer_order")
        if self.layer_order != "cycle":
            self._check_order()
        if self.cache == "all":
            forbid_unused(self, "cache='all'", "cache_loops")
        if self.input_injection == "none":
            forbid_unused(self, "input_injection='none'", "initial_state")
        if self.inner_loops is None:
            forbid_unused(self, "inner_loops=None", "latent_layers")
        else:
            injection = self.input_injection
            check(injection != "concat", "input_injection", injection, "add or none with inner_loops")
            unused = ("modulation", "coda_layers", "cache", "positions_every_loop", "layer_order",
                      "initial_state")  # fmt: skip
            forbid_unused(self, "there are inner_loops", *unused)
        if self.tie_embeddings and self.vocab_size and self.output_size:
            check(
                self.vocab_size == self.output_size, "output_size", self.output_size, "vocab_size when embeddings tie"
            )
        if self.initialisation == "pytorch":
            forbid_unused(self, "initialisation='pytorch'", "initialisation_depth")

    def _check_rope(self) -> None:
        """Raise ValueError for rotary settings that are out of range or have no effect."""
        if self.positions != "rotary":
            forbid_unused(self, f"positions={self.positions!r}", "rope_theta", "rope_factor", "rope_bands")
        if self.rope_factor == 1:
            forbid_unused(self, "rope_factor=1", "rope_bands")
        for name in ("rope_theta", "rope_factor"):
            check(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        bands = self.rope_bands
        usable = not bands or (len(bands) == 3 and 0 < bands[0] < bands[1] and bands[2] >= 1)
        check(usable, "rope_bands", bands, "(low, high, length) with 0 < low < high")

    def _check_order(self) -> None:
        """Raise ValueError for options that act between loops, if there is no such place."""
        order = f"with layer_order={self.layer_order!r}"
        check(self.modulation != "additive", "modulation", self.modulation, f"another {order}: it acts on one layer")
        if self.layer_order == "sequence":
            for name in ("input_injection", "positions_every_loop", "loop_norm", "halting"):
                value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
                check(value == default, name, value, f"{default!r} {order}, whose loops are inside")

    @classmethod
    def for_task(cls, task: Any, **settings: Any) -> "ModelConfig":
        """A configuration with the sizes of a task: `ModelConfig.for_task(task, d_model=64, num_loops=8)`.

        Args:
            task: a `Task`, whose `spec` gives inputs, vocab_size, input_dim, output_size, max_seq_len and causal.
            settings: further fields; they override the sizes of the task.

        Raises:
            ValueError: a field has an impossible value, or a setting has no effect.
        """
        spec = {f.name: getattr(task.spec, f.name) for f in fields(task.spec)}
        return cls(**{**spec, **settings})

    @property
    def sized(self) -> bool:
        """Whether all sizes that a task would set are given."""
        inputs = self.vocab_size if self.inputs == "tokens" else self.input_dim
        return None not in (inputs, self.output_size, self.max_seq_len)

    @property
    def core_depth(self) -> int:
        """Layers that a loop applies one after another."""
        return self.core_layers + (self.inner_loops or 0) * (self.latent_layers or self.core_layers)

    @property
    def last_norm(self) -> Literal["rms", "layer", "none"]:
        """The kind of the norm before the output."""
        normalised = self.norm_place in ("after", "before_after") and self.embedding_dim is None
        return self.final_norm or ("none" if normalised else self.norm)

    @property
    def last_gain(self) -> bool:
        """Whether that norm has a learned gain."""
        return self.norm_gain or not (self.loop_norm and self.inner_loops)

    @property
    def own_weights(self) -> bool:
        """Whether each loop of the core has weights of its own."""
        return self.core_tied != "all" or self.lora_rank > 0

    def check_equal_loops(self, words: str) -> None:
        """Raise ValueError unless all loops are the same function of the state; `words` say what needs it."""
        for name, allowed in EQUAL_LOOPS.items():
            value = getattr(self, name)
            check(value in allowed, f"model.{name}", value, f"{' or '.join(map(str, allowed))} {words}")

    @property
    def most_loops(self) -> int | None:
        """The most loops that the model has weights for; None is no limit."""
        own = self.num_loops if self.own_weights else None
        return min((n for n in (own, self.max_loops) if n), default=None)

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.d_head or self.d_model // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def embedding_width(self) -> int:
        """Width of the embedding, and of what the output matrix reads."""
        return self.embedding_dim or self.d_model

    @property
    def output_biased(self) -> bool:
        """Whether the output has a bias."""
        return self.bias and (self.embedding_dim is not None or not self.tie_embeddings)

    @property
    def qkv_biased(self) -> bool:
        """Whether queries, keys and values have a bias."""
        return self.bias if self.qkv_bias is None else self.qkv_bias

    @property
    def ff_dim(self) -> int:
        """Width of the feed-forward layer."""
        return self.d_ff or 4 * self.d_model


def check_fits(model: ModelConfig, task: Any, *, complete: bool = True) -> None:
    """Check that a model has the sizes that a task needs. They may be larger, except the width of an input vector.

    Args:
        task: a `Task`.
        complete: False allows sizes that are None.

    Raises:
        ValueError: one line that names the field.
    """
    for name in (f.name for f in fields(task.spec)):
        given, needed = getattr(model, name), getattr(task.spec, name)
        if name == "causal":
            check(given or not needed, "model.causal", given, f"True for task {task.name}, whose inputs hold answers")
        elif name in ("inputs", "input_dim") or needed is None:
            fits = given == needed or (given is None and not complete)
            check(fits, f"model.{name}", given, f"{needed!r} for task {task.name}")
        else:
            fits = given >= needed if given is not None else not complete
            check(fits, f"model.{name}", given, f"at least {needed} for task {task.name}")
    longer = longer_in_evaluation(task)
    expected = "sinusoidal, rotary or none: sequences in evaluation are longer than in training"
    check(not longer or model.positions != "learned", "model.positions", model.positions, expected)
    if model.graph_heads and not {*model.graph_heads} <= task.graphs.keys():
        expected = f"among {', '.join(task.graphs)}, the graphs of" if task.graphs else "none for"
        check(False, "model.graph_heads", model.graph_heads, f"{expected} task {task.name}")


def longer_in_evaluation(task: Any) -> bool:
    """Whether a `Task` has sequences in evaluation that are longer than all in training."""
    return task.trained_seq_len is not None and task.trained_seq_len < task.spec.max_seq_len
