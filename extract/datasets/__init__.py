"""Where videos and labels come from: the AQA-7 release, a manifest, a folder."""
