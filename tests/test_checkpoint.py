"""Saving and loading: the same bits, the same scores, and errors that name the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rejoinder import checkpoint
from rejoinder.confidence import Confidence
from rejoinder.config import Kind, ModelConfig
from rejoinder.errors import CheckpointError, ConfigError, RejoinderError
from rejoinder.ranker import TextRanker
from rejoinder.saved import read_config, resolve
from rejoinder.text import TextFormat
from rejoinder.tokens import Tokens
from rejoinder.weights import state

Make = Callable[..., TextRanker]
FullDisk = Callable[[int], AbstractContextManager[None]]


Scored = Callable[[TextRanker], Tensor]


@pytest.fixture
def saved(make: Make, tmp_path: Path) -> Path:
    """The folder of a small poly-encoder with adapters."""
    checkpoint.save(make(kind="poly", poly="codes", lora=4), tmp_path / "poly")
    return tmp_path / "poly"


def weights_of(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def change(folder: Path, **sections: Any) -> None:
    """Overwrite parts of config.json: `change(folder, model={"kind": "bi"}, pad=None)`."""
    file = folder / "config.json"
    settings = json.loads(file.read_text())
    for name, value in sections.items():
        settings[name] = settings[name] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(settings))


def test_loading_gives_the_same_bits(ranker: TextRanker, tmp_path: Path, scored: Scored) -> None:
    """Weights that are trained as they are; adapters before they are merged."""
    checkpoint.save(ranker, tmp_path / "out")
    again = checkpoint.load(tmp_path / "out", trainable=True)
    assert scored(again).equal(scored(ranker))
    assert (again.config, again.tokens.style) == (ranker.config, ranker.tokens.style)
    before, after = (one.module.state_dict() for one in (ranker, again))
    assert list(before) == list(after)
    assert all(before[name].equal(after[name]) for name in before)


def test_merged_adapters_score_as_separate_ones(
    ranker: TextRanker, tmp_path: Path, scored: Scored
) -> None:
    checkpoint.save(ranker, tmp_path / "out")
    merged = checkpoint.load(tmp_path / "out")
    assert not [name for name in merged.module.state_dict() if "lora" in name]
    torch.testing.assert_close(scored(merged), scored(ranker), rtol=1e-5, atol=1e-4)


def test_what_was_loaded_can_be_saved_again(
    ranker: TextRanker, tmp_path: Path, scored: Scored
) -> None:
    """Also with adapters merged: they are not lost."""
    checkpoint.save(ranker, tmp_path / "one")
    one = checkpoint.load(tmp_path / "one")
    checkpoint.save(one, tmp_path / "two")
    two = checkpoint.load(tmp_path / "two")
    assert scored(two).equal(scored(one))
    assert two.fingerprint == one.fingerprint
    assert (tmp_path / "one/model.safetensors").read_bytes() == (
        tmp_path / "two/model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("lora", [0, 4])
def test_fp16_changes_scores_little_and_halves_the_file(
    make: Make, tmp_path: Path, scored: Scored, lora: int
) -> None:
    ranker = make(kind="poly", poly="codes", lora=lora)
    for name, dtype in (("whole", None), ("half", torch.float16)):
        checkpoint.save(ranker, tmp_path / name, dtype=dtype)
    assert {w.dtype for w in weights_of(tmp_path / "half").values()} == {torch.float16}
    sizes = [sum(w.nbytes for w in weights_of(tmp_path / n).values()) for n in ("whole", "half")]
    assert sizes[0] == 2 * sizes[1]
    exact, rough = scored(ranker), scored(checkpoint.load(tmp_path / "half"))
    assert 0 < (rough - exact).abs().max() < 0.003 * exact.abs().max()
    assert next(ranker.module.parameters()).dtype == torch.float32, "the ranker itself is as before"


@pytest.mark.parametrize("lora", [0, 4])
def test_a_shared_tower_is_saved_once(make: Make, tmp_path: Path, lora: int) -> None:
    for towers in ("shared", "separate"):
        checkpoint.save(make(kind="bi", towers=towers, lora=lora), tmp_path / towers)
    shared, separate = weights_of(tmp_path / "shared"), weights_of(tmp_path / "separate")
    assert {name.split(".")[0] for name in shared} == {"context_encoder", "scale"}
    assert len(separate) - 1 == 2 * (len(shared) - 1)


def test_with_adapters_only_they_and_the_rankers_own_weights_are_saved(saved: Path) -> None:
    names = list(weights_of(saved))
    tower = [name for name in names if name.startswith("context_encoder.")]
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in tower)
    assert len(tower) == 2 * 12
    assert set(names) - set(tower) == {"codes", "scale.log", "sharpness.log"}
    assert not [name for name in names if "base_model" in name or "default" in name]


def test_the_folder_describes_itself(make: Make, tmp_path: Path) -> None:
    ranker = make(kind="bi")
    ranker.confidence = Confidence(-1.0, (0.1, 0.2, 0.3))
    checkpoint.save(ranker, tmp_path / "out", card="# mine\n", training={"step": 3})
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    settings = read_config(tmp_path / "out")
    assert settings["training"] == {"step": 3}
    again = checkpoint.load(tmp_path / "out")
    assert (again.confidence, again.name, again.card) == (ranker.confidence, "out", "# mine\n")


def test_a_folder_with_something_else_in_it_is_not_overwritten(make: Make, saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(RejoinderError, match=r"holds 'notes\.txt', which is not ours"):
        checkpoint.save(make(), saved)
    assert (saved / "notes.txt").read_text() == "mine"


def test_a_runs_folder_stands_for_its_best(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    saved.rename(tmp_path / "run" / "best")
    assert checkpoint.load(tmp_path / "run").fingerprint
    assert resolve(tmp_path / "run") == tmp_path / "run" / "best"


def test_confidence_is_stored_beside_the_same_weights(saved: Path) -> None:
    before = checkpoint.load(saved)
    checkpoint.store_confidence(saved, Confidence(1.0, (2.0, 3.0, 4.0)))
    after = checkpoint.load(saved)
    assert after.confidence == Confidence(1.0, (2.0, 3.0, 4.0))
    assert after.fingerprint == before.fingerprint


def test_fingerprints_differ_with_what_scores_depend_on(make: Make) -> None:
    ranker = make(kind="poly", poly="codes")
    weights = state(ranker.module, only_adapters=False)
    config, style = ranker.config, ranker.tokens.style
    moved = {**weights, "scale.log": weights["scale.log"] + 1e-6}
    prints = [
        checkpoint.fingerprint(weights, config, style),
        checkpoint.fingerprint(moved, config, style),
        checkpoint.fingerprint({**weights, "codes": weights["codes"].flip(0)}, config, style),
        checkpoint.fingerprint(weights, replace(config, attention="sqrt"), style),
        checkpoint.fingerprint(weights, replace(config, base_sha256="0" * 64), style),
        checkpoint.fingerprint(weights, config, replace(style, user_mark="U")),
        checkpoint.fingerprint(weights, config, replace(style, max_context=47)),
    ]
    assert len(set(prints)) == len(prints)
    backwards = {name: weights[name].clone() for name in reversed(weights)}
    assert checkpoint.fingerprint(backwards, replace(config), replace(style)) == prints[0]


def test_two_copies_of_a_folder_have_one_fingerprint(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "copy")
    prints = {checkpoint.load(folder).fingerprint for folder in (saved, tmp_path / "copy", saved)}
    assert len(prints) == 1
    assert len(prints.pop()) == 32


def test_initialising_takes_up_the_text_format(make: Make, saved: Path) -> None:
    change(saved, text={"user_mark": "U", "max_context": 30})
    ranker, _, _ = checkpoint.initialise(saved, ModelConfig(kind="bi"))
    assert (ranker.tokens.style.user_mark, ranker.tokens.style.max_context) == ("U", 30)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: cut(f / "model.safetensors"), r"model\.safetensors: not a whole safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), r"model\.safetensors: not a whole"),
        (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: missing"),
        (lambda f: (f / "config.json").unlink(), r"config\.json: No such file.*expected a folder"),
        (lambda f: cut(f / "config.json"), r"config\.json: broken JSON"),
        (
            lambda f: (f / "config.json").write_text("[1]"),
            r"config\.json: format 'list', expected 1",
        ),
        (lambda f: change(f, format=9), r"config\.json: format 9, expected 1"),
        (lambda f: change(f, model=None), r"config\.json: not a ranker's settings"),
        (lambda f: change(f, model={"poli": 1}), r"unknown setting 'poli'\. Did you mean 'poly'"),
        (
            lambda f: change(f, text={"keep": "all"}),
            "not a ranker's settings: keep is 'all'; known",
        ),
        (
            lambda f: change(f, text={"max_context": 65}),
            "contexts of 65 tokens, but the base reads",
        ),
        (lambda f: change(f, pad="x"), r"config\.json: not a ranker's settings"),
        (lambda f: change(f, confidence=[1]), "not a ranker's settings"),
        (lambda f: change(f, model={"base_sha256": "0" * 64}), "another base than the one"),
        (lambda f: change(f, model={"base": "/nowhere"}), "'/nowhere' is neither a folder nor"),
        (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json: not a readable tokenizer"),
        (lambda f: cut(f / "tokenizer.json"), r"tokenizer\.json: not a readable tokenizer"),
        (lambda f: change(f, model={"kind": "bi"}), "holds codes, which this kind of ranker"),
        (lambda f: change(f, model={"codes": 5}), r"codes has shape \(4, 16\), expected \(5, 16\)"),
        (
            lambda f: change(f, model={"attention": "multihead"}),
            "weights are missing, e.g. multihead",
        ),
        (lambda f: change(f, model={"lora": 0}), "lora_A.weight, which this kind of ranker"),
        (lambda f: change(f, model={"towers": "separate"}), "missing, e.g. candidate_encoder"),
    ],
)
def test_a_broken_checkpoint_names_the_file_and_the_reason(
    saved: Path, harm: Callable[[Path], object], message: str
) -> None:
    harm(saved)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    "harm", [lambda f: change(f, model=None), lambda f: cut(f / "config.json")]
)
def test_a_broken_checkpoint_cannot_be_built_upon(
    saved: Path, harm: Callable[[Path], None]
) -> None:
    harm(saved)
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        checkpoint.initialise(saved, ModelConfig(kind="bi"))


@pytest.mark.parametrize("trainable", [True, False])
def test_adapters_that_are_missing(saved: Path, trainable: bool) -> None:
    """Never the untuned base in place of what was trained."""
    kept = {name: w for name, w in weights_of(saved).items() if ".lora_" not in name}
    save_file(kept, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"weights are missing, e\.g\. .*lora_A"):
        checkpoint.load(saved, trainable=trainable)


def test_a_ranker_that_lost_its_adapters_is_not_saved(make: Make, tmp_path: Path) -> None:
    ranker = make(kind="bi")
    ranker.config = replace(ranker.config, lora=4)
    with pytest.raises(CheckpointError, match="not saved: .* should have adapters of rank 4"):
        checkpoint.save(ranker, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("lora", "first"), [(4, "model.safetensors"), (1, "tokenizer.json")])
def test_a_full_disk_leaves_the_old_checkpoint(
    make: Make, tmp_path: Path, full_disk: FullDisk, scored: Scored, lora: int, first: str
) -> None:
    """Whether it is the weights that do not fit or, where they are small, the tokenizer."""
    ranker, folder = make(kind="bi", lora=lora), tmp_path / "out"
    if first == "tokenizer.json":
        assert isinstance(ranker.tokens, Tokens)
        ranker.tokens.tokenizer.add_tokens([f"word-{i}" for i in range(200)])
    checkpoint.save(ranker, folder)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert max(sizes, key=lambda name: sizes[name]) == first
    room = sizes[first] - 1
    other = make(kind="bi", lora=lora, seed=1)
    other.tokens = ranker.tokens
    with (
        full_disk(room),
        pytest.raises(RejoinderError, match=r"out: could not be written \(.*large"),
    ):
        checkpoint.save(other, folder)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert scored(checkpoint.load(folder, trainable=True)).equal(scored(ranker))


@pytest.mark.parametrize(("kind", "fits", "not_"), [("bi", 64, 65), ("cross", 52, 53)])
@pytest.mark.parametrize("lora", [0, 4])
def test_contexts_must_fit_the_base(
    base: Path, kind: Kind, fits: int, not_: int, lora: int
) -> None:
    """A cross-encoder needs room for the candidate too."""
    config = ModelConfig(kind=kind, base=str(base), lora=lora)
    checkpoint.fresh(config, TextFormat(max_context=fits, max_reply=12), trainable=True)
    with pytest.raises(ConfigError, match="contexts of 65 tokens, but the base reads at most 64"):
        checkpoint.fresh(config, TextFormat(max_context=not_, max_reply=12), trainable=True)


def test_candidates_must_fit_the_base(base: Path) -> None:
    with pytest.raises(ConfigError, match="candidates of 65 tokens, but the base reads at most 64"):
        checkpoint.fresh(ModelConfig(base=str(base)), TextFormat(max_context=48, max_reply=65))


def another_base(base: Path, folder: Path, family: str) -> Path:
    """A tiny encoder of another family with the usual tokenizer."""
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 40, "pad_token_id": 1}
    if family == "DistilBert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(vocab_size=400, **sizes)
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    shutil.copy(base / "tokenizer.json", folder)
    return folder


@pytest.mark.parametrize("family", ["Roberta", "DistilBert", "MPNet", "Electra"])
def test_other_families_with_adapters_come_back(
    base: Path, tmp_path: Path, scored: Scored, family: str
) -> None:
    folder = another_base(base, tmp_path / "base", family)
    config = ModelConfig(kind="poly", base=str(folder), lora=4)
    ranker = checkpoint.fresh(config, TextFormat(max_context=24, max_reply=12), trainable=True)
    with torch.no_grad():
        for name, weight in ranker.module.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    checkpoint.save(ranker, tmp_path / "out")
    again = checkpoint.load(tmp_path / "out", trainable=True)
    assert scored(again).equal(scored(ranker))
    merged = checkpoint.load(tmp_path / "out")
    torch.testing.assert_close(scored(merged), scored(ranker), rtol=1e-5, atol=1e-4)


def test_a_base_that_counts_positions_from_behind_its_padding(
    base: Path, tmp_path: Path, scored: Scored
) -> None:
    """RoBERTa and its kin have room for 40 - 1 - 1 tokens where their config says 40."""
    config = ModelConfig(base=str(another_base(base, tmp_path / "base", "Roberta")))
    fits = TextFormat(max_context=38, max_reply=12)
    assert scored(checkpoint.fresh(config, fits)).isfinite().all()
    with pytest.raises(ConfigError, match="contexts of 39 tokens, but the base reads at most 38"):
        checkpoint.fresh(config, replace(fits, max_context=39))


def test_a_fresh_ranker_remembers_its_base(base: Path) -> None:
    ranker = checkpoint.fresh(ModelConfig(base=str(base)), TextFormat(max_context=48))
    assert len(ranker.config.base_sha256) == 64
    assert not [name for name in ranker.module.state_dict() if "lora" in name]


def test_padding_is_the_bases_own(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    settings = json.loads((base / "config.json").read_text())
    for value, pad in ((7, 7), (None, 0)):
        (tmp_path / "base" / "config.json").write_text(
            json.dumps(settings | {"pad_token_id": value})
        )
        style = TextFormat(max_context=48)
        ranker = checkpoint.fresh(ModelConfig(base=str(tmp_path / "base"), lora=0), style)
        assert ranker.tokens.pad == pad
        checkpoint.save(ranker, tmp_path / "out")
        assert checkpoint.load(tmp_path / "out").tokens.pad == pad
