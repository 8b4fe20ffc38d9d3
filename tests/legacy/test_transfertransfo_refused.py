"""Files of transfer-learning-conv-ai that cannot be mapped with certainty are refused by name."""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder import generators, tasks
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.legacy.transfertransfo import ImportedGenerator, find_conv_ai, import_generator
from rejoinder.text import SPEAKERS

from . import conv_ai
from .broken import Payload, fires
from .conv_ai import LATER, LEGACY

ROWS = len(conv_ai.words_of("gpt")[0]) + 5
SIZE = ROWS - 5


def imported(folder: Path) -> ImportedGenerator:
    found = find_conv_ai(folder)
    assert found is not None
    return import_generator(found)


def refused(folder: Path, *parts: str) -> None:
    """Assert that an import is refused with a message of one line that begins with a file."""
    with pytest.raises(CheckpointError) as caught:
        imported(folder)
    said = str(caught.value)
    assert said.startswith(str(folder))
    assert "\n" not in said
    for part in parts:
        assert part in said


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The recorded checkpoint, to be changed."""
    shutil.copytree(LEGACY, tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def later(tmp_path: Path) -> Path:
    conv_ai.write_middle(tmp_path / "later", "gpt", conv_ai.oracle("gpt", ROWS))
    return tmp_path / "later"


def tell(file: Path, **changes: Any) -> None:
    told = json.loads(file.read_text(encoding="utf-8"))
    told = {name: x for name, x in (told | changes).items() if x is not ...}
    file.write_text(json.dumps(told), encoding="utf-8")


def reweigh(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    file = folder / "pytorch_model.bin"
    weights = torch.load(file, weights_only=True)
    change(weights)
    file.unlink()  # it may be mapped
    torch.save(weights, file)


def put(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], None]:
    def change(weights: dict[str, Tensor]) -> None:
        weights[name] = tensor

    return change


def test_tokens_that_no_file_tells(old: Path, later: Path) -> None:
    (old / "special_tokens.txt").unlink()
    found = imported(old)  # only one code wrote n_special, and in one order
    assert any("no file says which ids" in note for note in found.notes)
    assert found.layout.ids == tuple(range(SIZE, ROWS))
    (later / "added_tokens.json").unlink()
    refused(later, "no file says which ids", "added_tokens.json")
    names = {"bos_token": "<bos>", "additional_special_tokens": ["<speaker1>", "<speaker2>"]}
    (later / "special_tokens_map.json").write_text(json.dumps(names), encoding="utf-8")
    refused(later, "no file says which ids")  # names without ids are no help


def test_tokens_that_two_files_tell_in_two_ways(later: Path) -> None:
    (later / "special_tokens.txt").write_text("\n".join(SPEAKERS), encoding="utf-8")
    refused(later, "special_tokens.txt: <speaker1> is", "added_tokens.json says")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"<eos>": 0}, "the one for unknown words"),
        ({"<eos>": 7}, "another word"),
        ({"<eos>": ROWS}, f"has word vectors 0 to {ROWS - 1}"),
        ({"<eos>": "last"}, "'last'"),
        ({"<eos>": SIZE}, "the same id"),
        ({"<pad>": ...}, "no <pad>"),
    ],
)
def test_tokens_that_cannot_be(later: Path, changed: dict[str, Any], said: str) -> None:
    tell(later / "added_tokens.json", **changed)
    refused(later, said)


def test_a_head_that_is_missing_or_not_the_word_vectors(old: Path) -> None:
    head = "lm_head.decoder.weight"
    reweigh(old, lambda weights: weights.update({head: weights[head] + 1e-3}))
    refused(old, f"{head} is not the word vectors")
    reweigh(old, lambda weights: weights.pop(head))
    imported(old)
    reweigh(old, lambda weights: weights.pop("multiple_choice_head.linear.weight"))
    refused(old, "no next-utterance head", "rejoinder train generator --base")


def test_weights_that_lack_are_left_over_or_of_another_size(old: Path) -> None:
    reweigh(old, lambda weights: weights.update(further=torch.zeros(2)))
    refused(old, "holds", "further", "no place")
    reweigh(old, lambda weights: weights.pop("further"))
    reweigh(old, lambda weights: weights.pop("transformer.h.1.ln_2.bias"))
    refused(old, "lacks our body.model.h.1.ln_2.bias")
    reweigh(old, lambda weights: weights.update({"transformer.h.1.ln_2.bias": torch.zeros(3)}))
    refused(old, "our body.model.h.1.ln_2.bias has shape (3,)")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n_layer": 3}, "has n_layer 2, but config.json says 3"),
        ({"n_embd": 16}, "has n_embd 32, but config.json says 16"),
        ({"n_positions": 512}, "has n_positions 96"),
        ({"n_head": 5}, "n_head is 5"),
        ({"n_head": ...}, "n_head is None; expected a whole number"),
        ({"n_head": "four"}, "config.json"),
        ({"afn": "relu"}, "another activation"),
        ({"model_type": "gpt2"}, "is of the kind openai-gpt, but config.json says gpt2"),
        ({"summary_activation": "tanh"}, "summary_activation is 'tanh'"),
        ({"resid_pdrop": 2}, "dropout is 2.0"),
        ({"resid_pdrop": []}, "config.json"),
    ],
)
def test_a_configuration_of_something_else(old: Path, changed: dict[str, Any], said: str) -> None:
    tell(old / "config.json", **changed)
    refused(old, said)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", "{", "broken JSON"),
        ("config.json", "[]", "holds a list"),
        ("vocab.json", '{"a": 0, "b": 5}', "do not have the ids 0 to 1"),
        ("vocab.json", '{"a": 0}', "the merges that vocab.json was made with"),
        ("merges.txt", "#version\na b c\n", "merges.txt:2: 'a b c'"),
        ("merges.txt", "#version\nq q\n", "the merges that vocab.json was made with"),
        ("special_tokens.txt", "<bos>\n<eos>\n", "has no <speaker1> and no <speaker2>"),
    ],
)
def test_texts_that_cannot_be_read(old: Path, name: str, text: str, said: str) -> None:
    (old / name).write_text(text, encoding="utf-8")
    refused(old, f"{name}", said)


def test_files_that_lack(old: Path, tmp_path: Path) -> None:
    (old / "merges.txt").unlink()
    refused(old, "neither vocab.json and merges.txt nor tokenizer.json")
    (old / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="pytorch_model.bin"):
        tasks.import_model(old, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["[]", '{"model": {}}', '{"model": {"vocab": {}}}', "{"])
def test_a_tokenizer_that_is_none(tmp_path: Path, text: str) -> None:
    conv_ai.write_today(tmp_path, "gpt2", conv_ai.oracle("gpt2", 300))
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    refused(tmp_path, "tokenizer.json")


def test_another_file_of_the_folder_is_no_model(old: Path, tmp_path: Path) -> None:
    (old / "model_training_args.bin").write_bytes(b"arguments")
    with pytest.raises(CheckpointError, match="is not the file of a model; expected pytorch_model"):
        tasks.import_model(old / "model_training_args.bin", tmp_path / "new")


def test_what_is_imported_already_is_not_imported(tmp_path: Path) -> None:
    tasks.import_model(LEGACY, tmp_path / "ours")
    with pytest.raises(CheckpointError, match="is a rejoinder checkpoint already"):
        tasks.import_model(tmp_path / "ours", tmp_path / "again")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "checkpoint_mymodel_3.pth"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_is_executed(old: Path, tmp_path: Path, name: str, protocol: int) -> None:
    mark = tmp_path / "executed"
    attack = pickle.dumps({"a": Payload(mark)}, protocol)
    assert fires(attack, mark)
    (old / "pytorch_model.bin").unlink()
    (old / name).write_bytes(attack)
    refused(old, name)
    torch.save({"a": Payload(mark)}, old / name)
    refused(old, name)
    assert not mark.exists()


@pytest.mark.parametrize("lines", [0, 14])
def test_merges_that_are_cut(old: Path, lines: int) -> None:
    whole = (old / "merges.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (old / "merges.txt").write_text("".join(whole[:lines]), encoding="utf-8")
    refused(old, "merges.txt", "so it is cut")


def test_weights_that_are_no_numbers(old: Path) -> None:
    name = "transformer.h.0.ln_1.weight"
    whole = torch.load(old / "pytorch_model.bin", weights_only=True)[name].clone()
    for odd, said in (
        (whole.long(), "is of int64"),
        (whole.bool(), "is of bool"),
        (whole * torch.nan, "holds what is no number"),
        (whole / 0, "holds what is no number"),
    ):
        reweigh(old, put(name, odd))
        refused(old, "pytorch_model.bin", name, said)


def test_counts_that_do_not_fit_are_noted(old: Path) -> None:
    tell(old / "config.json", vocab_size=100)
    assert any("vocab_size 100" in note for note in imported(old).notes)


def test_a_cut_file_is_named(old: Path) -> None:
    file = old / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-1000])
    refused(old, "pytorch_model.bin")


def test_from_an_archive(old: Path, tmp_path: Path) -> None:
    (old / "model_training_args.bin").write_bytes(b"never read")
    with tarfile.open(tmp_path / "finetuned_chatbot_gpt.tar.gz", "w:gz") as tar:
        for file in sorted(old.iterdir()):
            tar.add(file, file.name)
    told = tasks.import_model(tmp_path / "finetuned_chatbot_gpt.tar.gz", tmp_path / "new")
    assert told["written by"] == "pytorch_pretrained_bert"
    link = tarfile.TarInfo("config.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as tar:
        tar.addfile(link)
    with pytest.raises(CheckpointError, match="config.json"):
        tasks.import_model(tmp_path / "bad.tar.gz", tmp_path / "other")


def test_a_checkpoint_whose_tokens_were_edited_is_refused(tmp_path: Path) -> None:
    tasks.import_model(LEGACY, tmp_path / "ours")
    file = tmp_path / "ours" / "config.json"
    whole = file.read_text(encoding="utf-8")
    for special in ({token: 7 for token in SPEAKERS}, dict.fromkeys(SPEAKERS, ROWS), {}, 3):
        file.write_text(whole, encoding="utf-8")
        tell(file, special=special)
        with pytest.raises(CheckpointError, match="not a generator's settings"):
            generators.load(tmp_path / "ours")
    file.write_text(whole, encoding="utf-8")
    tell(file, shape={"n_embd": 4})
    with pytest.raises(CheckpointError, match="not a generator's settings"):
        generators.load(tmp_path / "ours")


def test_what_logits_cannot_read(old: Path) -> None:
    generator = imported(old).generator
    ids = torch.zeros(1, 4, dtype=torch.long)
    for wrong, said in (
        ((ids.float(),), "whole numbers"),
        ((ids + ROWS,), "expected 0 up to"),
        ((torch.zeros(1, 97, dtype=torch.long),), "L from 1 to 96"),
        ((torch.zeros(1, 0, dtype=torch.long),), "L from 1 to 96"),
        ((ids, ids[:, :2]), "token_type_ids has shape"),
        ((ids, ids, torch.tensor([4])), "mc_token_ids goes from 4"),
        ((ids, ids, ids), "mc_token_ids has shape"),
    ):
        with pytest.raises(ConfigError, match=said):
            generator.logits(*wrong)


def test_further_word_vectors_are_never_written(later: Path) -> None:
    names = (*LATER, "<speaker3>")
    model = conv_ai.oracle("gpt", ROWS + 1)
    shutil.rmtree(later)
    conv_ai.write_middle(later, "gpt", model, names)
    found = imported(later)
    assert any("1 further word vectors" in note for note in found.notes)
    assert ROWS in found.layout.never
