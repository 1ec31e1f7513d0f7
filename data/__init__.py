"""Sources of arrays, and batches by (seed, step). No graph, no sessions.

Here is what the flags of the data may say, apart from what reads it, which needs TensorFlow.
"""

# The data sets that are built in: see `data/named.py`.
SHAPES, RAMP = BUILT_IN = "shapes", "ramp"

STOP, SKIP = "stop", "skip"  # What a row that cannot be read does.

DEFAULT_MEMORY_MB = 512  # Images on disk that take no more are read into memory.
