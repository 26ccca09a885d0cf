"""scripts/chat.py: what a stranger wrote into a file never reaches the terminal as it is."""

import dataclasses
import importlib.util
import io
import json
import sys
from pathlib import Path

from sefar_core.cli import start

import pytest

import sefar_mllm
from qa_data.files import SefarError
from sefar_mllm import checkpoint
from sefar_mllm.chat import batch
from sefar_mllm.chat.assistant import Assistant

SCRIPT = Path(__file__).parents[2] / "scripts" / "chat.py"
ESCAPE = "\x1b[2J\x9b31m"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("chat_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    """Who is loaded, and answers nothing."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    made = Assistant.__new__(Assistant)
    monkeypatch.setattr(sefar_mllm, "from_pretrained", lambda *_, **__: made, raising=False)
    monkeypatch.setattr(checkpoint, "read_config", lambda _: None)
    return made


def settings(script, tmp_path, **more):
    line = {"id": f"a{ESCAPE}", "video": f"{ESCAPE}/../../b.mp4", "question": "Why?"}
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "fingerprint.json").write_text("[]")
    files = {"batch": tmp_path / "in.jsonl", "out": tmp_path / "out.jsonl"}
    return script.Talk(model=tmp_path / "model", **files, **more)


def test_names_and_causes_are_printed_without_escapes(script, tmp_path, monkeypatch, capsys):
    def answer_all(assistant, inquiries, out, **_):
        return {inquiries[0].id: f"{inquiries[0].video} does not exist"}

    monkeypatch.setattr(batch, "answer_all", answer_all)
    with pytest.raises(SystemExit) as ended:
        script.main(settings(script, tmp_path))
    message = capsys.readouterr().out
    assert ended.value.code == 1
    assert "question a[2J31m: [2J31m/../../b.mp4 does not exist" in message
    assert "\x1b" not in message and "\x9b" not in message


def test_refusals_are_told_without_escapes(script, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        start(script.main, lambda: settings(script, tmp_path, video_root=tmp_path))
    message = capsys.readouterr().err
    assert ended.value.code == 1 and "leads out of --video-root" in message
    assert "\x1b" not in message and "\x9b" not in message


def test_what_the_answers_depend_on_is_written_beside_them(script, tmp_path, monkeypatch):
    def answer_all(*_, settings, **__):
        known.update(settings)
        return {}

    known: dict[str, object] = {}
    monkeypatch.setattr(batch, "answer_all", answer_all)
    with pytest.raises(SystemExit):
        script.main(settings(script, tmp_path, four_bit=True, video_root=tmp_path))
    assert known["four_bit"] is True and known["video_root"] == str(tmp_path.resolve())


def test_four_bits_that_cannot_be_had_are_told_in_a_line(script, tmp_path, monkeypatch):
    def load(settings):
        raise SefarError("it needs bitsandbytes")

    monkeypatch.setattr(script, "load", load)
    with pytest.raises(SefarError, match="it needs bitsandbytes"):
        script.main(script.Talk(model=tmp_path, four_bit=True))


def test_compiling_and_limits_are_passed_on(script, nobody, tmp_path):
    asked = script.Talk(model=tmp_path, compiled=True)
    assert script.load(asked) is nobody
    assert nobody.compiled and nobody.limits == asked.limits


@pytest.mark.parametrize("place", ["in.jsonl", "model", "missing/out.jsonl"])
def test_where_answers_cannot_be_written_is_found_before_the_model_is_loaded(
    script, tmp_path, monkeypatch, capsys, place
):
    monkeypatch.setattr(sefar_mllm, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    asked = dataclasses.replace(settings(script, tmp_path), out=tmp_path / place)
    before = asked.batch.read_text()
    with pytest.raises(SystemExit):
        start(script.main, lambda: asked)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and place in line and "delete" not in line
    assert asked.batch.read_text() == before
