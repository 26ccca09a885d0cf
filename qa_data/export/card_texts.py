"""What a dataset card says in words: terms, rules, fields."""

LICENSES = {"finegym": "cc-by-nc-4.0"}
TERMS = {
    "finegym": (
        "The classes, their names and the clips' times are annotations of "
        "[FineGym](https://sdolivia.github.io/FineGym/) (arXiv:2004.06704), which are licensed "
        "under CC BY-NC 4.0; these questions are derived from them and carry the same license. "
        "The videos are not part of this set and belong to their owners."
    )
}
UNKNOWN_TERMS = (
    "The questions are about clips of `{dataset}`. Their license is not known here: it is "
    "whatever the terms of the clips, of the labels and of the texts allow."
)
UNLABELED = (
    "The answers of `unlabel` are the labels that semi-supervised training does without: a model "
    "that was taught them is not comparable with one that was not."
)
ASKED_TEXTS = {
    "which": "Asked is which move the clip shows.",
    "attributes": "Asked is one attribute of the move, such as direction or number of turns.",
    "pairs": "Asked is whether the clip shows a move or its mirror image.",
}
RULE_TEXTS = {
    "public": (
        "The wrong options are other classes, all equally likely. Answers are not: the commonest "
        "option is right far more often than chance. Some questions print a text twice."
    ),
    "distinct": (
        "The wrong options are other classes, all equally likely, whose texts differ. Answers are "
        "not equally likely: the commonest option is right far more often than chance."
    ),
    "prior": (
        "The options of a question are drawn together, by how often their classes are asked "
        "about, so that each of them is equally likely to be the answer."
    ),
    "event_prior": (
        "The options of a question are moves on one apparatus, drawn together, by how often their "
        "classes are asked about, so that each of them is equally likely to be the answer."
    ),
    "set_prior": (
        "The options of a question are moves of one element set, drawn together, by how often "
        "their classes are asked about, so that each of them is equally likely to be the answer."
    ),
    "attribute": (
        "The options of a question are a grid of two attributes of the move, so that each of them "
        "could be the answer."
    ),
}
USE = """\
```python
from datasets import load_dataset

sets = load_dataset("path/of/this/folder")
```"""
FIELD_TEXTS = {
    "question_id": "number of the question in its set",
    "video": "clip id: the name of the video file without folder and suffix",
    "stem": "the question",
    "options": "texts to choose from",
    "answer": "position of the right option, from 0",
    "letter": "its letter",
    "label": "class of the clip",
    "option_labels": "class of each option",
    "event": "apparatus: VT, FX, BB or UB",
    "source": "video that the clip was cut from",
    "frame_length": "frames in the clip",
    "answer_type": "kind of question",
    "dataset": "where the clips come from",
}
