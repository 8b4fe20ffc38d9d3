"""The report of a run: report.md for people, report.json for programs, and PNG files beside them.

It is written from the run's folder (settings, log, origin) and from what was measured, which is
kept in report.json. What cannot be measured or drawn is named at the end; the rest stands.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rejoinder import drawing
from rejoinder.errors import DataError
from rejoinder.files import write_bytes, write_text
from rejoinder.reliability import Bin
from rejoinder.runs import Recorded, Row, changed, read_run
from rejoinder.training.card import KINDS, confidence_lines, nothing
from rejoinder.training.markdown import cell, code, table

MARKDOWN, VALUES = "report.md", "report.json"
MIB = 2**20


def write_report(folder: Path, found: Mapping[str, Any] | None = None) -> Path:
    """Write the report of a run; -> its Markdown file.

    `found` is what `measured.measure` gave, with `data` (the name of the file), `calibration` and
    `failures`; without it the figures of the last time are taken, if there are any.
    """
    run = read_run(folder)
    if found is None:
        found = kept(folder)
    else:
        text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_bytes(folder / VALUES, text.encode("utf-8", "replace"))  # half characters
    failures = list(found.get("failures", []))
    images = _draw(run, found, failures)
    try:
        lines = [*_of_run(run), *_curves(images), *_of_dev(run, found, images)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"{folder / VALUES}: not the figures of a report ({type(error).__name__}: {error}); "
            "delete it, or measure again with `rejoinder report RUN DATA`"
        ) from None
    lines += _failures(failures, run)
    write_text(folder / MARKDOWN, "\n".join(lines))
    return folder / MARKDOWN


def kept(folder: Path) -> dict[str, Any]:
    """What the last report measured; empty if there was none. Raises DataError if it is broken."""
    file = folder / VALUES
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        reason = f"a {type(found).__name__}, expected an object"
    except ValueError as error:
        reason = str(error)
    raise DataError(
        f"{file}: not the figures of a report ({reason}); delete it, or measure again with "
        "`rejoinder report RUN DATA`"
    )


def _draw(run: Recorded, found: Mapping[str, Any], failures: list[str]) -> dict[str, str]:
    """Write the images that there is something for: -> their files by what they show."""
    plans = dict(_plans(run, found))
    images = {}
    for name, draw in plans.items():
        file = f"{name.replace(' ', '-')}.png"
        try:
            write_bytes(run.folder / file, draw())
            images[name] = file
        except Exception as error:  # a drawing library that is broken, figures changed by hand
            failures.append(f"drawing of {name}: {type(error).__name__}: {error}")
    return images


def _plans(run: Recorded, found: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    losses = [(row["step"], row["loss"]) for row in run.steps]
    rates = [(row["step"], row["lr"]) for row in run.steps if "lr" in row]
    dev = {
        name: [(row["step"], row["dev"][key]) for row in run.validations if key in row["dev"]]
        for name, key in (("hits@1", "hits@1"), ("MRR", "mrr"))
    }
    surprise = [(row["step"], row["dev"].get("perplexity")) for row in run.validations]
    if losses:
        yield "loss", lambda: drawing.curves({"loss": losses}, "step", "loss")
    if rates:
        yield "learning rate", lambda: drawing.curves({"lr": rates}, "step", "learning rate")
    if run.validations:
        yield "dev", lambda: drawing.curves(dev, "step", "on the development set", marks=True)
    if surprise and all(value is not None for _, value in surprise):
        told = {"perplexity": surprise}
        yield "perplexity", lambda: drawing.curves(told, "step", "perplexity per token", marks=True)
    fitted = found.get("calibration")
    if fitted:
        yield "reliability", lambda: drawing.reliability([Bin(**one) for one in fitted["bins"]])
        yield "risk coverage", lambda: drawing.risk(fitted["risk"])


def _of_run(run: Recorded) -> list[str]:
    settings, origin = run.settings, run.origin
    planned = "?" if run.planned is None else run.planned
    state = "finished" if run.finished else "unfinished"
    rows = [
        ["kind", f"{KINDS.get(settings['kind'], settings['kind'])} on {code(settings['base'])}"],
        ["state", f"{state}: {run.done} of {planned} steps in {run.seconds / 60:.1f} minutes"],
        ["started from", cell(str(settings["init_model"] or nothing(settings["base"])))],
        ["data", _data(run)],
        ["negatives", _negatives(run)],
        ["throughput", _throughput(run)],
        ["memory at most", _memory(run.steps)],
    ]
    if origin:
        rows += [
            ["best checkpoint", f"step {origin.get('step')}"],
            ["command", code(str(origin.get("command")))],
            ["versions", cell(", ".join(_versions(origin)))],
        ]
    different = changed(settings)
    lines = [f"# Report of {cell(run.folder.name)}", "", *table(["", ""], rows), "## Settings", ""]
    if not different:
        return [*lines, "All as they are by default.", ""]
    told = [[f"`{name}`", code(json.dumps(value))] for name, value in different.items()]
    return [*lines, "Those that differ from the defaults.", "", *table(["setting", "value"], told)]


def _data(run: Recorded) -> str:
    names = run.settings["data"]
    told = ", ".join(names) if isinstance(names, list) else str(names)
    count = run.origin.get("examples")
    return cell(told) + (f", {count} examples" if count else "")


def _versions(origin: Row) -> list[str]:
    names = ("rejoinder", "torch", "transformers", "python")
    return [f"{name} {origin[name]}" for name in names if name in origin]


def _negatives(run: Recorded) -> str:
    """How many candidates a context is told from, as was counted in the first batch."""
    counted = next((row["negatives"] for row in run.steps if row.get("negatives")), None)
    return "not counted" if counted is None else f"{counted:.1f} for each example, on average"


def _throughput(run: Recorded) -> str:
    """Examples a second in all, and between two lines of the log without what validation took."""
    if not run.steps:
        return "not known"
    rows = run.settings["batch_size"] * run.settings["update_every"]
    lost = {row["step"]: row["dev"].get("seconds", 0.0) for row in run.validations}
    speeds = []
    for a, b in zip(run.steps, run.steps[1:], strict=False):
        spent = b.get("seconds", 0.0) - a.get("seconds", 0.0)
        spent -= sum(lost.get(step, 0.0) for step in range(a["step"], b["step"]))
        if spent > 0:
            speeds.append((b["step"] - a["step"]) * rows / spent)
    told = f"{run.steps[-1].get('examples_per_second', 0.0):.1f} examples/s, validations included"
    return told + (f"; while training {statistics.median(speeds):.1f}" if speeds else "")


def _memory(steps: Sequence[Row]) -> str:
    process = max((row.get("memory", 0) for row in steps), default=0)
    gpu = max((row.get("gpu_memory", 0) for row in steps), default=0)
    told = f"{process / MIB:,.0f} MiB of the process" if process else "not known"
    return told + (f", {gpu / MIB:,.0f} MiB of tensors on the GPU" if gpu else "")


def _curves(images: Mapping[str, str]) -> list[str]:
    drawn = [name for name in ("loss", "learning rate", "dev", "perplexity") if name in images]
    return ["## Curves", "", *(f"![{name}]({images[name]})\n" for name in drawn)] if drawn else []


def _of_dev(run: Recorded, found: Mapping[str, Any], images: Mapping[str, str]) -> list[str]:
    """All that was measured on the development set."""
    dev, lines = found.get("dev"), ["## Development set", ""]
    if not dev:
        why = "given to validate on" if not run.settings["dev"] else "measured yet"
        return [*lines, f"None was {why}, so there are no figures of quality.", ""]
    where = cell(str(found["data"]))
    if run.settings["dev"] and found["data"] != run.settings["dev"]:
        where += f" (training validated on another file, {cell(str(run.settings['dev']))})"
    scores = run.origin.get("scores") or {}
    rows = [
        ["hits@1", f"{dev['hits@1']:.3f}", _span(dev["hits@1_interval"])],
        *([f"hits@{k}", f"{dev[f'hits@{k}']:.3f}", ""] for k in (5, 10)),
        ["MRR", f"{dev['mrr']:.3f}", _span(dev["mrr_interval"])],
        ["mean rank", f"{dev['mean_rank']:.2f}", ""],
        ["F1", f"{dev['f1']:.3f}", ""],
    ]
    if found.get("written"):
        rows.pop()  # of what stands first, which nobody asked a generator for
    lines += [
        f"The best checkpoint on {dev['examples']} examples of {dev['dialogues']} dialogues in "
        f"{where}, {dev['candidates']:.0f} candidates each, the same ones at every validation. "
        "Intervals are a bootstrap that draws whole dialogues. This checkpoint was chosen for its "
        "score on these very examples, so expect a little less on others.",
        "",
        *table(["", "value", "95 % interval"], rows),
    ]
    if "hits@1" in scores:
        lines += [f"At its validation, in training, hits@1 was {scores['hits@1']:.3f}.", ""]
    lines += _rivals(found["rivals"])
    if found.get("written"):
        lines += _written(found["written"])
    if found.get("calibration"):
        lines += confidence_lines(found["calibration"])
        drawn = [name for name in ("reliability", "risk coverage") if name in images]
        lines += [f"![{name}]({images[name]})\n" for name in drawn]
    lines += _examples("The best examples", found["best"])
    return lines + _examples("The worst examples", found["worst"])


FIGURES = {
    "hits@1_likelihood": "hits@1 by the likelihood of the replies",
    "perplexity": "perplexity per token",
    "word_perplexity": "perplexity per word between spaces",
    "parlai_perplexity": "perplexity of dictionary words, as ParlAI counts",
    "f1": "F1",
    "bleu": "BLEU-4",
    "distinct-1": "distinct-1",
    "distinct-2": "distinct-2",
    "repetition": "three-word sequences said before",
    "length": "words of a reply",
    "persona_use": "nearer to its persona than to another's",
}


def _written(found: Mapping[str, Any]) -> list[str]:
    """What a generator writes: figures, and some of it."""
    figures = found["figures"]
    rows = [
        [told, "-" if figures[name] is None else f"{figures[name]:.3f}"]
        for name, told in FIGURES.items()
    ]
    shown = [
        [
            "<br>".join(f"{cell(role)}: {cell(text)}" for role, text in one["turns"]) or "-",
            cell(one["reply"]),
            cell(one["written"]),
        ]
        for one in found["replies"]
    ]
    return [
        "### What it writes",
        "",
        f"On {figures['examples']} of the examples, sampled as `rejoinder chat` does by itself.",
        "",
        *table(["", "value"], rows),
        *table(["last messages", "right reply", "written"], shown),
    ]


def _rivals(rivals: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rivals:
        return []
    rows = [
        [
            cell(one["name"]),
            str(one["examples"]),
            f"{one['hits@1']:.3f}",
            f"{one['mrr']:.3f}",
            f"{one['ours']:.3f}",
            f"{one['better_by']:+.3f} ({_span(one['better_by_interval'], '+.3f')})",
        ]
        for one in rivals
    ]
    head = ["", "examples", "hits@1", "MRR", "this model's hits@1", "better by (95 % interval)"]
    return [
        "### Baselines",
        "",
        "On some of the same examples, with the same candidates, spread evenly over them. Where "
        "the interval contains 0, this model is not known to be better.",
        "",
        *table(head, rows),
    ]


def _span(ends: Sequence[float], form: str = ".3f") -> str:
    low, high = ends
    return f"{low:{form}} to {high:{form}}"


def _examples(title: str, shown: Sequence[Mapping[str, Any]]) -> list[str]:
    if not shown:
        return []
    rows = []
    for one in shown:
        turns = [f"{cell(role)}: {cell(text)}" for role, text in one["turns"]]
        first = "the same" if one["top"] == one["reply"] else cell(one["top"])
        margin = "-" if one["margin"] is None else f"{one['margin']:+.2f}"
        rank = f"{one['rank']} of {one['candidates']}"
        rows.append(["<br>".join(turns) or "-", cell(one["reply"]), first, rank, margin])
    head = ["last messages", "right reply", "first choice", "rank", "margin"]
    return [f"### {title}", "", *table(head, rows)]


def _failures(failures: Sequence[str], run: Recorded) -> list[str]:
    told = [cell(text, 400) for text in failures]
    if run.unread:
        told.append(
            f"lines of log.jsonl that could not be read, so they are left out: {run.unread}"
        )
    return ["## What failed", "", *(f"- {text}" for text in told), ""] if told else []
