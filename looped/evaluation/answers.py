"""Answers to problems, from one or several initial states.

With several, the model generates and the rules of the task verify: the first answer that obeys them is kept
(Kambhampati et al., LLM-Modulo, ICML 2024). The known solution takes no part.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looped.evaluation.scores import PART, final_output, parts
from looped.intervals import interval
from looped.models.exit_rules import ExitRule
from looped.models.looped_model import LoopedModel
from looped.strict import check
from looped.tasks.base import Batch, Task

STREAM = 0x57A27  # separates the draws of initial states from other draws with the same seed


def solve(
    model: LoopedModel,
    task: Task,
    problems: Sequence[Any],
    *,
    num_loops: int,
    exit_rule: ExitRule | None = None,
    attempts: int = 1,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Pairs of a problem and the model's answer to it (see `Task.answer`), in order. This is a generator.

    With attempts > 1, an answer that breaks the rules of the task is computed again from other initial states (see
    `random_state`), until one obeys them. If none does, the first answer stays. Answers then have one more key,
    `attempt`: the number, from 1, of the attempt that gave the answer.

    Args:
        problems: problems from `Task.sample` or `Task.read`.
        num_loops: number of loops, or the largest number with an exit rule.
        exit_rule: ends the loop early.
        attempts: the largest number of initial states.

    Raises:
        ValueError: attempts > 1, and the task has no rules, or the model has its input in the initial state alone.
    """
    check(attempts >= 1, "attempts", attempts, "at least 1")
    config = getattr(model, "config", None)
    for start in range(0, len(problems), PART):
        part = problems[start : start + PART]
        batch = next(parts(task.encode(part), PART, model.device))
        output = final_output(model, batch, num_loops, exit_rule)
        answers = [task.answer(*pair) for pair in zip(part, output.logits.float().cpu(), strict=True)]
        if attempts > 1:
            no_rules = f"1 for the task {task.name}, which has no rules to check"
            check(all(answer["valid"] is not None for answer in answers), "attempts", attempts, no_rules)
            injected = config is None or config.input_injection != "none"
            check(injected, "attempts", attempts, "1 for a model without input injection, whose state holds the input")
            answers = [answer | {"attempt": 1} for answer in answers]
        for attempt in range(2, attempts + 1):
            open_rows = [row for row, answer in enumerate(answers) if not answer["valid"]]
            if not open_rows:
                break
            some = Batch(*(tensor[open_rows] for tensor in batch))
            state = random_state(output.state[open_rows], attempt)
            logits = final_output(model, some, num_loops, exit_rule, state).logits.float().cpu()
            for row, of_row in zip(open_rows, logits, strict=True):
                answer = task.answer(part[row], of_row)
                if answer["valid"]:
                    answers[row] = answer | {"attempt": attempt}
        yield from zip(part, answers, strict=True)


def random_state(
    last: Float[Tensor, "batch seq d_model"], attempt: int, seed: int = 0
) -> Float[Tensor, "batch seq d_model"]:
    """A Gaussian initial state: a pure function of seed and attempt, the same for all examples up to its size.

    The size of an example's state is the root mean square of its `last` state. An answer does therefore not depend on
    the other examples of its batch.
    """
    drawn = np.random.default_rng([seed, attempt, STREAM]).standard_normal(last.shape[1:])
    noise = torch.from_numpy(drawn).to(last)
    return noise * last.square().mean((1, 2), keepdim=True).sqrt()


def solved_by_attempts(
    model: LoopedModel, task: Task, problems: Sequence[Any], *, loops: Sequence[int], attempts: int
) -> list[dict[str, Any]]:
    """The share of problems with an answer that obeys the rules, for each loop count and 1 .. `attempts` attempts.

    Returns:
        Rows with the keys num_loops, attempts, n, value, and the 95% interval low and high.

    Raises:
        ValueError: as `solve`.
    """
    rows = []
    for count in loops:
        found = [answer for _, answer in solve(model, task, problems, num_loops=count, attempts=max(attempts, 2))]
        for most in range(1, attempts + 1):
            solved = torch.tensor([float(answer["valid"] and answer["attempt"] <= most) for answer in found])
            value, low, high = interval(solved)
            rows.append(
                {"num_loops": count, "attempts": most, "n": len(found), "value": value, "low": low, "high": high}
            )
    return rows
