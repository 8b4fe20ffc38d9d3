"""How fast replies are written, and what candidates cost beside one.

    python bench/writing.py DATA [--layers 6] [--width 384] [--tokens 100] [--batch 1]

A GPT-2 of random weights, the same file for all: ours, `transformers`' `generate` (its cache, SDPA,
fp32), and ours without a cache, which reads the whole text again for every token. All write exactly
--tokens tokens greedily behind the same context, in turns, and the best of --rounds counts. Then
the time to score 20 candidates of a context over that of one, and of a training step likewise, on
the dialogues of DATA, which the GPT-2 reads with the default encoder's tokenizer.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from rejoinder import generators
from rejoinder.config import GeneratorConfig, TrainConfig
from rejoinder.data import read
from rejoinder.decoding import Decoding
from rejoinder.generator import TextGenerator
from rejoinder.models.decoding import Meaning, write
from rejoinder.models.generator import Rows
from rejoinder.models.pretrained import find_base
from rejoinder.schema import Dialogue, Example, examples
from rejoinder.text import TextFormat
from rejoinder.training.source import listed
from rejoinder.training.stepper import Stepper

CONTEXT = 60  # tokens that are read before
WORDS = 30_522  # of the default encoder's tokenizer


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("data", type=Path, help="dialogues with 20 candidates each")
    asked = parser.parse_args()
    row: dict[str, object] = {"bench": "writing", **vars(asked), "data": asked.data.name}
    with tempfile.TemporaryDirectory() as folder:
        made = model(Path(folder), asked.layers, asked.width)
        row |= speeds(made, Path(folder), asked.tokens, asked.batch, asked.rounds)
        texts = talk(asked.data)
        row |= costs(made, *texts, asked.rounds)
        row |= training_costs(Path(folder), *texts, asked.rounds)
    row |= {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps(row | {"threads": torch.get_num_threads(), "machine": platform.machine()}))


def model(folder: Path, layers: int, width: int) -> TextGenerator:
    """A GPT-2 in a folder as the hub gives it, and a generator on it."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_embd=width, n_layer=layers, n_head=width // 32, n_positions=512
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    shutil.copy(find_base("minilm").folder / "tokenizer.json", folder)
    return generators.fresh(GeneratorConfig(base=str(folder), lora=0), TextFormat())


def speeds(
    made: TextGenerator, folder: Path, tokens: int, batch: int, rounds: int
) -> dict[str, float]:
    """Tokens per second of the three, and ratios."""
    peer = transformers.GPT2LMHeadModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    ids = torch.randint(0, WORDS, (batch, CONTEXT))
    rows = Rows(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids))
    how = Decoding(greedy=True, max_length=tokens, min_length=tokens)
    meaning = Meaning(frozenset({WORDS + 1}), frozenset(range(WORDS, WORDS + 5)) - {WORDS + 1})

    def ours() -> None:
        assert sum(1 for _ in write(made.module, rows, meaning, how, range(batch))) == tokens

    @torch.inference_mode()
    def theirs() -> None:
        found = peer.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=0,
        )
        assert found.shape[1] == CONTEXT + tokens

    @torch.inference_mode()
    def without_cache() -> None:
        text = ids
        for _ in range(tokens):
            whole = Rows(text, torch.ones_like(text, dtype=torch.bool), torch.zeros_like(text))
            state = made.module(whole)[:, -1]
            text = torch.cat([text, made.module.next_tokens(state).argmax(-1, keepdim=True)], 1)

    best = fastest({"ours": ours, "generate": theirs, "no_cache": without_cache}, rounds)
    speed = {f"{name}_tokens_per_second": batch * tokens / best[name] for name in best}
    return speed | {
        "over_generate": best["generate"] / best["ours"],
        "over_no_cache": best["no_cache"] / best["ours"],
    }


def talk(data: Path) -> tuple[list[Dialogue], list[list[str]]]:
    """64 contexts with 20 candidates each, spread over a file."""
    found = [one for one in examples(read(data)) if len(one.candidates) >= 20]
    chosen = [found[i * len(found) // 64] for i in range(64)]
    return [one.context for one in chosen], [list(one.candidates[:20]) for one in chosen]


def costs(
    made: TextGenerator, contexts: list[Dialogue], lists: list[list[str]], rounds: int
) -> dict[str, float]:
    """Time to score 20 candidates of each context over that of one."""
    best = fastest(
        {
            "one": lambda: made.score_many(contexts, [texts[:1] for texts in lists]),
            "twenty": lambda: made.score_many(contexts, lists),
        },
        rounds,
    )
    return {"score_20_over_1": best["twenty"] / best["one"]}


def training_costs(
    folder: Path, contexts: list[Dialogue], lists: list[list[str]], rounds: int
) -> dict[str, float]:
    """Time of a step with 20 candidates for each example over that with the right reply alone."""
    steps: dict[str, Callable[[], object]] = {}
    for name, count, choice in (("one", 1, 0.0), ("twenty", 20, 1.0)):
        config = GeneratorConfig(base=str(folder), lora=0, mc_coef=choice)
        made = generators.fresh(config, TextFormat(), trainable=True)
        found = [
            Example(context, (texts[0],), tuple(texts[:count]))
            for context, texts in zip(contexts, lists, strict=True)
        ]
        settings = TrainConfig(candidates="inline", batch_size=64, precision="fp32")
        stepper = Stepper(made, listed(found, made.tokens, settings), 100, say=lambda _: None)
        steps[name] = lambda stepper=stepper: stepper.step(0)  # type: ignore[misc]
    best = fastest(steps, rounds)
    return {"train_20_over_1": best["twenty"] / best["one"]}


def fastest(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least seconds of each, done in turns after one to warm up."""
    for do in work.values():
        do()
    best = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, do in work.items():
            begun = time.perf_counter()
            do()
            best[name] = min(best[name], time.perf_counter() - begun)
    return best


if __name__ == "__main__":
    main()
