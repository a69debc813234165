"""Import this before `asteroid.models.BaseModel.from_pretrained(path)` reads one of our files."""

from tasnet_attn.storage.asteroid import register

TasnetAttn = register()
