"""The benchmark of lists measures what it says, at toy size."""

import pytest

from benchmarks import lists

pytestmark = pytest.mark.skipif(
    not lists.Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc"
)


@pytest.mark.parametrize("name", ["FineGym", "Kinetics-400"])
def test_every_step_runs_on_every_set(name, tmp_path, monkeypatch):
    monkeypatch.setitem(lists.NUM_CLIPS, name, 2100)
    monkeypatch.setitem(lists.NUM_CLASSES, name, 12)
    write = lists.write_finegym_lists if name == "FineGym" else lists.write_kinetics_lists
    write(tmp_path)
    listing = lists.listing_of(name, tmp_path)
    assert len(listing.pool) + len(listing.settled) == 2100
    assert len(listing.classes) == 12
    for step in lists.STEPS:
        cost = lists.measured(step, name, tmp_path)
        assert cost.wall_s > 0 and cost.peak_mb > 10
    assert len(lists.manifest.read_manifest(tmp_path / "manifest.csv")) == 2100
