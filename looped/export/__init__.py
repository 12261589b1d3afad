"""Trained models for other programs: folders of transformers, plain weights, ONNX, and model cards."""

from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.export.folders import export_hf as export_hf
    from looped.export.folders import export_safetensors as export_safetensors
    from looped.export.folders import push as push
    from looped.export.onnx import export_onnx as export_onnx
    from looped.export.program import export_program as export_program
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
