"""Import this before `asteroid.models.BaseModel.from_pretrained(path)` reads a file of ours."""

from tasnet_attn.storage.asteroid import register

TasnetAttn = register()
