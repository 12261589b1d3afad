"""lm-eval on looped models: the answers of its own model for transformers, at each loop count, from one pass."""

import json
import random
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval")

import tokenizers
from lm_eval.evaluator import evaluate, simple_evaluate

from looped.cli import main
from looped.config import ModelConfig
from looped.evaluation.harness import equal_scores, load_tasks, scores
from looped.evaluation.language_model import LoopedLM, Loops
from looped.models import LoopedTransformer, parse_rule
from looped.tasks.text.tokenizer import END_TOKEN, BPETokenizer, trained_bpe

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of lm-eval and transformers
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
TEXT = "the loop core model token depth state layer head gate of and is to in with"
CONTEXT = 40
TASKS = {
    "my_choice": """
output_type: multiple_choice
doc_to_text: "{% if q == 'the' %}{% else %}Q: {{q}} A:{% endif %}"
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list:
- {metric: acc, aggregation: mean, higher_is_better: true}
- {metric: acc_norm, aggregation: mean, higher_is_better: true}
""",
    "my_texts": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{q}}"
metric_list:
- {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
- {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
    "my_answers": """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: [" the", "ad"], max_gen_toks: 12, do_sample: false}
metric_list:
- {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "long_answers": """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["x"], max_gen_toks: 40}
metric_list:
- {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "beams": """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["x"], max_gen_toks: 4, num_beams: 2}
metric_list:
- {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "long_choices": """
output_type: multiple_choice
doc_to_text: "Q"
doc_to_choice: ["{{q}} {{q}} {{q}} {{q}} {{q}} {{q}} {{q}}", "the"]
doc_to_target: 0
metric_list:
- {metric: acc, aggregation: mean, higher_is_better: true}
""",
}


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(TEXT.split(), k=words))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks as YAML files. Some questions are longer than the model's context, one is empty."""
    folder, rng = tmp_path_factory.mktemp("tasks"), random.Random(0)
    rows = [
        {"q": sentence(rng, n), "choices": [sentence(rng, k) for k in (1, 2, 3)], "gold": rng.randrange(3)}
        for n in (8, 30, 3, 60, 12, 9, 5, 20)
    ]
    rows.append({"q": "the", "choices": ["of the core", " loop", "is"], "gold": 0})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        data = {"data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(folder / "cache")}
        head = f"task: {name}\ndataset_path: json\ntest_split: test\ndataset_kwargs: {json.dumps(data)}\n"
        (folder / f"{name}.yaml").write_text(head + text)
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer(trained_bpe([TEXT], 280), END_TOKEN, "tokenizer")


def model_of(tokenizer: BPETokenizer, **settings: Any) -> LoopedTransformer:
    """A model whose answers depend on the number of loops."""
    size = tokenizer.vocab_size
    config = ModelConfig(
        vocab_size=size, output_size=size, max_seq_len=CONTEXT, causal=True, d_model=16, num_heads=2, num_loops=3,
        **{"modulation": "scale_gate", "positions": "rotary", **settings},
    )  # fmt: skip
    model = LoopedTransformer(config, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


def answers(lm: Any, loaded: Any) -> dict[str, list[Any]]:
    """The answers to all requests of all documents, by task."""
    found: Any = evaluate(lm, loaded, bootstrap_iters=0, log_samples=True)
    return {task: [sample["resps"] for sample in samples] for task, samples in found["samples"].items()}


def all_answers(lm: LoopedLM, loaded: Any) -> dict[Loops, dict[str, list[Any]]]:
    found = {}
    for loops in lm.settings:
        lm.loops = loops
        found[loops] = answers(lm, loaded)
    return found


def assert_close(one: Any, other: Any) -> None:
    """Equal texts and flags, and log-likelihoods as close as float32 is."""
    assert type(one) is type(other)
    if isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-4)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        assert_close(list(one.values()), list(other.values()))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)
    else:
        assert one == other


# A template that begins each text, as that of Llama's tokenizer.
BEGIN = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": END_TOKEN, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {END_TOKEN: {"id": END_TOKEN, "ids": [0], "tokens": [END_TOKEN]}},
}


@pytest.mark.parametrize(
    ("settings", "rule", "begins"),
    [
        ({"coda_layers": 1}, "kl:0.5", False),
        ({"modulation": "none", "positions": "learned", "input_injection": "add"}, "change:0.7", True),
        ({"modulation": "none", "halting": "act"}, "act", False),  # each loop count is a pass of its own
    ],
)
def test_answers_are_those_of_lm_evals_own_model(
    settings: dict[str, Any], rule: str, begins: bool, tasks: Path, tokenizer: BPETokenizer
):
    pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    from looped.hf import to_hf

    if begins:
        given = json.loads(tokenizer.json)
        text = json.dumps(given | {"post_processor": BEGIN})
        tokenizer = BPETokenizer(text, END_TOKEN, "tokenizer")
        assert tokenizer.start == [tokenizer.end]
    model = model_of(tokenizer, **settings)
    several = [Loops(1), Loops(3), Loops(5), Loops(5, parse_rule(f"{rule}/token"))]
    loaded = load_tasks(["my_choice", "my_texts", "my_answers"], tasks)
    ours = LoopedLM(model, tokenizer, several, batch_size=4)
    found = all_answers(ours, loaded)
    assert ours.shortened
    mean = sum(ours.taken[several[3], "my_texts"]) / len(ours.taken[several[3], "my_texts"])
    assert 1 < mean < 5, "else the rule would not be tested"
    names = {"eos_token": END_TOKEN, "pad_token": END_TOKEN} | ({"bos_token": END_TOKEN} if begins else {})
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(tokenizer.json), **names)
    theirs = to_hf(model, eos_token_id=tokenizer.end, pad_token_id=tokenizer.end)
    for loops in several:
        theirs.config.num_loops, theirs.config.exit_rule = loops.num_loops, loops.exit_rule and str(loops.exit_rule)
        assert_close(
            found[loops], answers(HFLM(pretrained=theirs, tokenizer=fast, backend="causal", batch_size=4), loaded)
        )
    for task in ("my_choice", "my_texts", "my_answers"):
        assert found[several[0]][task] != found[several[1]][task] != found[several[2]][task]


def passes(model: torch.nn.Module, lm: LoopedLM, loaded: Any) -> int:
    """Forward passes of an evaluation of all settings."""
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    hook = model.register_forward_hook(counted)
    list(scores(lm, loaded))
    hook.remove()
    return count


def test_one_pass_answers_for_all_loop_counts(tasks: Path, tokenizer: BPETokenizer):
    model, loaded = model_of(tokenizer), load_tasks(["my_choice", "my_texts"], tasks)
    one = passes(model, LoopedLM(model, tokenizer, [Loops(4)]), loaded)
    assert passes(model, LoopedLM(model, tokenizer, [Loops(n) for n in (1, 2, 3, 4)]), loaded) == one > 1


def test_a_fixed_rule_is_a_loop_count(tasks: Path, tokenizer: BPETokenizer):
    lm = LoopedLM(model_of(tokenizer), tokenizer, [Loops(2), Loops(5), Loops(5, parse_rule("fixed:2/token"))])
    found = all_answers(lm, load_tasks(["my_choice", "my_texts", "my_answers"], tasks))
    two, five, rule = (found[loops] for loops in lm.settings)
    assert_close(rule, two)
    assert two != five
    assert {loops for values in (lm.taken[lm.settings[2], task] for task in two) for loops in values} == {2.0}


def test_known_answers_belong_to_model_and_loops(tasks: Path, tokenizer: BPETokenizer):
    names = ["my_choice", "my_texts", "my_answers"]
    loaded, known, model = load_tasks(names, tasks), {}, model_of(tokenizer)

    def rows(model: LoopedTransformer, *counts: int, keep: bool) -> list[dict[str, Any]]:
        lm = LoopedLM(model, tokenizer, [Loops(n) for n in counts], known=known if keep else None)
        return list(scores(lm, loaded))

    plain = {n: rows(model, n, keep=False) for n in (1, 2, 4)}
    assert plain[1] != plain[2] != plain[4]
    for counts in ((2,), (1, 2), (4, 1)):
        found = rows(model, *counts, keep=True)
        assert_close(found, [row for n in counts for row in plain[n]])
    size = len(known)
    lm = LoopedLM(model, tokenizer, [Loops(1), Loops(4)], known=known)
    assert passes(model, lm, loaded) == 0, "all was known"
    other = model_of(tokenizer, core_layers=2)
    assert_close(rows(other, 2, keep=True), rows(other, 2, keep=False))
    assert len(known) > size


def test_the_cache_of_lm_eval_is_refused(tasks: Path, tokenizer: BPETokenizer, tmp_path: Path):
    lm = LoopedLM(model_of(tokenizer), tokenizer, [Loops(1)])
    with pytest.raises(ValueError, match="mixes loop counts"):
        simple_evaluate(lm, tasks=["my_choice"], use_cache=str(tmp_path / "cache"), bootstrap_iters=0)


def test_equal_scores_are_named(tasks: Path, tokenizer: BPETokenizer):
    model, names = model_of(tokenizer, modulation="none"), ["my_choice", "my_answers"]

    def warning(names: list[str], limit: float | None = None) -> str | None:
        lm = LoopedLM(model, tokenizer, [Loops(1), Loops(2)])
        return equal_scores(lm, list(scores(lm, load_tasks(names, tasks), limit)))

    assert warning(["my_texts"]) is None
    assert "although the answers differ" in str(warning(names, limit=1.0))
    with torch.no_grad():
        for name, weight in model.core.named_parameters():
            if name.endswith(("project.weight", "down.weight")):
                weight.zero_()
    assert "ignores the number of loops" in str(warning(["my_texts", *names]))


# The command

RUN = (
    "train language-looped --task.bpe-size 280 --task.train-files text.txt --task.document paragraph "
    f"--task.context {CONTEXT} --model.d-model 16 --model.num-heads 2 --model.num-loops 2 --optim.warmup-steps 2 "
    "--train.steps 12 --train.batch-size 8 --train.eval-examples 8 --train.device cpu --train.precision fp32 "
    "--train.compile False --train.workers 0 --out run "
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("home"), random.Random(1)
    (folder / "text.txt").write_text("\n\n".join(sentence(rng, 30) for _ in range(100)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(shlex.split(RUN)) == 0
        small = RUN[RUN.index("--model.d-model") : RUN.index("--out")]
        assert main(shlex.split(f"train lcs --task.length 4 {small} --out pairs")) == 0
    return folder


@pytest.fixture
def at_home(home: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(home)
    return f"--include-path {tasks}"


def lm_eval(words: str) -> int:
    return main(shlex.split(f"lm-eval {words}"))


def test_the_command_writes_table_json_and_csv(at_home: str, capsys: pytest.CaptureFixture[str]):
    wanted = "run --tasks my_choice my_texts --loops 1 2 4 --exit-rules change:0.3"
    assert lm_eval(f"{wanted} {at_home}") == 0
    printed = capsys.readouterr()
    assert all(text in printed.out for text in ("my_choice", "acc_norm", "word_perplexity", "4 loops", "change:0.3"))
    found = json.loads(Path("run/lm_eval/results.json").read_text())
    assert (found["trained_loops"], found["step"], found["limit"]) == (2, 12, None)
    settings = {(row["num_loops"], row["exit_rule"]) for row in found["rows"]}
    assert settings == {(1, None), (2, None), (4, None), (4, "change:0.3/token")}
    bits = {row["num_loops"]: row["value"] for row in found["rows"] if row["metric"] == "bits_per_byte"}
    assert len({*bits.values()}) > 1
    lines = Path("run/lm_eval/results.csv").read_text().splitlines()
    assert len(lines) == 1 + len(found["rows"]) == 1 + 4 * 4
    assert "longer than the model's 40 tokens" in printed.out
    assert main(["report", "run", "--out", "report"]) == 0
    page = Path("report/report.html").read_text()
    assert "my_choice" in page
    assert "change:0.3/token, at most 4 loops" in page


def test_answers_are_kept_in_a_file(at_home: str, home: Path, capsys: pytest.CaptureFixture[str]):
    def rows(words: str) -> list[dict[str, Any]]:
        assert lm_eval(f"run --tasks my_choice my_texts my_answers {words} --out kept {at_home}") == 0
        return json.loads(Path("kept/results.json").read_text())["rows"]

    plain = rows("--loops 1 2")
    assert rows("--loops 2 --use-cache answers.db") == plain[len(plain) // 2 :]
    assert rows("--loops 1 2 --use-cache answers.db") == plain
    assert rows("--loops 1 2 --use-cache answers.db") == plain
    assert plain[: len(plain) // 2] != plain[len(plain) // 2 :]
    assert lm_eval(f"run --tasks my_choice --use-cache text.txt {at_home}") == 2
    assert "text.txt: not a file of answers" in capsys.readouterr().err


def test_a_folder_of_transformers(at_home: str, home: Path):
    pytest.importorskip("transformers")
    from transformers import PreTrainedTokenizerFast

    from looped.hf import to_hf
    from looped.training import load_run

    _, model, _ = load_run(Path("run"))
    to_hf(model).save_pretrained("saved")
    content = json.loads(Path("run/task/tokenizer.json").read_text())["tokenizer"]
    inner = tokenizers.Tokenizer.from_str(json.dumps(content))
    words = f"--tasks my_choice my_texts my_answers --loops 1 2 {at_home}"
    assert lm_eval(f"saved {words}") == 2  # without a tokenizer
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END_TOKEN).save_pretrained("saved")
    assert lm_eval(f"saved {words}") == 0
    assert lm_eval(f"run {words}") == 0
    saved, own = (json.loads(Path(name, "lm_eval/results.json").read_text()) for name in ("saved", "run"))
    assert (saved["step"], own["step"]) == (None, 12)
    assert_close(saved["rows"], own["rows"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere --tasks my_choice", "nowhere/config.json: no such file"),
        ("pairs --tasks my_choice", "pairs: trained on lcs; expected a run on text"),
        ("run --tasks my_choise", "--tasks my_choise: expected a task, group or tag of lm-eval (did you mean 'my_choi"),
        ("run --tasks my_choice --loops 0 2", "loops=[0, 2]: expected different loop counts, 1 to"),
        ("run --tasks my_choice --exit-rules gate:0.5", "model.halting='gate'"),
        ("run --tasks my_choice --limit 0", "limit=0.0: expected a positive number"),
        ("run --tasks my_choice my_choice", "--tasks: my_choice is given twice"),
        ("run --tasks long_answers", "task long_answers: max_gen_toks=40: expected fewer than the model's 40"),
        ("run --tasks beams", "task beams: generation_kwargs.num_beams=2: expected some of until, max_gen_toks"),
        ("run --tasks long_choices", "a continuation of "),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(words: str, message: str, at_home: str, capsys: pytest.CaptureFixture[str]):
    assert lm_eval(f"{words} {at_home}") == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert not Path("nowhere").exists()


def test_loop_counts_beyond_a_table(at_home: str, home: Path, capsys: pytest.CaptureFixture[str]):
    words = shlex.split(RUN.replace("--out run", "--model.core-tied attention --out table"))
    assert main(words) == 0
    assert lm_eval(f"table --tasks my_choice --loops 1 3 {at_home}") == 2
    assert "loops=[1, 3]: expected different loop counts, 1 to 2, for which the model has" in capsys.readouterr().err
    assert lm_eval(f"table --tasks my_choice {at_home}") == 0
    assert {row["num_loops"] for row in json.loads(Path("table/lm_eval/results.json").read_text())["rows"]} == {1, 2}


def test_a_package_that_is_missing(at_home: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert lm_eval(f"run --tasks my_choice {at_home}") == 2
    assert "looped lm-eval: needs the package lm_eval: pip install 'looped[lm-eval]'" in capsys.readouterr().err
