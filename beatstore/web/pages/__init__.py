"""The pages: each function takes a `Call` and returns the response."""
