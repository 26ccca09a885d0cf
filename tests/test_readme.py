"""README tells the truth: its files exist, its commands are commands, its Python runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """The words of each command that names a script, continued lines joined."""
    blocks = re.findall(r"^```\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    starts = re.compile(r"(python|accelerate launch) scripts/")
    return [line.split() for line in lines if starts.match(line)]


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[:3]))
def test_every_option_of_a_command_is_known_to_its_script(words):
    at = next(i for i, word in enumerate(words) if word.startswith("scripts/"))
    script, rest = words[at], words[at + 1 :]
    subcommand = [] if rest[0].startswith("--") or "/" in rest[0] or "." in rest[0] else [rest[0]]
    told = subprocess.run(
        [sys.executable, str(ROOT / script), *subcommand, "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in (word for word in rest if word.startswith("--")):
        assert re.search(rf"{re.escape(option)}(?![\w.-])", told), f"{script} has no {option}"


def tree() -> list[str]:
    """Every path that the tree names, with its folder."""
    (block,) = re.findall(r"^## The tree\n+```\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    paths, folder = [], ""
    for line in block.splitlines():
        if line and not line.startswith(" "):
            folder = line.split()[0]
            paths.append(folder)
            line = line.removeprefix(folder)
        paths += [folder + word for word in re.findall(r"[\w/]+\.py|\b[\w]+/(?=\s)", line)]
    return paths


@pytest.mark.parametrize("path", sorted(set(tree())))
def test_every_file_of_the_tree_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("package", ["sefar_core", "sefar_mllm", "qa_data"])
def test_every_file_of_a_package_stands_in_the_tree(package):
    files = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
    assert {name for name in files if name not in README} == set()


def test_the_ledger_names_functions_and_tests_that_exist():
    ledger = (ROOT / "docs/paper_map.md").read_text(encoding="utf-8")
    for test in set(re.findall(r"`((?:unit|parity|integration)/test_\w+\.py)`", ledger)):
        assert (ROOT / "tests" / test).exists(), test
    for module, name in re.findall(r"`(\w+)\.(\w+)`", ledger):
        file = ROOT / "sefar_core" / f"{module}.py"
        if file.exists() and name != "py":
            assert re.search(rf"(def|class) {name}\b", file.read_text()), f"{module}.{name}"


def test_no_result_waits_to_be_filled_in():
    assert "PLACEHOLDER" not in README
