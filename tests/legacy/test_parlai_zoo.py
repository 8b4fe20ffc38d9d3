"""A source is a path, an address, or a name of ParlAI's zoo; the server is a real one."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rejoinder.errors import CheckpointError, DownloadError
from rejoinder.fetching import record_of
from rejoinder.legacy.archives import unpack
from rejoinder.legacy.parlai import find_files, import_ranker
from rejoinder.legacy.parlai_zoo import (
    ZOO,
    Fetched,
    Packed,
    clean_address,
    fetch_source,
    find_inside,
    place_of,
)

from .served import Site, nobody, serving

GOLDEN = Path(__file__).parents[1] / "golden" / "parlai"
FILES = {"": b"weights", ".opt": b"{}", ".dict": b"a\t1\n", ".dict.codecs": b"a b\n"}


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        running.files = {f"/run/model{suffix}": content for suffix, content in FILES.items()}
        yield running


def packed(folder: str = "") -> bytes:
    """An archive of two golden models, named as in the zoo."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for kind in ("bi", "poly"):
            for file in sorted((GOLDEN / kind).iterdir()):
                tar.add(file, f"{folder}model_{kind}/{file.name}")
    return raw.getvalue()


def zoo_of(address: str) -> dict[str, Packed]:
    return {name: Packed(f"{address}/all.tgz", known.inside) for name, known in ZOO.items()}


def asked(site: Site) -> list[str]:
    return [path for path, _ in site.asked]


@pytest.mark.parametrize(
    "name", ["mine", "C:\\models\\mine", "c:mine", "a b?#", "", "izoo:a", "x" * 5000]
)
def test_what_is_no_address_is_a_path(name: str) -> None:
    assert fetch_source(name) == Fetched(Path(name))
    assert fetch_source(Path("zoo:a")) == Fetched(Path("zoo:a"))


@pytest.mark.parametrize("name", ["zoo:pretrained_transformers", "http:", "models:x"])
def test_a_path_that_exists_always_wins(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name / "model_poly").mkdir(parents=True)
    assert fetch_source(name) == Fetched(Path(name))
    assert fetch_source(f"{name}//model_poly") == Fetched(Path(name) / "model_poly")


def test_an_archive_is_fetched_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REJOINDER_HOME", str(tmp_path))
    site.files["/mine.tar.gz"] = b"archive"
    source = site.address("/mine.tar.gz?download=true")
    found = fetch_source(source)
    assert found.path.read_bytes() == b"archive"
    assert found == Fetched(place_of(source, tmp_path / "models"))
    assert found.path.name == "mine.tar.gz"
    assert fetch_source(f"{source}#readme") == found
    assert asked(site) == ["/mine.tar.gz?download=true"]


def test_a_model_file_comes_with_what_is_beside_it(site: Site, tmp_path: Path) -> None:
    found = fetch_source(site.address("/run/model?raw=1"), folder=tmp_path)
    assert {s: found.path.with_name(f"model{s}").read_bytes() for s in FILES} == FILES
    assert asked(site) == [f"/run/model{s}?raw=1" for s in (".opt", ".dict", ".dict.codecs", "")]
    assert fetch_source(site.address("/run/model?raw=1"), folder=tmp_path) == found
    assert len(site.asked) == 4


def test_a_cut_connection_is_gone_on_from(site: Site, tmp_path: Path) -> None:
    site.plan = [*[("all", 0)] * 3, ("cut", 3)]
    found = fetch_source(site.address("/run/model"), folder=tmp_path, pause=0)
    assert found.path.read_bytes() == b"weights"
    assert site.asked[-1] == ("/run/model", "bytes=3-")


def test_a_model_without_codes_needs_none(site: Site, tmp_path: Path) -> None:
    del site.files["/run/model.dict.codecs"]
    found = fetch_source(site.address("/run/model"), folder=tmp_path)
    assert not found.path.with_name("model.dict.codecs").exists()
    fetch_source(site.address("/run/model"), folder=tmp_path)
    assert len(site.asked) == 4


@pytest.mark.parametrize("suffix", [".opt", ".dict"])
def test_a_model_without_options_or_words_is_refused_before_it_is_fetched(
    site: Site, tmp_path: Path, suffix: str
) -> None:
    del site.files[f"/run/model{suffix}"]
    with pytest.raises(
        DownloadError,
        match=rf"/run/model\{suffix}: is not there \(HTTP Error 404.*expected it beside",
    ):
        fetch_source(site.address("/run/model"), folder=tmp_path)
    assert "/run/model" not in asked(site)


def test_without_a_network_files_put_there_by_hand_are_taken(tmp_path: Path) -> None:
    source = nobody() + "/run/model"
    with pytest.raises(DownloadError, match=r"/run/model\.opt: cannot be fetched") as told:
        fetch_source(source, folder=tmp_path, pause=0)
    place = place_of(source, tmp_path)
    assert f"put it at {place}, with model.opt, model.dict and, if there is one, model" in str(
        told.value
    )
    for suffix in ("", ".opt", ".dict"):
        place.with_name(f"model{suffix}").write_bytes(FILES[suffix])
    assert fetch_source(source, folder=tmp_path, pause=0) == Fetched(place)
    assert record_of(place).exists()
    assert fetch_source(source, folder=tmp_path) == Fetched(place)


def test_a_changed_file_beside_the_model_is_refused(site: Site, tmp_path: Path) -> None:
    found = fetch_source(site.address("/run/model"), folder=tmp_path)
    found.path.with_name("model.opt").write_bytes(b"[]")
    with pytest.raises(
        DownloadError, match=r"model\.opt: has 2 bytes and .*changed since\. Delete"
    ):
        fetch_source(site.address("/run/model"), folder=tmp_path)


def test_a_local_address(tmp_path: Path) -> None:
    (tmp_path / "my run").mkdir()
    for suffix, content in FILES.items():
        (tmp_path / "my run" / f"model{suffix}").write_bytes(content)
    found = fetch_source(f"file://localhost{tmp_path}/my run/model", folder=tmp_path / "kept")
    assert {s: found.path.with_name(f"model{s}").read_bytes() for s in FILES} == FILES
    with pytest.raises(DownloadError, match="is not a plain file.*Name a folder by its path"):
        fetch_source(f"file://{tmp_path}/my%20run", folder=tmp_path / "kept")
    with pytest.raises(DownloadError, match=r"gone\.tgz: cannot be read \(No such file or dir"):
        fetch_source(f"file://{tmp_path}/gone.tgz", folder=tmp_path / "kept")
    assert found.path == tmp_path / "my run" / "model"  # read where it lies
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("http:", "has no name of a host"),
        ("http:///model", "has no name of a host"),
        ("https://a b/model", "has no name of a host"),
        ("http://[::1/model", "Invalid IPv6 URL"),
        ("http://host:99999/model", "Port out of range"),
        ("http://host:x/model", "Port could not be cast"),
        (f"http://{'a' * 70}.org/model", "label"),
        ("ftp://host/model", "cannot fetch from ftp:"),
        ("file://host/model", "is on host, not on this machine"),
        ("file:model", "has no absolute path"),
        ("s3://bucket/model", "cannot fetch from s3:"),
    ],
)
def test_an_address_that_cannot_be_is_named(source: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf": .*{reason}.*expected http://, https:// or file"):
        fetch_source(source, folder=tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_password_is_neither_kept_nor_shown() -> None:
    with pytest.raises(
        DownloadError, match=r"^https://…@host: expected an address without"
    ) as told:
        fetch_source("https://me:secret@host/model.tgz")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("HTTP://Host", "http://host/"),
        ("http://host/a b?c d#e", "http://host/a%20b?c%20d"),
        ("http://host/a%20b?c=%20", "http://host/a%20b?c=%20"),
        ("http://bücher.example/ü", "http://xn--bcher-kva.example/%C3%BC"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("file:/a", "file:///a"),
        ("file://localhost/a?b", "file:///a"),
    ],
)
def test_an_address_is_asked_for_in_plain_letters(source: str, address: str) -> None:
    assert clean_address(source) == address
    assert clean_address(address) == address


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/model.tgz", "model.tgz"),
        ("/model.tgz?name=../../x", "model.tgz"),
        ("", "model"),
        ("/", "model"),
        ("/a/", "model"),
        ("/..", "model"),
        ("/a/%2e%2e", "model"),
        ("/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("/..%5C..%5Cautorun.tgz", "autorun.tgz"),
        ("/.bashrc", "bashrc"),
        ("/a%00b%0Ac", "a_b_c"),
        ("/my model é.tar.gz", "my_model__.tar.gz"),
        (f"/{'a' * 500}.tgz", f"{'a' * 116}.tgz"),
        (f"/a.{'b' * 500}", f"a.{'b' * 19}"),
    ],
)
def test_a_file_gets_a_harmless_name(path: str, name: str, tmp_path: Path) -> None:
    place = place_of(clean_address(f"http://host{path}"), tmp_path)
    assert place.name == name
    assert place.parent.parent == tmp_path
    place.parent.mkdir()
    place.with_name(f"{name}.dict.codecs.sha256.json").write_text("fits")


def test_files_of_one_name_do_not_meet(site: Site, tmp_path: Path) -> None:
    site.files |= {"/a/m.tgz": b"one", "/b/m.tgz": b"two"}
    first, second = (fetch_source(site.address(f"/{x}/m.tgz"), folder=tmp_path) for x in "ab")
    assert first.path.read_bytes() == b"one"
    assert second.path.read_bytes() == b"two"


@pytest.mark.parametrize("folder", ["", "./", "pretrained_transformers/"])
def test_a_model_of_the_zoo_is_the_one_asked_for(site: Site, tmp_path: Path, folder: str) -> None:
    site.files["/all.tgz"] = packed(folder)
    zoo = zoo_of(site.address(""))
    name = "pretrained_transformers/model_poly"
    found = fetch_source(f"zoo:{name}/model", folder=tmp_path / "kept", zoo=zoo)
    for source in (f"zoo:{name}", f"models:{name}/model", f"models:{name}/"):
        assert fetch_source(source, folder=tmp_path / "kept", zoo=zoo) == found
    other = fetch_source(
        "zoo:pretrained_transformers/model_bi/model", folder=tmp_path / "kept", zoo=zoo
    )
    assert other.path == found.path
    assert asked(site) == ["/all.tgz"]
    files = find_files(find_inside(unpack(found.path, tmp_path / "new"), found))
    assert files is not None
    assert import_ranker(files).ranker.config.kind == "poly"


def test_all_known_names_come_from_one_archive() -> None:
    assert len(ZOO) == 8
    assert all(name == f"pretrained_transformers/{known.inside}" for name, known in ZOO.items())
    assert {known.address for known in ZOO.values()} == {
        "http://parl.ai/downloads/_models/pretrained_transformers/pretrained_transformers.tgz"
    }


def test_the_zoo_without_a_network(tmp_path: Path) -> None:
    zoo, source = zoo_of(nobody()), "zoo:pretrained_transformers/model_poly/model"
    address = zoo["pretrained_transformers/model_poly"].address
    place = place_of(address, tmp_path)
    with pytest.raises(DownloadError) as told:
        fetch_source(source, folder=tmp_path, zoo=zoo, pause=0)
    message = str(told.value)
    assert message.startswith(f"{address}: cannot be fetched (")
    assert "expected all.tgz. Run it again to go on where it stopped, or get the file" in message
    assert f"and put it at {place}: the same command then takes it from there, or name" in message
    assert "or name the folder model_poly that ParlAI unpacked" in message
    place.write_bytes(packed())
    assert fetch_source(source, folder=tmp_path, zoo=zoo) == Fetched(place, "model_poly")
    assert json.loads(record_of(place).read_text())["bytes"] == len(packed())


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("pretrained_transformers/model_polly/model", "model_poly"),
        ("pretrained_transformers/poly_model_huge_reddit.mdl", "poly_model_huge_reddit"),
        ("model_bi", "model_bi"),
        ("pretrained_transformers/bi_model_huge_redit/model", "bi_model_huge_reddit"),
        ("blender/blender_90M/model", ""),
        ("", ""),
        ("../../etc", ""),
    ],
)
def test_an_unknown_name_of_the_zoo(name: str, near: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="^zoo:.*not a ranker of ParlAI's zoo") as told:
        fetch_source(f"zoo:{name}", folder=tmp_path)
    hint = f"Did you mean zoo:pretrained_transformers/{near}/model?"
    assert (hint in str(told.value)) == bool(near)
    assert all(known in str(told.value) for known in ZOO)


def test_an_archive_without_the_folder(tmp_path: Path) -> None:
    archive, unpacked = tmp_path / "all.tgz", tmp_path / "new"
    (unpacked / "a" / "model_bi").mkdir(parents=True)
    assert find_inside(unpacked, Fetched(archive)) == unpacked
    with pytest.raises(
        CheckpointError, match=r"all\.tgz: has 0 folders of the name model_poly.* a, a/model_bi\."
    ):
        find_inside(unpacked, Fetched(archive, "model_poly"))
    (unpacked / "b" / "model_bi").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="has 2 folders of the name model_bi, expected one"):
        find_inside(unpacked, Fetched(archive, "model_bi"))
