"""Measures of written replies by hand, and a generator's whole evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from rejoinder import baselines, generators, metrics, tasks, written
from rejoinder.config import GeneratorConfig
from rejoinder.decoding import Decoding
from rejoinder.errors import ConfigError
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example, Message
from rejoinder.text import TextFormat

TALK = Dialogue((Message("user", "hi"), Message("assistant", "i like green tea a lot .")))
EXAMPLES = [
    Example(TALK, ("i like black tea .",), ("no .", "i like black tea .", "see you .")),
    Example(Dialogue((Message("user", "do you paint ?"),)), ("no , i do not .",), ("yes .",)),
]


def test_bleu_by_hand() -> None:
    """Papineni's: precisions 5/6, 3/5, 1/4 and 0/3 give 0; with a match of four words it counts."""
    text, right = "the cat is on one mat now ok", "cat is on one mat"
    # words without articles: cat is on one mat now ok, 7 of which 5, 4/6, 3/5, 2/4
    expected = (5 / 7 * 4 / 6 * 3 / 5 * 2 / 4) ** 0.25
    assert metrics.bleu([text], [[right]]) == pytest.approx(expected)
    short = metrics.bleu(["cat is on one"], [[right]])
    assert short == pytest.approx(torch.tensor(1 - 5 / 4).exp().item())
    assert metrics.bleu([right], [[right]]) == pytest.approx(1.0)
    assert metrics.bleu(["i do not"], [[right]]) == 0.0
    both = metrics.bleu([text, right], [[right], ["no", right]])
    assert expected < both < 1


def test_distinct_by_hand() -> None:
    texts = ["i like tea", "i like dogs", "tea"]
    assert metrics.distinct(texts, 1) == pytest.approx(4 / 7)
    assert metrics.distinct(texts, 2) == pytest.approx(3 / 4)
    assert metrics.distinct([], 2) == 0.0


def test_repetition_by_hand() -> None:
    assert metrics.repetition("i like tea and i like tea") == pytest.approx(1 / 5)
    assert metrics.repetition("so i like green tea", ["i like green tea"]) == pytest.approx(2 / 3)
    assert metrics.repetition("tea") == 0.0


def test_of_texts() -> None:
    found = written.of_texts(["i like green tea", "i do not ."], EXAMPLES)
    assert found["f1"] == pytest.approx((3 / 4 + 6 / 7) / 2)
    assert found["repetition"] == pytest.approx(1 / 2)
    assert found["length"] == pytest.approx(3.5)


def test_persona_use_knows_whose_words_these_are(make: Callable[..., TextRanker]) -> None:
    about = [("i love tea .", "i have two dogs ."), ("my brother plays chess .",), ()]
    examples = [Example(Dialogue((), persona), ("",)) for persona in about]
    encoder = make(kind="bi")
    own = [about[0][1], about[1][0], "tea"]
    assert written.persona_use(encoder, own, examples) == 1.0
    assert written.persona_use(encoder, [own[1], own[0], "tea"], examples) == 0.0
    assert written.persona_use(encoder, own, examples[2:] * 3) is None


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    style = TextFormat(max_context=44, max_reply=16)
    made = generators.fresh(GeneratorConfig(base=str(base), lora=0), style, trainable=True)
    torch.manual_seed(3)
    for weight in (made.module.added, made.module.choice.weight):
        torch.nn.init.normal_(weight, std=0.4)
    out = tmp_path_factory.mktemp("models") / "writer"
    generators.save(made, out)
    return out


def test_an_evaluation_is_whole_and_can_be_repeated(
    folder: Path, base: Path, lessons: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "untuned", lambda: _small(base))
    how = Decoding(max_length=6, seed=4)
    done: list[tuple[int, int]] = []
    first, again = (
        tasks.evaluate(
            str(folder), lessons, candidates="re-drawn:5", how=how, precision="fp32", progress=told
        ).as_json()
        for told in (lambda *state: done.append(state), None)
    )
    for name in ("seconds", "examples_per_second", "tokens_per_second"):
        assert first.pop(name) > 0
        assert again.pop(name) > 0
    assert first == again
    assert done[-1] == (16, 16)
    names = {"hits@1", "hits@1_likelihood", "mrr", "perplexity", "word_perplexity", "f1", "bleu"}
    names |= {"parlai_perplexity", "distinct-1", "distinct-2", "repetition", "length"}
    assert names <= first.keys()
    assert first["perplexity"] < first["word_perplexity"]
    generator = generators.load(folder)
    costs = generator.surprise([x.context for x in lessons], [x.reply for x in lessons])
    total, tokens = (sum(column) for column in zip(*costs, strict=True))
    assert torch.tensor(total / tokens).exp().item() == pytest.approx(first["perplexity"], rel=1e-4)


def _small(base: Path) -> TextRanker:
    from rejoinder import checkpoint
    from rejoinder.config import ModelConfig

    return checkpoint.fresh(
        ModelConfig(base=str(base), lora=0), TextFormat(max_context=48, max_reply=16)
    )


def test_greedy_says_less_than_what_is_drawn(folder: Path, lessons: list[Example]) -> None:
    greedy, drawn = (
        tasks.evaluate(str(folder), lessons, candidates="re-drawn:5", how=how, persona=False)
        for how in (Decoding(greedy=True), Decoding(temperature=2.0, top_p=1.0))
    )
    assert greedy.as_json()["distinct-2"] < drawn.as_json()["distinct-2"]
    assert greedy.as_json()["persona_use"] is None


def test_what_writes_nothing_has_no_way_of_writing(lessons: list[Example]) -> None:
    with pytest.raises(ConfigError, match="bm25 writes nothing"):
        tasks.evaluate("bm25", lessons, candidates="re-drawn:5", how=Decoding())


class Recording(baselines.BM25):
    """Remembers what it was asked."""

    asked: Sequence[Dialogue] = ()

    def score_many(
        self,
        dialogues: Sequence[Dialogue],
        lists: Sequence[Sequence[str]],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[torch.Tensor]:
        self.asked = dialogues
        return super().score_many(dialogues, lists, progress)


def test_a_sample_is_drawn_by_its_seed(lessons: list[Example]) -> None:
    def drawn(seed: int, sample: int | None) -> list[Dialogue]:
        scorer = Recording()
        tasks.evaluate(scorer, lessons, candidates="re-drawn:5", sample=sample, seed=seed)
        return list(scorer.asked)

    assert drawn(1, 6) == drawn(1, 6) != drawn(2, 6)
    assert len(drawn(1, 6)) == 6
    assert drawn(1, 40) == drawn(2, None) == [one.context for one in lessons]
