"""The page of `looped inspect`: figures, how to read them, and sentences on the numbers of inspect.json."""

from dataclasses import asdict
from typing import Any

from looped.report import inspection_figures as figures
from looped.report.blocks import Chart, Section, Sentences
from looped.report.figures import spaced
from looped.report.inspection_figures import Row
from looped.report.number_format import number
from looped.schemas.inspection import Inspection
from looped.strict import from_dict
from looped.tasks import TASKS

MOVING = 0.05  # a state that changes by less in a loop counts as converged


def inspection(numbers: Row) -> tuple[str, str, list[Section]]:
    """Title, lead sentence and sections; `numbers` is the content of inspect.json.

    Raises:
        ValueError: the numbers are not those of an inspection; names the field.
    """
    n = asdict(from_dict(Inspection, numbers))
    source = f"group {n['group']}" if n["group"] else "training distribution"
    lead = (
        f"{TASKS[n['task']].title}, {source}: {n['examples']} examples of the {n['split']} split, "
        f"{_loops(n['loops'])} ({n['trained_loops']} in training), checkpoint of step {n['step']:,}."
    )
    parts = [_answers, _layers, _motion, _jacobian, _starts, _components, _attention, _modulation, _provenance]
    return f"Inside the loop: {n['run']}", lead, [section for part in parts if (section := part(n))]


def _answers(n: Row) -> Section:
    score, answers = n["score"], n["answers"]
    line = {"middle": score["value"], "low": score["low"], "high": score["high"]}
    metric = f"{n['split']} {spaced(n['metric'])}"
    limits = None if n["lower_is_better"] else (-0.03, 1.03)
    log = n["lower_is_better"] and _wide({"middle": score["value"]})
    charts = [
        Chart(
            figures.lines_by_loop("score", n, {metric: line}, metric, limits=limits, log=log),
            "Score of the answers after each loop of one forward pass. Band: 95% interval over examples.",
        )
    ]
    if answers.get("distance") is None:
        lines = _lens(answers, "same answer as in the last loop")
        charts += [
            Chart(
                figures.lines_by_loop("lens", n, lines, "mean over positions", limits=(-0.03, 1.03)),
                "Logit lens over loops. Once all answers are the same as in the last loop (1), they are final. If the "
                "last answer is much more probable than the correct one, the model is confident but wrong.",
            ),
            Chart(
                figures.lines_by_loop("entropy", n, {"entropy": {"middle": answers["entropy"]}}, "entropy in nats"),
                "Entropy of the predicted distribution: 0 is certainty, log(number of classes) is a uniform guess.",
            ),
        ]
    else:
        values = [value or None for value in answers["distance"]]  # the last one is 0, which has no logarithm
        charts.append(
            Chart(
                figures.lines_by_loop("lens", n, {"distance": {"middle": values}}, "relative distance", log=True),
                "Distance between each loop's predictions and those of the last loop, relative to their size (root "
                "mean squares). It shows how early the answer is reached.",
            )
        )
    return Section("Answers by loop", _answers_takeaway(n), charts)


def _lens(answers: Row, agrees: str) -> dict[str, Row]:
    names = {
        "final": "probability of the last answer", "target": "probability of the correct answer", "agrees": agrees,
    }  # fmt: skip
    return {label: {"middle": answers[key]} for key, label in names.items()}


def _layers(n: Row) -> Section | None:
    found = n["layers"]
    if found is None:
        return None
    count, loop = len(found["agrees"]), min(n["trained_loops"], n["loops"])
    shares = [0.0 if share is None else share for share in found["agrees"]]
    settled = next(i for i, share in enumerate(shares, 1) if share >= 0.5 or i == count)
    takeaway = (
        f"After layer {settled} of {count} in loop {loop}, {_percent(shares[settled - 1])} of the answers are those of "
        f"layer {count}; after layer 1, {_percent(shares[0])}."
    )
    lines = _lens(found, "same answer as after the last layer")
    return Section("Answers by layer", takeaway, [
        Chart(
            figures.lines_by_loop("layers", n, lines, "mean over positions", limits=(-0.03, 1.03), unit="layer"),
            f"Logit lens over the core layers of loop {loop}: each state is read out like that after the last layer.",
        )
    ])  # fmt: skip


def _answers_takeaway(n: Row) -> str:
    score, last = n["score"], n["loops"]
    at = min(n["trained_loops"], last)
    text = f"{spaced(n['metric'])}: {number(score['value'][0])} after loop 1"
    text = f"{n['split'].capitalize()} {text}"
    if at > 1:
        text += f", {number(score['value'][at - 1])} after loop {at}"
    if n["trained_loops"] == at:
        text += ", the last of training" if at > 1 else ", the only one of training"
    if last == at:
        return f"{text}."
    text += f", {number(score['value'][-1])} after loop {last}: "
    low, high = score["beyond"]
    if low is None or high is None or low <= 0 <= high:
        return f"{text}these examples do not show whether more loops than in training help."
    if (low > 0) != n["lower_is_better"]:
        return f"{text}more loops than in training help."
    return f"{text}more loops than in training make the answers worse (overthinking)."


def _motion(n: Row) -> Section:
    motion = n["motion"]
    changes = motion["change"]["middle"]
    at = min(n["trained_loops"], n["loops"])
    change = changes[at - 1]
    if change is None:
        takeaway = f"The relative change of the state in loop {at} is not finite."
        if at == 1:
            takeaway = "Loop 1 starts from a zero state, so its relative change is undefined."
    else:
        trained = ", the last of training," * (at == n["trained_loops"])
        takeaway = f"In loop {at}{trained} the state still moves by {_percent(change)} of its size"
        takeaway += f", in loop {n['loops']} by {_percent(changes[-1])}" * (n["loops"] > at)
        converged = [i for i, value in enumerate(changes, 1) if value is not None and value < MOVING]
        takeaway += f"; it first moves by less than {MOVING:.0%} in loop {converged[0]}." if converged else (
            f"; it never moves by less than {MOVING:.0%}, so it has not converged.")  # fmt: skip
    cosines = {"state and next state": motion["cosine"], "step and next step": motion["turn"]}
    if not motion["turn"]["middle"]:
        del cosines["step and next step"]
    return Section("How far each loop moves the state", takeaway, [
        Chart(
            figures.lines_by_loop("change", n, {"state change": motion["change"]}, "|h after − h before| / |h before|",
                                  log=_wide(motion["change"])),
            "Relative change of the state in each loop. Near a fixed point it falls to 0. Line: median over examples; "
            "band: 10% to 90%. If the initial state is zero, loop 1 has no value.",
        ),
        Chart(
            figures.lines_by_loop("cosines", n, cosines, "cosine"),
            "Direction. State and next state: near 1, the loop hardly turns the state. Step and next step: negative "
            "cosines mean back and forth, cosines near 1 straight on.",
        ),
    ])  # fmt: skip


def _jacobian(n: Row) -> Section:
    found = n["jacobian"]
    at = min(n["trained_loops"], n["loops"])
    radius, norm = (found[key]["middle"][found["loop"].index(at)] for key in ("radius", "norm"))
    takeaway = f"At loop {at} the spectral radius is {number(radius)} (median): "
    if radius is None:
        takeaway += "the loop has no derivative there."
    else:
        takeaway += "small disturbances die out." if radius < 1 else "some small disturbances grow."
    takeaway += f" One loop can amplify a disturbance by a factor of {number(norm)}."
    lines = {"spectral radius": found["radius"], "spectral norm": found["norm"]}
    log = _wide(found["norm"]) or _wide({"middle": [radius, norm]})
    figure = figures.lines_by_loop(
        "jacobian", n, lines, "of the loop's Jacobian", loops=found["loop"], log=log, level=1.0
    )
    return Section("The Jacobian of a loop", takeaway, [
        Chart(
            figure,
            "Derivative of the state after a loop with respect to the state before it. If the spectral radius is below "
            "1, the loop contracts near this state in the long run. The spectral norm is the largest amplification by "
            f"one loop. Line: median over {found['examples']} examples; band: 10% to 90%. Computed by power iteration, "
            "accurate to a few percent.",
        )
    ])  # fmt: skip


def _starts(n: Row) -> Section:
    found = n["starts"]
    rows, at = found["rows"], min(n["trained_loops"], n["loops"])
    classes = n["answers"].get("distance") is None

    def same_answers(row: Row, loop: int) -> str:
        value = row["answers"][loop - 1]
        if value is None:
            return "the answers are zero"
        same = f"{_percent(value)} of the answers are the same"
        return same if classes else f"the answers differ by {number(value)} times their size"

    origin = "from" if found["free"] else "with"
    sentences = [f"{origin} {row['start']}, {same_answers(row, at)}" for row in rows]
    takeaway = f"After loop {at}: {'; '.join(sentences)}."
    aligned = [row["cosine"]["middle"][-1] for row in rows if row["start"] == "the last state of another example"]
    if aligned and aligned[0] is not None:
        takeaway += f" Asymptotic alignment after loop {n['loops']}: {number(aligned[0])}. Path independence gives 1, "
        takeaway += f"states of different inputs have {number(found['unrelated'])}."
    if found["free"]:
        title = "Other initial states"
        caption = "The same input with another initial state. Lines that fall to 0 show that the result does not "
        caption += "depend on the initial state (path independence)"
    else:
        title = "A disturbed input"
        caption = "This model has no input injection, so its input is only in the initial state. That state is "
        caption += "disturbed by noise, not replaced. Falling lines show that the loop repairs the disturbance"
    distances = {row["start"]: row["distance"] for row in rows}
    answers = {row["start"]: {"middle": row["answers"]} for row in rows}
    label = "same answers" if classes else "relative distance of answers"
    limits = (-0.03, 1.03) if classes else None
    wide = any(_wide(line) for line in distances.values()) or len(rows) > 2
    return Section(title, takeaway, [
        Chart(
            figures.lines_by_loop("starts_distance", n, distances, "|h′ − h| / |h|", log=wide),
            f"{caption}. Distance of the states after each loop. Line: median over {found['examples']} examples; band: "
            "10% to 90%.",
        ),
        Chart(
            figures.lines_by_loop("starts_answers", n, answers, label, limits=limits),
            "Effect on the output: the answers from both initial states, compared after the same loop.",
        ),
    ])  # fmt: skip


def _components(n: Row) -> Section:
    explained = n["components"]["explained"]
    share = None if None in explained else sum(explained)
    takeaway = f"Two directions explain {_percent(share)} of the variance over all states and loops."
    caption = (
        "States at some answer positions, loop by loop, in the plane in which all states vary most. A path that ends "
        "in a point has reached a fixed point. A path that circles or continues straight has not."
    )
    return Section("Paths of the states", takeaway, [Chart(figures.paths("paths", n), caption)])


def _attention(n: Row) -> Section | None:
    found = n["attention"]
    if found is None:
        return None
    shown = min(found["positions"], len(found["maps"][0][0]))
    part = "all" if shown == found["positions"] else "the first"
    caption = f"Attention of the first example for {part} {shown} positions. Rows are queries, columns are keys. "
    caption += "Darker is more, on a square-root scale."
    charts = [Chart(figures.attention("attention", n), caption)]
    takeaway = "Scores of linear attention do not sum to 1; their absolute values are shown."
    if found.get("keys"):
        at = found["loop"].index(min(n["trained_loops"], n["loops"]))
        first, trained = (_mean([layer[i] for layer in found["keys"]]) for i in (0, at))
        takeaway = f"A query attends to effectively {first} of {found['positions']} keys in loop {found['loop'][0]}"
        takeaway += f" and to {trained} in loop {found['loop'][at]}." if at else "."
        lines = {f"layer {i}": {"middle": layer} for i, layer in enumerate(found["keys"][: figures.MOST_LAYERS], 1)}
        charts.append(
            Chart(
                figures.lines_by_loop("keys", n, lines, "effective number of keys", loops=found["loop"]),
                "Exponential of the entropy of a query's attention, mean over heads and queries of that example; 1 "
                "means a single key.",
            )
        )
    return Section("Attention by loop", takeaway, charts)


def _modulation(n: Row) -> Section | None:
    found = n["modulation"]
    if not found:
        return None
    last = min(n["trained_loops"], n["loops"]) - 1
    spans: list[tuple[float, str]] = []
    for name, layers in found.items():
        for i, size in enumerate((layer["size"] for layer in layers), 1):
            text = (
                f"the {spaced(name)} of layer {i}: {number(size[0])} in loop 1, {number(size[last])} in loop {last + 1}"
            )
            text += f", {number(size[-1])} in loop {n['loops']}" * (n["loops"] > last + 1)
            ends = (size[0], size[last])
            spans.append((0.0 if None in ends else abs(ends[1] - ends[0]), text))
    moved, text = max(spans)
    takeaway = f"The largest change in size (root mean square over channels) is that of {text}." if moved > 0 else (
        "The modulation is the same in the first and the last loop of training.")  # fmt: skip
    caption = (
        "Modulation of each layer in each loop. Scales multiply a sublayer's input, gates multiply its output, shifts "
        "are added. Line: median over channels; band: 10% to 90%. Loops right of the dashed line were not trained."
    )
    return Section("Modulation by loop", takeaway, [Chart(figures.modulation("modulation", n), caption)])


def _provenance(n: Row) -> Section:
    kept = ("machine", "device", "python", "torch", "looped")
    settings = ", ".join(f"{key} {n['environment'][key]}" for key in kept if key in n["environment"])
    command = n["environment"].get("command", "not recorded")
    return Section("How this was measured", f"Recipe {n['recipe']}, seed {n['seed']}.", [
        Sentences([f"Command: {command}", f"{settings}.", "All numbers are in inspect.json."])
    ])  # fmt: skip


def _wide(line: Row) -> bool:
    """Whether positive values span more than a decade and need a logarithmic axis."""
    values = [value for values in line.values() for value in values if value is not None]
    return bool(values) and min(values) > 0 and max(values) / 10 > min(values)


def _mean(values: list[float | None]) -> str:
    finite = [value for value in values if value is not None]
    return f"{sum(finite) / len(finite):.1f}" if finite else "an unknown number"


def _percent(share: float | None) -> str:
    if share is None:
        return "an amount that is not finite"
    if share > 1000:
        return f"{share:.3g} times"
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _loops(count: Any) -> str:
    return f"{count} loop{'' if count == 1 else 's'}"
