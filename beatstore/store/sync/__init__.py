"""Sync: update the entries of a source to what its code declares."""
