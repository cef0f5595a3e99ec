"""Heads: they map the cached features of a video to a score."""

#: Module of each kind of head, see `base`.
HEADS = {
    "lstm": "aqa.regress.heads.lstm",
    "svr": "aqa.regress.heads.svr",
    "nu-svr": "aqa.regress.heads.svr",
}
