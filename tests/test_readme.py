"""README and docs tell the truth: links lead somewhere, commands parse, files exist."""

import ast
import re
import runpy
import shlex
from pathlib import Path

import sefar_core.cli

import pytest
import torch
from PIL import Image

from qa_data.manifest import Clip, read_manifest
from qa_data.synthetic.clip import write_video
from qa_data.taxonomy import ElementClass
from sefar_core.checkpoint import save_encoder
from sefar_core.data.datasets.records import ListError
from tests.oracles import tiny
from tests.script_process import ROOT, call_script

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
README = PAGES["README.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    r"(?:\w+=\S+ )*(?:python|accelerate launch) (?:--[\w-]+ (?:[^-\s]\S* )?)*?(scripts/.*)"
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def blocks(page: str, language: str = "") -> list[str]:
    return [text for found, text in FENCED.findall(PAGES[page]) if found == language]


def headings(page: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", FENCED.sub("", PAGES[page]), flags=re.MULTILINE)


def anchor(heading: str) -> str:
    """The name by which a link names a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_readme_is_short_and_its_first_screen_is_plain():
    lines = README.splitlines()
    assert len(lines) <= 200
    assert not re.search(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,12}\b", "\n".join(lines[:30]))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for target, part in LINK.findall(PAGES[page]):
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        if part:
            assert part in map(anchor, headings(str(path.relative_to(ROOT)))), f"{page}: #{part}"


def test_readme_contents_name_its_sections_in_order():
    (contents,) = re.findall(r"\*\*Contents:\*\*.*?\n\n", README, flags=re.DOTALL)
    sections = re.findall(r"^## (.*)$", FENCED.sub("", README), flags=re.MULTILINE)
    assert [part for target, part in LINK.findall(contents) if part] == [*map(anchor, sections)]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_a_page_says_its_purpose_under_its_title_and_is_in_the_index(page):
    _, purpose, *_ = PAGES[page].split("\n\n")
    assert purpose[0].isupper() and purpose.endswith(".")
    assert page == "docs/README.md" or f"]({Path(page).name})" in PAGES["docs/README.md"]


def commands() -> list[list[str]]:
    """The script and arguments of each command, continued lines joined, each once."""
    found = {}
    for page in PAGES:
        for line in re.sub(r"\\\n *", "", "\n".join(blocks(page))).splitlines():
            if match := COMMAND.match(line):
                found[tuple(shlex.split(match[1], comments=True))] = None
    return [list(words) for words in found]


def test_commands_are_found():
    assert len(commands()) >= 25


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[:3]))
def test_a_command_is_taken_by_the_parser_of_its_script(words, tmp_path, monkeypatch):
    parsed = []

    def parse_only(work, parse, **_):
        settings = parse()
        if callable(settings):  # make_splits.py, whose parser goes on to read the lists
            with pytest.raises(ListError):
                settings()
        parsed.append(settings)

    monkeypatch.setattr(sefar_core.cli, "start", parse_only)
    for name in ("videos", "mine"):  # check_videos.py looks for the folder of videos
        (tmp_path / name).mkdir()
    script, *arguments = words
    done = call_script(Path(script).name, *arguments, cwd=tmp_path)
    assert (done.returncode, len(parsed)) == (0, 1), done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles_and_imports_what_exists(page):
    for text in blocks(page, "python"):
        for line in ast.parse(text).body:
            if isinstance(line, ast.Import | ast.ImportFrom):
                exec(ast.unparse(line), {})  # noqa: S102 - our own pages


def test_the_python_of_readme_recognizes_a_clip(tmp_path, monkeypatch, capsys):
    names = ["salto", "stalder", "split leap", "split jump", "vault"]
    save_encoder(tiny.network(), tiny.CONFIG, tmp_path / "runs/mine/student", class_names=names)
    frames = torch.randint(256, (12, 40, 48, 3), dtype=torch.uint8).numpy()
    write_video(tmp_path / "clip.mp4", frames, 25)
    monkeypatch.chdir(tmp_path)
    (text,) = blocks("README.md", "python")
    exec(text[: text.index("assistant =")], {})  # noqa: S102
    best = ast.literal_eval(capsys.readouterr().out)
    assert len(best) == 2
    assert {name for name, _ in best} <= set(names)
    assert all(re.fullmatch(r"\d+%", share) for _, share in best)


def test_the_example_of_a_manifest_is_one(tmp_path):
    (text,) = blocks("docs/manifest.md", "csv")
    (tmp_path / "manifest.csv").write_text(text, encoding="utf-8")
    assert [clip.split for clip in read_manifest(tmp_path / "manifest.csv")] == [
        "labeled", "test", "val", "unlabeled",
    ]  # fmt: skip


def tree() -> list[str]:
    """Every path that the tree names, with its folder."""
    (block,) = blocks("docs/layout.md")
    paths, folder = [], ""
    for line in block.splitlines():
        if line and not line.startswith(" "):
            folder = line.split()[0]
            paths.append(folder)
            line = line.removeprefix(folder)
        paths += [folder + word for word in re.findall(r"[\w/]+\.py|\b[\w]+/(?=\s)", line)]
    return paths


def test_every_file_of_the_tree_exists():
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_the_ledger_names_functions_and_tests_that_exist():
    ledger = PAGES["docs/paper_map.md"]
    tests = re.findall(r"`((?:\w+/)+test_\w+\.py)`", ledger)
    assert len(tests) > 40
    assert [test for test in tests if not (ROOT / "tests" / test).exists()] == []
    for module, name in re.findall(r"`(\w+)\.(\w+)`", ledger):
        file = ROOT / "sefar_core" / f"{module}.py"
        if file.exists() and name != "py":
            assert re.search(rf"(def|class) {name}\b", file.read_text()), f"{module}.{name}"


def texts_of_the_code() -> str:
    """Packages and scripts, with strings joined that go on in the next line."""
    sources = [*ROOT.glob("[sq]*_*/**/*.py"), *ROOT.glob("scripts/*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    return re.sub(r'"\s*\n\s*f?"', "", code).replace('\\"', '"')


def test_messages_of_troubleshooting_are_those_of_the_code():
    rows = re.findall(r"^\| (.*?[^\\]) \|", PAGES["docs/troubleshooting.md"], flags=re.MULTILINE)
    quoted = [text for row in rows for text in re.findall(r"`([^`]*)`", row)]
    pieces = [one.strip() for text in quoted for one in re.split(r"\.\.\.|\d[\d.]*|[«»]", text)]
    messages = [piece for piece in pieces if " " in piece and not piece.startswith("--")]
    assert len(messages) > 50
    code = texts_of_the_code()
    assert [piece for piece in messages if piece not in code] == []


def test_the_picture_shows_the_first_test_clip_of_each_class_of_pairs_far_apart():
    texts = [f"salto {way} {shape}" for shape in ("tucked", "piked", "stretched", "straddled")
             for way in ("forward", "backward")]  # fmt: skip
    classes = {label: ElementClass(label, 1, label, "FX", text) for label, text in enumerate(texts)}
    labels = [5, 0, 1, 2, 3, 4, 6, 7]
    test = [
        Clip(id=f"{label}-{turn}", path="a.mp4", label=label, split="test")
        for turn in range(2)
        for label in labels
    ]
    choose_clips = runpy.run_path(str(ROOT / "docs/picture.py"))["choose_clips"]
    chosen = choose_clips(test, classes, 2)
    assert [clip.id for clip in chosen] == ["0-0", "1-0", "4-0", "5-0"]
    with pytest.raises(ValueError, match="class 4 has no test clip"):
        choose_clips([clip for clip in test if clip.label != 4], classes, 2)


def test_the_picture_moves_and_is_small():
    path = ROOT / "docs/images/demo.webp"
    assert path.stat().st_size <= 1_500_000
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) >= 12
        assert picture.info["loop"] == 0  # forever


@pytest.mark.parametrize("page", PAGES)
def test_no_figure_waits_to_be_filled_in(page):
    assert not re.search(r"PLACEHOLDER|TODO|TBD|XX\.X", PAGES[page])
