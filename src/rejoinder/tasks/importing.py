"""Models of archived systems become ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rejoinder import checkpoint, evaluation, generators, zoo
from rejoinder.errors import CheckpointError, ConfigError
from rejoinder.fetching import Progress as Fetching
from rejoinder.files import check_new, check_replaceable
from rejoinder.index import FILES as index_files
from rejoinder.index import NO_VECTORS
from rejoinder.legacy.archives import unpack
from rejoinder.legacy.parlai import Imported, find_files, import_ranker
from rejoinder.legacy.parlai_candidates import ImportedCandidates, import_candidates
from rejoinder.legacy.parlai_zoo import ARCHIVES, Fetched, fetch_source, find_inside
from rejoinder.legacy.selfcheck import PROMPTS, SelfCheck, check_generator, check_ranker
from rejoinder.legacy.transfertransfo import (
    ImportedGenerator,
    find_conv_ai,
    import_generator,
)
from rejoinder.models.gpt import Gpt
from rejoinder.models.pretrained import hash_file
from rejoinder.parlai_text import ParlaiTokens
from rejoinder.schema import Example
from rejoinder.tasks.measuring import prepare, sampled
from rejoinder.text import SPEAKERS

CHECKED = 200  # examples
EXPECTED = (
    "expected ParlAI's model file (what -mf names), the folder of a model that ParlAI or "
    "transfer-learning-conv-ai trained, an archive of it, an address of either, or zoo:NAME"
)
Progress = Callable[[int, int], None]


def import_model(
    source: str | Path,
    out: str | Path,
    *,
    candidates: str | Path | None = None,
    index: str | Path | None = None,
    check: str | Path | None = None,
    progress: Progress | None = None,
    fetching: Fetching | None = None,
) -> dict[str, Any]:
    """Make a checkpoint in `out` of a model that an archived system trained.

    source: of a ParlAI ranker its model file, of a transfer-learning-conv-ai generator its folder;
    the folder of either, an archive, an address on the web, or a name of ParlAI's zoo such as
    zoo:pretrained_transformers/model_poly/model. candidates, index: a file of ParlAI's fixed
    candidates, or the name of one in the archive, and the folder to write an index of them to, out
    of what ParlAI kept of them where that is true. -> what was found: kind, sizes, parameters,
    notes, warnings of a self-check; with `check`, a file of dialogues, also hits@1 on 200 of them.
    `progress` counts candidates and then examples, `fetching` bytes. Raises CheckpointError naming
    the file and what does not fit, DownloadError for what cannot be fetched; then no model is
    written.
    """
    out = Path(out)
    check_new(out)  # now, not after an hour of fetching
    indexed = _wanted(candidates, index, out, progress)
    chosen = [] if check is None else sampled(prepare(check, "", None), CHECKED)
    with _unpacked(fetch_source(source, progress=fetching), indexed) as place:
        told = {"from": str(source), **_imported(place, source, out, indexed)}
    if chosen:
        told |= _measured(out, chosen, progress)
    return told


@dataclass(frozen=True)
class Indexed:
    """Candidates to bring along, and where to."""

    file: Path
    out: Path
    progress: Progress | None


def _wanted(
    file: str | Path | None, index: str | Path | None, out: Path, progress: Progress | None
) -> Indexed | None:
    if file is None and index is None:
        return None
    if file is None or index is None:
        lacks = "--index DIR, the folder to write" if index is None else "--candidates FILE"
        raise ConfigError(f"candidates are brought along as an index; give {lacks} too, or neither")
    if Path(index).resolve() == out.resolve():
        raise ConfigError(f"{index}: is both --out and --index; expected two folders")
    check_replaceable(Path(index), index_files)
    return Indexed(Path(file), Path(index), progress)


@dataclass(frozen=True)
class Place:
    """A model on this machine, and candidates that lie in the archive it came from."""

    model: Path  # its file or folder
    candidates: Path | None = None


def _imported(
    place: Place, source: str | Path, out: Path, indexed: Indexed | None
) -> dict[str, Any]:
    """Read what is in a place and write it to `out`; -> facts."""
    files = find_files(place.model)
    if files is not None:
        ranker = import_ranker(files)
        if indexed and ranker.ranker.is_cross:
            raise ConfigError(NO_VECTORS)
        facts = _ranker_facts(ranker)
        if indexed:
            brought = _brought(ranker, place, indexed, out.name)
            facts["notes"] = [*facts["notes"], *brought.notes]
            facts["candidates in the index"] = len(brought.index.texts)
        checkpoint.save(ranker.ranker, out, card=_ranker_card(ranker, out.name))
        again = checkpoint.load(out)  # what nobody can load is no import
        return {**facts, **_self_check(check_ranker(again))}
    conv_ai = find_conv_ai(place.model)
    if conv_ai is not None and indexed:
        raise ConfigError(
            f"{source}: is a generator, which writes replies, so there are no candidates to bring "
            "along; leave --candidates and --index out"
        )
    if conv_ai is not None:
        made = import_generator(conv_ai)
        generators.save(made.generator, out, card=_generator_card(made, out.name))
        checked = check_generator(generators.load(out))
        return {**_generator_facts(made), **_self_check(checked)}
    raise _nothing_in(source, place.model)


def _brought(imported: Imported, place: Place, indexed: Indexed, name: str) -> ImportedCandidates:
    """Write the index, which remembers the model as it is when it is saved and loaded.

    That is done elsewhere first, so that no model is left where its candidates cannot be read.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        checkpoint.save(imported.ranker, Path(folder) / name)
        return import_candidates(
            imported.files.model,
            checkpoint.load(Path(folder) / name),
            place.candidates or indexed.file,
            out=indexed.out,
            progress=indexed.progress,
        )


@contextmanager
def _unpacked(fetched: Fetched, indexed: Indexed | None) -> Iterator[Place]:
    """The folder or file itself, or what an archive holds, for as long as it is read.

    Candidates of which only a name is given, and no such file is here, are looked for in it.
    """
    source = fetched.path
    if not source.exists():
        raise CheckpointError(f"{source}: no such file or folder; {EXPECTED}")
    if source.is_dir() or source.suffix.lower() not in ARCHIVES:
        yield Place(source)
        return
    bare = indexed and not indexed.file.exists() and indexed.file == Path(indexed.file.name)
    wanted = indexed.file.name if indexed and bare else ""
    only = [name for name in (fetched.inside, wanted) if name] if fetched.inside else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        whole = unpack(source, Path(folder) / "model", only=only)
        inside = find_inside(whole, fetched)
        held = [one for one in sorted(inside.iterdir()) if one.is_dir()]
        alone = len(held) == 1 and len([*inside.iterdir()]) == 1
        found = [file for file in whole.rglob(wanted or " ") if file.is_file()]
        yield Place(held[0] if alone else inside, found[0] if len(found) == 1 else None)


def _nothing_in(source: str | Path, place: Path) -> CheckpointError:
    if place.is_dir():
        held = [*place.rglob("*.opt"), *place.rglob("config.json")]
        models = sorted({one.parent.relative_to(place).as_posix() for one in held})
        if place != Path(source) and models:
            return CheckpointError(
                f"{source}: holds models in {', '.join(models[:6])}; expected one, so unpack it "
                "and name its folder"
            )
        found = ", ".join(sorted(file.name for file in place.iterdir())[:6]) or "nothing"
        return CheckpointError(
            f"{source}: holds {found}; expected model and model.opt as ParlAI writes them, or "
            "config.json and pytorch_model.bin as transfer-learning-conv-ai does, so name the "
            "folder that has them"
        )
    if (Path(source).parent / "config.json").is_file():
        return CheckpointError(
            f"{source}: is not the file of a model; expected pytorch_model.bin, model.safetensors "
            "or checkpoint_mymodel_N.pth, or name the folder"
        )
    return CheckpointError(
        f"{source}: has neither {Path(source).name}.opt (ParlAI) nor config.json "
        f"(transfer-learning-conv-ai) beside it; {EXPECTED}"
    )


def _measured(out: Path, chosen: list[Example], progress: Progress | None) -> dict[str, Any]:
    """hits@1 on examples; a generator ranks by its next-utterance head."""
    judged, seconds = evaluation.timed(zoo.load(out), chosen, progress)
    report = evaluation.summarise(judged, seconds)
    return {
        "hits@1": report.hits_at_1,
        "examples": report.examples,
        "candidates": report.candidates,
    }


def _self_check(found: SelfCheck) -> dict[str, Any]:
    said = {
        f"reply to {prompt!r}": reply for prompt, reply in zip(PROMPTS, found.replies, strict=False)
    }
    return {**said, "warnings": list(found.warnings)}


def _ranker_facts(imported: Imported) -> dict[str, Any]:
    ranker = imported.ranker
    native = checkpoint.native_of(ranker.module)
    assert native is not None
    shape = native.shape
    counted = {id(one): one.numel() for one in ranker.module.parameters()}
    tied = "word vectors of both encoders" if ranker.config.share_embeddings else "none"
    assert isinstance(ranker.tokens, ParlaiTokens)
    words = ranker.tokens.dictionary
    named = dict.fromkeys((words.words.null, words.words.start, words.words.end))
    ids = ", ".join(f"{token} {words.ids[token]}" for token in (*named, words.words.unknown))
    return {
        "kind": ranker.config.kind,
        "layers": shape.n_layers,
        "width": shape.embedding_size,
        "heads": shape.n_heads,
        "variant": shape.variant,
        "pooling": ranker.config.pooling,
        "tokens": shape.vocabulary,
        "special tokens": ids,
        "longest context": ranker.tokens.style.max_context,
        "longest reply": ranker.tokens.style.max_reply,
        "parameters": sum(counted.values()),
        "shapes": f"{len(counted)} tensors, as {imported.files.options.name} has them",
        "tied weights": tied,
        "notes": imported.notes,
    }


def _generator_facts(imported: ImportedGenerator) -> dict[str, Any]:
    generator = imported.generator
    model, style = generator.module.body.model, generator.layout.style
    assert isinstance(model, Gpt)
    shape = model.config
    ids = zip(SPEAKERS, imported.layout.ids, strict=True)
    return {
        "kind": "generator",
        "written by": imported.era,
        "base": "GPT-2" if shape.norm_first else "GPT",
        "layers": shape.n_layer,
        "width": shape.n_embd,
        "heads": shape.n_head,
        "tokens": shape.vocab_size,
        "special tokens": ", ".join(f"{token} {i}" for token, i in ids),
        "longest context": style.max_context,
        "longest reply": style.max_reply,
        "parameters": sum(one.numel() for one in generator.module.parameters()),
        "shapes": f"{len(generator.module.state_dict()) - 1} tensors, as config.json has them",
        "tied weights": "word vectors and the head that writes",
        "notes": imported.notes,
    }


def _ranker_card(imported: Imported, name: str) -> str:
    files, kind = imported.files, imported.ranker.config.kind
    option = "--rerank" if kind == "cross" else "--model"
    rows = {
        "model": f"{files.model.name}, sha256 {hash_file(files.model)}",
        "options": f"{files.options.name}, sha256 {hash_file(files.options)}",
    }
    what = f"A {kind}-encoder that scores candidate replies to a dialogue, trained with ParlAI"
    return _card(name, what, "It scores as it did there", rows, imported.notes, option)


def _generator_card(imported: ImportedGenerator, name: str) -> str:
    files = imported.files
    rows = {
        "model": f"{files.model.name}, sha256 {hash_file(files.model)}",
        "written by": imported.era,
    }
    what = (
        "A language model that writes replies and tells which of several follows, trained with "
        "transfer-learning-conv-ai"
    )
    return _card(name, what, "Its logits are what they were", rows, imported.notes, "--model")


def _card(
    name: str, what: str, how: str, rows: dict[str, str], notes: list[str], option: str
) -> str:
    lines = [
        f"# {name}",
        "",
        f"{what} and imported with `rejoinder import`. {how}.",
        "",
        "Data and licence are those of the original.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {row} | {text} |" for row, text in rows.items()),
        *(f"| note | {note} |" for note in notes),
        "",
        f"Use it: `rejoinder chat {option} FOLDER`.",
        "",
    ]
    return "\n".join(lines)
