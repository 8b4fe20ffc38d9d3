"""From ParlAI's files to a model of ours by the commands: chat, evaluation, training on."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from rejoinder import checkpoint, tasks
from rejoinder.cli import main
from rejoinder.dictionary import load_words
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.schema import Dialogue, Message

GOLDEN = Path(__file__).parents[1] / "golden" / "parlai"
KINDS = ["bi", "poly", "cross"]
THINGS = ["tea", "coffee", "dogs", "cats", "books", "planes", "pets", "rain", "snow", "maps"]
THINGS += ["stars", "wood"]
ASKED = Dialogue((Message("user", "hello , how are you today ?"),), ("i like tea .",))


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Dialogues to train on, each with three candidates."""
    lines = []
    for place, thing in enumerate(THINGS):
        wrong = [f"no {other} ." for other in (THINGS[place - 1], THINGS[place - 2])]
        gold = f"yes , i like {thing} ."
        said = [
            {"role": "user", "content": f"do you like {thing} ?"},
            {"role": "assistant", "content": gold, "candidates": [*wrong, gold]},
        ]
        lines.append(json.dumps({"persona": [f"i like {thing} ."], "messages": said}) + "\n")
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(lines), encoding="utf-8")
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_model_is_like_any_other(kind: str, talk: Path, tmp_path: Path) -> None:
    told = tasks.import_model(GOLDEN / kind / "model", tmp_path / "ours", check=talk)
    assert told["kind"] == kind
    assert 0 <= told["hits@1"] <= 1
    assert told["examples"] == len(THINGS)
    card = (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")
    assert "ParlAI" in card
    if kind != "cross":
        replies = tmp_path / "replies.txt"
        replies.write_text("".join(f"i like {thing} .\n" for thing in THINGS), encoding="utf-8")
        agent = tasks.make_agent(tmp_path / "ours", candidates=replies)
        assert agent.respond(ASKED).text in replies.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_goes_on_from_an_imported_model(kind: str, talk: Path, tmp_path: Path) -> None:
    tasks.import_model(GOLDEN / kind, tmp_path / "ours")
    run = tasks.train(
        kind,
        talk,
        dev=talk,
        out=tmp_path / "run",
        init_model=tmp_path / "ours",
        preset=f"parlai-{kind}",
        max_context=40,
        max_reply=16,
        max_steps=3,
        batch_size=4,
        codes=5,
    )
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "the model it began from" in report
    assert "untuned" not in report  # an encoder of its own has nothing to compare with
    assert "a transformer of its own" in (run / "best" / "README.md").read_text(encoding="utf-8")
    before, after = checkpoint.load(tmp_path / "ours"), checkpoint.load(run)
    assert after.config.kind == kind
    assert after.config.poly == "codes"
    assert load_words(run / "best") == load_words(tmp_path / "ours")
    texts = ["i like tea .", "no .", "two dogs and a cat . you ?"]
    assert before.scores(ASKED, texts).tolist() != after.scores(ASKED, texts).tolist()
    found = tasks.evaluate(run, talk)
    assert found.examples == len(THINGS)
    assert found.candidates == 3


def test_an_archive_is_as_good_as_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "old.tar.gz", "w:gz") as archive:
        archive.add(GOLDEN / "poly", "mymodel")
    whole, packed = tmp_path / "whole", tmp_path / "packed"
    tasks.import_model(GOLDEN / "poly", whole)
    with pytest.raises(SystemExit) as ended:
        main(["import", str(tmp_path / "old.tar.gz"), "--out", str(packed), "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["from"]) == ("poly", str(tmp_path / "old.tar.gz"))
    assert (whole / "model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()
    one, other = checkpoint.load(whole), checkpoint.load(packed)
    assert one.scores(ASKED, ["no ."]).equal(other.scores(ASKED, ["no ."]))


def test_nothing_is_left_where_nothing_was_imported(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for file in (GOLDEN / "bi").iterdir():
        (old / file.name).write_bytes(file.read_bytes())
    (old / "model").write_bytes((old / "model").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="model"):
        tasks.import_model(old, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_native_base_is_never_looked_for(talk: Path, tmp_path: Path) -> None:
    tasks.import_model(GOLDEN / "poly", tmp_path / "ours")
    with pytest.raises(ConfigError, match="is a poly-encoder on an encoder of its own"):
        tasks.train("generator", talk, out=tmp_path / "run", init_model=tmp_path / "ours")


def test_a_recipe_sets_the_factor_on_states_anew(talk: Path, base: Path, tmp_path: Path) -> None:
    """As ParlAI's --output-scaling beside --init-model; a pretrained base has none."""
    old = tmp_path / "old"
    shutil.copytree(GOLDEN / "bi", old)
    told = json.loads((old / "model.opt").read_text(encoding="utf-8")) | {"output_scaling": 1.0}
    (old / "model.opt").write_text(json.dumps(told), encoding="utf-8")
    tasks.import_model(old, tmp_path / "ours")
    how: dict[str, Any] = {"max_steps": 1, "batch_size": 4, "report": False, "max_context": 40}
    said: list[str] = []
    how |= {"max_reply": 16, "init_model": tmp_path / "ours", "say": said.append}

    def factor(out: str, **more: Any) -> float:
        run = tasks.train("bi", talk, out=tmp_path / out, **how, **more)
        native = checkpoint.native_of(checkpoint.load(run).module)
        assert native is not None
        return native.shape.output_scaling

    assert factor("as-it-is") == 1.0
    assert factor("recipe", preset="parlai-bi") == 0.06
    assert factor("asked", preset="parlai-bi", output_scaling=0.5) == 0.5
    assert not any("scale.log" in line for line in said)  # set anew: neither fresh nor left
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        factor("asked", preset="parlai-bi")
    plain: dict[str, Any] = {**how, "init_model": None, "base": str(base), "lora": 0}
    tasks.train("bi", talk, out=tmp_path / "plain", preset="parlai-bi", **plain)
    with pytest.raises(ConfigError, match="output_scaling is of a ranker's own encoder"):
        tasks.train("bi", talk, out=tmp_path / "no", output_scaling=2.0, **plain)
    again = {**how, "init_model": tmp_path / "plain"}
    with pytest.raises(ConfigError, match="output_scaling is of an encoder of our own"):
        tasks.train("bi", talk, out=tmp_path / "no", output_scaling=2.0, **again)


def test_a_recipe_of_another_kind_is_refused(talk: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trains a cross, but this is train bi"):
        tasks.train("bi", talk, out=tmp_path / "run", preset="parlai-cross")
