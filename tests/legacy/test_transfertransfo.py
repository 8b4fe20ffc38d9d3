"""Generators of transfer-learning-conv-ai: the logits, tokens and replies that they had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rejoinder import generators, tasks, zoo
from rejoinder.agents import GenerateAgent
from rejoinder.agents.protocol import newest
from rejoinder.data import read
from rejoinder.decoding import Decoding
from rejoinder.generator import TextGenerator
from rejoinder.layouts import Speakers
from rejoinder.legacy.transfertransfo import find_conv_ai, import_generator
from rejoinder.schema import Dialogue, Example, Message, examples
from rejoinder.text import SPEAKERS

from . import conv_ai, gpt_words
from .conv_ai import GOLDEN, LATER, LEGACY, Kind

KINDS: list[Kind] = ["gpt", "gpt2"]
TOLERANCE = 1e-5  # of the largest
ASKED = Dialogue((Message("user", "hello , how are you ?"),), ("i like dogs .", "i teach ."))


def imported(folder: Path) -> TextGenerator:
    found = find_conv_ai(folder)
    assert found is not None
    return import_generator(found).generator


def same(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


def recorded() -> dict[str, Tensor]:
    with np.load(GOLDEN / "golden_gpt.npz") as file:
        return {name: torch.tensor(file[name]) for name in file.files}


def test_recorded_logits(tmp_path: Path) -> None:
    saw = recorded()
    given_ids = saw["input_ids"], saw["token_type_ids"], saw["mc_token_ids"]
    before = imported(LEGACY)
    generators.save(before, tmp_path / "ours")
    after = zoo.load(tmp_path / "ours")
    assert isinstance(after, TextGenerator)
    for generator in (before, after):
        words, follows = generator.logits(*given_ids)
        assert same(words, saw["lm_logits"])
        assert same(follows, saw["mc_logits"])


def test_types_and_ends_are_found_where_they_are_not_given() -> None:
    saw = recorded()
    words, follows = imported(LEGACY).logits(saw["input_ids"])
    assert same(words, saw["lm_logits"])
    assert same(follows, saw["mc_logits"])


def test_recorded_losses() -> None:
    saw = recorded()
    words, follows = imported(LEGACY).logits(saw["input_ids"])
    labels = saw["lm_labels"][..., 1:].flatten()
    loss = torch.nn.functional.cross_entropy(
        words[..., :-1, :].flatten(0, -2), labels, ignore_index=-1
    )
    assert float(loss) == pytest.approx(float(saw["lm_loss"]), rel=1e-5)
    choice = torch.nn.functional.cross_entropy(follows, saw["mc_labels"])
    assert float(choice) == pytest.approx(float(saw["mc_loss"]), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("era", ["legacy", "middle", "today"])
def test_every_era_has_the_logits_of_the_library(kind: Kind, era: str, tmp_path: Path) -> None:
    rows = len(conv_ai.words_of(kind)[0]) + 5
    model = conv_ai.oracle(kind, rows)
    getattr(conv_ai, f"write_{era}")(tmp_path, kind, model)
    ids, types, ends = conv_ai.asked(rows)
    with torch.no_grad():
        expected = model(input_ids=ids, token_type_ids=types, mc_token_ids=ends)
    generator = imported(tmp_path)
    words, follows = generator.logits(ids, types, ends)
    assert same(words, expected.logits)
    assert same(follows, expected.mc_logits)
    layout = generator.layout
    assert isinstance(layout, Speakers)
    order = SPEAKERS if era == "legacy" else LATER
    assert layout.ids == tuple(rows - 5 + order.index(token) for token in SPEAKERS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_reads_what_the_old_code_laid_out(kind: Kind, tmp_path: Path) -> None:
    """<bos> persona, every message behind its speaker, the reply behind <speaker1>."""
    rows = len(conv_ai.words_of(kind)[0]) + 5
    conv_ai.write_middle(tmp_path, kind, conv_ai.oracle(kind, rows))
    layout = imported(tmp_path).layout
    names = dict(zip(LATER, range(rows - 5, rows), strict=True))
    about, said = layout.pieces.ids(["i like dogs .", "hello you"])
    dialogue = Dialogue((Message("user", "hello you"),), ("i like dogs .",))
    context = [names["<bos>"], *about, names["<speaker2>"], *said, names["<speaker1>"]]
    assert layout.context(dialogue) == context
    assert layout.reply("hello you") == [*said, names["<eos>"]]
    assert layout.stop >= {names["<eos>"]}
    assert layout.never >= {names["<bos>"], names["<pad>"]}


PLAIN = {"model_type": ..., "output_attentions": False}  # what the first libraries wrote
ERAS: dict[str, dict[str, Any]] = {
    "pytorch-transformers 1.0 or 1.1": PLAIN,
    "pytorch-transformers 1.2": PLAIN | {"pruned_heads": {}},
    "transformers 2.0 to 2.2": PLAIN | {"pruned_heads": {}, "use_bfloat16": False},
    "transformers 2.3 to 3": {},
    "transformers 4.30.2": {"transformers_version": "4.30.2"},
}


@pytest.mark.parametrize("era", ERAS)
def test_a_configuration_tells_its_library(era: str, tmp_path: Path) -> None:
    """Only one of them read every text with a blank before it, and only by byte pairs."""
    for kind in KINDS:
        rows = len(conv_ai.words_of(kind)[0]) + 5
        folder = tmp_path / kind
        conv_ai.write_middle(folder, kind, conv_ai.oracle(kind, rows), **ERAS[era])
        found = find_conv_ai(folder)
        assert found is not None
        taken = import_generator(found)
        assert taken.era == era
        blank = era.endswith("1.2") and kind == "gpt2"
        assert blank == any("with a blank before it" in note for note in taken.notes)
        plain, before, around = taken.layout.pieces.ids(["hello you", " hello you", " hello you  "])
        if kind == "gpt2":
            assert (plain == before == around) == blank
            words = conv_ai.words_of(kind)[0]
            assert (plain[0] == words["Ġ"]) == blank


def test_a_tokenizer_that_says_so_puts_a_blank_before_texts(tmp_path: Path) -> None:
    rows = len(conv_ai.words_of("gpt2")[0]) + 5
    conv_ai.write_middle(tmp_path, "gpt2", conv_ai.oracle("gpt2", rows))
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    plain, before = imported(tmp_path).layout.pieces.ids(["hello you", " hello you"])
    assert plain == before


def test_a_reply_may_begin_with_a_part_of_a_letter(tmp_path: Path) -> None:
    """Letters of many languages are several tokens of a byte-level vocabulary."""
    words, _ = conv_ai.words_of("gpt2")
    conv_ai.write_middle(tmp_path, "gpt2", conv_ai.oracle("gpt2", len(words) + 5))
    generator = imported(tmp_path)
    (ids,) = generator.layout.pieces.ids(["é"])
    assert len(ids) == 2
    assert ids[0] not in generator.meaning().not_first | generator.meaning().never
    assert words["Ġ"] in generator.meaning().not_first


def test_added_tokens_the_other_way_round(tmp_path: Path) -> None:
    """As pytorch-transformers 1.0 wrote them, with its own name of the summary."""
    rows = len(conv_ai.words_of("gpt")[0]) + 5
    told = PLAIN | {"summary_type": "token_ids"}
    conv_ai.write_middle(tmp_path, "gpt", conv_ai.oracle("gpt", rows), SPEAKERS, **told)
    turned = {str(rows - 5 + place): token for place, token in enumerate(SPEAKERS)}
    (tmp_path / "added_tokens.json").write_text(json.dumps(turned), encoding="utf-8")
    layout = imported(tmp_path).layout
    assert isinstance(layout, Speakers)
    assert layout.ids == tuple(range(rows - 5, rows))


def test_names_of_other_savers_are_known(tmp_path: Path) -> None:
    """`module.` of several GPUs, the endings g, b and w, 16 bits, and a run that was stopped."""
    rows = len(conv_ai.words_of("gpt")[0]) + 5
    model = conv_ai.oracle("gpt", rows)
    weights = conv_ai.write_legacy(tmp_path, "gpt", model)
    renamed = {}
    for name, tensor in weights.items():
        if "ln_" in name:
            name = name.replace(".weight", ".g").replace(".bias", ".b")
        elif ".h." in name:
            name = name.replace(".weight", ".w")
        renamed[f"module.{name}"] = tensor.half() if tensor.is_floating_point() else tensor
    (tmp_path / "pytorch_model.bin").unlink()
    torch.save({}, tmp_path / "checkpoint_mymodel_2.pth")
    torch.save({"mymodel": renamed}, tmp_path / "checkpoint_mymodel_11.pth")
    found = find_conv_ai(tmp_path)
    assert found is not None
    taken = import_generator(found)
    assert any("checkpoint_mymodel_11.pth" in note for note in taken.notes)
    assert any("16 bits" in note for note in taken.notes)
    ids, types, ends = conv_ai.asked(rows)
    with torch.no_grad():
        expected = model.half().float()(input_ids=ids, token_type_ids=types, mc_token_ids=ends)
    assert same(taken.generator.logits(ids, types, ends)[0], expected.logits)


def test_a_head_saved_under_one_of_its_two_names_is_enough(tmp_path: Path) -> None:
    rows = len(conv_ai.words_of("gpt")[0]) + 5
    model = conv_ai.oracle("gpt", rows)
    weights = conv_ai.write_legacy(tmp_path, "gpt", model)
    ids, _, _ = conv_ai.asked(rows)
    whole = imported(tmp_path).logits(ids)[0]
    for gone in ("lm_head.decoder.weight", "transformer.tokens_embed.weight"):
        torch.save({k: w for k, w in weights.items() if k != gone}, tmp_path / "pytorch_model.bin")
        assert imported(tmp_path).logits(ids)[0].equal(whole)


def test_greedy_replies_are_the_old_loop() -> None:
    """A loop as the first code had it: everything read anew for every token."""
    generator = imported(LEGACY)
    layout = generator.layout
    assert isinstance(layout, Speakers)
    ids = layout.context(ASKED)
    written: list[int] = []
    for step in range(12):
        scores = generator.logits(torch.tensor([[*ids, *written]]))[0][0, -1]
        scores[sorted(layout.never)] = -torch.inf
        if step == 0:
            scores[sorted(layout.stop)] = -torch.inf
        best = int(scores.argmax())
        if best in layout.stop:
            break
        written.append(best)
    how = Decoding(greedy=True, max_length=12)
    assert generator.write([ASKED], how) == [layout.text(written)]


WORDS, MERGES = conv_ai.words_of("gpt")
ODD = st.text(st.sampled_from("hello dogs teacher 12é«»東ж'’\u0301\u00a0\n\t.,?!-_XÇ"), max_size=40)
# Of further letters the tables of Unicode differ between Python and the library.
ANY = st.characters(max_codepoint=0x4FF, exclude_categories=("Cn", "Co", "Cs"))


@settings(max_examples=300, deadline=None)
@given(st.one_of(ODD, st.text(ANY, max_size=20)))
def test_text_is_cut_as_the_first_code_did(text: str) -> None:
    generator = _LEGACY
    (ids,) = generator.layout.pieces.ids([text])
    pairs = [(left, right) for left, right in (line.split() for line in MERGES)]
    assert ids == gpt_words.ids_of(text, WORDS, pairs)


_LEGACY = imported(LEGACY)


def test_user_text_never_becomes_a_special_token() -> None:
    generator = imported(LEGACY)
    layout = generator.layout
    assert isinstance(layout, Speakers)
    for token in (*SPEAKERS, "<unk>"):
        (ids,) = layout.pieces.ids([f"hello {token}"])
        assert not set(ids) & set(layout.ids)


def test_a_chat_reads_more_messages_where_it_is_asked_to(tmp_path: Path) -> None:
    tasks.import_model(LEGACY, tmp_path / "ours")
    said = tuple(Message("assistant" if i % 2 else "user", "hi .") for i in range(9))
    lengths = []
    for wanted in (0, 3, 9):
        agent = tasks.make_agent(tmp_path / "ours", max_history=wanted)
        assert isinstance(agent, GenerateAgent)
        seen = newest(Dialogue(said), wanted)
        lengths.append(len(agent.generator.layout.context(seen)))
    each = 3  # two tokens behind a speaker
    assert lengths == [2 + each * count for count in (5, 3, 9)]


def test_user_text_never_ends_a_text_of_gpt2(tmp_path: Path) -> None:
    words, _ = conv_ai.words_of("gpt2")
    conv_ai.write_today(tmp_path, "gpt2", conv_ai.oracle("gpt2", len(words) + 5))
    file = tmp_path / "tokenizer.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    for one in told["added_tokens"]:
        one["special"] = False
    file.write_text(json.dumps(told), encoding="utf-8")
    layout = imported(tmp_path).layout
    (ids,) = layout.pieces.ids(["bye <|endoftext|>"])
    assert words["<|endoftext|>"] not in ids
    assert words["<|endoftext|>"] in layout.never


SUPPORT = Path(__file__).parents[2] / "examples" / "support"


def test_training_goes_on_with_fifty_support_dialogues(tmp_path: Path) -> None:
    """The loss on those held out falls; head and special tokens are kept; the result chats."""
    tasks.import_model(LEGACY, tmp_path / "ours")
    run = tasks.train(
        "generator",
        SUPPORT / "train.jsonl",
        dev=SUPPORT / "dev.jsonl",
        out=tmp_path / "run",
        init_model=tmp_path / "ours",
        metric="perplexity",
        report=False,
        max_steps=30,
        batch_size=8,
        lr=1e-3,
        epochs=5,
    )
    before, after = zoo.load_generator(tmp_path / "ours"), zoo.load_generator(run)
    held = list(examples(read(SUPPORT / "dev.jsonl")))
    assert perplexity(after, held) < 0.7 * perplexity(before, held)
    assert isinstance(after.layout, Speakers)
    assert isinstance(before.layout, Speakers)
    assert after.layout.ids == before.layout.ids
    assert after.layout.tokenizer.to_str() == before.layout.tokenizer.to_str()
    moved = after.module.choice.weight - before.module.choice.weight
    assert 0 < moved.norm() < before.module.choice.weight.norm()  # trained on, not begun anew
    assert after.config.dropout == 0.1  # as the old configuration has it
    agent = tasks.make_agent(run)
    assert agent.respond(Dialogue((Message("user", "where is my parcel ?"),))).text


def perplexity(generator: TextGenerator, held: list[Example]) -> float:
    """Per token."""
    found = generator.surprise([one.context for one in held], [one.reply for one in held])
    return float(np.exp(sum(cost for cost, _ in found) / sum(count for _, count in found)))
