"""Import this before `asteroid.models.BaseModel.from_pretrained(path)` reads a file of ours."""

from tasnet_attn.exporting.asteroid_files import register

TasnetAttn = register()
