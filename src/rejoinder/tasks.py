"""What each command does, as functions: files and names in, results out."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from rejoinder import baselines, calibration, checkpoint, evaluation, zoo
from rejoinder import candidates as sources_of
from rejoinder.agents import RetrieveAgent
from rejoinder.config import ModelConfig, TrainConfig, from_mapping
from rejoinder.data import parse_dialogue, read
from rejoinder.data.files import numbered_lines
from rejoinder.data.messages import texts as as_texts
from rejoinder.data.messages import to_json
from rejoinder.diversity import diverse, vector_likeness, word_likeness
from rejoinder.errors import ConfigError, DataError, RejoinderError
from rejoinder.evaluation import Judged, Report, Scorer
from rejoinder.files import write_text
from rejoinder.index import Index
from rejoinder.ranker import Precision, TextRanker
from rejoinder.schema import Dialogue, Example, Message, examples
from rejoinder.text import TextFormat

Progress = Callable[[int, int], None]
Say = Callable[[str], None]
STDIN = "standard input"  # its name in messages


def evaluate(
    model: str | Path | Scorer,
    data: str | Path | Iterable[Example],
    *,
    candidates: str = "",
    limit: int | None = None,
    persona: bool = True,
    seed: int = 0,
    errors: Path | None = None,
    skip_bad: Say | None = None,
    device: str = "cpu",
    precision: Precision | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a model (a name, a folder, `bm25`, `untuned`, or a ranker) on dialogues.

    candidates: `inline` (each example's own), `re-drawn:N` (its reply among N - 1 of other
    examples), or a file; without it inline ones if the data has them, else `re-drawn:20`. limit:
    the first examples to use. errors: a JSONL file for the worst misses. skip_bad: is told of every
    bad line, which is left out; without it the first one is an error. precision: of a model
    given by name; bf16 where the processor has it, which moves no figure by more than chance does.
    """
    if errors:
        _check_errors_file(errors, data, candidates)
    if isinstance(model, (str, Path)) and model not in baselines.BASELINES:
        model = zoo.find(model)  # now, not after an hour of reading
    chosen = prepare(data, candidates, limit, seed, skip_bad)
    if not persona:
        chosen = evaluation.without_persona(chosen)
    judged, seconds = evaluation.timed(scorer(model, device, precision), chosen, progress)
    if errors:
        write_misses(judged, errors)
    return evaluation.summarise(judged, seconds)


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
    """The first `limit` examples with the candidates that are wanted."""
    found = _examples_of(data, skip_bad) if isinstance(data, (str, Path)) else list(data)
    if not found:
        raise DataError("no examples, so there is nothing to evaluate")
    if not wanted:
        wanted = "inline" if all(example.candidates for example in found) else "re-drawn:20"
    redrawn = re.fullmatch(r"re-drawn:(\d+)", wanted)
    if redrawn:
        try:
            found = evaluation.redraw(found, int(redrawn[1]), seed)
        except DataError as error:
            raise DataError(
                f"{data if isinstance(data, (str, Path)) else 'data'}: {error}; give --candidates "
                "re-drawn:N with a smaller N, or a file of candidates"
            ) from None
    elif wanted != "inline":
        if not Path(wanted).is_file():
            raise ConfigError(
                f"--candidates is {wanted!r}; expected inline, re-drawn:N, or an existing file"
            )
        listed = tuple(_collect([wanted]))
        found = [Example(one.context, one.replies, listed) for one in found]
    return found[:limit]


def _examples_of(data: str | Path, skip_bad: Say | None = None) -> list[Example]:
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
            "score_of_said": max(one.scores),
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
    chosen = _examples_of(data, skip_bad)[:limit]
    ranker = zoo.load(folder, device)
    pool = Index.load(index, ranker)
    if not persona:
        chosen = evaluation.without_persona(chosen)
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


def train(
    kind: str,
    data: str | Path | Sequence[str | Path],
    *,
    dev: str | Path | None = None,
    out: str | Path | None = None,
    init_model: str | Path | None = None,
    skip_bad: bool = False,
    device: str = "cpu",
    command: str = "",
    tensorboard: bool = False,
    say: Say = lambda _: None,
    **settings: Any,
) -> Path:
    """Train a `bi`, `poly` or `cross` ranker; returns the run's folder, which loads as a model.

    With `skip_bad` a bad line is told to `say` and left out. `settings` are fields of ModelConfig,
    TrainConfig and TextFormat by name, such as `epochs=3`.
    """
    from rejoinder.training import start

    parts = split_settings({"kind": kind, **settings})
    files = [data] if isinstance(data, (str, Path)) else data
    folder = Path(out) if out else default_out(kind)
    start.train(
        [Path(file) for file in files],
        Path(dev) if dev else None,
        folder,
        model=parts[0],
        settings=parts[1],
        style=parts[2],
        init_model=zoo.find(init_model) if init_model else None,
        given=settings.keys(),
        skip_bad=skip_bad,
        device=device,
        command=command or f"rejoinder.train({kind!r}, ...)",
        tensorboard=tensorboard,
        say=say,
    )
    return folder


def split_settings(values: dict[str, Any]) -> tuple[ModelConfig, TrainConfig, TextFormat]:
    """Each setting to the class that has it; an unknown one is an error with the nearest name."""
    kinds = (ModelConfig, TrainConfig, TextFormat)
    known = {field.name: kind for kind in kinds for field in fields(kind)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"unknown setting {name!r}; {hint}")

    def part(kind: type[Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if known[name] is kind}

    return (
        from_mapping(ModelConfig, part(ModelConfig), "settings"),
        from_mapping(TrainConfig, part(TrainConfig), "settings"),
        from_mapping(TextFormat, part(TextFormat), "settings"),
    )


def default_out(name: str) -> Path:
    """A new run's folder: runs/<time>_<name>."""
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}_{name}"


def build_index(
    sources: Sequence[str | Path],
    model: str | Path,
    out: Path,
    *,
    block: Path | None = None,
    precision: Precision | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[Index, sources_of.Collected]:
    """Collect candidates, encode them, save the index in OUT."""
    collected = sources_of.collect(sources, block)
    ranker = zoo.load(model, device)
    index = Index.build(
        ranker,
        collected.texts,
        precision=precision or fast_precision(),
        out=out,
        source=", ".join(Path(source).name for source in sources),
        progress=progress,
    )
    return index, collected


def fast_precision() -> Precision:
    """bf16 where the processor multiplies it in hardware, else fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "fp32"
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def cached_index(
    sources: Sequence[str | Path],
    ranker: TextRanker,
    *,
    progress: Progress | None = None,
) -> Index:
    """The index of some sources from the cache folder, built and kept there the first time."""
    key = sources_of.source_key(sources)
    folder = sources_of.cache_folder() / "indexes" / f"{ranker.fingerprint[:16]}-{key}"
    if (folder / "index.json").is_file():
        with suppress(RejoinderError):  # damaged: it is only a cache, so it is built anew
            return Index.load(folder, ranker)
    texts = _collect(sources)
    name = ", ".join(Path(source).name for source in sources)

    def build(out: Path | None) -> Index:
        return Index.build(
            ranker, texts, precision=fast_precision(), out=out, source=name, progress=progress
        )

    try:
        return build(folder)
    except RejoinderError:  # no room for it there: it will do in memory
        return build(None)


def make_agent(
    model: str | Path = zoo.DEFAULT,
    *,
    candidates: str | Path | None = None,
    index: Path | None = None,
    rerank: str | Path | None = None,
    max_history: int = 0,
    repeat: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> RetrieveAgent:
    """An agent that answers with candidates of a file, a known set (`sample` if none), or an index.

    Raises ConfigError for both of them, or a cross-encoder as the model.
    """
    if candidates and index:
        raise ConfigError("--candidates and --index exclude each other; give one of them")
    ranker = zoo.load(model, device)
    if ranker.is_cross:
        raise ConfigError(
            f"{model} is a cross-encoder: too slow to search with; use --model persona-poly "
            f"--rerank {model}"
        )
    reranker = zoo.load(rerank, device) if rerank else None
    found = (
        Index.load(index, ranker)
        if index
        else cached_index([candidates or "sample"], ranker, progress=progress)
    )
    return RetrieveAgent(
        found,
        ranker,
        reranker=reranker,
        max_history=max_history,
        repeat=repeat,
    )


def rank_lines(
    ranker: TextRanker, lines: Iterable[str], where: str, *, top: int = 0, spread: bool = False
) -> Iterator[dict[str, Any]]:
    """One answer for each JSON line of `persona`, `messages` and `candidates`.

    scores: raw fp32, in the order given. ranking: candidate numbers, best first, at most `top`;
    with `spread` each unlike those before it.
    """
    where = STDIN if where == "-" else where
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            asked = json.loads(line)
            dialogue = parse_dialogue(asked)
            listed = as_texts(asked.get("candidates"), "candidates")
            if not listed:
                raise DataError("candidates: expected a list of at least one text, got none")
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where}:{number}: not JSON ({error}): {line[:60]!r}; expected one object a line "
                "with messages and candidates"
            ) from None
        except DataError as error:
            raise DataError(f"{where}:{number}: {error}") from None
        ranking = ranker.rank(dialogue, listed)
        order = list(ranking.order)
        if spread:
            order = _diverse(ranker, listed, ranking.scores, top or len(listed))
        yield {
            "scores": list(ranking.scores),
            "ranking": order[: top or None],
            "confidence": ranking.confidence,
        }


def _diverse(
    ranker: TextRanker, listed: Sequence[str], scores: Sequence[float], count: int
) -> list[int]:
    import torch

    likeness = (
        word_likeness(listed)
        if ranker.is_cross
        else vector_likeness(ranker.encode_candidates(listed))
    )
    return diverse(torch.tensor(scores), likeness, count)


def _collect(sources: Sequence[str | Path]) -> list[str]:
    return sources_of.collect(sources).texts


def calibrate(
    model: str | Path,
    data: str | Path,
    *,
    limit: int | None = 1000,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Fit a checkpoint's confidence and store it; returns how well it says what is right."""
    folder = zoo.find(model)
    held = _examples_of(data)
    ranker = checkpoint.load(folder)
    ranker.precision = fast_precision()
    report = calibration.fit_and_report(ranker, held[:limit], progress=progress)
    checkpoint.store_confidence(folder, report.confidence)
    return report.as_json()


def search(
    folder: Path, text: str, model: str, persona: tuple[str, ...] = (), k: int = 10
) -> list[dict[str, Any]]:
    """The best candidates of a saved index for one message."""
    index = Index.load(folder, zoo.load(model))
    found = index.search(Dialogue((Message("user", text),), persona), k)
    return [
        {"text": index.texts[number], "score": score}
        for number, score in zip(found.numbers, found.scores, strict=True)
    ]


@contextmanager
def lines_of(file: str) -> Iterator[Iterable[str]]:
    """Lines of a file, or of standard input for `-`."""
    if file == "-":
        yield _typed_lines()
    else:
        yield (line for _, line in numbered_lines(Path(file)))


def _typed_lines() -> Iterator[str]:
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{STDIN}:{number}: byte 0x{raw[error.start]:02x} is not UTF-8; expected one JSON "
                "object a line. Convert the text first (Latin-1: iconv -f cp1252 -t utf-8)"
            ) from None
        yield line.removeprefix("\ufeff") if number == 1 else line
