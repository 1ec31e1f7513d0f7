"""What is known of a graph before it runs is worked out, and what then never runs is taken out."""
