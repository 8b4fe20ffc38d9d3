"""What most tests stand on: a tiny base with random weights, and rankers and dialogues on it.

Everything is real (a BERT of width 16, a trained tokenizer, safetensors on disk), and nothing is
fetched. Rankers are stirred: no weight is left at the zero or one that it starts with, so that no
law holds only because a part does nothing.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from rejoinder.schema import Dialogue, Example, Message
from rejoinder.text import TextFormat

if TYPE_CHECKING:
    from torch import Tensor

    from rejoinder.ranker import TextRanker

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported: no test may fetch

# The same inputs in every run, and no limit on time: a busy machine must not fail a law.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

THINGS = ["tea", "coffee", "dogs", "cats", "music", "trains", "books", "chess"]
THINGS += ["rain", "snow", "cheese", "apples", "bikes", "films", "paint", "stars"]
SENTENCES = (
    "hi , how are you today ?",
    "hello there ! i am fine , and you ?",
    "what do you do for a living ?",
    "i show people round a museum .",
    "do you like it ? i really do .",
    "yes , i love them very much .",
    "i am a guide . # > < |",
    "tell me more about that , please .",
    *(f"i like {thing} and my brother likes {thing} too ." for thing in THINGS),
)

VARIANTS: dict[str, dict[str, Any]] = {
    "bi": {"kind": "bi"},
    "bi-separate-first": {"kind": "bi", "towers": "separate", "pooling": "first"},
    "bi-raw-max": {"kind": "bi", "pooling": "max", "normalise": False},
    "bi-lora": {"kind": "bi", "lora": 4},
    **{
        f"poly-{poly}-{attention}": {"kind": "poly", "poly": poly, "attention": attention}
        for poly in ("codes", "n_first", "all")
        for attention in ("basic", "sqrt", "multihead")
    },
    "poly-raw-max": {"kind": "poly", "normalise": False, "pooling": "max", "attention": "sqrt"},
    "poly-separate-lora": {"kind": "poly", "poly": "codes", "towers": "separate", "lora": 4},
    "cross": {"kind": "cross"},
    "cross-linear-first": {"kind": "cross", "head": "linear", "pooling": "first"},
    "cross-prefix": {"kind": "cross", "head": "prefix"},
    "cross-prefix-first": {"kind": "cross", "head": "prefix", "pooling": "first", "lora": 4},
    "cross-separate": {"kind": "cross", "towers": "separate"},
    "cross-prefix-separate": {"kind": "cross", "head": "prefix", "towers": "separate", "lora": 4},
    "cross-max": {"kind": "cross", "pooling": "max"},
    "cross-lora": {"kind": "cross", "lora": 4},
}


@pytest.fixture(scope="session")
def style() -> TextFormat:
    """A text format that fits the base's 64 positions, for a cross-encoder too."""
    return TextFormat(max_context=48, max_reply=12)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained encoder's folder as the hub would give it: config, weights, tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    size = _write_tokenizer(folder / "tokenizer.json")
    config = BertConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,  # 0.02 would make all tokens look alike at this width
    )
    BertModel(config).save_pretrained(folder)
    return folder


def _write_tokenizer(file: Path) -> int:
    """WordPiece of words, letters and pairs of them; a trained one would differ from run to run."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = sorted(
        {
            word
            for sentence in SENTENCES
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(sentence))
        }
    )
    letters = sorted(set("".join(words)) | set("abcdefghijklmnopqrstuvwxyz"))
    pairs = sorted({word[i : i + 2] for word in words for i in range(len(word) - 1)})
    parts = [*letters, *pairs]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *parts, *(f"##{part}" for part in parts), *words])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(file))
    return int(tokenizer.get_vocab_size())


@pytest.fixture(scope="session")
def make(base: Path, style: TextFormat) -> Callable[..., TextRanker]:
    """Build a stirred, trainable ranker: `make(kind="poly", lora=4, seed=1)`."""
    import torch

    from rejoinder import checkpoint
    from rejoinder.config import ModelConfig

    def build(*, seed: int = 0, **settings: Any) -> TextRanker:
        torch.manual_seed(seed)
        small = {"base": str(base), "lora": 0, "lora_alpha": 8, "codes": 4, "heads": 2}
        config = ModelConfig(**{**small, **settings})
        ranker = checkpoint.fresh(config, style, trainable=True)
        with torch.no_grad():
            for weight in ranker.module.parameters():
                if weight.requires_grad:
                    weight.add_(0.1 * torch.randn_like(weight))
        return ranker

    return build


@pytest.fixture(scope="session", params=list(VARIANTS.values()), ids=list(VARIANTS))
def ranker(request: pytest.FixtureRequest, make: Callable[..., TextRanker]) -> TextRanker:
    """One ranker of each kind and shape, shared by all tests: score with it, do not change it."""
    return make(**request.param)


@pytest.fixture(scope="session")
def dialogues() -> list[Dialogue]:
    """Short, long, over-long, empty; with and without a persona; both sides opening."""
    user, assistant = SENTENCES[0], SENTENCES[1]
    long = tuple(Message("user" if i % 2 else "assistant", SENTENCES[i % 20]) for i in range(21))
    about = ("i am a guide .", "i love tea .")
    return [
        Dialogue((Message("user", user),)),
        Dialogue((Message("user", user), Message("assistant", assistant)), about),
        Dialogue(long, about),
        Dialogue((), about),
        Dialogue(),
        Dialogue((Message("system", "be kind ."), Message("user", "do you like dogs ?")), about),
        Dialogue((Message("user", " ".join(SENTENCES)),)),
        Dialogue(
            (Message("assistant", "hello there !"), Message("user", "hi")), ("i love rain .",)
        ),
    ]


@pytest.fixture(scope="session")
def replies() -> list[str]:
    """Candidates of many lengths: empty, short, cut."""
    long = " ".join(SENTENCES[:4])
    short = ["yes", "", "rain", "no idea ?", "dogs and cats", "i like tea ."]
    return [*short, long, "i like tea and my brother likes tea too .", "hello there ! i am fine"]


@pytest.fixture(scope="session")
def lessons() -> list[Example]:
    """Sixteen examples that a tiny ranker can learn by heart: the reply repeats what was said."""
    about = ("i am a guide .", "i love it .")
    return [
        Example(Dialogue((Message("user", thing),), about), (f"{thing} , yes",)) for thing in THINGS
    ]


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """`with full_disk(100):` lets no file grow beyond 100 bytes, as a full disk would."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def scored(dialogues: list[Dialogue], replies: list[str]) -> Callable[[TextRanker], Tensor]:
    """All scores of a ranker, (B, N)."""
    import torch

    return lambda one: torch.stack(one.score_many(dialogues, [replies] * len(dialogues)))
