"""The model's answers after each loop, as HTML.

Colour is never the only mark: wrong cells also have a filled corner or a cross, undecided ones a ring or a question
mark. The visualisations therefore work without colour and in print.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from looped.report.escaping import escape
from looped.report.read import Run
from looped.schemas.visualisations import (
    Board,
    BoardFrame,
    Distribution,
    DistributionFrame,
    Points,
    PointsFrame,
    Slots,
    SlotsFrame,
)

UNDECIDED = 0.5
"""An answer with less confidence than this counts as undecided."""
MOST_EXAMPLES = 6
MOST_ROWS = 16


@dataclass(frozen=True)
class Visualisations:
    """The visualisations of one run as HTML."""

    html: str
    examples: int
    solved: int
    """The number of examples answered correctly with the loops of training."""
    kinds: tuple[str, ...]


def visualise_run(run: Run) -> Visualisations | None:
    """The visualisations of a run's first examples; None if it has none."""
    if run.answers is None or not run.answers.examples:
        return None
    trained = run.answers.trained_loops
    examples = run.answers.examples[:MOST_EXAMPLES]
    parts, solved = [], 0
    for example in examples:
        draw, right_after = KINDS[example.kind]
        parts.append(draw(example, trained))
        solved += right_after(example, _frame_at(example.loops, trained))
    html = f'<div class="visualisations visualisations-{examples[0].kind}">{"".join(parts)}</div>'
    return Visualisations(html, len(examples), solved, tuple(dict.fromkeys(example.kind for example in examples)))


def milestones(loops: Sequence[int]) -> list[int]:
    """The powers of two among `loops`, and the last loop."""
    return [loop for loop in loops if loop & (loop - 1) == 0 or loop == loops[-1]]


def _frame_at(loops: Sequence[Any], trained: int) -> Any:
    return next((frame for frame in loops if frame.loop == trained), loops[-1])


def _percent(share: float) -> int:
    """A share in percent, from 0 to 100. A model that diverges has shares that are no numbers; they count as 0."""
    return round(100 * min(1.0, max(0.0, share))) if share == share else 0


def _sure(confidence: float) -> bool:
    return confidence >= UNDECIDED  # False for NaN


# A board: one grid per chosen loop, and with JavaScript one more with a slider over all loops.

BOARD_STATES = {"g": "given", "r": "right", "w": "wrong", "u": "undecided"}


def _board_states(example: Board, frame: BoardFrame) -> str:
    """One letter per cell: given, right, wrong or undecided."""
    cells = zip(example.given, example.solution, frame.cells, frame.confidence, strict=True)
    return "".join(
        "g" if given else "u" if not _sure(confidence) else "r" if cell == solution else "w"
        for given, solution, cell, confidence in cells
    )


def _board_right(example: Board, frame: BoardFrame) -> bool:
    cells = zip(example.given, example.solution, frame.cells, strict=True)
    return all(given or cell == solution for given, solution, cell in cells)


def _count_text(states: str) -> str:
    blanks = len(states) - states.count("g")
    rest = [f", {n} {name}" for name, n in (("wrong", states.count("w")), ("undecided", states.count("u"))) if n]
    return f"{states.count('r')} of {blanks} right{''.join(rest)}"


def _board_grid(example: Board, digits: Sequence[int], states: str, label: str) -> str:
    side, box = example.side, example.box
    cells = []
    for i, (digit, state) in enumerate(zip(digits, states, strict=True)):
        row, column = divmod(i, side)
        right = " edge-right" if (column + 1) % box == 0 and column + 1 < side else ""
        bottom = " edge-bottom" if (row + 1) % box == 0 and row + 1 < side else ""
        cells.append(f'<i class="{state}{right}{bottom}">{int(digit)}</i>')
    text = escape(f"{label}: {_count_text(states)}")
    return f'<div class="board" style="--side:{int(side)}" role="img" aria-label="{text}">{"".join(cells)}</div>'


def _board(example: Board, trained: int) -> str:
    loops = [frame.loop for frame in example.loops]
    frames = []
    for frame in example.loops:
        digits = [given or cell for given, cell in zip(example.given, frame.cells, strict=True)]
        frames.append((frame.loop, digits, _board_states(example, frame)))
    chosen = loops if len(loops) <= 4 else milestones(loops)
    boards = []
    for loop, digits, states in frames:
        if loop in chosen:
            mark = " (as trained)" if loop == trained else ""
            grid = _board_grid(example, digits, states, f"Board after loop {loop}")
            caption = f"<b>Loop {loop}</b>{mark}<br>{_count_text(states)}"
            boards.append(f'<div class="frame">{grid}<p class="caption">{caption}</p></div>')
    player = ""
    if len(loops) > len(chosen):  # every loop, also those left out: a slider, shown by the page's script
        data = [[loop, "".join(map(str, digits)), states, _count_text(states)] for loop, digits, states in frames]
        last = frames[-1]
        grid = _board_grid(example, last[1], last[2], "Board after the loop on the slider")
        player = (
            f'<div class="frame player" hidden data-frames="{escape(json.dumps(data))}">{grid}'
            f'<p class="caption"><label><b>Loop <output>{last[0]}</output></b> '
            f'<input type="range" min="0" max="{len(data) - 1}" value="{len(data) - 1}"></label>'
            f"<br><span>{_count_text(last[2])}</span></p></div>"
        )
    rating = f" Rating {escape(example.rating)}." if example.rating is not None else ""
    clues = sum(1 for given in example.given if given)
    return (
        f'<figure class="visualisation"><figcaption>A board with {clues} clues.{rating}</figcaption>'
        f'<div class="frames" style="--side:{int(example.side)}">{player}{"".join(boards)}</div></figure>'
    )


# A distribution: a heat map, rows are loops and columns are labels.


def _likeliest(frame: DistributionFrame) -> str:
    return max(frame.probabilities, key=lambda pair: (pair[1] == pair[1], pair[1]))[0]


def _distribution_right(example: Distribution, frame: DistributionFrame) -> bool:
    return _likeliest(frame) == example.answer


def _distribution(example: Distribution, trained: int) -> str:
    answer = example.answer
    labels = example.labels
    head = "".join(
        f'<th scope="col" class="answer">{escape(label)}</th>' if label == answer else
        f'<th scope="col">{escape(label)}</th>' for label in labels
    )  # fmt: skip
    rows = []
    for frame in _rows(example.loops, trained):
        cells = []
        for label, p in frame.probabilities:
            percent = _percent(p)
            kind = ("answer " if label == answer else "") + ("hot" if percent >= 70 else "")
            text = str(percent) if percent >= 1 else ""
            cells.append(f'<td class="{kind.strip()}" style="--p:{percent}%">{text}</td>')
        rows.append(_loop_row(frame, trained, cells, _distribution_right(example, frame)))
    table = _loop_table(f'<th scope="col">loop</th>{head}<th scope="col"></th>', rows, "heat")
    return _figure(example.title, example.input, answer, table)


# Slots: a sequence that is answered in parallel, rows are loops and columns are slots.


def _slots_right(example: Slots, frame: SlotsFrame) -> bool:
    return frame.slots == example.answer


def _slots(example: Slots, trained: int) -> str:
    answer = example.answer or ("",) * len(example.loops[0].slots)
    rows = []
    for frame in _rows(example.loops, trained):
        cells = []
        for right, slot, confidence in zip(answer, frame.slots, frame.confidence, strict=True):
            state = "u" if not _sure(confidence) else "r" if slot == right else "w"
            cells.append(
                f'<td class="{state}" title="{BOARD_STATES[state]}, {_percent(confidence)}% sure">{escape(slot)}</td>'
            )
        rows.append(_loop_row(frame, trained, cells, _slots_right(example, frame)))
    cells = "".join(f"<td>{escape(slot)}</td>" for slot in answer)
    rows.append(f'<tr class="solution"><th scope="row">answer</th>{cells}<td></td></tr>')
    head = '<th scope="col">loop</th>' + f'<th scope="col" colspan="{len(answer)}">slots</th><th scope="col"></th>'
    return _figure(example.title, example.input, " ".join(answer), _loop_table(head, rows, "slots"))


# Points: real values one after another, rows are loops and columns are points.


def _plain(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1e6 else f"{value:.3g}"


def _points_right(example: Points, frame: PointsFrame) -> bool:
    return abs(frame.predictions[-1] - example.truth[-1]) <= example.tolerance


def _points(example: Points, trained: int) -> str:
    truth = example.truth
    shown = milestones(range(1, len(truth) + 1))
    spread = max(map(abs, truth)) or 1.0
    rows = []
    for frame in _rows(example.loops, trained):
        cells = []
        for point in shown:
            value = frame.predictions[point - 1]
            percent = _percent(abs(value - truth[point - 1]) / spread)
            kind = "hot" if percent >= 70 else ""
            cells.append(f'<td class="{kind}" style="--p:{percent}%">{_plain(value)}</td>')
        rows.append(_loop_row(frame, trained, cells, _points_right(example, frame)))
    rows.append(
        '<tr><th scope="row">truth</th>' + "".join(f"<td>{_plain(truth[p - 1])}</td>" for p in shown) + "<td></td></tr>"
    )
    head = "".join(f'<th scope="col">{point}</th>' for point in shown)
    table = _loop_table(f'<th scope="col">loop</th>{head}<th scope="col"></th>', rows, "heat")
    return _figure(example.title, f"{len(truth)} points", f"{truth[-1]:.3g}", table)


def _rows(frames: Sequence[Any], trained: int) -> list[Any]:
    """The loops that get a row: all, or if there are many the milestones and the loops of training."""
    shown = [frame.loop for frame in frames]
    if len(shown) > MOST_ROWS:
        shown = [*milestones(shown), trained]
    return [frame for frame in frames if frame.loop in shown]


def _loop_row(frame: Any, trained: int, cells: Sequence[str], right: bool) -> str:
    mark = '<td class="verdict right">✓ right</td>' if right else '<td class="verdict">✗ wrong</td>'
    star = ' class="trained"' if frame.loop == trained else ""
    return f'<tr{star}><th scope="row">{int(frame.loop)}</th>{"".join(cells)}{mark}</tr>'


def _loop_table(head: str, rows: Sequence[str], kind: str) -> str:
    body = "".join(rows)
    return f'<div class="scroll" tabindex="0"><table class="{kind}"><tr>{head}</tr>{body}</table></div>'


def _figure(title: str, shown: str, answer: str, table: str) -> str:
    title = escape(title[:1].upper() + title[1:])
    caption = f"{title}: <code>{escape(shown)}</code>, answer <code>{escape(answer)}</code>"
    return f'<figure class="visualisation"><figcaption>{caption}</figcaption>{table}</figure>'


KINDS: dict[str, tuple[Callable[[Any, int], str], Callable[[Any, Any], bool]]] = {
    "board": (_board, _board_right),
    "distribution": (_distribution, _distribution_right),
    "slots": (_slots, _slots_right),
    "points": (_points, _points_right),
}

LEGENDS = {
    "board": (
        '<p class="legend"><span class="board key"><i class="g">5</i></span> given '
        '<span class="board key"><i class="r">5</i></span> right '
        '<span class="board key"><i class="w">5</i></span> wrong (corner) '
        '<span class="board key"><i class="u">5</i></span> undecided (ring): confidence below 0.5</p>'
    ),
    "distribution": (
        '<p class="legend">Numbers are probabilities in percent; <span class="answer-key">▾ framed</span>: the right '
        "answer. ▸: the loop count in training.</p>"
    ),
    "slots": (
        '<p class="legend"><span class="slots key"><span class="r">5</span></span> right '
        '<span class="slots key"><span class="w">5</span></span> wrong '
        '<span class="slots key"><span class="u">5</span></span> undecided: confidence below 0.5; '
        "▸: the loop count in training.</p>"
    ),
    "points": (
        '<p class="legend">Columns are points 1, 2, 4, ... and the last. Each value is predicted from all earlier '
        "points. Darker cells are farther from the truth. ✓: the last value is within the tolerance (a tenth of the "
        "spread of the values; for classes the right sign). ▸: the loop count in training.</p>"
    ),
}
