"""Folders of numbered pictures: every kind of picture, and what is refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from aqa.extract.config import ClipConfig, Limits
from aqa.extract.preprocessing import PRESETS
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import decode, watch

PRE, FULL = PRESETS["c3d"], ClipConfig()


def error(path, **options):
    with pytest.raises(VideoError) as caught:
        decode(path, PRE, config=FULL, **options)
    return str(caught.value)


def shown(folder, **options):
    """Frames as they are shown, and the damage that was found."""
    seen = []
    return seen, watch(folder, seen.append, **options).damage


def scene(n=0, height=37, width=45):
    """No symmetry under any turn; moves with n."""
    y, x = np.mgrid[:height, :width]
    planes = (5 * x + 9 * n) % 256, (6 * y + 3 * n) % 256, (2 * x + 3 * y) % 256
    return np.stack(planes, -1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "001"
    made.mkdir()
    return made


@pytest.fixture
def pictures(folder):
    """Twelve JPEGs of growing brightness, numbered without padding."""
    for number in range(1, 13):
        level = np.full((120, 160, 3), number * 20, np.uint8)
        Image.fromarray(level).save(folder / f"img_{number}.jpg")
    return folder


def test_pictures_are_taken_by_number(pictures):
    decoded = decode(pictures, PRE, config=FULL)
    levels = decoded.frames.mean((1, 2, 3)).round() / 20
    np.testing.assert_allclose(levels, range(1, 13), atol=0.05)
    assert decoded.total == 12 and decoded.damage == () and decoded.rate is None
    assert decode(pictures, PRE, config=FULL).source_sha256 == decoded.source_sha256
    (pictures / "img_12.jpg").unlink()
    (pictures / "._img_11.jpg").write_bytes(b"left behind by a Mac")
    fewer = decode(pictures, PRE, config=FULL)
    assert fewer.total == 11 and fewer.source_sha256 != decoded.source_sha256


# PNG, written here from the format's own description


def png(samples, depth, colour, extra=b"", interlaced=False):
    """Encode samples (H, W, channels) of `depth` bits; `colour` is PNG's type."""
    height, width, channels = samples.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for top, left, down, right in passes:
        for row in samples[top::down, left::right].reshape(
            len(range(top, height, down)), -1
        ):
            if depth == 16:
                rows += b"\0" + row.astype(">u2").tobytes()
            else:
                bits = row[:, None] >> np.arange(depth)[::-1] & 1
                rows += b"\0" + np.packbits(bits.astype(np.uint8)).tobytes()
    head = struct.pack(">2I5B", width, height, depth, colour, 0, 0, interlaced)

    parts = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def chunk(name, body):
    check = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + check


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("colour", "depth"),
    [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2)]
    + [(3, 4), (3, 8), (4, 8), (4, 16), (6, 8), (6, 16)],
)
def test_every_kind_of_png_shows_what_was_written(folder, colour, depth, interlaced):
    rng = np.random.default_rng(depth * 7 + colour)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    palette = rng.integers(0, 256, (1 << min(depth, 8), 3), np.uint8)
    extra = b""
    if colour == 3:
        extra = chunk(b"PLTE", palette.tobytes()) + chunk(b"tRNS", b"\0\x80")
    expected = []
    for number in range(3):
        samples = rng.integers(0, 1 << depth, (13, 19, channels), np.uint16)
        data = png(samples, depth, colour, extra, interlaced)
        (folder / f"img_{number}.png").write_bytes(data)
        if colour == 3:
            expected.append(palette[samples[..., 0]])
            continue
        levels = samples >> 8 if depth == 16 else samples * (255 // ((1 << depth) - 1))
        expected.append(
            np.broadcast_to(levels[..., : channels // 3 * 3 or 1], (13, 19, 3))
        )
    seen, damage = shown(folder)
    np.testing.assert_array_equal(seen, expected)
    assert damage == ()


# Other formats, alone and mixed


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("png", {}),
        ("bmp", {}),
        ("tiff", {"compression": "tiff_lzw"}),
        ("tif", {}),
        ("webp", {"lossless": True}),
        ("ppm", {}),
    ],
)
def test_formats_without_loss_show_what_was_written(folder, suffix, options):
    frames = [scene(number) for number in range(4)]
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"img_{number}.{suffix}", **options)
    seen, damage = shown(folder)
    np.testing.assert_array_equal(seen, frames)
    assert damage == ()


def test_the_content_decides_the_format_and_formats_mix(folder):
    frames = [scene(number) for number in range(4)]
    for number, (frame, kind) in enumerate(
        zip(frames, ("PNG", "BMP", "PNG", "WEBP"), strict=True)
    ):
        options = {"lossless": True} if kind == "WEBP" else {}
        Image.fromarray(frame).save(folder / f"img_{number}.jpg", kind, **options)
    np.testing.assert_array_equal(shown(folder)[0], frames)


@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_jpeg_has_libjpegs_pixels(folder, subsampling):
    """Chroma interpolated as libjpeg does, not repeated as FFmpeg does by default."""
    path = folder / "img_1.jpg"
    picture = scene()
    picture[5:20, 10:30] = 255, 0, 0
    Image.fromarray(picture).save(path, quality=95, subsampling=subsampling)
    with Image.open(path) as image:
        np.testing.assert_array_equal(shown(folder)[0][0], np.asarray(image))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(folder, orientation, suffix):
    stored = scene()
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}
    Image.fromarray(stored).save(
        folder / f"img_1.{suffix}", exif=exif, **options.get(suffix, {})
    )
    (seen,), _ = shown(folder)
    assert seen.shape == upright.shape
    assert np.abs(seen.astype(int) - upright).max() <= (12 if suffix == "jpg" else 0)


# Damage, and what is refused


def test_missing_and_broken_pictures_are_damage(pictures):
    (pictures / "img_4.jpg").unlink()
    (pictures / "img_5.jpg").unlink()
    assert "2 pictures missing, the first is number 4" in error(pictures)
    assert decode(pictures, PRE, config=FULL, allow_damaged=True).total == 10
    (pictures / "img_9.jpg").write_bytes(b"")
    assert "packets refused" in error(pictures)


def test_damage_inside_a_picture_is_found(folder):
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    jpeg, other = folder / "img_1.jpg", folder / "img_2.png"
    Image.fromarray(noise).save(jpeg)
    Image.fromarray(noise).save(other)
    assert decode(folder, PRE, config=FULL).damage == ()
    whole = jpeg.read_bytes()
    jpeg.write_bytes(whole[: len(whole) // 2])
    assert "errors by FFmpeg, the first: mjpeg" in error(folder)
    assert decode(folder, PRE, config=FULL, allow_damaged=True).total == 2
    jpeg.write_bytes(whole)
    data = bytearray(other.read_bytes())
    data[len(data) // 2] ^= 1
    other.write_bytes(data)
    assert "packets refused" in error(folder)


def test_ambiguous_series_links_and_times_are_refused(pictures):
    (pictures / "img_03.jpg").write_bytes(b"")
    assert "expected one picture of each number" in error(pictures)
    (pictures / "img_03.jpg").unlink()
    (pictures / "other_20.jpg").write_bytes(b"")
    assert "found img_*, other_*" in error(pictures)
    (pictures / "other_20.jpg").unlink()
    no_times = "a folder of pictures has no frame times"
    assert no_times in error(pictures, start=1)
    with pytest.raises(VideoError, match=no_times):
        decode(pictures, PRE, config=ClipConfig(fps=25))
    outside = pictures.parent / "secret.jpg"
    (pictures / "img_3.jpg").rename(outside)
    (pictures / "img_3.jpg").symlink_to(outside)
    assert "found a link out of it" in error(pictures)


def test_pictures_heed_the_limit_of_pixels(pictures):
    limits = Limits(pixels=160 * 120 - 1)
    assert "at most 19199 pixels, found 160 x 120" in error(pictures, limits=limits)


@pytest.mark.parametrize("suffix", ["tif", "png", "webp"])
def test_a_film_in_one_picture_file_is_refused(folder, suffix):
    """Pillow shows the first page or frame of such a file and says nothing."""
    first, *others = (Image.fromarray(scene(n)) for n in range(4))
    first.save(folder / f"a_1.{suffix}", save_all=True, append_images=others)
    assert "expected one picture, found 4 in one file" in error(folder)


def test_a_preview_behind_a_picture_is_no_film(folder):
    picture = Image.fromarray(scene())
    preview = picture.resize((11, 9))
    picture.save(folder / "a_1.tif", save_all=True, append_images=[preview])
    seen, damage = shown(folder)
    np.testing.assert_array_equal(seen, [scene()])
    assert damage == ()


@pytest.mark.parametrize("top, said", [(4095, True), (65535, False)])
def test_twelve_bits_in_sixteen_are_said(folder, top, said):
    levels = np.linspace(0, top, 35 * 40).astype(np.uint16).reshape(35, 40)
    Image.fromarray(levels).save(folder / "a_1.png")
    decoded = decode(folder, PRE, config=FULL)
    assert any("dark unless scaled" in note for note in decoded.notes) == said
