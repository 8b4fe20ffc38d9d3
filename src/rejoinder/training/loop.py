"""The loop: batches in, best checkpoint out, resumable at any time.

`folder` tells what OUT holds, `stepper` what a step is. Here is when to step, report, validate and
save, and with several processes that all of them do so at the same time.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import torch

from rejoinder import checkpoint, evaluation, generators
from rejoinder.config import TrainConfig
from rejoinder.errors import ConfigError
from rejoinder.evaluation import Report
from rejoinder.generator import TextGenerator
from rejoinder.memory import keep_freed_memory, peak_memory
from rejoinder.ranker import TextRanker
from rejoinder.runs import LOWER_IS_BETTER
from rejoinder.schema import Example
from rejoinder.sharded import put_together
from rejoinder.training import folder, hard
from rejoinder.training.processes import ALONE, Processes
from rejoinder.training.resume import Position, load_hard, load_state, save_state
from rejoinder.training.source import Listed, Source, steps_in
from rejoinder.training.stepper import Stepper
from rejoinder.training.writers import Writer


@dataclass
class Run:
    """One training under way."""

    ranker: TextRanker | TextGenerator
    data: Source
    dev: Sequence[Example]
    out: Path
    card: Callable[[Report | None], str]
    origin: dict[str, Any]  # command, data, versions: saved with the checkpoint
    writer: Writer | None = None
    processes: Processes = ALONE
    stream: TextIO | None = field(default_factory=lambda: sys.stderr)
    position: Position = field(default_factory=Position)

    @property
    def config(self) -> TrainConfig:
        return self.data.config

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.max_steps or steps_in(self.data, self.config.epochs)


def train(
    ranker: TextRanker | TextGenerator,
    data: Source,
    dev: Sequence[Example],
    out: Path,
    *,
    card: Callable[[Report | None], str] = lambda _: "",
    origin: dict[str, Any] | None = None,
    writer: Writer | None = None,
    processes: Processes = ALONE,
) -> Report | None:
    """Train until the steps are done; go on where an earlier run in `out` stopped.

    Returns the report of the best checkpoint on `dev` (None without dev examples). Raises
    ConfigError if `out` holds a run with other settings.
    """
    if not data.count:
        raise ConfigError("no examples to train on: the data has no assistant message")
    held = spread(dev, data.config.eval_limit or len(dev))
    return _go(Run(ranker, data, held, out, card, origin or {}, writer, processes))


def spread(dev: Sequence[Example], limit: int) -> Sequence[Example]:
    """At most `limit` examples, evenly over all: neighbours come of one dialogue and are alike."""
    count = min(limit, len(dev))
    return [dev[i * len(dev) // count] for i in range(count)]


def _go(run: Run) -> Report | None:
    keep_freed_memory()
    if run.processes.first:
        folder.claim(run.out, run.ranker, run.config, run.origin)
    run.processes.told(None)  # the others wait until the folder is theirs too
    stepper = Stepper(
        run.ranker, run.data, run.steps, say=lambda text: _say(run, text), processes=run.processes
    )
    if (run.out / "last").is_dir():
        run.position = load_state(run.out / "last", run.ranker.module, stepper.optimizer)
        stepper.restore(run.position)
        table = load_hard(run.out / "last")
        if isinstance(run.data, Listed) and table is not None:
            run.data.hard[:] = hard.from_tensor(table)
        _say(run, f"resumed at step {run.position.step} of {run.steps}\n")
    resumed = run.position.step
    try:
        best = _until_done(run, stepper)
    finally:
        _say(run, "\n")  # ends the line of progress, also where an error follows
    if not run.dev and (run.position.step > resumed or not (run.out / "best").is_dir()):
        _save_best(run, None)
    return best


def _until_done(run: Run, stepper: Stepper) -> Report | None:
    position, config = run.position, run.config
    best: Report | None = None
    losses: list[float] = []
    started, before = time.perf_counter(), position.seconds
    while position.step < run.steps and not _stopped(run):
        if config.mine_every and position.step and position.step % config.mine_every == 0:
            _mine(run)
        losses.append(stepper.step(position.step))
        position.step += 1
        position.seconds = run.processes.told(before + time.perf_counter() - started)
        last = position.step == run.steps or _late(run)
        if position.step % config.log_every == 0 or last:
            _report_progress(run, losses, stepper)
            losses = []
        if run.dev and (last or _validation_due(run)):
            best = _validate(run, stepper) or best
        if position.step % config.save_every == 0 or last or _stopped(run):
            _save_state(run, stepper)
    if _late(run):
        minutes = f"{config.max_time:g} minutes are over"
        _say(run, f"{minutes}; the same command with a larger --max-time goes on\n")
    elif _stopped(run):
        _say(run, f"no progress in {position.waited} validations, so this is the end\n")
    return best


def _mine(run: Run) -> None:
    assert isinstance(run.data, Listed)  # settings refuse it for a stream
    assert isinstance(run.ranker, TextRanker)
    with put_together(run.ranker.module):
        found = hard.search(run.data, run.ranker, run.processes)
    counts = found.as_json()
    _log(run, {"step": run.position.step, "mined": counts})
    _say(
        run,
        f"\nstep {run.position.step}: {counts['negatives']:.1f} hard negatives per example, "
        f"{counts['without']:.0f} examples without\n",
    )


def _save_state(run: Run, stepper: Stepper) -> None:
    stepper.remember(run.position)
    table = None
    if isinstance(run.data, Listed) and run.data.hard:
        table = hard.as_tensor(run.data.hard, run.config.mine_keep)
    save_state(
        run.out / "last",
        run.ranker.module,
        stepper.optimizer,
        run.position,
        hard=table,
        write=run.processes.first,
    )


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
        every.append(steps_in(run.data, config.eval_epochs or 1.0))
    minutes = (run.position.seconds - run.position.validated) / 60
    late = bool(config.eval_minutes) and minutes >= config.eval_minutes
    return late or any(step % count == 0 for count in every)


def _validate(run: Run, stepper: Stepper) -> Report | None:
    """Measure on dev; the report if it is the best so far, which is then saved."""
    report = _measured(run)
    counts = run.position.step == run.steps or _validation_due(run)  # not if time is up
    if counts:
        writes = run.config.metric == "perplexity" and report.perplexity is not None
        stepper.rate.validated(math.log(report.perplexity or 1) if writes else 1 - report.mrr)
    run.position.validated = run.position.seconds
    _log(run, {"step": run.position.step, "dev": report.as_json()})
    if run.writer:
        run.writer.add_scalar("dev/hits@1", report.hits_at_1, run.position.step)
        run.writer.add_scalar("dev/mrr", report.mrr, run.position.step)
        if report.perplexity is not None:
            run.writer.add_scalar("dev/perplexity", report.perplexity, run.position.step)
    value = float(report.as_json()[run.config.metric])
    value = -value if run.config.metric in LOWER_IS_BETTER else value
    if run.position.best is not None and value <= run.position.best:
        run.position.waited += counts
        return None
    run.position.best, run.position.waited = value, 0
    _save_best(run, report)
    return report


def _measured(run: Run) -> Report:
    """Each process ranks its share of the dev examples; the numbers are those of all of them."""
    ranker, own = run.ranker, run.dev[run.processes.own]
    ranker.module.eval()
    precision, ranker.precision = ranker.precision, run.config.precision
    ranker.most = run.config.eval_batch_size
    started = time.perf_counter()
    with put_together(ranker.module):
        judged = evaluation.judge(ranker, own) if own else []
        costs = _costs(ranker, own)
    every = run.processes.collect(judged)
    costs = run.processes.collect(costs)
    ranker.precision, ranker.most = precision, 0
    report = evaluation.summarise(every, run.processes.told(time.perf_counter() - started))
    if not costs:
        return report
    cost, tokens = (sum(values) for values in zip(*costs, strict=True))
    return replace(report, perplexity=math.exp(cost / tokens))


def _costs(model: TextRanker | TextGenerator, own: Sequence[Example]) -> list[tuple[float, int]]:
    """What the right replies cost to write, where the model can write."""
    if not isinstance(model, TextGenerator):
        return []
    return model.surprise([one.context for one in own], [one.reply for one in own])


def _save_best(run: Run, report: Report | None) -> None:
    training = {
        **run.origin,
        "step": run.position.step,
        "minutes": round(run.position.seconds / 60, 1),
        "scores": report.as_json() if report else None,
    }
    card, write = run.card(report), run.processes.first
    if isinstance(run.ranker, TextGenerator):
        generators.save(run.ranker, run.out / "best", card=card, training=training, write=write)
    else:
        checkpoint.save(run.ranker, run.out / "best", card=card, training=training, write=write)


def _report_progress(run: Run, losses: list[float], stepper: Stepper) -> None:
    position = run.position
    rate = stepper.rate.at(position.step - 1)
    rows = run.config.batch_size * run.config.update_every
    done = position.step * rows
    speed = done / max(position.seconds, 1e-9)
    left = (run.steps - position.step) * rows / max(speed, 1e-9)
    mean = sum(losses) / len(losses)
    best = "no dev score yet" if position.best is None else f"best dev {abs(position.best):.3f}"
    _say(
        run,
        f"\rstep {position.step}/{run.steps}  loss {mean:.3f}  lr {rate:.2e}"
        f"  {speed:.1f} examples/s  {left / 60:.0f} min left  {best}   ",
    )
    row = {
        "step": position.step,
        "of": run.steps,
        "loss": mean,
        "lr": rate,
        "negatives": stepper.negatives,
        "examples_per_second": speed,
        "seconds": position.seconds,
        "memory": peak_memory(),
    }
    if run.ranker.device.type == "cuda":
        row["gpu_memory"] = torch.cuda.max_memory_allocated(run.ranker.device)
    _log(run, row)
    if run.writer:
        run.writer.add_scalar("train/loss", mean, position.step)
        run.writer.add_scalar("train/lr", rate, position.step)
        run.writer.add_scalar("train/examples_per_second", speed, position.step)


def _say(run: Run, text: str) -> None:
    if run.stream and run.processes.first:  # None where it was closed from the start
        run.stream.write(text)
        run.stream.flush()


def _log(run: Run, row: dict[str, Any]) -> None:
    if run.processes.first:
        folder.write_log(run.out, row)
