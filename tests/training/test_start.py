"""From files and settings to a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rejoinder import checkpoint, saved
from rejoinder.config import ModelConfig, TrainConfig
from rejoinder.data import read
from rejoinder.errors import ConfigError, DataError
from rejoinder.evaluation import Report
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message
from rejoinder.text import TextFormat
from rejoinder.training.beginning import freeze_apart, freeze_embeddings
from rejoinder.training.start import dev_examples, train, training_examples

Make = Callable[..., TextRanker]
SETTINGS = TrainConfig(batch_size=4, max_steps=2, warmup=0, precision="fp32")
CHAT = Dialogue(
    (
        Message("user", "hi"),
        Message("assistant", "hello", candidates=("hello", "no")),
        Message("user", "and you ?"),
        Message("system", "be kind"),
        Message("assistant", "fine"),
    ),
    persona=("i love tea",),
    partner_persona=("i love rain",),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Twenty-four short dialogues with a persona, all replies different, no candidates."""
    path = tmp_path / "talks.txt"
    lines = []
    for i, thing in enumerate(
        ["tea", "coffee", "dogs", "cats", "music", "trains", "books", "chess"] * 3
    ):
        lines.append(
            f"1 your persona: i like {thing}.\n2 do you like it ?\t{'yes , ' * (i // 8)}{thing}\n"
        )
    path.write_text("".join(lines))
    return path


@pytest.fixture
def config(base: Path) -> ModelConfig:
    return ModelConfig(kind="poly", poly="codes", codes=4, base=str(base), lora=4, lora_alpha=8)


def begin(
    file: Path,
    out: Path,
    model: ModelConfig,
    style: TextFormat,
    *,
    dev: bool = False,
    settings: TrainConfig = SETTINGS,
    **more: Any,
) -> tuple[Report | None, list[str]]:
    said: list[str] = []
    found = train(
        [file],
        file if dev else None,
        out,
        model=model,
        settings=settings,
        style=style,
        say=said.append,
        **{"report": False, **more},
    )
    return found, said


def test_a_run_from_files_leaves_a_model_that_describes_itself(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    report, said = begin(file, tmp_path / "run", config, style, dev=True, command="rejoinder train")
    assert report is not None
    assert report.candidates == 20
    assert said[0] == "24 examples to learn, 24 to validate on"
    assert "confidence fitted on 24 pools" in said[-1]
    ranker = checkpoint.load(tmp_path / "run")
    assert ranker.confidence is not None
    assert ranker.tokens.style == style
    origin = saved.read_config(tmp_path / "run" / "best")["training"]
    assert (origin["data"], origin["examples"]) == (["talks.txt"], 24)
    assert origin["scores"]["hits@1"] == report.hits_at_1
    assert origin["settings"]["max_steps"] == 2
    for part in ("# run", "talks.txt (24 examples)", "`rejoinder train`", "poly-encoder"):
        assert part in ranker.card


def test_too_few_replies_for_a_confidence_are_said_to_be(
    tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    file = tmp_path / "few.txt"
    file.write_text("1 hi\thello .\n2 bye\tsee you .\n")
    _, said = begin(file, tmp_path / "run", config, style, dev=True)
    assert said[-1].startswith("no confidence was fitted: ")
    assert checkpoint.load(tmp_path / "run").confidence is None


def test_the_seed_decides_fresh_weights_too(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    """Codes and adapters are random; what was drawn before a run has no say in them."""
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        begin(file, tmp_path / name, config, style, settings=replace(SETTINGS, seed=seed))
    a, b, c = (load_file(tmp_path / name / "best/model.safetensors") for name in "abc")
    assert all(a[name].equal(b[name]) for name in a)
    assert not a["codes"].allclose(c["codes"], atol=0.05)


def test_a_run_goes_on_from_another_model(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    begin(file, tmp_path / "bi", replace(config, kind="bi"), style)
    other = TextFormat(max_context=20)
    _, said = begin(file, tmp_path / "poly", config, other, init_model=tmp_path / "bi")
    assert said[0] == f"fresh weights, not in {tmp_path / 'bi'}: codes, sharpness.log"
    assert checkpoint.load(tmp_path / "poly").tokens.style == style
    card = (tmp_path / "poly" / "best" / "README.md").read_text()
    assert "| started from | bi |" in card
    longer = replace(other, max_context=60, max_reply=9, user_mark="U")
    asked: dict[str, Any] = {"init_model": tmp_path / "bi", "given": ["max_context"]}
    begin(file, tmp_path / "longer", config, longer, **asked)
    assert checkpoint.load(tmp_path / "longer").tokens.style == replace(style, max_context=60)


def test_what_goes_with_the_weights_of_another_model_cannot_be_asked_for(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    begin(file, tmp_path / "bi", replace(config, kind="bi"), style)
    go = partial(begin, file, tmp_path / "poly", init_model=tmp_path / "bi")
    with pytest.raises(ConfigError, match="lora is 8, but bi was made with 4, which goes with its"):
        go(replace(config, lora=8), style, given=["lora"])
    with pytest.raises(ConfigError, match="user_mark is 'U', but bi was made with '>'"):
        go(config, replace(style, user_mark="U"), given=["user_mark"])
    go(config, style, given=["lora", "user_mark"])


def test_bad_lines_are_left_out_and_said_if_that_is_asked_for(
    tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("context,reply\nhi,hello\nhi\nbye,see you\n")
    with pytest.raises(DataError, match=r"bad\.csv:3: "):
        begin(bad, tmp_path / "run", config, style)
    _, said = begin(bad, tmp_path / "run", config, style, skip_bad=True)
    assert re.match(r"left out: .*bad\.csv:3: ", said[0])
    assert said[1] == "2 examples to learn, 0 to validate on"


def test_files_in_which_no_assistant_speaks(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n')
    with pytest.raises(DataError, match=r"empty\.jsonl: no assistant message .* nothing to learn"):
        begin(empty, tmp_path / "run", config, style)
    with pytest.raises(DataError, match=r"empty\.jsonl: no assistant message .* to validate on"):
        train([file], empty, tmp_path / "run", model=config, settings=SETTINGS, style=style)
    assert not (tmp_path / "run").exists()


def test_both_sides_are_learned_with_roles_and_personas_swapped() -> None:
    one = list(training_examples([CHAT], both_sides=False))
    assert [(example.reply, example.candidates) for example in one] == [
        ("hello", ("hello", "no")),
        ("fine", ()),
    ]
    assert {example.context.persona for example in one} == {("i love tea",)}
    both = list(training_examples([CHAT], both_sides=True))
    assert both[:2] == one
    assert [example.reply for example in both[2:]] == ["hi", "and you ?"]
    assert {example.context.persona for example in both[2:]} == {("i love rain",)}
    assert both[3].context.messages == (Message("assistant", "hi"), Message("user", "hello"))


def test_a_run_on_both_sides_has_both(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    settings = replace(SETTINGS, both_sides=True)
    _, said = begin(file, tmp_path / "run", config, style, settings=settings)
    assert said[0] == "48 examples to learn, 0 to validate on"


def test_dev_examples_keep_their_candidates_or_get_twenty(tmp_path: Path, file: Path) -> None:
    drawn = dev_examples(file, read(file), SETTINGS)
    assert {len(example.candidates) for example in drawn} == {20}
    assert all(example.reply in example.candidates for example in drawn)
    listed = tmp_path / "listed.txt"
    listed.write_text("1 hi\thello\t\thello|no|yes\n2 bye\tsee you\t\tsee you|no\n")
    assert [example.candidates for example in dev_examples(listed, read(listed), SETTINGS)] == [
        ("hello", "no", "yes"),
        ("see you", "no"),
    ]


def test_frozen_embeddings_stay_as_they_are(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat, make: Make
) -> None:
    begin(file, tmp_path / "run", replace(config, lora=0, freeze_embeddings=True), style)
    before = load_file(Path(config.base) / "model.safetensors")
    after = load_file(tmp_path / "run/best/model.safetensors")
    moved = {
        name
        for name, value in before.items()
        if "pooler" not in name
        and "word_embeddings" not in name
        and not after[f"context_encoder.model.{name}"].equal(value)
    }
    assert moved
    assert not [name for name in after if "word_embeddings" in name]  # they are the base's
    again = checkpoint.load(tmp_path / "run").module.state_dict()
    words = "embeddings.word_embeddings.weight"
    assert again[f"context_encoder.model.{words}"].equal(before[words])
    ranker = make()
    freeze_embeddings(ranker)
    learned = [p for p in ranker.module.parameters() if p.requires_grad]
    assert 0 < len(learned) < len(list(ranker.module.parameters()))


@pytest.mark.parametrize("lora", [0, 4])
def test_what_reads_apart_can_be_kept(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat, lora: int
) -> None:
    begin(file, tmp_path / "poly", replace(config, kind="poly", lora=lora), style)
    wanted = replace(config, kind="cross", towers="separate", lora=lora, freeze_apart=True)
    start = tmp_path / "poly"
    begin(file, tmp_path / "run", wanted, style, init_model=start, given=["towers"])
    before = load_file(tmp_path / "poly/best/model.safetensors")
    after = load_file(tmp_path / "run/best/model.safetensors")
    kept = {
        name: after[name.replace("context_encoder", "apart_encoder")].equal(value)
        for name, value in before.items()
        if name.startswith("context_encoder.")
    }
    assert kept
    assert all(kept.values())
    assert not all(
        after[name.replace("context_encoder", "encoder")].equal(before[name]) for name in kept
    )


def test_a_ranker_has_no_perplexity(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    wanted = replace(SETTINGS, metric="perplexity")
    with pytest.raises(
        ConfigError, match="metric is 'perplexity', but a poly-encoder writes nothing"
    ):
        begin(file, tmp_path / "run", config, style, settings=wanted)


@pytest.mark.parametrize(("kind", "towers"), [("cross", "shared"), ("bi", "separate")])
def test_only_a_cross_encoder_with_two_towers_reads_apart(
    make: Make, kind: str, towers: str
) -> None:
    with pytest.raises(ConfigError, match=f"a {kind}-encoder with {towers} towers; take train"):
        freeze_apart(make(kind=kind, towers=towers))


def test_curves_for_tensorboard(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    begin(file, tmp_path / "run", config, style, dev=True, curves=["tensorboard"])
    (events,) = (tmp_path / "run").glob("events.out.tfevents.*")
    assert events.stat().st_size > 100


def test_a_device_by_name(
    file: Path, tmp_path: Path, config: ModelConfig, style: TextFormat
) -> None:
    begin(file, tmp_path / "run", config, style, device="cpu")
    assert checkpoint.load(tmp_path / "run").device == torch.device("cpu")
