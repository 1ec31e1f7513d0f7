"""What tools.plot is made of: reading, then drawing, one file each for every kind of picture."""
