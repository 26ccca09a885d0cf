"""What a synthetic set is made from, checked where it is set."""

from dataclasses import dataclass

from qa_data.synthetic.clip import Without
from qa_data.synthetic.elements import ALL_CLASSES, DEMO_CLASSES, Element

MIN_SIZE = 48
"""Smallest frame in pixels in which front and back of the figure can be told apart."""

_ELEMENTS = {element.name: element for element in ALL_CLASSES}
_SELECTIONS = {"demo": DEMO_CLASSES, "all": ALL_CLASSES}


class SettingsError(ValueError):
    """Settings from which no set can be made. The message names the field and the mend."""


@dataclass(frozen=True, kw_only=True)
class SyntheticSettings:
    """A synthetic set. The same settings give the same clips."""

    classes: tuple[str, ...] = ("demo",)
    """`demo`, `all`, or names of classes like `(FX) salto forward tucked`; labels follow them."""
    num_train: int = 2000
    """Clips in train_element.txt."""
    num_test: int = 360
    """Clips in val_element.txt, the official validation list, which serves as the test set."""
    num_train_sources: int = 24
    """Source videos (athlete and arena) of the training clips."""
    num_test_sources: int = 12
    """Source videos of the test clips, none of them a training source."""
    size: int = 72
    """Side of the square frames in pixels, even."""
    seed: int = 0
    """Everything is drawn from it, at least 0."""
    without: Without | None = None
    """For controls: the same clips with the figure, or figure and apparatus, left out."""
    only_test: bool = False
    """Render the videos of the test list alone; the lists stay whole."""

    def __post_init__(self) -> None:
        if not self.classes:
            raise SettingsError("classes is empty: choose demo, all, or at least one class by name")
        known = _SELECTIONS.keys() | _ELEMENTS.keys()
        if unknown := [name for name in self.classes if name not in known]:
            raise SettingsError(
                f"classes holds {unknown[0]!r}, which no class is called: choose demo, all, or "
                f"names from qa_data.synthetic.elements.ALL_CLASSES, like {min(_ELEMENTS)!r}"
            )
        if len(set(self.class_names)) < len(self.class_names):
            raise SettingsError(f"classes names a class twice; name each once, got {self.classes}")
        if self.size < MIN_SIZE or self.size % 2:
            raise SettingsError(
                f"size must be even and at least {MIN_SIZE} pixels, got {self.size}: H.264 stores "
                f"color in 2x2 blocks, and smaller figures cannot be read"
            )
        if self.seed < 0:
            raise SettingsError(f"seed must be at least 0, got {self.seed}")
        self._check_counts()

    def _check_counts(self) -> None:
        for name in ("num_train", "num_test"):
            if getattr(self, name) < 2 * len(self.elements):
                raise SettingsError(
                    f"{name} must be at least {2 * len(self.elements)}, two clips for each of the "
                    f"{len(self.elements)} classes, got {getattr(self, name)}"
                )
        for name in ("num_train_sources", "num_test_sources"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def elements(self) -> tuple[Element, ...]:
        """The classes, in the order of their labels."""
        chosen = (_SELECTIONS.get(name) or (_ELEMENTS[name],) for name in self.classes)
        return tuple(element for elements in chosen for element in elements)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Apparatus and text of each class, in the order of their labels."""
        return tuple(element.name for element in self.elements)
