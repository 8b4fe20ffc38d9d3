"""A tokenizer learned from texts: byte-level BPE in lower case.

Pairs of bytes that stand together often become one token (Sennrich et al. 2016). Every text of any
language is bytes in the end, so nothing is ever unknown. Capitals are lowered and accents put
together (NFC) first: from few dialogues nobody learns that "Tea" and "tea" are one word.

The same texts give the same tokenizer, to the last byte, whatever their order.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from rejoinder.errors import ConfigError

PAD, START, END = FRAME = ("<pad>", "<start>", "<end>")  # ids 0, 1, 2
LEAST = len(FRAME) + 256  # every byte has its token
USUAL = 8000
TWICE = 2  # how often a pair has to occur: what was there once would be learned by heart


def learn_tokens(texts: Iterable[str], size: int = 0) -> Tokenizer:
    """A tokenizer of at most `size` tokens, 0 = 8,000; fewer where the texts have no more pairs.

    A text becomes <start> TEXT <end>, and <pad> has the id 0. Signs are cut from letters before
    pairs are made, so no token that text can become is spelled like one of these. Raises
    ConfigError for a size that does not hold all bytes.
    """
    if size and size < LEAST:
        raise ConfigError(
            f"vocabulary is {size}; expected at least {LEAST}, which are all bytes and "
            f"{', '.join(FRAME)}, or 0, which is {USUAL:,}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size or USUAL,
        min_frequency=TWICE,
        special_tokens=[*FRAME],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    whole = (text.encode("utf-8", "replace").decode() for text in texts)  # no half characters
    tokenizer.train_from_iterator(whole, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (START, END)],
    )
    return tokenizer
