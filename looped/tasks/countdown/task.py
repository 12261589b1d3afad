"""Countdown: reach a target from given numbers, each used once, by + - * /."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from reprlib import repr as shown  # cuts what is long
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from looped.lazy import torch
from looped.tasks.base import Batch, Split, Task, TaskSpec, split_of
from looped.tasks.countdown.config import CountdownConfig
from looped.tasks.countdown.solver import BLANK, OFFSET, SIGNS, STEP, Step, canonical_solutions, obeys_rules
from looped.tasks.countdown.stated import check_solution
from looped.tasks.registry import register

FRUITLESS = 200  # rounds of draws after which a target counts as out of reach


class Problem(NamedTuple):
    """Numbers, target and canonical solution; None if there is none, or if the vocabulary cannot express it."""

    numbers: tuple[int, ...]
    target: int
    steps: tuple[Step, ...] | None


@register("countdown")
class Countdown(Task):
    """Reach the target with all numbers. The answer has 5 slots per step, and all slots are predicted at once.

    Example: 34 19 42 7 and the target 28 have the canonical solution 34+42=76, 76/19=4, 7*4=28. The input is the tokens
    of 34 19 42 7 28 and 15 blanks. The targets at the blanks are `34 + 42 = 76 76 / 19 = 4 7 * 4 = 28`. Each sign and
    each integer is one token (`SIGNS`, value + 5). As published, 0 shares its id with `=`; the slot determines the
    meaning.

    Vocabulary: inputs are given numbers and targets. Outputs go up to `largest` = max_number * max(max_number,
    max_target). With up to 4 numbers no solution needs more: a result either comes from two given numbers, or the last
    step combines it with a given number into the target. With 5 or 6 numbers, problems whose canonical solution exceeds
    `largest` are drawn again.

    Groups: `seen` targets occur in training, `held_out` targets do not.
    """

    Config = CountdownConfig
    metric = "exact"
    groups = ("seen", "held_out")

    def __init__(self, config: CountdownConfig) -> None:
        super().__init__(config)
        targets = list(range(config.min_target, config.max_target + 1))
        random.Random(config.target_seed).shuffle(targets)
        held_out = int(config.held_out * len(targets))
        self.targets = {"seen": targets[held_out:], "held_out": targets[:held_out]}
        high = max(config.max_number, config.max_target)
        self.largest = config.max_number * high
        self.prompt_length = config.numbers + 1
        self.spec = TaskSpec(
            vocab_size=high + OFFSET + 1,
            output_size=self.largest + OFFSET + 1,
            max_seq_len=self.prompt_length + STEP * (config.numbers - 1),
        )

    # Drawing

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[Problem]:
        """Draw targets uniformly from the group, and numbers until each problem is solvable.

        Raises:
            ValueError: the group is unknown; held-out targets in training; a target is out of reach.
        """
        if group is not None and group not in self.groups:
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        if group == "held_out" and split == "train":
            raise ValueError("group='held_out': expected 'seen' in the train split, which has no held-out targets")
        config = self.config
        targets = rng.choice(self.targets[group or "seen"], size)
        problems: dict[int, Problem] = {}
        pending = np.arange(size)
        for _ in range(FRUITLESS):
            if not pending.size:
                return [problems[i] for i in range(size)]
            # Several draws for each pending target. The first solvable one is used.
            slots = np.repeat(pending, max(4, 256 // pending.size) if config.numbers <= 4 else 1)
            numbers = rng.integers(1, config.max_number + 1, (len(slots), config.numbers))
            drawn = zip(numbers.tolist(), targets[slots].tolist(), strict=True)
            wanted = np.array([split_of(_key(row, target)) == split for row, target in drawn])
            slots, numbers = slots[wanted], numbers[wanted]
            for problem, slot in zip(self._solved(numbers, targets[slots]), slots.tolist(), strict=True):
                if problem.steps is not None:
                    problems.setdefault(slot, problem)
            pending = np.array([i for i in pending.tolist() if i not in problems], int)
        raise ValueError(
            f"numbers={config.numbers}, max_number={config.max_number}: found no solvable problem of the {split} "
            f"split with target {targets[pending[0]]}; expected more or larger numbers, or lower targets"
        )

    def _solved(self, numbers: np.ndarray, targets: np.ndarray) -> Iterator[Problem]:
        solutions = canonical_solutions(numbers, targets)
        for row, target, steps in zip(numbers.tolist(), targets.tolist(), solutions, strict=True):
            expressible = steps is not None and max(step.result for step in steps) <= self.largest
            yield Problem(tuple(row), target, steps if expressible else None)

    # Encoding

    def encode(self, problems: Sequence[Problem]) -> Batch:
        """Numbers, target and blanks as tokens; the mask is True at all answer slots."""
        inputs = np.full((len(problems), self.spec.max_seq_len), BLANK)
        targets = np.zeros_like(inputs)
        mask = np.zeros(inputs.shape, bool)
        mask[:, self.prompt_length :] = True
        for row, problem in enumerate(problems):
            inputs[row, : self.prompt_length] = np.array([*problem.numbers, problem.target]) + OFFSET
            if problem.steps is not None:
                targets[row, self.prompt_length :] = _tokens(problem.steps)
        attention_mask = np.ones(inputs.shape, bool)
        return Batch(*map(torch.from_numpy, (inputs, targets, mask, attention_mask)))

    def score(
        self, batch: Batch, logits: Float[torch.Tensor, "batch seq output"]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """exact: every slot equals the canonical solution (published metric). valid: the slots are any solution."""
        predicted = logits[:, self.prompt_length :].argmax(-1)
        exact = (predicted == batch.targets[:, self.prompt_length :]).all(1)
        prompt = batch.inputs[:, : self.prompt_length].cpu().numpy() - OFFSET
        valid = obeys_rules(prompt[:, :-1], prompt[:, -1], predicted.cpu().numpy())
        return {"exact": exact.float(), "valid": torch.from_numpy(valid).to(exact.device).float()}

    def answer(self, problem: Problem, logits: Float[torch.Tensor, "seq output"]) -> dict[str, Any]:
        """The steps as text. The confidence is the joint probability of all slots."""
        probabilities, predicted = logits[self.prompt_length :].double().softmax(-1).max(-1)
        slots = predicted.cpu().numpy()
        valid = obeys_rules(np.array([problem.numbers]), np.array([problem.target]), slots[None])
        words = _words(slots)
        text = ", ".join("".join(words[k : k + STEP]) for k in range(0, len(words), STEP))
        return {"answer": text, "valid": bool(valid[0]), "confidence": float(probabilities.prod())}

    def to_text(self, problem: Problem) -> dict[str, str]:
        expected = ", ".join(map(str, problem.steps or ()))
        return {"input": " ".join(map(str, (*problem.numbers, problem.target))), "expected": expected}

    def describe(self, problem: Problem, logits: Float[torch.Tensor, "seq output"] | None = None) -> str:
        lines = [
            f"numbers: {' '.join(map(str, problem.numbers))}, target: {problem.target}",
            f"answer: {'none' if problem.steps is None else ', '.join(map(str, problem.steps))}",
        ]
        if logits is not None:
            answer = self.answer(problem, logits)
            verdict = "valid" if answer["valid"] else "not valid"
            lines.append(f"prediction: {answer['answer']} ({verdict}, {answer['confidence']:.0%})")
        return "\n".join(lines)

    def visualise(self, problem: Problem, logits: Float[torch.Tensor, "loops seq output"]) -> dict[str, Any]:
        confidence, predicted = logits[:, self.prompt_length :].double().softmax(-1).max(-1)
        return {
            "kind": "slots",
            "title": self.title.lower(),
            "input": f"{' '.join(map(str, problem.numbers))} = {problem.target}?",
            "answer": [] if problem.steps is None else _words(_tokens(problem.steps)),
            "loops": [
                {"loop": loop, "slots": _words(slots), "confidence": row}
                for loop, (slots, row) in enumerate(
                    zip(predicted.cpu().numpy(), confidence.tolist(), strict=True), start=1
                )
            ],
        }

    # Reading

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[Problem], int]:
        """Read lines `34 19 42 7 28` (numbers, then the target; or with commas; comments begin with #), or JSON.

        JSON is a list of objects, or one object a line: {"nums": [34, 19, 42, 7], "target": 28}. An object may state a
        "solution", ["34+42=76", ...] or "(34+42)/19*7", which must be right. Problems without a solution are accepted.

        Raises:
            ValueError: a bad row (on_bad_row=stop), named by `source`, line and reason; or no problem at all.
        """
        rows: list[tuple[tuple[int, ...], int]] = []
        skipped = 0
        for place, row in _rows(lines, source):
            try:
                rows.append(self._parse(row))
            except ValueError as error:
                if on_bad_row == "stop":
                    raise ValueError(f"{source}, {place}: {error}") from None
                skipped += 1
        if not rows:
            raise ValueError(f"{source}: no countdown problem in it ({skipped} bad rows)")
        numbers, targets = zip(*rows, strict=True)
        return list(self._solved(np.array(numbers), np.array(targets))), skipped

    def _parse(self, row: Any) -> tuple[tuple[int, ...], int]:
        if isinstance(row, str) and row.startswith("{"):
            try:
                row = _json(row)
            except json.JSONDecodeError as error:
                raise ValueError(f"no JSON: {error.msg}") from None
        values: list[Any]
        stated = None
        if isinstance(row, dict):
            if not isinstance(row.get("nums"), list) or "target" not in row:
                raise ValueError('expected {"nums": [...], "target": ...}')
            values, stated = [*row["nums"], row["target"]], row.get("solution")
        elif isinstance(row, str):
            values = [int(word) if re.fullmatch("[0-9]{1,9}", word) else word for word in re.split(r"[\s,]+", row)]
        else:
            raise ValueError(f"{shown(row)}: expected an object")
        config = self.config
        if len(values) != config.numbers + 1:
            raise ValueError(
                f"{len(values)} values; expected {config.numbers} numbers and a target. A model has slots for one "
                f"count of numbers (numbers={config.numbers}); on_bad_row=skip answers only such problems"
            )
        limits = [config.max_number] * config.numbers + [config.max_target]
        for value, limit in zip(values, limits, strict=True):
            if type(value) is not int or not 1 <= value <= limit:
                raise ValueError(f"{shown(value)}: expected a number from 1 to {limit}")
        numbers, target = tuple(values[:-1]), values[-1]
        if stated is not None:
            try:
                check_solution(numbers, target, stated)
            except ValueError as error:
                raise ValueError(
                    f"the stated solution {shown(stated)}: {error}; expected steps or an expression that reach {target}"
                ) from None
        return numbers, target


def _rows(lines: Sequence[str], source: str) -> Iterator[tuple[str, Any]]:
    """The place of each row, for messages, and the row: a line, or an item of a JSON list."""
    first = next((line.strip() for line in lines if line.strip()), "")
    if not first.startswith("["):
        numbered = ((f"line {k}", line.strip()) for k, line in enumerate(lines, start=1))
        yield from ((place, line) for place, line in numbered if line and not line.startswith("#"))
        return
    try:
        items = _json("\n".join(lines))
    except json.JSONDecodeError as error:
        raise ValueError(f"{source}, line {error.lineno}: no JSON: {error.msg}") from None
    yield from ((f"item {k}", item) for k, item in enumerate(items, start=1))


def _json(text: str) -> Any:
    """The value of JSON text. An integer of more than 18 digits stays a text, because no number here is so large."""
    try:
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= 18 else digits)
    except RecursionError:
        raise json.JSONDecodeError("too deeply nested", text, 0) from None


def _tokens(steps: Sequence[Step]) -> list[int]:
    equals = SIGNS.index("=") + 1
    return [
        token
        for a, sign, b, result in steps
        for token in (a + OFFSET, SIGNS.index(sign) + 1, b + OFFSET, equals, result + OFFSET)
    ]


def _words(slots: Sequence[int] | Int[np.ndarray, " slots"]) -> list[str]:
    """Token ids of answer slots as text; ids that are impossible in their slot are shown as numbers."""
    words = []
    for k, token in enumerate(int(slot) for slot in slots):
        value = token > OFFSET or (token == OFFSET and k % STEP in (0, 2, 4))
        words.append(str(token - OFFSET) if value else "_" if token == BLANK else SIGNS[token - 1])
    return words


def _key(numbers: Sequence[int], target: int) -> bytes:
    """The content of a problem, which does not depend on the order of the numbers."""
    return ",".join(map(str, [*sorted(numbers), target])).encode()
