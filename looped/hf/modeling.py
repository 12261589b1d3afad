"""Looped transformers as models of `transformers`: a causal language model, a classifier, and their base."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from looped.card import TAGS, model_card
from looped.files import write_atomic
from looped.hf.cache import LoopedCache
from looped.hf.configuration import LoopedConfig
from looped.hf.generation import LoopedGenerationMixin
from looped.models.exit_rules import ExitRule, parse_rule
from looped.models.initialise import INIT_STD
from looped.models.outputs import LoopedOutput
from looped.models.transformer import LoopedTransformer
from looped.strict import at_least, check


@dataclass
class LoopedCausalLMOutput(CausalLMOutputWithPast):
    """Logits, and with an exit rule the loops that each token took, (batch, seq)."""

    loops_taken: Tensor | None = None


class LoopedPreTrainedModel(PreTrainedModel):
    """The base of the models below. Its `looped` is the model itself.

    The weights are a pure function of configuration and seed, and the global random state does not change.

    Raises:
        ValueError: a size that is missing, graph heads or inputs that are not tokens.
    """

    config_class = LoopedConfig
    config: Any  # the fields of ModelConfig are attributes that a type checker cannot know
    base_model_prefix = "looped"
    model_tags = TAGS
    supports_gradient_checkpointing = True
    headless = True
    """Whether the model ends with the normalised state."""

    def __init__(self, config: LoopedConfig, *, seed: int = 0) -> None:
        super().__init__(config)
        model = config.model_config()
        check(model.inputs == "tokens", "inputs", model.inputs, "tokens in a model of transformers")
        check(not model.graph_heads, "graph_heads", model.graph_heads, "none in a model of transformers")
        self.looped = LoopedTransformer(model, seed=seed)
        if self.headless:
            self.looped.head = nn.Identity()
            self._keys_to_ignore_on_load_unexpected = [r"^looped\.head\."]
        self._no_split_modules = ["TransformerBlock"]
        if (rule := self.exit_rule(config.exit_rule)) is not None:
            rule.check(self.looped)
        first: dict[int, str] = {}
        names = self.named_parameters(remove_duplicate=False)
        self._tied_weights_keys = {name: known for name, p in names if (known := first.setdefault(id(p), name)) != name}
        self.gradient_checkpointing = False
        self.packed: tuple[LoopedTransformer, ...] = ()
        self.post_init()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Weights that modules share, by the name of the first. transformers asks `tie_word_embeddings` for all."""
        return dict(self._tied_weights_keys or {})

    def _init_weights(self, module: Any) -> None:
        """The weights are drawn already. transformers builds models on `meta`, where buffers lose their values."""
        if hasattr(module, "reset_buffers"):
            module.reset_buffers()

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As in transformers, with a model card, README.md, if the folder has none."""
        card = Path(save_directory) / "README.md"
        if options.get("is_main_process", True) and not card.exists():
            loads = f"AutoModel{type(self).__name__.removeprefix('Looped').removesuffix('BaseModel')}"
            card.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(card, model_card(self.looped, card.parent.name, auto_class=loads))
        super().save_pretrained(save_directory, **options)

    def get_input_embeddings(self) -> nn.Module:
        return self.looped.embed

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.looped.embed = value

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        embedding = super().resize_token_embeddings(*args, **kwargs)
        self.looped.config = self.config.model_config()
        return embedding

    def exit_rule(self, given: ExitRule | str | None) -> ExitRule | None:
        """The rule of a call: the one given, or outside of training that of the configuration; "none" is no rule."""
        text = given or (None if self.training else self.config.exit_rule)
        if text is None or text == "none":
            return None
        rule = parse_rule(text) if isinstance(text, str) else text
        check(isinstance(rule, ExitRule), "exit_rule", rule, "an ExitRule, or its text such as kl:0.01")
        usable = rule.needs != "logits" or not self.headless
        check(usable, "exit_rule", str(rule), "a rule that needs no logits; this model has none")
        # A cached token cannot wait for later ones, so every token of a causal model exits by itself.
        return dataclasses.replace(rule, per="token") if self.config.causal else rule

    def run(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        cache: Any,
        num_loops: int | None,
        exit_rule: ExitRule | str | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        logits_to_keep: int = 0,
    ) -> LoopedOutput:
        """Apply the model to arguments as transformers names them; `loop_states` are the hidden states, if wanted.

        Raises:
            ValueError: arguments that the model cannot run, or that would have no effect.
        """
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        if inputs is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("expected either input_ids or inputs_embeds")
        if output_attentions or (output_attentions is None and self.config.output_attentions):
            raise ValueError("output_attentions=True: expected False; `looped inspect` draws attention in every loop")
        at_least(1, num_loops=num_loops)
        loops = num_loops or self.config.num_loops
        limit = self.config.weight_loops
        check(limit is None or loops <= limit, "num_loops", loops, f"at most {limit}, the loops with weights")
        if limit is not None and getattr(self, "peft_config", None):
            raise ValueError(
                "adapters of PEFT: expected a model whose loops share all weights; they reach one loop only"
            )
        rule = self.exit_rule(exit_rule)
        model = self.packed[0] if self.packed else self.looped
        batch, seq = inputs.shape[:2]
        native = None
        if cache is not None:
            if not isinstance(cache, LoopedCache):
                raise ValueError(f"cache={type(cache).__name__}: expected a LoopedCache, which has slots for each loop")
            by_logits = rule is not None and rule.needs == "logits"
            native = cache.prepare(model, batch, seq, num_loops=loops, every_loop_logits=by_logits)
        if attention_mask is not None and attention_mask.ndim == 2:
            length = seq + (0 if native is None else native.used)
            if attention_mask.shape[1] != length:
                shape = tuple(attention_mask.shape)
                raise ValueError(
                    f"attention_mask: has shape {shape}; expected ({batch}, {length}), cached tokens included"
                )
            if position_ids is None:
                position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, -seq:]
            attention_mask = attention_mask[:, -seq:]
        elif attention_mask is None and position_ids is not None and native is None:
            attention_mask = texts_apart(position_ids, batch)
        checkpointed = self.gradient_checkpointing and self.training
        return model(
            inputs,
            embedded=inputs_embeds is not None,
            attention_mask=attention_mask,
            positions=position_ids,
            num_loops=loops,
            exit_rule=rule,
            cache=native,
            last_logits=logits_to_keep or None,
            loop_states=bool(
                self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
            recompute="loop" if checkpointed else "none",
        )


def texts_apart(position_ids: Tensor, batch: int) -> Tensor | None:
    """The pairs of positions in one text, if rows hold several texts: positions then begin again at each."""
    begins = position_ids[..., 1:] <= position_ids[..., :-1]
    if not bool(begins.any()):
        return None
    text = F.pad(begins.long().cumsum(-1), (1, 0)).expand(batch, -1)
    return text[:, :, None] == text[:, None, :]


def hidden_states(output: LoopedOutput) -> tuple[Tensor, ...] | None:
    """The state after each loop."""
    return None if output.loop_states is None else output.loop_states.unbind(0)


class LoopedBaseModel(LoopedPreTrainedModel):
    """A looped transformer without output: the normalised state after the last loop."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: LoopedCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        num_loops: int | None = None,
        exit_rule: ExitRule | str | None = None,
    ) -> BaseModelOutputWithPast:
        """Arguments as in `LoopedForCausalLM`."""
        cache = LoopedCache() if use_cache and cache is None else cache
        output = self.run(
            input_ids, attention_mask, position_ids, inputs_embeds, cache, num_loops, exit_rule,
            output_attentions, output_hidden_states,
        )  # fmt: skip
        return BaseModelOutputWithPast(output.logits, cache, hidden_states(output))  # type: ignore[arg-type]


class LoopedForCausalLM(LoopedPreTrainedModel, LoopedGenerationMixin):
    """A causal looped transformer. `generate` takes `num_loops` and `exit_rule`, as `forward` does.

    Both are taken from the call, or else from `generation_config`, or else from `config`.

    Raises:
        ValueError: a model that is not causal.
    """

    headless = False
    accepts_loss_kwargs = True
    """`Trainer` then gives the number of targets of all accumulated batches, by which the loss is divided."""

    def __init__(self, config: LoopedConfig, *, seed: int = 0) -> None:
        causal: Any = config
        check(causal.causal, "causal", causal.causal, "True in a causal language model")
        super().__init__(config, seed=seed)
        # Otherwise from_pretrained drops fields that transformers does not know, such as num_loops.
        self.generation_config._from_model_config = False

    def get_output_embeddings(self) -> nn.Module:
        return self.looped.head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.looped.head = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: LoopedCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        num_loops: int | None = None,
        exit_rule: ExitRule | str | None = None,
    ) -> LoopedCausalLMOutput:
        """Apply the model.

        Args:
            attention_mask: 1 at real tokens, cached ones included. They give the positions, unless `position_ids` do.
            cache: see `LoopedCache`; `use_cache` makes one.
            labels: tokens, -100 where the loss does not count. They are shifted here.
            output_hidden_states: return the state after each loop.
            logits_to_keep: the last so many positions, or these; 0 is all.
            num_items_in_batch: divides the loss, in place of the number of labels.
            num_loops, exit_rule: of this call.
        """
        cache = LoopedCache() if use_cache and cache is None else cache
        last = logits_to_keep if isinstance(logits_to_keep, int) else 0
        output = self.run(
            input_ids, attention_mask, position_ids, inputs_embeds, cache, num_loops, exit_rule,
            output_attentions, output_hidden_states, last,
        )  # fmt: skip
        logits = output.logits[:, logits_to_keep] if isinstance(logits_to_keep, Tensor) else output.logits
        loss = None
        if labels is not None:
            size = logits.shape[-1]
            loss = self.loss_function(logits, labels, vocab_size=size, num_items_in_batch=num_items_in_batch)
        return LoopedCausalLMOutput(
            loss=loss, logits=logits, cache=cache, hidden_states=hidden_states(output), loops_taken=output.loops_taken
        )


class LoopedForSequenceClassification(LoopedPreTrainedModel):
    """A looped transformer whose last real token decides the class, or all `num_labels` numbers of a regression.

    The real tokens are those of `attention_mask`, or else those that are not `pad_token_id`, or else all.
    """

    accepts_loss_kwargs = False
    """The loss of transformers ignores `num_items_in_batch` in a regression, so `Trainer` must divide it."""

    def __init__(self, config: LoopedConfig, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.num_labels = self.config.num_labels
        self.score = nn.Linear(self.looped.embed.embedding_dim, self.num_labels, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is getattr(self, "score", None):
            init.normal_(self.score.weight, std=INIT_STD)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        num_loops: int | None = None,
        exit_rule: ExitRule | str | None = None,
    ) -> SequenceClassifierOutput:
        """Arguments as in `LoopedForCausalLM`; labels are classes (batch,), or numbers."""
        output = self.run(
            input_ids, attention_mask, position_ids, inputs_embeds, None, num_loops, exit_rule,
            output_attentions, output_hidden_states,
        )  # fmt: skip
        states = output.logits
        real = attention_mask
        if real is None and input_ids is not None and self.config.pad_token_id is not None:
            real = input_ids != self.config.pad_token_id
        places = torch.arange(states.shape[1], device=states.device)
        last = places[-1:] if real is None else (places * real).argmax(1)
        logits = self.score(states[torch.arange(len(states), device=states.device), last])
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, logits=logits, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss, logits, hidden_states(output))  # type: ignore[arg-type]


def to_hf(model: LoopedTransformer, **settings: Any) -> LoopedForCausalLM:
    """A causal model for `transformers`, with the same weights in memory.

    Args:
        settings: further fields of `LoopedConfig`, such as exit_rule and eos_token_id.

    Raises:
        ValueError: a model that is not causal, reads no tokens or has graph heads.
    """
    if not isinstance(model, LoopedTransformer):
        raise ValueError(f"model: expected a LoopedTransformer, not {type(model).__name__}")
    config = LoopedConfig.from_model(model.config, **settings)
    with torch.device("meta"):
        made = LoopedForCausalLM(config)
    config.num_loops, made.looped = model.num_loops, model
    return made.train(model.training)
