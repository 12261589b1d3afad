"""Statistics of `benchmarks.when_timestep`: `python -m benchmarks.when_timestep_statistics results/when-timestep`.

It prints the tables of notes.md and draws the figure. A seed is the unit: it draws its own functions, data and weights.
All differences are paired by seed. Every interval is Student's t over seeds.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import stats
from scipy.optimize import brentq

from benchmarks.when_timestep import ARMS, DELTAS, LOOPS, PILOT, PILOT_SEEDS, RATES, SEEDS, TARGETS
from looped.files import write_atomic
from looped.report.figures import INK, SERIES, STYLE
from looped.report.svg_figures import svg_bytes

Array = np.ndarray
Scores = Float[Array, "seeds targets loops"]
EFFECT = 0.02
"""The difference of the score that the power analysis asks for."""
TERMS = ("mean gain", "slope in roughness", "slope in log2 loops", "roughness x log2 loops")


class Interval(NamedTuple):
    """A mean over seeds, the ends of its 95% interval, and the p-value of a mean of zero."""

    mean: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def interval(values: Float[Array, " seeds"]) -> Interval:
    mean, half = values.mean(), stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    test: Any = stats.ttest_1samp(values, 0)
    p = test.pvalue if values.std() > 0 else float(mean == 0)
    return Interval(float(mean), float(mean - half), float(mean + half), float(p))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, which control the chance of any false positive among them."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(np.array(p)[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted[np.argsort(order)].tolist()


def power(effect: float, deviation: float, seeds: int) -> float:
    """The chance that a paired t-test at 5% sees a mean difference, whose values have this standard deviation."""
    critical, shift = stats.t.ppf(0.975, seeds - 1), effect / deviation * seeds**0.5
    return float(stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift))


def seeds_needed(deviation: float, effect: float = EFFECT) -> int:
    """The fewest seeds with a power of 80%."""
    return next(n for n in range(2, 100_000) if power(effect, deviation, n) >= 0.8)


def smallest_effect(deviation: float, seeds: int) -> float:
    """The smallest difference that is seen with a power of 80%."""
    high = 0.01 * deviation
    while power(high, deviation, seeds) < 0.8:
        high *= 2
    root: Any = brentq(lambda effect: power(effect, deviation, seeds) - 0.8, high / 2, high)
    return float(root)


def complete_seeds(runs: list[dict[str, Any]]) -> list[int]:
    """The seeds with all their cells."""
    cells = len(TARGETS) * len(LOOPS) * len(ARMS)
    return [seed for seed in SEEDS if sum(run["seed"] == seed for run in runs) == cells]


def scores(runs: list[dict[str, Any]], seeds: Sequence[int], targets: Sequence[Any], rates: Any) -> dict[str, Scores]:
    """The scores of each arm that is named in `rates`, at these rates. Raises KeyError if one is not stored."""
    found = {(run["target"], run["arm"], run["loops"], run["rate"], run["seed"]): run["score"] for run in runs}
    return {
        arm: np.array([[[found[str(t), arm, n, of[str(n)], seed] for n in LOOPS] for t in targets] for seed in seeds])
        for arm, of in rates.items()
    }


def coefficients(gain: Scores, roughness: Float[Array, "seeds targets"]) -> Float[Array, "seeds 4"]:
    """For each seed, the mean gain and the least-squares slopes of the gain over its cells; see TERMS.

    Each family has its own intercept, because the families also differ in data. Roughness is counted from the family's
    mean and log2 loops from their mean, so the slopes are those at the middle of the design.
    """
    families = np.array([[t.family == family for t in TARGETS] for family in ("fourier", "labels")], float)
    log_loops = np.log2(LOOPS) - np.log2(LOOPS).mean()
    rows = []
    for seed_gain, seed_roughness in zip(gain, roughness, strict=True):
        centred = seed_roughness - families.T @ (families @ seed_roughness / families.sum(1))
        columns = [*families.repeat(len(LOOPS), 1), np.repeat(centred, len(LOOPS))]
        columns += [np.tile(log_loops, len(TARGETS)), np.outer(centred, log_loops).ravel()]
        fit = np.linalg.lstsq(np.stack(columns, 1), seed_gain.ravel(), rcond=None)[0]
        rows.append([seed_gain.mean(), *fit[2:]])
    return np.array(rows)


class Analysis:
    """All numbers of the notes, from the stored runs."""

    def __init__(self, content: dict[str, Any]) -> None:
        rates = content["rates"]
        self.pilot = scores(content["pilot"], PILOT_SEEDS, PILOT, rates)
        self.rates, self.parameters = rates, content["parameters"]
        self.seeds = complete_seeds(content["runs"])
        self.scores = scores(content["runs"], self.seeds, TARGETS, rates)
        same_rate = scores(content["runs"] + content["same_rate"], self.seeds, TARGETS, {"frozen": rates["modulated"]})
        self.gain_at_equal_rates = self.scores["modulated"] - same_rate["frozen"]
        """The gain over frozen where both have the rates of the modulated arm."""
        self.roughness_at = {
            delta: np.array([found[str(t)] for t in TARGETS])[:, self.seeds].sum(2).T
            for delta, found in content["moduli"].items()
        }
        self.roughness = self.roughness_at[f"{DELTAS[0]:g}"]
        """omega_tok + omega_cont of every function (seeds, targets), the bound of the jump between neighbours."""

    def gain(self, arm: str, over: str) -> Scores:
        return self.scores[arm] - self.scores[over]

    def pilot_lines(self) -> Iterator[str]:
        """The power analysis: a row for each comparison."""
        cells = len(TARGETS) * len(LOOPS)
        yield f"| modulated against | deviation in a cell | seeds for {EFFECT} | in the mean of {cells} cells | seeds |"
        yield "|---|---:|---:|---:|---:|"
        for over in ARMS[:-1]:
            difference = self.pilot["modulated"] - self.pilot[over]
            cell = float(np.sqrt(difference.var(axis=0, ddof=1).mean()))
            mean = cell / cells**0.5  # if the cells of a seed are independent
            yield f"| {over} | {cell:.4f} | {seeds_needed(cell)} | {mean:.4f} | {seeds_needed(mean)} |"

    def rate_lines(self) -> Iterator[str]:
        yield "| arm | parameters | " + " | ".join(f"{n} loops" for n in LOOPS) + " |"
        yield "|---|---:" + "|---:" * len(LOOPS) + "|"
        for arm in ARMS:
            values = " | ".join(f"{self.rates[arm][str(n)]:g}" for n in LOOPS)
            yield f"| {arm} | {self.parameters[arm]:,} | {values} |"

    def score_lines(self) -> Iterator[str]:
        """Mean scores of the arms, and the gain over plain and over frozen, for each target and number of loops."""
        yield "| target | roughness | loops | plain | wide | frozen | modulated | gain over plain | gain over frozen |"
        yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
        for i, target in enumerate(TARGETS):
            for j, loops in enumerate(LOOPS):
                means = " | ".join(f"{self.scores[arm][:, i, j].mean():.3f}" for arm in ARMS)
                gains = " | ".join(str(interval(self.gain("modulated", over)[:, i, j])) for over in ("plain", "frozen"))
                yield f"| {target} | {self.roughness[:, i].mean():.2f} | {loops} | {means} | {gains} |"

    def primary(self) -> list[tuple[str, str, Interval, float, float]]:
        """The eight primary tests: over, term, interval, adjusted p, smallest visible effect."""
        rows = [
            (over, term, interval(values), smallest_effect(float(values.std(ddof=1)), len(self.seeds)))
            for over in ("plain", "frozen")
            for term, values in zip(TERMS, coefficients(self.gain("modulated", over), self.roughness).T, strict=True)
        ]
        adjusted = holm([row[2].p for row in rows])
        return [(over, term, found, p, seen) for (over, term, found, seen), p in zip(rows, adjusted, strict=True)]

    def primary_lines(self) -> Iterator[str]:
        yield "| modulated against | quantity | estimate | p (Holm, 8 tests) | smallest visible |"
        yield "|---|---|---:|---:|---:|"
        for over, term, found, p, seen in self.primary():
            yield f"| {over} | {term} | {found} | {p:.3f} | {seen:.3f} |"

    def sensitivity_lines(self) -> Iterator[str]:
        """The slope in roughness with two other choices: moduli at the larger distance, and the log of the error."""
        yield "| modulated against | slope, moduli at 1/8 | slope of the log of the error's ratio, moduli at 1/32 |"
        yield "|---|---:|---:|"
        for over in ("plain", "frozen"):
            wider = coefficients(self.gain("modulated", over), self.roughness_at[f"{DELTAS[1]:g}"])[:, 1]
            ratio = coefficients(-self.log_ratio("modulated", over), self.roughness)[:, 1]
            yield f"| {over} | {interval(wider)} | {interval(ratio)} |"

    def same_rate_lines(self) -> Iterator[str]:
        """The mean gain over frozen, where frozen has the rates of the modulated arm."""
        fourier = np.array([t.family == "fourier" for t in TARGETS])
        parts = (gain := self.gain_at_equal_rates, gain[:, fourier], gain[:, ~fourier])
        yield "| difference at equal rates | all cells | fourier | labels |"
        yield "|---|---:|---:|---:|"
        yield f"| modulated - frozen | {' | '.join(str(interval(part.mean(axis=(1, 2)))) for part in parts)} |"

    def log_ratio(self, arm: str, over: str) -> Scores:
        """The log of the ratio of two arms' errors; errors below 1e-4 count as 1e-4."""
        error, other = (np.log((1 - self.scores[name]).clip(1e-4)) for name in (arm, over))
        return error - other

    def cells(self) -> list[tuple[str, int, str, Interval, float]]:
        """All cells and comparisons: target, loops, over, interval, adjusted p."""
        rows = [
            (str(target), loops, over, interval(self.gain("modulated", over)[:, i, j]))
            for over in ARMS[:-1] for i, target in enumerate(TARGETS) for j, loops in enumerate(LOOPS)
        ]  # fmt: skip
        return [(*row, p) for row, p in zip(rows, holm([row[3].p for row in rows]), strict=True)]

    def secondary_lines(self) -> Iterator[str]:
        """Mean differences between arms, over all cells and in each family."""
        fourier = np.array([t.family == "fourier" for t in TARGETS])
        yield "| difference | all cells | fourier | labels | error, geometric mean ratio |"
        yield "|---|---:|---:|---:|---:|"
        for arm, over in (*(("modulated", a) for a in ARMS[:-1]), ("frozen", "plain"), ("wide", "plain")):
            gain = self.gain(arm, over)
            parts = (gain, gain[:, fourier], gain[:, ~fourier])
            mean, low, high, _ = interval(self.log_ratio(arm, over).mean(axis=(1, 2)))
            means = " | ".join(str(interval(part.mean(axis=(1, 2)))) for part in parts)
            yield f"| {arm} - {over} | {means} | {np.exp(mean):.3f} [{np.exp(low):.3f}, {np.exp(high):.3f}] |"

    def figure(self) -> bytes:
        """The gain over plain and over frozen against the roughness, by number of loops and family."""
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(7.2, 3.9))
            panels = figure.subplots(1, 2, sharey=True)
            gains = {"plain": self.gain("modulated", "plain"), "frozen, at equal rates": self.gain_at_equal_rates}
            for axes, (over, gain) in zip(panels, gains.items(), strict=True):
                for j, (loops, (color, marker, _)) in enumerate(zip(LOOPS, SERIES, strict=False)):
                    found = [interval(gain[:, i, j]) for i in range(len(TARGETS))]
                    x = self.roughness.mean(axis=0) + 0.06 * (j - 1.5)
                    y, size = np.array([f.mean for f in found]), np.array([f.high - f.mean for f in found])
                    axes.errorbar(x, y, size, color=color, marker=marker, ls="", lw=1.1, label=f"{loops} loops")
                    hollow = np.array([t.family == "labels" for t in TARGETS])
                    axes.plot(x[hollow], y[hollow], marker, color=color, mfc="white", zorder=3)
                axes.axhline(0, color=INK, lw=0.8)
                axes.set(title=f"modulated minus {over}", xlabel="roughness (moduli at 1/32, in deviations)")
            panels[0].set_ylabel("gain of the score")
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower left", ncols=4)
            return svg_bytes(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of results.json")
    folder = parser.parse_args().folder
    content = json.loads((folder / "results.json").read_text())
    analysis = Analysis(content)
    parts = [analysis.rate_lines(), analysis.pilot_lines()]
    if analysis.seeds:
        parts += [analysis.primary_lines(), analysis.sensitivity_lines(), analysis.secondary_lines()]
        parts += [analysis.same_rate_lines(), analysis.score_lines()]
        write_atomic(folder / "gain.svg", analysis.figure())
    print("\n\n".join("\n".join(lines) for lines in parts))
    cells = [row for row in analysis.cells() if row[-1] < 0.05] if analysis.seeds else []
    print(f"\nseeds {analysis.seeds}; cells beyond chance after Holm's correction:")
    for target, loops, over, found, p in cells:
        print(f"{target}, {loops} loops, over {over}: {found}, p={p:.3f}")
    edge = sum(rate in (min(RATES), max(RATES)) for rates in analysis.rates.values() for rate in rates.values())
    print(f"rates at an end of the grid: {edge} of {len(ARMS) * len(LOOPS)}")


if __name__ == "__main__":
    main()
