"""What a report measures: the best checkpoint, rivals on the same examples, single examples.

All of it is plain values, which are kept in report.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rejoinder import baselines, evaluation, significance, written, zoo
from rejoinder.calibration import Calibrated
from rejoinder.config import TrainConfig
from rejoinder.decoding import Decoding
from rejoinder.evaluation import Judged, Scorer
from rejoinder.generator import TextGenerator
from rejoinder.ranker import TextRanker
from rejoinder.schema import Example
from rejoinder.shape import NATIVE
from rejoinder.training.loop import spread

RIVAL_LIMIT, CROSS_RIVAL_LIMIT = 400, 100  # examples that rivals are measured on: they cost time
WRITTEN_LIMIT = 200  # examples that a generator writes a reply for
SHOWN = 10  # best and worst examples
TURNS = 3  # last messages of a context that are shown
Found = dict[str, Any]
Makers = Mapping[str, Callable[[], Scorer]]


def measure_run(
    folder: Path,
    held: Sequence[Example],
    data: str,
    settings: TrainConfig,
    *,
    calibrated: Calibrated | None = None,
    init_model: Path | None = None,
    device: str = "cpu",
) -> Found:
    """Measure the best checkpoint of a run beside BM25, its untuned base, and what it began from.

    `held` are all examples of the file `data`, `settings` those that it was trained with. Of a
    generator also what it writes.
    """

    def ready(made: TextRanker | TextGenerator) -> TextRanker | TextGenerator:
        made.to(device).precision = settings.precision  # as in the validations
        return made

    made = ready(zoo.load(folder))
    rivals: dict[str, Callable[[], Scorer]] = {"bm25": baselines.BM25}
    if isinstance(made, TextRanker) and made.config.base != NATIVE:  # that has nothing untuned
        base, room = made.config.base, made.tokens.style.max_context
        rivals["the untuned base"] = lambda: ready(baselines.untuned(base, room))
    if init_model:
        rivals["the model it began from"] = lambda: ready(zoo.load(init_model))
    found = measure(made, held, settings.eval_limit, rivals)
    if isinstance(made, TextGenerator):
        found["written"] = measure_written(made, spread(held, WRITTEN_LIMIT), settings.seed)
    fitted = asdict(calibrated) if calibrated else None
    return {"data": data, **found, "calibration": fitted}


def measure_written(
    generator: TextGenerator, examples: Sequence[Example], seed: int = 0
) -> dict[str, Any]:
    """What a generator writes for some examples: figures, and the first SHOWN replies."""
    how = Decoding(seed=seed)
    ranking = evaluation.evaluate(generator, examples)
    figures = written.evaluate(
        generator, examples, ranking, how, encoder=baselines.untuned().to(str(generator.device))
    )
    shown = examples[:SHOWN]
    replies = generator.write([one.context for one in shown], how)
    return {
        "figures": figures.as_json(),
        "replies": [
            {
                "turns": [[m.role, m.content] for m in one.context.messages[-TURNS:]],
                "persona": list(one.context.persona),
                "reply": one.reply,
                "written": text,
            }
            for one, text in zip(shown, replies, strict=True)
        ],
    }


def measure(ranker: Scorer, held: Sequence[Example], limit: int, rivals: Makers) -> Found:
    """Measure a model on the examples that validation used: `limit` of `held`, 0 = all.

    Rivals are made one after the other and measured on fewer of the same examples; one that fails
    is named in `failures` with the reason.
    """
    # by identity: equal examples may be of two dialogues
    dialogue = dict(zip(map(id, held), evaluation.dialogue_numbers(held), strict=True))
    judged, seconds = evaluation.timed(ranker, spread(held, limit or len(held)))
    groups = [dialogue[id(one.example)] for one in judged]
    found: Found = {
        "dev": evaluation.summarise(judged, seconds).as_json()
        | {
            "dialogues": len(set(groups)),
            "hits@1_interval": significance.interval([one.rank == 1 for one in judged], groups),
            "mrr_interval": significance.interval([1 / one.rank for one in judged], groups),
        },
        "rivals": [],
        "failures": [],
        **_extremes(judged),
    }
    for name, make in rivals.items():
        try:
            found["rivals"].append(_against(name, make(), judged, groups))
        except Exception as error:  # one rival less is no reason to lose the rest of the report
            found["failures"].append(f"{name}: {type(error).__name__}: {error}")
    return found


def _against(name: str, rival: Scorer, judged: Sequence[Judged], groups: Sequence[int]) -> Found:
    """A rival's figures, the ranker's on the same examples, and by how much it is better."""
    cross = getattr(rival, "is_cross", False)
    limit = min(len(judged), CROSS_RIVAL_LIMIT if cross else RIVAL_LIMIT)
    places = [i * len(judged) // limit for i in range(limit)]
    ours = [judged[i].rank for i in places]
    theirs = [one.rank for one in evaluation.judge(rival, [judged[i].example for i in places])]
    some = [groups[i] for i in places]
    hits = significance.compare([r == 1 for r in theirs], [r == 1 for r in ours], some)
    mrr = significance.compare([1 / r for r in theirs], [1 / r for r in ours], some)
    return {
        "name": name,
        "examples": limit,
        "hits@1": hits.a,
        "mrr": mrr.a,
        "ours": hits.b,
        "our_mrr": mrr.b,
        "better_by": hits.difference,
        "better_by_interval": [hits.low, hits.high],
    }


def _extremes(judged: Sequence[Judged]) -> Found:
    """The best and the worst examples, by rank and then by margin; none is in both lists."""
    ordered = sorted(judged, key=lambda one: (one.rank, -one.margin))
    worst = ordered[max(len(ordered) - SHOWN, -(-len(ordered) // 2)) :]
    best = ordered[: min(SHOWN, len(ordered) - len(worst))]
    return {"best": [*map(_shown, best)], "worst": [*map(_shown, reversed(worst))]}


def _shown(one: Judged) -> Found:
    turns = one.example.context.messages[-TURNS:]
    return {
        "turns": [[message.role, message.content] for message in turns],
        "reply": one.example.reply,
        "top": one.top,
        "rank": one.rank,
        "candidates": one.candidates,
        "margin": one.margin if math.isfinite(one.margin) else None,
    }
