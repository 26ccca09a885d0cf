"""Who may import whom, read off the source: house rules that a glance at one file cannot check."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("qa_data", "sefar_core", "sefar_mllm")
METHOD = (
    *("shapes", "sampling", "perturbation", "mixing", "block", "timesformer", "model"),
    *("teacher", "regulation", "loss", "step"),
)
METHOD_LIBRARIES = {
    *("collections.abc", "copy", "dataclasses", "itertools", "math", "typing"),
    *("einops", "jaxtyping", "torch"),
}
IMPURE_CALLS = {"open", "print", "torch.manual_seed", "torch.seed", "torch.load", "torch.save"}
SLOW_TO_IMPORT = {"torch", "torchvision", "timm", "transformers", "accelerate", "peft", "datasets"}

# What a file may import of the other packages: the first line whose start fits decides.
MAY_IMPORT = {
    "qa_data": (),
    "sefar_core/data/": tuple(
        f"qa_data.{name}" for name in ("manifest", "taxonomy", "finegym", "files", "terminal")
    ),
    "sefar_core/": ("qa_data.files",),
    "sefar_mllm/": (
        "sefar_core",
        *(f"qa_data.{name}" for name in ("questions", "blind", "manifest", "files", "terminal")),
    ),
}


def sources(*folders: str) -> list[str]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def imports(source: str, *, everywhere: bool = True) -> Iterator[str]:
    """Dotted names that a source imports, `from a import b` as `a.b`.

    Args:
        source: Python code.
        everywhere: also inside functions; otherwise what runs when the file is imported.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree) if everywhere else at_import(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


def within(name: str, parents: tuple[str, ...] | set[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def imported(path: str, *, everywhere: bool = True) -> tuple[str, ...]:
    return tuple(imports(read(path), everywhere=everywhere))


@cache
def module_file(name: str) -> str | None:
    """The file of a module of ours, or of the one that holds the name."""
    for dotted in (name, name.rpartition(".")[0]):
        place = dotted.replace(".", "/")
        for path in (f"{place}.py", f"{place}/__init__.py"):
            if (ROOT / path).is_file():
                return path
    return None


def reached_by(path: str) -> dict[str, str]:
    """Outer modules that importing a file brings in, each with the file that names it."""
    found: dict[str, str] = {}
    seen, queue = {path}, [path]
    while queue:
        current = queue.pop()
        for name in imported(current, everywhere=False):
            ours = module_file(name) if within(name, PACKAGES) else None
            if ours is None:
                found[name.partition(".")[0]] = current
            elif ours not in seen:
                seen.add(ours)
                queue.append(ours)
    return found


def test_packages_import_one_another_in_one_direction_and_neither_scripts_nor_tests():
    wrong = []
    for path in sources(*PACKAGES):
        allowed = next(names for start, names in MAY_IMPORT.items() if path.startswith(start))
        allowed += (path.partition("/")[0],)
        ours = [name for name in imported(path) if within(name, (*PACKAGES, "scripts", "tests"))]
        wrong += [(path, name) for name in ours if not within(name, allowed)]
    assert wrong == []


@pytest.mark.parametrize("name", METHOD)
def test_the_method_is_pure(name):
    path = f"sefar_core/{name}.py"
    allowed = METHOD_LIBRARIES | {f"sefar_core.{other}" for other in METHOD}
    assert [found for found in imported(path) if not within(found, allowed)] == []
    tree = ast.parse(read(path))
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert calls & IMPURE_CALLS == set()


def undefined(*folders: str) -> list[str]:
    """Names that are used and defined nowhere, but for those in texts: axes of annotations."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821"]
    done = subprocess.run(
        [*command, "--output-format", "json", *folders], cwd=ROOT, capture_output=True, text=True
    )
    found = []
    for fault in json.loads(done.stdout):
        row, column = fault["location"]["row"], fault["location"]["column"]
        line = Path(fault["filename"]).read_text(encoding="utf-8").splitlines()[row - 1]
        if line[: column - 1].count('"') % 2 == 0:
            found.append(f"{fault['filename']}:{row} {fault['message']}")
    return found


def test_no_name_is_undefined(tmp_path):
    """The project's settings of ruff leave this out for two packages, because of the axes."""
    (tmp_path / "faulty.py").write_text('def f(a: Float[Tensor, "clip row"]) -> None:\n    g(a)\n')
    found = undefined("sefar_core", "sefar_mllm", str(tmp_path))
    assert [line.rpartition(" ")[2] for line in found] == ["`Float`", "`Tensor`", "`g`"]


def test_the_question_builder_names_no_torch_and_runs_without_it():
    paths = sources("qa_data")
    assert [p for p in paths if any(within(n, {"torch", "torchvision"}) for n in imported(p))] == []
    modules = [path.removesuffix(".py").replace("/", ".") for path in paths]
    code = "import sys; sys.modules['torch'] = None\n" + "\n".join(
        f"import {module.removesuffix('.__init__')}" for module in modules
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_command_line_is_parsed_before_anything_slow_is_imported():
    for path in [*sources("scripts"), *(f"{package}/config.py" for package in PACKAGES[1:])]:
        slow = {name: by for name, by in reached_by(path).items() if name in SLOW_TO_IMPORT}
        assert slow == {}, path


def importers() -> dict[str, set[str]]:
    """The files of ours that each file of ours imports, at once or later."""
    places = sources(*PACKAGES, "scripts", "benchmarks", "demo")
    return {
        path: {module_file(name) for name in imported(path)} & set(places) - {path}
        for path in places
    }


def test_no_modules_and_no_folders_of_a_package_import_one_another_in_a_circle():
    """A package's own files are its top: they may use every folder, and every folder them."""
    modules, folders = importers(), {}
    for path, others in modules.items():
        here = path.rpartition("/")[0]
        there = {other.rpartition("/")[0] for other in others} - {here}
        folders.setdefault(here, set()).update(name for name in there if "/" in name)
    for graph in (modules, {name: found for name, found in folders.items() if "/" in name}):
        TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle


def test_only_the_console_that_takes_no_markup_prints_tables():
    outside = sources(*PACKAGES, "scripts", "benchmarks")
    makers = [path for path in outside if "rich.console" in read(path)]
    assert makers == ["qa_data/terminal.py"]
