"""What the commands do, from Python: measuring, ranking lines, searching, agents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rejoinder import checkpoint, tasks
from rejoinder.data import write_jsonl
from rejoinder.errors import ConfigError, DataError
from rejoinder.index import Index
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message

Make = Callable[..., TextRanker]
THINGS = ("tea", "dogs", "rain", "chess", "music", "snow", "books", "cheese")
DIALOGUES = [
    Dialogue(
        (
            Message("user", f"do you like {a} ?"),
            Message("assistant", f"i like {a} and {b} ."),
            Message("user", "tell me more ."),
            Message("assistant", f"my brother likes {b} , not {a} ."),
        ),
        (f"i love {a} .",),
    )
    for a in THINGS
    for b in THINGS
    if a < b
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "dialogues.jsonl"
    write_jsonl(DIALOGUES, file)
    return file


@pytest.fixture
def model(make: Make, tmp_path: Path) -> Path:
    checkpoint.save(make(kind="poly"), tmp_path / "model")
    return tmp_path / "model"


def test_evaluate_draws_candidates_where_there_are_none(model: Path, data: Path) -> None:
    report = tasks.evaluate(model, data)
    assert report.candidates == 20
    assert report.examples == 2 * len(DIALOGUES)
    assert tasks.evaluate(model, data).hits_at_1 == report.hits_at_1


def test_limit_takes_the_first(data: Path) -> None:
    first = tasks.prepare(data, "re-drawn:5", 3)
    assert [one.reply for one in first] == [
        DIALOGUES[0].messages[1].content,
        DIALOGUES[0].messages[3].content,
        DIALOGUES[1].messages[1].content,
    ]


def test_a_candidate_file_is_for_every_example(model: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "candidates.txt"
    file.write_text("i like tea .\nit rained .\n")
    report = tasks.evaluate(model, data, candidates=str(file), limit=4)
    assert report.candidates == 3, "two of the file and the right one"


def test_without_persona_scores_differ(model: Path, data: Path) -> None:
    assert tasks.evaluate(model, data).mrr != tasks.evaluate(model, data, persona=False).mrr


def test_the_worst_misses_are_written_worst_first(model: Path, data: Path, tmp_path: Path) -> None:
    tasks.evaluate(model, data, errors=tmp_path / "misses.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "misses.jsonl").read_text().splitlines()]
    assert rows
    assert [row["rank"] for row in rows] == sorted((row["rank"] for row in rows), reverse=True)
    assert all(row["rank"] > 1 and row["said"] != row["reply"] for row in rows)


@pytest.mark.parametrize("name", ["bm25", "untuned"])
def test_baselines_are_measured_by_name(
    name: str, data: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoinder.baselines.untuned.__defaults__", (str(base), 48))
    assert 0 <= tasks.evaluate(name, data, limit=10).hits_at_1 <= 1


def test_full_corpus_ranks_among_all(model: Path, data: Path, tmp_path: Path) -> None:
    tasks.build_index([data], model, tmp_path / "index")
    found = tasks.evaluate_corpus(model, data, tmp_path / "index", limit=10)
    assert found["candidates"] == 2 * len(DIALOGUES)
    assert found["added"] == 0
    assert found["recall@1"] <= found["recall@10"] <= found["recall@100"] == 1


def line(**changes: Any) -> str:
    asked = {
        "persona": ["i love tea ."],
        "messages": [{"role": "user", "content": "do you like dogs ?"}],
        "candidates": ["i like dogs .", "it rained .", "i like tea ."],
    }
    return json.dumps(asked | changes)


def test_rank_answers_every_line_like_the_model(ranker: TextRanker) -> None:
    (answer,) = tasks.rank_lines(ranker, [line(), "\n"], "in")
    dialogue = Dialogue((Message("user", "do you like dogs ?"),), ("i love tea .",))
    ranking = ranker.rank(dialogue, ["i like dogs .", "it rained .", "i like tea ."])
    assert answer["scores"] == list(ranking.scores)
    assert answer["ranking"] == list(ranking.order)


def test_rank_top_and_diverse(ranker: TextRanker) -> None:
    (top,) = tasks.rank_lines(ranker, [line()], "in", top=2)
    (spread,) = tasks.rank_lines(ranker, [line()], "in", top=2, spread=True)
    assert len(top["ranking"]) == len(spread["ranking"]) == 2
    assert top["ranking"][0] == spread["ranking"][0]
    assert len(top["scores"]) == 3, "scores are of all"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("{", "in:2: not JSON"),
        (line(candidates=[]), "in:2: candidates"),
        (line(messages="hi"), "in:2: messages"),
        (line(candidates=[1]), r"in:2: candidates\[0\]"),
    ],
)
def test_rank_says_which_line_is_wrong(make: Make, wrong: str, message: str) -> None:
    answers = tasks.rank_lines(make(kind="bi"), [line(), wrong], "in")
    next(answers)
    with pytest.raises(DataError, match=message):
        next(answers)


def test_the_cached_index_is_used_again(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REJOINDER_HOME", str(tmp_path / "home"))
    first = tasks.make_agent(model, candidates=str(data))

    def no_more(*_: object, **__: object) -> Index:
        raise AssertionError("built again")

    monkeypatch.setattr(Index, "build", no_more)
    second = tasks.make_agent(model, candidates=str(data))
    asked = DIALOGUES[0].before(1)
    assert second.respond(asked).text == first.respond(asked).text


def test_wishes_that_exclude_each_other(model: Path, make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        tasks.make_agent(model, candidates="sample", index=tmp_path)
    checkpoint.save(make(kind="cross"), tmp_path / "cross")
    with pytest.raises(ConfigError, match="--rerank"):
        tasks.make_agent(tmp_path / "cross")


def test_training_by_function_call(base: Path, data: Path, tmp_path: Path) -> None:
    folder = tasks.train(
        "bi",
        data,
        dev=data,
        out=tmp_path / "run",
        base=str(base),
        lora=4,
        max_steps=3,
        batch_size=8,
        max_context=48,
        max_reply=12,
        precision="fp32",
    )
    assert tasks.evaluate(folder, data, limit=5).examples == 5
    assert checkpoint.load(folder).confidence is not None


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        tasks.split_settings({"epoch": 3})


def test_two_models_on_the_same_candidates(model: Path, data: Path) -> None:
    found = tasks.compare(model, "bm25", data, limit=12)
    assert list(found) == ["hits@1", "mrr"]
    one = found["hits@1"]
    assert one.a == tasks.evaluate(model, data, limit=12).hits_at_1
    assert one.b == tasks.evaluate("bm25", data, limit=12).hits_at_1
    assert one.low <= one.difference <= one.high
    turned = tasks.compare("bm25", model, data, limit=12)["mrr"]
    assert turned.difference == pytest.approx(-found["mrr"].difference)
    same = tasks.compare(model, model, data, limit=12)["mrr"]
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
