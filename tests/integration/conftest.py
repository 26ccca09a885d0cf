"""Processes that scripts run in, forked from one that a session starts once."""

import pytest

from tests.integration.faulty_script import server


@pytest.fixture(scope="session")
def scripts():
    """`scripts.run("train_ssl.py", ...)`: see tests/integration/faulty_script.py."""
    with server() as here:
        yield here
