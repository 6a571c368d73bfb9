"""What the recurrences over a state share: their call, chunks, decay and carry."""
