"""A checkpoint on disk: names, tensors, meta graph, commit, retention, restore."""
