"""`looped show`."""

import json
from pathlib import Path

from tyro.conf import Positional

from looped.commands.arguments import command
from looped.run_folder import Summary, read_config, read_file, saved_steps
from looped.strict import to_dict


def show(run: Positional[Path]) -> None:
    """Print the content of a run folder: settings, progress, checkpoints, scores.

    Args:
        run: the run folder.
    """
    config = read_config(run)
    summary = read_file(run, Summary)
    end = to_dict(summary) if summary else "not finished"
    print(json.dumps(to_dict(config), indent=2))
    print(f"checkpoints: {', '.join(map(str, saved_steps(run))) or 'none yet'}")
    print(f"summary: {json.dumps(end, indent=2)}")


main = command(show)
