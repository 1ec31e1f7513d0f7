"""Commands for checkpoints, each `python -m tools.<name>`; what each is made of is beside it."""
