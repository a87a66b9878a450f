"""Answers to people: why an entry has not run, what became of an occurrence, how things stand."""
