"""Models by name: those that come with the package, folders, and Hugging Face repositories."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rejoinder import checkpoint, saved
from rejoinder.errors import CheckpointError
from rejoinder.ranker import TextRanker

if TYPE_CHECKING:
    from rejoinder.generator import TextGenerator

HERE = Path(__file__).parent
DEFAULT = "persona-poly"


@dataclass(frozen=True)
class Listed:
    """A model of the zoo, with what its card says of it."""

    name: str
    kind: str
    hits_at_1: float | None  # on the development set that its card names
    examples: int
    megabytes: float


def names() -> list[str]:
    """The models that come with the package."""
    return sorted(folder.parent.name for folder in HERE.glob("*/config.json"))


def listing() -> list[Listed]:
    """Every model of the package with its kind, size, and score."""
    found = []
    for name in names():
        settings = saved.read_config(HERE / name)
        scores = settings["training"].get("scores") or {}
        size = sum(file.stat().st_size for file in (HERE / name).iterdir()) / 1e6
        found.append(
            Listed(
                name,
                settings["model"]["kind"],
                scores.get("hits@1"),
                scores.get("examples", 0),
                size,
            )
        )
    return found


def find(model: str | Path) -> Path:
    """The folder of a model: a name of the zoo, a folder, or a hub name `owner/name`.

    Raises CheckpointError, naming the nearest known name, if there is none.
    """
    if str(model) in names():
        return HERE / str(model)
    folder = Path(model)
    if folder.is_dir():
        return saved.resolve(folder)
    if folder.exists():
        old = folder.with_name(f"{folder.name}.opt").is_file()
        hint = (
            f". It looks like a model of ParlAI: rejoinder import {folder} --out DIR makes it ours"
        )
        raise CheckpointError(
            f"{folder}: is a file; expected the folder of a checkpoint{hint if old else ''}"
        )
    if str(model).count("/") == 1 and not str(model).startswith((".", "/")):
        return _from_hub(str(model))
    near = difflib.get_close_matches(str(model), names(), n=1)
    hint = f" Did you mean {near[0]}?" if near else " Name a folder that `rejoinder train` wrote."
    known = ", ".join(names()) or "the models of the package, of which none is installed"
    raise CheckpointError(f"no model {str(model)!r}: neither a folder nor one of {known}.{hint}")


def load(model: str | Path = DEFAULT, device: str = "cpu") -> TextRanker | TextGenerator:
    """A model by name, folder or hub name, ready to use: what chooses replies, or what writes them.

    Raises CheckpointError, naming the file and what does not fit.
    """
    folder = find(model)
    return load_generator(folder, device) if writes(folder) else load_ranker(folder, device)


def load_ranker(model: str | Path = DEFAULT, device: str = "cpu") -> TextRanker:
    """A ranker by name, folder or hub name, ready to use. CheckpointError for a generator."""
    return checkpoint.load(find(model)).to(device)


def load_generator(model: str | Path, device: str = "cpu") -> TextGenerator:
    """A generator by name, folder or hub name, ready to use. CheckpointError for a ranker."""
    from rejoinder import generators

    return generators.load(find(model)).to(device)


def writes(model: str | Path) -> bool:
    """Whether a model, by name, folder or hub name, is a generator."""
    return saved.kind_of(find(model)) == "generator"


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.md"]))
    except Exception as error:  # the hub client has a dozen kinds of errors, all with a text
        reason = str(error).split("\n")[0].split(". ")[0][:160]
        raise CheckpointError(
            f"no folder {name!r}, and the Hugging Face hub gave none of that name ({reason}); "
            "check the name and the network, or name a folder"
        ) from None


def dump(rows: list[Listed]) -> str:
    """The listing as JSON."""
    return json.dumps([row.__dict__ for row in rows])
