"""Learners in context: exact losses of step matrices, and learners as looped transformers."""
