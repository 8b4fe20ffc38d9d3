"""The loop: batches in, best checkpoint out, resumable at any time.

OUT holds `best/` (the checkpoint with the highest hits@1 on the development set), `last/` (the
state to go on from), `log.jsonl` (a line for every report), and, with the extra `tensorboard`,
curves.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from rejoinder import checkpoint
from rejoinder.config import TrainConfig, to_mapping
from rejoinder.errors import ConfigError, RejoinderError
from rejoinder.evaluation import Report, evaluate
from rejoinder.files import check_replaceable, recover, write_text
from rejoinder.memory import keep_freed_memory, peak_memory
from rejoinder.ranker import TextRanker
from rejoinder.schema import Example
from rejoinder.training.batches import Batch, Source, listed_batch, shared_batch, source
from rejoinder.training.chunks import backward
from rejoinder.training.resume import STATE_FILES, Position, load_state, save_state
from rejoinder.training.steps import Rate, make_optimizer

LEAST_BUDGET = 256  # tokens: less does not hold one pair of context and reply


@dataclass
class Run:
    """One training under way."""

    ranker: TextRanker
    data: Source
    dev: Sequence[Example]
    config: TrainConfig
    out: Path
    card: Callable[[Report | None], str]
    origin: dict[str, Any]  # command, data, versions: saved with the checkpoint
    stream: TextIO | None = field(default_factory=lambda: sys.stderr)
    writer: Any = None  # a TensorBoard SummaryWriter
    position: Position = field(default_factory=Position)
    budget: int = 0  # tokens encoded at once; less than the settings say where memory ran out
    split: bool = False  # whether it was said that batches are encoded in parts
    order: dict[int, list[list[int]]] = field(default_factory=dict)  # batches of the running epoch

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.max_steps or self.data.steps_in(self.config.epochs)


def train(
    ranker: TextRanker,
    examples: Sequence[Example],
    dev: Sequence[Example],
    config: TrainConfig,
    out: Path,
    *,
    card: Callable[[Report | None], str] = lambda _: "",
    origin: dict[str, Any] | None = None,
    writer: Any = None,
) -> Report | None:
    """Train until the steps are done; go on where an earlier run in `out` stopped.

    Returns the report of the best checkpoint on `dev` (None without dev examples). Raises
    ConfigError if `out` holds a run with other settings.
    """
    if not examples:
        raise ConfigError("no examples to train on: the data has no assistant message")
    data = source(examples, ranker.tokens, config)
    held = spread(dev, config.eval_limit or len(dev))
    run = Run(ranker, data, held, config, out, card, origin or {}, writer=writer)
    return _go(run)


def spread(dev: Sequence[Example], limit: int) -> Sequence[Example]:
    """At most `limit` examples, evenly over all: neighbours come of one dialogue and are alike."""
    count = min(limit, len(dev))
    return [dev[i * len(dev) // count] for i in range(count)]


def _go(run: Run) -> Report | None:
    keep_freed_memory()
    run.budget = run.config.max_tokens
    module = run.ranker.module
    optimizer = make_optimizer((p for p in module.parameters() if p.requires_grad), run.config)
    rate = Rate(run.config, run.steps)
    _claim(run)
    if (run.out / "last").is_dir():
        run.position = load_state(run.out / "last", module, optimizer)
        if run.position.rate:
            rate.restore(run.position.rate)
        _say(run, f"resumed at step {run.position.step} of {run.steps}\n")
    try:
        best = _until_done(run, optimizer, rate)
    finally:
        _say(run, "\n")  # ends the line of progress, also where an error follows
    if not run.dev:
        _save_best(run, None)
    return best


def _until_done(run: Run, optimizer: torch.optim.Optimizer, rate: Rate) -> Report | None:
    position, config = run.position, run.config
    best: Report | None = None
    losses: list[float] = []
    started, before = time.perf_counter(), position.seconds
    while position.step < run.steps and not _stopped(run):
        losses.append(_step(run, optimizer, rate))
        position.step += 1
        position.seconds = before + time.perf_counter() - started
        last = position.step == run.steps or _late(run)
        if position.step % config.log_every == 0 or last:
            _report_progress(run, losses, rate)
            losses = []
        if run.dev and (last or _validation_due(run)):
            best = _validate(run, rate) or best
        if position.step % config.save_every == 0 or last or _stopped(run):
            position.rate = rate.state()
            save_state(run.out / "last", run.ranker.module, optimizer, position)
    if _late(run):
        minutes = f"{config.max_time:g} minutes are over"
        _say(run, f"{minutes}; the same command with a larger --max-time goes on\n")
    elif _stopped(run):
        _say(run, f"no progress in {position.waited} validations, so this is the end\n")
    return best


def _stopped(run: Run) -> bool:
    """Whether there is no time left, or no progress."""
    waited = bool(run.config.stop_after) and run.position.waited >= run.config.stop_after
    return waited or _late(run)


def _late(run: Run) -> bool:
    return bool(run.config.max_time) and run.position.seconds > 60 * run.config.max_time


def _validation_due(run: Run) -> bool:
    """Whether one of the three clocks has struck: steps, epochs, or minutes; the epoch if none."""
    config, step = run.config, run.position.step
    every = [config.eval_every] if config.eval_every else []
    if config.eval_epochs or not (every or config.eval_minutes):
        every.append(run.data.steps_in(config.eval_epochs or 1.0))
    minutes = (run.position.seconds - run.position.validated) / 60
    late = bool(config.eval_minutes) and minutes >= config.eval_minutes
    return late or any(step % count == 0 for count in every)


def _step(run: Run, optimizer: torch.optim.Optimizer, rate: Rate) -> float:
    step = run.position.step
    run.ranker.module.train()
    for group in optimizer.param_groups:
        group["lr"] = rate.at(step) * group["factor"]
    while True:
        optimizer.zero_grad(set_to_none=True)
        try:
            loss = sum(_gradients(run, step))
            break
        except torch.OutOfMemoryError:
            if run.budget <= LEAST_BUDGET:
                raise
            run.budget //= 2
            torch.cuda.empty_cache()
            _say(run, f"\nout of memory: from here on {run.budget} tokens are encoded at once\n")
    if not math.isfinite(loss):
        raise RejoinderError(
            f"step {step}: the loss is {loss}; lower --lr or train with --precision fp32"
        )
    if run.config.clip:
        nn.utils.clip_grad_norm_(run.ranker.module.parameters(), run.config.clip)
    optimizer.step()
    return loss


def _gradients(run: Run, step: int) -> Iterator[float]:
    """Sum up the gradients of the step's batches; -> each one's part of the mean loss."""
    make = listed_batch if run.ranker.is_cross else shared_batch
    each = run.config.update_every
    parts = [_numbers(run, step * each + i) for i in range(each)]
    rows = sum(map(len, parts))
    for i, numbers in enumerate(parts):
        batch = _to_device(make(run.data, numbers, step * each + i), run.ranker.device)
        _say_if_split(run, batch)
        seed = run.config.seed * 1_000_003 + step * each + i
        share = len(numbers) / rows
        yield backward(run.ranker.module, batch, run.config.precision, run.budget, seed, share)


def _say_if_split(run: Run, batch: Batch) -> None:
    size = int(batch.context[1].sum())
    if size <= run.budget or run.split:
        return
    run.split = True
    _say(
        run,
        f"a batch has {size} tokens of context, so it is encoded in parts of at most {run.budget} "
        "(max_tokens): less memory, the same gradients\n",
    )


def _numbers(run: Run, batch: int) -> list[int]:
    """The examples of a batch, counted from the start of the run."""
    epoch, place = divmod(batch, run.data.batches_per_epoch)
    if epoch not in run.order:
        run.order = {epoch: run.data.epoch(epoch)}
    return run.order[epoch][place]


def _to_device(batch: Batch, device: torch.device) -> Batch:
    def moved(side: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        ids, mask = side
        return ids.to(device), mask.to(device)

    context, candidates = moved(batch.context), moved(batch.candidates)
    return Batch(context, candidates, batch.gold.to(device), batch.real.to(device))


def _validate(run: Run, rate: Rate) -> Report | None:
    """Measure on dev; the report if it is the best so far, which is then saved."""
    run.ranker.module.eval()
    precision, run.ranker.precision = run.ranker.precision, run.config.precision
    report = evaluate(run.ranker, run.dev)
    run.ranker.precision = precision
    rate.validated(1 - report.mrr)
    run.position.validated = run.position.seconds
    _log(run, {"step": run.position.step, "dev": report.as_json()})
    if run.writer:
        run.writer.add_scalar("dev/hits@1", report.hits_at_1, run.position.step)
        run.writer.add_scalar("dev/mrr", report.mrr, run.position.step)
    value = float(report.as_json()[run.config.metric])
    value = -value if run.config.metric == "mean_rank" else value  # the lower the better
    if run.position.best is not None and value <= run.position.best:
        run.position.waited += 1
        return None
    run.position.best, run.position.waited = value, 0
    _save_best(run, report)
    return report


def _save_best(run: Run, report: Report | None) -> None:
    training = {
        **run.origin,
        "step": run.position.step,
        "minutes": round(run.position.seconds / 60, 1),
        "scores": report.as_json() if report else None,
    }
    checkpoint.save(run.ranker, run.out / "best", card=run.card(report), training=training)


def _claim(run: Run) -> None:
    """Make OUT, or check that the run in it is this one."""
    if run.out.is_file():
        raise ConfigError(f"{run.out}: is a file; expected a new folder or that of a run as --out")
    settings = json.dumps(
        {
            "model": to_mapping(run.ranker.config),
            "train": to_mapping(run.config),
            "text": to_mapping(run.ranker.tokens.style),
            **{name: run.origin.get(name) for name in ("data", "dev", "init_model")},
        },
        indent=2,
    )
    file = run.out / "settings.json"
    if file.is_file():
        for part in ("best", "last"):
            recover(run.out / part)  # from a process that was killed while it saved
    if file.is_file() and _comparable(_read_settings(file)) != _comparable(json.loads(settings)):
        raise ConfigError(
            f"{run.out} holds a run with other settings ({file}); resume it with the same command, "
            "or choose another --out"
        )
    check_replaceable(run.out / "best", checkpoint.FILES)  # now, not at the first validation
    check_replaceable(run.out / "last", STATE_FILES)
    write_text(file, settings + "\n")


def _comparable(settings: object) -> object:
    """Settings without the limit of time, which changes no step and may be raised."""
    if isinstance(settings, dict) and isinstance(settings.get("train"), dict):
        return settings | {"train": settings["train"] | {"max_time": 0.0}}
    return settings


def _read_settings(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file}: not the settings of a run ({error}); expected a new folder or that of a run, "
            "so choose another --out"
        ) from None


def _report_progress(run: Run, losses: list[float], rate: Rate) -> None:
    position = run.position
    rows = run.config.batch_size * run.config.update_every
    done = position.step * rows
    speed = done / max(position.seconds, 1e-9)
    left = (run.steps - position.step) * rows / max(speed, 1e-9)
    mean = sum(losses) / len(losses)
    best = "no dev score yet" if position.best is None else f"best dev {abs(position.best):.3f}"
    _say(
        run,
        f"\rstep {position.step}/{run.steps}  loss {mean:.3f}  lr {rate.at(position.step - 1):.2e}"
        f"  {speed:.1f} examples/s  {left / 60:.0f} min left  {best}   ",
    )
    row = {
        "step": position.step,
        "of": run.steps,
        "loss": mean,
        "lr": rate.at(position.step - 1),
        "examples_per_second": speed,
        "seconds": position.seconds,
        "memory": peak_memory(),
    }
    if run.ranker.device.type == "cuda":
        row["gpu_memory"] = torch.cuda.max_memory_allocated(run.ranker.device)
    _log(run, row)
    if run.writer:
        run.writer.add_scalar("train/loss", mean, position.step)
        run.writer.add_scalar("train/lr", row["lr"], position.step)
        run.writer.add_scalar("train/examples_per_second", speed, position.step)


def _say(run: Run, text: str) -> None:
    if run.stream:  # None where it was closed from the start
        run.stream.write(text)
        run.stream.flush()


def _log(run: Run, row: dict[str, Any]) -> None:
    log = run.out / "log.jsonl"
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise RejoinderError(
            f"{log}: could not be written ({error.strerror or error}); free some space and run the "
            "same command again, which goes on from the last save"
        ) from error
