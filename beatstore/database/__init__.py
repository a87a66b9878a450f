"""The database: its engine, transactions on it, rows as objects, and the revision of the tables."""
