"""What each command does, as functions: files and names in, results out."""

from rejoinder.tasks.answering import (
    build_index,
    cached_index,
    lines_of,
    rank_lines,
    search,
)
from rejoinder.tasks.choosing import suggest_candidates
from rejoinder.tasks.exporting import export_model
from rejoinder.tasks.importing import import_model
from rejoinder.tasks.machine import fast_precision
from rejoinder.tasks.making import calibrate, split_settings, train
from rejoinder.tasks.measuring import (
    compare,
    evaluate,
    evaluate_corpus,
    prepare,
    scorer,
    write_misses,
)
from rejoinder.tasks.mining import mine
from rejoinder.tasks.reporting import list_runs, report
from rejoinder.tasks.talking import make_agent

__all__ = [
    "build_index",
    "cached_index",
    "calibrate",
    "compare",
    "evaluate",
    "evaluate_corpus",
    "export_model",
    "fast_precision",
    "import_model",
    "lines_of",
    "list_runs",
    "make_agent",
    "mine",
    "prepare",
    "rank_lines",
    "report",
    "scorer",
    "search",
    "split_settings",
    "suggest_candidates",
    "train",
    "write_misses",
]
