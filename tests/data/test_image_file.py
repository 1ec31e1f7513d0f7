import contextlib
import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from data import images
from data.images import decode_image, to_grey
from errors import DataError
from tests.data.conftest import DataErrorLine, Encode


def random_pixels(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes) -> bytes:
    """An RGB image of 8 bits, by the PNG specification; each row starts with its filter, 0."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def bilinear(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.float64]:
    """Resizes by a triangle filter as wide as the scale (1 or more), along each side."""

    def weights(length: int) -> npt.NDArray[np.float64]:
        scale = length / size
        centres = (np.arange(size) + 0.5) * scale
        distances = np.abs(np.arange(length) + 0.5 - centres[:, np.newaxis])
        triangle = np.maximum(0, 1 - distances / max(scale, 1))
        return np.asarray(triangle / triangle.sum(axis=1, keepdims=True))

    rows, columns = weights(pixels.shape[0]), weights(pixels.shape[1])
    return np.asarray(np.einsum("hH,wW,HWc->hwc", rows, columns, pixels.astype(np.float64)))


def test_png_bytes_come_out_exactly() -> None:
    pixels = random_pixels(32, 32)
    content = png(32, 32, b"".join(b"\x00" + row.tobytes() for row in pixels))
    decoded = decode_image(content, "a.png")
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, pixels)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_jpeg_is_what_pillow_decodes(options: dict[str, int], encode: Encode) -> None:
    content = encode(random_pixels(32, 32), "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(content)))
    assert np.array_equal(decode_image(content, "a.jpg"), expected)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 37), (16, 20), (1, 1), (33, 31)])
def test_other_sizes_are_resized_bilinear(height: int, width: int, encode: Encode) -> None:
    pixels = random_pixels(height, width)
    decoded = decode_image(encode(pixels), "a.png")
    # Pillow rounds to whole numbers after each of the two sides.
    assert np.abs(decoded - bilinear(pixels, 32)).max() <= 1


def test_size_can_be_given(encode: Encode) -> None:
    assert decode_image(encode(random_pixels(32, 32)), "a.png", size=7).shape == (7, 7, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA"])
def test_modes_become_rgb(mode: str, encode: Encode) -> None:
    image = Image.fromarray(random_pixels(32, 32)).convert(mode.replace("PA", "P"))
    expected = np.asarray(image.convert("RGB"))
    options = {"transparency": bytes(range(200))} if mode == "PA" else {}
    assert np.array_equal(decode_image(encode(image, **options), "a.png"), expected)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpeg_modes_become_rgb(mode: str, encode: Encode) -> None:
    content = encode(Image.new("RGB", (32, 32), (200, 100, 50)).convert(mode), "JPEG", quality=100)
    expected = (200, 100, 50) if mode == "CMYK" else (124, 124, 124)
    assert np.abs(decode_image(content, "a.jpg").astype(int) - expected).max() <= 2


def test_upper_bits_of_16_bit_grey_are_taken(encode: Encode) -> None:
    grey = np.random.default_rng(0).integers(0, 2**16, (32, 32), np.uint16)
    decoded = decode_image(encode(Image.fromarray(grey)), "a.png")
    assert np.array_equal(decoded, np.repeat(grey[..., np.newaxis] >> 8, 3, axis=2))


def test_first_image_of_an_animation_is_taken(encode: Encode) -> None:
    first, second = (Image.fromarray(random_pixels(32, 32, seed)) for seed in (0, 1))
    content = encode(first, save_all=True, append_images=[second])
    assert np.array_equal(decode_image(content, "a.png"), random_pixels(32, 32, 0))


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "WEBP"])
def test_other_formats_are_refused(
    file_format: str, encode: Encode, data_error_line: DataErrorLine
) -> None:
    with data_error_line(r"a\.img: is neither a PNG nor a JPEG image"):
        decode_image(encode(random_pixels(32, 32), file_format), "a.img")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG", b"\xff\xd8"])
def test_file_that_is_no_image_is_named(content: bytes, data_error_line: DataErrorLine) -> None:
    with data_error_line(r"b c\.png: is neither a PNG nor a JPEG image"):
        decode_image(content, "b c.png")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_every_cut_is_an_error_or_harmless(file_format: str, encode: Encode) -> None:
    content = encode(random_pixels(32, 32), file_format)
    whole = decode_image(content, "a")
    harmless = 0
    for length in range(len(content)):
        try:
            decoded = decode_image(content[:length], "a")
        except DataError:
            continue
        assert np.array_equal(decoded, whole)
        harmless += 1
    assert harmless < 24  # The last bytes of a PNG are checksums and the end mark.


def test_damaged_png_is_refused(encode: Encode, data_error_line: DataErrorLine) -> None:
    content = bytearray(encode(random_pixels(32, 32)))
    content[content.index(b"IDAT") + 100] ^= 1
    with data_error_line(r"a\.png: is damaged or cut short"):
        decode_image(bytes(content), "a.png")


# Around the sizes where Pillow warns (89 million) and where it raises (twice that).
@pytest.mark.parametrize("width", [6401, 9000, 18000, 2**31 - 1])
def test_too_many_pixels_are_refused_by_the_header(
    width: int, data_error_line: DataErrorLine
) -> None:
    with data_error_line(rf"a\.png: has {width} x 10000 pixels; at most 64,000,000 are read"):
        decode_image(png(width, 10000, b""), "a.png")


def test_jpeg_of_too_many_pixels_is_refused(encode: Encode, data_error_line: DataErrorLine) -> None:
    content = encode(random_pixels(32, 32), "JPEG")
    sizes = content.index(b"\xff\xc0") + 5
    large = content[:sizes] + struct.pack(">HH", 65000, 65000) + content[sizes + 4 :]
    with data_error_line("has 65000 x 65000 pixels"):
        decode_image(large, "a.jpg")


def test_every_grey_value_is_pillows() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 50, 40, 3), np.uint8)
    images[0, 0, :3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    found = to_grey(images)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected[..., np.newaxis])


def test_grey_stays_as_it_is() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(to_grey(np.repeat(values, 3, axis=2)), values)


@pytest.mark.parametrize(("limit", "together"), [(15, 1), (16, 2)])
def test_large_images_are_decoded_one_at_a_time(
    encode: Encode, monkeypatch: pytest.MonkeyPatch, limit: int, together: int
) -> None:
    """Two threads with an image of 4 x 4 pixels each; smaller ones do not wait for each other."""
    pixels, inside, most = images._pixels, [0], [0]
    both = threading.Barrier(2)

    def slow_pixels(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3 if together == 1 else 300)
        inside[0] -= 1
        return pixels(image, size)

    monkeypatch.setattr(images, "_pixels", slow_pixels)
    monkeypatch.setattr(images, "_SHARED_PIXELS", limit)
    content = encode(random_pixels(4, 4))
    with ThreadPoolExecutor(2) as pool:
        for pixels_of in pool.map(lambda name: decode_image(content, name), ["a.png", "b.png"]):
            assert pixels_of.shape == (32, 32, 3)
    assert most == [together]


def oriented(encode: Encode, image: Image.Image, orientation: int, file_format: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encode(image, file_format, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("file_format", "mode"), [("PNG", "RGB"), ("JPEG", "RGB"), ("PNG", "I")])
def test_images_are_turned_as_pillow_turns_them(
    encode: Encode, orientation: int, file_format: str, mode: str
) -> None:
    image = Image.fromarray(random_pixels(40, 25))
    if mode == "I":  # 16-bit grey.
        image = Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 256)
    content = oriented(encode, image, orientation, file_format)
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
def test_broken_exif_says_nothing(encode: Encode, file_format: str) -> None:
    pixels, exif = random_pixels(40, 25), Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "maker" * 10
    whole, plain = exif.tobytes(), decode_image(encode(pixels, file_format), "a")
    for cut in range(1, 40):
        content = encode(pixels, file_format, exif=whole[:cut])
        assert np.array_equal(decode_image(content, "a"), plain)
    for orientation in (0, 9, 65535):
        content = oriented(encode, Image.fromarray(pixels), orientation, file_format)
        assert np.array_equal(decode_image(content, "a"), plain)


@pytest.mark.parametrize("kept_as", ["xmp", "XML:com.adobe.xmp", "Raw profile type exif"])
def test_an_orientation_is_found_wherever_pillow_finds_it(encode: Encode, kept_as: str) -> None:
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
