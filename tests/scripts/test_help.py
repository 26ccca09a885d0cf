"""`--help` of every script: an example, every setting with a sentence, lines that fit."""

import re
from functools import cache

import pytest

from tests.script_process import COLUMNS, ROOT, call_script, run_script

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
# Settings come behind a first word: a preset, a data set, or what to do.
FIRST_WORDS = {
    "compare_encoders.py": ["demo"],
    "finetune_mllm.py": ["demo"],
    "make_splits.py": ["finegym", "folders", "ucf101"],
    "train_ssl.py": ["demo"],
}
CASES = [(name, word) for name in SCRIPTS for word in ["", *FIRST_WORDS.get(name, [])]]


@cache
def shown(name: str, word: str) -> str:
    """What --help of a script prints, behind its first word if there is one."""
    done = call_script(name, *word.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_starts_in_a_process_of_its_own(name):
    done = run_script(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == shown(name, "")


def settings(text: str) -> dict[str, str]:
    """The words behind each setting of a help text, without its type and default."""
    inside = "\n".join(line.strip("│ ") for line in text.splitlines() if line.startswith("│"))
    blocks = re.split(r"^(?=-)", inside, flags=re.MULTILINE)
    found = {}
    for block in (block for block in blocks if block.startswith("-")):
        first, _, rest = block.partition("\n")
        names, *behind = re.split(r" {2,}", first, maxsplit=1)
        words = " ".join([*behind, rest]).replace("\n", " ")
        found[names.split()[0]] = re.sub(r"\((default|required|repeatable)[^()]*\)", "", words)
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_has_an_example(name):
    examples = [line for line in shown(name, "").splitlines() if line.startswith("    ")]
    assert any(re.search(rf"scripts/{re.escape(name)}\b", line) for line in examples)


@pytest.mark.parametrize(("name", "word"), CASES)
def test_every_setting_has_a_sentence_and_lines_fit_the_terminal(name, word):
    text = shown(name, word)
    found = settings(text)
    bare = [setting for setting, words in found.items() if len(re.findall(r"\w+", words)) < 2]
    assert bare == [] and (word == "" or len(found) > 3)
    lines = [line for line in text.splitlines() if not line.startswith("usage")]
    assert [line for line in lines if len(line) > COLUMNS] == []
    assert "{None}" not in text  # optional settings show their type
