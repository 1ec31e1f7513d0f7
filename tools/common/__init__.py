"""What the commands share: how they start, which flags they have in common, how they print."""
