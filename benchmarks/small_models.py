"""Speed of a whole training step (forward, backward, AdamW) against another checkout, on one thread.

    python -m benchmarks.small_models --older FOLDER

Each round measures both versions, one after the other, each in a process of its own. Ratios are medians over rounds, in
CPU time.
"""

import argparse
import inspect
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from looped.config import ModelConfig
from looped.models import LoopedTransformer

MODULATED: Any = "scale_gate" if "scale_gate" in inspect.getsource(ModelConfig) else "gain_gate"
"""The paper's modulation; its name changed."""
HERE = Path(__file__).resolve().parents[1]


def cases() -> Iterator[tuple[str, ModelConfig, int, bool]]:
    """Name, model, batch size, and whether in bf16 autocast."""
    for d_model, seq, batch, loop_counts in ((64, 16, 128, (4, 8)), (128, 64, 32, (6,)), (256, 126, 16, (4,))):
        for loops in loop_counts:
            for modulation in ("none", MODULATED):
                config = ModelConfig(
                    vocab_size=32, output_size=32, max_seq_len=seq, d_model=d_model, num_heads=4, num_loops=loops,
                    modulation=modulation,
                )  # fmt: skip
                for bf16 in (False, True) if torch.cpu._is_avx512_bf16_supported() else (False,):
                    precision = "bf16" if bf16 else "fp32"
                    kind = "plain" if modulation == "none" else "modulated"
                    name = f"d={d_model}, {seq} tokens, {loops} loops, {kind}, {precision}"
                    yield name, config, batch, bf16


def measure(repeats: int) -> dict[str, float]:
    """Median CPU seconds of a step, by case, with the `looped` that is imported here."""
    torch.set_num_threads(1)
    found = {}
    for name, config, batch, bf16 in cases():
        torch.manual_seed(0)
        model = LoopedTransformer(config)
        if hasattr(model, "use_native"):
            model.use_native()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        inputs = torch.randint(32, (batch, config.max_seq_len or 1))
        times = []
        with settings():
            for _ in range(repeats + 2):
                began = time.process_time()
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = model(inputs).logits.float().square().mean()
                loss.backward()
                optimizer.step()
                times.append(time.process_time() - began)
        found[name] = statistics.median(times[2:])
    return found


def settings() -> Any:
    """The settings of the process in which training runs; an older version has none."""
    if not hasattr(LoopedTransformer, "use_native"):
        return nullcontext()
    from looped.training import devices

    devices.keep_freed_memory()
    return devices.fast_products(torch.device("cpu"))


def in_process(folder: Path, repeats: int) -> dict[str, float]:
    """`measure` with the version in a folder."""
    command = [sys.executable, __file__, "--measure", "--repeats", str(repeats)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--older", type=Path, help="a checkout of another version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=9, help="timed steps of each case in a round")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--measure", action="store_true", help="print the times of the version that is imported")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.repeats)))
        return
    versions = {"this": HERE} | ({"older": arguments.older} if arguments.older else {})
    rounds = [
        {name: in_process(folder, arguments.repeats) for name, folder in versions.items()}
        for _ in range(arguments.rounds)
    ]
    rows = []
    for case in rounds[0]["this"]:
        row: dict[str, Any] = {"case": case}
        for name in versions:
            row[f"{name}: milliseconds"] = round(1e3 * statistics.median(r[name][case] for r in rounds), 2)
        if arguments.older:
            row["times as fast"] = round(statistics.median(r["older"][case] / r["this"][case] for r in rounds), 3)
        rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    from looped.machine import processor  # an older version has no such name

    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "processor": processor(), "threads": 1}
    facts |= {"torch": torch.__version__, "rounds": arguments.rounds, "repeats": arguments.repeats}
    facts |= {f"commit of {name}": commit(folder) for name, folder in versions.items()}
    if arguments.out:
        arguments.out.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
