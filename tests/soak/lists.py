"""Hostile lists: manifests, AQA-7's .mat files, labels, imported features, poses."""

import io
import json

import numpy as np
from scipy.io import savemat

from aqa.cache.exchange import import_features
from aqa.cache.labels import read_labels
from aqa.extract.datasets import read_dataset
from aqa.extract.poses.read import read_raw
from soak.hostile import Canary, Reader, attack_readers
from soak.mutation import rows, tokens
from soak.tally import Attack
from soak.weights import saved

LABELS = [["diving/001", "diving", "50.5", "train"], ["a.avi", "figure", "", "test"]]
VIDEOS = [["a.avi", "figure", "5.5", "train"], ["b/c.mp4", "diving", "50", ""]]


def run(attack: Attack) -> None:
    folder = attack.folder / "lists"
    folder.mkdir()
    canary, rng = Canary(folder), attack.rng
    words = tokens(str(canary.secret))
    sport = "AQA-7/Actions/{}.avi".format
    listed = map(sport, ("diving/001", "diving/002", "gym_vault/007"))
    for name in ("a.avi", "b/c.mp4", *listed):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    np.save(folder / "good.npy", np.ones((2, 3), "f"))

    def reader(name, path, make, read, **more):
        path = folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        return Reader(name, make, path.write_bytes, lambda: read(path), **more)

    def csv(header, good):
        return lambda: rows(header, good, rng, words)

    def read_manifest(path):
        for video in read_dataset(path).videos:
            if not video.path.resolve().is_relative_to(folder):
                raise PermissionError(f"{video.path} leads out")

    def take_in(path):
        (folder / "imported.h5").unlink(missing_ok=True)
        import_features(path, "other", folder / "imported.h5")

    def npy(path):
        table = folder / "one.csv"
        table.write_text("key,action,score,split,file\na,a,1,train,x.npy\n")
        take_in(table)

    table = [["a", "a", "1", "train", "good.npy"], ["b", "b", "", "", "x.npy"]]
    arrays = [saved(np.ones((2, 3), "f")), saved(np.array([[canary.bomb]]))]
    joints = [saved(np.ones((4, 17, 3))), saved(np.array([canary.bomb]))]
    people = [{"keypoints": [1, 2, 0.5] * 17}]
    results = [{"image_id": 1, "category_id": 1, "keypoints": [1, 2, 0.5] * 17}]
    texts = [json.dumps(made).encode() for made in ([people] * 3, results)]
    frames = b"x0,y0,s0,x1,y1,s1\n" + b"1,2,.5,3,4,.9\n" * 4
    release = folder / "AQA-7"
    mat = "AQA-7/Split_4/split_4_train_list.mat"
    (release / "Split_4").mkdir()
    savemat(
        release / "Split_4/split_4_test_list.mat",
        {"consolidated_test_list": np.array([[1.0, 2, 50]])},
    )
    readers = [
        reader(
            "manifest (CSV)",
            "videos.csv",
            csv("video,action,score,split", VIDEOS),
            read_manifest,
            spoil=0.5,
        ),
        reader(
            "labels (CSV)",
            "labels.csv",
            csv("key,action,score,split", LABELS),
            read_labels,
            spoil=0.5,
        ),
        reader(
            "imports (CSV)",
            "table.csv",
            csv("key,action,score,split,file", table),
            take_in,
            spoil=0.5,
        ),
        reader("imports (.npy)", "x.npy", lambda: rng.choice(arrays), npy),
        reader(
            "AQA-7 list (.mat)",
            mat,
            lambda: mat_list(rng),
            lambda _: read_dataset(release),
        ),
        reader("poses (JSON)", "p.json", lambda: rng.choice(texts), read_raw),
        reader("poses (CSV)", "p.csv", lambda: frames, read_raw),
        reader("poses (.npy)", "p.npy", lambda: rng.choice(joints), read_raw),
    ]
    attack_readers(attack, canary, readers)


def mat_list(rng) -> bytes:
    """A list as the authors wrote it, or of other types and shapes."""
    content = rng.choice(
        [
            np.array([[1.0, 1, 50], [2, 7, 14]]),
            np.array([[1.0, 1, 50]]),
            np.array([[1, "x"]], object),
            {"a": {"b": {"c": 1}}},
            "text",
        ]
    )
    file = io.BytesIO()
    name = {"consolidated_train_list": content}
    savemat(file, name, do_compression=rng.random() < 0.5)
    return file.getvalue()
