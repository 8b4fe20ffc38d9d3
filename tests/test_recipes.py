"""ParlAI's flags beside ours, and its recipes as commands and files: whole, parsed, and trained."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from cyclopts.exceptions import MissingArgumentError

from rejoinder import cli
from rejoinder.config import ModelConfig, TrainConfig, from_mapping, read_toml
from rejoinder.data import write_jsonl
from rejoinder.schema import Dialogue, Message
from rejoinder.shape import Shape
from rejoinder.text import TextFormat

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
FILES = ROOT / "examples" / "recipes"
KINDS = ("bi", "poly", "cross")
SECTIONS: dict[str, type[Any]] = {"model": ModelConfig, "train": TrainConfig, "text": TextFormat}
PARTS = {"model": "model", "train": "settings", "text": "style"}  # parameters of the command

# All that a command for ParlAI's rankers may name, with its short forms.
PARLAI = """
    --model -m --task -t --evaltask -et --datatype -dt --shuffle --model-file -mf --init-model
    --load-from-checkpoint --batchsize -bs --eval-batchsize --update-freq --num-epochs -eps
    --max-train-time -ttim --max-train-steps -tstep --fp16 --fp16-impl --force-fp16-tokens
    --data-parallel --distributed-world-size

    --validation-every-n-epochs -veps --validation-every-n-secs -vtim
    --validation-every-n-steps -vstep --validation-max-exs -vme --validation-metric -vmt
    --validation-metric-mode -vmm --validation-patience -vp --validation-cutoff
    --save-after-valid -sval --save-every-n-secs -stim --log-every-n-secs -ltim
    --log-every-n-steps -lstep --train-predict

    --optimizer -opt --learningrate -lr --betas --adam-eps --weight-decay --momentum --nesterov
    --gradient-clip -clip --lr-scheduler --lr-scheduler-patience --lr-scheduler-decay
    --warmup-updates --warmup-rate --invsqrt-lr-decay-gamma

    --candidates -cands --eval-candidates -ecands --interactive-candidates -icands
    --fixed-candidates-path -fcp --fixed-candidate-vecs --encode-candidate-vecs
    --encode-candidate-vecs-batchsize --ignore-bad-candidates --cap-num-predictions --rank-top-k
    --return-cand-scores --repeat-blocking-heuristic --inference --topk

    --truncate -tr --text-truncate --label-truncate --history-size -histsz --delimiter
    --person-tokens --split-lines --history-reversed --use-reply

    --output-scaling --normalize-sent-emb --reduction-type --share-encoders
    --share-word-embeddings --learn-embeddings --polyencoder-type --poly-n-codes
    --poly-attention-type --poly-attention-num-heads --codes-attention-type
    --codes-attention-num-heads --use-memories --wrap-memory-encoder --memory-attention

    --dropout --attention-dropout --relu-dropout --embedding-size --n-layers --n-encoder-layers
    --n-heads --ffn-size --variant --activation --n-positions --learn-positional-embeddings
    --embeddings-scale --n-segments --dict-file -df --dict-tokenizer -tok --dict-lower
    --dict-nulltoken --dict-starttoken --dict-endtoken --dict-unktoken
"""


def rows() -> list[list[str]]:
    """Cells of the tables of flags."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| `--")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def settings() -> dict[str, Any]:
    """Every setting of `rejoinder train` and its default."""
    kinds = [*SECTIONS.values(), Shape]
    return {field.name: field.default for kind in kinds for field in fields(kind)}


def known() -> set[str]:
    """Names of all options of `rejoinder train`; what is on or off also with `no_`."""
    options = set(inspect.signature(cli.train.train).parameters) - {*PARTS.values(), "shape"}
    options |= {field.name for field in fields(cli.train.Around)}
    switches = {f"no_{name}" for name, default in settings().items() if isinstance(default, bool)}
    return options | set(settings()) | switches


def ours(text: str) -> set[str]:
    """Names of the options of `rejoinder train` in a text: ParlAI's column does not count."""
    text = re.sub(r"^\| `--[^|]*\|", "|", text, flags=re.MULTILINE)
    text = re.sub(r"`(rejoinder (?!train)|torchrun )[^`]*`", "", text)
    return {name.replace("-", "_") for name in re.findall(r"(?<![\w-])--([a-z][a-z-]*)", text)}


def commands() -> dict[str, list[str]]:
    """Words after `rejoinder` of all command lines in the blocks; recipes by their kind."""
    found = {}
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line)
            assert program == "rejoinder"
            recipe = words[0] == "train" and "--config" not in words
            found[words[1] if recipe else shlex.join(words)] = words
    return found


def parsed(words: list[str]) -> dict[str, Any]:
    """Arguments of a command line by name."""
    bound = cli.app.parse_args(words, print_error=False, exit_on_error=False)[1]
    return dict(bound.arguments)


def test_every_flag_of_parlai_has_its_place_once() -> None:
    found = Counter(re.findall(r"`(-+[\w-]+)`", " ".join(row[0] for row in rows())))
    assert found == Counter(PARLAI.split())
    assert max(found.values()) == 1


def test_every_row_says_where_a_flag_went_or_why_it_did_not() -> None:
    for flag, default, here, standard, why in rows():
        assert default, flag
        assert re.fullmatch(r"-|`--[a-z-]+`", here), flag
        assert standard, flag
        assert re.search(r"[.;]$", why), f"{flag}: {why!r} is no sentence"


def test_every_flag_of_ours_exists() -> None:
    found = ours(PAGE)
    assert len(found) > 50
    assert found - known() == set()


def test_defaults_in_the_tables_are_those_of_the_settings() -> None:
    told = {row[2].strip("`-").replace("-", "_"): row[3] for row in rows() if row[2] != "-"}
    values = settings()
    checked = {name: shown(values[name]) for name in told if name in values}
    assert len(checked) > 30
    assert {name: told[name] for name in checked} == checked


def shown(value: Any) -> str:
    """A default as the tables write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return str(value)


@pytest.mark.parametrize("words", commands().values(), ids=lambda words: " ".join(words[:2]))
def test_a_command_parses(words: list[str]) -> None:
    assert parsed(words)


def test_commands_in_a_sentence_parse_as_far_as_they_go() -> None:
    found = re.findall(r"`rejoinder ([^`]+)`", PAGE)
    assert found
    for command in found:
        with suppress(MissingArgumentError):  # a sentence may leave files out
            parsed(shlex.split(command))


@pytest.mark.parametrize("kind", KINDS)
def test_file_and_command_of_a_recipe_say_the_same(kind: str) -> None:
    arguments = parsed(commands()[kind])
    sections = read_toml(FILES / f"{kind}.toml", list(SECTIONS))
    for name, parameter in PARTS.items():
        wanted = from_mapping(SECTIONS[name], sections[name], "recipe")
        assert arguments[parameter] == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_has_the_published_numbers(kind: str) -> None:
    sections = read_toml(FILES / f"{kind}.toml", list(SECTIONS))
    values = {name: value for section in sections.values() for name, value in section.items()}
    table = dict(published(KINDS.index(kind)))
    for label, name in {
        "contexts in a batch": "batch_size",
        "epochs": "epochs",
        "steps of warm-up": "warmup",
        "dev examples per validation": "eval_limit",
        "one vector from the states": "pooling",
    }.items():
        assert str(values[name]) == table[label]


def published(column: int) -> Iterator[tuple[str, str]]:
    """Lines of the table of the recipes: what it is, and its value in a column."""
    for line in PAGE.partition("\n## The recipes\n")[2].splitlines():
        if line.startswith("| "):
            label, *values = [cell.strip() for cell in line.strip("|").split("|")]
            yield label, values[column]


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_trains(kind: str, base: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "talk.jsonl", tmp_path / "out"
    write_jsonl(talks(), data)
    file = FILES / f"{kind}.toml"
    small = f"--base {base} --max-steps 2 --codes 4 --max-context 48 --max-reply 12"
    line = f"train {kind} --config {file} --data {data} --dev {data} --out {out} {small}"
    with pytest.raises(SystemExit) as end:
        cli.main(line.split())
    assert end.value.code == 0
    made = json.loads((out / "settings.json").read_text(encoding="utf-8"))
    sections = read_toml(file, list(SECTIONS))
    changed = {"base": str(base), "codes": 4, "max_steps": 2, "max_context": 48, "max_reply": 12}
    for name, settings_class in SECTIONS.items():
        values = {"kind": kind} if name == "model" else {}
        wanted = from_mapping(settings_class, values | sections[name], "recipe")
        here = {key: value for key, value in changed.items() if hasattr(wanted, key)}
        here |= {"base_sha256": made["model"]["base_sha256"]} if name == "model" else {}
        assert from_mapping(settings_class, made[name], "run") == replace(wanted, **here)
    assert (out / "best" / "model.safetensors").is_file()


def talks() -> list[Dialogue]:
    """Short dialogues with candidates."""
    things = ("tea", "dogs", "rain", "chess")
    lists = tuple(f"i like {thing} ." for thing in things)
    return [
        Dialogue(
            (
                Message("user", f"do you like {thing} ?"),
                Message("assistant", f"i like {thing} .", lists),
            ),
            (f"i love {thing} .",),
        )
        for thing in things
    ]
