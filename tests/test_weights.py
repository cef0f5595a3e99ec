"""Every weight format, written here from the bytes up, gives the same features."""

import collections
import json
import os
import pickle
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from aqa.cache.errors import AqaError
from aqa.extract.c3d import ARCHITECTURES, build
from aqa.extract.config import ExtractConfig
from aqa.extract.network import C3DExtractor
from aqa.extract.preprocessing import PRESETS
from aqa.extract.weights.formats import WeightsError
from aqa.extract.weights.load import inspect, load_weights, save_weights

TINY = ARCHITECTURES["c3d-tiny"]
FULL = ARCHITECTURES["c3d-full"]


def convert(path, out, **presets):
    return save_weights(load_weights(path, **presets), out)


# A Caffe file from the wire up: varints, length-delimited fields, nothing else.


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def chunk(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def five_axes(array, ids):
    axes = (1,) * (5 - array.ndim) + array.shape
    return b"".join(number(i, n) for i, n in zip(ids, axes, strict=True))


def old_blob(array):
    """C3D 1.0: num, channels, length, height, width = 1..5, data = 6."""
    return five_axes(array, range(1, 6)) + chunk(6, array.astype("<f4").tobytes())


def legacy_blob(array):
    """Before BlobShape: num, channels, height, width, and video-caffe's length."""
    shape = five_axes(array, (1, 2, 7777, 3, 4))
    return shape + chunk(5, array.astype("<f4").tobytes())


def new_blob(array):
    """Caffe proper: data = 5, shape = 7 {dim = 1, packed}."""
    dims = chunk(1, b"".join(map(varint, array.shape)))
    return chunk(5, array.astype("<f4").tobytes()) + chunk(7, dims)


def double_blob(array):
    """Caffe proper, in double_data = 8, and each axis a field of its own."""
    dims = b"".join(number(1, n) for n in array.shape)
    return chunk(7, dims) + chunk(8, array.astype("<f8").tobytes())


def caffemodel(arrays, blob, *, layer=2, fc6="fc6"):
    """A NetParameter: `layers` = 2 (name 4, blobs 6) or `layer` = 100 (1 and 7)."""
    name_field, blob_field = {2: (4, 6), 100: (1, 7)}[layer]
    out = chunk(1, b"DeepNet") + number(5, 1)
    for name in sorted({key.partition(".")[0] for key in arrays}):
        called = fc6 if name == "fc6" else name
        body = chunk(name_field, called.encode())
        body += b"".join(
            chunk(blob_field, blob(arrays[f"{name}.{part}"]))
            for part in ("weight", "bias")
        )
        out += chunk(layer, body)
    silent = chunk(name_field, b"relu6") + chunk(2, b"fc6")  # a layer without blobs
    return out + chunk(layer, silent)


@pytest.fixture(scope="module")
def arrays():
    """Known numbers for the tiny network, and an FC-7 that nobody should need."""
    rng = np.random.default_rng(7)
    state = {
        name: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) + 1)).astype("f")
        for name, shape in TINY.shapes().items()
    }
    state["fc7.weight"] = rng.standard_normal((5, 256)).astype("f")
    state["fc7.bias"] = rng.standard_normal(5).astype("f")
    return state


@pytest.fixture(scope="module")
def features(arrays):
    """What the known numbers make of a clip, and the function that made it."""
    rng = np.random.default_rng(1)
    clip = torch.from_numpy(rng.normal(0, 50, (1, 3, 16, 112, 112)).astype("f"))

    def of(state):
        kept = {name: torch.as_tensor(state[name]) for name in TINY.shapes()}
        return build(TINY, kept)(clip)

    return SimpleNamespace(expected=of(arrays), of=of)


def tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def renamed(arrays, **layers):
    """Call some layers otherwise: conv1a="conv1"."""
    state = {}
    for name, value in tensors(arrays).items():
        layer, part = name.split(".")
        state[f"{layers.get(layer, layer)}.{part}"] = value
    return state


def pickled(arrays):
    return collections.OrderedDict(renamed(arrays, conv1a="conv1", conv2a="conv2"))


def mmaction(arrays, prefix="", head=()):
    convs = {name: f"{prefix}{name}.conv" for name in TINY_CONVS}
    state = renamed(arrays, **convs, fc6=f"{prefix}fc6", fc7=f"{prefix}fc7")
    return state | {name: torch.ones(3) for name in head}


TINY_CONVS = ("conv1a", "conv2a", "conv3a", "conv4a", "conv5a")
HEAD = ("cls_head.fc_cls.weight", "cls_head.fc_cls.bias")


def training(arrays, **more):
    """A run of jfzhang95's trainer."""
    state = renamed(arrays, conv1a="conv1", conv2a="conv2", fc7="fc8")
    return {"epoch": 3, "state_dict": state, "opt_dict": {"lr": 1e-3, **more}}


def torch_file(made, **options):
    return lambda path, arrays: torch.save(made(arrays), path, **options)


def caffe_file(blob, **options):
    return lambda path, arrays: path.write_bytes(caffemodel(arrays, blob, **options))


def safetensors_file(made):
    return lambda path, arrays: save_file(made(arrays), path)


def doubles(arrays):
    return {name: value.double() for name, value in tensors(arrays).items()}


def fine_tuned(arrays):
    meta = {"epoch": 45, "version": "1.0"}
    return {"meta": meta, "state_dict": mmaction(arrays, "backbone.", HEAD)}


EXACT, ROUNDED, IMAGENET_BYTES = (90.25, 97.66, 101.41), (90, 98, 102), (104, 117, 128)
#: Last pooling, order of channels and mean that go with an origin.
CAFFE, NEW_CAFFE = ("ceil", "BGR", EXACT), ("ceil", "BGR", ROUNDED)
TRAINED = ("padded", "BGR", ROUNDED)
MM, MM_TRAINED = ("ceil", "RGB", IMAGENET_BYTES), ("padded", "RGB", IMAGENET_BYTES)
OLD_FORM = {"_use_new_zipfile_serialization": False}

FORMATS = {
    "safetensors": (safetensors_file(tensors), CAFFE),
    "safetensors in doubles": (safetensors_file(doubles), CAFFE),
    "state dict": (torch_file(tensors), CAFFE),
    "c3d.pickle": (torch_file(pickled, **OLD_FORM), CAFFE),
    "a training run": (torch_file(training), TRAINED),
    "a training run with NumPy's scalars": (
        torch_file(lambda a: training(a, lr=np.float64(1e-3), n=np.int64(4))),
        TRAINED,
    ),
    "wrapped twice": (
        torch_file(lambda a: {"model": {"state_dict": tensors(a)}}),
        CAFFE,
    ),
    "mmaction2, converted": (torch_file(mmaction), MM),
    "mmaction2, fine-tuned": (torch_file(fine_tuned), MM_TRAINED),
    "caffemodel, C3D 1.0": (caffe_file(old_blob), CAFFE),
    "caffemodel, Sports-1M's names": (caffe_file(old_blob, fc6="fc6-1"), CAFFE),
    "caffemodel, video-caffe": (caffe_file(new_blob, layer=100), NEW_CAFFE),
    "caffemodel, upstream V1": (caffe_file(new_blob), NEW_CAFFE),
    "caffemodel, doubles": (caffe_file(double_blob, layer=100), NEW_CAFFE),
    "caffemodel, no BlobShape": (caffe_file(legacy_blob, layer=100), NEW_CAFFE),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_same_features_and_its_preset(
    tmp_path, arrays, features, name
):
    (write, preset), path = FORMATS[name], tmp_path / "weights"
    write(path, arrays)
    weights = load_weights(str(path))
    assert weights.arch == "c3d-tiny"
    assert list(weights.state) == list(TINY.shapes())
    assert torch.equal(features.of(weights.state), features.expected)
    found = weights.preprocessing
    assert (weights.pool5, found.channels, found.mean) == preset
    aside = {name.rpartition(".")[0].rpartition(".")[2] for name in weights.left_aside}
    assert aside <= {"fc7", "fc8", "fc_cls"} and len(weights.left_aside) >= 2

    out = tmp_path / "converted.safetensors"
    back = convert(path, out)
    assert (back.preprocessing, back.pool5) == (weights.preprocessing, weights.pool5)
    assert all(torch.equal(back.state[n], weights.state[n]) for n in TINY.shapes())
    assert (back.name, back.origin) == (weights.name, weights.origin)
    assert [each.name for each in tmp_path.iterdir() if each.name[0] == "."] == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_mutated_file_of_each_is_refused(tmp_path, arrays, name):
    path, write = tmp_path / "weights", FORMATS[name][0]

    def refused(arrays, reason):
        write(path, arrays)
        with pytest.raises(WeightsError, match=reason):
            load_weights(path)

    short = {"conv3a.weight": arrays["conv3a.weight"][:, :, :2].copy()}
    refused(arrays | short, r"conv3a.*\(64, 32, 2, 3, 3\), not \(64, 32")
    refused(
        arrays | {"conv2a.bias": np.full(32, np.nan, "f")}, "not finite in conv2a.b"
    )
    if "mmaction" not in name:
        missing = {k: v for k, v in arrays.items() if not k.startswith("conv5a")}
        refused(missing, "missing conv5a.weight, missing conv5a.b")
    write(path, arrays)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(WeightsError, match=str(path)):
        load_weights(path)
    assert inspect(path)["problem"]


@pytest.mark.parametrize(
    "write",
    [
        torch_file(lambda a: a),
        safetensors_file(lambda a: a),
        caffe_file(lambda array: double_blob(np.asarray(array)), layer=100),
    ],
    ids=["PyTorch", "safetensors", "Caffe"],
)
def test_doubles_beyond_single_precision_are_refused(tmp_path, arrays, write):
    large = doubles(arrays)
    large["conv2a.bias"][3] = 1e300
    write(tmp_path / "w", large)
    with pytest.raises(WeightsError, match="w: conv2a.bias: numbers too large for"):
        load_weights(tmp_path / "w")


@pytest.mark.parametrize("front", ["features.", "features.module."])
def test_the_layout_of_r_c3d_and_its_full_network(tmp_path, front):
    """Its own names, and as DataParallel on the convolutions alone leaves them."""
    ids = (0, 3, 6, 8, 11, 13, 16, 18)
    ours = [name[:-7] for name in FULL.shapes() if name.endswith("weight")]
    theirs = [*(f"{front}{i}" for i in ids), "classifier.0"]
    layers = dict(zip(ours, theirs, strict=True))
    state = {"classifier.3.weight": torch.zeros(1), "classifier.6.bias": torch.zeros(1)}
    for name, shape in FULL.shapes().items():
        # Rows all alike, stored once: a file of kilobytes for 300 MB of numbers.
        row = torch.arange(np.prod(shape[1:], dtype=int)).sin().view(1, *shape[1:])
        layer, part = name.split(".")
        state[f"{layers[layer]}.{part}"] = row.expand(shape)
    path = tmp_path / "c3d-pretrained.pth"
    torch.save(state, path)
    weights = load_weights(path)
    assert (weights.arch, weights.pool5) == ("c3d-full", "ceil")
    assert weights.preprocessing.mean == (90, 98, 102)
    assert torch.equal(weights.state["fc6.weight"][9], state["classifier.0.weight"][0])
    assert torch.equal(weights.state["conv4b.weight"], state[f"{front}13.weight"])
    assert sorted(weights.left_aside) == ["classifier.3.weight", "classifier.6.bias"]
    with pytest.raises(WeightsError, match="holds c3d-full, not c3d-small"):
        load_weights(path, "c3d-small")


def test_random_weights_are_a_seed_and_a_network():
    one, same, other = (
        load_weights(f"random{s}", "c3d-tiny") for s in ("", ":0", ":1")
    )
    assert one.sha256 == same.sha256 != other.sha256
    assert one.name == "random:0" and len(one.sha256) == 64
    assert load_weights("random:5").arch == "c3d-small"
    for spec in ("random:-1", "random:x", "random:1e3", "random:" + "9" * 30):
        with pytest.raises(WeightsError, match="random:SEED"):
            load_weights(spec)


def test_the_caller_may_override_the_preset(tmp_path, arrays):
    path = tmp_path / "w.safetensors"
    save_file(tensors(arrays), path)
    cube = np.random.default_rng(0).uniform(0, 255, (1, 3, 16, 128, 171)).astype("f")
    (tmp_path / "mean.binaryproto").write_bytes(old_blob(cube))
    weights = load_weights(path, preprocessing="imagenet", pool5="padded")
    assert (weights.preprocessing, weights.pool5) == (PRESETS["imagenet"], "padded")
    out = tmp_path / "out.safetensors"
    convert(path, out, mean=tmp_path / "mean.binaryproto")
    mean = load_weights(out).preprocessing.mean
    np.testing.assert_allclose(
        mean, cube[0].astype(float).mean(1)[:, 8:120, 29:141], rtol=1e-6
    )
    for options in ({"preprocessing": "vgg"}, {"pool5": "floor"}):
        with pytest.raises(WeightsError, match="expected one of"):
            load_weights(path, **options)


def test_converting_twice_gives_the_same_bytes_and_damage_is_found(tmp_path, arrays):
    path, a, b = (
        tmp_path / name for name in ("w.pth", "a.safetensors", "b.safetensors")
    )
    torch.save(tensors(arrays), path)
    convert(path, a)
    convert(path, b)
    assert a.read_bytes() == b.read_bytes()
    whole = bytearray(a.read_bytes())
    whole[-1000] ^= 1
    a.write_bytes(whole)
    with pytest.raises(WeightsError, match="damaged"):
        load_weights(a)


def stamp_of(path):
    """Read a stamp without any of ours: a length, JSON, and JSON in it."""
    whole = path.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    return json.loads(header["__metadata__"]["aqa"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', "\0", "[" * 9999])
def test_a_stamp_that_is_not_ours_is_refused(tmp_path, arrays, text):
    path = tmp_path / "w.safetensors"
    save_file(tensors(arrays), path, metadata={"aqa": text})
    with pytest.raises(WeightsError, match="stamp"):
        load_weights(path)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        *(
            ("preprocessing", key, value)
            for key, value in (
                *(("crop", 10**9), ("std", [0, 1, 1]), ("mean", ["x"] * 3)),
                *(("mean", None), ("height", "128"), ("scale", float("nan"))),
                *(("surplus", 1), ("mean", [1e300] * 3), ("std", [1e-300] * 3)),
            )
        ),
        *((None, "name", "\x1b[31m"), (None, "origin", ["x"])),
        *((None, "arch", "vgg"), (None, "notes", [])),
    ],
)
def test_a_hostile_stamp_is_refused(tmp_path, arrays, place, key, value):
    path, out = tmp_path / "w.safetensors", tmp_path / "out.safetensors"
    save_file(tensors(arrays), path)
    convert(path, out)
    stamp = stamp_of(out)
    (stamp[place] if place else stamp)[key] = value
    save_file(tensors(arrays), path, metadata={"aqa": json.dumps(stamp)})
    with pytest.raises(WeightsError, match="stamp") as error:
        load_weights(path)
    assert str(error.value).isprintable()


# What is refused, with its reason.


class Canary:
    """Unpickled, it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("options", [{}, OLD_FORM], ids=["zip", "old form"])
def test_code_in_a_checkpoint_is_named_and_does_not_run(tmp_path, arrays, options):
    path, canary = tmp_path / "evil.pth", tmp_path / "canary"
    evil = {"state_dict": tensors(arrays), "meta": Canary(canary)}
    torch.save(evil, path, **options)
    with pytest.raises(WeightsError, match="asks to run posix.mkdir when o") as error:
        load_weights(path)
    assert "weights_only" not in str(error.value) and "\n" not in str(error.value)
    assert not canary.exists()
    assert "posix.mkdir" in inspect(path)["problem"]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_is_refused_unopened(tmp_path, protocol):
    path, canary = tmp_path / "c3d_model.pkl", tmp_path / "canary"
    path.write_bytes(pickle.dumps({"conv1a": Canary(canary)}, protocol))
    with pytest.raises(WeightsError, match="a bare Python pickle, which may run any"):
        load_weights(path)
    assert not canary.exists()


FOREIGN = {
    "sports1M_weights_tf.h5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5.*Transpose"),
    "model.ckpt.index": (
        bytes(40) + struct.pack("<Q", 0xDB4775248B80FB57),
        "TensorFlow.*FC-6 rows",
    ),
    "c3d.t7": (struct.pack("<iii", 4, 1, 3) + b"V 1" + bytes(90), "Torch7"),
    "old.pth.tar": (bytes(257) + b"ustar\x0000" + bytes(300), "tar archive.*0.1.9"),
    "split.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(90), "an archive: unpack"),
    "download.pth": (b"<!DOCTYPE html><html>", "a web page"),
    "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "nothing.pth": (b"", "empty file"),
    "noise.pth": (b"\x07" * 400, "of no format known here"),
    "text.prototxt": (b'name: "C3D"\n', "of no format known here"),
    "names.npy": (b"\x93NUMPY\x01\x00" + bytes(90), "a NumPy array"),
    "random.zip": (b"PK\x03\x04" + bytes(90), "not a sound PyTorch file"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused_with_what_they_are(tmp_path, name):
    data, reason = FOREIGN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=reason) as error:
        load_weights(tmp_path / name)
    assert "\n" not in str(error.value)
    assert inspect(tmp_path / name)["problem"]


def changed(name, change):
    """The tiny network's state with an array replaced or added."""
    return lambda state: state | {name: change(state.get(name))}


def zeros(*shape, dtype=None):
    return lambda _: torch.zeros(*shape, dtype=dtype)


OTHERS = {
    "batch normalisation.*MTL-AQA.*cache import": lambda state: {
        "conv1.weight": torch.zeros(32, 3, 3, 3, 3),
        "bn1.weight": torch.zeros(32),
        "bn1.num_batches_tracked": torch.tensor(1),
    },
    "not a C3D: found Conv3d_1a_7x7.weight": lambda state: {
        "Conv3d_1a_7x7.weight": torch.zeros(2)
    },
    "no fc6.weight": lambda state: {k: v for k, v in state.items() if "fc6" not in k},
    r"\(7, 9\); expected one of: c3d-tiny \(256": changed("fc6.weight", zeros(7, 9)),
    "not a whole c3d-tiny: surplus lstm1.weight": changed("lstm1.weight", zeros(7)),
    "surplus conv3b.weight": changed("conv3b.weight", zeros(7)),
    "conv1a.bias is torch.int32": changed("conv1a.bias", zeros(16, dtype=torch.int)),
    "fc6.bias is torch.int8": changed("fc6.bias", zeros(256, dtype=torch.int8)),
    "expected a state dict, found list": lambda state: [1, 2],
    "found 'conv1a.weight': str": lambda state: {"conv1a.weight": "text"},
    # TensorFlow's and Keras's order, saved as it was.
    "transposed, as TensorFl": changed("fc6.weight", lambda w: w.T.contiguous()),
    r"conv1a.weight is \(3, 3, 3, 3, 16\), not \(16, 3, 3, 3, 3\)": changed(
        "conv1a.weight", lambda w: w.permute(2, 3, 4, 1, 0).clone()
    ),
    # A Caffe without C3D's field of length reads four axes of five.
    r"\(16, 3, 3, 3\), not": changed("conv1a.weight", lambda w: w[:, :, 0]),
    "surplus backbone.conv1a.weight": changed("backbone.conv1a.weight", zeros(2)),
    "fc6.weight and fc6-1.weight are both fc6": changed("fc6-1.weight", zeros(2)),
    "several networks .student.conv1a, teacher": lambda state: {
        f"{of}.{name}": v for of in ("student", "teacher") for name, v in state.items()
    },
}


@pytest.mark.parametrize("reason", OTHERS)
def test_other_networks_are_refused_with_what_they_are(tmp_path, arrays, reason):
    torch.save(OTHERS[reason](tensors(arrays)), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=reason):
        load_weights(tmp_path / "w.pth")


def test_what_is_no_file_or_an_archive_is_refused(tmp_path, arrays):
    with pytest.raises(WeightsError, match="pass a weights file, `tiny`, or `random`"):
        load_weights(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="expected a weights file, found no such"):
        load_weights(tmp_path)
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(WeightsError, match=r"of an .npz under Caffe's names as safet"):
        load_weights(tmp_path / "w.npz")


def test_a_checkpoint_that_holds_itself_ends(tmp_path, arrays):
    path = tmp_path / "w.pth"
    wrapped = tensors(arrays)
    for _ in range(4):
        wrapped = {"model": wrapped}
    torch.save(wrapped, path)
    assert load_weights(path).arch == "c3d-tiny"
    endless = {}
    endless["model"] = endless
    for found in ({"model": wrapped}, endless):
        torch.save(found, path)
        with pytest.raises(WeightsError, match="more than 4 wrappers"):
            load_weights(path)


def test_a_tensor_that_claims_terabytes_is_refused_by_its_shape(tmp_path, arrays):
    state = tensors(arrays)
    state["conv1a.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"conv1a.weight is \(1000000, 1000000\)"):
        load_weights(tmp_path / "w.pth")


def test_two_generations_or_two_layers_of_one_name_are_refused(tmp_path, arrays):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(caffemodel(arrays, old_blob) + caffemodel(arrays, old_blob))
    with pytest.raises(WeightsError, match="two layers are named 'conv1a'"):
        load_weights(path)
    other = {"norm.weight": np.zeros(2, "f"), "norm.bias": np.zeros(2, "f")}
    path.write_bytes(caffemodel(arrays, old_blob) + caffemodel(other, new_blob))
    with pytest.raises(WeightsError, match="both generations"):
        load_weights(path)


def test_an_inspection_says_what_a_file_is(tmp_path, arrays):
    path = tmp_path / "c3d_ucf101_iter_38000.caffemodel"
    path.write_bytes(caffemodel(arrays, new_blob, layer=100))
    found = inspect(path)
    assert found["kind"] == "Caffe, new generation" and "problem" not in found
    assert found["arrays"]["fc7.weight"] == [5, 256]
    record = json.loads(json.dumps(found))
    assert record["arch"] == "c3d-tiny" and record["pool5"] == "ceil"
    assert record["preprocessing"]["mean"] == [90, 98, 102]
    assert record["left_aside"] == ["fc7.weight", "fc7.bias"]
    assert record["sha256"] == load_weights(path).sha256
    with pytest.raises(AqaError, match="cannot be read"):
        inspect(tmp_path / "absent")


# How training code leaves checkpoints.


def put(prefix, **beside):
    """Put `prefix` in front of all names."""
    return lambda a: {prefix + k: v for k, v in tensors(a).items()} | beside


class OldTensor:
    """Pickled as PyTorch 0.2, which wrote c3d.pickle, did: without hooks."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        parts = (0, tuple(self.tensor.shape), self.tensor.stride())
        return torch._utils._rebuild_tensor, (self.tensor._typed_storage(), *parts)


def prefixed(*fronts):
    return {front: put(front) for front in fronts}


CHECKPOINTS = {
    **prefixed("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."),
    **prefixed("module.module.", "model.", "net.", "encoder.", "backbone."),
    **prefixed("model.backbone.module."),
    "module. on the network, not on the head": put(
        "module.", **{"fc9.weight": torch.ones(4)}
    ),
    "a head and a loss beside the backbone": put(
        "backbone.", **{"cls_head.fc.bias": torch.ones(3), "loss.weight": torch.ones(2)}
    ),
    "torch.optim.swa_utils": put("module.", n_averaged=torch.tensor(7)),
    "Lightning": lambda a: {
        **{"epoch": 1, "global_step": 10, "pytorch-lightning_version": "2.2"},
        **{"hyper_parameters": {"lr": 0.1}, "optimizer_states": [{}], "callbacks": {}},
        "state_dict": put("model.")(a),
    },
    "net_state_dict": lambda a: {"net_state_dict": tensors(a), "step": 7},
    "net": lambda a: {"net": put("module.")(a), "acc": 71.5, "epoch": 3},
    "a moving average beside": lambda a: {
        "model": {k: v + 1 for k, v in tensors(a).items()},
        "model_ema": tensors(a),
    },
    "thop's counters": put(
        "", **{"total_ops": torch.zeros(1), "conv1a.total_params": torch.ones(1)}
    ),
    "Parameters": lambda a: {k: torch.nn.Parameter(v) for k, v in tensors(a).items()},
    "fc8 of 487 classes": put("", **{"fc8.weight": torch.ones(487, 5)}),
    "PyTorch 0.2": lambda a: {k: OldTensor(v) for k, v in pickled(a).items()},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_training_code_give_their_numbers(tmp_path, arrays, name):
    path = tmp_path / "w.pth"
    old = name == "PyTorch 0.2"
    torch.save(CHECKPOINTS[name](arrays), path, _use_new_zipfile_serialization=not old)
    weights = load_weights(path)
    for parameter in TINY.shapes():
        assert torch.equal(weights.state[parameter], torch.tensor(arrays[parameter]))
    average = name == "a moving average beside"
    assert any("moving average `model_ema`" in w for w in weights.warnings) == average


def test_a_mean_that_is_cropped_already_is_used_whole(tmp_path, arrays):
    save_file(tensors(arrays), tmp_path / "w")
    cube = np.random.default_rng(0).uniform(0, 255, (3, 16, 112, 112)).astype("f")
    np.save(tmp_path / "crop_mean.npy", cube)
    found = load_weights(tmp_path / "w", mean=tmp_path / "crop_mean.npy")
    np.testing.assert_allclose(
        found.preprocessing.mean, cube.astype(float).mean(1), rtol=1e-6
    )
    np.save(tmp_path / "tf.npy", cube.transpose(1, 2, 3, 0))  # C3D-tensorflow's order
    with pytest.raises(AqaError, match="found .16, 112, 112, 3.; transpose it"):
        load_weights(tmp_path / "w", mean=tmp_path / "tf.npy")


def test_caffes_weights_without_their_mean_are_said_once(tmp_path, arrays, aqa):
    model, cube = tmp_path / "m.caffemodel", tmp_path / "mean.npy"
    model.write_bytes(caffemodel(arrays, old_blob))
    np.save(cube, np.full((3, 16, 128, 171), 90, "f"))
    (warning,) = load_weights(model).warnings
    assert "4 to 6 %" in warning and "--mean" in warning
    assert not load_weights(model, mean=cube).warnings
    assert not load_weights(model, preprocessing="imagenet").warnings
    assert not load_weights("tiny").warnings + load_weights("random").warnings
    torch.save(training(arrays), tmp_path / "run")
    assert not load_weights(tmp_path / "run").warnings

    converted = tmp_path / "c.safetensors"
    said = aqa("weights", "convert", model, converted).stderr
    assert said.count("mean cube") == 1
    assert load_weights(converted).warnings == (warning,)
    extractor = C3DExtractor(ExtractConfig(weights=str(converted)))
    assert extractor.notes == (warning,)


def test_inspect_exits_with_1_on_what_cannot_be_used(tmp_path, arrays, aqa):
    save_file(tensors(arrays), tmp_path / "good")
    assert "arch: c3d-tiny" in aqa("weights", "inspect", tmp_path / "good").stdout
    (tmp_path / "bad").write_bytes(b"<html>")
    found = aqa("weights", "inspect", tmp_path / "bad", "--json", code=1)
    assert "a web page" in json.loads(found.stdout)["problem"]
    assert "problem: " in aqa("weights", "inspect", tmp_path / "bad", code=1).stdout
