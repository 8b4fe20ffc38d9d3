"""Rankers from scratch: what they read with, what they are, how they learn and go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer

from rejoinder import checkpoint, saved, tasks
from rejoinder.cli import main
from rejoinder.config import GeneratorConfig, ModelConfig, TrainConfig
from rejoinder.dictionary import Dictionary, load_words
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.runs import changed, read_run
from rejoinder.schema import Dialogue, Message
from rejoinder.shape import Shape
from rejoinder.text import TextFormat
from rejoinder.tokens import Tokens
from rejoinder.training.beginning import resolve_lr
from rejoinder.training.scratch import read_words, texts_of

GOLDEN = Path(__file__).parents[1] / "golden" / "parlai"
DICTIONARY = GOLDEN / "poly" / "model.dict"
SAMPLE = Path(tasks.__file__).parents[1] / "sample"
TINY: dict[str, Any] = {
    "base": "native",
    "n_layers": 2,
    "n_heads": 2,
    "embedding_size": 16,
    "ffn_size": 32,
}
QUICK: dict[str, Any] = {
    "batch_size": 8,
    "max_steps": 4,
    "warmup": 1,
    "precision": "fp32",
    "max_context": 40,
    "max_reply": 12,
    "report": False,
}
ASKED = Dialogue((Message("user", "hello , do you like tea ?"),), ("i love tea very much .",))
REPLIES = ["i like tea .", "no .", "my brother likes chess too ."]


def trained(talk: Path, out: Path, kind: str = "bi", **more: Any) -> Path:
    return tasks.train(kind, talk, out=out, **TINY | QUICK | more)


def shape_of(model: Path) -> Shape:
    native = checkpoint.native_of(checkpoint.load(model).module)
    assert native is not None
    return native.shape


def losses(run: Path) -> list[float]:
    rows = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


# -------------------------------------------------------------------------------- what comes of it


@pytest.mark.parametrize("kind", ["bi", "poly", "cross"])
def test_a_ranker_from_scratch_is_like_any_other(kind: str, talk: Path, tmp_path: Path) -> None:
    said = list[str]()
    run = trained(talk, tmp_path / "run", kind, dev=talk, report=True, say=said.append)
    ranker = checkpoint.load(run)
    assert (ranker.config.base, ranker.config.lora) == ("native", 0)
    assert isinstance(ranker.tokens, Tokens)
    size = ranker.tokens.tokenizer.get_vocab_size()
    assert shape_of(run) == Shape(
        n_layers=2, n_heads=2, embedding_size=16, ffn_size=32, vocabulary=size
    )
    assert said[0].startswith(f"{size} tokens learned from ")
    assert (run / "tokenizer.json").read_bytes() == (run / "best/tokenizer.json").read_bytes()
    for text in (saved.card_of(run / "best"), (run / "report.md").read_text()):
        assert "| started from | random weights, from scratch |" in text
        assert "untuned" not in text
    assert f"a transformer of its own (2 layers, 16 wide, 2 heads, {size} tokens)" in ranker.card
    assert tasks.evaluate(run, talk).examples == 26
    assert tasks.report(run, talk) == run / "report.md"
    if kind != "cross":
        (tmp_path / "replies.txt").write_text("\n".join(REPLIES))
        agent = tasks.make_agent(run, candidates=tmp_path / "replies.txt")
        assert agent.respond(ASKED).text in REPLIES
    on = tasks.train("poly", talk, out=tmp_path / "on", init_model=run, **QUICK)
    assert shape_of(on) == shape_of(run)
    assert (on / "best/tokenizer.json").read_bytes() == (run / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    "more",
    [
        {"towers": "separate", "share_embeddings": True},
        {"variant": "prelayernorm", "learn_positional_embeddings": False, "pooling": "first"},
        {"variant": "aiayn", "embeddings_scale": True, "activation": "relu", "n_segments": 0},
        {"normalise": False, "preset": "parlai-bi", "max_history": 3, "batch_size": 8},
    ],
)
def test_any_shape_learns(more: dict[str, Any], talk: Path, tmp_path: Path) -> None:
    run = trained(talk, tmp_path / "run", **more)
    ranker = checkpoint.load(run)
    for name, value in more.items():
        if name in Shape.__dataclass_fields__:
            assert getattr(shape_of(run), name) == value
        elif name in ModelConfig.__dataclass_fields__:
            assert getattr(ranker.config, name) == value
    assert ranker.scores(ASKED, REPLIES).isfinite().all()


def test_what_was_asked_for_is_noted_down_and_told(talk: Path, tmp_path: Path) -> None:
    run = trained(talk, tmp_path / "run", vocabulary=300)
    assert shape_of(run).vocabulary == 300
    told = changed(read_run(run).settings)
    assert {name: told[name] for name in TINY | {"vocabulary": 300}} == TINY | {"vocabulary": 300}
    assert told["lr"] == 5e-4
    other = tasks.train("bi", talk, out=tmp_path / "other", init_model=run, **QUICK)
    (one, two) = tasks.list_runs(tmp_path)["runs"]
    assert one["settings"]["vocabulary"] != two["settings"]["vocabulary"]
    assert "shape" not in json.loads((other / "settings.json").read_text())


def test_file_words_and_flags_give_the_shape(talk: Path, tmp_path: Path) -> None:
    settings = tmp_path / "tiny.toml"
    settings.write_text(
        "[model]\nbase = 'native'\n[shape]\nn_layers = 1\nn_heads = 2\nembedding_size = 16\n"
        "ffn_size = 8\n[train]\nmax_steps = 2\nbatch_size = 8\n[text]\nmax_context = 40\n"
    )
    words = ["train", "poly", "shape.n_layers=2", "shape.ffn_size=12", "--data", str(talk)]
    words += ["--config", str(settings), "--out", str(tmp_path / "run"), "--ffn-size", "24"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--no-learn-positional-embeddings"])
    assert end.value.code == 0
    made = shape_of(tmp_path / "run")
    assert (made.n_layers, made.n_heads, made.embedding_size, made.ffn_size) == (2, 2, 16, 24)
    assert not made.learn_positional_embeddings


# ------------------------------------------------------------------------------------ the tokenizer


def test_the_same_data_gives_the_same_tokenizer_streamed_or_not(talk: Path, tmp_path: Path) -> None:
    runs = [trained(talk, tmp_path / name) for name in "ab"]
    runs.append(trained(talk, tmp_path / "c", stream=True, buffer=7, seed=3))
    assert len({(run / "tokenizer.json").read_bytes() for run in runs}) == 1
    weights = [load_file(run / "best" / "model.safetensors") for run in runs]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_all_texts_are_learned_from() -> None:
    dialogue = Dialogue(
        (
            Message("user", "one"),
            Message("assistant", "two", ("three", "two"), ("four",)),
            Message("system", "five"),
        ),
        ("six",),
        ("seven",),
    )
    found = texts_of([dialogue], TextFormat(max_history=1))
    assert list(found) == [
        *("# six", "# seven", "> one", "< two", "| five"),
        *("< four", "< three", "< two"),
    ]


def test_a_tokenizer_learned_from_a_part_says_so(
    talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoinder.training.scratch.MOST_TEXTS", 5)
    said = list[str]()
    trained(talk, tmp_path / "run", say=said.append)
    assert "tokens learned from the first 5 distinct texts" in said[0]


# --------------------------------------------------------------------------------- ParlAI's words


def test_a_dictionary_of_parlai(talk: Path, tmp_path: Path) -> None:
    said = list[str]()
    run = trained(talk, tmp_path / "run", dictionary=DICTIONARY, say=said.append)
    tokens = checkpoint.load(run).tokens
    assert isinstance(tokens, ParlaiTokens)
    count = len(tokens.dictionary)
    assert shape_of(run).vocabulary == count
    assert said[0] == f"{DICTIONARY}: {count} tokens of kind bpe, lower case"
    style = tokens.style
    marks = (style.persona_mark, style.user_mark, style.assistant_mark, style.system_mark)
    assert marks == ("your persona:", "", "", "")
    assert read_run(run).settings["dictionary"] == "model.dict"
    assert not (run / "tokenizer.json").exists()
    trained(talk, tmp_path / "run", dictionary=DICTIONARY)  # goes on, as there is nothing to do


@pytest.mark.parametrize("kind", ["bi", "poly", "cross"])
def test_a_dictionary_is_read_as_it_is_by_an_import(kind: str, tmp_path: Path) -> None:
    tasks.import_model(GOLDEN / kind, tmp_path / "imported")
    words, imported = read_words(GOLDEN / kind / "model.dict"), load_words(tmp_path / "imported")
    assert words == imported


def test_marks_that_are_asked_for_win(talk: Path, tmp_path: Path) -> None:
    run = trained(talk, tmp_path / "run", dictionary=DICTIONARY, user_mark="you :")
    style = checkpoint.load(run).tokens.style
    assert (style.user_mark, style.persona_mark) == ("you :", "your persona:")


@pytest.mark.parametrize(("word", "lower"), [("tea", True), ("Tea", False), ("ß", True)])
def test_a_dictionary_of_words(word: str, lower: bool, tmp_path: Path) -> None:
    file = tmp_path / "small.dict"
    file.write_text(f"__null__\t9\n__start__\t9\n__end__\t9\n__unk__\t9\n{word}\t3\n,\t2\n")
    words = read_words(file)
    assert (words.kind, words.lower) == ("re", lower)
    found = Dictionary(words).encode(f"{word},{word.swapcase()} x")
    assert found == [4, 5, 4 if lower and word != "ß" else 3, 3]


# ----------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("lora", "scratch", "expected"), [(8, False, 1e-3), (0, False, 5e-5), (0, True, 5e-4)]
)
@pytest.mark.parametrize("kind", [ModelConfig, GeneratorConfig])
def test_the_rate_is_that_for_what_is_learned(
    kind: type[Any], lora: int, scratch: bool, expected: float
) -> None:
    class Made:
        config = kind(lora=lora)

    def rate(settings: TrainConfig, *given: str) -> float:
        return resolve_lr(settings, Made(), given, scratch=scratch).lr  # type: ignore[arg-type]

    assert rate(TrainConfig()) == expected
    assert rate(TrainConfig(lr=0.1), "lr") == rate(TrainConfig(lr=0.1)) == 0.1
    assert rate(TrainConfig(lr=0.0), "lr") == 0.0  # nothing is to move


def test_the_rate_of_a_run_is_noted_down(talk: Path, base: Path, tmp_path: Path) -> None:
    for name, more, expected in (
        ("adapters", {"lora": 4}, 1e-3),
        ("all", {"lora": 0}, 5e-5),
        ("none", {"lora": 0, "lr": 0}, 0.0),
    ):
        run = tasks.train("bi", talk, out=tmp_path / name, base=str(base), **QUICK | more)
        assert json.loads((run / "settings.json").read_text())["train"]["lr"] == expected
        assert read_run(run).origin["settings"]["lr"] == expected


@pytest.mark.parametrize("kind", ["bi", "poly", "cross"])
def test_the_loss_falls(kind: str, talk: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"max_steps": 60, "lr": 3e-3, "log_every": 1, "drop_persona": 0.0}
    found = losses(trained(talk, tmp_path / "run", kind, **more))
    assert sum(found[-10:]) < 0.8 * sum(found[:10])


@pytest.mark.slow
def test_the_sample_dialogues_are_learned_by_heart(tmp_path: Path) -> None:
    """Ten times chance on its own examples in some 15 seconds; this asks for five times."""
    data = SAMPLE / "train.jsonl"
    wide: dict[str, Any] = {
        "embedding_size": 64,
        "ffn_size": 256,
        "max_context": 96,
        "max_reply": 32,
    }
    more: dict[str, Any] = {"max_steps": 200, "batch_size": 32, "warmup": 20, "lr": 1e-3}
    run = trained(data, tmp_path / "run", **wide, **more)
    found = tasks.evaluate(run, data, candidates="re-drawn:20", sample=200)
    assert found.hits_at_1 > 0.25


# -------------------------------------------------------------------------------------- going on


def test_a_resumed_run_reads_as_before_and_ends_the_same(
    talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {"save_every": 1, "dropout": 0.1}
    whole = trained(talk, tmp_path / "whole", **more)
    data = tmp_path / "talk.jsonl"
    data.write_bytes(talk.read_bytes())
    parts = trained(data, tmp_path / "parts", max_time=1e-4, **more)  # one step
    assert json.loads((parts / "last" / "position.json").read_text())["step"] == 1

    def never(*_: object) -> Tokenizer:
        raise AssertionError("learned again")

    monkeypatch.setattr("rejoinder.training.scratch.learn_tokens", never)
    trained(data, parts, **more)
    one, two = (load_file(run / "best" / "model.safetensors") for run in (whole, parts))
    assert all(one[name].equal(two[name]) for name in one)
    assert (whole / "tokenizer.json").read_bytes() == (parts / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    "change", [{"n_layers": 1}, {"vocabulary": 290}, {"dictionary": DICTIONARY}, {"activation": ""}]
)
def test_another_shape_is_another_run(change: dict[str, Any], talk: Path, tmp_path: Path) -> None:
    trained(talk, tmp_path / "run")
    kept = (tmp_path / "run" / "tokenizer.json").read_bytes()
    with pytest.raises(ConfigError, match=r"holds a run with other settings|known: gelu, relu"):
        trained(talk, tmp_path / "run", **change)
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == kept


def test_a_tokenizer_of_somebody_else_is_left_alone(talk: Path, tmp_path: Path) -> None:
    file = tmp_path / "run" / "tokenizer.json"
    file.parent.mkdir()
    file.write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json: is there, and another one than this"):
        trained(talk, tmp_path / "run")
    assert [one.name for one in file.parent.iterdir()] == ["tokenizer.json"]
    assert file.read_text() == "{}"


def test_a_run_on_another_base_is_another_run(talk: Path, base: Path, tmp_path: Path) -> None:
    tasks.train("bi", talk, out=tmp_path / "run", base=str(base), lora=0, **QUICK)
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        trained(talk, tmp_path / "run")
    assert not (tmp_path / "run" / "tokenizer.json").exists()


# -------------------------------------------------------------------------------------- bad wishes


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("bi", {"base": "minilm"}, "n_layers is of a ranker's own encoder, but this is a bi on th"),
        ("bi", {"lora": 4}, "lora is 4, but the base is native: .*; take lora 0"),
        ("bi", {"freeze_embeddings": True}, "freeze_embeddings keeps weights .* drawn at random"),
        ("cross", {"freeze_apart": True, "towers": "separate"}, "freeze_apart keeps weights"),
        ("bi", {"vocabulary": 200}, "vocabulary is 200; expected at least 259"),
        ("bi", {"vocabulary": 300, "dictionary": DICTIONARY}, "vocabulary is 300, but .*model.dic"),
        ("bi", {"n_positions": 20}, "contexts of 40 tokens, but the base reads at most 20"),
        ("bi", {"n_heads": 3}, "n_heads is 3; expected a number that divides embedding_size, 16"),
        ("cross", {"head": "prefix"}, "head is 'prefix' and the base 'native' is no BERT"),
    ],
)
def test_what_cannot_be(
    kind: str, more: dict[str, Any], message: str, talk: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        trained(talk, tmp_path / "run", kind, **more)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("asked", [{"ffn_size": 64}, {"dictionary": DICTIONARY}])
def test_a_model_that_is_gone_on_from_has_its_own_shape(
    asked: dict[str, Any], talk: Path, tmp_path: Path
) -> None:
    first = trained(talk, tmp_path / "first")
    message = "is of an encoder that begins with nothing, but --init-model brings its own"
    with pytest.raises(ConfigError, match=f"{next(iter(asked))} {message}"):
        tasks.train("bi", talk, out=tmp_path / "run", init_model=first, **QUICK | asked)
    plain = {name: value for name, value in QUICK.items() if name != "report"}
    on = tasks.train("bi", talk, out=tmp_path / "on", init_model=first, base="native", **plain)
    assert shape_of(on) == shape_of(first)


def test_only_rankers_begin_from_scratch(talk: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="base 'native' has no weights of its own"):
        tasks.train("generator", talk, out=tmp_path / "run", base="native")
    with pytest.raises(ConfigError, match="unknown setting 'n_layers'"):
        tasks.train("generator", talk, out=tmp_path / "run", n_layers=2)
    with pytest.raises(ConfigError, match="dictionary is of a ranker's own encoder, but this is a"):
        tasks.train("generator", talk, out=tmp_path / "run", dictionary=DICTIONARY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"none\.dict: No such file"),
        ('{"messages": []}\n', r"none\.dict: has no __unk__; expected a dictionary that ParlAI"),
        ("tea\tmany\n", r"none\.dict:1: .*expected a token, a tab and how often"),
    ],
)
def test_a_dictionary_that_cannot_be_read(
    content: str | None, message: str, talk: Path, tmp_path: Path
) -> None:
    file = tmp_path / "none.dict"
    if content:
        file.write_text(content)
    with pytest.raises(CheckpointError, match=message):
        trained(talk, tmp_path / "run", dictionary=file)


def test_fresh_weights_are_the_seeds(talk: Path, tmp_path: Path) -> None:
    first: dict[str, Any] = {"max_steps": 1, "lr": 0}
    one, two, other = (
        checkpoint.load(trained(talk, tmp_path / name, seed=seed, **first)).module
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    a, b, c = (dict(module.named_parameters()) for module in (one, two, other))
    assert all(a[name].equal(b[name]) for name in a)
    name = "context_encoder.model.layers.0.ffn.lin1.weight"
    assert not a[name].equal(c[name])
