"""Shape annotations are executed, threads are few, the network is off; the world of a session."""

import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[switch] = "1"

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a background job of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import HealthCheck, settings  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["sefar_core", "sefar_mllm"], "beartype.beartype")

# How long an example takes says nothing on a machine under load. `make test-all` runs
# --hypothesis-profile=thorough.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", patient, max_examples=20)
settings.register_profile("thorough", patient, max_examples=100)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory):
    """The rendered clips and small models of tests/world.py, to read and never to write."""
    from tests.world import World, shared_root

    return World(shared_root(tmp_path_factory.getbasetemp()))
