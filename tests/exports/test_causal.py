"""Generators as the library's own causal models: same scores, same replies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rejoinder import generators, zoo
from rejoinder.exports.causal import export_causal
from rejoinder.models.pretrained import no_bars
from rejoinder.schema import Dialogue
from rejoinder.text import SPEAKERS

from .causal_tiny import (
    BECOMES,
    CHAT,
    GREEDY,
    LENGTH,
    LONGER,
    NO_SYSTEM,
    STYLE,
    TRAINED,
    assert_card_runs,
    assert_same_replies,
    assert_same_scores,
    inputs,
    loaded,
    stirred,
    tiny,
)


@pytest.fixture
def base_of(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """`base_of("gpt2", more=7)`"""
    return partial(tiny, base, tmp_path)


@pytest.mark.parametrize(
    ("kind", "trained"),
    [
        *((kind, how) for kind in ("gpt", "gpt2") for how in TRAINED),
        *((kind, "words") for kind in ("bert", "llama", "llama-tied")),
        *(("bert", "lora"), ("phi", "lora")),
        *((kind, "whole") for kind in ("gpt2-inner", "gpt2-relu")),
    ],
)
def test_scores_and_replies_are_ours(
    kind: str,
    trained: str,
    base_of: Callable[..., Path],
    tmp_path: Path,
    dialogues: list[Dialogue],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = stirred(base_of(kind), trained=trained)
    before = {name: w.clone() for name, w in made.module.state_dict().items()}
    facts = export_causal(made, tmp_path / "out")
    assert all(w.equal(before[name]) for name, w in made.module.state_dict().items())
    size = len(made.module.words) + len(SPEAKERS)
    assert (facts["architecture"], facts["vocabulary"]) == (BECOMES[kind], size)
    assert 0 <= facts["difference"] <= 1e-5
    tokenizer, model = loaded(tmp_path / "out")
    assert facts["parameters"] == model.num_parameters()
    assert type(model).__name__ == BECOMES[kind]
    assert_same_scores(model, made, dialogues, kind)
    assert_same_replies(model, made, dialogues, kind)
    ids = list(range(size - len(SPEAKERS), size))
    assert tokenizer.convert_tokens_to_ids(list(SPEAKERS)) == ids
    assert capfd.readouterr() == ("", "")
    assert_card_runs(tmp_path / "out", made, monkeypatch)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("kind", "chat"),
    [("bert", CHAT), ("gpt", CHAT), ("gpt2", CHAT), ("llama", CHAT), ("llama", NO_SYSTEM)],
)
def test_a_chat_template_goes_with_the_model(
    kind: str,
    chat: str,
    base_of: Callable[..., Path],
    tmp_path: Path,
    dialogues: list[Dialogue],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    style = STYLE if kind == "bert" else LONGER
    made = stirred(base_of(kind, chat=chat), layout="template", style=style)
    facts = export_causal(made, tmp_path / "out")
    assert facts["vocabulary"] == len(made.module.words)
    tokenizer, model = loaded(tmp_path / "out")
    assert tokenizer.chat_template == chat
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        *("[CLS]", "[SEP]"),
        "[PAD]",
    )
    assert_same_scores(model, made, dialogues, kind)
    assert_same_replies(model, made, dialogues, kind)
    if style is LONGER:  # the card's dialogue is cut otherwise
        assert_card_runs(tmp_path / "out", made, monkeypatch)


@pytest.mark.parametrize("kind", ["bert", "gpt", "gpt2", "llama"])
def test_several_dialogues_are_padded_on_the_left(
    kind: str, base_of: Callable[..., Path], tmp_path: Path, dialogues: list[Dialogue]
) -> None:
    made = stirred(base_of(kind))
    export_causal(made, tmp_path / "out")
    tokenizer, model = loaded(tmp_path / "out")
    rows = [made.layout.context(dialogue) for dialogue in dialogues]
    both = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    given = inputs(model, made, both["input_ids"], kind)  # padding is seen by nobody
    found = model.generate(
        **given, attention_mask=both["attention_mask"], max_new_tokens=LENGTH
    ).tolist()
    begin = 0 if "inputs_embeds" in given else both["input_ids"].shape[1]
    ends = [[*row[begin:], made.layout.eos] for row in found]  # type: ignore[attr-defined]
    cut = [next(i for i, one in enumerate(row) if one in made.layout.stop) for row in ends]
    said = [made.layout.text(row[:end]) for row, end in zip(ends, cut, strict=True)]
    assert said == made.write(dialogues, GREEDY)


@pytest.mark.parametrize("kind", ["gpt", "gpt2"])
def test_the_model_below_the_head_has_the_same_word_vectors(
    kind: str, base_of: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModel

    made = stirred(base_of(kind), trained="whole")
    export_causal(made, tmp_path / "out")
    load: Any = AutoModel.from_pretrained
    with no_bars():
        below, info = load(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    expected = torch.cat([made.module.words, made.module.added])
    assert below.get_input_embeddings().weight.equal(expected)
    _, model = loaded(tmp_path / "out")
    assert model.get_input_embeddings().weight.equal(expected)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_folder_that_was_saved_and_loaded_gives_the_same_files(
    kind: str, base_of: Callable[..., Path], tmp_path: Path
) -> None:
    made = stirred(base_of(kind), trained="words")
    generators.save(made, tmp_path / "saved")
    export_causal(generators.load(tmp_path / "saved"), tmp_path / "out")
    export_causal(made, tmp_path / "again")
    _, one = loaded(tmp_path / "out")
    _, two = loaded(tmp_path / "again")
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], weight, rtol=1e-6, atol=1e-6)
    files = {file.name for file in (tmp_path / "out").iterdir()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    own = {"config.json", "generation_config.json", "model.safetensors", "README.md"}
    assert files == own | tokenizer
    assert not list(tmp_path.glob(".*"))


def test_halved_weights_are_written_as_they_are(
    base_of: Callable[..., Path], tmp_path: Path
) -> None:
    made = stirred(base_of("gpt2"), trained="whole").halved()
    assert export_causal(made, tmp_path / "out")["difference"] <= 1e-5
    _, model = loaded(tmp_path / "out")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert {weight.dtype for weight in made.module.parameters()} == {torch.bfloat16}


@pytest.mark.slow
def test_the_generator_of_the_package(
    tmp_path: Path, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = zoo.load_generator("persona-generator")
    facts = export_causal(made, tmp_path / "out")
    assert facts["architecture"] == "BertGenerationDecoder"
    assert (facts["vocabulary"], facts["parameters"]) == (30527, 22597055)
    tokenizer, model = loaded(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(list(SPEAKERS)) == list(range(30522, 30527))
    assert_same_scores(model, made, dialogues, "bert")
    assert_same_replies(model, made, dialogues, "bert")
    assert_card_runs(tmp_path / "out", made, monkeypatch)
    assert "Licence: Apache-2.0" in (tmp_path / "out" / "README.md").read_text()
