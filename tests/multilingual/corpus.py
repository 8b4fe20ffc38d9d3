"""Dialogues in Spanish, Japanese and Arabic, written for these tests, and a tokenizer for them."""

from __future__ import annotations

from pathlib import Path

from rejoinder.data import read

HERE = Path(__file__).parent
LANGUAGES = ("es", "ja", "ar")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def dialogues_of(language: str) -> Path:
    return HERE / f"{language}.jsonl"


def texts() -> list[str]:
    """Everything that is said or told in the dialogues."""
    dialogues = [one for language in LANGUAGES for one in read(dialogues_of(language))]
    about = [text for one in dialogues for text in (*one.persona, *one.partner_persona)]
    return about + [message.content for one in dialogues for message in one.messages]


def train_unigrams(file: Path) -> int:
    """Save a tokenizer as XLM-RoBERTa has it, and say how many pieces it knows."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=1200,
        special_tokens=[*SPECIAL, "<mask>"],
        unk_token="<unk>",
        initial_alphabet=list("#><|"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.save(str(file))
    return int(tokenizer.get_vocab_size())
