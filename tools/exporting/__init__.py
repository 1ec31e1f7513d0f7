"""What tools/export.py is made of: a frozen graph in the formats of other programs."""
