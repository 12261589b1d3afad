"""Model cards: the README.md of a folder for the hub, with facts from a run folder. Texts from it stay texts."""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from looped.extras import need
from looped.model_config import ModelConfig
from looped.printing import escape_markdown, printable
from looped.run_folder import (
    Calibration,
    Environment,
    EvalRow,
    ExitRow,
    PolicyRow,
    Summary,
    read_config,
    read_file,
    read_rows,
)

TAGS = ["looped", "recurrent-depth", "looped-transformer"]
TASKS_OF_THE_HUB = {
    "AutoModelForCausalLM": "text-generation", "AutoModelForSequenceClassification": "text-classification",
}  # fmt: skip
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def model_card(
    model: Any,
    name: str,
    *,
    auto_class: str | None = None,
    code: str | None = None,
    run: Path | None = None,
    weights_license: str | None = None,
) -> str:
    """The text of README.md: metadata that the hub reads, use, scores by loop count, training and limits.

    Args:
        model: a `LoopedTransformer`.
        name: of the model, such as the name of its folder.
        auto_class: the class of `transformers` that loads the folder; None is for `LoopedTransformer.load`.
        code: the file in the folder with the model's code, which then needs no `looped`.
        run: the run folder; None leaves out scores and training.
        weights_license: of the weights, as the hub names it, such as apache-2.0; None says that it is not known.

    Raises:
        ValueError: a file of the run folder is malformed; names file, line and field.
    """
    config = model.config
    rows = [] if run is None else [row for row in read_rows(run, EvalRow) if not isinstance(row, ExitRow | PolicyRow)]
    parts = [
        _metadata(config, name, rows, run, weights_license, auto_class),
        f"# {escape_markdown(name)}",
        _what(config, sum(parameter.numel() for parameter in model.parameters())),
        _use(config, auto_class, code),
    ]
    if run is not None:
        parts += [_scores(rows, config), _recommended(run), _training(run)]
    parts.append(_limits(config, weights_license, code))
    return "\n\n".join(filter(None, parts)) + "\n"


def _metadata(
    config: ModelConfig, name: str, rows: Sequence[EvalRow], run: Path | None, weights_license: str | None,
    auto_class: str | None,
) -> str:  # fmt: skip
    """The YAML block, written by huggingface_hub, which also checks it."""
    hub = need("huggingface_hub", "a model card")
    task = None if run is None else read_config(run).task
    dataset = str(getattr(task, "dataset", None) or "").partition(":")[0]
    results = [
        hub.EvalResult(
            task_type="text-generation",
            dataset_type=printable(task.name),
            dataset_name=printable(f"{task.name}: {row.group}"),
            dataset_config=printable(row.group),
            dataset_split=printable(row.split),
            metric_type=printable(row.metric),
            metric_name=printable(f"{row.metric}, {row.num_loops} loops"),
            metric_value=row.value,
        )
        for row in rows
        if task is not None and row.num_loops == config.num_loops and math.isfinite(row.value)
    ]
    facts: dict[str, Any] = {
        "license": weights_license,
        "library_name": "transformers" if auto_class else "looped",
        "pipeline_tag": TASKS_OF_THE_HUB.get(auto_class or ""),
        "tags": TAGS,
        "datasets": [dataset] if HUB_NAME.fullmatch(dataset) else None,
        "metrics": sorted({printable(row.metric) for row in rows}) or None,
        "model_name": printable(name) if results else None,
        "eval_results": results or None,
    }
    return f"---\n{hub.ModelCardData(**facts).to_yaml()}\n---"


def _what(config: ModelConfig, parameters: int) -> str:
    c = config
    times = "once" if c.num_loops == 1 else f"{c.num_loops} times in a row"
    core = f"a core of {_count(c.core_layers, 'layer')} that is applied {times}"
    places = ((c.prelude_layers, "before"), (c.coda_layers, "after"))
    around = [f"{_count(layers, 'layer')} {where} it" for layers, where in places if layers]
    depth = c.prelude_layers + c.core_depth * c.num_loops + c.coda_layers
    return (
        f"A looped transformer: {' and '.join([core, *around])}. It has {parameters:,} weights and the depth of "
        f"{_count(depth, 'layer')}. The number of loops can be chosen in each call, because the loops share "
        f"{'their' if not c.own_weights else 'a part of their'} weights."
    )


def _use(config: ModelConfig, auto_class: str | None, code: str | None) -> str:
    if auto_class is None:
        return """## Use

```python
from looped import LoopedTransformer

model = LoopedTransformer.load(FOLDER)  # a local copy of this folder
output = model(tokens, num_loops=4)
```"""
    if code is None:
        return f"""## Use

```python
import looped.hf  # pip install "looped[hf]"
from transformers import {auto_class}

model = {auto_class}.from_pretrained("OWNER/NAME")  # this repository, or a local folder
```

`num_loops` and `exit_rule` (such as `"kl:0.01"`) are arguments of `from_pretrained` and of the model."""
    return f"""## Use

Without the package `looped`; `{code}` in this folder has the model:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

name = "OWNER/NAME"  # this repository, or a local folder
model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
inputs = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50, num_loops={config.num_loops})[0]))
```

With it (`pip install "looped[hf]"`), `import looped.hf` takes the place of `trust_remote_code=True`.
`num_loops` and `exit_rule` (such as `"kl:0.01"`) are arguments of `from_pretrained`, of `generate` and of the model."""


def _scores(rows: Sequence[EvalRow], config: ModelConfig) -> str:
    """Scores by loop count, a column for each."""
    if not rows:
        return "## Scores\n\nThe run has not been evaluated (`looped evaluate`)."
    counts = sorted({row.num_loops for row in rows})
    values = {(row.group, row.metric, row.num_loops): row for row in rows}
    heads = ["group", "metric", *(f"**{n}**" if n == config.num_loops else str(n) for n in counts)]
    lines = [[group, metric, *(_interval(values.get((group, metric, n))) for n in counts)]
             for group, metric in dict.fromkeys((row.group, row.metric) for row in rows)]  # fmt: skip
    table = _table(heads, [[escape_markdown(line[0]), escape_markdown(line[1]), *line[2:]] for line in lines])
    splits = ", ".join(sorted({escape_markdown(row.split) for row in rows}))
    return (
        f"## Scores by number of loops\n\n{table}\n\n"
        f"Split: {splits}. The model was trained with {_count(config.num_loops, 'loop')}. Intervals are 95%."
    )


def _recommended(run: Path) -> str:
    found = read_file(run, Calibration)
    if found is None:
        return ""
    chosen, best = found.recommendation, found.best
    rule = f"exit rule `{_code(chosen.exit_rule)}` with at most {chosen.num_loops}" if chosen.exit_rule else (
        f"{chosen.num_loops}")  # fmt: skip
    text = (
        f"## Recommended loops\n\n{rule} loops: {escape_markdown(found.metric)} {_number(chosen.value)} with "
        f"{chosen.mean_loops:.2f} loops on average, on {found.examples} examples of the {escape_markdown(found.split)} "
        f"split. The best loop count, {best.num_loops}, has {_number(best.value)}."
    )
    return f"{text} {escape_markdown(found.warning)}" if found.warning else text


def _training(run: Path) -> str:
    config, made, end = read_config(run), read_file(run, Environment), read_file(run, Summary)
    facts = [("recipe", config.recipe), ("task", config.task.name), ("note", config.note)]
    if config.start is not None:
        facts.append(("begun from", config.start.run))
    if end is not None and end.steps:
        facts += [("steps", f"{end.steps:,}"), ("examples", f"{end.examples:,}"), ("time", f"{end.seconds:,.0f} s")]
    if made is not None:
        facts += [("machine", made.machine), ("device", f"{made.device}, {made.precision}"), ("date", made.date)]
        facts.append(("versions", f"looped {made.looped}, torch {made.torch}, Python {made.python}"))
    lines = [f"- {name}: {escape_markdown(value)}" for name, value in facts if value]
    command = f"\n\n{_fenced(made.command)}" if made is not None else ""
    return "## Training\n\n" + "\n".join(lines) + command


def _limits(config: ModelConfig, weights_license: str | None, code: str | None) -> str:
    c = config
    lines = [f"A sequence has at most {c.max_seq_len} tokens."]
    if c.most_loops is not None:
        lines.append(f"It runs at most {_count(c.most_loops, 'loop')}, for which it has weights.")
    else:
        lines.append(
            f"More than {_count(c.num_loops, 'loop')} may make the answers better or worse: look at the scores."
        )
    lines.append("It was not examined for wrong, biased or harmful texts.")
    if weights_license is None:
        lines.append("The licence of the weights is not stated.")
    if code is not None:
        lines.append(f"The code in `{code}` is under the Apache License 2.0.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(row: EvalRow | None) -> str:
    return "" if row is None else f"{_number(row.value)} ({_number(row.low)}-{_number(row.high)})"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"


def _code(text: str) -> str:
    """Text inside of backticks."""
    return printable(text.replace("`", "'"))


def _fenced(text: str) -> str:
    """A block of code, whose fence is longer than any row of backticks in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{printable(text)}\n{fence}"
