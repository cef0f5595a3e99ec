"""Extraction: from videos or skeletons to features in the cache."""

#: Modules of the kinds of features by name, see `extractor.make_extractor`.
FEATURES = {
    "c3d": "aqa.extract.network",
    "pose-dct": "aqa.extract.poses.features",
    "pose-apen": "aqa.extract.poses.features",
    "pose-clips": "aqa.extract.poses.features",
}
