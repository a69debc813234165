"""Model files: safetensors, checkpoints, Hugging Face folders and its hub, Asteroid's format."""

from tasnet_attn.storage.models import from_pretrained, load, save, save_pretrained

__all__ = ["from_pretrained", "load", "save", "save_pretrained"]
