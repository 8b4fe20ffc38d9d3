"""The shape of the package: imports point down, files stay small, nothing heavy comes unasked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import rejoinder

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "rejoinder"
CODE = [file for top in ("src", "tests", "bench") for file in sorted((ROOT / top).rglob("*.py"))]
MODULES = {
    ".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__"): file
    for file in CODE
    if PACKAGE in file.parents
}

# A module imports only from lines above its own; modules of one line are strangers.
LADDER = [
    "errors schema significance reliability progress memory batching sharded words rounding",
    "extras files metrics text config confidence diversity drawing weighing",
    "decoding devices dictionary fetching hints presets shape spacing",
    "tokens learned_tokens data models parlai_text runs",
    "candidates layouts ranker saved suggestion weights",
    "generator",
    "checkpoint evaluation calibration index mining perplexity",
    "generators",
    "baselines exports legacy zoo written",
    "agents training",
    "tasks chat",
    "talk",
    "cli",
    "__main__ __init__",
]
# Imports that point up all the same, inside a method, so that nothing goes in circles on loading.
UPWARD = {
    "rejoinder.ranker": {  # from_pretrained and save_pretrained: where everybody looks for them
        "rejoinder.checkpoint",
        "rejoinder.zoo",
    }
}
RUNG = {name: rung for rung, names in enumerate(LADDER) for name in names.split()}

# What reads text, settings and numbers, or asks and answers, works without torch.
LIGHT = ["errors", "schema", "words", "metrics", "progress", "memory", "extras", "files", "text"]
LIGHT += ["config", "confidence", "tokens", "data", "candidates", "chat", "cli", "drawing", "runs"]
LIGHT += ["layouts", "decoding", "hints", "presets", "spacing", "shape", "dictionary"]
LIGHT += ["parlai_text", "learned_tokens", "fetching"]
HEAVY = {"torch", "transformers", "peft", "accelerate", "sentence_transformers"}
HEAVY |= {"matplotlib", "wandb"}

MOST_LINES = 500  # in a file
MOST_FUNCTION_LINES = 60  # in a function
MOST_PARAMETERS = 8  # of a function, self not counted; a command has as many as it has options
MANY_PARAMETERS = {
    "models/rankers.py:__init__": "models take plain values, no settings object",
    "tasks/talking.py:make_agent": "the options of the command; all have defaults",
    "tasks/choosing.py:suggest_candidates": "the options of the command; all but two have defaults",
    "tasks/measuring.py:evaluate": "the options of the command; all but two have defaults",
    "tasks/measuring.py:compare": "the options of the command; all but three have defaults",
    "tasks/mining.py:mine": "the options of the command; all but three have defaults",
    "tasks/making.py:train": "the options of the command; all but three have defaults",
    "training/start.py:train": "files, settings and origin of a run; half of them have defaults",
}
VAGUE = {"base", "common", "helper", "helpers", "misc", "tools", "util", "utils"}


def own_imports(file: Path, *, inside: bool = True) -> Iterator[str]:
    """Modules of the package that a file imports, by full name; `inside` functions too, or not."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if inside else tree.body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the import in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            # The version is a constant of the root, which by itself imports nothing.
            if name.split(".")[0] == "rejoinder" and name != "rejoinder.__version__":
                yield name if name in MODULES else name.rpartition(".")[0]


def short(module: str) -> str:
    """The rung's name of a module: rejoinder.data.lines -> data."""
    return module.split(".")[1] if "." in module else "__init__"


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    names = [x.arg for x in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in names if name not in {"self", "cls"}]


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("command" in ast.unparse(decorator) for decorator in function.decorator_list)


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function; the help text of a command, which is its docstring, is not counted."""
    first = function.body[0]
    told = (first.end_lineno or 0) - first.lineno + 1 if is_command(function) else 0
    return (function.end_lineno or 0) - function.lineno + 1 - told


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    here = short(module)
    assert here in RUNG, f"{module}: give it a line in LADDER"
    upward = UPWARD.get(module, set())
    imported = set(own_imports(MODULES[module]))
    assert upward <= imported, "no longer imported: take it out of UPWARD"
    for name in imported - upward:
        there = short(name)
        assert there == here or RUNG[there] < RUNG[here], f"{module} may not import {name}"


def test_modules_import_without_cycles() -> None:
    graph = {
        module: set(own_imports(file)) - {module} - UPWARD.get(module, set())
        for module, file in MODULES.items()
    }
    assert len(graph) > 30
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("module", UPWARD)
def test_upward_imports_stand_inside_functions(module: str) -> None:
    assert UPWARD[module].isdisjoint(own_imports(MODULES[module], inside=False))


def test_files_are_short() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in CODE}
    assert [f"{file}: {n} lines" for file, n in lengths.items() if n > MOST_LINES] == []


def test_functions_are_short() -> None:
    long = [
        f"{file}:{function.lineno}: {function.name}: {lines(function)} lines"
        for file in CODE
        for function in functions(file)
        if lines(function) > MOST_FUNCTION_LINES
    ]
    assert long == []


def test_functions_take_few_parameters() -> None:
    many = {
        f"{file.relative_to(PACKAGE).as_posix()}:{function.name}"
        for file in MODULES.values()
        for function in functions(file)
        if len(parameters(function)) > MOST_PARAMETERS and not is_command(function)
    }
    assert many == set(MANY_PARAMETERS), "fewer parameters, or a reason in MANY_PARAMETERS"


def test_names_say_what_is_in_a_module() -> None:
    assert [file for file in CODE if file.stem in VAGUE] == []


@pytest.mark.parametrize(
    "code",
    [
        "import rejoinder",
        "import rejoinder; rejoinder.Dialogue, rejoinder.read, rejoinder.RejoinderError",
        "from rejoinder.cli import app; app(['--help'], result_action='return_value')",
        "import " + ", ".join(f"rejoinder.{name}" for name in LIGHT),
    ],
)
def test_torch_is_loaded_only_when_needed(code: str) -> None:
    loaded = run_python(f"{code}\nimport sys\nprint(*sys.modules)").splitlines()[-1].split()
    assert "rejoinder" in loaded
    assert HEAVY.isdisjoint(loaded)


def test_help_comes_quickly(record_property: Callable[[str, object], None]) -> None:
    start = time.perf_counter()
    shown = run_python(
        "from rejoinder.cli import main\nimport sys\nsys.argv[1:] = ['--help']\nmain()"
    )
    seconds = time.perf_counter() - start
    record_property("help_seconds", round(seconds, 2))
    assert "train" in shown
    assert seconds < 10  # 0.3 on an idle machine; this only catches what is out of all proportion


def test_public_names_are_sorted_and_load() -> None:
    assert rejoinder.__all__ == sorted(rejoinder.__all__)
    assert set(rejoinder.__all__) == {*rejoinder.HOMES, "__version__"}
    assert set(rejoinder.__all__) <= set(dir(rejoinder))


@pytest.mark.parametrize("name", sorted(rejoinder.HOMES))
def test_public_name_is_the_one_of_its_module(name: str) -> None:
    assert getattr(rejoinder, name) is getattr(import_module(rejoinder.HOMES[name]), name)


def test_type_checkers_see_the_same_public_names() -> None:
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    seen = {
        alias.name: node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rejoinder.")
        for alias in node.names
    }
    assert seen == rejoinder.HOMES


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=re.escape("'rejoinder' has no attribute 'lode'")):
        _ = rejoinder.lode  # type: ignore[attr-defined]
