"""Measure models on dialogues, one or two at a time."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rejoinder import baselines, evaluation, perplexity, significance, written, zoo
from rejoinder import candidates as sources_of
from rejoinder.data import read
from rejoinder.data.messages import to_json
from rejoinder.decoding import Decoding
from rejoinder.errors import ConfigError, DataError
from rejoinder.evaluation import Judged, Report, Scorer
from rejoinder.files import write_text
from rejoinder.generator import TextGenerator
from rejoinder.index import Index
from rejoinder.ranker import Precision
from rejoinder.schema import Example, examples
from rejoinder.significance import Comparison
from rejoinder.tasks.machine import fast_precision

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


def evaluate(
    model: str | Path | Scorer,
    data: str | Path | Iterable[Example],
    *,
    candidates: str = "",
    limit: int | None = None,
    sample: int | None = None,
    persona: bool = True,
    seed: int = 0,
    errors: Path | None = None,
    skip_bad: Say | None = None,
    device: str = "cpu",
    precision: Precision | None = None,
    how: Decoding | None = None,
    dictionary: str | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a model (a name, a folder, `bm25`, `untuned`, or a model itself) on dialogues.

    candidates: `inline` (each example's own), `re-drawn:N` (its reply among N - 1 of other
    examples), or a file; without it inline ones if the data has them, else `re-drawn:20`. limit:
    the first examples to use; sample: so many drawn by `seed` instead. errors: a JSONL file for the
    worst misses. skip_bad: is told of every bad line, which is left out; without it the first one
    is an error. precision: of a model given by name; bf16 where the processor has it, which moves
    no figure by more than chance does. how: a generator writes; by `seed` and the defaults if not
    given. dictionary: ParlAI's, a file of words and counts, for its perplexity of words; those of
    the data if not given.
    """
    if errors:
        _check_errors_file(errors, data, candidates)
    model = _found(model)  # now, not after an hour of reading
    counts = perplexity.read_dictionary(Path(dictionary)) if dictionary else None
    chosen = prepare(data, candidates, limit, seed, skip_bad)
    if sample:
        chosen = sampled(chosen, sample, seed)
    if not persona:
        chosen = evaluation.without_persona(chosen)
    ready = scorer(model, device, precision)
    writes = isinstance(ready, TextGenerator)
    if (how or dictionary) and not writes:
        raise ConfigError(
            f"{model} writes nothing, so there is neither a way to write nor a dictionary to set; "
            "leave those options out, or name a generator"
        )
    judged, seconds = evaluation.timed(ready, chosen, progress)
    if errors:
        write_misses(judged, errors)
    report = evaluation.summarise(judged, seconds)
    if not isinstance(ready, TextGenerator):
        return report
    return written.evaluate(
        ready,
        chosen,
        report,
        how or Decoding(seed=seed),
        encoder=baselines.untuned().to(device) if persona else None,
        counts=counts,
        progress=progress,
    )


def compare(
    a: str | Path | Scorer,
    b: str | Path | Scorer,
    data: str | Path | Iterable[Example],
    *,
    candidates: str = "",
    limit: int | None = None,
    persona: bool = True,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Comparison]:
    """Is B better than A? Both ranked the same candidates: -> a comparison for hits@1 and for MRR.

    Options are those of `evaluate`. The intervals draw whole dialogues, whose examples are alike.
    """
    models = [_found(a), _found(b)]  # now, not after the first of them was measured
    chosen = prepare(data, candidates, limit, seed)
    if not persona:
        chosen = evaluation.without_persona(chosen)
    groups = evaluation.dialogue_numbers(chosen)
    of_a, of_b = (
        [one.rank for one in evaluation.judge(scorer(model, device), chosen, progress)]
        for model in models
    )

    def compared(value: Callable[[int], float]) -> Comparison:
        return significance.compare(
            [value(rank) for rank in of_a], [value(rank) for rank in of_b], groups, seed
        )

    return {"hits@1": compared(lambda rank: float(rank == 1)), "mrr": compared(lambda r: 1 / r)}


def sampled(chosen: list[Example], size: int, seed: int = 0) -> list[Example]:
    """So many examples drawn by seed, in the order of the data; all if there are no more."""
    if size >= len(chosen):
        return chosen
    drawn = random.Random(seed).sample(range(len(chosen)), size)
    return [chosen[i] for i in sorted(drawn)]


def _found(model: str | Path | Scorer) -> str | Path | Scorer:
    """A model's folder, where it is one that has a folder."""
    if isinstance(model, (str, Path)) and model not in baselines.BASELINES:
        return zoo.find(model)
    return model


def scorer(
    model: str | Path | Scorer, device: str = "cpu", precision: Precision | None = None
) -> Scorer:
    """A model to measure, by name; one that is given already is taken as it is."""
    if model == "bm25":
        return baselines.BM25()
    if not isinstance(model, (str, Path)):
        return model
    ranker = baselines.untuned() if model == "untuned" else zoo.load(model)
    ranker.to(device)
    return ranker.halved() if (precision or fast_precision()) == "bf16" else ranker


def prepare(
    data: str | Path | Iterable[Example],
    wanted: str,
    limit: int | None,
    seed: int = 0,
    skip_bad: Say | None = None,
) -> list[Example]:
    """The first `limit` examples with the candidates that are wanted.

    Where nothing is, an example keeps its own, and 20 are drawn for those that have none.
    """
    found = examples_of(data, skip_bad) if isinstance(data, (str, Path)) else list(data)
    if not found:
        raise DataError("no examples, so there is nothing to evaluate")
    redrawn = re.fullmatch(r"re-drawn:(\d+)", wanted or "re-drawn:20")
    if wanted == "inline" or (not wanted and all(one.candidates for one in found[:limit])):
        return found[:limit]
    if not redrawn:
        if not Path(wanted).is_file():
            raise ConfigError(
                f"--candidates is {wanted!r}; expected inline, re-drawn:N, or an existing file"
            )
        listed = tuple(sources_of.collect([wanted]).texts)
        return [Example(one.context, one.replies, listed) for one in found[:limit]]
    try:
        drawn = evaluation.redraw(found, int(redrawn[1]), seed)
    except DataError as error:
        raise DataError(
            f"{data if isinstance(data, (str, Path)) else 'data'}: {error}; give --candidates "
            "re-drawn:N with a smaller N, or a file of candidates"
        ) from None
    kept = [
        one if one.candidates and not wanted else new for one, new in zip(found, drawn, strict=True)
    ]
    return kept[:limit]


def examples_of(data: str | Path, skip_bad: Say | None = None) -> list[Example]:
    """All examples of a file; DataError if there are none."""
    bad = (lambda error: skip_bad(f"left out: {error}")) if skip_bad else None
    found = list(examples(read(data, bad=bad)))
    if not found:
        raise DataError(
            f"{data}: no assistant message in it, so there is no example to measure with; expected "
            "dialogues in which the assistant says something"
        )
    return found


def _check_errors_file(file: Path, data: str | Path | Iterable[Example], candidates: str) -> None:
    """Raise ConfigError now, not after the evaluation, if `file` cannot be written or is input."""
    if file.is_dir():
        raise ConfigError(f"--errors {file}: is a folder; expected the name of a file to write")
    read_too = [Path(one) for one in (data, candidates) if one and isinstance(one, (str, Path))]
    if file.exists() and any(one.exists() and one.samefile(file) for one in read_too):
        raise ConfigError(
            f"--errors {file}: is read in this evaluation and would be lost; choose another name"
        )


def write_misses(judged: Sequence[Judged], file: Path, count: int = 100) -> None:
    """The examples whose right reply came last, worst first, one JSON object a line."""
    worst = sorted(judged, key=lambda one: -one.rank)[:count]
    rows = [
        {
            **to_json(one.example.context),
            "reply": one.example.reply,
            "rank": one.rank,
            "said": one.top,
            "score_of_said": one.score,
        }
        for one in worst
        if one.rank > 1
    ]
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def evaluate_corpus(
    model: str | Path,
    data: str | Path,
    index: Path,
    *,
    limit: int | None = None,
    persona: bool = True,
    skip_bad: Say | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, float]:
    """Recall at 1, 10 and 100 of the right reply among all candidates of an index.

    Right replies that the index lacks are added to it in memory first, and counted.
    """
    if model in baselines.BASELINES:
        raise ConfigError(
            f"{model} has no index, so --full-corpus cannot be measured with it; name a bi- or "
            "poly-encoder"
        )
    folder = zoo.find(model)
    chosen = examples_of(data, skip_bad)[:limit]
    ranker = zoo.load_ranker(folder, device)
    pool = Index.load(index, ranker)
    if not persona:
        chosen = evaluation.without_persona(chosen)
    pool.vectors = pool.vectors.float()  # products in bf16 would make ties of what is none
    before = len(pool.texts)
    pool.add([reply for example in chosen for reply in example.replies])
    numbers = {text: i for i, text in enumerate(pool.texts)}
    ranks = []
    for done, example in enumerate(chosen, 1):
        scores = pool.scores(ranker.encode_contexts([example.context]))
        right = [numbers[reply] for reply in example.replies]
        ranks.append(evaluation.rank_among(scores, right))
        if progress:
            progress(done, len(chosen))
    return {
        **{f"recall@{k}": sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 10, 100)},
        "mrr": sum(1 / rank for rank in ranks) / len(ranks),
        "examples": len(ranks),
        "candidates": len(pool.texts),
        "added": len(pool.texts) - before,
    }
