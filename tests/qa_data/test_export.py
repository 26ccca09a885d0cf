"""The folder of an export: whole or not there, and never in the place of somebody's own files."""

import pytest

from qa_data.export.export import write_folder
from qa_data.files import WriteError
from qa_data.questions import QuestionError


def held(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name[0] != "."}


def test_files_are_written_and_replaced_by_the_next_export(tmp_path):
    out = tmp_path / "deep" / "out"
    write_folder(out, {"a.txt": "é\n", "b.bin": b"\x00\xff"})
    assert held(out) == {"a.txt": "é\n".encode(), "b.bin": b"\x00\xff"}
    write_folder(out, {"c.txt": "other"})
    assert held(out) == {"c.txt": b"other"}
    assert [file.name for file in out.parent.iterdir()] == ["out"]
    assert out.stat().st_mode & 0o055 == 0o055


def test_an_empty_folder_may_be_filled(tmp_path):
    write_folder(tmp_path / "out", {"a.txt": "a"})
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", {"a.txt": "a"})
    assert held(tmp_path / "empty") == {"a.txt": b"a"}


@pytest.mark.parametrize("name", ["mine.txt", ".hidden", "folder"])
def test_what_was_not_exported_is_not_replaced(tmp_path, name):
    out = tmp_path / "out"
    write_folder(out, {"a.txt": "a"})
    (out / name).mkdir() if name == "folder" else (out / name).write_text("mine")
    with pytest.raises(QuestionError, match=f"{name} was not exported here, and would be lost"):
        write_folder(out, {"a.txt": "b"})
    assert (out / "a.txt").read_text() == "a" and (out / name).exists()


def test_a_file_changed_by_hand_and_a_file_in_the_folder_s_place_are_kept(tmp_path):
    out = tmp_path / "out"
    write_folder(out, {"README.md": "card"})
    (out / "README.md").write_text("card with my words")
    with pytest.raises(QuestionError, match="README.md was changed since it was exported"):
        write_folder(out, {"README.md": "card"})
    with pytest.raises(QuestionError, match="README.md is a file; give a folder"):
        write_folder(out / "README.md", {"a": "b"})
    with pytest.raises(QuestionError, match="README.md is a file, and .*deep/er cannot be in it"):
        write_folder(out / "README.md" / "deep" / "er", {"a": "b"})


def test_a_write_that_fails_leaves_the_earlier_export(tmp_path):
    out = tmp_path / "out"
    write_folder(out, {"a.txt": "a"})
    with pytest.raises(WriteError, match="No such file"):
        write_folder(out, {"a.txt": "b", "no/such/folder": "c"})
    assert held(out) == {"a.txt": b"a"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
