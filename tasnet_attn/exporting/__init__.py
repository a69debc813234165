"""How a model leaves: its graph, one writer for each format, and the proof that what was written is the model."""
