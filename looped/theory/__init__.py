"""The theory of looped transformers as mathematics that runs (Xu & Sato, ICML 2025)."""
