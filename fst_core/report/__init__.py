"""The card of a run: what it came to, in words and pictures."""
