"""Trained models for other programs: folders of transformers, plain weights, ONNX, and model cards."""

from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.export.card import model_card as model_card
    from looped.export.folders import export_hf as export_hf
    from looped.export.folders import export_safetensors as export_safetensors
    from looped.export.folders import push as push
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
