"""The folder of a model: which files it has, and how they are written and read.

config.json        what the model is, its text format, how it was trained
model.safetensors  its weights
tokenizer.json     the tokenizer; of models from ParlAI its dictionary, dictionary.json
README.md          the card: data, command, scores
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rejoinder.errors import CheckpointError
from rejoinder.files import whole_folder
from rejoinder.rounding import unrounded

FILES = ("config.json", "model.safetensors", "tokenizer.json", "dictionary.json", "README.md")
SPEAKER = b"<speaker1>"  # a token that transfer-learning-conv-ai added
FORMAT = 1  # of config.json; raised when an old folder can no longer be read as it is


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    texts: Mapping[str, str],
    card: str = "",
) -> None:
    """Write the folder whole or not at all; `texts` are further files, those of the tokenizer."""
    settings = {"format": FORMAT, **config}
    with whole_folder(folder, FILES) as new:
        save_file(dict(weights), new / "model.safetensors", metadata={"format": "pt"})
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        (new / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        readme = card or f"# {folder.name}\n"
        (new / "README.md").write_text(readme, encoding="utf-8", errors="replace")


def resolve(folder: Path) -> Path:
    """The checkpoint itself, where a run's folder was named."""
    return folder / "best" if (folder / "best" / "config.json").is_file() else folder


def card_of(folder: Path) -> str:
    """The text of a checkpoint's card; empty if it has none."""
    file = folder / "README.md"
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of a checkpoint folder, checked for being one of ours."""
    file = folder / "config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{file}: {error.strerror}; expected a folder that `rejoinder train` wrote, so "
            f"name that one{_import_first(folder)}"
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"{file}: broken JSON ({error}); save or fetch the model again"
        ) from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        came = settings.get("format") if isinstance(settings, dict) else type(settings).__name__
        raise CheckpointError(
            f"{file}: format {came!r}, expected {FORMAT}: not a rejoinder checkpoint of this "
            f"version; name a folder that `rejoinder train` wrote{_import_first(folder)}"
        )
    return settings


def _import_first(folder: Path) -> str:
    """What to do with a folder that looks like one of an archived system."""
    listed = [folder / name for name in ("special_tokens.txt", "added_tokens.json")]
    listed = [file for file in [*listed, folder / "tokenizer.json"] if file.is_file()]
    if next(folder.glob("*.opt"), None):
        system = "ParlAI"
    elif any(SPEAKER in file.read_bytes() for file in listed):
        system = "transfer-learning-conv-ai"
    else:
        return ""
    return f". It looks like a model of {system}: rejoinder import {folder} --out DIR makes it ours"


def kind_of(folder: Path) -> str:
    """What the model of a checkpoint folder is: bi, poly, cross, or generator."""
    model = read_config(folder).get("model")
    return str(model.get("kind")) if isinstance(model, dict) else ""


def read_weights(file: Path) -> dict[str, Tensor]:
    """All tensors of a file. Raises CheckpointError where it is missing or broken."""
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; the folder is not a whole checkpoint")
    try:
        return unrounded(load_file(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{file}: not a whole safetensors file ({error}); copy or fetch it again"
        ) from None
