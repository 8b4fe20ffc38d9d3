"""Models as folders of other libraries, which load them without rejoinder."""

from rejoinder.exports.causal import export_causal
from rejoinder.exports.cross import export_cross
from rejoinder.exports.onnx import export_onnx
from rejoinder.exports.sentence import export_sentence
from rejoinder.exports.texts import candidate_text, context_text

__all__ = [
    "candidate_text",
    "context_text",
    "export_causal",
    "export_cross",
    "export_onnx",
    "export_sentence",
]
