"""What an entry is, and what may be written into one: values and checks, without a database."""
