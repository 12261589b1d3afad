"""The page on the inside of the loop: figures, how to read them, and what the numbers of inspect.json say."""

from typing import Any

from looped.report import inspection_figures as figures
from looped.report.content import Chart, Section, Sentences, number
from looped.report.figures import spaced
from looped.report.read import Row
from looped.tasks import TASKS

MOVING = 0.05  # a state that changes by less in a loop is said to have settled


def inspection(numbers: Row) -> tuple[str, str, list[Section]]:
    """Title, lead sentence and sections; `numbers` is the content of inspect.json."""
    n = numbers
    where = f"group {n['group']}" if n["group"] else "training distribution"
    lead = (
        f"{TASKS[n['task']].title}, {where}: {n['examples']} examples of the {n['split']} split, "
        f"{_loops(n['loops'])}, of which {n['trained_loops']} in training; checkpoint of step {n['step']:,}."
    )
    if n["loops"] < n["trained_loops"]:
        lead = lead.replace(", of which", " instead of the").replace(" in training", " of training")
    parts = [_answers, _motion, _jacobian, _starts, _components, _attention, _modulation, _provenance]
    return f"Inside the loop: {n['run']}", lead, [section for part in parts if (section := part(n))]


def _answers(n: Row) -> Section:
    score, answers = n["score"], n["answers"]
    line = {"middle": score["value"], "low": score["low"], "high": score["high"]}
    metric = f"{n['split']} {spaced(n['metric'])}"
    limits = None if n["lower_is_better"] else (-0.03, 1.03)
    log = n["lower_is_better"] and min(score["value"]) > 0 and max(score["value"]) > 10 * min(score["value"])
    charts = [
        Chart(
            figures.lines_by_loop("score", n, {metric: line}, metric, limits=limits, log=log),
            "Score of what is read out after each loop, in one pass. Band: 95% interval over examples.",
        )
    ]
    if "entropy" in answers:
        names = {
            "final": "probability of the last answer", "target": "probability of the right answer",
            "agrees": "answers as in the last loop",
        }  # fmt: skip
        lines = {label: {"middle": answers[key]} for key, label in names.items()}
        charts += [
            Chart(
                figures.lines_by_loop("lens", n, lines, "mean over positions", limits=(-0.03, 1.03)),
                "Logit lens over loops: where the answers as in the last loop reach 1, the decision has been taken; "
                "where the last and the right answer part, the loop is sure of something wrong.",
            ),
            Chart(
                figures.lines_by_loop("entropy", n, {"entropy": {"middle": answers["entropy"]}}, "entropy in nats"),
                "How undecided the readout is: 0 is certainty, the logarithm of the number of classes no idea at all.",
            ),
        ]
    else:
        values = [value or None for value in answers["distance"]]  # the last one is 0, which has no logarithm
        charts.append(
            Chart(
                figures.lines_by_loop("lens", n, {"distance": {"middle": values}}, "relative distance", log=True),
                "Distance of each loop's predictions to those of the last loop, relative to their size (root mean "
                "squares): how early the answer is there.",
            )
        )
    return Section("Answers by loop", _answers_takeaway(n), charts)


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
    if low is None or low <= 0 <= high:
        return f"{text}whether more loops than in training help or harm, these examples leave open."
    if (low > 0) != n["lower_is_better"]:
        return f"{text}more loops than in training help."
    return f"{text}beyond the loops of training the answers get worse (overthinking)."


def _motion(n: Row) -> Section:
    motion = n["motion"]
    changes = motion["change"]["middle"]
    at = min(n["trained_loops"], n["loops"])
    change = changes[at - 1]
    if change is None:
        takeaway = "Loop 1 starts at zero, so that its relative change has no size."
    else:
        trained = ", the last of training," * (at == n["trained_loops"])
        takeaway = f"In loop {at}{trained} the state still moves by {_percent(change)} of its size"
        takeaway += f", in loop {n['loops']} by {_percent(changes[-1])}" * (n["loops"] > at)
        settled = [i for i, value in enumerate(changes, 1) if value is not None and value < MOVING]
        takeaway += f"; it first moves by less than {MOVING:.0%} in loop {settled[0]}." if settled else (
            f"; it never moves by less than {MOVING:.0%}, and has not settled.")  # fmt: skip
    cosines = {"state and next state": motion["cosine"], "step and next step": motion["turn"]}
    if not motion["turn"]["middle"]:
        del cosines["step and next step"]
    return Section("How far each loop moves the state", takeaway, [
        Chart(
            figures.lines_by_loop("change", n, {"state change": motion["change"]}, "|h after − h before| / |h before|",
                                  log=_wide(motion["change"])),
            "State change of each loop: towards a fixed point it falls towards 0. Line: median over examples; band: "
            "10% to 90%. After a start at zero, loop 1 has none.",
        ),
        Chart(
            figures.lines_by_loop("cosines", n, cosines, "cosine"),
            "Direction: cosines near 1 of state and next state say that a loop hardly turns it; steps with a negative "
            "cosine go back and forth, near 1 they go straight on.",
        ),
    ])  # fmt: skip


def _jacobian(n: Row) -> Section:
    found = n["jacobian"]
    at = min(n["trained_loops"], n["loops"])
    radius, norm = (found[key]["middle"][found["loop"].index(at)] for key in ("radius", "norm"))
    takeaway = f"At loop {at} the spectral radius is {number(radius)} (median): "
    takeaway += "small disturbances die out there." if radius < 1 else "some small disturbances grow there."
    takeaway += f" One loop can magnify a disturbance by {number(norm)}."
    lines = {"spectral radius": found["radius"], "spectral norm": found["norm"]}
    log = _wide(found["norm"]) or _wide({"middle": [radius, norm]})
    picture = figures.lines_by_loop(
        "jacobian", n, lines, "of the loop's Jacobian", loops=found["loop"], log=log, level=1.0
    )
    return Section("The Jacobian of a loop", takeaway, [
        Chart(
            picture,
            "Derivative of the state after a loop by the state before it. Below the line at 1 a radius means that the "
            "loop contracts near this state in the long run; the norm is the worst single loop. Line: median over "
            f"{found['examples']} examples; band: 10% to 90%. By power iteration, good to a few percent.",
        )
    ])  # fmt: skip


def _starts(n: Row) -> Section:
    found = n["starts"]
    rows, at = found["rows"], min(n["trained_loops"], n["loops"])
    classes = "entropy" in n["answers"]

    def kept(row: Row, loop: int) -> str:
        value = row["answers"][loop - 1]
        if value is None:
            return "answers without a size"
        same = f"{_percent(value)} of the answers are the same"
        return same if classes else f"answers differ by {number(value)} times their size"

    origin = "from" if found["free"] else "with"
    told = [f"{origin} {row['start']} {kept(row, at)}" for row in rows]
    takeaway = f"After loop {at}: {'; '.join(told)}."
    aligned = [row["cosine"]["middle"][-1] for row in rows if row["start"] == "the last state of another example"]
    if aligned and aligned[0] is not None:
        takeaway += (
            f" Asymptotic alignment after loop {n['loops']}: {number(aligned[0])}, where 1 is path independence "
        )
        takeaway += f"and {number(found['unrelated'])} is how alike the states of different inputs are."
    if found["free"]:
        title = "Other initial states"
        how = "The same input from another state before loop 1. Where the lines fall to 0, the way there is forgotten "
        how += "(path independence)"
    else:
        title = "A disturbed input"
        how = "This model has no input injection: its input is only in the initial state, which is therefore disturbed "
        how += (
            "by noise of so many times its size, not replaced. Where the lines fall, the loop repairs the disturbance"
        )
    distances = {row["start"]: row["distance"] for row in rows}
    answers = {row["start"]: {"middle": row["answers"]} for row in rows}
    label = "same answers" if classes else "relative distance of answers"
    limits = (-0.03, 1.03) if classes else None
    wide = any(_wide(line) for line in distances.values()) or len(rows) > 2
    return Section(title, takeaway, [
        Chart(
            figures.lines_by_loop("starts_distance", n, distances, "|h′ − h| / |h|", log=wide),
            f"{how}. Distance of the states after each loop; line: median over {found['examples']} examples; band: 10% "
            "to 90%.",
        ),
        Chart(
            figures.lines_by_loop("starts_answers", n, answers, label, limits=limits),
            "What of it reaches the readout: the answers from both starts after the same loop.",
        ),
    ])  # fmt: skip


def _components(n: Row) -> Section:
    explained = n["components"]["explained"]
    takeaway = f"Two directions hold {_percent(sum(explained))} of the variance of all states and loops."
    caption = (
        "States of some answers, loop after loop, in the plane in which all states vary most. A path that ends in a "
        "point has reached a fixed point; one that circles or runs straight on has not."
    )
    return Section("Paths of the states", takeaway, [Chart(figures.paths("paths", n), caption)])


def _attention(n: Row) -> Section:
    found = n["attention"]
    shown = min(found["positions"], len(found["maps"][0][0]))
    part = "all" if shown == found["positions"] else "the first"
    caption = f"Attention of the first example: queries down, keys across, {part} {shown} positions. Darker is more, "
    caption += "on a scale of square roots."
    charts = [Chart(figures.attention("attention", n), caption)]
    takeaway = "Linear attention has scores, not shares; their sizes are shown."
    if "keys" in found:
        at = found["loop"].index(min(n["trained_loops"], n["loops"]))
        first, trained = (sum(layer[i] for layer in found["keys"]) / len(found["keys"]) for i in (0, at))
        takeaway = f"A query spreads over {first:.1f} of {found['positions']} keys in loop 1"
        takeaway += f" and over {trained:.1f} in loop {found['loop'][at]}." if at else "."
        lines = {f"layer {i}": {"middle": layer} for i, layer in enumerate(found["keys"][: figures.MOST_LAYERS], 1)}
        charts.append(
            Chart(
                figures.lines_by_loop("keys", n, lines, "effective number of keys", loops=found["loop"]),
                "Exponential of the entropy of a query's attention, mean over heads and queries of that example: 1 is "
                "a single key.",
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
            spans.append((abs(size[last] - size[0]), text))
    moved, text = max(spans)
    takeaway = f"In size (root mean square over channels) nothing changes more than {text}." if moved > 0 else (
        "The signals are the same in the first and the last loop of training.")  # fmt: skip
    caption = (
        "What the modulation tells each layer in each loop: gains multiply a sublayer's input, gates its output, "
        "shifts are added. Line: median over channels; band: 10% to 90%. Right of the dashed line: never trained."
    )
    return Section("Gains and gates over t", takeaway, [Chart(figures.signals("signals", n), caption)])


def _provenance(n: Row) -> Section:
    kept = ("machine", "device", "python", "torch", "looped")
    where = ", ".join(f"{key} {n['environment'][key]}" for key in kept if key in n["environment"])
    command = n["environment"].get("command", "not recorded")
    return Section("How this was measured", f"Recipe {n['recipe']}, seed {n['seed']}.", [
        Sentences([f"Command: {command}", f"{where}.", "All numbers are in inspect.json."])
    ])  # fmt: skip


def _wide(line: Row) -> bool:
    """Whether positive values span more than a decade, and so want a logarithmic axis."""
    values = [value for values in line.values() for value in values if value is not None]
    return bool(values) and min(values) > 0 and max(values) > 10 * min(values)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _loops(count: Any) -> str:
    return f"{count} loop{'' if count == 1 else 's'}"
