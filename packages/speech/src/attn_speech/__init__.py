"""Speech on core-attn: text to a waveform, a neural vocoder, utterance classification."""
