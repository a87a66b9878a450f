"""What happens to an entry that is due: pure rules, without a clock and without a database."""
