"""Fixed candidates of ParlAI become an index: their vectors where they fit, else encoded anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder import checkpoint
from rejoinder.errors import CheckpointError, ConfigError, DataError, RejoinderError
from rejoinder.index import Index
from rejoinder.legacy.parlai import find_files, import_ranker
from rejoinder.legacy.parlai_candidates import SAMPLE, cache_files, import_candidates
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message

from . import parlai_reference as reference
from .broken import Payload
from .parlai_checkpoint import make_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden" / "parlai"
RECORDED = json.loads((GOLDEN / "scores.json").read_text(encoding="utf-8"))
CLOSE = 1e-5  # of the largest score of a row
ASKED = "your persona: i like tea .\nhey ! what do you do for a living ?"
SAID = Dialogue((Message("user", ASKED),))
THINGS = ["tea", "dogs", "cats", "books", "planes", "coffee", "the library"]
SHORT = [f"I like {a} more than {b} ." for a in THINGS for b in THINGS if a != b]
LINES = [
    "no .",
    "",
    *SHORT[:20],
    "no .",
    " ".join(["yes please"] * 9),
    *SHORT[20:],
    "",
    SHORT[3],
    "a",
]

VARIANTS: dict[str, dict[str, Any]] = {
    "bi": {"kind": "bi"},
    "bi-shared": {"kind": "bi", "share_encoders": True, "dict_tokenizer": "re"},
    "bi-max": {"kind": "bi", "reduction_type": "max", "variant": "aiayn"},
    "bi-prelayernorm": {"kind": "bi", "variant": "prelayernorm"},
    "poly-codes": {"kind": "poly", "polyencoder_type": "codes"},
    "poly-first": {"kind": "poly", "polyencoder_type": "n_first", "reduction_type": "first"},
    "poly-max": {"kind": "poly", "reduction_type": "max"},
    "poly-prelayernorm": {"kind": "poly", "variant": "prelayernorm"},
}
PADDED = ["bi-max", "bi-prelayernorm", "poly-max", "poly-prelayernorm"]


def ranker_of(model: Path) -> TextRanker:
    files = find_files(model)
    assert files is not None
    return import_ranker(files).ranker


@dataclass(frozen=True)
class Old:
    """A ParlAI model with a file of candidates, and what ParlAI kept of them."""

    model: Path
    file: Path

    @property
    def vecs(self) -> Path:
        return cache_files(self.model, self.file)[0]

    @property
    def encs(self) -> Path:
        return cache_files(self.model, self.file)[1]

    @property
    def lines(self) -> list[str]:
        return self.file.read_text(encoding="utf-8").split("\n")[:-1]

    def rows(self) -> list[list[int]]:
        reader = reference.reader_of(self.model)
        return [reference.candidate_ids(line, reader) for line in self.lines]

    def keep(self, *, half: bool = False, width: int = 1) -> None:
        """Write the caches, of rows with padding to at least some width."""
        options = reference.reader_of(self.model).options
        ids = reference.padded(self.rows(), width)
        found = reference.vectors(reference.weights_of(self.model), options, ids)
        found = found[None] if reference.kind_of(options) == "poly" else found
        torch.save(ids, self.vecs)
        torch.save(found.half() if half else found.float(), self.encs)

    def scores(self) -> dict[str, float]:
        """What ParlAI gives every line, over its caches."""
        reader = reference.reader_of(self.model)
        context = reference.context_ids([("p1", ASKED)], reader)
        weights = reference.weights_of(self.model)
        found = reference.fixed_scores(weights, reader.options, [context], self.rows())
        return dict(zip(self.lines, found[0].tolist(), strict=True))


def old(folder: Path, lines: Sequence[str] = LINES, **options: Any) -> Old:
    model = make_checkpoint(folder, **options)
    file = folder / "replies.txt"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Old(model, file)


@pytest.fixture
def bi(tmp_path: Path) -> Old:
    return old(tmp_path / "old")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many candidates were encoded, call by call."""
    counts: list[int] = []
    encode = TextRanker.encode_candidates

    def counted(self: TextRanker, replies: Sequence[str], *args: Any, **more: Any) -> Tensor:
        counts.append(len(replies))
        return encode(self, replies, *args, **more)

    monkeypatch.setattr(TextRanker, "encode_candidates", counted)
    return counts


def taken(one: Old) -> tuple[Index, str]:
    """The index of candidates, and the notes as one text."""
    found = import_candidates(one.model, ranker_of(one.model), one.file)
    return found.index, "\n".join(found.notes)


def same_scores(index: Index, expected: dict[str, float], close: float = CLOSE) -> None:
    """Assert that an index scores all of its texts as expected, and has all but blank ones."""
    texts = [text for text in dict.fromkeys(expected) if text]
    assert index.texts == texts
    found = index.scores(index.ranker.encode_contexts([SAID])).double()
    wanted = torch.tensor([expected[text] for text in texts], dtype=torch.float64)
    off = float((found - wanted).abs().max() / wanted.abs().max())
    assert off <= close, f"off by {off:.1e} of the largest score"


# Laws


@pytest.mark.parametrize("name", VARIANTS)
def test_kept_vectors_score_as_they_did(name: str, tmp_path: Path, encoded: list[int]) -> None:
    one = old(tmp_path / "old", **VARIANTS[name])
    one.keep()
    index, notes = taken(one)
    assert f"replies.encs: {len(set(LINES)) - 1} vectors of 32 bits taken as they are" in notes
    assert sum(encoded) <= SAMPLE + 2
    same_scores(index, one.scores())


@pytest.mark.parametrize("name", VARIANTS)
def test_without_kept_vectors_the_scores_are_the_same(name: str, tmp_path: Path) -> None:
    one = old(tmp_path / "old", **VARIANTS[name])
    index, notes = taken(one)
    assert "candidates encoded, as there is no model.replies.encs beside the model" in notes
    same_scores(index, one.scores())


@pytest.mark.parametrize("name", ["bi", "bi_aiayn", "poly", "poly_codes"])
def test_recorded_token_ids_and_scores_are_those_of_the_index(name: str, tmp_path: Path) -> None:
    recorded = RECORDED["models"][name]
    shutil.copytree(GOLDEN / name, tmp_path / "old")
    one = Old(tmp_path / "old" / "model", tmp_path / "old" / "my.cands.txt")
    one.file.write_text("".join(f"{text}\n" for text in RECORDED["cands"]), encoding="utf-8")
    one.keep()
    assert list(torch.load(one.encs).shape) == recorded["fixed_encs_shape"]
    torch.save(torch.tensor(recorded["fixed_vecs"]), one.vecs)
    index, notes = taken(one)
    assert "model.my.cands.vecs: the token ids of every line are ours" in notes
    assert "model.my.cands.encs: 9 vectors of 32 bits taken as they are; 9 were compared" in notes
    for text, row in zip(RECORDED["contexts"], recorded["scores_fixed"], strict=True):
        found = index.scores(index.ranker.encode_contexts([Dialogue((Message("user", text),))]))
        kept = [RECORDED["cands"].index(text) for text in index.texts]
        wanted = torch.tensor(row)[kept]
        assert float((found - wanted).abs().max() / wanted.abs().max()) <= CLOSE


@pytest.mark.parametrize("kind", ["bi", "poly"])
def test_vectors_of_16_bits_are_taken_where_rows_were_padded_to_eight(
    kind: str, tmp_path: Path, encoded: list[int]
) -> None:
    one = old(tmp_path / "old", kind=kind, half=True, fp16=True)
    one.keep(half=True, width=16)
    index, notes = taken(one)
    assert "vectors of 16 bits taken as they are" in notes
    assert sum(encoded) <= SAMPLE + 2
    assert index.vectors.dtype == torch.float32
    same_scores(index, one.scores(), close=4e-3)


@pytest.mark.parametrize("name", PADDED)
def test_where_padding_is_read_vectors_of_another_width_are_made_anew(
    name: str, tmp_path: Path
) -> None:
    one = old(tmp_path / "old", **VARIANTS[name])
    one.keep(width=16)
    index, notes = taken(one)
    assert "stale, made with padding to 16 tokens, not 10, and this model reads padding" in notes
    same_scores(index, one.scores())
    one.vecs.unlink()  # now only the vectors themselves can tell
    assert "stale, the vector of line" in taken(one)[1]


@pytest.mark.parametrize("name", ["bi", "poly-prelayernorm"])
def test_what_is_added_later_fits_an_imported_index(name: str, tmp_path: Path) -> None:
    one = old(tmp_path / "old", **VARIANTS[name])
    one.keep()
    index, _ = taken(one)
    index.add(["two dogs and a cat ."])
    whole = Index.build(index.ranker, index.texts)
    torch.testing.assert_close(index.vectors, whole.vectors, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "encoded"])
def test_an_index_is_saved_for_the_saved_model(bi: Old, tmp_path: Path, kept: bool) -> None:
    if kept:
        bi.keep()
    checkpoint.save(ranker_of(bi.model), tmp_path / "ours")
    ranker = checkpoint.load(tmp_path / "ours")
    found = import_candidates(bi.model, ranker, bi.file, out=tmp_path / "index").index
    again = Index.load(tmp_path / "index", checkpoint.load(tmp_path / "ours"))
    assert again.texts == found.texts
    assert again.vectors.equal(found.vectors)
    assert again.source == "replies.txt"
    same_scores(again, bi.scores())


# What a line is


def test_lines_are_as_parlai_reads_them(bi: Old) -> None:
    bi.file.write_bytes("\ufeffI am\r\n  a Pilot\t\rtwo\\nlines\n\u2028x\u2028y\u2028".encode())
    assert taken(bi)[0].texts == ["I am", "a Pilot", "two\\nlines", "x\u2028y"]


def test_what_is_left_out_is_counted_and_found(bi: Old) -> None:
    bi.file.write_text("caf\u00e9\n\nno .\ncafe\u0301\n \t\nno .\nNo .", encoding="utf-8")
    index, notes = taken(bi)
    assert index.texts == ["caf\u00e9", "no .", "No ."]
    assert "replies.txt: blank lines left out: 2 (first: line 2)" in notes
    assert "replies.txt: repeated candidates left out: 2 (first: line 4, as line 1)" in notes


def test_caches_are_found_under_the_names_of_parlai(bi: Old, encoded: list[int]) -> None:
    made = bi.model.with_name("model.cands-convai2.cands")  # where no file was named
    shutil.copy(bi.file, made)
    one = Old(bi.model, made)
    assert (one.vecs.name, one.encs.name) == (
        "model.model.cands-convai2.vecs",
        "model.model.cands-convai2.encs",
    )
    assert cache_files(Path("a/b.checkpoint"), Path("c/d"))[0] == Path("a/b.d.vecs")
    one.keep()
    taken(one)
    assert sum(encoded) <= SAMPLE + 2


def test_caches_may_lie_elsewhere(bi: Old, tmp_path: Path, encoded: list[int]) -> None:
    bi.keep()
    moved = [bi.vecs.rename(tmp_path / "ids"), bi.encs.rename(tmp_path / "vectors")]
    ranker = ranker_of(bi.model)
    found = import_candidates(bi.model, ranker, bi.file, vecs=moved[0], encs=moved[1])
    assert sum(encoded) <= SAMPLE + 2
    assert found.notes[-1].startswith("vectors: ")
    with pytest.raises(CheckpointError, match="nowhere: cannot be read"):
        import_candidates(bi.model, ranker, bi.file, encs=tmp_path / "nowhere")


# Caches that do not fit


def other_word(one: Old) -> None:
    lines = one.lines
    lines[7] = "coffee is bad !"
    one.file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def one_line_more(one: Old) -> None:
    one.file.write_text(one.file.read_text(encoding="utf-8") + "coffee !\n", encoding="utf-8")


def another_training(one: Old) -> None:
    other = old(one.model.parent.with_name("other"), seed=1)
    other.keep()
    shutil.copy(other.encs, one.encs)


def change(which: str, how: Callable[[Tensor], Tensor]) -> Callable[[Old], None]:
    def changed(one: Old) -> None:
        file = getattr(one, which)
        torch.save(how(torch.load(file)), file)

    return changed


def with_nan(vectors: Tensor) -> Tensor:
    vectors[4, 3] = torch.nan
    return vectors


STALE: dict[str, tuple[Callable[[Old], None], str]] = {
    "an edited line": (other_word, "replies.vecs: stale, the tokens of line 8 ('coffee is bad !')"),
    "a new line": (one_line_more, "replies.vecs: stale, it has 49 candidates, replies.txt has 50"),
    "cut shorter": (change("vecs", lambda ids: ids[:, :8]), "vecs: stale, the tokens of line 3 "),
    "another training": (another_training, "replies.encs: stale, the vector of line"),
    "nearly the same": (change("encs", lambda x: x * 1.0001), "replies.encs: stale, the vector of"),
    "fewer vectors": (change("encs", lambda x: x[:40]), "encs: stale, it has 40 candidates"),
    "vectors of another width": (
        change("encs", lambda x: x[:, :8]),
        "encs: stale, its vectors have 8 entries, those of the model 16",
    ),
    "no number": (change("encs", with_nan), "encs: stale, the vector of line 5 holds what is no"),
}


@pytest.mark.parametrize("name", STALE)
def test_a_stale_cache_is_named_and_not_used(name: str, bi: Old) -> None:
    bi.keep()
    spoil, told = STALE[name]
    spoil(bi)
    index, notes = taken(bi)
    assert told in notes
    assert "taken as they are" not in notes
    assert notes.endswith("candidates encoded")
    same_scores(index, bi.scores())


def test_one_cache_without_the_other(bi: Old, encoded: list[int]) -> None:
    bi.keep()
    bi.vecs.rename(bi.vecs.with_suffix(".away"))
    assert "the others are taken on trust" in taken(bi)[1]
    assert sum(encoded) <= SAMPLE + 2
    bi.vecs.with_suffix(".away").rename(bi.vecs)
    bi.encs.unlink()
    _, notes = taken(bi)
    assert "replies.vecs: the token ids of every line are ours" in notes
    assert "candidates encoded, as there is no model.replies.encs beside the model" in notes


# Files that are none


def is_cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def holds(what: Any) -> Callable[[Path], None]:
    return lambda file: torch.save(what, file)


@pytest.mark.parametrize("which", ["vecs", "encs"])
@pytest.mark.parametrize(
    "spoil",
    [
        is_cut,
        lambda file: file.write_text("hello"),
        lambda file: file.write_bytes(b""),
        holds({"vecs": torch.zeros(49, 10)}),
        holds([1, 2]),
        holds(torch.zeros(49)),
        holds(torch.zeros(2, 49, 10)),
        holds(torch.zeros(49, 10, dtype=torch.int32)),
        holds(torch.zeros(49, 16, dtype=torch.float64)),
    ],
    ids=["cut", "text", "empty", "dict", "list", "1-D", "3-D", "int32", "float64"],
)
def test_a_broken_or_foreign_cache_is_refused(
    which: str, spoil: Callable[[Path], Any], bi: Old
) -> None:
    bi.keep()
    file: Path = getattr(bi, which)
    spoil(file)
    with pytest.raises(CheckpointError) as caught:
        taken(bi)
    text = str(caught.value)
    assert text.startswith(str(file))
    assert "candidates are encoded anew" in text
    assert "\n" not in text


@pytest.mark.parametrize("which", ["vecs", "encs"])
def test_nothing_in_a_cache_is_run(which: str, bi: Old, tmp_path: Path) -> None:
    bi.keep()
    mark = tmp_path / "mark"
    file: Path = getattr(bi, which)
    torch.save(Payload(mark), file)
    torch.load(file, weights_only=False)
    assert mark.exists(), "no attack at all"
    mark.unlink()
    with pytest.raises(CheckpointError):
        taken(bi)
    assert not mark.exists()


def test_a_cross_encoder_keeps_no_candidates(tmp_path: Path) -> None:
    one = old(tmp_path / "old", kind="cross", n_positions=60)
    with pytest.raises(ConfigError, match="a cross-encoder reads candidate and context together"):
        taken(one)


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "is empty"), ("\n \n\r\n", "no candidate in it"), ("a\0b\n", "is binary")],
    ids=["empty", "blank", "binary"],
)
def test_a_file_without_candidates(content: str, told: str, bi: Old) -> None:
    bi.file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        taken(bi)


def test_no_file_at_all(bi: Old) -> None:
    bi.file.unlink()
    with pytest.raises(DataError, match="no such file"):
        taken(bi)


def test_dialogues_are_refused_unless_parlai_took_their_lines(bi: Old) -> None:
    bi.file.write_text("1 your persona: i like tea .\n2 hi\thello .\n", encoding="utf-8")
    with pytest.raises(DataError, match="looks like parlai; expected one candidate a line"):
        taken(bi)
    bi.keep()
    assert taken(bi)[0].texts == bi.lines


def test_what_would_be_lost_is_seen_before_anything_is_read(bi: Old, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "thesis.txt").write_text("mine", encoding="utf-8")
    bi.file.unlink()
    with pytest.raises(RejoinderError, match=r"holds 'thesis\.txt', which is not ours"):
        import_candidates(bi.model, ranker_of(bi.model), bi.file, out=tmp_path / "index")
