"""From logs to a table to approve, and from there to what is said."""

from __future__ import annotations

import inspect
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rejoinder import checkpoint, cli, tasks, zoo
from rejoinder.candidates import collect
from rejoinder.cli import main
from rejoinder.data import read, write_jsonl
from rejoinder.data.approval import read_rows
from rejoinder.errors import ConfigError, DataError
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message
from rejoinder.tasks.choosing import LIKENESS, suggest_candidates

Make = Callable[..., TextRanker]
ROOT = Path(__file__).parents[1]
LOG = ROOT / "examples" / "support.jsonl"
PAGE = ROOT / "docs" / "candidates.md"
THINGS = ("tea", "dogs", "rain", "chess", "music", "snow", "books", "cheese")
DIALOGUES = [
    Dialogue(
        (
            Message("user", f"do you like {a} ?"),
            Message("assistant", f"i like {a} ."),
            Message("user", "tell me more ."),
            Message("assistant", f"i like {b} more than {a} ."),
        )
    )
    for a in THINGS
    for b in THINGS
    if a != b
]


@pytest.fixture(scope="module")
def model(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "poly"
    checkpoint.save(make(kind="poly"), folder)
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_jsonl(DIALOGUES, tmp_path / "log.jsonl")
    return tmp_path / "log.jsonl"


def run(command: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert not ended.value.code


def approve(file: Path, *texts: str) -> None:
    """Write yes behind some candidates that have no line ends and no commas in them."""
    lines = file.read_text(encoding="utf-8").split("\n")
    for i, line in enumerate(lines):
        if line.split(",")[0] in texts:
            lines[i] = re.sub(r",(no)?,", ",yes,", line, count=1)
    file.write_text("\n".join(lines), encoding="utf-8")


def test_the_order_of_dialogues_and_files_changes_nothing(
    model: Path, log: Path, tmp_path: Path
) -> None:
    tables = []
    for seed in range(3):
        mixed = random.Random(seed).sample(DIALOGUES, len(DIALOGUES))
        parts = [tmp_path / f"{seed}-{part}.jsonl" for part in range(2)]
        write_jsonl(mixed[: 20 * seed + 1], parts[0])
        write_jsonl(mixed[20 * seed + 1 :], parts[1])
        suggest_candidates(parts, tmp_path / f"{seed}.csv", model=model, likeness=0.998)
        tables.append((tmp_path / f"{seed}.csv").read_bytes())
    done = suggest_candidates([log], tmp_path / "whole.csv", model=model, likeness=0.998)
    assert {*tables, (tmp_path / "whole.csv").read_bytes()} == {tables[0]}
    assert 1 < done.clusters < done.distinct, "or the law would hold for nothing"


def test_with_the_highest_likeness_each_reply_stands_for_itself(
    model: Path, log: Path, tmp_path: Path
) -> None:
    done = suggest_candidates([log], tmp_path / "a.csv", model=model, likeness=1)
    counts = Counter(m.content for d in DIALOGUES for m in d.messages if m.role == "assistant")
    assert (done.replies, done.distinct, done.blocked) == (counts.total(), len(counts), 0)
    assert done.rows == done.clusters
    found = [row.text for row in read_rows(tmp_path / "a.csv")]
    assert found == sorted(found, key=lambda text: (-counts[text], text))


def test_least_and_most(model: Path, log: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    done = suggest_candidates([log], file, model=model, likeness=1, least=2)
    assert done.rows == len(THINGS)
    assert suggest_candidates([log], file, model=model, likeness=1, most=3).rows == 3
    assert [row.text for row in read_rows(file)] == [
        "i like books .",
        "i like cheese .",
        "i like chess .",
    ]
    with pytest.raises(DataError, match=r"--least is 8, but the reply said most was said 7 times"):
        suggest_candidates([log], file, model=model, likeness=1, least=8)


def test_block_and_nothing_left(model: Path, log: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("tea\n")
    done = suggest_candidates([log], tmp_path / "a.csv", model=model, likeness=1, block=words)
    assert done.blocked == 7 + 7 + 7
    assert not [row for row in read_rows(tmp_path / "a.csv") if "tea" in row.text]
    words.write_text("like\n")
    with pytest.raises(DataError, match=r"words\.txt: blocks all 112 replies"):
        suggest_candidates([log], tmp_path / "a.csv", model=model, block=words)


def test_bad_lines_stop_or_are_told(model: Path, log: Path, tmp_path: Path) -> None:
    log.write_text(log.read_text() + "broken\n")
    with pytest.raises(DataError, match=r"log\.jsonl:57: not JSON"):
        suggest_candidates([log], tmp_path / "a.csv", model=model)
    assert not (tmp_path / "a.csv").exists()
    told: list[str] = []
    suggest_candidates([log], tmp_path / "a.csv", model=model, skip_bad=told.append)
    assert [re.sub(r"\(.*", "", one) for one in told] == [f"left out: {log}:57: not JSON "]


def test_a_log_without_replies(model: Path, tmp_path: Path) -> None:
    write_jsonl([Dialogue((Message("user", "hi"),))], tmp_path / "log.jsonl")
    with pytest.raises(DataError, match=r"log\.jsonl: no assistant message in it"):
        suggest_candidates([tmp_path / "log.jsonl"], tmp_path / "a.csv", model=model)


@pytest.mark.parametrize("likeness", [0.0, -1.0, 1.1, float("nan")])
def test_a_likeness_that_cannot_be(likeness: float, log: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--likeness is .*; expected a cosine above 0, up to 1"):
        suggest_candidates([log], tmp_path / "a.csv", likeness=likeness)


def test_a_cross_encoder_has_no_vectors(make: Make, log: Path, tmp_path: Path) -> None:
    checkpoint.save(make(kind="cross"), tmp_path / "cross")
    with pytest.raises(ConfigError, match="take a bi- or poly-encoder"):
        suggest_candidates([log], tmp_path / "a.csv", model=tmp_path / "cross")


def test_the_untuned_base_is_a_model_too(
    log: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoinder.baselines.untuned.__defaults__", (str(base), 48))
    assert suggest_candidates([log], tmp_path / "a.csv", model="untuned").rows


def test_no_answer_and_no_other_file_is_lost(model: Path, log: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    suggest_candidates([log], file, model=model, likeness=1)
    suggest_candidates([log], file, model=model, likeness=1)  # nothing was answered yet
    approve(file, "i like tea .", "i like rain .")
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=r"a\.csv: 2 of its candidates are answered"):
        suggest_candidates([log], file, model=model)
    assert file.read_bytes() == before
    with pytest.raises(ConfigError, match=r"log\.jsonl: is there, and no table of candidates"):
        suggest_candidates([log], log, model=model)
    with pytest.raises(ConfigError, match=r"is there, and no table of candidates"):
        suggest_candidates([log], tmp_path, model=model)
    with pytest.raises(ConfigError, match="there is no folder"):
        suggest_candidates([log], tmp_path / "no" / "a.csv", model=model)


def test_what_was_approved_is_what_is_said(
    model: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REJOINDER_HOME", str(tmp_path / "home"))
    file = tmp_path / "a.csv"
    suggest_candidates([log], file, model=model, likeness=1)
    with pytest.raises(DataError, match="none of its 64 candidates is approved"):
        tasks.build_index([file], model, tmp_path / "index")
    approve(file, "i like tea .", "i like rain .")
    index, found = tasks.build_index([file], model, tmp_path / "index")
    assert sorted(index.texts) == sorted(found.texts) == ["i like rain .", "i like tea ."]
    agent = tasks.make_agent(model, candidates=file)
    assert agent.respond(DIALOGUES[0].before(1)).text in index.texts


def test_what_looks_private_is_never_said_unasked(model: Path, tmp_path: Path) -> None:
    private = "call me : 555-0123"
    talk = Dialogue((Message("user", "hi"), Message("assistant", private)))
    write_jsonl([*DIALOGUES, talk, talk], tmp_path / "log.jsonl")
    file = tmp_path / "a.csv"
    done = suggest_candidates([tmp_path / "log.jsonl"], file, model=model, likeness=1)
    assert done.warnings == 1
    assert f"{private},2,hi,no,a phone number: 55...23,1,\n" in file.read_text(encoding="utf-8")
    approve(file, "i like tea .")
    assert collect([file]).texts == ["i like tea ."]
    approve(file, private)
    assert sorted(collect([file]).texts) == [private, "i like tea ."]


def test_the_command(
    model: Path, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.csv"
    command = ["candidates", "suggest", str(log), str(log), "--out", str(file)]
    command += ["--model", str(model), "--likeness", "1"]
    run(command)
    assert capsys.readouterr().out == (
        f"{file}: 64 candidates to approve, of 224 replies (64 distinct, 64 after near-duplicates, "
        "0 blocked)\n"
    )
    run([*command, "--json", "--most", "2"])
    assert json.loads(capsys.readouterr().out) == {
        "replies": 224,
        "blocked": 0,
        "distinct": 64,
        "clusters": 64,
        "rows": 2,
        "warnings": 0,
    }


def test_the_command_and_the_function_have_the_same_defaults() -> None:
    options = inspect.signature(cli.candidates.candidates_suggest).parameters
    assert options["likeness"].default == LIKENESS
    assert options["model"].default == zoo.DEFAULT


def test_the_example_log_is_read() -> None:
    assert len(list(read(LOG))) == 30


@pytest.mark.slow
@pytest.mark.weights
def test_the_page_shows_a_real_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if zoo.DEFAULT not in zoo.names():
        pytest.skip(f"{zoo.DEFAULT} is not in the package")
    monkeypatch.chdir(ROOT)
    file = tmp_path / "replies.csv"
    run(["candidates", "suggest", "examples/support.jsonl", "--out", str(file)])
    said = capsys.readouterr()
    page = PAGE.read_text(encoding="utf-8")
    for line in (said.out + said.err).replace(str(file), "replies.csv").splitlines():
        assert line in page
    (shown,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    table = file.read_text(encoding="utf-8-sig")
    for part in shown.split("...\n"):
        assert part in table
