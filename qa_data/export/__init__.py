"""Question sets in the formats of other tools: pure functions, questions in, contents out."""
