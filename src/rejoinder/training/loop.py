"""The loop: batches in, best checkpoint out, resumable at any time.

OUT holds `best/` (the checkpoint with the highest hits@1 on the development set), `last/` (the
state to go on from), `log.jsonl` (a line for every report), and, with the extra `tensorboard`,
curves.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from rejoinder import checkpoint
from rejoinder.config import TrainConfig, to_mapping
from rejoinder.errors import ConfigError, RejoinderError
from rejoinder.evaluation import Report, evaluate
from rejoinder.files import check_replaceable, write_text
from rejoinder.memory import keep_freed_memory
from rejoinder.ranker import TextRanker
from rejoinder.schema import Example
from rejoinder.training.batches import Batch, Source, listed_batch, shared_batch, source
from rejoinder.training.resume import STATE_FILES, Position, load_state, save_state
from rejoinder.training.steps import Rate, loss_of, make_optimizer

LOG_EVERY = 10  # optimizer steps between lines of progress


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
    order: dict[int, list[list[int]]] = field(default_factory=dict)  # batches of the running epoch

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        planned = round(self.config.epochs * self.data.steps_per_epoch)
        return self.config.max_steps or max(1, planned)


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
    module = run.ranker.module
    optimizer = make_optimizer((p for p in module.parameters() if p.requires_grad), run.config)
    rate = Rate(run.config, run.steps)
    _claim(run)
    if (run.out / "last").is_dir():
        run.position = load_state(run.out / "last", module, optimizer)
        if run.position.rate:
            rate.restore(run.position.rate)
        _say(run, f"resumed at step {run.position.step} of {run.steps}\n")
    best: Report | None = None
    validate_every = run.config.eval_every or run.data.steps_per_epoch
    losses: list[float] = []
    started, before = time.perf_counter(), run.position.seconds
    try:
        late = _late(run)
        while run.position.step < run.steps and not late:
            losses.append(_step(run, optimizer, rate))
            run.position.step += 1
            run.position.seconds = before + time.perf_counter() - started
            late = _late(run)
            last = run.position.step == run.steps or late
            if run.position.step % LOG_EVERY == 0 or last:
                _report_progress(run, losses, rate)
                losses = []
            if run.dev and (run.position.step % validate_every == 0 or last):
                best = _validate(run, rate) or best
            if run.position.step % run.config.save_every == 0 or last:
                run.position.rate = rate.state()
                save_state(run.out / "last", module, optimizer, run.position)
        if late:
            minutes = f"{run.config.max_time:g} minutes are over"
            _say(run, f"{minutes}; the same command with a larger --max-time goes on\n")
    finally:
        _say(run, "\n")  # ends the line of progress, also where an error follows
    if not run.dev:
        _save_best(run, None)
    return best


def _late(run: Run) -> bool:
    return bool(run.config.max_time) and run.position.seconds > 60 * run.config.max_time


def _step(run: Run, optimizer: torch.optim.Optimizer, rate: Rate) -> float:
    step, per_epoch = run.position.step, run.data.steps_per_epoch
    numbers = _epoch(run, step // per_epoch)[step % per_epoch]
    make = listed_batch if run.ranker.is_cross else shared_batch
    batch = _to_device(make(run.data, numbers, step), run.ranker.device)
    run.ranker.module.train()
    torch.manual_seed(run.config.seed * 1_000_003 + step)  # dropout of this step
    for group in optimizer.param_groups:
        group["lr"] = rate.at(step) * group["factor"]
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(run.ranker.module, batch, run.config.precision)
    if not torch.isfinite(loss):
        raise RejoinderError(
            f"step {step}: the loss is {loss.item()}; lower --lr or train with --precision fp32"
        )
    loss.backward()
    if run.config.clip:
        nn.utils.clip_grad_norm_(run.ranker.module.parameters(), run.config.clip)
    optimizer.step()
    return loss.item()


def _epoch(run: Run, number: int) -> list[list[int]]:
    if number not in run.order:
        run.order = {number: run.data.epoch(number)}
    return run.order[number]


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
    _log(run, {"step": run.position.step, "dev": report.as_json()})
    if run.writer:
        run.writer.add_scalar("dev/hits@1", report.hits_at_1, run.position.step)
    if report.hits_at_1 <= run.position.best:
        return None
    run.position.best = report.hits_at_1
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
    done = position.step * run.config.batch_size
    speed = done / max(position.seconds, 1e-9)
    left = (run.steps - position.step) * run.config.batch_size / max(speed, 1e-9)
    mean = sum(losses) / len(losses)
    best = f"best dev {position.best:.3f}" if position.best >= 0 else "no dev score yet"
    _say(
        run,
        f"\rstep {position.step}/{run.steps}  loss {mean:.3f}  lr {rate.at(position.step - 1):.2e}"
        f"  {speed:.1f} examples/s  {left / 60:.0f} min left  {best}   ",
    )
    _log(run, {"step": position.step, "loss": mean, "examples_per_second": speed})
    if run.writer:
        run.writer.add_scalar("train/loss", mean, position.step)
        run.writer.add_scalar("train/lr", rate.at(position.step - 1), position.step)


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
