"""Entries that move: out of one database and into another, and from other schedulers' tables."""
