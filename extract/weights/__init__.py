"""C3D weights of every public format, read safely and written as safetensors."""
