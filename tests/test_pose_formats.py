"""Pose files as tools write them: their frames, people, names and units.

Each file is written here in the tool's form, as its documentation or its users show it.
"""

import json
import random

import numpy as np
import pytest

from aqa.extract.config import PoseConfig
from aqa.extract.poses.conventions import read_pose_file
from aqa.extract.poses.read import PoseError
from aqa.extract.poses.tracks import read_poses

FRAMES = 24
NAMES = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder "
    "left_elbow right_elbow left_wrist right_wrist left_hip right_hip "
    "left_knee right_knee left_ankle right_ankle"
).split()


def person(frame):
    """Joints (17, 2) that say which frame they are of."""
    joint = np.arange(17)
    return np.column_stack([100 + 4.0 * frame + 5 * joint, 200 + 8.0 * joint])


WANT = np.stack([person(frame) for frame in range(FRAMES)])


def flat(frame, score=0.9):
    return np.column_stack([person(frame), [score] * 17]).ravel().tolist()


def read(tmp_path, record, name="a.json", **options):
    path = tmp_path / name
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    return read_poses(path, "", PoseConfig(**options))


def instance(frame):
    return {"keypoints": person(frame).tolist(), "keypoint_scores": [0.9] * 17}


def points(joints, **more):
    return [{"x": x, "y": y, **more} for x, y in np.asarray(joints).tolist()]


def ultralytics(frame):
    x, y = person(frame).T.tolist()
    joints = {"x": x, "y": y, "visible": [0.9] * 17}
    return [{"name": "person", "class": 0, "box": {"x1": 1}, "keypoints": joints}]


TOOLS = {
    "MMPose, saved predictions": {
        "meta_info": {"keypoint_id2name": dict(enumerate(NAMES))},
        "instance_info": [
            {"frame_id": t + 1, "instances": [instance(t)]} for t in range(FRAMES)
        ],
    },
    "MMPose inferencer": [
        {"frame_id": t, "instances": [instance(t)]} for t in range(FRAMES)
    ],
    "lists within predictions": [
        {"predictions": [[instance(t)]]} for t in range(FRAMES)
    ],
    "AlphaPose": [
        {
            "image_id": f"{t}.jpg",
            "category_id": 1,
            "keypoints": flat(t),
            "score": 3.1,
            "box": [1, 2, 3, 4],
            "idx": 1,
        }
        for t in sorted(range(FRAMES), key=str)
    ],
    "Ultralytics": [ultralytics(t) for t in range(FRAMES)],
    "frames under a name": {"frames": [[instance(t)] for t in range(FRAMES)]},
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_output_is_read(tmp_path, tool):
    poses = read(tmp_path, TOOLS[tool])
    np.testing.assert_array_equal(poses.joints[0], WANT)
    assert poses.notes == "" and poses.file.summary == "coco17, 2-D, in pixels"


# Which frame is which


def coco(ids, names, **more):
    images = [
        {"id": i, "file_name": n, "width": 1920, "height": 1080}
        for i, n in zip(ids, names, strict=True)
    ]
    annotations = [
        {"id": 900 + t, "image_id": i, "category_id": 1, "keypoints": flat(t, 2)}
        for t, i in enumerate(ids)
    ]
    categories = [{"id": 1, "name": "person"}]
    return {
        "images": images,
        "annotations": annotations,
        "categories": categories,
        **more,
    }


SHUFFLED = random.Random(3).sample(range(1, FRAMES + 1), FRAMES)
ROBOFLOW = [f"clip_{t:04}_jpg.rf.{t * 7919:032x}.jpg" for t in range(FRAMES)]


@pytest.mark.parametrize(
    "names",
    [
        [f"clip_{t:05}.jpg" for t in range(FRAMES)],
        [f"frame{t}.png" for t in range(FRAMES)],
        [f"video7/frame_{t:04}_30fps.jpg" for t in range(FRAMES)],
        [f"shot.{t:04}" for t in range(FRAMES)],
        ROBOFLOW,
    ],
)
def test_file_names_say_the_frame_not_the_ids(tmp_path, names):
    poses = read(tmp_path, coco(SHUFFLED, names))
    np.testing.assert_array_equal(poses.joints[0], WANT)
    assert poses.notes == "frames in the order of their stated numbers"
    in_order = read(tmp_path, coco(range(FRAMES), names))
    assert in_order.notes == ""
    results = [
        {"image_id": n, "category_id": 1, "keypoints": flat(t)}
        for t, n in enumerate(names)
    ]
    random.Random(1).shuffle(results)
    np.testing.assert_array_equal(read(tmp_path, results).joints[0], WANT)


def test_frame_numbers_of_images_come_before_names(tmp_path):
    record = coco(SHUFFLED, ["x.jpg"] * FRAMES)
    for t, image in enumerate(record["images"]):
        image["frame_id"] = t
    np.testing.assert_array_equal(read(tmp_path, record).joints[0], WANT)


def test_left_out_frames_are_empty(tmp_path):
    gap = [
        frame for frame in TOOLS["MMPose inferencer"] if frame["frame_id"] not in (8, 9)
    ]
    random.Random(2).shuffle(gap)
    poses = read(tmp_path, gap)
    np.testing.assert_allclose(poses.joints[0], WANT)
    assert "frames in the order of their stated numbers" in poses.notes
    assert "interpolated 34 of 408 joints, in 2 of 24 frames all" in poses.notes


def test_numbers_that_go_up_by_a_step_are_consecutive(tmp_path):
    record = [
        {**frame, "frame_id": 5 * frame["frame_id"]}
        for frame in TOOLS["MMPose inferencer"]
    ]
    poses = read(tmp_path, record)
    np.testing.assert_array_equal(poses.joints[0], WANT)
    assert poses.notes == "frame numbers go up by 5: taken as consecutive"


CONTRADICTIONS = {
    "frame 3 is there twice": [
        {"frame_id": min(t, 3), "instances": [instance(t)]} for t in range(5)
    ],
    "some frames state their number": [
        {"frame_id": 0, "instances": [instance(0)]},
        {"instances": [instance(1)]},
    ],
    "'a_1.jpg' and 'b_1.jpg': expected one number that differs": [
        {"image_id": name, "keypoints": flat(0)} for name in ("a_1.jpg", "b_1.jpg")
    ],
    "'v1_1.jpg' and 'v2_2.jpg': expected one number that differs": [
        {"image_id": name, "keypoints": flat(0)} for name in ("v1_1.jpg", "v2_2.jpg")
    ],
    "images with the same id": coco([1, 1], ["1.jpg", "2.jpg"]),
    "frame 1 is there twice": coco([1, 2], ["1.jpg", "1.png"]),
    "people with 'xys' and with 'xy'": [
        {"frame_id": 0, "instances": [instance(0)]},
        {"frame_id": 1, "instances": [{"keypoints": person(1).tolist()}]},
    ],
}


@pytest.mark.parametrize("reason", CONTRADICTIONS)
def test_contradictions_are_named(tmp_path, reason):
    with pytest.raises(PoseError, match=rf"a\.json: .*{reason}"):
        read(tmp_path, CONTRADICTIONS[reason])


# Who is a person


def test_annotations_without_joints_are_no_people(tmp_path):
    record = coco(range(FRAMES), [f"{t}.jpg" for t in range(FRAMES)])
    record["categories"].append({"id": 2, "name": "ball"})
    for t in range(FRAMES):
        record["annotations"] += [
            {"image_id": t, "category_id": 2, "bbox": [1, 2, 3, 4], "keypoints": []},
            {"image_id": t, "category_id": 2, "bbox": [1, 2, 3, 4]},
            {"image_id": t, "category_id": 1, "iscrowd": 1, "keypoints": [0] * 51},
        ]
    np.testing.assert_array_equal(read(tmp_path, record).joints[0], WANT)


def test_joints_of_animals_are_left_out(tmp_path):
    record = coco(range(FRAMES), [f"{t}.jpg" for t in range(FRAMES)])
    record["categories"].append({"id": 2, "name": "horse"})
    for t in range(FRAMES):
        horse = (np.reshape(flat(0), (17, 3)) * [9, 9, 1]).ravel().tolist()
        record["annotations"].append(
            {"image_id": t, "category_id": 2, "keypoints": horse}
        )
    poses = read(tmp_path, record)
    np.testing.assert_array_equal(poses.joints[0], WANT)
    record["categories"][0]["name"] = "dog"
    with pytest.raises(PoseError, match="joints of 2 categories, none named"):
        read(tmp_path, record)


def test_names_of_joints_in_a_coco_file_are_respected(tmp_path):
    order = np.random.default_rng(0).permutation(17)
    record = coco(range(FRAMES), [f"{t}.jpg" for t in range(FRAMES)])
    record["categories"][0]["keypoints"] = [NAMES[i] for i in order]
    for annotation in record["annotations"]:
        rows = np.reshape(annotation["keypoints"], (17, 3))[order]
        annotation["keypoints"] = rows.ravel().tolist()
    poses = read(tmp_path, record)
    np.testing.assert_array_equal(poses.joints[0], WANT)
    assert poses.file.summary == "joints by name as coco17, 2-D, in pixels"


def test_nobody_is_written_in_many_ways(tmp_path):
    empty = [
        [],
        None,
        {},
        {"people": []},
        {"instances": None},
        [[]],
        [{"keypoints": []}],
    ]
    frames = [[instance(t)] for t in range(FRAMES)]
    for place, nobody in enumerate(empty, start=5):
        frames[place] = nobody
    poses = read(tmp_path, frames)
    assert poses.notes.endswith("in 7 of 24 frames all")
    np.testing.assert_allclose(poses.joints[0], WANT)


def test_joint_is_left_empty_in_many_ways(tmp_path):
    rows = [joints.tolist() for joints in WANT]
    for frame, blank in ((3, None), (4, []), (5, [None, None]), (6, [0, 0])):
        rows[frame][9] = blank
    poses = read(tmp_path, rows)
    np.testing.assert_allclose(poses.joints[0], WANT)
    assert poses.notes == "interpolated 4 of 408 joints, in 0 of 24 frames all"


# MediaPipe


def landmarks(scale, middle, frame):
    joint = np.arange(33)
    x = middle + scale * np.sin(joint + frame / 7)
    y = middle + scale * np.cos(joint * 2 + frame / 5)
    return [
        {"x": a, "y": b, "z": c, "visibility": 0.9}
        for a, b, c in zip(x, y, scale * np.sin(joint), strict=True)
    ]


def test_mediapipes_world_landmarks_are_metres(tmp_path):
    frames = [
        {
            "pose_landmarks": [landmarks(0.2, 0.5, t)],
            "pose_world_landmarks": [landmarks(0.6, 0.0, t)],
        }
        for t in range(FRAMES)
    ]
    frames[4] = {"pose_landmarks": [], "pose_world_landmarks": []}
    poses = read(tmp_path, frames)
    assert poses.file.summary == "mediapipe33 as coco17, 3-D, in metres"
    world = landmarks(0.6, 0.0, 3)[11]  # the left shoulder, COCO's joint 5
    found = poses.joints[0, 3, 5]
    np.testing.assert_allclose(found, [world["x"], world["y"], world["z"]])


def test_mediapipes_image_landmarks_need_the_picture(tmp_path):
    frames = [
        {"pose_landmarks": {"landmark": landmarks(0.2, 0.5, t)}} for t in range(9)
    ]
    with pytest.raises(PoseError, match="--picture WIDTH HEIGHT"):
        read(tmp_path, frames)
    poses = read(tmp_path, frames, picture=(640, 360), third="score")
    place = landmarks(0.2, 0.5, 2)[0]
    expected = [place["x"] * 640, place["y"] * 360]
    np.testing.assert_allclose(poses.joints[0, 2, 0], expected)


# Text and CSV


def test_frame_numbers_of_a_csv(tmp_path):
    lines = ["frame, " + ", ".join(f"x{j}, y{j}, s{j}" for j in range(17))]
    for t in sorted(range(FRAMES), key=str):
        if t != 7:
            lines.append(", ".join(map(str, [t + 1, *flat(t)])))
    poses = read(tmp_path, "\n".join(lines), "a.csv")
    np.testing.assert_allclose(poses.joints[0], WANT)
    assert poses.notes == "interpolated 17 of 408 joints, in 1 of 24 frames all"
    lines.append(lines[-1])
    with pytest.raises(PoseError, match=r"a\.csv: line 25: frame \d+ is there twice"):
        read(tmp_path, "\n".join(lines), "a.csv")


@pytest.mark.parametrize("mark", [",", "; ", "\t", "  "])
def test_kinect_recordings_without_a_header(tmp_path, mark):
    rng = np.random.default_rng(0)
    joints = rng.uniform(-1, 1, (9, 25, 3)).round(3) + [0, 0, 2.5]
    states = np.full((9, 25, 1), 2.0)
    states[4, 7] = 0  # not tracked
    for rows in (joints, np.concatenate([joints, states], axis=2)):
        lines = [mark.join(map(str, frame.ravel().tolist())) for frame in rows]
        if mark == ",":
            lines = [line + "," for line in lines]
        text = "\n".join(lines)
        with pytest.raises(PoseError, match="rows of .* numbers: pass --layout"):
            read(tmp_path, text, "a.txt")
        poses = read(tmp_path, text, "a.txt", layout="kinect25")
        assert poses.file.summary == "kinect25, 3-D, in metres"
        np.testing.assert_allclose(poses.joints[0, 8], joints[8])
    np.testing.assert_allclose(poses.joints[0, 4, 7], joints[[3, 5], 7].mean(axis=0))


def ntu(bodies):
    """NTU RGB+D's text of frames, each a list of bodies (25, 3)."""
    lines = [str(len(bodies))]
    for frame in bodies:
        lines.append(str(len(frame)))
        for body in frame:
            lines += ["72057594037931101 0 1 1 1 1 0 0.02 -0.3 2", "25"]
            for x, y, z in body.tolist():
                lines.append(f"{x} {y} {z} 277.5 191.6 1036.2 519.1 0.1 0.2 0.3 0.4 2")
    return "\n".join(lines) + "\n"


def test_ntu_skeletons(tmp_path):
    rng = np.random.default_rng(0)
    body = rng.uniform(-0.8, 0.8, (12, 25, 3)).round(4) + [0, 0, 3.5]
    other = body / 3 + [4, 0, 0]
    frames = [[two, one] for one, two in zip(body, other, strict=True)]
    frames[5] = []
    poses = read(tmp_path, ntu(frames), "a.skeleton")
    assert poses.file.summary == "kinect25, 3-D, in metres"
    np.testing.assert_allclose(poses.joints[0, 3], body[3])
    np.testing.assert_allclose(poses.joints[0, 5], (body[4] + body[6]) / 2)
    for cut in (ntu(frames)[:4000], "x", ""):
        with pytest.raises(PoseError, match=r"a\.skeleton: "):
            read(tmp_path, cut, "a.skeleton")


def test_openpose_joints_by_number_are_those_of_the_tool(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for t in range(0, 40, 2):  # --frame_step 2
        people = [{"pose_keypoints_2d": [], "person_id": [-1]}]
        body = np.column_stack(
            [np.random.default_rng(t).uniform(50, 300, (25, 2)), [0.9] * 25]
        )
        people.append({"pose_keypoints_2d": body.ravel().tolist()})
        path = folder / f"v_{t:012}_keypoints.json"
        path.write_text(json.dumps({"version": 1.3, "people": people}))
    found = read_pose_file(folder, PoseConfig())
    assert len(found.people) == 20 and found.layout.name == "body25"
    assert found.notes == ("frame numbers go up by 2: taken as consecutive",)


def test_a_csv_row_with_decimal_commas_is_refused(tmp_path):
    """Python's reader puts the cells beyond the header aside without a word."""
    header = ",".join(f"x{joint},y{joint}" for joint in range(17))
    rows = [",".join(f"{value:.1f}" for value in frame.ravel()) for frame in WANT]
    text = "\n".join([header, *rows])
    read(tmp_path, text, "a.csv")
    with pytest.raises(PoseError, match="line 2: expected 34 cells .* found 68"):
        read(
            tmp_path,
            "\n".join([header, *(row.replace(".", ",") for row in rows)]),
            "a.csv",
        )
    with pytest.raises(PoseError, match="line 3: expected 34 cells .* found 33"):
        read(tmp_path, text.replace(rows[1], rows[1].rsplit(",", 1)[0]), "a.csv")


def test_pixels_in_eight_bits_are_refused(tmp_path):
    """Positions beyond 255 have wrapped around in them."""
    np.save(tmp_path / "a.npy", WANT.astype(np.uint8))
    with pytest.raises(PoseError, match="pixels beyond 255"):
        read_poses(tmp_path / "a.npy", "", PoseConfig())


@pytest.mark.parametrize("code", [9999, -9999])
def test_a_number_far_out_in_all_axes_stands_for_missing(tmp_path, code):
    lost = np.random.default_rng(0).random((FRAMES, 17)) < 0.1
    lost[[0, -1]] = False
    np.save(tmp_path / "a.npy", np.where(lost[..., None], code, WANT))
    poses = read_poses(tmp_path / "a.npy", "", PoseConfig())
    np.testing.assert_allclose(poses.joints, [WANT])  # they move evenly
    assert f"joints at ({code}, {code}) taken as missing" in poses.notes


def test_what_a_mac_leaves_beside_openposes_files_is_ignored(tmp_path):
    for frame in range(FRAMES):
        people = [{"pose_keypoints_2d": flat(frame)}]
        name = f"a_{frame:012}_keypoints.json"
        (tmp_path / name).write_text(json.dumps({"people": people}))
        (tmp_path / f"._{name}").write_bytes(b"\0\5\x16\7")
    np.testing.assert_allclose(read_poses(tmp_path, "", PoseConfig()).joints, [WANT])
