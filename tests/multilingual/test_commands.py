"""The commands on dialogues in Spanish, Japanese and Arabic, from a look at the data to a reply."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from rejoinder.cli import main
from rejoinder.data import read
from rejoinder.metrics import word_f1
from rejoinder.schema import examples

from .corpus import LANGUAGES, dialogues_of

PERSONA = {"es": "Tengo un perro que se llama Nube.", "ja": "猫を二匹飼っています。"}
PERSONA["ar"] = "أعزف على العود."
SETTINGS = "--lora 0 --lr 0.01 --precision fp32 --max-steps 30 --batch-size 36 --warmup 3"
SETTINGS += " --max-context 112 --max-reply 48 --drop-persona 0 --no-shuffle-persona"


def replies_of(language: str) -> list[str]:
    return [example.reply for example in examples(read(dialogues_of(language)))]


def do(*command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0


@pytest.fixture(scope="module")
def files() -> list[str]:
    return [str(dialogues_of(language)) for language in LANGUAGES]


@pytest.fixture(scope="module")
def run(
    files: list[str], multilingual_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bi-encoder that has begun to know all dialogues by heart."""
    out = tmp_path_factory.mktemp("multilingual") / "run"
    base = ["--base", str(multilingual_base)]
    do("train", "bi", "--data", *files, "--out", str(out), *base, *SETTINGS.split())
    return out


@pytest.fixture(scope="module")
def index(run: Path, files: list[str]) -> Path:
    folder = run.with_name("index")
    do("index", "build", *files, "--model", str(run), "--out", str(folder))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    do(*command)
    out = capsys.readouterr().out
    assert "\ufffd" not in out
    assert "\\u" not in out
    return out


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_look_at_the_data(language: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(dialogues_of(language))
    found = json.loads(printed(capsys, "data", "check", file, "--json"))
    assert (found["dialogues"], found["with_persona"], found["with_partner_persona"]) == (12,) * 3
    assert found["examples"] == len(replies_of(language)) == len(set(replies_of(language)))
    assert found["bad"] == found["warnings"] == []
    assert found["reply_words"]["50%"] > 5, "no spaces, but many words"
    last = next(iter(read(file))).messages[-1].content
    assert last in found["samples"][0]
    assert last in printed(capsys, "data", "check", file)


@pytest.mark.parametrize("language", LANGUAGES)
def test_conversion_changes_no_character(
    language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "again.jsonl"
    printed(capsys, "data", "convert", str(dialogues_of(language)), str(target))
    assert target.read_bytes() == dialogues_of(language).read_bytes()


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_was_learned_by_heart_is_found(
    run: Path, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(run), str(dialogues_of(language)), "--precision", "fp32", "--json"]
    found = json.loads(printed(capsys, *command))
    assert found["candidates"] == 20
    assert found["hits@1_interval"][0] > 1 / 20, "better than chance"
    assert found["hits@1"] <= found["f1"] <= 1, "where the right reply is first, its F1 is 1"


@pytest.mark.parametrize("language", LANGUAGES)
def test_f1_of_a_right_reply_is_1_in_any_form(language: str) -> None:
    for reply in replies_of(language):
        assert word_f1(unicodedata.normalize("NFD", reply), [reply]) == 1
    one, other, *_ = replies_of(language)
    assert word_f1(one, [other]) < 0.5


def test_the_index_holds_every_reply_as_it_was_written(index: Path) -> None:
    lines = (index / "candidates.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [reply for language in LANGUAGES for reply in replies_of(language)]
    assert [json.loads(line) for line in lines] == expected
    assert all(reply in line for reply, line in zip(expected, lines, strict=True))


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_message_gets_a_reply_of_the_index(
    run: Path, index: Path, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dialogue = next(one for one in read(dialogues_of(language)) if PERSONA[language] in one.persona)
    said = dialogue.messages[0].content
    command = ["chat", "--model", str(run), "--index", str(index), "--once", said]
    command += [word for text in dialogue.persona for word in ("--persona", text)]
    out = printed(capsys, *command, "--json")
    answer = json.loads(out)
    assert answer["persona"] == list(dialogue.persona)
    assert PERSONA[language] in out, "readable as it stands"
    known = {reply for name in LANGUAGES for reply in replies_of(name)}
    assert {one["text"] for one in answer["candidates"]} <= known
    assert printed(capsys, *command) == answer["reply"] + "\n"
    right = dialogue.messages[1].content
    assert right in [one["text"] for one in answer["candidates"]], "20 of 108"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_message_is_not_said_back_in_another_form(
    run: Path, index: Path, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = replies_of(language)[3]
    said = unicodedata.normalize("NFD", reply)
    command = ["chat", "--model", str(run), "--index", str(index), "--no-persona", "--json"]
    answer = json.loads(printed(capsys, *command, "--once", said))
    assert reply not in [one["text"] for one in answer["candidates"]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_list_is_ranked(
    run: Path, language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = [example for example in examples(read(dialogues_of(language)))][:12]
    listed = [example.reply for example in shown]
    lines = []
    for example in shown:
        messages = [{"role": m.role, "content": m.content} for m in example.context.messages]
        asked = {"persona": example.context.persona, "messages": messages, "candidates": listed}
        lines.append(json.dumps(asked, ensure_ascii=False) + "\n")
    (tmp_path / "asked.jsonl").write_text("".join(lines), encoding="utf-8")
    out = printed(capsys, "rank", str(run), str(tmp_path / "asked.jsonl"))
    first = [json.loads(line)["ranking"][0] for line in out.splitlines()]
    assert len(first) == 12
    assert sum(place == i for i, place in enumerate(first)) >= 4, "chance is 1 of 12"
