"""Files are written whole, and with the permissions that the user's umask asks for."""

import os
import resource
import stat

import pytest

from qa_data.files import by_umask, write_text


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_file_of_a_folder_gets_the_permissions_of_an_opened_file(tmp_path, umask):
    (tmp_path / "inner").mkdir()
    private = [tmp_path / "weights", tmp_path / "inner" / "part"]
    for file in private:
        file.touch(mode=0o600)
    (tmp_path / "opened").touch()
    by_umask(tmp_path)
    assert {mode(file) for file in private} == {0o666 & ~umask} == {mode(tmp_path / "opened")}


def test_permissions_of_a_file_leave_its_neighbors_and_the_umask_alone(tmp_path, umask):
    for name in ("one", "other"):
        (tmp_path / name).touch(mode=0o600)
    by_umask(tmp_path / "one")
    assert mode(tmp_path / "one") == 0o666 & ~umask
    assert mode(tmp_path / "other") == 0o600
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


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    """A limit on the size of files stands for the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/answers\.json'"):
            write_text(tmp_path / "answers.json", "more than eight bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
