"""The words that nginx does not have: one module for each."""
