"""What benchmarks/stretches.py counts, with a few stretches of three files."""

import json
from dataclasses import replace

import pytest

from benchmarks.stretches import Stretches, counted, main
from sefar_core.data.video import VideoReadError, read_fractions
from tests.oracles.numbered_table import CASES

FILES = ("h264.mp4", "vp8.webm", "mpeg2-b.mkv")
SMALL = Stretches(stretches=2, files=FILES)


def test_each_file_has_a_line_and_all_have_one(tmp_path, capsys):
    main(replace(SMALL, out=tmp_path))
    (table,) = tmp_path.glob("*-stretches-2-*.md")
    names = [case.name for case in CASES if case.name in FILES]
    assert table.read_text().splitlines()[2:6] == [
        *(f"| {name} | 2 | 0 | 0 | 0.0 % |" for name in names),
        "| all 3 files | 6 | 0 | 0 | 0.0 % |",
    ]
    record = json.loads(table.with_suffix(".json").read_text())
    assert record["figures"]["all 3 files"] == {"right": 6, "wrong": 0, "refused": 0}
    assert {"commit", "command", "packages"} <= set(record)
    with pytest.raises(SystemExit, match="no such file: none.mp4"):
        main(replace(SMALL, files=("none.mp4",)))


def test_a_reader_that_is_late_is_wrong_and_one_that_refuses_is_not(tmp_path, capsys):
    film = tmp_path / CASES[0].name
    CASES[0].make(film)

    def late(path, fractions, *, start_s, end_s):
        begins_s = max(start_s - 0.04, 0.0)
        return read_fractions(path, fractions, start_s=begins_s, end_s=begins_s + end_s - start_s)

    def refusing(path, fractions, *, start_s, end_s):
        raise VideoReadError(f"{path} is not to be read")

    settings = Stretches(stretches=20, reader="decord")
    assert counted(CASES[0], film, settings, late)["wrong"] > 15
    assert "in place of" in capsys.readouterr().out
    assert counted(CASES[0], film, settings, read_fractions) == {"right": 20}
    assert counted(CASES[0], film, settings, refusing) == {"refused": 20}
