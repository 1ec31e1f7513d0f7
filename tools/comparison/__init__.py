"""What two checkpoints, or two graphs, do not have in common."""
