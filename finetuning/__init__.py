"""A new head on a part of any model: what finetune.py is made of."""
