"""Who may import whom, read off the source: house rules that a glance at one file cannot check."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("qa_data", "sefar_core", "sefar_mllm")
METHOD = (
    "shapes",
    "sampling",
    "perturbation",
    "mixing",
    "block",
    "timesformer",
    "model",
    "teacher",
    "regulation",
    "loss",
    "step",
)
METHOD_LIBRARIES = {
    "collections.abc",
    "copy",
    "dataclasses",
    "einops",
    "itertools",
    "jaxtyping",
    "math",
    "torch",
    "typing",
}
IMPURE_CALLS = {"open", "print", "torch.manual_seed", "torch.seed", "torch.load", "torch.save"}
SLOW_TO_IMPORT = {"torch", "torchvision", "timm", "transformers", "accelerate", "peft", "datasets"}

# What a file may import of the other packages: the first line whose start fits decides.
MAY_IMPORT = {
    "qa_data": (),
    "sefar_core/data/": (
        "qa_data.manifest",
        "qa_data.taxonomy",
        "qa_data.finegym",
        "qa_data.files",
        "qa_data.terminal",
    ),
    "sefar_core/": ("qa_data.files",),
    "sefar_mllm/": (
        "sefar_core",
        "qa_data.questions",
        "qa_data.blind",
        "qa_data.manifest",
        "qa_data.files",
        "qa_data.terminal",
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
        for name in imports(read(current), everywhere=False):
            ours = module_file(name) if within(name, PACKAGES) else None
            if ours is None:
                found[name.partition(".")[0]] = current
            elif ours not in seen:
                seen.add(ours)
                queue.append(ours)
    return found


@pytest.mark.parametrize("path", sources(*PACKAGES))
def test_packages_import_one_another_in_one_direction(path):
    allowed = next(names for start, names in MAY_IMPORT.items() if path.startswith(start))
    own = path.partition("/")[0]
    foreign = [n for n in imports(read(path)) if within(n, PACKAGES) and not within(n, (own,))]
    assert [name for name in foreign if not within(name, allowed)] == []


@pytest.mark.parametrize("path", sources(*PACKAGES))
def test_packages_import_neither_scripts_nor_tests(path):
    assert [name for name in imports(read(path)) if within(name, ("scripts", "tests"))] == []


@pytest.mark.parametrize("name", METHOD)
def test_the_method_is_pure(name):
    source = read(f"sefar_core/{name}.py")
    allowed = METHOD_LIBRARIES | {f"sefar_core.{other}" for other in METHOD}
    assert [found for found in imports(source) if not within(found, allowed)] == []
    calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)}
    assert calls & IMPURE_CALLS == set()


@pytest.mark.parametrize("path", sources("qa_data"))
def test_the_question_builder_names_no_torch(path):
    assert [name for name in imports(read(path)) if within(name, {"torch", "torchvision"})] == []


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
    """The project's settings of ruff leave this out for the packages, because of the axes."""
    assert undefined(*PACKAGES, "scripts", "benchmarks", "demo") == []
    (tmp_path / "faulty.py").write_text('def f(a: Float[Tensor, "clip row"]) -> None:\n    g(a)\n')
    assert [line.rpartition(" ")[2] for line in undefined(str(tmp_path))] == [
        "`Float`",
        "`Tensor`",
        "`g`",
    ]


def test_the_question_builder_runs_without_torch():
    modules = [path.removesuffix(".py").replace("/", ".") for path in sources("qa_data")]
    code = "import sys; sys.modules['torch'] = None\n" + "\n".join(
        f"import {module.removesuffix('.__init__')}" for module in modules
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [*sources("scripts"), *(f"{p}/config.py" for p in PACKAGES[1:])])
def test_a_command_line_is_parsed_before_anything_slow_is_imported(path):
    slow = {name: by for name, by in reached_by(path).items() if name in SLOW_TO_IMPORT}
    assert slow == {}


def importers() -> dict[str, set[str]]:
    """The files of ours that each file of ours imports, at once or later."""
    places = sources(*PACKAGES, "scripts", "benchmarks", "demo")
    return {
        path: {module_file(name) for name in imports(read(path))} & set(places) - {path}
        for path in places
    }


def on_circles(graph: dict[str, set[str]]) -> list[str]:
    """What reaches itself, sorted."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        queue = [start]
        while queue:
            found = graph.get(queue.pop(), set()) - seen
            seen |= found
            queue += found
        return seen

    return sorted(one for one in graph if one in reached(one))


def test_no_modules_import_one_another_in_a_circle():
    assert on_circles(importers()) == []


def test_no_folders_of_a_package_import_one_another_in_a_circle():
    """A package's own files are its top: they may use every folder, and every folder them."""
    folders: dict[str, set[str]] = {}
    for path, others in importers().items():
        here = path.rpartition("/")[0]
        there = {other.rpartition("/")[0] for other in others} - {here}
        folders.setdefault(here, set()).update(name for name in there if "/" in name)
    assert on_circles({name: found for name, found in folders.items() if "/" in name}) == []


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert on_circles(graph) == ["b", "c"]


def test_imports_are_found_wherever_they_hide():
    source = "import a.b\nfrom c import d\ndef f():\n    from e.g import h\nif True:\n    import i"
    assert sorted(imports(source)) == ["a.b", "c.d", "e.g.h", "i"]
    assert sorted(imports(source, everywhere=False)) == ["a.b", "c.d", "i"]
    with pytest.raises(AssertionError, match="relative"):
        list(imports("from . import x"))


def test_a_package_is_not_its_namesake():
    assert within("qa_data.manifest.Clip", ("qa_data.manifest",))
    assert not within("qa_data.manifesto", ("qa_data.manifest",))


def test_only_the_console_that_takes_no_markup_prints_tables():
    outside = sources(*PACKAGES, "scripts", "benchmarks")
    makers = [path for path in outside if "rich.console" in read(path)]
    assert makers == ["qa_data/terminal.py"]
