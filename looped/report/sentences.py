"""Sentences about a problem, computed from its scores."""

from collections.abc import Mapping, Sequence

from looped.report.comparison import Difference, Estimate, Problem, rank, validation_mean
from looped.report.number_format import amount, interval, number, signed


def scores_sentence(problem: Problem) -> str:
    """The best and the worst variant at the loops in training, with their parameters where these differ.

    Among equal scores, the best is that with the fewest parameters.
    """
    variants = sorted(problem.variants, key=lambda v: v.mean_of("parameters"))
    scored = {v.name: e for v in variants if (e := problem.headline(v))}
    if not scored:
        return "No finished run has been evaluated yet."
    sizes = {v.name: amount(v.mean_of("parameters")) for v in variants}
    differ = len({*sizes.values()}) > 1
    named = {name: f"{name} ({sizes[name]})" if differ else name for name in scored}
    best = max(scored, key=lambda name: problem.rank(scored[name].value))
    worst = min(scored, key=lambda name: problem.rank(scored[name].value))
    bottom, top = scored[worst], scored.pop(best)
    best = f"{best} ({sizes[best]} parameters)" if differ else best
    if not scored:
        return f"{best} scores {interval(top)}."
    near = [name for name, e in scored.items() if e.low <= top.high and top.low <= e.high]
    most, least = ("lowest", "highest") if problem.lower_is_better else ("highest", "lowest")
    text = f"{best} has the {most} mean{' error' if problem.lower_is_better else ''}, {interval(top)}"
    if near:
        text += f", but its interval overlaps with that of {joined([named[name] for name in near])}."
    else:
        text += "; its interval overlaps with no other."
    return text if worst in near or len(scored) == 1 else f"{text} {named[worst]} has the {least}, {interval(bottom)}."


def climb_sentence(problem: Problem) -> str:
    """The variant that gains most from the first loop to those in training; '' without any."""
    climbs: list[tuple[float, str]] = []
    for variant in problem.variants:
        counts = problem.loops(variant) or [variant.trained_loops]
        first, last = counts[0], counts[-1]
        start, trained, end = (
            problem.estimate(variant, problem.metric, n) for n in (first, variant.trained_loops, last)
        )
        if first < variant.trained_loops and start and trained and end:
            text = f"{variant.name} goes from {number(start.value)} after {counted(first, 'loop')} "
            text += f"to {number(trained.value)} "
            text += f"after {variant.trained_loops} (as in training)"
            text += f", and to {number(end.value)} after {last}." if last > variant.trained_loops else "."
            climbs.append((problem.rank(trained.value) - problem.rank(start.value), text))
    return max(climbs)[1] if climbs else ""


def overthinking_sentence(name: str, scores: Mapping[int, Estimate], lower_is_better: bool) -> str:
    """Says that the largest loop count scores worse than a smaller one; '' unless by more than the latter's interval.

    Args:
        scores: by loop count, at least one.
    """
    best = max(sorted(scores), key=lambda count: rank(scores[count].value, lower_is_better))
    most = max(scores)
    edge = scores[best].high if lower_is_better else scores[best].low
    if rank(scores[most].value, lower_is_better) >= rank(edge, lower_is_better):
        return ""
    return (
        f"Overthinking: {name} is best after {counted(best, 'loop')}, {interval(scores[best])}, "
        f"and worse after {most}, {interval(scores[most])}."
    )


def difference_sentence(difference: Difference, lower_is_better: bool = False) -> str:
    """A sentence about two variants. It claims a difference only if `Difference.claimed`."""
    pair = zip((difference.first, difference.second), difference.scores, strict=True)
    (better, a), (worse, b) = sorted(pair, key=lambda p: -rank(p[1].value, lower_is_better))
    loops = counted(better.trained_loops, "loop")
    scores = f"{interval(a)} against {interval(b)}"
    if difference.claimed:
        beats = "has a lower error" if lower_is_better else "scores higher"
        return f"{better.name} {beats} than {worse.name} at {loops}: {scores}, over {difference.seeds} paired seeds."
    names = f"{difference.first.name} and {difference.second.name} at {loops}"
    if difference.seeds < 2:
        return f"No claim about {names}: with fewer than two shared seeds, another seed may reverse it ({scores})."
    why = "their intervals overlap" if difference.overlap else "the paired difference may be zero"
    return (
        f"The difference between {names} is within seed noise: {why} ({scores}; difference {signed(difference, ' ')})."
    )


def curves_sentence(problem: Problem) -> str:
    """The variants with the best and the worst validation score."""
    best = {v.name: mean for v in problem.variants if (mean := validation_mean(v.runs)) is not None}
    if len(best) < len(problem.variants):
        return "Not every run has a validation score."
    order = sorted(best, key=lambda name: -problem.rank(best[name]))
    ends = ("the lowest", "the highest") if problem.lower_is_better else ("the highest", "the lowest")
    score = "error" if problem.lower_is_better else "score"
    text = f"Best validation {score}, mean over seeds: {number(best[order[0]])} for {order[0]}"
    if len(order) == 1:
        return f"{text}."
    return f"{text} ({ends[0]}), {number(best[order[-1]])} for {order[-1]} ({ends[1]})."


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
