"""From a checkpoint's meta graph and a person's files to predictions, by tensor name."""
