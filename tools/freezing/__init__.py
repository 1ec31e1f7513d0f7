"""What freeze is made of: a model and its checkpoint become one graph of constants."""
