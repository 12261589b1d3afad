"""`looped plan RECIPE --gpu NAME`: a training on many GPUs, on paper."""

import json
from dataclasses import asdict, replace
from typing import Any

from looped.commands.arguments import Plan
from looped.commands.output import Table, output, print_table, say
from looped.config import RunConfig
from looped.costs.cluster import Setting
from looped.costs.count import effective_depth, parameters
from looped.costs.gpus import GPU, GPUS
from looped.costs.scale import Count, counts
from looped.printing import duration, gigabytes

DEFAULT = (8, 64, 512)
"""Numbers of GPUs: a machine, a rack, and as many as large models are trained on."""


def plan_many(options: Plan) -> None:
    """Print the costs of a step on many GPUs, and write them into a file if the options name one."""
    assert options.gpu is not None
    gpu, devices = GPUS[options.gpu], options.run.train.devices
    gpu = replace(gpu, memory=options.bytes or gpu.memory)
    numbers = options.gpus or ((devices,) if devices > 1 else DEFAULT)
    with output(options.out) as write:
        found = counts(options.run, gpu, numbers)
        if options.out:
            content = {"recipe": options.run.recipe, "gpu": {"name": options.gpu, **asdict(gpu)}}
            content |= {"parameters": parameters(options.run.model), "counts": [_with_sums(count) for count in found]}
            write(json.dumps(content, indent=2) + "\n")
    _show(options.run, options.gpu, gpu, found)


def _with_sums(count: Count) -> dict[str, Any]:
    """The fields of a count as plain data, with the sums and ratios that its settings compute from theirs."""

    def row(setting: Setting) -> dict[str, Any]:
        names = ("step", "tokens_per_second", "mfu")
        sums = {"memory_total": setting.memory.total, "overlapped": setting.communication.overlapped}
        fields = {name: value for name, value in asdict(setting).items() if name != "gpu"}
        return {**fields, **sums, **{name: getattr(setting, name) for name in names}}

    rows = {"settings": [row(setting) for setting in count.settings]}
    return {**asdict(count), **rows, "recommended": row(count.recommended) if count.recommended else None}


def _show(run: RunConfig, name: str, gpu: GPU, found: list[Count]) -> None:
    model, train = run.model, run.train
    depth = effective_depth(model, run.most_loops)
    loops = "1 loop" if run.most_loops == 1 else f"{run.most_loops} loops"
    say(f"{run.recipe}: {parameters(model):,} parameters, effective depth {depth} with {loops}")
    although = f", although train.precision={train.precision}" if train.precision == "fp32" else ""
    say(f"a step: {train.batch_size:,} sequences of {model.max_seq_len:,} positions, computed in bf16{although}")
    say(f"{name}: {gigabytes(gpu.memory)}, {gpu.flops / 1e12:,.0f} TFLOP/s; no step was measured (docs/scale.md)")
    key = ("GPUs", "strategy", "recompute", "parts")
    memory = Table(*key, "weights", "gradients", "moments", "averages", "16 bits", "gathered", "activations", "memory")
    speed = Table(*key, "sent", "sent by loop", "overlapped", "step", "tokens/s", "MFU", "")
    doubled = Table("GPUs", "twice the GPUs", "twice the loops", "twice the width")
    for count in found:
        for setting in count.settings:
            start = (f"{count.gpus}", setting.strategy, setting.recompute, f"{setting.accumulation}")
            parts = asdict(setting.memory).values()
            memory.add_row(
                *start, *(gigabytes(part) if part else "" for part in parts), gigabytes(setting.memory.total)
            )
            talk = setting.communication
            speed.add_row(
                *start,
                gigabytes(talk.sent),
                gigabytes(talk.sent_by_loop) if setting.strategy == "fsdp" else "",
                f"{talk.overlapped:.0%}",
                duration(setting.step),
                f"{setting.tokens_per_second:,.0f}",
                f"{setting.mfu:.0%}",
                "recommended" if setting is count.recommended else "",
            )
        if count.doubled:
            doubled.add_row(f"{count.gpus}", *count.doubled.values())
    for table in (memory, speed, doubled):
        if table.row_count:
            print_table(table)
    for count in found:
        say(f"{count.gpus} GPUs: {count.recommended.words() if count.recommended else count.reason}")
