"""Commands for checkpoints, each `python -m tools.<name>`; the work of each is in a folder here."""
