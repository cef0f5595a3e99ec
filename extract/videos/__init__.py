"""From a video file that may be anything to the frames that its clips need."""
