"""Models of archived systems become ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rejoinder import checkpoint
from rejoinder.errors import CheckpointError
from rejoinder.legacy.archives import unpack
from rejoinder.legacy.parlai import Imported, find_files, import_ranker
from rejoinder.models.pretrained import hash_file
from rejoinder.tasks.measuring import evaluate

ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zip")
Progress = Callable[[int, int], None]


def import_model(
    source: Path, out: Path, *, check: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Make a checkpoint in `out` of a ParlAI ranker: its model file, its folder, or an archive.

    -> what was found: kind, sizes, parameters, files, notes; with `check`, a file of dialogues,
    also hits@1 on 200 of them. Raises CheckpointError naming the file and what does not fit; then
    nothing is written.
    """
    with _unpacked(source) as place:
        files = find_files(place)
        if files is None:
            raise _nothing_in(source)
        imported = import_ranker(files)
        told = {"from": str(source), **_facts(imported)}
        checkpoint.save(imported.ranker, out, card=_card(imported, out.name))
    again = checkpoint.load(out)  # what nobody can load is no import
    if check is not None:
        report = evaluate(again, check, sample=200, progress=progress)
        told["hits@1"] = report.hits_at_1
        told["examples"] = report.examples
        told["candidates"] = report.candidates
    return told


@contextmanager
def _unpacked(source: Path) -> Iterator[Path]:
    """The folder or file itself, or what an archive holds, for as long as it is read."""
    if not source.exists():
        raise CheckpointError(
            f"{source}: no such file or folder; expected ParlAI's model file (what -mf names), its "
            "folder, or an archive of it"
        )
    if source.is_dir() or source.suffix.lower() not in ARCHIVES:
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        inside = unpack(source, Path(folder) / "model")
        held = [one for one in sorted(inside.iterdir()) if one.is_dir()]
        yield held[0] if len(held) == 1 and len([*inside.iterdir()]) == 1 else inside


def _nothing_in(source: Path) -> CheckpointError:
    if source.is_dir():
        found = ", ".join(sorted(file.name for file in source.iterdir())[:6]) or "nothing"
        return CheckpointError(
            f"{source}: holds {found}; expected a model with its options beside it, such as model "
            "and model.opt, so name the folder that has them"
        )
    return CheckpointError(
        f"{source}: has no {source.name}.opt beside it; expected ParlAI's model file with its "
        "options, dictionary and codes in one folder"
    )


def _facts(imported: Imported) -> dict[str, Any]:
    ranker = imported.ranker
    native = checkpoint.native_of(ranker.module)
    assert native is not None
    shape = native.shape
    counted = {id(one): one.numel() for one in ranker.module.parameters()}
    return {
        "kind": ranker.config.kind,
        "layers": shape.n_layers,
        "width": shape.embedding_size,
        "heads": shape.n_heads,
        "variant": shape.variant,
        "pooling": ranker.config.pooling,
        "tokens": shape.vocabulary,
        "longest context": ranker.tokens.style.max_context,
        "longest reply": ranker.tokens.style.max_reply,
        "parameters": sum(counted.values()),
        "notes": imported.notes,
    }


def _card(imported: Imported, name: str) -> str:
    files, kind = imported.files, imported.ranker.config.kind
    option = "--rerank" if kind == "cross" else "--model"
    lines = [
        f"# {name}",
        "",
        f"A {kind}-encoder that scores candidate replies to a dialogue, trained with ParlAI and "
        "imported with `rejoinder import`. It scores as it did there; data and licence are those "
        "of the original.",
        "",
        "| | |",
        "|---|---|",
        f"| model | {files.model.name}, sha256 {hash_file(files.model)} |",
        f"| options | {files.options.name}, sha256 {hash_file(files.options)} |",
        *(f"| note | {note} |" for note in imported.notes),
        "",
        f"Use it: `rejoinder chat {option} FOLDER`.",
        "",
    ]
    return "\n".join(lines)
