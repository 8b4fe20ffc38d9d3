"""How long until something happens: --help, import, and the chat's first reply on a warm cache.

python bench/start.py
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time


def seconds(argv: list[str], typed: str = "", runs: int = 5) -> list[float]:
    """Wall times of a whole process, sorted; one run before them warms the caches."""
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(argv, input=typed, text=True, capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    return sorted(times[1:])


def main() -> None:
    """Measure and print."""
    python = sys.executable
    row: dict[str, object] = {"bench": "start", "runs": 5, "figure": "median and worst seconds"}
    commands = {
        "nothing": [python, "-c", "pass"],
        "import": [python, "-c", "import rejoinder"],
        "help": [python, "-m", "rejoinder", "--help"],
        "chat_to_prompt": [python, "-m", "rejoinder", "chat"],
        "chat_one_reply": [python, "-m", "rejoinder", "chat", "--once", "hi , how are you doing ?"],
    }
    for name, argv in commands.items():
        times = seconds(argv)
        row[name] = [round(times[len(times) // 2], 3), round(times[-1], 3)]
    print(json.dumps(row | {"python": platform.python_version(), "machine": platform.machine()}))


if __name__ == "__main__":
    main()
