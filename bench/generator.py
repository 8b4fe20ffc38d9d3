"""Everything that is measured of a generator, on drawn examples of a file.

    python bench/generator.py MODEL DATA [--sample 1000] [--greedy | --beams 4] [--no-persona]

The figures of `rejoinder evaluate MODEL DATA --sample 1000 --json`, with what was asked beside
them; docs/generators.md says what each is.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from rejoinder import tasks
from rejoinder.decoding import Decoding
from rejoinder.progress import Bar


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--sample", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-persona", action="store_true")
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=Decoding().temperature)
    parser.add_argument("--no-repeat", type=int, default=0)
    asked = parser.parse_args()
    how = Decoding(
        greedy=asked.greedy,
        beams=asked.beams,
        temperature=asked.temperature,
        no_repeat=asked.no_repeat,
        seed=asked.seed,
    )
    with Bar("examples") as bar:
        report = tasks.evaluate(
            asked.model,
            asked.data,
            sample=asked.sample,
            seed=asked.seed,
            persona=not asked.no_persona,
            how=how,
            progress=bar,
        )
    row = {"bench": "generator", **vars(asked), "data": asked.data.name, **report.as_json()}
    row |= {"persona": not row.pop("no_persona"), "torch": torch.__version__}
    print(json.dumps(row | {"threads": torch.get_num_threads(), "machine": platform.machine()}))


if __name__ == "__main__":
    main()
