"""Pictures of every format that Pillow knows and of every mode, as damaged files have them."""

import io
import struct
from functools import cache
from random import Random

import numpy as np
from PIL import ExifTags, Image

from fuzz_mutations import damaged


SIDE = 8

MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
    "I;16B",
]

# Of formats that Pillow opens and does not write, what tells them, and the beginning of a header.
OPENED_ONLY = {
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, SIDE, SIDE, 8, 3) + bytes(12) + bytes(2),
    "cur": b"\0\0\2\0\1\0" + struct.pack("<BBBBHHII", SIDE, SIDE, 0, 0, 1, 1, 300, 22),
    "sun": struct.pack(">8I", 0x59A66A95, SIDE, SIDE, 24, SIDE * SIDE * 3, 1, 0, 0),
    "fits": b"SIMPLE  =                    T".ljust(80)
    + b"BITPIX  =                    8".ljust(80)
    + b"NAXIS   =                    2".ljust(80)
    + b"NAXIS1  =                    8".ljust(80)
    + b"NAXIS2  =                    8".ljust(80)
    + b"END".ljust(2880 - 400),
    "xpm": b'/* XPM */\nstatic char *a[] = {\n"8 8 2 1",\n"  c #000000",\n". c #ffffff",\n'
    + b'"  ..  ..",\n' * 8
    + b"};",
    "fli": struct.pack("<IHHHHHHI", 128 + 60, 0xAF11, 1, SIDE, SIDE, 8, 3, 5) + bytes(108),
    "gbr": struct.pack(">7I", 32, 2, SIDE, SIDE, 3, 0x47494D50, 10) + b"a\0\0\0",
    "ftex": b"FTEX" + struct.pack("<6I", 1, SIDE, SIDE, 1, 1, 0) + struct.pack("<II", 0, 32) + struct.pack("<I", 192),
    "pixar": b"\200\350\000\000".ljust(416, b"\0") + struct.pack("<HH", SIDE, SIDE) + bytes(4) + b"\x0e\0\x02\0",
    "mcidas": bytes(4) + b"\0\0\0\4" + struct.pack(">14I", *[0, 0, 0, 0, 0, 0, SIDE, SIDE, 1, 0, 0, 1, 0, 0]),
    "xvthumb": b"P7 332\n#END_OF_COMMENTS\n8 8 255\n",
    "imt": b"width 8\nheight 8\n\x0c",
    "pcd": bytes(2048) + b"PCD_" + bytes(2000),
    "mpeg": b"\0\0\1\xb3\0\x80\x08",
    "iptc": b"\x1c\x03\x3c\0\2\1\0" + b"\x1c\x03\x14\0\1\x08" + b"\x1c\x03\x1e\0\1\x08" + b"\x1c\x08\x0a\0\x40",
    "wmf": b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhH", 0, 0, 100, 100, 72) + bytes(6) + b"\1\0\t\0" + bytes(30),
    "grib": b"GRIB\0\0\0\1" + bytes(30),
    "bufr": b"BUFR\0\0\0\4" + bytes(30),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(30),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n",
}


def picture(random: Random) -> bytes:
    """A file that is damaged more often than not."""
    data, other = random.choice(whole()), random.choice(whole())
    if random.random() < 0.1:
        data = random.choice(list(OPENED_ONLY.values())) + random.randbytes(random.choice([0, 20, 400]))
    return damaged(data, random, other) if random.random() < 0.9 else data


@cache
def whole() -> tuple[bytes, ...]:
    """A picture in each mode in each format that takes it, some of them with EXIF data and of several frames."""
    Image.init()
    files = [
        data for form in sorted(Image.SAVE) for mode in MODES if (data := _saved(form, in_mode(mode), exif=False))
    ]
    files += [
        data for form in ("JPEG", "PNG", "TIFF", "WEBP", "MPO", "AVIF") if (data := _saved(form, in_mode("RGB")))
    ]
    files += [data for form in ("GIF", "TIFF", "PNG", "WEBP", "MPO") if (data := _saved(form, in_mode("RGB"), 3))]
    files += [_tiff(compression) for compression in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits", "group4")]
    files += [b"\xb1\x68\xde\x3a" + struct.pack("<I", 987654321) + _saved("PCX", in_mode("L"), exif=False), b""]
    return tuple(data for data in files if data is not None)


def in_mode(mode: str) -> Image.Image:
    """A colourful picture; the modes that nothing converts to are those of the bytes they have."""
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    match mode:
        case "I;16" | "I;16B":
            return Image.frombytes(mode, (SIDE, SIDE), pixels[..., :2].tobytes())
        case "La" | "PA":
            return image.convert("LA" if mode == "La" else "P").convert(mode)
        case "RGBa":
            return image.convert("RGBA").convert("RGBa")
        case "LAB":
            return Image.frombytes("LAB", (SIDE, SIDE), pixels.tobytes())
        case _:
            return image.convert(mode)


def _saved(form: str, image: Image.Image, frames: int = 1, exif: bool = True) -> bytes | None:
    """None where the format has no such mode."""
    data, options = io.BytesIO(), Image.Exif()
    options[ExifTags.Base.Orientation] = 6
    options[ExifTags.Base.Make] = "a camera"
    more = {"save_all": True, "append_images": [image.rotate(90)] * (frames - 1)} if frames > 1 else {}
    try:
        image.save(data, form, **({"exif": options.tobytes()} if exif else {}), **more)
    except (OSError, ValueError, KeyError, TypeError, SystemError):
        return None
    return data.getvalue()


def _tiff(compression: str) -> bytes | None:
    data = io.BytesIO()
    try:
        in_mode("1" if compression == "group4" else "RGB").save(data, "TIFF", compression=compression)
    except OSError:  # a Pillow without libtiff
        return None
    return data.getvalue()
