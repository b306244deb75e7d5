"""Files: complete or absent after any interruption (`atomic`); named arrays as safetensors (`tensors`)."""
