"""Models that others trained, read as looped transformers."""

from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.pretrained.opening import Opened as Opened
    from looped.pretrained.opening import open_model as open_model
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
