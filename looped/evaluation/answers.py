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

from looped.evaluation.scores import PART, final_output, loop_logits, parts
from looped.intervals import interval
from looped.models.exit_rules import ExitRule
from looped.models.generated import generated
from looped.models.looped_model import LoopedModel
from looped.models.outputs import own_logits
from looped.strict import check
from looped.tasks.base import Task

STREAM = 0x57A27  # separates the draws of initial states from other draws with the same seed


def solve(
    model: LoopedModel,
    task: Task,
    problems: Sequence[Any],
    *,
    num_loops: int | None,
    exit_rule: ExitRule | None = None,
    attempts: int = 1,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Pairs of a problem and the model's answer to it (see `Task.answer`), in order. This is a generator.

    The answers are generated if the task says so (`Task.generation`).

    With attempts > 1, an answer that breaks the rules of the task is computed again from other initial states (see
    `random_state`), until one obeys them. If none does, the first answer stays. Answers then have one more key,
    `attempt`: the number, from 1, of the attempt that gave the answer.

    Args:
        problems: problems from `Task.sample` or `Task.read`.
        num_loops: number of loops, or the largest number with an exit rule. None is as many as the task says that each
            problem needs, in one attempt.
        exit_rule: ends the loop early.
        attempts: the largest number of initial states.

    Raises:
        ValueError: attempts > 1, and the task has no rules, or the model has its input in the initial state alone;
            num_loops=None, and the task does not say how many loops a problem needs.
    """
    check(attempts >= 1, "attempts", attempts, "at least 1")
    for start in range(0, len(problems), PART):
        part = problems[start : start + PART]
        batch = next(parts(task.with_loops(task.encode(part), part), PART, model.device))
        if num_loops is None:
            check(batch.loops is not None, "num_loops", None, f"a number: {task.name} does not say how many are needed")
            check(attempts == 1, "attempts", attempts, "1 without a number of loops")
            assert batch.loops is not None
            logits = own_logits(loop_logits(model, batch, range(1, int(batch.loops.max()) + 1)), batch.loops)
            yield from zip(part, _answers(task, part, logits), strict=True)
            continue
        if task.generation is not None:
            check(attempts == 1, "attempts", attempts, "1 for answers that are generated")
            texts, _ = generated(model, task, batch, num_loops, exit_rule)
            yield from zip(part, map(task.generated_answer, part, texts), strict=True)
            continue
        output = final_output(model, batch, num_loops, exit_rule)
        answers = _answers(task, part, output.logits)
        if attempts > 1:
            _check_attempts(attempts, model, task, answers)
            answers = [answer | {"attempt": 1} for answer in answers]
        for attempt in range(2, attempts + 1):
            wrong = [row for row, answer in enumerate(answers) if not answer["valid"]]
            if not wrong:
                break
            state = random_state(output.state[wrong], attempt)
            again = final_output(model, batch.map(lambda tensor, rows=wrong: tensor[rows]), num_loops, exit_rule, state)
            for row, answer in zip(wrong, _answers(task, [part[row] for row in wrong], again.logits), strict=True):
                if answer["valid"]:
                    answers[row] = answer | {"attempt": attempt}
        yield from zip(part, answers, strict=True)


def _answers(task: Task, problems: Sequence[Any], logits: Float[Tensor, "batch seq output"]) -> list[dict[str, Any]]:
    return [task.answer(problem, row) for problem, row in zip(problems, logits.float().cpu(), strict=True)]


def _check_attempts(attempts: int, model: LoopedModel, task: Task, answers: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError unless answers can be verified, and an initial state can be replaced."""
    no_rules = f"1 for the task {task.name}, which has no rules to check"
    check(all(answer["valid"] is not None for answer in answers), "attempts", attempts, no_rules)
    config = getattr(model, "config", None)  # a model of one's own parts has none
    injected = config is None or config.input_injection != "none"
    check(injected, "attempts", attempts, "1 for a model without input injection, whose state holds the input")


def random_state(
    last: Float[Tensor, "batch seq d_model"], attempt: int, seed: int = 0
) -> Float[Tensor, "batch seq d_model"]:
    """A Gaussian initial state: a pure function of seed and attempt, the same for all examples up to its size.

    The size of an example's state is the root mean square of its `last` state. An answer does therefore not depend on
    the other examples of its batch, if these have its length.
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
