"""The HTTP door: OpenAI's paths, answered by a model on this machine."""
