"""The toy models that many tests read, loaded once. A test that changes one makes its own."""

import pytest

from sefar_mllm.build import load_tokenizer
from tests.oracles import toy_chat, toy_trained
from tests.oracles.letters import sharp_model


@pytest.fixture(scope="session")
def llm(world):
    """The folder of a language model and its tokenizer."""
    return world.language_model


@pytest.fixture(scope="session")
def tokenizer(llm):
    return load_tokenizer(llm)


@pytest.fixture(scope="session")
def sharp(llm):
    """A model with LoRA in which every token counts."""
    return sharp_model(llm)


@pytest.fixture(scope="session")
def saved(llm, tmp_path_factory):
    """A trained model's folder."""
    return toy_trained.save(llm, tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="session")
def assistant(tmp_path_factory):
    return toy_chat.assistant(tmp_path_factory.mktemp("chat"))
