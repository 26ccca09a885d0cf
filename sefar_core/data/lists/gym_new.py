"""Gym-New: pairs of Gym288 classes that look alike in every picture and differ in their motion.

Two classes oppose one another if their texts are the same but for "forward" and "backward", or for
"high bar" and "low bar". Gym288 has 24 such pairs, and the public label files of SeFAR
(arXiv:2501.01245) have 20 of them. What the other four have in common is said in LEFT_OUT; the
paper gives no reason, so that the rule is read off its files.
"""

import re
from collections.abc import Iterable

from qa_data.taxonomy import DIRECTIONS, ElementClass, opposite_pairs
from sefar_core.data.lists.listing import ListError

BARS = ("high bar", "low bar")

# Of the floor's saltos the stretched ones only; and no giant circle with half a turn.
LEFT_OUT = re.compile(r"FX .*salto .*(tucked|piked).*|UB giant circle .* with 0\.5 turn .*")


def gym_new_pairs(classes: Iterable[ElementClass]) -> list[tuple[int, int]]:
    """Labels of the opposing classes, lower label first, pairs ascending.

    Raises:
        ListError: no two classes oppose one another, or a class has two opposites.
    """
    kept = [one for one in classes if not LEFT_OUT.fullmatch(f"{one.event} {one.text}")]
    pairs = sorted(opposite_pairs(kept, DIRECTIONS) + opposite_pairs(kept, BARS))
    labels = [label for pair in pairs for label in pair]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ListError(
            f"class {twice[0]} has two opposites in the class list, so that no pairs can be made; "
            f"Gym-New is made from gym288_categories.txt"
        )
    if not pairs:
        raise ListError(
            "no two classes of the class list oppose one another, so that there is no Gym-New in "
            "it; it is made from gym288_categories.txt"
        )
    return pairs


def gym_new_labels(classes: Iterable[ElementClass]) -> dict[int, int]:
    """Label in Gym-New by label in the class list: the k-th pair becomes 2k and 2k + 1.

    Raises:
        ListError: see gym_new_pairs.
    """
    pairs = gym_new_pairs(classes)
    return {label: number for number, label in enumerate(one for pair in pairs for one in pair)}
