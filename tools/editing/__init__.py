"""What tools.edit is made of: rules over names, the values, the graph, and the check of both."""
