"""The one training loop and what it writes beside the checkpoints."""
