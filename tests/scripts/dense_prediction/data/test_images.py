"""Pictures of every mode and with damaged metadata are read as a person sees them, or refused by their names."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from dense_prediction.data.bad_samples import BadSample
from dense_prediction.data.images import open_picture, read, read_rgb, to_rgb
from dense_prediction.errors import UserError
from dense_prediction.prediction.image_files import read_image
from fuzz_pictures import MODES, in_mode


PIXELS = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)

COLOURLESS = {"I", "F"}


# LAB is converted by some versions of Pillow alone.
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "LAB"])
def test_every_mode(mode: str) -> None:
    """To the colours that Pillow itself makes of them step by step."""
    image = in_mode(mode)
    if mode in COLOURLESS:
        with pytest.raises(ValueError, match="32 bits a pixel"):
            to_rgb(image)
        return
    seen = np.asarray(to_rgb(image)).astype(int)
    assert seen.shape == (8, 8, 3)
    steps = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
    if not mode.startswith("I;16"):
        expected = (image.convert(steps[mode]) if mode in steps else image).convert("RGB")
        assert np.array_equal(seen, np.asarray(expected))
    else:
        assert np.array_equal(seen[..., 0], np.asarray(image) // 256)


def jpeg(**tags: object) -> bytes:
    exif = Image.Exif()
    for name, value in tags.items():
        exif[getattr(ExifTags.Base, name)] = value
    data = io.BytesIO()
    Image.fromarray(PIXELS[:4]).save(data, "JPEG", exif=exif)
    return data.getvalue()


def write_with_exif(path: Path, damaged: bytes) -> None:
    """A PNG of 8 x 4 pixels, as Pillow reads the EXIF data of PNGs as they stand there."""
    Image.fromarray(PIXELS[:4]).save(path, "PNG", exif=b"Exif\0\0" + damaged)


GARBAGE = [
    b"garbage!",
    b"MM\0j\0\0\0\x08",
    b"MM\0*\0\0\0\x08\xff\xff",
    # an orientation that is a text, and one that lies outside of the block
    b"MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\4abc\0\0\0\0\0",
    b"MM\0*\0\0\0\x08\0\1\x01\x12\0\5\0\0\0\x08\xff\xff\xff\xff\0\0\0\0",
]


@pytest.mark.parametrize("damaged", GARBAGE, ids=range(5))
def test_damaged_metadata_say_nothing(tmp_path: Path, damaged: bytes) -> None:
    """The picture is whole: it is read, and not turned."""
    write_with_exif(tmp_path / "a.png", damaged)
    sizes = {read_rgb(tmp_path / "a.png", orientation).size for orientation in ("refuse", "stored", "upright")}
    assert sizes == {read_image(tmp_path / "a.png").size} == {(8, 4)}


def test_the_orientation_is_kept_beside_damaged_metadata(tmp_path: Path) -> None:
    """A width that is a text cannot be written again, and Pillow writes all tags anew when it turns a picture."""
    text = struct.pack(">HHII", 0x0100, 2, 9, 38)
    turned = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    write_with_exif(tmp_path / "a.png", b"MM\0*\0\0\0\x08\0\2" + text + turned + bytes(4) + b"a camera\0")
    assert read_rgb(tmp_path / "a.png", "upright").size == read_image(tmp_path / "a.png").size == (4, 8)
    assert read_rgb(tmp_path / "a.png", "stored").size == (8, 4)


def test_turned_pictures_are_still_turned(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(Orientation=6, Make="a camera"))
    assert read_rgb(tmp_path / "a.jpg", "upright").size == (4, 8)
    assert read(tmp_path / "a.jpg").size == (8, 4)


def bomb(side: int) -> bytes:
    data = bytearray()
    with io.BytesIO() as file:
        Image.fromarray(PIXELS).save(file, "BMP")
        data += file.getvalue()
    data[18:26] = struct.pack("<ii", side, side)
    return bytes(data)


def test_bombs_are_refused_and_large_pictures_are_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    for side, message in ((10_000, "truncated"), (30_000, "exceeds limit of")):
        path.write_bytes(bomb(side))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(BadSample, match=message):
                read(path)
            with pytest.raises(UserError, match=message):
                read_image(path)


@pytest.mark.parametrize(
    "data",
    [
        b"qoif\0\0\0\x08\0\0\0\x08\3\0",
        b"FTEX" + struct.pack("<8I", 1, 8, 8, 1, 2, 0, 0, 32),
        b"DDS " + struct.pack("<I", 124) + bytes(124),
        b"BLP2" + struct.pack("<I", 9) + bytes(200),
        b"\x59\xa6\x6a\x95" + bytes(28),
        b"P6 0 0 255\n",
        b"GIF89a" + bytes(7),
    ],
    ids=["qoi", "ftex", "dds", "blp", "sun", "ppm of no size", "gif of no size"],
)
def test_damaged_files_of_rare_formats(data: bytes) -> None:
    """Each makes Pillow raise something else."""
    with pytest.raises(BadSample, match="a cannot be decoded: ."):
        open_picture(io.BytesIO(data), "a")
