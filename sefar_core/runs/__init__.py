"""What surrounds training: the folder of a run, its states, its processes, and who looks on."""
