"""Poses by rtmlib, on small ONNX models that are built here.

None of the public models can be had for a test: these models find red things, and
say where they are in the three output forms that rtmlib reads. Skipped without the
extra `pose` and the package onnx.
"""

import numpy as np
import pytest
from fakes import encode

from aqa.extract.config import DetectorConfig, PoseConfig
from aqa.extract.datasets import read_dataset
from aqa.extract.poses.conventions import read_pose_file
from aqa.extract.poses.detect import PoseModel, detect_poses, pose_model_record
from aqa.extract.poses.read import PoseError

onnx = pytest.importorskip("onnx")
pytest.importorskip("rtmlib")
pytest.importorskip("onnxruntime")

SIDE = 64
JOINTS = np.arange(17 * 2, dtype=np.float32).reshape(17, 2) / 4


def graph(path, nodes, shape, outputs, **constants):
    """Write an ONNX model; `nodes` are (operator, inputs, output, attributes)."""
    made = [
        onnx.helper.make_node(kind, inputs.split(), [output], **attributes)
        for kind, inputs, output, attributes in nodes
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in [("image", shape), *outputs]
    ]
    tensors = [
        onnx.numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(made, "red", values[:1], values[1:], tensors),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def centre():
    """Nodes for the centre of what is red in a BGR image: `centre` (2,)."""
    return [
        ("Gather", "image two", "red", {"axis": 1}),  # (1, 64, 64)
        ("ReduceSum", "red every", "raw", {"keepdims": 0}),
        ("Max", "raw one", "mass", {}),
        ("Mul", "red across", "rx", {}),
        ("ReduceSum", "rx every", "mx", {"keepdims": 0}),
        ("Mul", "red down", "ry", {}),
        ("ReduceSum", "ry every", "my", {"keepdims": 0}),
        ("Div", "mx mass", "x0", {}),
        ("Div", "my mass", "y0", {}),
        ("Reshape", "x0 single", "x", {}),
        ("Reshape", "y0 single", "y", {}),
        ("Concat", "x y", "centre", {"axis": 0}),
        # Something red: 0.9. Nothing: 0.
        ("Reshape", "raw single", "raw1", {}),
        ("Clip", "raw1 zero best", "score", {}),
    ]


CENTRE = {
    "two": np.int64(2),
    "every": np.array([0, 1, 2]),
    "one": np.float32(1),
    "across": np.arange(SIDE, dtype=np.float32),
    "down": np.arange(SIDE, dtype=np.float32)[:, None],
    "single": np.array([1]),
    "zero": np.float32(0),
    "best": np.float32(0.9),
}


def rtmo(path):
    """One person, `JOINTS` about the centre of what is red."""
    nodes = [
        *centre(),
        ("Add", "centre joints", "places", {}),  # (17, 2)
        ("Expand", "score column", "scores", {}),  # (17, 1)
        ("Concat", "places scores", "person", {"axis": 1}),
        ("Reshape", "person people", "keypoints", {}),
        ("Concat", "frame score", "box", {"axis": 0}),
        ("Reshape", "box boxes", "dets", {}),
    ]
    outputs = [("dets", (1, 1, 5)), ("keypoints", (1, 1, 17, 3))]
    return graph(
        path,
        nodes,
        (1, 3, SIDE, SIDE),
        outputs,
        **CENTRE,
        joints=JOINTS,
        column=np.array([17, 1]),
        people=np.array([1, 1, 17, 3]),
        frame=np.array([0, 0, SIDE, SIDE], np.float32),
        boxes=np.array([1, 1, 5]),
    )


def yolox(path):
    """One box of 24 by 32 pixels about the centre of what is red."""
    nodes = [
        *centre(),
        ("Sub", "centre half", "low", {}),
        ("Add", "centre half", "high", {}),
        ("Concat", "low high score", "box", {"axis": 0}),
        ("Reshape", "box boxes", "dets", {}),
    ]
    return graph(
        path,
        nodes,
        (1, 3, SIDE, SIDE),
        [("dets", (1, 1, 5))],
        **CENTRE,
        half=np.array([12, 16], np.float32),
        boxes=np.array([1, 1, 5]),
    )


def rtmpose(path, height=64, width=48):
    """All joints where an RGB image is reddest, two bins a pixel, along x and y."""
    nodes = [
        ("Gather", "image first", "normal", {"axis": 1}),  # (1, height, width)
        ("Relu", "normal", "red", {}),  # black is below 0 by now
        ("ReduceSum", "red rows", "x0", {"keepdims": 0}),
        ("ReduceSum", "red columns", "y0", {"keepdims": 0}),
        ("MatMul", "x0 wide", "x1", {}),
        ("MatMul", "y0 tall", "y1", {}),
        ("Expand", "x1 xs", "simcc_x", {}),
        ("Expand", "y1 ys", "simcc_y", {}),
    ]
    outputs = [("simcc_x", (1, 17, 2 * width)), ("simcc_y", (1, 17, 2 * height))]
    return graph(
        path,
        nodes,
        (1, 3, height, width),
        outputs,
        first=np.int64(0),
        rows=np.array([0, 1]),
        columns=np.array([0, 2]),
        wide=np.kron(np.eye(width), [1, 0]).astype(np.float32),
        tall=np.kron(np.eye(height), [1, 0]).astype(np.float32),
        xs=np.array([1, 17, 2 * width]),
        ys=np.array([1, 17, 2 * height]),
    )


def picture(x, y, colour=(255, 0, 0), side=SIDE, size=3):
    """Black RGB (side, side, 3) with a square of odd `size` centred at x, y."""
    frame = np.zeros((side, side, 3), np.uint8)
    half = size // 2
    frame[y - half : y + half + 1, x - half : x + half + 1] = colour
    return frame


def test_rtmo_finds_red_and_not_blue(tmp_path):
    model = PoseModel(DetectorConfig(rtmo(tmp_path / "rtmo.onnx"), device="cpu"))
    (person,) = model(picture(20, 30))
    np.testing.assert_allclose(person[:, :2], JOINTS + [20, 30], atol=1e-4)
    np.testing.assert_allclose(person[:, 2], 0.9, rtol=1e-6)
    assert model(picture(20, 30, colour=(0, 0, 255))) == []


def test_positions_are_in_pixels_of_the_frame(tmp_path):
    model = PoseModel(DetectorConfig(rtmo(tmp_path / "rtmo.onnx"), device="cpu"))
    (person,) = model(picture(61, 101, side=2 * SIDE, size=9))
    np.testing.assert_allclose(person[:, :2], 2 * JOINTS + [61, 101], atol=1.5)


def test_rtmpose_looks_into_the_box_that_the_detector_found(tmp_path):
    config = DetectorConfig(
        rtmpose(tmp_path / "pose.onnx"), yolox(tmp_path / "yolox.onnx"), "cpu"
    )
    model = PoseModel(config)
    (person,) = model(picture(20, 30, size=5))
    np.testing.assert_allclose(person[:, :2], [[20, 30]] * 17, atol=2)
    assert model(picture(20, 30, colour=(0, 0, 255))) == []


def test_nothing_is_printed(tmp_path, capsys):
    PoseModel(DetectorConfig(rtmo(tmp_path / "rtmo.onnx"), device="cpu"))
    assert capsys.readouterr().out == ""


def test_record_tells_files_apart_by_content(tmp_path):
    first = pose_model_record(DetectorConfig(rtmo(tmp_path / "a.onnx")))
    again = pose_model_record(DetectorConfig(rtmo(tmp_path / "b.onnx")))
    other = pose_model_record(DetectorConfig(yolox(tmp_path / "c.onnx")))
    digests = [one["model"]["sha256"] for one in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]
    assert first["rtmlib"] and first["onnxruntime"]


def test_models_that_do_not_go_together_are_refused(tmp_path):
    pose, boxes = rtmpose(tmp_path / "pose.onnx"), yolox(tmp_path / "yolox.onnx")
    whole = rtmo(tmp_path / "rtmo.onnx")
    for model, detector, found in (
        (pose, None, "found RTMPose:"),
        (whole, boxes, "found RTMO with YOLOX"),
        (boxes, None, "found YOLOX:"),
        (pose, whole, "found RTMPose with RTMO"),
    ):
        with pytest.raises(PoseError, match=found):
            PoseModel(DetectorConfig(model, detector, "cpu"))


def test_what_is_no_model_is_refused_by_name(tmp_path):
    with pytest.raises(PoseError, match=r"no\.onnx: expected an \.onnx file"):
        PoseModel(DetectorConfig(tmp_path / "no.onnx", device="cpu"))
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(PoseError, match=r"text\.onnx: expected an ONNX model"):
        PoseModel(DetectorConfig(tmp_path / "text.onnx", device="cpu"))
    nodes = [("Identity", "image", "same", {})]
    graph(tmp_path / "same.onnx", nodes, (1, 3, 8, 8), [("same", (1, 3, 8, 8))])
    with pytest.raises(PoseError, match=r"same\.onnx: .*output ranks \(4,\)"):
        PoseModel(DetectorConfig(tmp_path / "same.onnx", device="cpu"))


def test_poses_of_a_data_set_by_a_process_of_its_own(tmp_path):
    videos = tmp_path / "videos"
    encode(videos / "a.avi", [picture(x, 30) for x in range(10, 20)])
    (videos / "b.avi").write_bytes(b"nothing to see")
    config = DetectorConfig(rtmo(tmp_path / "rtmo.onnx"), device="cpu")
    result = detect_poses(read_dataset(videos), tmp_path / "poses", config)
    assert result.done == 1
    assert [failure.key for failure in result.failures] == ["b.avi"]
    people = read_pose_file(tmp_path / "poses" / "a.avi.json", PoseConfig()).people
    expected = JOINTS + np.column_stack([np.arange(10, 20), [30] * 10])[:, None]
    np.testing.assert_allclose(people[:, 0, :, :2], expected, atol=0.01)
