"""The folder of a run: whose it is, what was asked for, what was seen.

settings.json  all settings; a run goes on only with the same ones
tokenizer.json of a ranker from scratch, learned from its data
log.jsonl      a line for every report and validation
best/          the best checkpoint
last/          the state to go on from
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rejoinder import saved
from rejoinder.config import GeneratorConfig, ModelConfig, TrainConfig, to_mapping
from rejoinder.errors import ConfigError, RejoinderError
from rejoinder.files import check_replaceable, recover, write_text
from rejoinder.generator import TextGenerator
from rejoinder.ranker import TextRanker
from rejoinder.shape import Shape
from rejoinder.text import TextFormat
from rejoinder.tokens import Tokens
from rejoinder.training.resume import STATE_FILES

TOKENIZER = "tokenizer.json"
NAMES = ("data", "dev", "init_model", "dictionary", "output_scaling")
# What changes how a run is run, but nothing that it learns, save rounding and the draws of dropout.
FREE = ("max_time", "max_tokens", "parallel", "log_every")


def claim(
    out: Path, ranker: TextRanker | TextGenerator, config: TrainConfig, origin: Mapping[str, Any]
) -> None:
    """Make OUT, or check that the run in it is this one. Raises ConfigError if it is not."""
    if out.is_file():
        raise ConfigError(f"{out}: is a file; expected a new folder or that of a run as --out")
    settings = json.dumps(
        {
            "model": to_mapping(ranker.config),
            "train": to_mapping(config),
            "text": to_mapping(ranker.tokens.style),
            **({"shape": origin["shape"]} if "shape" in origin else {}),
            **{name: origin.get(name) for name in (*NAMES, "examples")},
        },
        indent=2,
    )
    file = out / "settings.json"
    if file.is_file():
        for part in ("best", "last"):
            recover(out / part)  # from a process that was killed while it saved
    changed = _changed(_read_settings(file), json.loads(settings)) if file.is_file() else []
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ConfigError(
            f"{out} holds a run with other settings or data ({file}: {changed[0]}{more}); resume "
            "it with the same command, or choose another --out"
        )
    check_replaceable(out / "best", saved.FILES)  # now, not at the first validation
    check_replaceable(out / "last", STATE_FILES)
    kept = file.is_file() and (out / TOKENIZER).is_file()
    if "shape" in origin and isinstance(ranker.tokens, Tokens) and not kept:
        _keep_tokenizer(out / TOKENIZER, ranker.tokens.files()[TOKENIZER])
    write_text(file, settings + "\n")


def _keep_tokenizer(file: Path, text: str) -> None:
    """Write the tokenizer beside the run; one that is there already must be this one."""
    if file.exists() and (not file.is_file() or file.read_bytes() != text.encode()):
        raise ConfigError(
            f"{file}: is there, and another one than this run has learned; expected a new folder "
            "or that of this run, so choose another --out"
        )
    write_text(file, text)


def _changed(was: Any, now: Any) -> list[str]:
    """What is another setting in two runs; none if they are one.

    What an older version had no setting for is as it is by default.
    """
    found: list[str] = []
    try:
        writes = was["model"]["kind"] == "generator"
        model = GeneratorConfig if writes else ModelConfig
        kinds: dict[str, type[Any]] = {"model": model, "train": TrainConfig, "text": TextFormat}
        if "shape" in was or "shape" in now:  # of rankers from scratch alone
            kinds["shape"] = Shape
        pairs = []
        for section, kind in kinds.items():
            usual = to_mapping(kind())
            a, b = (usual | settings[section] for settings in (was, now))
            pairs += [(name, a[name], b[name]) for name in {**a, **b} if name not in FREE]
        pairs += [(name, was.get(name), now.get(name)) for name in NAMES]
        if None not in (was.get("examples"), now.get("examples")):
            pairs.append(("examples", was["examples"], now["examples"]))
        found = [f"{name} was {a!r} and is {b!r}" for name, a, b in pairs if a != b]
    except (TypeError, KeyError, AttributeError):
        found = ["it cannot be read"]
    return found


def _read_settings(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file}: not the settings of a run ({error}); expected a new folder or that of a run, "
            "so choose another --out"
        ) from None


def write_log(out: Path, row: Mapping[str, Any]) -> None:
    """Add a line to the log. Raises RejoinderError where it cannot be written."""
    log = out / "log.jsonl"
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise RejoinderError(
            f"{log}: could not be written ({error.strerror or error}); free some space and run the "
            "same command again, which goes on from the last save"
        ) from error
