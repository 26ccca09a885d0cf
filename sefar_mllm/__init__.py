"""SeFAR's encoder in Vicuna: encode, cache, prompt, project, adapt, score, chat."""
