"""Every public weight format of C3D, read without trust, written as safetensors."""
