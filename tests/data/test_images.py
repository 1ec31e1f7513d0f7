"""Image files to pixels, compared with Pillow and with the formats; and arrays of images."""

import contextlib
import io
import logging
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from data import images
from data.images import as_images, as_labels, count_classes, decode_image
from data.named import warn_out_of_range
from errors import DataError
from tests.conftest import Log, Patch
from tests.data.conftest import encode, error_line

SHAPE = (4, 32, 32, 3)


def random_pixels(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(width: int, height: int, rows: bytes) -> bytes:
    """An RGB image of 8 bits, by the PNG specification; each row starts with its filter, 0."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def test_png_bytes_come_out_exactly() -> None:
    pixels = random_pixels(32, 32)
    decoded = decode_image(png(32, 32, b"".join(b"\x00" + row.tobytes() for row in pixels)), "a")
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, pixels)
    assert decode_image(encode(pixels), "a.png", size=7).shape == (7, 7, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_jpeg_is_what_pillow_decodes(options: dict[str, int]) -> None:
    content = encode(random_pixels(32, 32), "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(content)))
    assert np.array_equal(decode_image(content, "a.jpg"), expected)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 37), (16, 20), (1, 1), (33, 31)])
def test_other_sizes_are_resized_and_grey_is_the_brightness(height: int, width: int) -> None:
    image = Image.fromarray(random_pixels(height, width))
    resized = image.resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(decode_image(encode(image), "a.png"), np.asarray(resized))
    grey = decode_image(encode(image), "a.png", channels=1)
    assert np.array_equal(grey[..., 0], np.asarray(resized.convert("L")))
    luma = np.asarray(resized) @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(grey[..., 0] - luma).max() <= 0.6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA"])
def test_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(random_pixels(32, 32)).convert(mode.replace("PA", "P"))
    expected = np.asarray(image.convert("RGB"))
    options: dict[str, Any] = {"transparency": bytes(range(200))} if mode == "PA" else {}
    assert np.array_equal(decode_image(encode(image, **options), "a.png"), expected)


def test_jpeg_modes_16_bits_and_animations_become_rgb() -> None:
    image = Image.new("RGB", (32, 32), (200, 100, 50))
    for mode, colour in (("L", (124, 124, 124)), ("CMYK", (200, 100, 50))):
        content = encode(image.convert(mode), "JPEG", quality=100)
        assert np.abs(decode_image(content, "a.jpg").astype(int) - colour).max() <= 2
    grey = np.random.default_rng(0).integers(0, 2**16, (32, 32), np.uint16)
    decoded = decode_image(encode(Image.fromarray(grey)), "a.png")
    assert np.array_equal(decoded, np.repeat(grey[..., np.newaxis] >> 8, 3, axis=2))
    first, second = (Image.fromarray(random_pixels(32, 32, seed)) for seed in (0, 1))
    content = encode(first, save_all=True, append_images=[second])
    assert np.array_equal(decode_image(content, "a.png"), random_pixels(32, 32, 0))


OTHERS = [encode(random_pixels(32, 32), "TIFF"), b"RIFF\0\0\0\0WAVEfmt ", b"GIF90a"]


@pytest.mark.parametrize("content", [*OTHERS, b"", b"hello", b"\x89PNG", b"\xff\xd8"])
def test_other_formats_are_refused(content: bytes) -> None:
    with error_line(r"b c\.png: is no PNG, JPEG, BMP, WebP or GIF image"):
        decode_image(content, "b c.png")


FRAMES = [Image.fromarray(random_pixels(25, 40, seed)) for seed in (0, 1)]
PALETTE = FRAMES[0].convert("P")


@pytest.mark.parametrize(
    ("file_format", "image", "options"),
    [
        *(("BMP", FRAMES[0].convert(mode), {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(("WEBP", FRAMES[0], {"lossless": lossless}) for lossless in (False, True)),
        ("WEBP", FRAMES[0].convert("RGBA"), {"lossless": True}),
        ("WEBP", FRAMES[0], {"save_all": True, "append_images": FRAMES[1:]}),
        *(("GIF", FRAMES[0].convert(mode), {}) for mode in ("1", "L", "P")),
        ("GIF", PALETTE, {"transparency": 3, "interlace": 1}),
        ("GIF", PALETTE, {"save_all": True, "append_images": FRAMES[1:]}),
    ],
)
def test_bmp_webp_and_gif_are_what_pillow_reads(
    file_format: str, image: Image.Image, options: dict[str, Any]
) -> None:
    """Of an animation, the first image; and of its own size, where that is asked for."""
    content = encode(image, file_format, **options)
    with Image.open(io.BytesIO(content)) as stored:
        expected = stored.convert("RGB")
    assert np.array_equal(decode_image(content, "a", size=0), np.asarray(expected))
    small = np.asarray(expected.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(decode_image(content, "a", size=8), small)


def _put(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


LARGE = struct.pack("<HH", 8001, 8000)


@pytest.mark.parametrize(
    ("content", "sides"),
    [
        (_put(encode(FRAMES[0], "BMP"), 18, struct.pack("<II", 8001, 8000)), "8001 x 8000"),
        # Of run lengths, one of which may skip 255 rows of it.
        (_put(encode(PALETTE, "BMP"), 18, struct.pack("<II", 300_000, 1)), "300000 x 256"),
        (_put(encode(PALETTE, "GIF"), 6, LARGE), "8001 x 8000"),
        (_put(encode(FRAMES[0], "WEBP"), 26, LARGE), "8001 x 8000"),
        (b"RIFF\x16\0\0\0WEBPVP8X\n\0\0\0" + bytes(4) + b"\xff" * 6, "16777216 x 16777216"),
    ],
)
def test_the_same_bounds_hold_for_all_formats(content: bytes, sides: str) -> None:
    with error_line(f"a: has {sides} pixels; at most 64,000,000 are read"):
        decode_image(content, "a")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_every_cut_is_an_error_or_harmless(file_format: str) -> None:
    content = encode(random_pixels(32, 32), file_format)
    whole, harmless = decode_image(content, "a"), 0
    for length in range(len(content)):
        try:
            decoded = decode_image(content[:length], "a")
        except DataError:
            continue
        assert np.array_equal(decoded, whole)
        harmless += 1
    assert harmless < 24  # The last bytes of a PNG are checksums and the end mark.
    damaged = bytearray(encode(random_pixels(32, 32)))
    damaged[damaged.index(b"IDAT") + 100] ^= 1
    with error_line(r"a\.png: is damaged or cut short"):
        decode_image(bytes(damaged), "a.png")


# Around the sizes where Pillow warns (89 million) and where it raises (twice that).
@pytest.mark.parametrize("width", [6401, 9000, 18000, 2**31 - 1])
def test_too_many_pixels_are_refused_by_the_header(width: int) -> None:
    with error_line(rf"a\.png: has {width} x 10000 pixels; at most 64,000,000 are read"):
        decode_image(png(width, 10000, b""), "a.png")
    content = encode(random_pixels(32, 32), "JPEG")
    sizes = content.index(b"\xff\xc0") + 5
    large = content[:sizes] + struct.pack(">HH", 65000, 65000) + content[sizes + 4 :]
    with error_line("has 65000 x 65000 pixels"):
        decode_image(large, "a.jpg")


def test_arrays_become_what_their_files_do() -> None:
    rng = np.random.default_rng(0)
    for shape in ((3, 28, 28), (3, 40, 28, 3)):
        given = rng.integers(0, 256, shape, np.uint8)
        for size, channels in ((32, 3), (20, 1)):
            files = [encode(Image.fromarray(image)) for image in given]
            expected = [decode_image(content, "a.png", size, channels) for content in files]
            assert np.array_equal(images.fit_images(given, size, channels), np.stack(expected))


def test_arrays_keep_their_size_where_any_is_taken_and_are_bounded() -> None:
    grey = np.arange(70, dtype=np.uint8).reshape(2, 5, 7)
    assert np.array_equal(images.fit_images(grey, 0, 3), np.stack([grey] * 3, axis=-1))
    zero = np.zeros((), np.uint8)  # Broadcast, it takes no memory.
    with error_line("10,000,000 images of 32 x 32 pixels take too much memory"):
        images.fit_images(np.broadcast_to(zero, (10_000_000, 1, 1)), 32, 3)
    with error_line("has 60000 x 60000 pixels; at most 64,000,000 are read"):
        images.fit_images(np.broadcast_to(zero, (1, 60_000, 60_000)), 32, 3)


@pytest.mark.parametrize(("limit", "together"), [(15, 1), (16, 2)])
def test_large_images_come_one_at_a_time(monkeypatch: Patch, limit: int, together: int) -> None:
    """Two threads with an image of 4 x 4 pixels each; smaller ones do not wait for each other."""
    pixels, inside, most = images._pixels, [0], [0]
    both = threading.Barrier(2)

    def slow_pixels(image: Image.Image, size: int, channels: int) -> npt.NDArray[np.uint8]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3 if together == 1 else 300)
        inside[0] -= 1
        return pixels(image, size, channels)

    monkeypatch.setattr(images, "_pixels", slow_pixels)
    monkeypatch.setattr(images, "_SHARED_PIXELS", limit)
    content = encode(random_pixels(4, 4))
    with ThreadPoolExecutor(2) as pool:
        for pixels_of in pool.map(lambda name: decode_image(content, name), ["a.png", "b.png"]):
            assert pixels_of.shape == (32, 32, 3)
    assert most == [together]


def oriented(image: Image.Image, orientation: int, file_format: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encode(image, file_format, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("file_format", "mode"), [("PNG", "RGB"), ("JPEG", "RGB"), ("PNG", "I")])
def test_images_are_turned_as_by_pillow(orientation: int, file_format: str, mode: str) -> None:
    image = Image.fromarray(random_pixels(40, 25))
    if mode == "I":  # 16-bit grey.
        image = Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 256)
    content = oriented(image, orientation, file_format)
    with Image.open(io.BytesIO(content)) as stored:
        upright = ImageOps.exif_transpose(stored)
        assert upright.size == ((25, 40) if orientation < 5 else (40, 25))
        as_stored = encode(Image.fromarray(np.asarray(stored)))
    expected = decode_image(encode(Image.fromarray(np.asarray(upright))), "upright")
    assert np.array_equal(decode_image(content, "a"), expected)
    unturned = decode_image(content, "a", ignore_exif=True)
    assert np.array_equal(unturned, decode_image(as_stored, "stored"))
    assert np.array_equal(unturned, expected) == (orientation == 1)


@pytest.mark.filterwarnings("ignore:(Corrupt|Truncated)")  # Of Pillow, as it opens a JPEG image.
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_broken_exif_says_nothing(file_format: str) -> None:
    pixels, exif = random_pixels(40, 25), Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "maker" * 10
    plain = decode_image(encode(pixels, file_format), "a")
    cut = [encode(pixels, file_format, exif=exif.tobytes()[:length]) for length in range(1, 40)]
    wrong = [oriented(Image.fromarray(pixels), number, file_format) for number in (0, 9, 65535)]
    for content in (*cut, *wrong):
        assert np.array_equal(decode_image(content, "a"), plain)


@pytest.mark.parametrize("kept_as", ["xmp", "XML:com.adobe.xmp", "Raw profile type exif"])
def test_an_orientation_is_found_wherever_pillow_finds_it(kept_as: str) -> None:
    image, text, exif = Image.fromarray(random_pixels(40, 25)), PngInfo(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    raw = f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}"
    text.add_text(kept_as, 'tiff:Orientation="8"' if "xmp" in kept_as else raw)
    if kept_as == "xmp":
        content = encode(image, "JPEG", xmp=b'tiff:Orientation="8"')
    else:
        content = encode(image, pnginfo=text)
    with Image.open(io.BytesIO(content)) as stored:
        stored.load()
        assert kept_as in stored.info
        upright = np.asarray(ImageOps.exif_transpose(stored))
    assert upright.shape == (25, 40, 3)
    assert np.array_equal(decode_image(content, "a"), decode_image(encode(upright), "upright"))


@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4", "<f2", "<f8", "g"])
def test_images_are_uint8_or_become_float32(dtype: str) -> None:
    values = (np.random.default_rng(0).random(SHAPE) * 9).astype(dtype)
    for given in (values, np.asfortranarray(values)):
        found = as_images(given, "X")
        assert found.dtype == (np.uint8 if dtype == "u1" else np.float32)
        assert np.array_equal(found, values.astype(found.dtype))
        assert found.flags.c_contiguous
    if dtype in ("u1", "<f4"):
        assert as_images(values, "X") is values


def with_at(value: float) -> npt.NDArray[np.float64]:
    pixels = np.zeros(SHAPE)
    pixels[2, 5, 6, 1] = pixels[3, 0, 0, 0] = value
    return pixels


UINT8_OR_FLOAT = r"expected uint8 in 0..255 or float in \[0, 1\], found "


@pytest.mark.parametrize(
    ("check", "array", "message"),
    [
        *(
            (as_images, np.zeros(shape, np.uint8), r"expected the shape \[N, 32, 32, 3\], found \[")
            for shape in [(), (4,), (4, 3072), (4, 32, 32), (4, 32, 32, 1), (4, 28, 28, 3)]
        ),
        *(
            (as_images, np.zeros(SHAPE, dtype), UINT8_OR_FLOAT)
            for dtype in ["i8", "u2", "?", "c8", "U1", "V4", "M8[s]"]
        ),
        (as_images, np.zeros((0, 32, 32, 3), np.float32), "holds no image"),
        *(
            (as_images, with_at(value), r"row 2 \(the first such\) holds NaN or infinity")
            for value in [np.nan, np.inf, -np.inf, 1e300]
        ),
        (as_labels, np.array([0, 1, -1, -2]), "row 2 .* is -1; expected the whole numbers from 0"),
        (as_labels, np.array([0, 0.5]), r"row 1 .* is 0\.5"),
        (as_labels, np.array([np.nan, 0], np.float32), "row 0 .* is nan"),
        (as_labels, np.array([0, np.inf]), "row 1 .* is inf"),
        (as_labels, np.array([0, 1e30]), r"row 1 .* is 1e\+30"),
        (as_labels, np.array([0, 2**63], np.uint64), "row 1 .* is 9223372036854775808"),
        *(
            (as_labels, np.zeros(3, dtype), "expected labels as whole numbers, found ")
            for dtype in ["?", "U1", "c8", "V1", "m8[s]"]
        ),
        *(
            (as_labels, np.zeros(shape, np.int64), r"expected one label per image, \[N\], found \[")
            for shape in [(), (3, 2, 1), (3, 4)]
        ),
        (as_labels, np.eye(3), r".*\[3, 3\]; of one-hot rows, save np.argmax\(Y, axis=1\)$"),
        (as_labels, np.array(["cat"]), r".*<U3; save np.unique\(Y, return_inverse=True\)\[1\]"),
        (as_images, np.zeros((4, 3, 32, 32)), r".*channels come first: save np.moveaxis\(X, 1, -1"),
        (count_classes, [0, 2, 2], r"the class 1 has no image \(the labels go up to 2\)"),
        (count_classes, [1, 2], r"the class 0 has no image .*; save np.unique\(Y, return_inver"),
        (count_classes, [0, 10], r"the class 1 has no .*; save np.unique\(Y, return_inverse=True"),
        (count_classes, [0, 1, 2**31 - 1], "the class 2 has no image"),
        (count_classes, [0, 0, 0], "all labels are 0; expected two classes or more"),
    ],
)
def test_other_arrays_are_refused(check: Any, array: Any, message: str) -> None:
    with error_line(f"a: {message}"):
        check(np.asarray(array), "a")


def test_values_outside_the_unit_range_are_warned_of(caplog: Log) -> None:
    with caplog.at_level(logging.WARNING, "absl"):
        for low, high, dtype in ((0, 1, "f4"), (0, 255, "u1"), (0, 255, "f4"), (-0.5, 0.5, "f4")):
            warn_out_of_range(np.linspace(low, high, 4 * 3072).astype(dtype), "a.npz: X")
    lines = [f"a.npz: X: values in {found}" for found in ("[0, 255]", "[-0.5, 0.5]")]
    assert caplog.messages == [f"{line}; expected [0, 1], or uint8" for line in lines]


@pytest.mark.parametrize("dtype", ["u1", "i1", ">u2", "i4", "i8", "u8", "f2", "f4", ">f8"])
def test_whole_numbers_are_labels(dtype: str) -> None:
    labels = as_labels(np.array([3, 0, 1], dtype), "Y")
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 0, 1]
    assert as_labels(np.array([[3], [0], [1]], dtype), "Y").tolist() == [3, 0, 1]
    assert count_classes(np.array([2, 0, 1, 1]), "Y") == 3
