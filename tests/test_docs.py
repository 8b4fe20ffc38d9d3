"""The pages cannot rot: commands parse, Python runs, tables are whole, examples are read."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cyclopts.exceptions import CycloptsError, MissingArgumentError

from rejoinder import cli
from rejoinder.chat.commands import COMMANDS
from rejoinder.config import GeneratorConfig, ModelConfig, TrainConfig, from_mapping, read_toml
from rejoinder.data import READERS, guess, read
from rejoinder.decoding import Decoding
from rejoinder.schema import examples
from rejoinder.shape import Shape
from rejoinder.text import TextFormat

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG"))]
PAGES += sorted(DOCS.glob("*.md"))
ELSEWHERE = ("wrong-inputs.md", "recipes.md")  # these pages have test files of their own
WITH_COMMANDS = [page for page in PAGES if page.name not in ELSEWHERE]
WITH_PYTHON = [page for page in PAGES if page.name in ("README.md", "quickstart.md", "python.md")]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`rejoinder ([^`]+)`")
LINK = re.compile(r"\[[^][]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$|<a id=\"([^\"]+)\">", re.MULTILINE)
SECTIONS: dict[str, type[Any]] = {"model": ModelConfig, "train": TrainConfig, "text": TextFormat}
SECTIONS["shape"] = Shape


def names(page: Path) -> str:
    """What a test of a page is called."""
    return page.name


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> Iterator[tuple[int, str]]:
    """Fenced blocks in one of some languages, with the number of their first line."""
    text = text_of(page)
    for found in FENCE.finditer(text):
        if found[1] in languages:
            yield text.count("\n", 0, found.start(2)) + 1, found[2]


def section(page: Path, heading: str) -> str:
    """A section of a page, its subsections included."""
    _, mark, rest = text_of(page).partition(f"\n{heading}\n")
    assert mark, f"{page.name} has no section {heading!r}"
    level = heading.split(" ")[0]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Cells of all tables in a text, heads and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in cells]


def commands(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Words after `rejoinder` of every command line in the fenced blocks of a page."""
    for start, block in blocks(page, "sh", "console", "text", ""):
        for number, line in enumerate(block.replace("\\\n", "  ").splitlines(), start):
            if re.search(r"(^|[\s/])rejoinder\s", line):
                words = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
                words.whitespace_split = True
                yield from ((number, command) for command in _split(list(words)))


def _split(words: list[str]) -> Iterator[list[str]]:
    """Cut a line of shell words at pipes and the like; only calls of rejoinder."""
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in {"|", "&&", "||", ";", ">", ">>", "<", "&"}:
            command.append(word)
        elif command:
            if command[0].rpartition("/")[2] == "rejoinder":
                yield command[1:]
            command = []


def parse(words: list[str]) -> None:
    cli.app.parse_args(words, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=names)
def test_commands_parse(page: Path) -> None:
    for line, words in commands(page):
        try:
            parse(words)
        except CycloptsError as error:
            pytest.fail(f"{page.name}:{line}: rejoinder {shlex.join(words)}: {error}")


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=names)
def test_commands_in_a_sentence_parse_as_far_as_they_go(page: Path) -> None:
    for found in INLINE.finditer(text_of(page)):
        try:
            parse(shlex.split(found[1]))
        except MissingArgumentError:
            pass  # a sentence may leave files and values out
        except CycloptsError as error:
            pytest.fail(f"{page.name}: {found[0]}: {error}")


def test_there_are_commands_to_check() -> None:
    assert sum(len(list(commands(page))) for page in WITH_COMMANDS) > 40


@pytest.mark.parametrize("page", WITH_PYTHON, ids=names)
def test_python_compiles(page: Path) -> None:
    found = list(blocks(page, "python"))
    assert found
    for line, code in found:
        compile("\n" * (line - 1) + code, page.name, "exec")


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("page", WITH_PYTHON, ids=names)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rejoinder import zoo

    if zoo.DEFAULT not in zoo.names():
        pytest.skip(f"{zoo.DEFAULT} is not in the package")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REJOINDER_HOME", str(tmp_path / "home"))
    space: dict[str, Any] = {"__name__": "__main__"}
    for line, code in blocks(page, "python"):
        exec(compile("\n" * (line - 1) + code, page.name, "exec"), space)


@pytest.mark.parametrize(
    ("page", "name", "kind"),
    [
        *(("training.md", *item) for item in SECTIONS.items()),
        ("generators.md", "model", GeneratorConfig),
    ],
)
def test_every_setting_stands_in_its_table(page: str, name: str, kind: type[Any]) -> None:
    (heading,) = re.findall(rf"^## .*`\[{name}\]`$", text_of(DOCS / page), re.MULTILINE)
    told = {row[0].strip("`"): row[1] for row in rows(section(DOCS / page, heading))}
    assert told == {field.name: shown(field.default) for field in fields(kind)}


def test_every_way_of_writing_stands_in_its_table() -> None:
    table = rows(section(DOCS / "generators.md", "## How it writes"))
    told = {row[0].strip("`-").replace("-", "_"): row[1] for row in table}
    assert told == {field.name: shown(field.default) for field in fields(Decoding)}


def shown(value: Any) -> str:
    """A default as the tables write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return str(value)


@pytest.mark.parametrize(
    ("page", "heading", "command", "elsewhere"),
    [
        ("training.md", "## The command", cli.train.train, {"model", "settings", "style", "shape"}),
        ("training.md", "## Hard negatives", cli.mine.mine, set()),
        ("evaluation.md", "# Evaluation", cli.measure.evaluate, set()),
        ("chat.md", "## Options", cli.chat.chat, set()),
        ("candidates.md", "## Options", cli.candidates.candidates_suggest, set()),
    ],
)
def test_every_option_stands_in_its_table(
    page: str, heading: str, command: Callable[..., None], elsewhere: set[str]
) -> None:
    signature = inspect.signature(command).parameters.values()
    options = {one.name for one in signature if one.kind is inspect.Parameter.KEYWORD_ONLY}
    if "around" in options:
        options |= {field.name for field in fields(cli.train.Around)}
    if "how" in options:  # the rest of it stands in a table of its own
        options.add("seed")
    elsewhere = {*elsewhere, "around", "how"}
    text = section(DOCS / page, heading) if heading != "# Evaluation" else text_of(DOCS / page)
    flags = [row[0].strip("`") for row in rows(text) if row[0].startswith("`--")]
    told = {flag.removeprefix("--").replace("-", "_") for flag in flags}
    plain = {name.removeprefix("no_") for name in told}
    assert plain == {name.removeprefix("no_") for name in options - elsewhere}


def test_every_chat_command_stands_in_its_table() -> None:
    told = re.findall(r"^\| `/(\w+)", section(DOCS / "chat.md", "## Commands"), re.MULTILINE)
    assert set(told) == set(COMMANDS)


def test_parquet_is_told_of_though_it_cannot_be_shown() -> None:
    assert "first bytes" in section(DOCS / "dialogues.md", "## parquet")


@pytest.mark.parametrize("name", sorted(set(READERS) - {"parquet"}))
def test_every_format_has_an_example_that_is_read(name: str, tmp_path: Path) -> None:
    found = FENCE.search(section(DOCS / "dialogues.md", f"## {name}"))
    assert found
    file = tmp_path / "example"  # without an ending that would give the format away
    file.write_text(found[2], encoding="utf-8")
    assert guess(file) == name
    assert len(found[2].splitlines()) == 3
    assert list(examples(read(file)))


def test_the_settings_file_is_read(tmp_path: Path) -> None:
    ((_, example),) = blocks(DOCS / "training.md", "toml")
    file = tmp_path / "run.toml"
    file.write_text(example, encoding="utf-8")
    for name, values in read_toml(file, list(SECTIONS)).items():
        assert from_mapping(SECTIONS[name], values, "example") != SECTIONS[name]()


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", text_of(page))):
        if ":" in target:  # on the web
            continue
        name, _, place = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: {target} leads nowhere"
        assert not place or place in places(file), f"{page.name}: {target} has no such heading"


def places(page: Path) -> set[str]:
    """Headings of a page as links name them, and anchors set by hand."""
    found = HEADING.findall(FENCE.sub("", text_of(page)))
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading, _ in found)
    return {*(one.replace(" ", "-") for one in plain), *(anchor for _, anchor in found)}
