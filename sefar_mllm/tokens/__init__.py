"""The tokens of each clip: computed once, kept, read by training and scoring."""
