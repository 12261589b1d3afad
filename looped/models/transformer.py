"""Standard, looped and timestep-modulated transformers: a `LoopedModel` built from a configuration."""

import json
from pathlib import Path

import torch
from torch import nn

from looped.config import ModelConfig
from looped.files import read_object, write_atomic
from looped.models.initialise import initialise
from looped.models.looped_model import LoopedModel
from looped.models.memory import check_memory
from looped.models.weights import load_weights
from looped.nn.attention import make_rotary
from looped.nn.block import TransformerBlock
from looped.nn.feedforward import Activation
from looped.nn.injection import make_injection
from looped.nn.modulation import make_modulation
from looped.nn.norms import make_norm
from looped.nn.per_loop import make_core_block
from looped.nn.positions import PositionEmbedding
from looped.nn.two_states import Answer, TwoStates
from looped.strict import from_dict, to_dict

CONFIG = "model.json"


class LoopedTransformer(LoopedModel):
    """The model that a `ModelConfig` describes; `ModelConfig.for_task(task)` takes the sizes from a task.

    The weights are a pure function of (config, seed). The global random state does not change.

    Raises:
        ValueError: if a size that a task usually decides is still None, or if the weights do not fit into memory.
    """

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        size = "vocab_size" if config.inputs == "tokens" else "input_dim"
        for name in (size, "output_size", "max_seq_len"):
            if getattr(config, name) is None:
                raise ValueError(f"{name}=None: expected a size; a model needs it before it can be built")
        c, d, width = config, config.d_model, config.embedding_width
        inputs = c.vocab_size if c.inputs == "tokens" else c.input_dim
        assert inputs is not None
        assert c.output_size is not None
        assert c.max_seq_len is not None
        inner = (2 * c.num_heads + 2 * c.kv_heads + 2 * len(c.graph_heads)) * c.head_dim
        hidden = (3 if c.activation == "swiglu" else 2) * c.ff_dim
        layers = (c.core_layers + c.latent_layers) * (c.num_loops if c.own_weights else 1)
        layers += c.prelude_layers + c.coda_layers
        weights = width * (inputs + c.output_size + c.max_seq_len)
        weights += d * (layers * (inner + hidden) + (c.max_loops or 0))
        check_memory(f"a model of {weights:,} weights", 4 * weights, torch.get_default_device())
        added = c.positions in ("learned", "sinusoidal")
        with torch.random.fork_rng(devices=[]):  # the layers' own initialisation is overwritten below
            core = [make_core_block(c) for _ in range(c.core_layers)]
            norm = make_norm(c.last_norm, width, epsilon=c.norm_epsilon, gain=c.last_gain, bias=c.bias)
            embed_norm = make_norm("layer" if c.embedding_norm else "none", width, epsilon=c.norm_epsilon, bias=True)
            if c.embedding_dim is not None:
                embed_norm = nn.Sequential(embed_norm, nn.Linear(width, d, bias=c.bias))
                norm = nn.Sequential(nn.Linear(d, width, bias=c.bias), Activation(c.activation), norm)
            if c.inner_loops is not None:
                latent, injects = [make_core_block(c) for _ in range(c.latent_layers)], c.input_injection == "add"
                of_both = norm if c.loop_norm else None
                core = [TwoStates(core, c.inner_loops, latent_layers=latent, injects=injects, norm=of_both)]
                norm = Answer() if c.loop_norm else nn.Sequential(Answer(), norm)
            super().__init__(
                embed=_embedding(inputs, width) if c.inputs == "tokens" else nn.Linear(inputs, width, bias=c.bias),
                positions=PositionEmbedding(c.max_seq_len, width, learned=c.positions == "learned") if added else None,
                rotary=make_rotary(c),
                embed_norm=embed_norm,
                embedding_scale=c.embedding_scale,
                prelude=[TransformerBlock(c) for _ in range(c.prelude_layers)],
                core=core,
                coda=[TransformerBlock(c) for _ in range(c.coda_layers)],
                injection=make_injection(c),
                modulation=make_modulation(c),
                norm=norm,
                loop_norm=c.loop_norm and c.inner_loops is None,  # two states normalise both
                coda_norm=c.coda_norm,
                head=nn.Linear(width, c.output_size, bias=c.output_biased),
                halt=nn.Linear(d, 1) if c.halting != "none" else None,
                halting=c.halting,
                num_loops=c.num_loops,
                layer_order=c.layer_order,
                kv_loops=(c.cache_loops or 1) if c.cache == "first" else None,
                causal=c.causal,
                max_seq_len=c.max_seq_len,
            )
        self.config = config
        if c.tie_embeddings:
            self.head.weight = self.embed.weight
        initialise(self, config, torch.Generator().manual_seed(seed))

    def save(self, folder: Path | str) -> None:
        """Write configuration and weights into a folder: model.json and model.safetensors."""
        super().save(folder)
        write_atomic(Path(folder) / CONFIG, json.dumps(to_dict(self.config), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path | str) -> "LoopedTransformer":
        """The model that `save` wrote, on the cpu, in evaluation mode.

        Raises:
            ValueError: one line that names the file which is missing, malformed or of another architecture.
        """
        path = Path(folder) / CONFIG
        try:
            model = cls(from_dict(ModelConfig, read_object(path), "model"))
        except ValueError as error:
            raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
        load_weights(model, Path(folder))
        return model.eval()


def _embedding(inputs: int, d: int) -> nn.Embedding:
    """An embedding that is not drawn yet."""
    return nn.Embedding.from_pretrained(torch.empty(inputs, d), freeze=False)
