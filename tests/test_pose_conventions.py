"""What the numbers of a pose file are taken for: layout, third number, units, gaps."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.fft import dct

from aqa.extract.config import PoseConfig
from aqa.extract.poses.features import body_size, pose_features
from aqa.extract.poses.layouts import layout_of_names, named_layout
from aqa.extract.poses.read import PoseError
from aqa.extract.poses.tracks import read_poses

FRAMES = 40
#: Joints of COCO in Kinect's SDK 2 (as in the paper of NTU RGB+D), in MediaPipe's
#: manual and in Human3.6M, where there are such.
KINECT_HEAD, MEDIAPIPE = 3, [0, 2, 5, 7, 8, *range(11, 17), *range(23, 29)]


def moving(joints=17, axes=2, seed=0, size=60.0, middle=200.0):
    """Joints (frames, joints, axes) that swing around a middle."""
    rng = np.random.default_rng(seed)
    shape, phase = rng.uniform(-1, 1, (2, joints, axes))
    times = np.arange(FRAMES)[:, None, None] / 6
    return middle + size * (shape + 0.3 * np.sin(times + 3 * phase))


def gaps(joints, seed=0):
    gone = np.random.default_rng(seed).random(joints.shape[:2]) < 0.15
    gone[[0, -1]] = False
    return gone


def interpolated(joints, gone):
    """Joints with the missing ones interpolated, by hand."""
    times, filled = np.arange(len(joints)), joints.copy()
    for joint in range(joints.shape[1]):
        seen = ~gone[:, joint]
        for axis in range(joints.shape[2]):
            values = joints[seen, joint, axis]
            filled[:, joint, axis] = np.interp(times, times[seen], values)
    return filled


def save(tmp_path, array):
    np.save(tmp_path / "poses.npy", array)
    return tmp_path / "poses.npy"


def read(path, **options):
    return read_poses(path, "", PoseConfig(**options))


def with_score(joints, score):
    return np.concatenate(
        [joints, np.broadcast_to(score, joints.shape[:2])[..., None]], 2
    )


# Missing joints


@pytest.mark.parametrize("score", [None, "zero", "low but kept", "certain"])
@pytest.mark.parametrize("blank", [0, -1, np.nan, np.inf])
def test_blank_joints_are_missing_whatever_their_score(tmp_path, blank, score):
    joints = moving()
    gone = gaps(joints)
    table = np.where(gone[..., None], blank, joints)
    if score is not None:
        low = {"zero": 0, "low but kept": 0.4, "certain": 1}[score]
        table = with_score(table, np.where(gone, low, 0.9))
    poses = read(save(tmp_path, table))
    np.testing.assert_allclose(poses.joints[0], interpolated(joints, gone), rtol=1e-12)
    assert poses.notes.startswith(f"interpolated {gone.sum()} of {gone.size} joints")


def test_features_of_blank_joints_are_those_of_the_interpolated(tmp_path):
    joints = moving()
    gone = gaps(joints)
    poses = read(save(tmp_path, np.where(gone[..., None], 0, joints)))
    features = pose_features(poses, PoseConfig())[0, 0]
    filled = interpolated(joints, gone)
    series = (filled - filled[:, :1])[:, 1:].transpose(2, 1, 0).reshape(32, FRAMES)
    expected = np.abs(dct(series, norm="ortho"))
    expected = np.pad(expected, ((0, 0), (0, 50 - FRAMES))).ravel()
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-3)


def test_joint_that_others_are_measured_from_is_not_missing(tmp_path):
    joints = moving(25, axes=3, size=0.6, middle=0)
    joints -= joints[:, :1]
    table = joints.copy()
    table[5:8] = 0  # frames without a person, as zeros
    table[20, 4] = 0  # a joint that was not found
    poses = read(save(tmp_path, table), layout="kinect25")
    gone = np.zeros(joints.shape[:2], bool)
    gone[5:8], gone[20, 4] = True, True
    np.testing.assert_allclose(poses.joints[0], interpolated(joints, gone), atol=1e-12)


def test_joint_at_the_left_edge_of_the_picture_is_there(tmp_path):
    joints = moving()
    joints[4, 3, 0] = 0
    np.testing.assert_array_equal(read(save(tmp_path, joints)).joints[0], joints)


def test_file_of_zeros_is_refused(tmp_path):
    with pytest.raises(PoseError, match=r"poses\.npy: every joint .* is missing"):
        read(save(tmp_path, np.zeros((9, 17, 2))))


def test_joints_in_one_place_have_no_size(tmp_path):
    poses = read(save(tmp_path, np.full((9, 17, 2), 50.0)))
    with pytest.raises(PoseError, match="all joints of a person are in one place"):
        pose_features(poses, PoseConfig(features="pose-clips"))


# The third number


@pytest.mark.parametrize(
    "third", [2.6, -0.7, 1.2, 98.0], ids=["metres", "around 0", "above 1", "percent"]
)
def test_third_number_of_pixels_that_is_no_score_is_asked_for(tmp_path, third):
    path = save(tmp_path, with_score(moving(), third))
    with pytest.raises(
        PoseError, match=r"poses\.npy: .*--third score or --third depth"
    ):
        read(path)


def test_third_number_that_could_be_either_is_asked_for(tmp_path):
    path = save(tmp_path, with_score(moving(size=0.5, middle=0), 0.8))
    with pytest.raises(PoseError, match="is it a score or z"):
        read(path)
    assert read(path, third="score", units="metres").joints.shape[3] == 2
    deep = read(path, third="depth", layout="coco17")
    assert deep.joints.shape[3] == 3 and deep.file.facts["axes"] == 3


def test_third_number_is_taken_as_stated(tmp_path):
    joints = moving(25, axes=3, size=400, middle=2000)  # millimetres
    path = save(tmp_path, joints)
    with pytest.raises(PoseError, match="is it a score or z"):
        read(path, layout="kinect25")
    poses = read(path, layout="kinect25", third="depth")
    np.testing.assert_array_equal(poses.joints[0], joints)
    with pytest.raises(PoseError, match="expected scores from 0 to 1, found 1"):
        read(path, layout="kinect25", third="score")


def test_depth_cannot_be_stated_of_what_has_none(tmp_path):
    with pytest.raises(PoseError, match="--third depth: found x, y of each joint"):
        read(save(tmp_path, moving()), third="depth")
    with pytest.raises(PoseError, match="--third score: found x, y of"):
        read(save(tmp_path, moving()), third="score")


def test_scores_of_zero_alone_are_refused(tmp_path):
    with pytest.raises(PoseError, match="found 0 to 0: if the third number is z"):
        read(save(tmp_path, with_score(moving(), 0)))


def test_visibility_flags_are_scores(tmp_path):
    joints = moving()
    gone = gaps(joints)
    path = save(tmp_path, with_score(joints, np.where(gone, 0, 2)))
    np.testing.assert_allclose(read(path).joints[0], interpolated(joints, gone))


# Units


def test_fractions_need_the_size_of_the_picture_and_become_pixels(tmp_path):
    joints = moving()
    path = save(tmp_path, joints / (640, 360))
    with pytest.raises(PoseError, match="Pass --picture WIDTH HEIGHT"):
        read(path)
    poses = read(path, picture=(640, 360))
    np.testing.assert_allclose(poses.joints[0], joints, rtol=1e-12)
    assert (
        poses.file.facts["units"] == "pixels" and "picture of 640 x 360" in poses.notes
    )
    with pytest.raises(PoseError, match="expected pixels, found x and y"):
        read(path, units="pixels")
    with pytest.raises(PoseError, match="expected fraction, found x and y"):
        read(save(tmp_path, joints), units="fraction", picture=(640, 360))


def test_openpose_scale_of_minus_one_to_one_is_named(tmp_path):
    path = save(tmp_path, moving() / 320 * 2 - 1)
    with pytest.raises(PoseError, match="--keypoint_scale 4"):
        read(path)


@pytest.mark.parametrize("unit", [1.0, 1000.0, 39.37], ids=["m", "mm", "inch"])
@pytest.mark.parametrize("kind", ["pose-dct", "pose-clips", "pose-apen"])
def test_features_of_lengths_do_not_depend_on_the_unit(tmp_path, kind, unit):
    joints = moving(25, axes=3, size=0.5, middle=2)
    options = {"layout": "kinect25", "third": "depth", "units": "metres"}
    config = PoseConfig(features=kind, **options)
    path = save(tmp_path, joints)
    expected = pose_features(read_poses(path, "", config), config)
    path = save(tmp_path, joints * unit)
    found = pose_features(read_poses(path, "", config), config)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_entropy_takes_any_scale(tmp_path):
    joints = moving()
    entropy = PoseConfig(features="pose-apen")
    expected = pose_features(read(save(tmp_path, joints)), entropy)
    path = save(tmp_path, joints / (640, 360))
    poses = read_poses(path, "", entropy)
    assert poses.file.facts["units"] == "any"
    np.testing.assert_allclose(pose_features(poses, entropy), expected, atol=1e-6)


def test_body_size_is_the_median_spread():
    joints = np.array([[[0, 0], [2, 0]], [[0, 0], [6, 0]], [[1, 1], [1, 9]]], float)
    assert body_size(joints) == 3  # spreads 1, 3 and 4


# Layouts


@pytest.mark.parametrize(
    ("joints", "axes", "named"),
    [
        (25, 2, "--layout body25 or --layout kinect25 or --joints 25"),
        (20, 2, "--layout kinect20 or"),
        (24, 3, "--layout smpl24 or"),
        (17, 3, "--layout coco17 or --layout h36m17 or"),
        (22, 3, "found 22 joints, of no known layout: pass --joints 22"),
    ],
)
def test_number_of_joints_that_says_nothing_is_refused(tmp_path, joints, axes, named):
    path = save(
        tmp_path, moving(joints, axes, size=0.5, middle=0) * (40 if axes == 2 else 1)
    )
    with pytest.raises(PoseError, match=named):
        read(path)


def test_human36m_in_pixels_is_not_taken_for_coco(tmp_path):
    joints = moving()
    joints[:, 0] = (joints[:, 1] + joints[:, 4]) / 2  # the pelvis
    path = save(tmp_path, joints)
    with pytest.raises(PoseError, match="--layout coco17 or --layout h36m17"):
        read(path)
    assert read(path, layout="h36m17").file.layout.head == 10


def test_head_of_coco_is_not_taken_for_human36m(tmp_path):
    joints = moving()
    joints[:, 0] = (joints[:, 1] + joints[:, 4]) / 2
    joints[:, :5] = joints[:, :1] + (joints[:, :5] - joints[:, :1]) / 10
    assert read(save(tmp_path, joints)).file.layout.name == "coco17"


def test_layouts_with_cocos_joints_become_coco(tmp_path):
    joints = moving(33)
    poses = read(save(tmp_path, joints))
    np.testing.assert_array_equal(poses.joints[0], joints[:, MEDIAPIPE])
    assert poses.file.summary == "mediapipe33 as coco17, 2-D, in pixels"
    whole = read(save(tmp_path, moving(133)))
    np.testing.assert_array_equal(whole.joints[0], moving(133)[:, :17])


def test_kinect_is_measured_from_the_head(tmp_path):
    joints = moving(25, axes=3, size=0.5, middle=2)
    config = PoseConfig(layout="kinect25", third="depth", units="metres")
    poses = read_poses(save(tmp_path, joints), "", config)
    found = pose_features(poses, config)[0, 0]
    spread = joints - joints.mean(axis=1, keepdims=True)
    size = np.median(np.sqrt((spread**2).sum(axis=2).mean(axis=1)))
    relative = np.delete(joints - joints[:, [KINECT_HEAD]], KINECT_HEAD, axis=1)
    series = relative.transpose(2, 1, 0).reshape(-1, FRAMES) * 50 / size
    expected = np.pad(np.abs(dct(series, norm="ortho")), ((0, 0), (0, 50 - FRAMES)))
    np.testing.assert_allclose(found, expected.ravel(), rtol=1e-4, atol=1e-3)


def test_number_of_joints_has_to_be_the_stated_one(tmp_path):
    with pytest.raises(PoseError, match="expected 25 joints, found 17"):
        read(save(tmp_path, moving()), layout="body25")
    with pytest.raises(PoseError, match="expected 14 joints, found 17"):
        read(save(tmp_path, moving()), joints=14, root=0)


@pytest.mark.parametrize(
    "spelling",
    [str, str.upper, lambda n: n.replace("left_", "l_").replace("right_", "r_")],
)
def test_joint_names_decide_whatever_their_order_and_spelling(spelling):
    names = (
        "right_hip left_hip nose left_eye right_eye left_ear right_ear neck "
        "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
        "left_knee right_knee left_ankle right_ankle"
    ).split()
    layout = layout_of_names([spelling(name) for name in names])
    order = [names[i] for i in layout.take]
    assert order[:3] == ["nose", "left_eye", "right_eye"]
    assert order[11:13] == ["left_hip", "right_hip"] and len(order) == 17
    assert layout_of_names(["paw", "tail"]) is None


def test_mirrored_joints_are_each_others():
    for name in ("coco17", "kinect25", "kinect20", "smpl24", "h36m17"):
        mirrored = named_layout(name).mirrored
        assert [mirrored[other] for other in mirrored] == list(range(len(mirrored)))


# The matrix of benchmarks/pose_matrix.py, in part


def test_sample_of_the_matrix_has_no_wrong_cell(tmp_path):
    path = Path(__file__).parents[1] / "benchmarks" / "pose_matrix.py"
    matrix = runpy.run_path(str(path))
    cells = matrix["cells"]()
    assert len(cells) == 480
    order = np.random.default_rng(0).permutation(len(cells))[:60]
    found = {cells[i]: matrix["outcome"](cells[i], tmp_path) for i in order}
    wrong = {cell: why for cell, (kind, why) in found.items() if kind == "WRONG"}
    assert not wrong
    assert {kind for kind, _ in found.values()} == {"right", "asked"}


def test_first_video_decides_and_others_are_refused(tmp_path):
    from fakes import dataset

    from aqa.extract.poses.features import PoseExtractor

    for key, record in (
        ("diving/001", moving()),
        ("diving/002", moving(25, axes=3, size=0.5, middle=2)),
    ):
        path = tmp_path / f"{key}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record.tolist()))
    videos = dataset(("diving/001", "diving/002")).videos
    extractor = PoseExtractor(tmp_path, PoseConfig(), videos)
    assert extractor.notes == ("poses: coco17, 2-D, in pixels",)
    assert extractor.provenance.record["layout"] == "coco17"
    (_, first), (_, second) = extractor.extract(videos)
    assert first.features.shape == (1, 1, 1600)
    assert "002.json" in str(second) and "--layout" in str(second)
