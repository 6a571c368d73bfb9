"""Evidence and cost of `core_attn.analysis`, one command each."""
