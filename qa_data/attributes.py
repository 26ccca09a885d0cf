"""What a class's text states about its movement: direction, turns, saltos, shape of the body, kind.

Two sources hold the attributes of a FineGym class: its text, and the tree of yes/no questions by
which FineGym's annotators found it. The grid of options is made of the texts. They are regular:
every class of Gym99 and Gym288 has attributes that no other class of its family has, and classes
that differ in one attribute read alike in all else. The tree's answers are a path and not a table:
only the classes that a branch leads to answer its question, one attribute occurs in many places
under many wordings, and a path may end before the count is known (on the vault, one turn and two
turns are the yes and the no of "Salto with 1 turn?"). Where both give turns, saltos or shape they
agree for all classes of Gym288; of Gym530 the tree is mistaken for a few (one and two twists of the
gainer to the side of the beam are exchanged). The tree is read to measure how near two classes are.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from qa_data.files import SefarError, parse_json, read_text
from qa_data.taxonomy import MIRROR_SETS, ElementClass

ASIDE = re.compile(r"\([^)]*\)")
# Movements that FineGym calls by two names, and words that distinguish no classes.
SAME = (
    (re.compile(r"\bstraddle pike(?: jump)?(?: or side split jump)?\b"), "straddle pike jump"),
    (re.compile(r"\b1 illusion turn\b"), "illusion 1 turn"),
    (re.compile(r"\bleap forward\b"), "leap"),
    (re.compile(r"\bto handstand\b"), ""),
)
TURNS = re.compile(r"(?:\bwith )?(?:\badditional )?\b(no|[0-9]+(?:\.[0-9]+)?) (?:turn|twist)\b")
OPEN_COUNT = re.compile(r"\bor (?:more|less)\b|\bminimum\b")
DIRECTION = re.compile(r"(?<!leg )\b(forward|backward|sideward)\b")
SHAPE = re.compile(r"\b(tucked|piked|stretched|straddled)\b")
SALTO = re.compile(r"\b(?:(double|triple) )?salto\b")
NUM_SALTOS = {"": 1, "double": 2, "triple": 3}


@dataclass(frozen=True)
class Attributes:
    """What a class's text says, each part by itself."""

    kind: str
    """The rest of the text, once the other attributes are taken out."""
    direction: str | None
    """forward, backward or sideward; none if the text names none or several, and on the vault."""
    turns: float | None
    """Turns or twists about the long axis, 0 if the text names none; none if it leaves the count
    open ("1 turn or more") or names several."""
    saltos: int
    """Somersaults in the air."""
    shape: str | None
    """Body in the salto: tucked, piked, stretched or straddled; none if the text names none."""


@dataclass(frozen=True)
class TreePath:
    """The questions by which FineGym's annotators found a class."""

    questions: tuple[str, ...]
    """The questions in order; each depends on the answers before it."""
    code: str
    """The answers, a "1" for each yes and a "0" for each no (FineGym's BTcode)."""


def attributes_of(element: ElementClass) -> Attributes:
    """The attributes of a class, from its text.

    Words in parentheses explain and are left out. On the vault the attributes are those of the
    flight off the table, which the text names last; the way onto it is of the kind, and so is the
    direction, which follows from it. Elsewhere they are those of the clause that names a salto, or
    of the first clause.
    """
    text = ASIDE.sub(" ", element.text)
    for pattern, name in SAME:
        text = pattern.sub(name, text)
    clauses = [" ".join(clause.split()) for clause in text.split(",")]
    with_salto = (place for place, clause in enumerate(clauses) if SALTO.search(clause))
    place = len(clauses) - 1 if element.event == "VT" else next(with_salto, 0)
    clause, saltos = _take_saltos(clauses[place], text)
    clause, turns = _take_turns(clause)
    direction = None
    if element.event != "VT":
        clause, direction = _take_word(clause, DIRECTION)
    clause, shape = _take_word(clause, SHAPE)
    clauses[place] = " ".join(clause.split())
    kind = ", ".join(part for part in clauses if part)
    return Attributes(kind or "salto", direction, turns, saltos, shape)


def family_of(element: ElementClass) -> int:
    """The smaller number of the sets that go with the class's: forward and backward are one."""
    return min(element.set_id, MIRROR_SETS.get(element.set_id, element.set_id))


def read_question_tree(path: Path) -> dict[int, TreePath]:
    """FineGym's paths of yes/no questions by Glabel (finegym_glabel_to_Qtree.json).

    Raises:
        SefarError: the file is missing or not a JSON object, a key is not a Glabel or is
            there twice, or an entry has no questions or not one answer, 0 or 1, for each of them.
    """
    text = read_text(
        path,
        error=SefarError,
        missing=f"no question tree at {path}; it is on FineGym's dataset page",
        fix="fetch it again",
    )
    try:
        found = parse_json(text)
    except ValueError as cause:
        raise SefarError(f"{path} cannot be read: {cause}; fetch it again") from cause
    if not isinstance(found, dict) or not found:
        raise SefarError(f"{path} holds no classes; expected {{Glabel: {{...}}}}")
    tree = {}
    for key, entry in found.items():
        where = f"{path}, key {key!r:.60}"
        if re.fullmatch(r"0|[1-9][0-9]{0,5}", key) is None:
            raise SefarError(f"{where}: expected a Glabel, such as '471'")
        tree[int(key)] = _tree_path(where, entry)
    return tree


def _take_saltos(clause: str, text: str) -> tuple[str, int]:
    """The clause without its salto, and how many it names. A tsukahara is one by its name."""
    if "without salto" in clause:
        return clause, 0
    found = SALTO.search(clause)
    if found is None:
        return clause, int("tsukahara" in text)
    return SALTO.sub(" ", clause, count=1), NUM_SALTOS[found[1] or ""]


def _take_turns(clause: str) -> tuple[str, float | None]:
    found = TURNS.findall(clause)
    if len(found) > 1 or OPEN_COUNT.search(clause):
        return clause, None
    return TURNS.sub(" ", clause), float(found[0].replace("no", "0")) if found else 0.0


def _take_word(clause: str, pattern: re.Pattern[str]) -> tuple[str, str | None]:
    found = pattern.findall(clause)
    return (pattern.sub(" ", clause), found[0]) if len(found) == 1 else (clause, None)


def _tree_path(where: str, entry: object) -> TreePath:
    cells = entry if isinstance(entry, dict) else {}
    questions, code = cells.get("questions"), cells.get("BTcode")
    if (
        not isinstance(questions, list)
        or not questions
        or not all(isinstance(one, str) and one.strip() for one in questions)
    ):
        raise SefarError(f"{where}: questions are {questions!r:.60}; expected a list of texts")
    if not isinstance(code, str) or re.fullmatch("[01]+", code) is None:
        raise SefarError(f"{where}: BTcode is {code!r:.60}; expected zeros and ones")
    if len(code) != len(questions):
        raise SefarError(
            f"{where}: BTcode {code!r:.60} has {len(code)} answers to {len(questions)} questions; "
            f"expected one each"
        )
    return TreePath(questions=tuple(" ".join(one.split()) for one in questions), code=code)
