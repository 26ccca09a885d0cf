"""Question sets as a folder that `datasets.load_dataset` opens: Parquet with typed features.

The features stand in the file's schema under the key `huggingface`, where `datasets` looks.
"""

import io
import re
from collections.abc import Sequence

from qa_data.question import Question, QuestionError

SPLIT_OF_SET = {"val": "validation"}  # what `datasets` calls it; others keep their names


def split_name(set_name: str) -> str:
    """What `datasets` calls a set: letters, digits and underscores.

    Raises:
        QuestionError: the set is called "all", by which `datasets` means all sets together.
    """
    if set_name == "all":
        raise QuestionError(
            "a set called all cannot be loaded: to `datasets` the word means all sets together; "
            "rename the question file"
        )
    return SPLIT_OF_SET.get(set_name, re.sub(r"\W", "_", set_name))


def parquet_bytes(questions: Sequence[Question]) -> bytes:
    """One Parquet file: every field of a question, and `letter`.

    `answer` is the right option's position, from 0, so that `options[answer]` is its text.
    """
    import pyarrow
    import pyarrow.parquet
    from datasets import Features, List, Value

    text, number = Value("string"), Value("int32")
    features = Features(
        {
            "question_id": text,
            "video": text,
            "stem": text,
            "options": List(text),
            "answer": number,
            "letter": text,
            "label": number,
            "option_labels": List(number),
            "event": text,
            "source": text,
            "frame_length": number,
            "answer_type": text,
            "dataset": text,
        }
    )
    columns = {name: [getattr(question, name) for question in questions] for name in features}
    table = pyarrow.table(columns, schema=features.arrow_schema)
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()
