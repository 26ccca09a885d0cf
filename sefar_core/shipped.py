"""The demo's small models, which are files of the packages: their names, and where they are.

Settings and model folders record a name, which is the same on every machine and from every working
folder, where a path is not. demo/backbone.py and demo/llm.py make the models.
"""

from importlib.resources import files
from pathlib import Path

PLACES = {
    "demo:vit": ("sefar_core", "demo_weights/vit.safetensors"),
    "demo:llm": ("sefar_mllm", "demo_weights"),
}
OLD_PATHS = {"demo/backbone/vit.safetensors": "demo:vit", "demo/llm": "demo:llm"}
"""Where the models were in a checkout, which settings of older code record."""


def present_name(name: str | Path) -> str:
    """The name of a shipped model for the path that it had, unless that exists; else `name`."""
    return str(name) if Path(name).exists() else OLD_PATHS.get(str(name), str(name))


def shipped(name: str | Path) -> str:
    """The path of a shipped model, by its name or its old path; any other name as it is."""
    present = present_name(name)
    if present not in PLACES:
        return present
    package, place = PLACES[present]
    return str(files(package).joinpath(place))
