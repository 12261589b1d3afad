"""Looped models, the loop that they stand on, exit rules, caches and generation."""

from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.models.exit_rules import Act as Act
    from looped.models.exit_rules import Entropy as Entropy
    from looped.models.exit_rules import ExitRule as ExitRule
    from looped.models.exit_rules import Fixed as Fixed
    from looped.models.exit_rules import Gate as Gate
    from looped.models.exit_rules import KLDivergence as KLDivergence
    from looped.models.exit_rules import Observation as Observation
    from looped.models.exit_rules import StateChange as StateChange
    from looped.models.exit_rules import Unchanged as Unchanged
    from looped.models.exit_rules import parse_rule as parse_rule
    from looped.models.generation import Sampling as Sampling
    from looped.models.generation import generate as generate
    from looped.models.generation import stream as stream
    from looped.models.iteration import Iterated as Iterated
    from looped.models.iteration import iterate as iterate
    from looped.models.kv_cache import Cache as Cache
    from looped.models.looped_model import LoopedModel as LoopedModel
    from looped.models.outputs import Loop as Loop
    from looped.models.outputs import LoopedOutput as LoopedOutput
    from looped.models.transformer import LoopedTransformer as LoopedTransformer
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
