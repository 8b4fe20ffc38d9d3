"""How long a large ranker of ParlAI takes to import and to load, and how much memory.

    python bench/importing.py [--layers 12] [--width 768] [--folder DIR]

Makes a poly-encoder with random weights in ParlAI's files (256 million of them at the usual size),
imports it, loads it, indexes 1,000 candidates and answers once. Every step is a process of its own;
memory is what it has at most above what it had before, in multiples of the weights' size.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

TOKENS = 54_944
POSITIONS = 1024
STEPS = ("import", "load", "answer")


def main() -> None:
    """Parse, make, run each step, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", choices=STEPS)
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(measured(asked.step, asked.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        size = make(folder, asked.layers, asked.width)
        found = {"bench": "importing", "layers": asked.layers, "width": asked.width, "size": size}
        for step in STEPS:
            words = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            told = json.loads(done.stdout.splitlines()[-1])
            found[f"{step}_seconds"] = round(told["seconds"], 2)
            found[f"{step}_memory"] = round(told["bytes"] / size, 3)
        print(json.dumps(found))


def make(folder: Path, layers: int, width: int) -> int:
    """Write the four files of a model; -> bytes of its weights."""
    weights: OrderedDict[str, Tensor] = OrderedDict()
    weights["codes"] = torch.rand(64, width)
    for tower in ("encoder_ctxt", "encoder_cand"):
        for name, shape in shapes(layers, width).items():
            weights[f"{tower}.{name}"] = torch.empty(shape).normal_(std=0.02)
    options = {
        "model": "transformer/polyencoder",
        "embedding_size": width,
        "n_layers": layers,
        "n_heads": width // 64,
        "ffn_size": 4 * width,
        "n_positions": POSITIONS,
        "n_segments": 2,
        "variant": "xlm",
        "activation": "gelu",
        "learn_positional_embeddings": True,
        "embeddings_scale": False,
        "output_scaling": 0.06,
        "reduction_type": "mean",
        "share_encoders": False,
        "polyencoder_type": "codes",
        "text_truncate": 360,
        "label_truncate": 72,
        "history_size": 20,
        "dict_tokenizer": "bpe",
        "dict_lower": True,
        "dict_endtoken": "__start__",
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": weights}, folder / "model")
    (folder / "model.opt").write_text(json.dumps(options), encoding="utf-8")
    words = ["__null__", "__start__", "__unk__", *(f"w{i}" for i in range(TOKENS - 3))]
    lines = "".join(f"{word}\t1\n" for word in words)
    (folder / "model.dict").write_text(lines, encoding="utf-8")
    (folder / "model.dict.codecs").write_text("#version: 0.2\nt h\nth e</w>\n", encoding="utf-8")
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def shapes(layers: int, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a tower, as ParlAI has them."""
    found: dict[str, tuple[int, ...]] = {
        "embeddings.weight": (TOKENS, width),
        "position_embeddings.weight": (POSITIONS, width),
        "segment_embeddings.weight": (2, width),
        "norm_embeddings.weight": (width,),
        "norm_embeddings.bias": (width,),
    }
    parts: dict[str, tuple[int, ...]] = {
        "ffn.lin1.weight": (4 * width, width),
        "ffn.lin1.bias": (4 * width,),
        "ffn.lin2.weight": (width, 4 * width),
        "ffn.lin2.bias": (width,),
    }
    for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
        parts |= {f"attention.{name}.weight": (width, width), f"attention.{name}.bias": (width,)}
    for name in ("norm1", "norm2"):
        parts |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for layer in range(layers):
        found |= {f"layers.{layer}.{name}": shape for name, shape in parts.items()}
    return found


def measured(step: str, folder: Path) -> dict[str, float]:
    """Seconds and bytes of one step in this process."""
    from rejoinder import checkpoint, tasks
    from rejoinder.index import Index
    from rejoinder.schema import Dialogue, Message

    before = peak()
    start = time.perf_counter()
    if step == "import":
        tasks.import_model(folder, folder / "ours")
    else:
        ranker = checkpoint.load(folder / "ours")
        if step == "answer":
            texts = [f"w{i} w{i + 1} w{i + 2} ." for i in range(1000)]
            index = Index.build(ranker, texts)
            index.search(Dialogue((Message("user", "w1 w2 ?"),)), 1)
    return {"seconds": time.perf_counter() - start, "bytes": float(peak() - before)}


def peak() -> int:
    """The most memory that this process had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
