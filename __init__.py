"""aqa: action quality assessment from cached video features.

    import aqa

    aqa.extract("AQA-7", weights="c3d.safetensors", cache="features.h5")
    aqa.compare("single-vs-all", cache="features.h5")
    aqa.load_model("models/all-action-lstm.safetensors").predict(features, "diving")

Conventions: paths are strings or Paths; features are float32 (N, offsets, clips, D);
scores are in judges' units. `import aqa` alone imports nothing heavy: each public name
is imported when it is first used.
"""

__version__ = "0.1.0"
