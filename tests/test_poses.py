"""Poses from files of every form, written here byte by byte, to joints in order."""

import io
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqa.extract.config import PoseConfig
from aqa.extract.poses.conventions import read_pose_file
from aqa.extract.poses.read import PoseError, digest, find_poses
from aqa.extract.poses.tracks import read_poses

FRAMES, KEY = 12, "diving/001"
#: COCO's names, and OpenPose's two orders by the same names, as their manuals list
#: them: the oracle for the maps between them.
COCO = (
    "nose leye reye lear rear lshoulder rshoulder lelbow relbow lwrist rwrist "
    "lhip rhip lknee rknee lankle rankle"
).split()
OPENPOSE = {
    18: "nose neck rshoulder relbow rwrist lshoulder lelbow lwrist rhip rknee rankle "
    "lhip lknee lankle reye leye rear lear",
    25: "nose neck rshoulder relbow rwrist lshoulder lelbow lwrist midhip rhip rknee "
    "rankle lhip lknee lankle reye leye rear lear lbigtoe lsmalltoe lheel rbigtoe "
    "rsmalltoe rheel",
}


def athlete(frames=FRAMES, seed=0):
    """Joints (frames, 17, 2) of somebody who moves, on a grid of 1/8 pixel."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(50, 90, (17, 2))
    steps = rng.normal(0, 2, (frames, 17, 2)).cumsum(axis=0)
    return np.round((start + steps) * 8) / 8


def read_people(path):
    return read_pose_file(path, PoseConfig()).people


def flat(joints, score=0.9):
    return [float(v) for x, y in joints for v in (x, y, score)]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_rows(folder, joints):
    frames = [[[x, y, 1] for x, y in one] for one in joints.tolist()]
    write(folder / f"{KEY}.json", json.dumps(frames))


def write_rows_of_people(folder, joints):
    frames = [[[[x, y, 1] for x, y in one]] for one in joints.tolist()]
    write(folder / f"{KEY}.json", json.dumps(frames))


def openpose(one, layout):
    by_name = dict(zip(COCO, one.tolist(), strict=True))
    points = [by_name.get(name, (7.0, 7.0)) for name in OPENPOSE[layout].split()]
    return {"people": [{"pose_keypoints_2d": flat(points), "hand_left": []}]}


def write_openpose(folder, joints, layout):
    for i, one in enumerate(joints):
        path = folder / KEY / f"dive_{i:012d}_keypoints.json"
        write(path, json.dumps({"version": 1.3, **openpose(one, layout)}))
    write(folder / KEY / "readme.txt", "not a frame")


def write_csv(folder, joints, scores):
    axes = "xys" if scores else "xy"
    names = [f"{axis}{joint}" for joint in range(17) for axis in axes]
    lines = [",".join(["frame", *names])]
    for i, one in enumerate(joints):
        values = flat(one) if scores else one.ravel().tolist()
        lines.append(",".join(map(repr, [i, *values])))
    write(folder / f"{KEY}.csv", "\r\n".join(lines) + "\r\n")


def write_npy(folder, joints, dtype="<f8"):
    """NumPy's format 1.0 by hand: magic, version, length, header, numbers."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {joints.shape}}}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    path = folder / f"{KEY}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    path.write_bytes(start + joints.astype(dtype).tobytes())


FORMS = {
    "rows": write_rows,
    "rows of people": write_rows_of_people,
    "OpenPose BODY_25": lambda folder, joints: write_openpose(folder, joints, 25),
    "OpenPose COCO": lambda folder, joints: write_openpose(folder, joints, 18),
    "CSV with scores": lambda folder, joints: write_csv(folder, joints, True),
    "CSV": lambda folder, joints: write_csv(folder, joints, False),
    "NPY": write_npy,
    "NPY float32": lambda folder, joints: write_npy(folder, joints, "<f4"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_joints_and_features(tmp_path, form):
    joints = athlete()
    FORMS[form](tmp_path, joints)
    poses = read_poses(find_poses(tmp_path, KEY), "diving", PoseConfig())
    assert poses.notes == ""
    np.testing.assert_array_equal(poses.joints, joints[None])
    assert poses.file.summary.endswith("coco17, 2-D, in pixels")


def test_key_with_a_video_suffix_is_found_with_and_without_it(tmp_path):
    for name in ("dives/a.mp4.json", "dives/b.json"):
        write(tmp_path / name, "[]")
    assert find_poses(tmp_path, "dives/a.mp4").name == "a.mp4.json"
    assert find_poses(tmp_path, "dives/b.avi").name == "b.json"
    assert find_poses(tmp_path, "dives/b").name == "b.json"


def test_no_file_and_two_files_are_refused_by_name(tmp_path):
    with pytest.raises(PoseError, match="001.json, .csv, .npy, .* found none"):
        find_poses(tmp_path, KEY)
    write_npy(tmp_path, athlete())
    write_csv(tmp_path, athlete(), True)
    with pytest.raises(PoseError, match=r"found .*001\.csv, .*001\.npy"):
        find_poses(tmp_path, KEY)


@pytest.mark.parametrize("key", ["../outside", "linked", "linked_folder/x"])
def test_nothing_outside_of_the_folder_is_read(tmp_path, key):
    poses = tmp_path / "poses"
    write(tmp_path / "outside.json", "[]")
    write(tmp_path / "elsewhere" / "x.json", "[]")
    poses.mkdir()
    (poses / "linked.json").symlink_to(tmp_path / "outside.json")
    (poses / "linked_folder").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PoseError, match="leads out"):
        find_poses(poses, key)


def test_digest_changes_with_any_file_of_a_folder(tmp_path):
    write_openpose(tmp_path, athlete(), 25)
    before = digest(find_poses(tmp_path, KEY))
    last = tmp_path / KEY / f"dive_{FRAMES - 1:012d}_keypoints.json"
    last.write_text(json.dumps(openpose(athlete(seed=1)[0], 25)))
    after = digest(find_poses(tmp_path, KEY))
    assert before != after


def test_openpose_link_inside_the_folder_is_not_followed(tmp_path):
    write_openpose(tmp_path, athlete(), 25)
    write(tmp_path / "secret.json", '{"people": []}')
    link = tmp_path / KEY / "dive_000000000099_keypoints.json"
    link.symlink_to(tmp_path / "secret.json")
    assert len(read_people(tmp_path / KEY)) == FRAMES


def test_joints_without_confidence_are_missing(tmp_path):
    joints = athlete().tolist()
    frames = [[[x, y, 0.9] for x, y in one] for one in joints]
    frames[1][3] = [500.0, 500.0, 0.2]  # seen, but hardly
    frames[2][4] = [0, 0, 0]  # OpenPose's and COCO's way of saying nothing
    frames[3][5] = [None, None, 0.9]
    frames[4][6] = [float("nan"), 1.0, 0.9]
    write(tmp_path / f"{KEY}.json", json.dumps(frames))
    poses = read_poses(find_poses(tmp_path, KEY), "diving", PoseConfig())
    assert poses.notes == "interpolated 4 of 204 joints, in 0 of 12 frames all"
    for frame, joint in ((1, 3), (2, 4), (3, 5), (4, 6)):
        between = (np.array(joints[frame - 1]) + np.array(joints[frame + 1])) / 2
        np.testing.assert_allclose(poses.joints[0, frame, joint], between[joint])


def test_too_many_missing_joints_fail_and_name_the_file(tmp_path):
    frames = [[{"keypoints": flat(one)}] for one in athlete()]
    write(tmp_path / f"{KEY}.json", json.dumps(frames[:5] + [None] * 7))
    with pytest.raises(PoseError, match=r"001\.json: .*at most 50%.* found 58%"):
        read_poses(find_poses(tmp_path, KEY), "diving", PoseConfig())
    lenient = read_poses(find_poses(tmp_path, KEY), "diving", PoseConfig(missing=0.6))
    np.testing.assert_array_equal(lenient.joints[0, 5:], [lenient.joints[0, 4]] * 7)


def test_another_layout_has_to_be_described(tmp_path):
    joints = athlete()[:, :14]
    write_npy(tmp_path, joints)
    with pytest.raises(PoseError, match="found 14 joints.* --joints 14 --root-joint I"):
        read_poses(find_poses(tmp_path, KEY), "diving", PoseConfig())
    poses = read_poses(
        find_poses(tmp_path, KEY), "diving", PoseConfig(joints=14, root=13)
    )
    np.testing.assert_array_equal(poses.joints[0], joints)


def test_both_athletes_come_when_asked_and_where_there_are_two(tmp_path):
    left, right = athlete(seed=1), athlete(seed=2) + [150, 0]
    frames = [
        [{"keypoints": flat(one)} for one in ((a, b) if i % 2 else (b, a))]
        for i, (a, b) in enumerate(zip(left, right, strict=True))
    ]
    write(tmp_path / f"{KEY}.json", json.dumps(frames))
    both = read_poses(
        find_poses(tmp_path, KEY), "sync_diving_3m", PoseConfig(athletes=2)
    )
    np.testing.assert_array_equal(both.joints, [left, right])
    alone = read_poses(find_poses(tmp_path, KEY), "diving", PoseConfig(athletes=2))
    assert len(alone.joints) == 1
    unknown = read_poses(find_poses(tmp_path, KEY), "", PoseConfig(athletes=2))
    assert len(unknown.joints) == 2


BAD_JSON = {
    "not JSON": "{",
    "deep": "[" * 100_000,
    "a number": "7",
    "text for numbers": '[[{"keypoints": "abc"}]]',
    "an object without people": '[[{"name": 3}]]',
    "short person": '[[{"keypoints": [1, 2]}]]',
    "ragged": "[[[1, 2, 3], [1, 2]]]",
    "truth values": '[[{"keypoints": [true, false, true]}]]',
    "image not listed": '{"images": [], "annotations": '
    '[{"image_id": 1, "keypoints": [1, 2, 3]}]}',
    "images without annotations": '{"images": []}',
    "nameless image": '[{"image_id": "last", "keypoints": [1, 2, 3]}]',
    "huge number": '[[{"keypoints": [1e7, 2, 1]}]]',
    "huge integer": f'[[{{"keypoints": [{"9" * 400}, 2, 1]}}]]',
    "nobody": "[[], [], null]",
    "empty": "[]",
    "far apart": '[{"image_id": 0, "keypoints": [1, 2, 3]}, '
    '{"image_id": 999999999, "keypoints": [1, 2, 3]}]',
    "two layouts": '[[{"keypoints": [1, 2, 3]}], [{"keypoints": [1, 2, 3, 4, 5, 6]}]]',
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_malformed_json_is_refused_by_name(tmp_path, name):
    path = tmp_path / "bad.json"
    path.write_text(BAD_JSON[name])
    with pytest.raises(PoseError, match=r"bad\.json: "):
        read_people(path)


BAD_CSV = {
    "empty": "",
    "no joints": "frame,score\n1,2\n",
    "no y": "x0,s0\n1,2\n",
    "a joint left out": "x0,y0,x2,y2\n1,2,3,4\n",
    "no frames": "x0,y0\n",
    "words": "x0,y0\n1,two\n",
    "short line": "x0,y0\n1\n",
    "not text": "x0,y0\n\xff\udcff1,2\n",
}


@pytest.mark.parametrize("name", BAD_CSV)
def test_malformed_csv_is_refused_by_name(tmp_path, name):
    path = tmp_path / "bad.csv"
    path.write_bytes(BAD_CSV[name].encode("latin-1", "surrogateescape"))
    with pytest.raises(PoseError, match=r"bad\.csv: "):
        read_people(path)


def npy(value):
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


BAD_NPY = {
    "empty": b"",
    "not npy": b"PK\x03\x04 a zip, say",
    "pickled": npy(np.array([{}], dtype=object)),
    "flat": npy(np.zeros((3, 34))),
    "words": npy(np.full((3, 17, 2), "ab")),
    "complex": npy(np.zeros((3, 17, 2), complex)),
    "truncated": npy(np.zeros((3, 17, 2)))[:-8],
    "no frames": npy(np.zeros((0, 17, 2))),
    "header is no literal": npy(np.zeros((3, 17, 2))).replace(b"(3, ", b"((3,"),
    "header is negative": npy(np.zeros((3, 17, 2))).replace(b"(3, 17", b"(3,-17"),
    "header asks for more": npy(np.zeros((3, 17, 2))).replace(b"(3, ", b"(900000000, "),
}


@pytest.mark.parametrize("name", BAD_NPY)
def test_malformed_npy_is_refused_by_name(tmp_path, name):
    path = tmp_path / "bad.npy"
    path.write_bytes(BAD_NPY[name])
    with pytest.raises(PoseError, match=r"bad\.npy: "):
        read_people(path)


def test_sizes_are_bounded_before_reading(tmp_path):
    path = tmp_path / "big.json"
    with path.open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    with pytest.raises(PoseError, match=r"big\.json: expected at most 64 MiB"):
        read_people(path)
    os.rename(path, path.with_suffix(".csv"))
    with pytest.raises(PoseError, match=r"big\.csv: expected at most 64 MiB"):
        read_people(path.with_suffix(".csv"))


def test_two_videos_in_one_openpose_folder_are_refused(tmp_path):
    for name in ("a_0_keypoints.json", "b_0_keypoints.json"):
        write(tmp_path / "both" / name, '{"people": []}')
    with pytest.raises(PoseError, match="2 files for 1 frames"):
        read_people(tmp_path / "both")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["keypoints", "people", "images", "annotations", "image_id", "id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_any_json_is_read_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("any") / "any.json"
    path.write_text(json.dumps(value))
    try:
        people = read_people(path)
    except PoseError as error:
        assert "any.json" in str(error)
    else:
        assert people.ndim == 4 and people.shape[-1] == 3


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    for form in (".json", ".csv", ".npy"):
        path = tmp_path_factory.mktemp("any") / f"any{form}"
        path.write_bytes(data)
        try:
            read_people(path)
        except PoseError as error:
            assert "any" in str(error)
