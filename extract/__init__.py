"""The extraction stage: videos in, C3D FC-6 features in a cache out."""
