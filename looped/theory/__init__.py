"""The theory of looped transformers (Xu & Sato, ICML 2025) as code that runs."""
