"""From files and settings to a training run: what `rejoinder train` and `rejoinder.train` do."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rejoinder import __version__, calibration, candidates, checkpoint, evaluation
from rejoinder.calibration import Calibrated
from rejoinder.config import GeneratorConfig, ModelConfig, TrainConfig, to_mapping
from rejoinder.data import read
from rejoinder.errors import ConfigError, DataError
from rejoinder.evaluation import Report
from rejoinder.generator import TextGenerator
from rejoinder.models.build import towers
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example, examples
from rejoinder.sharded import shard
from rejoinder.text import TextFormat
from rejoinder.training import loop
from rejoinder.training.beginning import Model, begin, check_metric, name_of, resolve_lr
from rejoinder.training.card import card, store_calibration
from rejoinder.training.measured import Found, measure_run
from rejoinder.training.processes import ALONE, Processes
from rejoinder.training.report import write_report
from rejoinder.training.scratch import USUAL, Scratch, from_scratch, make_ready
from rejoinder.training.source import Rows, Source, listed
from rejoinder.training.stream import stream
from rejoinder.training.writers import Curves, open_writer

Say = Callable[[str], None]
Read = Callable[[Path], Iterator[Dialogue]]


def train(
    data: Sequence[Path],
    dev: Path | None,
    out: Path,
    *,
    model: ModelConfig | GeneratorConfig,
    settings: TrainConfig,
    style: TextFormat,
    scratch: Scratch = USUAL,
    init_model: Path | None = None,
    given: Collection[str] = (),
    skip_bad: bool = False,
    device: str = "cpu",
    command: str = "",
    curves: Collection[Curves] = (),
    report: bool = True,
    say: Say = lambda _: None,
    processes: Processes = ALONE,
) -> Report | None:
    """Train a model on dialogue files and leave its best checkpoint in OUT/best.

    With `init_model` the weights, base, adapters and text format of that checkpoint are taken up; a
    ConfigError says what it contradicts of the settings asked for, which are named in `given`.
    `scratch` is of a ranker on the base native. With `skip_bad` a bad line is said and left out.
    `curves` names where scalars go beside the log; with `report` the run's report is written at the
    end. Returns the best checkpoint's dev report, None without `dev` or where nothing better came.
    """
    reading = _reader(say if skip_bad else None)
    held = dev_examples(dev, reading(dev), settings) if dev else []
    dialogues = (dialogue for path in data for dialogue in reading(path))
    own = from_scratch(scratch, model, init_model, given)
    ready = make_ready(scratch, style, given, out, dialogues, say, processes) if own else None
    scaling = scratch.output_scaling if init_model else None
    made = begin(model, settings, style, init_model, given, say, ready, scaling).to(device)
    settings = resolve_lr(settings, made, given, scratch=own)
    check_metric(made, settings, held)
    source = _source(data, reading, made.tokens, settings)
    origin = {"command": command, **_origin(data, dev, init_model, source)}
    origin |= scratch.as_json() if own else {"output_scaling": scaling}
    _tell(source, held, out, say)
    _shard(made, settings, processes)
    writer = open_writer(curves, out, origin, say) if processes.first else None
    with closing(writer) if writer else nullcontext():
        best = loop.train(
            made,
            source,
            held,
            out,
            card=lambda found: card(made, out.name, origin, found),
            origin=origin,
            writer=writer,
            processes=processes,
        )
    if not processes.first:
        return best
    fitted = _calibrate(made, out, held, settings, device, say)
    if report:
        _report(out, held, dev, settings, fitted, init_model, device, say)
    return best


def _origin(
    data: Sequence[Path], dev: Path | None, init_model: Path | None, source: Source
) -> dict[str, Any]:
    """Where a model came from, which its checkpoint tells."""
    return {
        "data": [path.name for path in data],
        "dev": dev.name if dev else None,
        "examples": source.count,
        "init_model": name_of(init_model) if init_model else None,
        "settings": to_mapping(source.config),
        "rejoinder": __version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }


def _tell(source: Source, held: Sequence[Example], out: Path, say: Say) -> None:
    say(f"{source.count} examples to learn, {len(held)} to validate on")
    say(f"the run is in {out}; to resume it, repeat the command with --out {out}")


def _reader(say: Say | None) -> Read:
    """How files are read: with `say`, every bad line is said once and left out."""
    told: set[str] = set()

    def left_out(error: DataError) -> None:
        if say and str(error) not in told:  # a stream is read again and again
            told.add(str(error))
            say(f"left out: {error}")

    return lambda path: read(path, bad=left_out if say else None)


def _shard(made: Model, settings: TrainConfig, processes: Processes) -> None:
    if settings.parallel == "fsdp" and processes.count > 1:
        encoders = (tower.model for tower in towers(made.module).values())
        writes = isinstance(made, TextGenerator)  # by its word vectors, outside of the encoder
        shard(encoders, made.device.type, only_layers=writes)


def _source(
    files: Sequence[Path],
    reading: Read,
    tokens: Rows,
    settings: TrainConfig,
) -> Source:
    """The examples to learn; DataError, naming the files, if there are none."""

    def read_examples(path: Path) -> Iterator[Example]:
        return training_examples(
            reading(path), settings.both_sides, one_per_dialogue=settings.one_per_dialogue
        )

    pool = _fixed(settings)
    source: Source
    if settings.stream:
        source = stream(files, read_examples, tokens, settings, pool)
    else:
        found = [example for path in files for example in read_examples(path)]
        if settings.one_per_dialogue and not pool:
            pool = _replies(found)
        if settings.hints and found and not any(example.candidates for example in found):
            raise ConfigError(
                f"hints is {settings.hints}, but no message of the data has candidates to show; "
                "mine some first: rejoinder mine MODEL DATA --out FILE"
            )
        source = listed(found, tokens, settings, pool)
    if not source.count:
        raise DataError(
            f"{', '.join(map(str, files))}: no assistant message in it, so there is nothing to "
            "learn; expected dialogues in which the assistant says something"
        )
    return source


def _replies(found: Iterable[Example]) -> list[str]:
    """Everything that was said as a reply, also before the one that an example is of."""
    texts: dict[str, None] = {}
    for example in found:
        said = (m.content for m in example.context.messages if m.role == "assistant")
        texts.update(dict.fromkeys([*said, example.reply]))
    return list(texts)


def _fixed(settings: TrainConfig) -> list[str]:
    """The fixed set of candidates, if there is one."""
    if not settings.fixed_candidates:
        return []
    return list(candidates.collect([settings.fixed_candidates]).texts)


def _calibrate(
    made: Model,
    out: Path,
    held: Sequence[Example],
    settings: TrainConfig,
    device: str,
    say: Say,
) -> Calibrated | None:
    """Fit a ranker's best checkpoint's confidence on the development set and store it."""
    if not held or not isinstance(made, TextRanker):  # what a generator is sure of, see `agents`
        return None
    try:
        found = fit_confidence(out, held, settings, device)
    except DataError as error:
        say(f"no confidence was fitted: {error}")
        return None
    store_calibration(out, found)
    say(f"confidence fitted on {found.pools} pools, expected error {found.error:.3f}")
    return found


def fit_confidence(
    out: Path, held: Sequence[Example], settings: TrainConfig, device: str = "cpu"
) -> Calibrated:
    """Fit the confidence of a run's best checkpoint. DataError where there are too few replies."""
    ranker = checkpoint.load(out).to(device)
    ranker.precision = settings.precision
    limit = calibration.CROSS_LIMIT if ranker.is_cross else calibration.LIMIT
    return calibration.fit_and_report(ranker, held[:limit], others=held, seed=settings.seed)


def _report(
    out: Path,
    held: Sequence[Example],
    dev: Path | None,
    settings: TrainConfig,
    calibrated: Calibrated | None,
    init_model: Path | None,
    device: str,
    say: Say,
) -> None:
    """Write the report. The model is trained and saved: nothing here may end in an error."""
    found: Found = {}
    try:
        if dev:
            found = measure_run(
                out,
                held,
                dev.name,
                settings,
                calibrated=calibrated,
                init_model=init_model,
                device=device,
            )
    except Exception as error:
        found = {"failures": [f"measuring: {type(error).__name__}: {error}"]}
    try:
        say(f"the report is in {write_report(out, found)}")
    except Exception as error:
        say(f"no report was written ({error}); try again with: rejoinder report {out}")


def training_examples(
    dialogues: Iterable[Dialogue], both_sides: bool, *, one_per_dialogue: bool = False
) -> Iterator[Example]:
    """Every assistant message, and with `both_sides` every user message with the roles swapped.

    With `one_per_dialogue` the last one of each alone.
    """
    for dialogue in dialogues:
        for side in [dialogue, dialogue.swapped()] if both_sides else [dialogue]:
            found = list(examples([side]))
            yield from found[-1:] if one_per_dialogue else found


def dev_examples(path: Path, dialogues: Iterable[Dialogue], settings: TrainConfig) -> list[Example]:
    """The examples to validate on; 20 candidates are drawn where the file has none."""
    held = list(examples(dialogues))
    if not held:
        raise DataError(
            f"{path}: no assistant message in it, so there is nothing to validate on; expected "
            "dialogues in which the assistant says something, or train without --dev"
        )
    if not all(example.candidates for example in held):
        pool = len({example.reply for example in held})
        try:
            held = evaluation.redraw(held, min(20, pool), settings.seed)
        except DataError as error:
            raise DataError(f"{path}: {error}; give more dialogues as --dev, or none") from None
    return held
