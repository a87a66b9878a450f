"""Rules: what happens to a due entry. Pure: no clock, no database."""
