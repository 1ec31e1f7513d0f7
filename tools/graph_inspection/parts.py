"""The names of the parts of a graph's file, for the flags: nothing else is imported."""

PARTS = (
    "info",
    "graph",
    "saver",
    "collections",
    "signatures",
    "functions",
    "cost",
    "safety",
)
