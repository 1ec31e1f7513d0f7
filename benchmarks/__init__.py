"""Measurements side by side with others; each module is one command."""
