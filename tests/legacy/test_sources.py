"""What can be named for an import beside a folder, and what comes along with a model."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from rejoinder import checkpoint, tasks, zoo
from rejoinder.errors import CheckpointError, ConfigError, DownloadError, RejoinderError
from rejoinder.index import Index
from rejoinder.schema import Dialogue, Message

from .conv_ai import LEGACY
from .served import Site, serving

GOLDEN = Path(__file__).parents[1] / "golden" / "parlai"
ASKED = Dialogue((Message("user", "hello , how are you today ?"),), ("i like tea .",))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REJOINDER_HOME", str(tmp_path / "home"))


def packed(folder: Path, name: str) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as tar:
        tar.add(folder, name)
    return whole.getvalue()


def same(one: Path, other: Path) -> bool:
    name = "model.safetensors"
    return (one / name).read_bytes() == (other / name).read_bytes()


def test_an_address_is_fetched_once(tmp_path: Path) -> None:
    with serving() as site:
        site.files = {
            "/old.tgz": packed(GOLDEN / "bi", "mymodel"),
            **{f"/bi/{file.name}": file.read_bytes() for file in (GOLDEN / "bi").iterdir()},
        }
        archive, model = site.address("/old.tgz"), site.address("/bi/model")
        tasks.import_model(archive, tmp_path / "archive")
        tasks.import_model(model, tmp_path / "model")
        asked = len(site.asked)
        tasks.import_model(model, tmp_path / "again")
        assert len(site.asked) == asked
    tasks.import_model(archive, tmp_path / "offline")
    tasks.import_model(GOLDEN / "bi", tmp_path / "folder")
    for name in ("archive", "model", "again", "offline"):
        assert same(tmp_path / name, tmp_path / "folder")


def test_of_an_archive_of_the_zoo_one_model_is_taken(tmp_path: Path) -> None:
    """The archive of eight, put by hand where the message says."""
    name = "zoo:pretrained_transformers/model_poly/model"
    with Site() as gone:
        closed = gone.address("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("http_proxy", closed)  # a machine without a network
        patch.setattr("time.sleep", lambda _: None)
        with pytest.raises(DownloadError) as caught:
            tasks.import_model(name, tmp_path / "ours")
    said = str(caught.value)
    place = Path(said.split("put it at ")[1].split(":")[0])
    (tmp_path / "replies.txt").write_text("i like tea .\nno .\n", encoding="utf-8")
    with tarfile.open(place, "w:gz") as tar:
        for kind in ("bi", "poly"):
            tar.add(GOLDEN / kind, f"pretrained_transformers/model_{kind}")
        tar.add(tmp_path / "replies.txt", "pretrained_transformers/replies.txt")
    (tmp_path / "replies.txt").unlink()
    told = tasks.import_model(
        name, tmp_path / "ours", candidates=Path("replies.txt"), index=tmp_path / "index"
    )
    assert told["candidates in the index"] == 2  # they lie in the archive
    with pytest.raises(RejoinderError, match=r"^others\.txt: "):
        tasks.import_model(
            name, tmp_path / "no", candidates=Path("others.txt"), index=tmp_path / "none"
        )
    assert not (tmp_path / "no").exists()
    tasks.import_model(GOLDEN / "poly", tmp_path / "folder")
    assert same(tmp_path / "ours", tmp_path / "folder")
    with pytest.raises(CheckpointError, match="0 folders of the name bi_model_huge_reddit"):
        tasks.import_model("zoo:pretrained_transformers/bi_model_huge_reddit", tmp_path / "other")


def test_candidates_come_along_as_an_index(tmp_path: Path) -> None:
    file = tmp_path / "replies.txt"
    file.write_text("i like tea .\n\nno .\ni like tea .\n", encoding="utf-8")
    told = tasks.import_model(
        GOLDEN / "poly", tmp_path / "ours", candidates=file, index=tmp_path / "index"
    )
    assert told["candidates in the index"] == 2
    assert any("blank lines left out: 1" in note for note in told["notes"])
    ranker = checkpoint.load(tmp_path / "ours")
    index = Index.load(tmp_path / "index", ranker)
    assert index.texts == ["i like tea .", "no ."]
    found = index.search(ASKED, 2)
    assert max(found.scores) == pytest.approx(float(ranker.scores(ASKED, index.texts).max()))


@pytest.mark.parametrize(
    ("source", "brought", "said"),
    [
        (GOLDEN / "poly", {"candidates": "replies.txt"}, "give --index DIR"),
        (GOLDEN / "poly", {"index": "index"}, "give --candidates FILE too"),
        (GOLDEN / "poly", {"candidates": "replies.txt", "index": "replies.txt"}, "is a file"),
        (GOLDEN / "cross", {"candidates": "replies.txt", "index": "index"}, "nothing can be kept"),
        (LEGACY, {"candidates": "replies.txt", "index": "index"}, "is a generator"),
    ],
)
def test_what_cannot_come_along(
    source: Path, brought: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "replies.txt").write_text("no .\n", encoding="utf-8")
    paths = {name: tmp_path / file for name, file in brought.items()}
    with pytest.raises(RejoinderError, match=said) as caught:
        tasks.import_model(source, tmp_path / "ours", **paths)  # type: ignore[arg-type]
    assert isinstance(caught.value, ConfigError) or said == "is a file"
    assert not (tmp_path / "ours").exists()


def test_where_nothing_can_be_written_nothing_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear", encoding="utf-8")
    with serving() as site:
        with pytest.raises(RejoinderError, match="mine: is not empty"):
            tasks.import_model(site.address("/old.tgz"), tmp_path / "mine")
        assert not site.asked


def test_nothing_is_written_before_all_that_is_named_is_there(tmp_path: Path) -> None:
    """Also a checkpoint that is there already is left alone: it may have taken hours to train."""
    out = tmp_path / "ours"
    with pytest.raises(RejoinderError, match="no such file"):
        tasks.import_model(GOLDEN / "bi", out, check=tmp_path / "gone.jsonl")
    (tmp_path / "replies.txt").write_text("no .\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is both --out and --index"):
        tasks.import_model(GOLDEN / "bi", out, candidates=tmp_path / "replies.txt", index=out)
    assert not out.exists()
    tasks.import_model(GOLDEN / "bi", str(out))
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(RejoinderError, match="ours: is not empty"):
        tasks.import_model(GOLDEN / "poly", out)
    assert (out / "model.safetensors").read_bytes() == before


def test_an_archive_of_several_models_says_where_they_are(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "two.tgz", "w:gz") as tar:
        tar.add(GOLDEN / "bi", "two/bi")
        tar.add(GOLDEN / "poly", "two/poly")
    with pytest.raises(CheckpointError, match=r"two\.tgz: holds models in bi, poly; expected one"):
        tasks.import_model(tmp_path / "two.tgz", tmp_path / "ours")


def test_a_local_address_is_read_where_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "old.tgz"
    for number, kind in enumerate(("bi", "poly")):
        file.write_bytes(packed(GOLDEN / kind, "mymodel"))
        told = tasks.import_model(file.as_uri(), tmp_path / str(number))
        assert told["kind"] == kind


@pytest.mark.parametrize("source", [GOLDEN / "bi", GOLDEN / "bi" / "model", LEGACY])
def test_a_model_that_is_not_imported_yet_is_known_as_one(source: Path) -> None:
    with pytest.raises(CheckpointError, match=r"looks like a model of .*: rejoinder import "):
        zoo.load(source)
