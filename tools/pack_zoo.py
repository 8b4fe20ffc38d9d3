"""Put a trained checkpoint into the package, and measured scores onto its card.

    python tools/pack_zoo.py weights RUN NAME         # fp16, a generator int8 -> src/rejoinder/zoo
    python tools/pack_zoo.py scores NAME RESULTS.jsonl  # lines of bench/hits.py -> card and config

Scores of a generator are lines of bench/generator.py.

The weights come first, so that what is measured is what is shipped.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch

from rejoinder import checkpoint, generators, saved, zoo
from rejoinder.errors import DataError, RejoinderError
from rejoinder.files import write_text

LICENCE = (
    "It knows small talk in English between two people with a persona. It is no good for facts, "
    "other languages, or a trade with words of its own; train on dialogues of that place. "
    "Licence: Apache-2.0, like the base. Data: ConvAI2 / Persona-Chat, CC BY 4.0 (Zhang et al. "
    "2018; Dinan et al. 2019), for some models after self_dialogue (BSD-3, J. Fainberg et al.); "
    "the development set is Persona-Chat's test dialogues with 19 wrong candidates drawn at "
    "random, so hits@1 here is not the official ConvAI2 number."
)


def weights(run: Path, name: str) -> None:
    """Copy a run's best checkpoint, rounded to fp16, or a generator's to int8."""
    folder = saved.resolve(run)
    writes = zoo.writes(folder)
    training = saved.read_config(folder)["training"]
    text = re.sub(r"^# .*", f"# {name}", saved.card_of(folder), count=1)  # not the run's name
    text = text.replace(" FOLDER`", f" {name}`").split("\n## Confidence\n")[0].rstrip("\n") + "\n"
    card, out = f"{text}\n{LICENCE}\n", zoo.HERE / name
    if writes:
        writer = generators.load(folder, trainable=True)
        generators.save(writer, out, card=card, training=training, dtype=torch.int8)
    else:
        ranker = checkpoint.load(folder, trainable=True)
        checkpoint.save(ranker, out, card=card, training=training, dtype=torch.float16)


def scores(name: str, results: Path) -> None:
    """Write every result of this model on its card; the first one also into config.json."""
    folder = zoo.HERE / name
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    kind = "generator" if zoo.writes(folder) else "hits"
    rows = [row for row in rows if row["bench"] == kind and row["model"] == name]
    if not rows:
        raise DataError(f"{results}: no line of {name}; run bench/ with that model first")
    if kind == "generator":
        _write(folder, _written(name, rows), rows[0])
        return
    lines = ["## Measured", "", "| data | examples | persona | hits@1 | 95 % | hits@5 | MRR | F1 |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in rows:
        low, high = row["hits@1_interval"]
        lines.append(
            f"| {row['data']} | {row['examples']} | {'yes' if row['persona'] else 'no'} | "
            f"{row['hits@1']:.3f} | {low:.3f} to {high:.3f} | {row['hits@5']:.3f} | "
            f"{row['mrr']:.3f} | {row['f1']:.3f} |"
        )
    lines += ["", f"With `python bench/hits.py {name} DATA` (`--sample 2000`, `--no-persona`).", ""]
    _write(folder, lines, rows[0])


SHOWN = {
    "hits@1": "hits@1 of the next-utterance head",
    "hits@1_likelihood": "hits@1 by likelihood",
    "mrr": "MRR of the head",
    "perplexity": "perplexity per token",
    "word_perplexity": "perplexity per word between spaces",
    "parlai_perplexity": "perplexity as ParlAI counts, words of the data as dictionary",
    "f1": "F1",
    "bleu": "BLEU-4",
    "distinct-1": "distinct-1",
    "distinct-2": "distinct-2",
    "repetition": "repetition",
    "length": "words of a reply",
    "persona_use": "nearer to its persona than to another",
}


def _written(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """A column for each way of writing that was measured."""
    ways = [
        ("greedy" if row["greedy"] else f"{row['beams']} beams" if row["beams"] > 1 else "sampled")
        + ("" if row["persona"] else ", no persona")
        for row in rows
    ]
    lines = ["## Measured", "", f"| {rows[0]['examples']} examples | {' | '.join(ways)} |"]
    lines += ["|---" * (len(rows) + 1) + "|"]
    for key, told in SHOWN.items():
        lines.append(f"| {told} | {' | '.join(_shown(row[key]) for row in rows)} |")
    what = f"`python bench/generator.py {name} {rows[0]['data']}`"
    return [*lines, "", f"With {what}, `--greedy` and `--beams`; 20 re-drawn candidates each.", ""]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _write(folder: Path, lines: list[str], first: dict[str, Any]) -> None:
    """Put measured lines at the end of the card, and the first result into config.json."""
    card = saved.card_of(folder).partition("## Measured")[0].rstrip()
    write_text(folder / "README.md", card + "\n\n" + "\n".join(lines))
    settings = saved.read_config(folder)
    settings["training"]["scores"] = first
    write_text(folder / "config.json", json.dumps(settings, indent=2) + "\n")


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("what", choices=["weights", "scores"])
    parser.add_argument("first")
    parser.add_argument("second")
    asked = parser.parse_args()
    if asked.what == "weights":
        weights(Path(asked.first), asked.second)
    else:
        scores(asked.first, Path(asked.second))


if __name__ == "__main__":
    try:
        main()
    except (RejoinderError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
