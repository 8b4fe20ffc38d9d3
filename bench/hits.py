"""hits@1 and its kin of one model on one file, as one JSON line.

    python bench/hits.py persona-poly personachat_dev_20cands.txt.xz
    python bench/hits.py persona-cross personachat_dev_20cands.txt.xz --sample 2000
    python bench/hits.py persona-poly personachat_dev_20cands.txt.xz --no-persona

`--sample N` takes N examples drawn with a fixed seed instead of all: the same ones for every model.
"""

from __future__ import annotations

import argparse
import json
import platform
import random

import torch

from rejoinder import tasks
from rejoinder.progress import Bar


def main() -> None:
    """Parse, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-persona", action="store_true")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    asked = parser.parse_args()
    examples = tasks.prepare(asked.data, "", None)
    if asked.sample:
        chosen = random.Random(asked.seed).sample(range(len(examples)), asked.sample)
        examples = [examples[i] for i in sorted(chosen)]
    scorer = tasks.scorer(asked.model, precision=asked.precision)
    with Bar("examples") as bar:
        report = tasks.evaluate(scorer, examples, persona=not asked.no_persona, progress=bar)
    row = {"bench": "hits", "model": asked.model, "data": asked.data.rpartition("/")[2]}
    row |= {"persona": not asked.no_persona, "sample": asked.sample, "seed": asked.seed}
    row |= report.as_json()
    row |= {"precision": asked.precision, "torch": torch.__version__}
    print(json.dumps(row | {"threads": torch.get_num_threads(), "machine": platform.machine()}))


if __name__ == "__main__":
    main()
