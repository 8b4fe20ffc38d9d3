"""Put a trained checkpoint into the package, and measured scores onto its card.

    python tools/pack_zoo.py weights RUN NAME         # adapters in fp16 -> src/rejoinder/zoo/NAME
    python tools/pack_zoo.py scores NAME RESULTS.jsonl  # lines of bench/hits.py -> card and config

The weights come first, so that what is measured is what is shipped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from rejoinder import checkpoint, saved, zoo
from rejoinder.errors import RejoinderError
from rejoinder.files import write_text

LICENCE = (
    "It knows small talk in English between two people with a persona. It is no good for facts, "
    "other languages, or a trade with words of its own; train on dialogues of that place. "
    "Licence: Apache-2.0, like the base. Data: ConvAI2 / Persona-Chat, CC BY 4.0 (Zhang et al. "
    "2018; Dinan et al. 2019); the development set is Persona-Chat's test dialogues with 19 wrong "
    "candidates drawn at random, so hits@1 here is not the official ConvAI2 number."
)


def weights(run: Path, name: str) -> None:
    """Copy a run's best checkpoint, rounded to fp16."""
    folder = saved.resolve(run)
    ranker = checkpoint.load(folder, trainable=True)
    training = saved.read_config(folder)["training"]
    text = saved.card_of(folder).replace(f"# {run.name}", f"# {name}", 1)
    text = text.replace(" FOLDER`", f" {name}`").split("\n## Confidence\n")[0].rstrip("\n") + "\n"
    checkpoint.save(
        ranker, zoo.HERE / name, card=f"{text}\n{LICENCE}\n", training=training, dtype=torch.float16
    )


def scores(name: str, results: Path) -> None:
    """Write every result of this model on its card; the first one also into config.json."""
    folder = zoo.HERE / name
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["bench"] == "hits" and row["model"] == name]
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
    card = saved.card_of(folder).partition("## Measured")[0].rstrip()
    write_text(folder / "README.md", card + "\n\n" + "\n".join(lines))
    settings = saved.read_config(folder)
    settings["training"]["scores"] = rows[0]
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
