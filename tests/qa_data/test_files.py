"""Text is read from files and pipes; files are written whole, with the user's permissions."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qa_data.files import (
    SefarError,
    WriteError,
    by_umask,
    draft_of,
    new_folder,
    read_text,
    remove_drafts,
    write_text,
)
from tests.oracles.full_disk import files_of_at_most


def read(path):
    return read_text(path, error=SefarError, missing=f"there is no {path}", fix="give a text file")


def test_text_is_read_from_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        written = pool.submit(pipe.write_bytes, "\ufeffä\n".encode())
        assert read(pipe) == "ä\n"
        written.result()
    receiver, sender = os.pipe()  # as `<(...)` gives it
    os.write(sender, b"text")
    os.close(sender)
    assert read(Path(f"/dev/fd/{receiver}")) == "text"
    os.close(receiver)


def test_what_holds_no_text_is_refused_with_its_reason(tmp_path):
    with pytest.raises(SefarError, match=f"there is no {tmp_path / 'nowhere'}$"):
        read(tmp_path / "nowhere")
    with pytest.raises(SefarError, match=f"cannot read {tmp_path}: Is a directory; give a text"):
        read(tmp_path)


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_get_the_permissions_of_an_opened_file_and_no_others(tmp_path, umask):
    (tmp_path / "inner").mkdir()
    private = [tmp_path / "weights", tmp_path / "inner" / "part"]
    for file in private:
        file.touch(mode=0o600)
    (tmp_path / "opened").touch()
    by_umask(private[1])
    assert (mode(private[0]), mode(private[1])) == (0o600, 0o666 & ~umask)
    by_umask(tmp_path)
    assert {mode(file) for file in private} == {0o666 & ~umask} == {mode(tmp_path / "opened")}
    assert os.umask(umask) == umask


def test_text_is_written_with_the_permissions_of_an_opened_file(tmp_path, umask):
    write_text(tmp_path / "new" / "text", "ä\n")
    assert (tmp_path / "new" / "text").read_bytes() == "ä\n".encode()
    assert mode(tmp_path / "new" / "text") == 0o666 & ~umask


def test_a_write_that_fails_leaves_the_old_text_and_no_draft(tmp_path):
    path = tmp_path / "text"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


FULL = r"cannot write .*answers: .*File too large; it needs 21 bytes, [\d,]+ are free\. Make room"


def test_a_full_disk_is_reported_with_the_name_of_the_file_or_folder(tmp_path):
    with files_of_at_most(8), pytest.raises(WriteError, match=FULL):
        write_text(tmp_path / "answers", "more than eight bytes")
    full = pytest.raises(WriteError, match=FULL)
    with files_of_at_most(8), full, new_folder(tmp_path / "answers", 21):
        (draft_of(tmp_path / "answers") / "one").write_text("more than eight bytes")
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_has_its_name_and_place_once_it_is_complete(tmp_path, umask):
    folder = tmp_path / "over" / "answers"
    with new_folder(folder) as draft:
        (draft / "one").touch(mode=0o600)
        (draft / "inner").mkdir()
        (draft / "inner" / "two").write_text("2")
        assert not folder.exists() and draft == draft_of(folder)
    assert mode(folder / "one") == 0o666 & ~umask
    assert (folder / "inner" / "two").read_text() == "2"
    with new_folder(folder) as draft:
        (draft / "three").touch()
    assert [path.name for path in folder.iterdir()] == ["three"]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_a_folder_that_is_not_completed_leaves_the_old_one_and_no_draft(tmp_path, kind):
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "old").touch()
    with pytest.raises(kind), new_folder(tmp_path / "answers") as draft:
        (draft / "new").touch()
        raise kind
    assert [path.name for path in tmp_path.rglob("*")] == ["answers", "old"]


def test_an_old_folder_is_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    folder = tmp_path / "answers"
    folder.mkdir()
    (folder / "old").touch()
    rename = Path.rename

    def refuse(path: Path, to: Path) -> Path:
        if path == draft_of(folder):
            raise PermissionError(13, "Permission denied")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(WriteError, match="answers: .*Permission denied"), new_folder(folder):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["answers", "old"]


def test_drafts_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    for name in (".answers.77", ".other.77", ".answers.part", "answers.77"):
        (tmp_path / name).mkdir()
    remove_drafts(tmp_path, "answers")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".answers.part", ".other.77", "answers.77"]
    remove_drafts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".answers.part", "answers.77"]
