"""What a graph holds, part by part: read as data, looked at in TensorFlow, never run."""
