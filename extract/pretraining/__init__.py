"""Pre-train C3D on labelled actions, as the paper did on UCF-101."""
