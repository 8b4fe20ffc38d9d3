"""From files and settings to a training run: what `rejoinder train` and `rejoinder.train` do."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import torch

from rejoinder import __version__, calibration, candidates, checkpoint, evaluation
from rejoinder.calibration import Calibrated
from rejoinder.config import ModelConfig, TrainConfig, to_mapping
from rejoinder.data import read
from rejoinder.errors import ConfigError, DataError
from rejoinder.evaluation import Report
from rejoinder.models.build import towers
from rejoinder.ranker import TextRanker
from rejoinder.schema import Dialogue, Example, examples
from rejoinder.sharded import shard
from rejoinder.text import TextFormat
from rejoinder.tokens import Tokens
from rejoinder.training import loop
from rejoinder.training.card import card, store_calibration
from rejoinder.training.measured import Found, measure_run
from rejoinder.training.processes import ALONE, Processes
from rejoinder.training.report import write_report
from rejoinder.training.source import Source, listed
from rejoinder.training.stream import stream
from rejoinder.training.writers import Curves, open_writer

Say = Callable[[str], None]
Read = Callable[[Path], Iterator[Dialogue]]


def train(
    data: Sequence[Path],
    dev: Path | None,
    out: Path,
    *,
    model: ModelConfig,
    settings: TrainConfig,
    style: TextFormat,
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
    """Train a ranker on dialogue files and leave its best checkpoint in OUT/best.

    With `init_model` the weights, base, adapters and text format of that checkpoint are taken up; a
    ConfigError says what it contradicts of the settings asked for, which are named in `given`. With
    `skip_bad` a bad line is said and left out. `curves` names where scalars go beside the log; with
    `report` the run's report is written at the end. Returns the dev report of the best checkpoint,
    None without `dev` or where nothing better came.
    """
    reading = _reader(say if skip_bad else None)
    held = dev_examples(dev, reading(dev), settings) if dev else []
    ranker = _ranker(model, settings, style, init_model, given, say).to(device)
    _check_kind(ranker, settings)
    source = _source(data, reading, ranker.tokens, settings)
    origin = {
        "command": command,
        "data": [path.name for path in data],
        "dev": dev.name if dev else None,
        "examples": source.count,
        "init_model": _name(init_model) if init_model else None,
        "settings": to_mapping(settings),
        **_versions(),
    }
    _tell(source, held, out, say)
    _shard(ranker, settings, processes)
    writer = open_writer(curves, out, origin, say) if processes.first else None
    with closing(writer) if writer else nullcontext():
        best = loop.train(
            ranker,
            source,
            held,
            out,
            card=lambda found: card(ranker, out.name, origin, found),
            origin=origin,
            writer=writer,
            processes=processes,
        )
    if not processes.first:
        return best
    fitted = _calibrate(out, held, settings, device, say) if held else None
    if report:
        _report(out, held, dev, settings, fitted, init_model, device, say)
    return best


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


def _shard(ranker: TextRanker, settings: TrainConfig, processes: Processes) -> None:
    if settings.parallel == "fsdp" and processes.count > 1:
        encoders = (tower.model for tower in towers(ranker.module).values())
        shard(encoders, ranker.device.type)


def _check_kind(ranker: TextRanker, settings: TrainConfig) -> None:
    """Raise ConfigError for settings of the training that this ranker cannot follow."""
    if ranker.is_cross and settings.mine_every and not settings.mine_draw:
        raise ConfigError(
            "mine_every asks a cross-encoder for the scores of all replies of the data, which "
            "takes days; give --mine-draw 24 to search among so many random ones, or mine "
            "beforehand with rejoinder mine and a bi- or poly-encoder"
        )
    if settings.metric == "perplexity":
        raise ConfigError(
            f"metric is 'perplexity', but a {ranker.config.kind}-encoder writes nothing; take "
            "hits@1, mrr or another one of rankings"
        )
    if ranker.is_cross and settings.candidates == "batch-all":
        raise ConfigError(
            "candidates batch-all shares lists between rows, but a cross-encoder reads every pair "
            "anew; take batch-hard or inline"
        )
    if ranker.config.share_embeddings and settings.parallel == "fsdp":
        raise ConfigError("share_embeddings does not go with parallel fsdp; take ddp")


def _source(
    files: Sequence[Path],
    reading: Read,
    tokens: Tokens,
    settings: TrainConfig,
) -> Source:
    """The examples to learn; DataError, naming the files, if there are none."""

    def read_examples(path: Path) -> Iterator[Example]:
        return training_examples(reading(path), settings.both_sides)

    pool = _fixed(settings)
    source: Source
    if settings.stream:
        source = stream(files, read_examples, tokens, settings, pool)
    else:
        found = [example for path in files for example in read_examples(path)]
        source = listed(found, tokens, settings, pool)
    if not source.count:
        raise DataError(
            f"{', '.join(map(str, files))}: no assistant message in it, so there is nothing to "
            "learn; expected dialogues in which the assistant says something"
        )
    return source


def _fixed(settings: TrainConfig) -> list[str]:
    """The fixed set of candidates, if there is one."""
    if not settings.fixed_candidates:
        return []
    return list(candidates.collect([settings.fixed_candidates]).texts)


def _versions() -> dict[str, str]:
    return {
        "rejoinder": __version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }


def _ranker(
    model: ModelConfig,
    settings: TrainConfig,
    style: TextFormat,
    init_model: Path | None,
    given: Collection[str],
    say: Say,
) -> TextRanker:
    """What is to be trained: on the bare base, or from where another model stands."""
    torch.manual_seed(settings.seed)  # of fresh weights: codes, adapters, heads
    if init_model is None:
        ranker = checkpoint.fresh(model, style, trainable=True)
    else:
        ranker, fresh, left = checkpoint.initialise(init_model, model, given, style)
        if fresh:
            say(f"fresh weights, not in {init_model}: {', '.join(fresh)}")
        if left:
            say(f"left behind, no use for a {model.kind}: {', '.join(left)} of {init_model}")
        _check_inherited(init_model, ranker, model, style, given)
    if model.freeze_embeddings:
        freeze_embeddings(ranker)
    if model.freeze_apart:
        freeze_apart(ranker)
    return ranker


def _check_inherited(
    init_model: Path,
    ranker: TextRanker,
    model: ModelConfig,
    style: TextFormat,
    given: Collection[str],
) -> None:
    """Raise ConfigError if a setting that was asked for is not that of the model taken up."""
    pairs: list[tuple[str, object, object]] = [
        (name, model, ranker.config) for name in checkpoint.INHERITED
    ]
    marks = [field.name for field in fields(TextFormat) if field.name not in checkpoint.LENGTHS]
    pairs += [(name, style, ranker.tokens.style) for name in marks]
    for name, wanted, has in pairs:
        if name in given and getattr(wanted, name) != getattr(has, name):
            raise ConfigError(
                f"{name} is {getattr(wanted, name)!r}, but {_name(init_model)} was made with "
                f"{getattr(has, name)!r}, which goes with its weights; leave it out, or train "
                "without --init-model"
            )


def _name(model: Path) -> str:
    """What people call a model: its run's name, where the folder is the run's `best`."""
    return model.parent.name if model.name == "best" else model.name


def _calibrate(
    out: Path, held: Sequence[Example], settings: TrainConfig, device: str, say: Say
) -> Calibrated | None:
    """Fit the best checkpoint's confidence on the development set and store it."""
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


def training_examples(dialogues: Iterable[Dialogue], both_sides: bool) -> Iterator[Example]:
    """Every assistant message, and with `both_sides` every user message with the roles swapped."""
    for dialogue in dialogues:
        yield from examples([dialogue, dialogue.swapped()] if both_sides else [dialogue])


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


def freeze_embeddings(ranker: TextRanker) -> None:
    """Keep the word vectors as the base has them."""
    for tower in towers(ranker.module).values():
        tower.model.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]


def freeze_apart(ranker: TextRanker) -> None:
    """Keep the tower with which a cross-encoder reads the sides apart."""
    if ranker.config.kind != "cross" or ranker.config.towers == "shared":
        raise ConfigError(
            "freeze_apart keeps the tower with which a cross-encoder reads the sides apart, but "
            f"this is a {ranker.config.kind}-encoder with {ranker.config.towers} towers; take "
            "train cross --towers separate, or leave it out"
        )
    ranker.module.apart_encoder.requires_grad_(False)
