"""Pages of the documentation site besides the files of docs/. mkdocs calls the two functions at the end.

README.md and CONTRIBUTING.md become pages, and links that lead out of docs/ are changed to match. The pages of the
commands hold the help that the commands print, and those of the API the docstrings, so none of them can be stale.
"""

import contextlib
import io
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from looped.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
"""Files outside docs/ that become pages."""

API = {
    "Models": "looped.LoopedTransformer looped.LoopedModel looped.LoopedOutput looped.ModelConfig looped.iterate",
    "Blocks": """looped.Block looped.Context looped.KVSlot looped.KVStore looped.Modulation looped.Injection
        looped.nn.block.TransformerBlock looped.nn.modulation.make_modulation""",
    "Exit rules": """looped.ExitRule looped.Observation looped.Fixed looped.StateChange looped.KLDivergence
        looped.Entropy looped.Unchanged looped.Gate looped.Act looped.parse_rule""",
    "Caches": "looped.Cache",
    "Generation": "looped.generate looped.stream looped.Sampling",
    "Tasks": """looped.Task looped.Batch looped.tasks.TaskSpec looped.tasks.TaskConfig looped.tasks.SequenceTask
        looped.tasks.SequenceConfig looped.tasks.register looped.tasks.split_of looped.TASKS""",
    "Training": """looped.train looped.load_run looped.recipe looped.complete looped.RunConfig looped.ScheduleConfig
        looped.OptimConfig looped.TrainConfig looped.LoopSchedule looped.NonFiniteError looped.RECIPES""",
    "Evaluation": "looped.evaluate looped.solve looped.evaluate_run looped.calibrate_run looped.write_report",
    "Inside the loop": """looped.analysis.states.states looped.analysis.states.logit_lens looped.analysis.states.motion
        looped.analysis.states.principal_components looped.analysis.states.attention_maps
        looped.analysis.states.layer_modulation looped.analysis.stability.jacobian_spectrum
        looped.analysis.stability.alignment""",
    "For transformers": """looped.hf.LoopedConfig looped.hf.LoopedForCausalLM looped.hf.LoopedBaseModel
        looped.hf.LoopedForSequenceClassification looped.hf.LoopedCache looped.hf.to_hf""",
    "Pretrained models": "looped.pretrained.open_model looped.pretrained.Opened looped.models.loopify.loopify",
    "Export": """looped.export.folders.export_hf looped.export.folders.export_safetensors looped.export.folders.push
        looped.card.model_card looped.export.onnx.export_onnx looped.export.program.export_program""",
    "Theory": """looped.theory.circuit looped.theory.construction looped.theory.weights looped.theory.rates""",
}
"""The public names by page."""


def site_path(path: Path) -> str:
    """The place of a file of the repository in the site."""
    name = path.relative_to(ROOT).as_posix()
    return PAGES.get(name, name.removeprefix("docs/"))


def page_of(source: Path) -> tuple[str, set[Path]]:
    """The text of a page with the links of the site, and the other files outside docs/ to which it links."""
    here, others = Path(site_path(source)).parent, set()

    def change(link: re.Match[str]) -> str:
        path = (source.parent / link[1]).resolve()
        if not path.is_file():
            return link[0]
        if not path.is_relative_to(ROOT / "docs") and path.relative_to(ROOT).as_posix() not in PAGES:
            others.add(path)
        return f"]({os.path.relpath(site_path(path), here)}{link[2] or ''})"

    return re.sub(r"\]\(([\w./-]+)(#[\w-]+)?\)", change, source.read_text()), others


def api_path(title: str) -> str:
    return f"api/{re.sub(r'[^a-z]+', '-', title.lower())}.md"


def help_of(name: str) -> str:
    """A page with the help of a command."""
    words = [name, "p-hop-looped"] if name in ("train", "plan") else [name]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main([*words, "--help"])
    text = re.sub(r"\x1b\[[\d;]*m", "", printed.getvalue())
    return f"# looped {name}\n\n{COMMANDS[name]}\n\n```text\n{text.rstrip()}\n```\n"


def api_page(title: str) -> str:
    return "\n\n".join([f"# {title}", *(f"::: {name}" for name in API[title].split())]) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    os.environ["COLUMNS"] = "80"  # the width of the help
    assert config.nav
    config.nav.append({"API": [{title: api_path(title)} for title in API]})
    config.nav.append({"Commands": [{name: f"commands/{name}.md"} for name in COMMANDS]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pictures = set()
    for source in [*map(ROOT.joinpath, PAGES), *(ROOT / "docs").rglob("*.md")]:
        text, linked = page_of(source)
        pictures |= linked
        if old := files.get_file_from_path(site_path(source)):
            files.remove(old)
        files.append(File.generated(config, site_path(source), content=text))
    for path in pictures:
        files.append(File.generated(config, site_path(path), abs_src_path=str(path)))
    for title in API:
        files.append(File.generated(config, api_path(title), content=api_page(title)))
    for name in COMMANDS:
        files.append(File.generated(config, f"commands/{name}.md", content=help_of(name)))
    return files
