"""Entries that code declares: the rows of a source become what its code says."""
