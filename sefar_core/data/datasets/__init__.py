"""Data sets as people have them on disk, each read into clips."""
