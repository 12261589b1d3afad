"""Looped transformers as models of the library `transformers`.

`import looped.hf` registers them, and `AutoModelForCausalLM.from_pretrained(folder, num_loops=8)` loads one.
"""

from looped.extras import need

need("transformers", "looped.hf")

from transformers import (  # noqa: E402
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from looped.hf.cache import LoopedCache  # noqa: E402
from looped.hf.configuration import LoopedConfig  # noqa: E402
from looped.hf.modeling import (  # noqa: E402
    LoopedBaseModel,
    LoopedForCausalLM,
    LoopedForSequenceClassification,
    to_hf,
)

AutoConfig.register("looped", LoopedConfig)
AutoModel.register(LoopedConfig, LoopedBaseModel)
AutoModelForCausalLM.register(LoopedConfig, LoopedForCausalLM)
AutoModelForSequenceClassification.register(LoopedConfig, LoopedForSequenceClassification)

__all__ = [
    "LoopedBaseModel",
    "LoopedCache",
    "LoopedConfig",
    "LoopedForCausalLM",
    "LoopedForSequenceClassification",
    "to_hf",
]
