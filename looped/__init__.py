"""Looped transformers: train them, compare them, look inside them."""

from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:  # the public names, one a line: `import looped` loads nothing before a name is used
    from looped.config import ModelConfig as ModelConfig
    from looped.config import OptimConfig as OptimConfig
    from looped.config import RunConfig as RunConfig
    from looped.config import ScheduleConfig as ScheduleConfig
    from looped.config import TrainConfig as TrainConfig
    from looped.evaluation.answers import solve as solve
    from looped.evaluation.scores import evaluate as evaluate
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
    from looped.models.iteration import iterate as iterate
    from looped.models.kv_cache import Cache as Cache
    from looped.models.looped_model import LoopedModel as LoopedModel
    from looped.models.outputs import LoopedOutput as LoopedOutput
    from looped.models.transformer import LoopedTransformer as LoopedTransformer
    from looped.nn.protocols import Block as Block
    from looped.nn.protocols import Context as Context
    from looped.nn.protocols import Injection as Injection
    from looped.nn.protocols import KVSlot as KVSlot
    from looped.nn.protocols import KVStore as KVStore
    from looped.nn.protocols import Modulation as Modulation
    from looped.recipes import RECIPES as RECIPES
    from looped.recipes import complete as complete
    from looped.recipes import recipe as recipe
    from looped.report import report as write_report  # noqa: F401  `looped.report` is the package
    from looped.runs import calibrate_run as calibrate_run
    from looped.runs import evaluate_run as evaluate_run
    from looped.tasks import TASKS as TASKS
    from looped.tasks.base import Batch as Batch
    from looped.tasks.base import Task as Task
    from looped.training.checkpoint import load_run as load_run
    from looped.training.errors import NonFiniteError as NonFiniteError
    from looped.training.schedule import LoopSchedule as LoopSchedule
    from looped.training.trainer import train as train
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
