"""Whether checkpoints are whole: their files, their values, their graphs, and their folder."""
