"""A file of a model as data: nothing of it is run that does more than compute."""
