"""docs/wrong-inputs.md is what happens: every row is run, and no file is lost.

A row is a command and what it says; `SETUPS` has what must be there before it runs. All rows begin
in a folder with dialogues (`talk.jsonl`), candidates (`replies.txt`), a poly-encoder (`mine`) and
settings of a tiny training (`small.toml`).
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
import torch

from rejoinder import checkpoint, zoo
from rejoinder.cli import main

if TYPE_CHECKING:
    from rejoinder.ranker import TextRanker

PAGE = Path(__file__).parents[1] / "docs" / "wrong-inputs.md"
THINGS = ["tea", "coffee", "dogs", "cats", "music", "trains", "books", "chess", "rain", "snow"]
THINGS += ["cheese", "apples", "bikes", "films", "paint", "stars", "maps", "lakes", "wood", "ice"]

Prepare = Callable[[Path], object]


def line(user: str, assistant: str) -> str:
    """A dialogue as a line of JSONL."""
    said = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return json.dumps({"persona": ["i am a guide ."], "messages": said}) + "\n"


TALK = "".join(line(f"do you like {thing} ?", f"i like {thing} .") for thing in THINGS)
REPLIES = "".join(f"i like {thing} .\n" for thing in THINGS)
USER_ONLY = '{"messages": [{"role": "user", "content": "hi"}]}\n'


def write(name: str, content: str | bytes) -> Prepare:
    """Put a file there."""

    def prepare(room: Path) -> None:
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        (room / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return prepare


def cut(name: str) -> Prepare:
    """Cut a file in half."""

    def prepare(room: Path) -> None:
        content = (room / name).read_bytes()
        (room / name).write_bytes(content[: len(content) // 2])

    return prepare


def edit(name: str, old: str, new: str) -> Prepare:
    """Change a text file by hand."""

    def prepare(room: Path) -> None:
        text = (room / name).read_text(encoding="utf-8")
        assert old in text
        (room / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return prepare


def half_an_archive(room: Path) -> None:
    """Dialogues packed as ConvAI2 is, cut in half."""
    with tarfile.open(room / "convai2_fix_723.tgz", "w:gz") as tar:
        tar.add(room / "talk.jsonl", "convai2/train_self_original.txt")
    cut("convai2_fix_723.tgz")(room)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a row needs, and how its command ends."""

    prepare: Prepare = lambda room: None
    before: str = ""  # a command that goes well, so that there is something to lose
    typed: bytes = b""  # standard input
    disk: int = 0  # bytes that a file may have, as on a full disk; 0 = any
    changes: tuple[str, ...] = ()  # files that may be made or changed
    code: int = 1  # exit code
    printed: bool = False  # among the results, not as an error


BUILD = "index build replies.txt --model mine --out idx"
TRAIN = "train bi --config small.toml --data talk.jsonl --out run"
CHAT = b"do you like tea ?\n"

SETUPS = {
    "an empty file": Setup(prepare=write("talk.jsonl", "")),
    "a binary file": Setup(prepare=write("talk.jsonl", bytes(range(256)))),
    "a `.gz` that was cut off": Setup(
        prepare=write("talk.jsonl.gz", gzip.compress(TALK.encode())[:100])
    ),
    "an `.xz` that was cut off": Setup(
        prepare=write("talk.jsonl.xz", lzma.compress(TALK.encode())[:100])
    ),
    "a line that is not JSON": Setup(prepare=write("talk.jsonl", TALK + '{"messages": [\n')),
    "a message without a role": Setup(
        prepare=write("talk.jsonl", TALK + '{"messages": [{"content": "hi"}]}\n')
    ),
    "a ParlAI line without its number": Setup(
        prepare=write("talk.txt", "1 hi\thello\nwho are you ?\ta guide\n")
    ),
    "bad lines in a file that is only looked at": Setup(
        prepare=write("talk.csv", "context,reply\nhi,hello\nhi\nbye,see you\n"), printed=True
    ),
    "another encoding than UTF-8": Setup(
        prepare=write("talk.csv", "context,reply\nhi,grüß dich\n".encode("latin-1"))
    ),
    "dialogues without any reply, to train on": Setup(prepare=write("talk.jsonl", USER_ONLY)),
    "dialogues without any reply, to validate on": Setup(prepare=write("dev.jsonl", USER_ONLY)),
    "dialogues without any reply, to measure on": Setup(prepare=write("talk.jsonl", USER_ONLY)),
    "a message of 100,000 words": Setup(
        prepare=write("talk.jsonl", line("tea " * 100_000, "i like tea .")), code=0, printed=True
    ),
    "a full disk while converting": Setup(prepare=write("new.jsonl", "old\n"), disk=500),
    "an archive of ConvAI2 that was cut off": Setup(prepare=half_an_archive),
    "a web page in place of the archive": Setup(
        prepare=write("convai2_fix_723.tgz", "<html>not found</html>\n")
    ),
    "a folder that is no model": Setup(prepare=write("data/talk.jsonl", TALK)),
    "`model.safetensors` cut in half": Setup(prepare=cut("mine/model.safetensors")),
    "`config.json` cut in half": Setup(prepare=cut("mine/config.json")),
    "`config.json` of another program": Setup(
        prepare=write("mine/config.json", '{"model_type": "bert"}')
    ),
    "a setting in `config.json` that cannot be": Setup(
        prepare=edit("mine/config.json", '"codes": 4', '"codes": "four"')
    ),
    "an import into a folder with other things in it": Setup(
        prepare=write("data/talk.jsonl", TALK)
    ),
    "a calibration with hardly any replies": Setup(
        prepare=write("talk.jsonl", line("hi", "hello"))
    ),
    "an index of another model": Setup(before=BUILD),
    "`candidates.jsonl` of an index edited": Setup(
        before=BUILD, prepare=edit("idx/candidates.jsonl", "tea", "milk")
    ),
    "`candidates.jsonl` of an index broken": Setup(
        before=BUILD, prepare=edit("idx/candidates.jsonl", '"i like coffee ."', "i like coffee .")
    ),
    "`vectors.safetensors` of an index cut in half": Setup(
        before=BUILD, prepare=cut("idx/vectors.safetensors")
    ),
    "candidates that are all blank lines": Setup(prepare=write("replies.txt", "\n  \n\n")),
    "a block file that blocks all": Setup(prepare=write("words.txt", "# dislikes\nlike\n")),
    "a block file with a bad regular expression": Setup(
        prepare=write("words.txt", "rude\n/(ab/\n")
    ),
    "`--out` of an index is a folder with other things in it": Setup(
        prepare=write("data/diary.txt", "dear diary\n")
    ),
    "a full disk while hard negatives are written": Setup(
        prepare=write("hard.jsonl", "old\n"), disk=500
    ),
    "a full disk while an index is built again": Setup(
        before=BUILD, disk=200, changes=(".idx.building/of",)
    ),
    "a number of candidates that cannot be": Setup(code=2),
    "a persona file with nothing in it": Setup(prepare=write("me.txt", "\n\n")),
    "bytes that are no text, through a pipe": Setup(
        typed=b"do you like t\xffa ?\n", code=0, printed=True
    ),
    "a full disk at `/save`": Setup(typed=CHAT + b"/save new.jsonl\n", disk=20),
    "`/save` to a file that is there": Setup(typed=CHAT + b"/save talk.jsonl\n"),
    "an unknown setting": Setup(code=2),
    "a preset that is not known": Setup(code=2),
    "a wrong choice": Setup(code=2),
    "no number where one should be": Setup(code=2),
    "an unknown setting in the TOML file": Setup(
        prepare=write("small.toml", "[train]\nepoch = 3\n")
    ),
    "a wrong value in the TOML file": Setup(
        prepare=write("small.toml", "[model]\nlora = 0\npooling = 'last'\n")
    ),
    "an unknown section in the TOML file": Setup(
        prepare=write("small.toml", "[training]\nepochs = 3\n")
    ),
    "a TOML file that is not TOML": Setup(prepare=write("small.toml", "[train\nepochs = 3\n")),
    "`--out` of a training holds a folder `best` of somebody else": Setup(
        prepare=write("songs/best/first.txt", "la la la\n")
    ),
    "resumed with other settings": Setup(before=TRAIN),
    "a learning rate far too high": Setup(changes=("run/settings.json",)),
    "a full disk while training": Setup(
        disk=10_000, changes=("run/settings.json", "run/log.jsonl")
    ),
    "a line to rank without candidates": Setup(typed=USER_ONLY.encode()),
    "a line to rank that is not JSON": Setup(prepare=write("lines.jsonl", "\nhello\n")),
    "bytes to rank that are no text": Setup(typed=b'{"messages": "gr\xfc\xdf dich"}\n'),
}


@dataclass(frozen=True)
class Row:
    """A row of the page. In `says`, … stands for what differs from run to run."""

    wrong: str
    command: str
    says: str
    files: str


def rows() -> Iterator[Row]:
    for text in PAGE.read_text(encoding="utf-8").split("\n"):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", text)[1:-1]]
        if len(cells) == 4 and not set(cells[0]) <= {"-"} and cells[0] != "wrong":
            yield Row(cells[0], plain(cells[1]), plain(cells[2]), cells[3])


def plain(cell: str) -> str:
    """The text of a cell that is code."""
    assert cell.startswith("`"), cell
    assert cell.endswith("`"), cell
    return cell.replace(r"\|", "|").strip("`").strip()


ROWS = list(rows())


@pytest.fixture(scope="session")
def models(make: Callable[..., TextRanker], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models under the names of the zoo."""
    folder = tmp_path_factory.mktemp("zoo")
    for kind in ("bi", "poly", "cross"):
        checkpoint.save(make(kind=kind), folder / f"persona-{kind}")
    return folder


@pytest.fixture
def room(models: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a row's command runs."""
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "talk.jsonl").write_text(TALK)
    (folder / "replies.txt").write_text(REPLIES)
    (folder / "small.toml").write_text(
        f'[model]\nbase = "{base}"\nlora = 0\n[train]\nmax_steps = 2\nprecision = "fp32"\n'
        "[text]\nmax_context = 48\nmax_reply = 12\n"
    )
    shutil.copytree(models / "persona-poly", folder / "mine")
    monkeypatch.setattr(zoo, "HERE", models)
    monkeypatch.setenv("REJOINDER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)
    return folder


def run(command: str, typed: bytes = b"") -> object:
    """Run a command in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rejoinder", *shlex.split(command)])
        patch.setattr(sys, "stdin", TextIOWrapper(BytesIO(typed), encoding="utf-8"))
        try:
            main(sys.argv[1:])
        except SystemExit as end:
            return end.code or 0
    return 0


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the indexes that a chat keeps in its cache."""
    files = (file for file in folder.rglob("*") if file.is_file())
    found = {file.relative_to(folder): file.read_bytes() for file in files}
    cache = Path("home", "indexes")
    return {str(name): text for name, text in found.items() if cache not in name.parents}


def pattern(says: str) -> str:
    return ".*".join(re.escape(part) for part in says.split("…"))


@pytest.mark.parametrize("row", ROWS, ids=[row.wrong for row in ROWS])
def test_the_page_says_what_happens(
    row: Row,
    room: Path,
    capsys: pytest.CaptureFixture[str],
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    if "--device cuda" in row.command and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    setup = SETUPS.get(row.wrong, Setup())
    if setup.before:
        assert run(setup.before) == 0
    setup.prepare(room)
    capsys.readouterr()
    before = tree(room.parent)
    with full_disk(setup.disk) if setup.disk else nullcontext():
        code = run(row.command, setup.typed)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert code == setup.code, err
    if setup.printed:
        assert re.search(pattern(row.says), out), out
    elif setup.code == 2:
        assert " ".join(re.sub("[─│╭╮╰╯]", " ", err).split()) == f"Error {row.says}"
    else:
        *notes, told = re.split(r"[\r\n]+", err.strip())
        assert re.fullmatch(pattern(f"rejoinder: {row.says}"), told), told
        assert not notes or row.command.split()[0] in {"train", "chat"}
    after = tree(room.parent)
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert names <= {f"room/{name}" for name in setup.changes}


def test_every_setup_belongs_to_a_row() -> None:
    names = [row.wrong for row in ROWS]
    assert set(SETUPS) <= set(names)
    assert len(set(names)) == len(names) > 60


def started(
    code: str, room: Path, stdout: IO[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, without torch if the code does not ask for it."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=room,
        text=True,
        timeout=600,
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
from rejoinder.cli import main
main({arguments})
"""


@pytest.mark.parametrize(
    ("command", "size"),
    [
        ("data convert talk.jsonl new.jsonl", 500),
        pytest.param(BUILD, 200, marks=pytest.mark.slow),
        pytest.param(TRAIN, 10_000, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_in_a_process_of_its_own(command: str, size: int, room: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    before = tree(room)
    done = started(FULL.format(size=size, arguments=shlex.split(command)), room)
    assert done.returncode == 1
    assert re.search(r"(^|\n)rejoinder: [^\n]*written[^\n]*File too large[^\n]*\n$", done.stderr)
    assert "Traceback" not in done.stderr
    assert {name: text for name, text in tree(room).items() if name in before} == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_results_that_cannot_be_written_are_told_in_one_line(room: Path) -> None:
    command = ["data", "check", "talk.jsonl"]
    with open("/dev/full", "w") as full:
        done = started(f"from rejoinder.cli import main; main({command})", room, stdout=full)
    assert done.returncode == 1
    assert re.fullmatch(
        r"rejoinder: output: cannot be read or written \(No space left on device\); .*\n",
        done.stderr,
    )


def test_a_reader_that_left_is_no_error_to_speak_of(room: Path) -> None:
    code = "from rejoinder.cli import main; main(['data', 'check', 'talk.jsonl'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=room, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
