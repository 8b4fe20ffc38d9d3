"""The distinct replies of some files that a block list allows, one a line.

    python tools/allowed_replies.py OUT.txt SOURCE.. --block FILE

For choosing candidates by hand or by rule before an index is built of them and of other sources.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rejoinder import candidates
from rejoinder.errors import RejoinderError
from rejoinder.files import write_text


def main() -> None:
    """Parse, collect, write, count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--block", type=Path, required=True)
    asked = parser.parse_args()
    found = candidates.collect(asked.sources, asked.block)
    lines = [" ".join(text.split()) for text in found.texts]
    write_text(asked.out, "".join(f"{line}\n" for line in lines))
    print(f"{asked.out}: {len(lines)} replies, {found.blocked} blocked, {found.repeated} repeated")


if __name__ == "__main__":
    try:
        main()
    except (RejoinderError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
