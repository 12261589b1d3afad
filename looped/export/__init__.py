"""Trained models for other programs: folders of transformers, plain weights, ONNX, and model cards."""
