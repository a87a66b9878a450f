"""Explanations for people: why an entry has not run, and what happened to an occurrence."""
