"""A public checkpoint becomes an encoder, by the script as a user runs it."""

from functools import partial

import pytest
import torch

import sefar_core
from tests.oracles.public_model import save_toy
from tests.script_process import run_script

convert = partial(run_script, "convert_checkpoint.py")


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "public.pyth"
    return save_toy(path, classes=5), path


def test_an_encoder_made_of_a_public_checkpoint_gives_its_logits(tmp_path, toy):
    public, path = toy
    done = convert("from-public", path, tmp_path / "made" / "student")
    assert done.returncode == 0, done.stderr
    assert "5 classes, elements of 2-2-4 frames" in done.stdout
    encoder = sefar_core.load_encoder(tmp_path / "made")
    clips = [torch.randn(1, 3, t, 32, 32) for t in (2, 2, 4)]
    torch.testing.assert_close(encoder(clips), public(clips), atol=1e-4, rtol=0)
    assert encoder.mean == (0.4, 0.5, 0.6)


def test_the_form_may_be_written_with_an_underscore(tmp_path, toy):
    done = convert("from_public", toy[1], tmp_path / "student")
    assert done.returncode == 0, done.stderr


def test_what_exists_is_not_overwritten_and_a_wrong_file_is_refused_in_a_line(tmp_path, toy):
    _, path = toy
    (tmp_path / "precious").mkdir()
    done = convert("from-public", path, tmp_path / "precious")
    assert done.returncode == 1 and "precious exists already" in done.stderr
    path.write_text("no checkpoint")
    done = convert("from-public", path, tmp_path / "made")
    assert done.returncode == 1 and not (tmp_path / "made").exists()
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
