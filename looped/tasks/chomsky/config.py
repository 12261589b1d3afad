"""The settings of the task chomsky."""

from typing import Literal

from looped.strict import frozen
from looped.tasks.sequence import SequenceConfig

Problem = Literal[
    "even_pairs", "modular_arithmetic", "parity_check", "cycle_navigation", "stack_manipulation", "reverse_string",
    "modular_arithmetic_brackets", "solve_equation", "duplicate_string", "missing_duplicate_string", "odds_first",
    "binary_addition", "binary_multiplication", "compute_sqrt", "bucket_sort",
]  # fmt: skip


@frozen
class ChomskyConfig(SequenceConfig):
    """Problems on three levels of the Chomsky hierarchy (Delétang et al., 2023)."""

    name = "chomsky"

    problem: Problem = "parity_check"
    """Regular: even_pairs to cycle_navigation. Deterministic context-free: stack_manipulation to solve_equation.
    Context-sensitive: duplicate_string to bucket_sort. looped/tasks/chomsky/problems.py defines them."""
