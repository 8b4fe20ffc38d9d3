"""What can go wrong, as one small tree.

    RejoinderError             everything below; the command line prints it as one clean line
    |-- ConfigError            a setting that cannot be
    |-- DataError              a file of dialogues or candidates that cannot be read as it is
    |-- CheckpointError        a model folder that is missing, broken or of another kind
    |-- IndexStale             an index that was built with another model, text format or candidates
    |-- DownloadError          a file that could not be fetched or has another checksum
    `-- MissingExtra           an optional library that is not installed

A message says where (`file:line`), what came and what was expected, and what to do next.
"""


class RejoinderError(Exception):
    """Something the user can mend; its text is meant for them."""


class ConfigError(RejoinderError):
    """A setting that cannot be, or two that exclude each other."""


class DataError(RejoinderError):
    """A file of dialogues or candidates that cannot be read as it is."""


class CheckpointError(RejoinderError):
    """A model folder that is missing, broken, or of another kind."""


class IndexStale(RejoinderError):
    """An index that was built with another model, text format, or set of candidates."""


class DownloadError(RejoinderError):
    """A file that could not be fetched, or that came with another checksum."""


class MissingExtra(RejoinderError):
    """An optional library that is not installed."""
