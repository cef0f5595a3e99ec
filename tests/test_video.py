"""One video: which frames come out, whether they are right, and what is refused."""

import hashlib
import importlib.util
import os
import struct
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from fakes import encode, numbered

from aqa.extract.config import ClipConfig, Limits
from aqa.extract.preprocessing import PRESETS, fit_length
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import decode

PRE = PRESETS["c3d"]
FULL = ClipConfig()
SHORT = ClipConfig(length=21, clip=16, offsets=2)


@pytest.fixture(scope="session")
def corpus():
    """The benchmark of damage: it writes clips and harms them."""
    path = Path(__file__).parents[1] / "benchmarks" / "damage.py"
    spec = importlib.util.spec_from_file_location("damage_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(decoded):
    """The number of each frame of a `numbered` clip, each frame being of one level."""
    assert (decoded.frames == decoded.frames[:, :1, :1, :1]).all()
    return decoded.frames[:, 0, 0, 0].tolist()


def error(path, **options):
    with pytest.raises(VideoError) as caught:
        decode(path, PRE, config=FULL, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Pixels


def bilinear(picture, height, width):
    """OpenCV's INTER_LINEAR, written out: half-pixel centres, edges repeated."""
    result = picture.astype(float)
    for axis, size in ((0, height), (1, width)):
        places = (np.arange(size) + 0.5) * result.shape[axis] / size - 0.5
        low, last = np.floor(places).astype(int), result.shape[axis] - 1
        share = np.expand_dims(places - low, tuple({0, 1, 2} - {axis}))
        before, after = (result.take((low + n).clip(0, last), axis) for n in (0, 1))
        result = before * (1 - share) + after * share
    return np.round(result)


def test_frames_are_opencvs_bilinear_cropped(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    picture[:, :, 0] //= 4  # red, green and blue differ
    decoded = decode(encode(tmp_path / "x.avi", [picture]), PRE, config=FULL)
    expected = bilinear(picture, 128, 171)[8:120, 29:141]
    assert decoded.frames.shape == (1, 112, 112, 3)
    assert np.abs(decoded.frames[0] - expected).max() <= 1


@pytest.mark.parametrize("size", [(2, 2), (161, 121), (16, 500), (640, 360)])
def test_any_size_of_frame_comes_out_as_one(corpus, tmp_path, size):
    path = corpus.write_clip(tmp_path / "x.avi", "mpeg4", frames=3, size=size)
    assert decode(path, PRE, config=FULL).frames.shape == (3, 112, 112, 3)
    kept = decode(path, PRESETS["mmaction"], config=FULL).frames
    assert kept.shape == (3, 112, 112, 3)


# Which frames


@pytest.mark.parametrize("suffix", ["avi", "mkv"])  # with and without a count
@pytest.mark.parametrize("keep", ["last", "first", "middle"])
@pytest.mark.parametrize("count", [1, 20, 21, 50])
def test_the_frames_kept_are_those_that_fit_length_keeps(tmp_path, suffix, keep, count):
    path = encode(tmp_path / f"x.{suffix}", numbered(count))
    config = ClipConfig(length=21, clip=16, offsets=2, keep=keep)
    decoded = decode(path, PRE, config=config)
    everything = decode(path, PRE, config=ClipConfig(length=100)).frames
    assert decoded.total == len(everything) == count
    expected = fit_length(everything, config)
    np.testing.assert_array_equal(fit_length(decoded.frames, config), expected)
    assert len(decoded.frames) == min(count, 21)
    if keep == "last":
        assert numbers(decoded) == list(range(count))[-21:]
    assert decoded.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, 0.4, range(0, 10)),
        (0.4, 0.8, range(10, 20)),
        (1.96, None, range(49, 60)),
        (0, 2.4, range(39, 60)),
        (0.41, 0.45, range(11, 12)),
    ],
)
@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
def test_a_part_can_be_cut_out(tmp_path, suffix, start, end, expected):
    path = tmp_path / f"x.{suffix}"
    if suffix == "mp4":
        levels = [np.full((120, 160, 3), n * 4, np.uint8) for n in range(60)]
        encode(path, levels, "libx264", "yuv444p")
    else:
        encode(path, numbered(60))
    decoded = decode(path, PRE, config=SHORT, start=start, end=end)
    found = decoded.frames.mean((1, 2, 3)) / (4 if suffix == "mp4" else 1)
    np.testing.assert_allclose(found, expected, atol=0.4)
    assert decoded.times == pytest.approx([n / 25 for n in expected], abs=1e-2)
    assert decoded.total == (60 if (start, end) == (0, 2.4) else len(expected))


def test_a_part_outside_the_video_is_refused(tmp_path):
    path = encode(tmp_path / "x.avi", numbered(10))
    assert "expected frames between 3 and inf seconds" in error(path, start=3)
    assert "expected 0 <= start < end" in error(path, start=2, end=1)


# Whole videos raise no alarm


def test_every_form_decodes_without_alarm(corpus, tmp_path):
    for name, settings in corpus.CLEAN.items():
        path = corpus.write_clip(tmp_path / name, *settings, frames=30)
        decoded = decode(path, PRE, config=FULL)
        assert (decoded.total, decoded.damage) == (30, ()), name


def test_real_videos_decode_without_alarm(shared_data):
    counts = {
        path.name: decode(path, PRE, config=FULL).total
        for path in (shared_data / "videos").iterdir()
    }
    assert counts == {
        "demo.mp4": 280,
        "mtl_aqa_diving_sample.gif": 21,
        "part_0.mp4": 32,
        "test.mp4": 300,
        "v_ApplyEyeMakeup_g01_c01.avi": 164,
        "v_BaseballPitch_g01_c01.avi": 107,
        "v_GGSY1Qvo990.mp4": 355,
    }


def test_frames_that_an_edit_list_hides_are_not_missed(corpus, tmp_path):
    path = corpus.write_clip(tmp_path / "x.mp4", "libx264")
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 16
    start = struct.unpack_from(">i", data, place)[0]
    struct.pack_into(">i", data, place, start + 5 * 512)  # five frames further on
    path.write_bytes(data)
    decoded = decode(path, PRE, config=FULL)
    assert (decoded.total, decoded.damage) == (55, ())


def test_the_name_of_a_file_is_no_matter(corpus, tmp_path):
    path = corpus.write_clip(tmp_path / "x.mp4", "libx264", frames=3)
    path = path.rename(tmp_path / "http:x%d|y.avi")
    assert decode(path, PRE, config=FULL).total == 3


# Damage


@pytest.mark.parametrize(
    "name",
    "mpeg4.avi mpeg4.mp4 h264.mp4 h264.mkv vp9.webm mpeg2.mpg wmv2.wmv flv1.flv "
    "rgb8.gif".split(),
)
def test_every_video_cut_short_is_caught(corpus, tmp_path, name):
    path = corpus.write_clip(tmp_path / name, *corpus.CLEAN[name], frames=30)
    whole, data = corpus.look(path), path.read_bytes()
    for content in corpus.truncations(data, 25, np.random.default_rng(0)):
        path.write_bytes(content)
        found = corpus.look(path)
        if found is not None and not found.damage:
            np.testing.assert_array_equal(found.frames, whole.frames)


@pytest.mark.parametrize("name", ["mpeg4.avi", "h264.mp4"])
def test_most_overwritten_bytes_are_caught(corpus, tmp_path, name):
    path = corpus.write_clip(tmp_path / name, *corpus.CLIPS[name], frames=30)
    whole, data = corpus.look(path), path.read_bytes()
    changed = caught = 0
    for content in corpus.flips(data, 40, np.random.default_rng(1), length=40):
        path.write_bytes(content)
        found = corpus.look(path)
        if found is None or corpus.difference(whole, found) > 0:
            changed += 1
            caught += found is None or bool(found.damage)
    assert changed > 20 and caught >= 0.8 * changed


def test_damage_is_refused_or_recorded_in_words(corpus, tmp_path):
    path = corpus.write_clip(tmp_path / "x.avi", "mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    message = error(path)
    assert str(path) in message and "expected a whole video" in message
    assert "the header promises 60 frames" in message and "packets flagged" in message
    decoded = decode(path, PRE, config=FULL, allow_damaged=True)
    assert 0 < decoded.total == len(decoded.frames) < 60
    assert f"the header promises 60 frames, {decoded.total} decoded" in decoded.damage
    kept = decode(path, PRE, config=SHORT, allow_damaged=True)
    last = min(decoded.total, 21)
    np.testing.assert_array_equal(kept.frames, decoded.frames[-last:])


def test_one_damaged_file_casts_no_doubt_on_the_next(corpus, tmp_path):
    """PyAV by default reports a repeated line late, in the next file's capture."""
    sound = corpus.write_clip(tmp_path / "sound.mkv", "mpeg4")
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(sound.read_bytes()[:-3000])
    for _ in range(3):
        assert "File ended prematurely" in error(broken)
        assert decode(sound, PRE, config=FULL).damage == ()


def test_ffmpegs_log_is_left_as_it_was(corpus, tmp_path):
    path = corpus.write_clip(tmp_path / "x.avi", "mpeg4", frames=3)
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    decode(path, PRE, config=FULL)
    error(tmp_path / "nowhere.avi")
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


# What is no video, or not one to decode


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a video, found an empty file"),
        (b"not a video" * 100, "expected a video in a known container"),
        (bytes(range(256)) * 50, "expected a video in a known container"),
        (b"RIFF\x10\0\0\0AVI LIST", "expected a video"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, content, message):
    path = tmp_path / "x.avi"
    path.write_bytes(content)
    assert message in error(path)


def test_pipes_folders_and_nothing_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.avi")
    assert "found a pipe" in error(tmp_path / "pipe.avi")
    assert "No such file" in error(tmp_path / "nowhere.avi")
    assert "expected one series of pictures" in error(tmp_path)


def test_sound_alone_is_refused(tmp_path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = np.zeros((2, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, "fltp", "stereo")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "expected a video stream, found only audio" in error(path)


def test_limits_are_kept(corpus, tmp_path):
    path = corpus.write_clip(tmp_path / "x.avi", "mpeg4", frames=30)
    assert "at most 19199 pixels, found 160 x 120" in error(
        path, limits=Limits(pixels=160 * 120 - 1)
    )
    assert "at most 29 frames, found more" in error(path, limits=Limits(frames=29))
    assert decode(path, PRE, config=FULL, limits=Limits(frames=30)).total == 30


def test_huge_frames_are_refused_before_they_are_allocated(tmp_path):
    path = encode(
        tmp_path / "x.avi", [np.zeros((120, 160, 3), np.uint8)], "rawvideo", "bgr24"
    )
    data = bytearray(path.read_bytes())
    struct.pack_into("<ii", data, data.index(b"strf") + 12, 12_000, 12_000)
    path.write_bytes(data)
    assert "found 12000 x 12000" in error(path)


PLAYLISTS = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{0}\n#EXT-X-ENDLIST\n",
    "concat.ffconcat": "ffconcat version 1.0\nfile '{0}'\n",
    "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
    'type="static" mediaPresentationDuration="PT9S"><Period><AdaptationSet>'
    '<Representation id="1" mimeType="video/mp4"><BaseURL>{0}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\n"
    "m=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "script.avs": 'AVISource("{0}")\n',
    "list.imf.xml": "<CompositionPlaylist>{0}</CompositionPlaylist>",
}


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("name", PLAYLISTS)
def test_files_that_name_other_files_reach_none(corpus, tmp_path, name, renamed):
    canary = corpus.write_clip(tmp_path / "canary.ts", "libx264", frames=5)
    path = tmp_path / (f"{name}.avi" if renamed else name)
    path.write_text(PLAYLISTS[name].format(canary))
    os.utime(canary, (0, 1))
    assert "expected a video in a known container" in error(path)
    assert canary.stat().st_atime == 0
    canary.read_bytes()
    if canary.stat().st_atime == 0:
        pytest.skip("this file system does not tell when a file was read")


def test_a_rare_codec_is_refused_by_name(corpus, tmp_path):
    path = encode(
        tmp_path / "x.avi", [np.zeros((16, 16, 3), np.uint8)], "cinepak", "rgb24"
    )
    assert "found cinepak; convert it" in error(path)
