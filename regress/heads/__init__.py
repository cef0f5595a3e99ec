"""Heads: they map the cached features of a video to a score."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HeadKind:
    """A kind of head: its module (see `base`), and what is known without importing it.

    `title` names its rows in tables; `about` completes it to words of help. `settings`
    are the `TrainingConfig` fields, beside seed and labels, that determine its heads;
    with "loss" it learns from ranks, too. A `sequential` kind learns from the order of
    the clips, of which it needs more than one. A `one_action` kind does not scale
    labels, so it learns one action at a time.
    """

    module: str
    title: str
    about: str = ""
    settings: tuple[str, ...] = ("iterations", "schedule", "lstm", "svr", "standardise")
    sequential: bool = False
    one_action: bool = False


#: Every kind of head by its name in options, model files and reports.
HEADS = {
    "lstm": HeadKind(
        "aqa.regress.heads.lstm",
        "LSTM",
        "over the clips",
        ("iterations", "schedule", "lstm", "standardise", "loss"),
        sequential=True,
    ),
    "svr": HeadKind("aqa.regress.heads.svr", "SVR", "on their mean", ("svr",)),
    "nu-svr": HeadKind(
        "aqa.regress.heads.svr", "nu-SVR", "of pose features", (), one_action=True
    ),
}
