"""What every script shares: flags, exit codes, one-line errors, a quiet TensorFlow."""
