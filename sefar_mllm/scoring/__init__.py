"""Questions with tokens -> which option a model chooses."""
