"""What `python -m tools.inspect_checkpoint` is made of."""
