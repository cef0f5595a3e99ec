"""What containers say of their pictures: which stream, when, how turned and cropped."""

import importlib.util
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fakes import encode, numbered

from aqa.extract.config import ClipConfig
from aqa.extract.extractor import describe_rates
from aqa.extract.preprocessing import PRESETS
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import decode, is_uneven, resample, watch

PRE = PRESETS["c3d"]
LONG = ClipConfig(length=1000)
X264 = {"crf": "10", "preset": "fast", "x264-params": "log-level=none"}


@pytest.fixture(scope="module")
def matrix():
    path = Path(__file__).parents[1] / "benchmarks" / "video_matrix.py"
    spec = importlib.util.spec_from_file_location("video_matrix", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(path, **options):
    seen = []
    return seen, watch(path, seen.append, **options)


def levels(decoded):
    return [round(float(np.median(frame))) for frame in decoded.frames]


def test_a_sample_of_all_forms_is_right(matrix, tmp_path):
    """Each container and orientation, with other codecs, times and streams each."""
    found = {}
    for container in matrix.CONTAINERS:
        every = list(matrix.cells([container]))
        for cell in every[: len(every) : max(len(every) // 5 - 3, 3)]:
            found[cell] = matrix.outcome(tmp_path, cell)
    bad = {cell: said for cell, said in found.items() if said.startswith("WRONG")}
    assert not bad
    right = [cell for cell, said in found.items() if said == "right"]
    assert len(right) > 25
    assert {cell.container for cell in right} == set(matrix.CONTAINERS)


@pytest.mark.parametrize("turn", range(8))
def test_all_eight_display_matrices(matrix, tmp_path, turn):
    name = list(matrix.ORIENTATIONS)[turn]
    cell = matrix.Cell("mp4", "mpeg4", name, 0, "25", "none")
    assert matrix.outcome(tmp_path, cell) == "right"


def test_a_matrix_of_no_quarter_turn_is_said(matrix, tmp_path):
    path = tmp_path / "x.mp4"
    matrix.make(path, matrix.Cell("mp4", "mpeg4", "as coded", 0, "25", "none"))
    path.write_bytes(matrix.turned(path.read_bytes(), (1, 1, -1, 1)))
    with pytest.raises(VideoError, match="turned by no quarter turn"):
        watch(path, lambda frame: None)


# Which stream


@pytest.mark.parametrize("enabled", ["both", "film", "picture"])
@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
def test_the_film_is_taken_whatever_the_flags(matrix, tmp_path, container, enabled):
    path = tmp_path / f"x.{container}"
    cell = matrix.Cell(container, "h264", "as coded", 0, "25", "picture track")
    matrix.make(path, cell)
    data, at = bytearray(path.read_bytes()), -1
    for track in ("picture", "film"):
        if (at := data.find(b"tkhd", at + 1)) > 0:
            data[at + 7] = 3 if enabled in ("both", track) else 2
    path.write_bytes(data)
    decoded = decode(path, PRE, config=LONG)
    assert decoded.total == matrix.FRAMES and decoded.damage == ()
    assert decoded.notes == (
        "2 video streams: took #1 (h264 176 x 128, 24 frames), "
        "left out #0 (mjpeg 640 x 480, 1 frames)",
    )


# Cropping


def with_clap(data, box):
    """An MP4 with a clean aperture; its header must follow its frames."""
    data = bytearray(data)
    entry = data.index(b"avc1", data.index(b"stsd")) - 4
    end = entry + struct.unpack_from(">I", data, entry)[0]
    data[end:end] = box
    for name in (b"avc1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        at = data.index(name, data.index(b"moov")) - 4
        size = struct.unpack_from(">I", data, at)[0]
        struct.pack_into(">I", data, at, size + len(box))
    return bytes(data)


def with_pixel_crop(data, top, bottom, left, right):
    """A Matroska whose element Colour makes room for the four of PixelCrop."""
    data = bytearray(data)
    at = data.index(b"\x55\xb0", data.index(b"V_MPEG4"))
    room = 3 + (data[at + 2] & 0x7F)
    sides = ((b"\x54\xbb", top), (b"\x54\xaa", bottom), (b"\x54\xcc", left))
    crop = b"".join(name + b"\x81" + bytes([n]) for name, n in sides)
    crop += b"\x54\xdd\x81" + bytes([right])
    fill = room - len(crop)
    void = b"\xec" + bytes([0x80 | fill - 2]) + bytes(fill - 2) if fill else b""
    assert fill != 1
    data[at : at + room] = crop + void
    return bytes(data)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pictures_are_cropped_as_the_container_says(matrix, tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options=X264)
        stream.width, stream.height, stream.pix_fmt = 176, 128, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 6
        context.color_range = 1
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(matrix.picture(number), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    whole, _ = shown(path)
    top, bottom, left, right = 10, 20, 6, 30
    if suffix == "mkv":
        path.write_bytes(with_pixel_crop(path.read_bytes(), top, bottom, left, right))
    else:
        # Sizes, and how far the centre lies right of and below the picture's.
        places = (140, 1, 98, 1, left - right, 2, top - bottom, 2)
        box = struct.pack(">I4s4IiIiI", 40, b"clap", *places)
        path.write_bytes(with_clap(path.read_bytes(), box))
    cropped, _ = shown(path)
    expected = [frame[top : 128 - bottom, left : 176 - right] for frame in whole]
    np.testing.assert_array_equal(cropped, expected)
    assert decode(path, PRE, config=LONG).aspect == pytest.approx(140 / 98)


# The clock


def part(path, first, count, start=0, codec="libx264"):
    """Frames of grey level 3 first, 3 (first + 1), ... and noise, at 25 a second."""
    rng = np.random.default_rng(first)
    with av.open(str(path), "w") as out:
        options = {"g": "25", "bf": "2"}
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(count):
            picture = 3 * (first + number) + rng.integers(-9, 10, (96, 128, 3))
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = start + number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path.read_bytes()


@pytest.mark.parametrize(
    ("suffix", "codec", "start"),
    [("ts", "libx264", 0), ("ts", "libx264", 90_000), ("mpg", "mpeg2video", 0)],
)
def test_joined_recordings_are_read_in_order(tmp_path, suffix, codec, start):
    first = part(tmp_path / f"a.{suffix}", 5, 35, 0, codec)
    second = part(tmp_path / f"b.{suffix}", 40, 35, start, codec)
    path = tmp_path / f"ab.{suffix}"
    path.write_bytes(first + second)
    whole = decode(path, PRE, config=LONG)
    assert whole.total == 70 and whole.damage == ()
    assert whole.times == pytest.approx(np.arange(70) / 25, abs=1e-3)
    assert any("time stamps begin anew" in note for note in whole.notes)
    cut = decode(path, PRE, config=LONG, start=1, end=2)
    np.testing.assert_array_equal(cut.frames, whole.frames[25:50])
    np.testing.assert_allclose(levels(cut), 3 * np.arange(30, 55), atol=4)


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "options"),
    [
        ("mp4", "libx264", None, None),
        ("mp4", "libx264", None, {"movflags": "faststart"}),
        ("mp4", "libx264", None, FRAGMENTED),
        ("mov", "mpeg4", None, None),
        ("flv", "flv", None, None),
        ("wmv", "wmv2", None, None),
        ("apng", "apng", "rgb24", None),
        ("avi", "mpeg4", None, None),
        ("gif", "gif", "rgb8", None),
    ],
)
def test_recordings_joined_byte_by_byte_are_refused(
    tmp_path, suffix, codec, pix_fmt, options
):
    """Of most containers FFmpeg reads one of the two, without a word."""
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path, count in zip(paths, (20, 30), strict=True):
        encode(path, numbered(count, 64, 80), codec, pix_fmt, options=options)
        assert decode(path, PRE, config=LONG).damage == ()
    both = tmp_path / f"ab.{suffix}"
    both.write_bytes(paths[0].read_bytes() + paths[1].read_bytes())
    with pytest.raises(VideoError, match="another recording follows|promises 20"):
        decode(both, PRE, config=LONG)


def test_other_data_behind_an_mp4_is_no_damage(tmp_path):
    path = encode(tmp_path / "x.mp4", numbered(20, 64, 80), "libx264")
    path.write_bytes(path.read_bytes() + b"\0\0\0\x10freeftypmoov" + b"notes" * 9)
    assert decode(path, PRE, config=LONG).total == 20


def test_a_published_avi_is_cut_by_its_frame_numbers(shared_data):
    """XviD with packed B-frames at 25 a second, as UCF-101 has them."""
    path = shared_data / "videos" / "v_ApplyEyeMakeup_g01_c01.avi"
    whole = decode(path, PRE, config=LONG)
    assert whole.times == pytest.approx(np.arange(164) / 25)
    for start, end in ((0, 1), (2, 3), (4, None)):
        cut = decode(path, PRE, config=LONG, start=start, end=end)
        expected = whole.frames[25 * start : 25 * end if end else None]
        np.testing.assert_array_equal(cut.frames, expected)


# No damage


def avi_with(data, bodies):
    """An AVI of which the frames in `bodies` are replaced."""
    index = data.index(b"idx1")
    movi = data.index(b"movi")
    chunks, table, place = b"", b"", 4
    entries = struct.iter_unpack("<4sIII", data[index + 8 :])
    for number, (name, flags, offset, size) in enumerate(entries):
        begin = movi + offset + 8
        body = bodies.get(number, data[begin : begin + size])
        table += struct.pack("<4sIII", name, flags, place, len(body))
        chunk = name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        chunks, place = chunks + chunk, place + len(chunk)
    movie = b"LIST" + struct.pack("<I", 4 + len(chunks)) + b"movi" + chunks
    parts = data[12 : movi - 8] + movie + b"idx1" + struct.pack("<I", len(table))
    return b"RIFF" + struct.pack("<I", 4 + len(parts + table)) + b"AVI " + parts + table


def not_coded(number):
    """MPEG-4's picture that repeats the last: type P, time in 1/25, not coded."""
    bits = f"0101{number % 25:05b}10"
    bits += "0" + "1" * (7 - len(bits) % 8)
    return b"\0\0\1\xb6" + int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize("repeat", [lambda number: b"", not_coded])
def test_frames_that_repeat_the_last_are_no_damage(tmp_path, repeat):
    path = encode(tmp_path / "x.avi", numbered(25), "mpeg4")
    path.write_bytes(avi_with(path.read_bytes(), {n: repeat(n) for n in (10, 11, 20)}))
    decoded = decode(path, PRE, config=LONG)
    assert (decoded.total, decoded.damage) == (22, ())
    kept = [n for n in range(25) if n not in (10, 11, 20)]
    assert decoded.times == pytest.approx(np.array(kept) / 25)
    even = decode(path, PRE, config=ClipConfig(length=1000, fps=25))
    assert even.total == 25  # each shown again until the next
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(VideoError, match="the header promises 25 frames|flagged"):
        decode(path, PRE, config=LONG)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_cut_at_an_open_group_is_no_damage(matrix, tmp_path, codec, shifted, suffix):
    """Pictures before the first key frame refer to what was cut away."""
    name = "x264-params" if codec == "libx264" else "x265-params"
    groups = "open-gop=1:keyint=16:min-keyint=16:bframes=3:b-adapt=0:scenecut=0"
    source, path = tmp_path / "source.mp4", tmp_path / f"cut.{suffix}"
    with av.open(str(source), "w") as out:
        options = {"crf": "12", name: groups + ":log-level=none"}
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 176, 128, "yuv420p"
        for number in range(48):
            frame = av.VideoFrame.from_ndarray(matrix.picture(number), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    whole, _ = shown(source)
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        packets = [p for p in given.demux(video=0) if p.dts is not None]
        begin = [n for n, packet in enumerate(packets) if packet.is_keyframe][1]
        zero = packets[begin].dts if shifted else packets[begin].pts
        for packet in packets[begin:]:
            packet.pts, packet.dts = packet.pts - zero, packet.dts - zero
            packet.stream = stream
            out.mux(packet)
    cut, said = shown(path)
    assert said.damage == () and len(cut) > 25
    np.testing.assert_array_equal(cut, whole[-len(cut) :])


def test_a_recording_from_the_air_begins_at_its_first_key_frame(tmp_path):
    data = part(tmp_path / "x.ts", 5, 75)
    path = tmp_path / "cut.ts"
    path.write_bytes(data[: 3 * 188] + data[len(data) // 4 // 188 * 188 :])
    decoded = decode(path, PRE, config=LONG)
    assert decoded.damage == () and 40 < decoded.total < 60
    expected = 3 * np.arange(80 - decoded.total, 80)
    np.testing.assert_allclose(levels(decoded), expected, atol=4)
    assert any("before the first key frame" in note for note in decoded.notes)


@pytest.mark.parametrize("what", ["black", "still", "test card"])
def test_dull_pictures_are_no_damage(tmp_path, what):
    frame = np.zeros((64, 80, 3), np.uint8)
    if what != "black":
        frame[:, ::10] = 255, 255, 0
    frames = [frame if what == "still" else np.roll(frame, n, 1) for n in range(30)]
    decoded = decode(encode(tmp_path / "x.mp4", frames, "libx264"), PRE, config=LONG)
    assert (decoded.total, decoded.damage, decoded.notes) == (30, (), ())


# Frame rates


@pytest.mark.parametrize("fps", [5, 12.5, 25, 30, 60])
def test_resampling_takes_the_nearest_frame(fps):
    rng = np.random.default_rng(int(fps))
    steps = rng.integers(1, 4, 40)
    times = np.concatenate([[0], np.cumsum(steps)]) * 0.03
    chosen = resample(times, fps, 10_000)
    for tick, index in enumerate(chosen):
        distance = np.abs(times - tick / fps)
        assert distance[index] == pytest.approx(distance.min(), abs=1e-6)
        assert not (distance[:index] < distance[index] + 1e-9).any()  # the earlier
    assert abs(len(chosen) - (times[-1] + np.median(np.diff(times))) * fps) <= 0.5


@pytest.mark.parametrize(
    ("rate", "fps", "expected"),
    [
        (50, 25, range(0, 40, 2)),
        (25, 25, range(40)),
        (25, 50, np.repeat(range(40), 2)),
        (240, 30, range(0, 40, 8)),
    ],
)
def test_a_video_is_resampled_on_request(tmp_path, rate, fps, expected):
    path = encode(tmp_path / "x.avi", numbered(40), rate=rate)
    decoded = decode(path, PRE, config=ClipConfig(length=1000, fps=fps))
    assert levels(decoded) == list(expected) and decoded.total == len(expected)
    short = decode(path, PRE, config=ClipConfig(length=21, offsets=2, fps=fps))
    assert levels(short) == list(expected)[-21:]
    assert decode(path, PRE, config=LONG).rate == pytest.approx(rate)


def test_rates_that_differ_are_said():
    rates = {"a": 25.0, "b": 29.97, "c": 59.94, "d": None, "e": 24.0}
    said = describe_rates(rates, 103)
    assert said.startswith("1 of 5 videos have 59.9 frames per second, not 25")
    assert "first: c" in said and "103 frames show 1.7 s of it, not 4.1 s" in said
    assert describe_rates({"a": 25.0, "b": 30.0}, 103) is None
    assert describe_rates({"a": None}, 103) is None
    mixed = {"a": 240.0, "b": 25.0, "c": 30.0, "d": 50.0, "e": 29.97}
    assert "2 of 5 videos have 50 to 240 frames per second, not 30" in describe_rates(
        mixed, 103
    )


@pytest.mark.parametrize("kind", ["gif", "png"])
def test_animations_have_pillows_frames_and_times(tmp_path, kind):
    from PIL import Image

    frames = [np.full((40, 60, 3), 20 * n, np.uint8) for n in range(8)]
    images = [Image.fromarray(frame) for frame in frames]
    path = tmp_path / f"x.{kind}"
    pauses = [40, 80, 40, 120, 40, 40, 40, 40]
    images[0].save(path, save_all=True, append_images=images[1:], duration=pauses)
    decoded = decode(path, PRE, config=LONG)
    assert levels(decoded) == [20 * n for n in range(8)]
    assert decoded.times == pytest.approx(np.cumsum([0, *pauses[:-1]]) / 1000)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("mp4", "libx264"),
        ("mkv", "libx264"),
        ("avi", "libx264"),
        ("avi", "mpeg4"),
        ("webm", "libvpx"),
        ("mpg", "mpeg2video"),  # several frames share a packet and its time stamp
    ],
)
def test_a_window_moves_by_one_frame_across_key_frames(tmp_path, suffix, codec):
    path = tmp_path / f"x.{suffix}"
    with av.open(str(path), "w") as out:
        options = {"g": "12", "bf": "2"} if codec != "libvpx" else {"g": "12"}
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for picture in numbered(60, 64, 80):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(4 * picture, "rgb24")))
        out.mux(stream.encode())
    whole = decode(path, PRE, config=LONG)
    for first in (0, 11, 12, 13, 23, 24, 25, 35, 36, 37, 47, 50):
        cut = decode(path, PRE, config=LONG, start=first / 25, end=(first + 10) / 25)
        np.testing.assert_array_equal(cut.frames, whole.frames[first : first + 10])


def test_a_rate_that_varies_is_said():
    even = np.arange(100) / 25
    slow = np.concatenate([even[:50], 2 + np.arange(50) / 5])  # a phone in the dark
    assert is_uneven(slow) and is_uneven(slow[::-1])
    doubled = np.delete(even, np.arange(2, 100, 3))
    assert is_uneven(doubled)
    assert not is_uneven(even) and not is_uneven(np.delete(even, [4, 50]))
    assert not is_uneven(np.round(np.arange(100) / 30, 3))  # Matroska's milliseconds
    pulldown = np.cumsum(np.tile([2, 3], 50)) / 60  # film on discs
    assert not is_uneven(pulldown) and not is_uneven(even[:2])


def test_a_rate_that_varies_is_said_of_the_video(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        for number, frame in enumerate(numbered(60, 48, 64)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = 40 * number if number < 30 else 200 * number - 4800
            picture.time_base = Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    (note,) = decode(path, PRE, config=LONG).notes
    assert note.startswith("the frame rate varies within the video")
    even = decode(path, PRE, config=ClipConfig(length=1000, fps=5))
    assert even.notes == () and even.total == 35  # of 7.04 seconds


@pytest.mark.parametrize("trait, said", [("fields", "interlaced"), ("pq", "tone map")])
def test_what_pictures_cannot_show_is_said(tmp_path, trait, said):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        options = X264 | ({"flags": "+ilme+ildct"} if trait == "fields" else {})
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        if trait == "pq":
            stream.codec_context.color_trc = 16
        for frame in numbered(8, 64, 64):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    (note,) = decode(path, PRE, config=LONG).notes
    assert said in note
