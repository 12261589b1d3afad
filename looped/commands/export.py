"""`looped export`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional

from looped.commands.arguments import command
from looped.commands.output import say
from looped.extras import need
from looped.strict import check

FOLDERS = ("hf", "safetensors")


def export(
    run: Positional[Path],
    to: Literal["hf", "safetensors", "onnx", "torch"],
    out: Path,
    num_loops: int | None = None,
    int8: Annotated[bool, FlagCreatePairsOff] = False,
    license: str | None = None,
    push: str | None = None,
    public: Annotated[bool, FlagCreatePairsOff] = False,
    dry_run: Annotated[bool, FlagCreatePairsOff] = False,
    checkpoint: Literal["best", "last"] = "best",
) -> None:
    """Write a run's model for other programs: looped export runs/mine --to hf --out mine.

    hf: a folder of transformers, which needs no looped (`trust_remote_code=True`), with a model card. safetensors: a
    folder for `LoopedTransformer.load`, with a card. onnx, torch: one file, in which the number of loops is an input.

    Args:
        run: the run folder.
        to: the kind of export.
        out: a new folder, or the file of onnx and torch.
        num_loops: hf: of `generate`, by default as `looped calibrate` recommends, or else as trained. onnx and torch: a
            fixed number instead of an input.
        int8: weights of 8 bits (onnx).
        license: of the weights, as the hub names it, such as apache-2.0 (hf, safetensors).
        push: upload the folder to this repository of the hub, OWNER/NAME (hf, safetensors). Read its README.md first.
        public: make a new repository public instead of private (with push).
        dry_run: list what push would upload, and upload nothing.
        checkpoint: the best by validation, or the last.
    """
    from looped.training.checkpoint import load_run

    for name, value, kinds in (("int8", int8, ("onnx",)), ("license", license, FOLDERS), ("push", push, FOLDERS),
                               ("num_loops", num_loops, ("hf", "onnx", "torch"))):  # fmt: skip
        if value is not None and value is not False and to not in kinds:
            raise ValueError(f"--{name.replace('_', '-')}: has no effect with --to {to}; it is for {', '.join(kinds)}")
    for name, value in (("public", public), ("dry-run", dry_run)):
        check(not value or push is not None, f"--{name}", value, "--push beside it")
    check(not out.exists(), "--out", str(out), "a new folder, or a new file for onnx and torch")
    config, model, step = load_run(run, checkpoint)
    if to in FOLDERS:
        _folder(run, config, model, step, to, out, num_loops, license)
        if push is not None:
            _push(out, push, public, dry_run)
        return
    if to == "onnx":
        from looped.export.onnx import export_onnx

        worst = export_onnx(model, out, num_loops=num_loops, int8=int8)
    else:
        from looped.export.program import export_program

        worst = export_program(model, out, num_loops=num_loops)
    say(f"{out}: {out.stat().st_size:,} bytes; largest difference of logits in a check {worst:.2g} of the largest")


def _folder(
    run: Path, config: Any, model: Any, step: int, to: str, out: Path, num_loops: int | None, license: str | None
) -> None:
    """Write the folder and say what lies in it."""
    from looped.export.folders import export_hf, export_safetensors, files_of
    from looped.run_data import answering_task
    from looped.runs import recommended_setting

    tokenizer = answering_task(config, run).tokenizer
    if to == "safetensors":
        export_safetensors(model, out, tokenizer=tokenizer, run=run, weights_license=license)
    else:
        if tokenizer is None or not config.model.causal:
            raise ValueError(f"{run}: task {config.task.name}: expected a causal language model of text for --to hf")
        need("transformers.utils.logging", "looped export --to hf").disable_progress_bar()
        chosen = None if num_loops else recommended_setting(run, step)
        export_hf(
            model, out, tokenizer=tokenizer, begins_with_end=config.train.steps > 0, run=run, weights_license=license,
            num_loops=chosen.num_loops if chosen else num_loops,
            exit_rule=str(chosen.exit_rule) if chosen and chosen.exit_rule else None,
        )  # fmt: skip
    say(f"{out}: step {step}, {sum(size for _, size in files_of(out)):,} bytes")


def _push(out: Path, name: str, public: bool, dry_run: bool) -> None:
    from looped.export.folders import files_of, push

    if dry_run:
        kind = "public" if public else "private"
        say(f"{name}: nothing was uploaded; without --dry-run these files are, and a new repository is {kind}:")
        for file, size in files_of(out):
            say(f"{size:>14,}  {file}")
    else:
        say(push(out, name, private=not public))


main = command(export)
