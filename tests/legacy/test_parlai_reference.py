"""ParlAI's rankers as ours, of any options: the ids and scores of a slow second writing of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rejoinder import checkpoint
from rejoinder.errors import CheckpointError
from rejoinder.index import Index
from rejoinder.legacy.parlai import Imported
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Message

from . import parlai_reference as reference
from .parlai_checkpoint import make_checkpoint
from .test_parlai import CANDIDATES, imported, same

POLY: dict[str, Any] = {"kind": "poly"}
CROSS: dict[str, Any] = {"kind": "cross"}
SINES: dict[str, Any] = {"learn_positional_embeddings": False, "embeddings_scale": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "bi": {},
    "bi-one-table-of-words": {"share_word_embeddings": True},
    "bi-shared": {"share_encoders": True, "share_word_embeddings": True},
    "bi-shared-with-unused-words": {"share_encoders": True},
    "bi-usual-sharing": {"share_encoders": ..., "share_word_embeddings": ...},
    "bi-shared-max": {"share_encoders": True, "reduction_type": "max"},
    "bi-first": {"reduction_type": "first", "history_size": 0},
    "bi-max": {"reduction_type": "max"},
    "bi-bart-relu": {"variant": "bart", "activation": "relu"},
    "bi-aiayn-sines": {"variant": "aiayn", **SINES},
    "bi-aiayn-max": {"variant": "aiayn", "reduction_type": "max", "output_scaling": 0.06},
    "bi-pre-mean": {"variant": "prelayernorm"},
    "bi-pre-max": {"variant": "prelayernorm", "reduction_type": "max"},
    "bi-pre-first-sines": {"variant": "prelayernorm", "reduction_type": "first", **SINES},
    "bi-pre-shared": {"variant": "prelayernorm", "share_encoders": True},
    "bi-no-segments": {"n_segments": 0},
    "bi-four-layers": {"n_encoder_layers": 3, "n_heads": 4},
    "bi-of-length-one": {"normalize_sent_emb": True},
    "bi-short-history": {"history_size": 2},
    "bi-little-said": dict.fromkeys(
        ("variant", "activation", "n_heads", "output_scaling", "embeddings_scale", "history_size"),
        ...,
    ),
    "bi-fp16": {"fp16": True, "half": True, "training": True},
    "bi-forced-fp16": {"force_fp16_tokens": True, "legacy": True},
    "poly-first-5-sqrt": {
        **POLY,
        "polyencoder_type": "n_first",
        "poly_attention_type": "sqrt",
        "legacy": True,
        "training": True,
    },
    "poly-first-1": {**POLY, "polyencoder_type": "n_first", "poly_n_codes": 1},
    "poly-first-30-multihead": {
        **POLY,
        "polyencoder_type": "n_first",
        "poly_n_codes": 30,
        "poly_attention_type": "multihead",
    },
    "poly-first-pre-max": {
        **POLY,
        "polyencoder_type": "n_first",
        "variant": "prelayernorm",
        "reduction_type": "max",
    },
    "poly-little-said": {**POLY, "poly_n_codes": ..., "dict_endtoken": ..., "use_memories": ...},
    "poly-codes-1": {**POLY, "poly_n_codes": 1},
    "poly-codes-6-both-multihead": {
        **POLY,
        "poly_n_codes": 6,
        "poly_attention_type": "multihead",
        "codes_attention_type": "multihead",
        "codes_attention_num_heads": 2,
    },
    "poly-codes-multihead-of-codes": {**POLY, "codes_attention_type": "multihead"},
    "poly-codes-both-sqrt": {
        **POLY,
        "poly_attention_type": "sqrt",
        "codes_attention_type": "sqrt",
        "reduction_type": "first",
    },
    "poly-codes-pre-mean": {**POLY, "variant": "prelayernorm", "half": True},
    "poly-codes-aiayn": {**POLY, "variant": "aiayn", "share_encoders": True, **SINES},
    "cross-first": {**CROSS, "reduction_type": "first"},
    "cross-usual": {**CROSS, "reduction_type": ...},
    "cross-mean": {**CROSS, "reduction_type": "mean", "n_segments": 0},
    "cross-max": {**CROSS, "reduction_type": "max"},
    "cross-aiayn-sines": {**CROSS, "reduction_type": "mean", "variant": "aiayn", **SINES},
    "cross-pre-mean": {**CROSS, "reduction_type": "mean", "variant": "prelayernorm"},
    "cross-pre-first": {**CROSS, "reduction_type": "first", "variant": "prelayernorm"},
    "bpe-0.1": {"codecs": "0.1", "dict_endtoken": "__end__"},
    "bpe-as-typed": {"dict_lower": False, "delimiter": " , "},
    "bpe-persons": {"person_tokens": True, "training": True},
    "re": {"dict_tokenizer": "re", "dict_endtoken": ...},
    "re-persons": {"dict_tokenizer": "re", "person_tokens": True},
    "re-lines": {"dict_tokenizer": "re", "split_lines": True, "history_size": 3},
    "space": {"dict_tokenizer": "space", "dict_lower": ...},
    "split": {"dict_tokenizer": "split", "dict_endtoken": "__end__", "fp16": True},
}
SLOW = ["bi-usual-sharing", "bi-shared-max", "bi-pre-shared", "bi-four-layers", "bi-forced-fp16"]
SLOW += ["bi-bart-relu", "bi-little-said", "poly-first-1", "poly-codes-multihead-of-codes"]
SLOW += ["poly-codes-aiayn", "cross-usual", "cross-pre-first", "bpe-as-typed"]
ABOUT = ("i like tea .", "i own a small library .")
LONG = (
    Message("user", "hello , how are you today ?"),
    Message("assistant", "i am fine . just back from the library ."),
    Message("user", "what do you do for a living ?"),
    Message("assistant", "I AM a pilot , i fly planes ."),
    Message("user", "two dogs and a cat .\nyou ?"),
)
DIALOGUES = [
    Dialogue(LONG[:1], ABOUT),
    Dialogue(LONG, ABOUT),
    Dialogue(LONG[:3]),
    Dialogue((Message("user", "tea"),)),
    Dialogue((Message("assistant", "hey !"), Message("user", "unseen wörds 42 , déjà-vu"))),
    Dialogue((Message("user", "no .\n\n  yes\tplease"),)),
]
LISTS = [CANDIDATES, CANDIDATES[:3], ["tea"], ["", "no ."], CANDIDATES[4:], ["tea", "no", "tea"]]


def entries(dialogue: Dialogue) -> list[reference.Entry]:
    """What ParlAI is told of a dialogue: the persona comes with the first message, as one text."""
    persona = [f"your persona: {sentence}" for sentence in dialogue.persona]
    said = [("p2" if m.role == "assistant" else "p1", m.content) for m in dialogue.messages]
    if persona and said:
        said[0] = (said[0][0], "\n".join([*persona, said[0][1]]))
    return said or ([("p1", "\n".join(persona))] if persona else [])


@dataclass(frozen=True)
class Case:
    """A model with random weights in ParlAI's files, read by us and by the reference."""

    imported: Imported
    reader: reference.Reader
    weights: dict[str, Tensor]

    @property
    def ranker(self) -> TextRanker:
        return self.imported.ranker

    def contexts(self, dialogues: list[Dialogue]) -> list[list[int]]:
        return [reference.context_ids(entries(one), self.reader) for one in dialogues]

    def candidates(self, texts: list[str]) -> list[list[int]]:
        return [reference.candidate_ids(text, self.reader) for text in texts]

    def scores(self, dialogue: Dialogue, texts: list[str]) -> Tensor:
        """Of one context alone, (N,)."""
        rows = self.contexts([dialogue])
        found = reference.inline_scores(
            self.weights, self.reader.options, rows, [self.candidates(texts)]
        )
        return found[0]

    def check(self) -> None:
        """Same ids and scores, dialogue by dialogue and all at once."""
        tokens = self.ranker.tokens
        assert tokens.contexts(DIALOGUES) == self.contexts(DIALOGUES)
        assert tokens.candidates(CANDIDATES) == self.candidates(CANDIDATES)
        pairs = list(zip(DIALOGUES, LISTS, strict=True))
        expected = torch.cat([self.scores(*pair) for pair in pairs])
        several = torch.cat(self.ranker.score_many(DIALOGUES, LISTS))
        same(several, expected)
        first = torch.cat([self.ranker.scores(*pair) for pair in pairs[:3]])
        same(first, expected[: len(first)])


def opened(model: Path) -> Case:
    return Case(imported(model), reference.reader_of(model), reference.weights_of(model))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    made: dict[str, Case] = {}

    def find(name: str) -> Case:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = opened(make_checkpoint(folder, seed=len(name), **VARIANTS[name]))
        return made[name]

    return find


Cases = Callable[[str], Case]


def marked(names: Iterable[str]) -> list[Any]:
    """What repeats another variant but for a detail is tried by `make check` only."""
    return [pytest.param(x, marks=pytest.mark.slow) if x in SLOW else x for x in names]


@pytest.mark.parametrize("name", marked(VARIANTS))
def test_scores_are_those_of_the_reference(case: Cases, name: str) -> None:
    case(name).check()


SAVED = ["bi-one-table-of-words", "bi-shared", "bi-shared-with-unused-words", "bi-aiayn-max"]
SAVED += ["bi-fp16", "poly-first-5-sqrt", "poly-codes-6-both-multihead", "poly-codes-1"]
SAVED += ["cross-pre-mean", "bpe-0.1", "re-lines", "space", "split"]


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_one_is_the_same(case: Cases, name: str, tmp_path: Path) -> None:
    ranker = case(name).ranker
    checkpoint.save(ranker, tmp_path / "model")
    again = checkpoint.load(tmp_path / "model")
    before, after = ranker.module.state_dict(), again.module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert again.config == ranker.config
    assert again.tokens.contexts(DIALOGUES) == ranker.tokens.contexts(DIALOGUES)
    # not to the last bit: the numbers of the old file may lie where a processor sums otherwise
    one, other = (torch.cat(x.score_many(DIALOGUES, LISTS)) for x in (ranker, again))
    same(other, one)


@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.startswith("cross")][::3])
def test_kept_vectors_score_like_the_reference(case: Cases, name: str) -> None:
    one = case(name)
    dialogues, rows = DIALOGUES[:4], one.candidates(CANDIDATES)
    expected = torch.cat(
        [
            reference.fixed_scores(one.weights, one.reader.options, [context], rows)
            for context in one.contexts(dialogues)
        ]
    )
    vectors = one.ranker.encode_candidates(CANDIDATES)
    same(one.ranker.score(one.ranker.encode_contexts(dialogues), vectors), expected)
    index = Index.build(one.ranker, CANDIDATES)
    for dialogue, row in zip(dialogues, expected, strict=True):
        found = index.search(dialogue, k=4)
        same(torch.tensor(found.scores), row[list(found.numbers)])


@pytest.mark.parametrize("name", ["bi", "bi-aiayn-sines", "poly-codes-6-both-multihead"])
def test_a_padded_batch_scores_like_the_reference(case: Cases, name: str) -> None:
    one = case(name)
    assert not one.ranker.module.reads_padding
    rows = [one.candidates(CANDIDATES[:5])] * len(DIALOGUES)
    contexts = one.contexts(DIALOGUES)
    expected = reference.inline_scores(one.weights, one.reader.options, contexts, rows)
    found = one.ranker.score_many(DIALOGUES, [CANDIDATES[:5]] * len(DIALOGUES))
    same(torch.stack(found), expected)


@pytest.mark.parametrize(
    "name", ["bi-max", "bi-pre-mean", "poly-first-pre-max", "cross-max", "cross-pre-mean"]
)
def test_padding_counts_to_the_longest_of_a_request(case: Cases, name: str) -> None:
    one = case(name)
    assert one.ranker.module.reads_padding
    assert len({len(row) for row in one.candidates(CANDIDATES)}) > 3
    one.ranker.most = 2  # candidates of one pass, as a large request is cut
    found = one.ranker.scores(DIALOGUES[0], CANDIDATES)
    one.ranker.most = 0
    same(found, one.scores(DIALOGUES[0], CANDIDATES))


@pytest.mark.parametrize("name", ["bi", "bi-short-history", "re-lines", "space"])
def test_a_persona_alone_is_an_entry(case: Cases, name: str) -> None:
    alone = [Dialogue((), ABOUT)]
    assert case(name).ranker.tokens.contexts(alone) == case(name).contexts(alone)


# normalize_sent_emb belongs to the bi-encoder; a poly-encoder has it but ignores it.
def test_a_poly_encoder_has_no_vectors_of_length_one(tmp_path: Path) -> None:
    opened(make_checkpoint(tmp_path, kind="poly", normalize_sent_emb=True)).check()


# Who speaks stands before every text that comes in, so before a persona alone too.
@pytest.mark.parametrize("name", ["re-persons", "bpe-persons"])
def test_a_persona_alone_is_said_by_somebody(case: Cases, name: str) -> None:
    alone = [Dialogue((), ABOUT)]
    assert case(name).ranker.tokens.contexts(alone) == case(name).contexts(alone)


# Nothing is put around an empty history; the row becomes all padding.
@pytest.mark.parametrize("name", ["bi", "poly-first-5-sqrt", "poly-codes-6-both-multihead"])
def test_an_empty_dialogue_is_nothing_but_padding(case: Cases, name: str) -> None:
    one = case(name)
    assert one.ranker.tokens.contexts([Dialogue()]) == one.contexts([Dialogue()]) == [[]]
    expected = one.scores(Dialogue(), CANDIDATES)
    found = one.ranker.scores(Dialogue(), CANDIDATES)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


# A row without any token gives uniform weights, never NaN.
@pytest.mark.parametrize(
    "name", ["bi", "poly-first-5-sqrt", "poly-first-30-multihead", "poly-codes-both-sqrt"]
)
def test_padding_alone_gives_finite_scores(case: Cases, name: str) -> None:
    ranker = case(name).ranker
    nothing = torch.zeros(1, 3, dtype=torch.long)
    vectors = ranker.encode_candidates(CANDIDATES)
    with torch.inference_mode():
        context = ranker.module.encode_context(nothing, nothing.bool())
    assert ranker.score(context, vectors).isfinite().all()


@pytest.mark.parametrize("lengths", [(4, 10), (24, 5)])
def test_too_little_to_be_meant_is_refused(tmp_path: Path, lengths: tuple[int, int]) -> None:
    model = make_checkpoint(tmp_path, text_truncate=lengths[0], label_truncate=lengths[1])
    with pytest.raises(CheckpointError, match=r"model\.opt: (text|label)_truncate is \d; expected"):
        imported(model)


# None and 0 mean `truncate`; below 0 cuts nothing.
@pytest.mark.parametrize(
    "told",
    [
        {"text_truncate": 0, "label_truncate": None, "truncate": 12},
        {"text_truncate": None, "label_truncate": ..., "truncate": ..., "n_positions": 180},
        {"text_truncate": -1, "label_truncate": -1, "truncate": 12, "n_positions": 180},
    ],
    ids=["as-truncate", "usual", "below-zero"],
)
def test_lengths_may_be_told_in_many_ways(tmp_path: Path, told: dict[str, Any]) -> None:
    opened(make_checkpoint(tmp_path, **told)).check()


# With the usual truncation nothing is cut here: the longest pair has fewer tokens than there are
# places.
def test_a_cross_encoder_that_cuts_nothing_reads_all(tmp_path: Path) -> None:
    long: dict[str, Any] = {"n_positions": 180, "text_truncate": None, "label_truncate": None}
    opened(make_checkpoint(tmp_path, kind="cross", **long)).check()


def test_a_cross_encoder_that_cuts_nothing_is_loaded_again(tmp_path: Path) -> None:
    long: dict[str, Any] = {"n_positions": 180, "text_truncate": None, "label_truncate": None}
    ranker = imported(make_checkpoint(tmp_path / "old", kind="cross", **long)).ranker
    checkpoint.save(ranker, tmp_path / "new")
    again = checkpoint.load(tmp_path / "new")
    same(again.scores(DIALOGUES[0], CANDIDATES), ranker.scores(DIALOGUES[0], CANDIDATES))


# learn_embeddings False keeps word vectors as they are; they belong to the model.
def test_word_vectors_that_were_not_learned_are_saved(tmp_path: Path) -> None:
    ranker = imported(make_checkpoint(tmp_path / "old", learn_embeddings=False)).ranker
    checkpoint.save(ranker, tmp_path / "new")
    again = checkpoint.load(tmp_path / "new")
    same(again.scores(DIALOGUES[0], CANDIDATES), ranker.scores(DIALOGUES[0], CANDIDATES))


# The memory encoder may be a response wrapper round the context encoder; without
# memories it scores nothing.
def test_a_wrapped_memory_encoder_is_left(tmp_path: Path) -> None:
    opened(make_checkpoint(tmp_path, wrap_memory_encoder=True)).check()


# ParlAI's source (TorchAgent.build_dictionary): the two tokens are added behind those of the file
# where that has none, as after `train_model` built it; then there are two more word vectors.
@pytest.mark.parametrize("kind", ["re", "bpe"])
def test_tokens_for_persons_may_lack_in_the_dictionary(tmp_path: Path, kind: str) -> None:
    model = make_checkpoint(tmp_path, dict_tokenizer=kind, person_tokens=True)
    expected = torch.cat(imported(model).ranker.score_many(DIALOGUES, LISTS))
    file = Path(f"{model}.dict")
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    assert all("__p" in line for line in lines[-2:])
    file.write_text("".join(lines[:-2]), encoding="utf-8")
    same(torch.cat(imported(model).ranker.score_many(DIALOGUES, LISTS)), expected)
