"""Wrong options: which classes are beside the answer.

Each rule is a function of the answer's class, the pool, a count and a generator, and gives the
classes of the wrong options.

- `public`: the rule of the public sets. Other classes, all equally likely. Answers are long-tailed
  and wrong options are not, so that the commonest option is right nearly half of the time; and
  two classes may read alike, so that a question may print a text twice.
- `distinct`: the same without repeated texts.
- `prior`, `event_prior`, `set_prior`: from all classes, the answer's apparatus, or its set, such
  that the options of a question are exchangeable. Sets of k texts are drawn by a design in which
  a text is included with k times its share of the clips asked about; given the answer, the
  others are drawn from what is left of the design. Then the answer is each member of a set with
  probability 1/k, whatever the set, and no rule that reads only the options can do better. Where a
  text is commoner than 1/k that cannot be: it is put in every set, and a blind guess is right
  with at most its share, which no rule can undercut.
- `attribute`: grids of two attributes, at chance too (see `balanced_design`); `generate` takes
  `event_prior` for the clips that it leaves over.

The design is conditional Poisson sampling: a set of k units is drawn with probability proportional
to the product of its units' weights. Of all designs of fixed size with the same inclusion
probabilities it has the most entropy, and what is left of it once one unit is known to be in the
set is again such a design, which is what makes it usable for options: the answer is known, the rest
is drawn. Source: Chen, Dempster and Liu, Biometrika 81 (1994) 457-469; Tille, Sampling Algorithms
(2006), chapter 5. The weights are found by a damped iteration on log-odds in place of theirs, which
slows down where an inclusion probability is near one.
"""

import bisect
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qa_data.files import SefarError
from qa_data.taxonomy import ElementClass

ALWAYS = 1 - 1e-9  # an inclusion probability from here on is a certainty
DAMPING = 0.7  # undamped, two units of which one is drawn would swing forever
PRECISION = 1e-12  # largest error of an inclusion probability
MAX_ITERATIONS = 10_000


class TooFewOptions(SefarError):
    """A pool has too few different options. The message names pool, found value and fix."""


@dataclass(frozen=True, kw_only=True)
class OptionDesign:
    """A random set of `size` texts out of a pool, exchangeable with the answer."""

    labels: Sequence[Sequence[int]]
    """Classes of each text; classes that read alike are one text."""
    shares: Sequence[Sequence[float]]
    """Share of each of these classes in the clips asked about; all together 1."""
    always: Sequence[int]
    """Texts in every set, by position."""
    drawn: Sequence[int]
    """Texts of which the rest is drawn, by position."""
    weights: Sequence[float] | np.ndarray
    """Their weights in the design."""
    size: int
    """Texts in a set."""
    bound: float
    """Share of questions that the best blind rule gets right: 1 / size, or more (see above)."""
    tables: dict[int, list[list[float]]] = field(default_factory=dict, repr=False, compare=False)

    def others(self, answer: int, rng: random.Random) -> list[int]:
        """Classes of the other members of a set that holds the class `answer`."""
        right = next(text for text, labels in enumerate(self.labels) if answer in labels)
        if right not in self.tables:
            weights = np.where(np.equal(self.drawn, right), 0, self.weights)
            num_drawn = self.size - len(self.always) - (right not in self.always)
            self.tables[right] = draw_table(weights, num_drawn)
        positions = draw_set(self.tables[right], rng)
        texts = [text for text in self.always if text != right]
        texts += [self.drawn[position] for position in positions]
        return [rng.choices(self.labels[text], self.shares[text])[0] for text in texts]


@dataclass(frozen=True, kw_only=True)
class ClassPool:
    """The classes of a benchmark and how many of the clips asked about each has."""

    classes: Mapping[int, ElementClass]
    num_clips: Mapping[int, float]
    """By class; classes without any are an option of `public` and `distinct` alone."""
    merged: Mapping[str, str] = field(default_factory=dict)
    """Pools that are one, by name: what `merge` makes."""
    designs: dict[tuple[str, int], OptionDesign] = field(
        default_factory=dict, repr=False, compare=False
    )

    def name(self, label: int, key: Callable[[ElementClass], str]) -> str:
        """The pool of a class among the pools of `key`."""
        name = key(self.classes[label])
        return self.merged.get(name, name)

    def design(self, answer: int, size: int, key: Callable[[ElementClass], str]) -> OptionDesign:
        """The design of the answer's pool.

        Raises:
            TooFewOptions: its clips show fewer than `size` different texts.
        """
        name = self.name(answer, key)
        if (name, size) not in self.designs:
            self.designs[name, size] = _option_design(
                {one: n for one, n in self.num_clips.items() if self.name(one, key) == name},
                {label: one.text for label, one in self.classes.items()},
                size=size,
                name=name,
            )
        return self.designs[name, size]

    def merge(self, names: Iterable[str]) -> "ClassPool":
        """The same classes with the pools of these names made one."""
        names = sorted(names)
        return replace(self, merged=dict.fromkeys(names, " + ".join(names)), designs={})


def pool_of(classes: Mapping[int, ElementClass], labels: Iterable[int]) -> ClassPool:
    """The pool of clips with these labels."""
    return ClassPool(classes=classes, num_clips=dict(sorted(Counter(labels).items())))


def _option_design(
    num_clips: Mapping[int, float], text_of_class: Mapping[int, str], *, size: int, name: str
) -> OptionDesign:
    """The exchangeable design over the texts of the classes that have clips."""
    total = sum(num_clips.values())
    members: dict[str, list[int]] = {}
    for label in sorted(label for label, clips in num_clips.items() if clips):
        members.setdefault(text_of_class[label], []).append(label)
    if len(members) < size:
        raise TooFewOptions(
            f"{name}: {size} different options are needed, but its clips show "
            f"{len(members)} different texts; take fewer options or a wider rule"
        )
    labels = list(members.values())
    shares = [[num_clips[label] / total for label in one] for one in labels]
    share = [sum(num_clips[label] for label in one) / total for one in labels]
    always, drawn, left = _certain_texts(share, size)
    num_drawn = size - len(always)
    return OptionDesign(
        labels=labels,
        shares=shares,
        always=always,
        drawn=drawn,
        weights=weights_for([num_drawn * share[text] / left for text in drawn])
        if num_drawn
        else [],
        size=size,
        bound=max([share[text] for text in always] + ([left / num_drawn] if num_drawn else [])),
    )


def _certain_texts(share: Sequence[float], size: int) -> tuple[list[int], list[int], float]:
    """Texts too common to be left out of a set, the other texts, and the share of the others."""
    always: list[int] = []
    drawn = list(range(len(share)))
    left = 1.0
    while drawn and (size - len(always)) * max(share[text] for text in drawn) >= ALWAYS * left:
        commonest = max(drawn, key=lambda text: share[text])
        always.append(commonest)
        drawn.remove(commonest)
        left = sum(share[text] for text in drawn)
    return always, (drawn if len(always) < size else []), left


def everywhere(element: ElementClass) -> str:
    """One pool for all classes."""
    return "all classes"


def same_event(element: ElementClass) -> str:
    """One pool for each apparatus."""
    return f"event {element.event}"


def same_set(element: ElementClass) -> str:
    """One pool for each set."""
    return f"set {element.set_id}"


def public(answer: int, pool: ClassPool, count: int, rng: random.Random) -> list[int]:
    """`count` different classes other than the answer's, all equally likely."""
    return rng.sample(_other_classes(answer, pool, count), count)


def distinct(answer: int, pool: ClassPool, count: int, rng: random.Random) -> list[int]:
    """As `public`, but a class whose text is printed already is passed over."""
    others = _other_classes(answer, pool, count)
    printed = {pool.classes[answer].text}
    chosen: list[int] = []
    for label in rng.sample(others, len(others)):
        if len(chosen) < count and pool.classes[label].text not in printed:
            chosen.append(label)
            printed.add(pool.classes[label].text)
    if len(chosen) < count:
        raise TooFewOptions(
            f"class {answer} needs {count} wrong options, but only {len(chosen)} other texts "
            f"exist among {len(pool.classes)} classes; take fewer options"
        )
    return chosen


def prior(answer: int, pool: ClassPool, count: int, rng: random.Random) -> list[int]:
    """Exchangeable with the answer, from all classes."""
    return pool.design(answer, count + 1, everywhere).others(answer, rng)


def event_prior(answer: int, pool: ClassPool, count: int, rng: random.Random) -> list[int]:
    """Exchangeable with the answer, from its apparatus."""
    return pool.design(answer, count + 1, same_event).others(answer, rng)


def set_prior(answer: int, pool: ClassPool, count: int, rng: random.Random) -> list[int]:
    """Exchangeable with the answer, from its set."""
    return pool.design(answer, count + 1, same_set).others(answer, rng)


def _other_classes(answer: int, pool: ClassPool, count: int) -> list[int]:
    others = sorted(pool.classes.keys() - {answer})
    if len(others) < count:
        raise TooFewOptions(
            f"class {answer} needs {count} wrong options, but there are {len(others)} other "
            f"classes; take fewer options"
        )
    return others


DISTRACTORS = {f.__name__: f for f in (public, distinct, prior, event_prior, set_prior)}
POOLS = {"prior": everywhere, "event_prior": same_event, "set_prior": same_set}
OTHER_NAMES = {"hard": "event_prior"}


def weights_for(inclusion: Sequence[float]) -> np.ndarray:
    """Weights whose design includes each unit with its given probability.

    They are in [0, 1) and sum to the number of units in a set. A unit at 0 gets the weight 0.

    Raises:
        ValueError: a probability is out of range, or they do not sum to a whole number above 0.
    """
    wanted = np.asarray(inclusion, dtype=float)
    size = round(float(wanted.sum()))
    if size < 1 or abs(float(wanted.sum()) - size) > 1e-9 or wanted.min() < 0 or wanted.max() >= 1:
        raise ValueError(
            f"inclusion probabilities must be in [0, 1) and sum to a whole number, got values "
            f"in [{wanted.min():.6g}, {wanted.max():.6g}] that sum to {wanted.sum():.12g}"
        )
    possible = wanted > 0
    aim = _log_odds(wanted[possible])
    logs = aim.copy()
    for _ in range(MAX_ITERATIONS):
        found = inclusions(np.exp(logs), size)
        if np.abs(found - wanted[possible]).max() < PRECISION:
            weights = np.zeros(len(wanted))
            weights[possible] = np.exp(logs)
            return weights
        logs += DAMPING * (aim - _log_odds(found))
        logs -= logs.mean()  # only ratios count
    raise RuntimeError(f"no weights found for {wanted} in {MAX_ITERATIONS} iterations")


def inclusions(weights: np.ndarray, size: int) -> np.ndarray:
    """Probability of each unit to be in a set of `size` units."""
    after = _set_weights(weights, size)
    before = _set_weights(weights[::-1], size)[:, ::-1]
    # A unit's sets: some members before it, the others after it.
    without = sum(before[taken, :-1] * after[size - 1 - taken, 1:] for taken in range(size))
    return weights * without / after[size, 0]


def _set_weights(weights: np.ndarray, size: int) -> np.ndarray:
    """Row r, column i: total weight of all sets of r of the units from i on (r = 0 .. size)."""
    total = np.zeros((size + 1, len(weights) + 1))
    total[0] = 1
    for taken in range(1, size + 1):
        ways = weights * total[taken - 1, 1:]
        total[taken, :-1] = np.cumsum(ways[::-1])[::-1]
    return total


def draw_table(weights: np.ndarray, size: int) -> list[list[float]]:
    """What `draw_set` reads: `_set_weights`, each row turned so that it ascends."""
    return _set_weights(weights, size)[:, ::-1].tolist()


def draw_set(table: Sequence[Sequence[float]], rng: random.Random) -> list[int]:
    """Positions of the units of one set, ascending, drawn by their weights: a number for each."""
    num_units = len(table[0]) - 1
    start = 0
    drawn = []
    for missing in range(len(table) - 1, 0, -1):
        row = table[missing]
        # row[num_units - i] is the weight of all sets that begin at unit i or later.
        mark = rng.random() * row[num_units - start]
        position = num_units - bisect.bisect_right(row, mark, 0, num_units - start + 1)
        drawn.append(position)
        start = position + 1
    return drawn


def _log_odds(probs: np.ndarray) -> np.ndarray:
    return np.log(probs) - np.log1p(-probs)
