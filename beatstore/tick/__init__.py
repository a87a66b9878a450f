"""The tick's half of the store, and the workers': plan, claim, sweep, settle, complete."""
