"""Sources of arrays, and batches by (seed, step). No graph, no sessions."""
