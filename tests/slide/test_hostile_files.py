"""Small files that claim much, lead elsewhere, or are damaged where decoders keep silent."""

import bz2
import contextlib
import gzip
import io
import json
import os
import pickle
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from limited import IDLE, PROBE, limited
from microscopes import pixels_of, saved, spoil
from PIL import Image

from cellseg.errors import InputError, RegionError, SettingsError
from cellseg.geometry import Box
from cellseg.slide import open_slide

SECRET = 201
SHORT, LONG, ASCII = 3, 4, 2
GREY = np.arange(30 * 40, dtype=np.uint8).reshape(30, 40) % 100


def tiff(path, tags, body=b""):
    """A TIFF of one page from its tags; ``body`` lies from byte 8 on, the index behind it."""
    kinds = {ASCII: "B", SHORT: "H", LONG: "I"}
    tags = {258: (SHORT, [8]), 259: (SHORT, [1]), 262: (SHORT, [1]), 277: (SHORT, [1]), **tags}
    entries, out = [], io.BytesIO(b"II*\0\0\0\0\0" + body)
    out.seek(0, os.SEEK_END)
    for code, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{kinds[kind]}", *values)
        place = packed.ljust(4, b"\0")
        if len(packed) > 4:
            out.write(b"\0" * (out.tell() % 2))
            place = struct.pack("<I", out.tell())
            out.write(packed)
        entries.append(struct.pack("<HHI", code, kind, len(values)) + place)
    out.write(b"\0" * (out.tell() % 2))
    index = out.tell()
    out.write(struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))
    data = bytearray(out.getvalue())
    data[4:8] = struct.pack("<I", index)
    path.write_bytes(data)
    return path


def page(height, width, **more):
    """Tags of an uncompressed page whose only strip is the body."""
    tags = {256: (LONG, [width]), 257: (LONG, [height]), 278: (LONG, [height]),
            273: (LONG, [8]), 279: (LONG, [height * width])}  # fmt: skip
    return {**tags, **{int(code[1:]): value for code, value in more.items()}}


def tiled(size, tile, offsets, counts):
    return {256: (LONG, [size[1]]), 257: (LONG, [size[0]]), 322: (LONG, [tile[1]]),
            323: (LONG, [tile[0]]), 324: (LONG, offsets), 325: (LONG, counts)}  # fmt: skip


def ome(pixels, image="", head="", uuid="urn:uuid:1"):
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{uuid}"><Image ID="Image:0">{image}<Pixels ID="Pixels:0" '
        f'DimensionOrder="XYCZT" Type="uint8" SizeX="40" SizeY="30" {pixels}</Pixels></Image></OME>'
    )


def ome_file(path, xml, value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = GREY if value is None else np.full_like(GREY, value)
    tifffile.imwrite(path, pixels, description=xml.encode(), metadata=None)
    return path


def ome_zarr(path, shape=(30, 40), chunks=(30, 40), axes="yx", **array):
    """A Zarr 2 store without chunks."""
    (path / "0").mkdir(parents=True)
    entry = {"version": "0.4", "axes": [{"name": a} for a in axes], "datasets": [{"path": "0"}]}
    (path / ".zattrs").write_text(json.dumps({"multiscales": [entry]}))
    given = {"zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": "|u1", "fill_value": 0,
             "compressor": None, "filters": None, "order": "C"}  # fmt: skip
    (path / "0" / ".zarray").write_text(json.dumps({**given, **array}))
    return path


# --- A file's content never leads out of its folder.

SET = (
    'SizeC="2" SizeZ="1" SizeT="1"><Channel ID="C:0" SamplesPerPixel="1"/>'
    '<Channel ID="C:1" SamplesPerPixel="1"/><TiffData FirstC="0" IFD="0" PlaneCount="1">'
    '<UUID FileName="first.ome.tif">urn:uuid:1</UUID></TiffData>'
    '<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID {name}>urn:uuid:2</UUID></TiffData>'
)


def leads_by_name(folder, secret, name):
    return ome_file(folder / "first.ome.tif", ome(SET.format(name=name)))


def leads_by_a_quote(folder, secret):
    (folder / "x'").mkdir()
    return leads_by_name(folder, secret, f'''FileName="x'/../../{secret.name}"''')


def leads_by_a_default(folder, secret, name=""):
    """A neighbour is named, so that the set is read; the third file's name is the default."""
    head = f'<!DOCTYPE OME [<!ATTLIST UUID FileName CDATA "{name or f"../{secret.name}"}">]>'
    third = (
        '<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID>urn:uuid:2</UUID></TiffData>'
        '<TiffData FirstC="1" FirstZ="1" IFD="0" PlaneCount="1"><UUID>urn:uuid:2</UUID></TiffData>'
    )
    named = SET.format(name='FileName="second.ome.tif"').replace("uuid:2", "uuid:3")
    named = named.replace('SizeZ="1"', 'SizeZ="2"') + third
    ome_file(folder / "second.ome.tif", ome(SET.format(name=""), uuid="urn:uuid:3"), 5)
    return ome_file(folder / "first.ome.tif", ome(named, head=head))


def leads_by_a_link(folder, secret):
    (folder / "second.ome.tif").symlink_to(secret)
    return leads_by_name(folder, secret, 'FileName="second.ome.tif"')


def ndtiff(path, value):
    summary = b"{}"
    head = struct.pack("<IIII", 483729, 2, 2355492, len(summary)) + summary
    tags = page(30, 40, _273=(LONG, [8 + len(head)]), _51123=(ASCII, b'{"Width": 40}\0'))
    return tiff(path, tags, head + bytes([value]) * 1200)


def ndtiff_index(folder, entries):
    with (folder / "NDTiff.index").open("wb") as file:
        for axes, name in entries:
            text = json.dumps(axes).encode()
            file.write(struct.pack("<I", len(text)) + text)
            file.write(struct.pack("<I", len(name)) + name.encode())
            file.write(struct.pack("<IiiiiIii", 26, 40, 30, 0, 0, 0, 0, 0))


def leads_by_an_index(folder, secret):
    ndtiff(secret, SECRET)
    ndtiff_index(folder, [({"z": 0}, "s.tif"), ({"z": 1}, f"../{secret.name}")])
    return ndtiff(folder / "s.tif", 7)


def leads_by_a_chunk(folder, secret):
    secret.write_bytes(bytes([SECRET]) * 1200)
    path = ome_zarr(folder / "s.zarr")
    (path / "0" / "0.0").symlink_to(secret)
    return path


def leads_by_a_folder_of_chunks(folder, secret):
    (secret.parent / "chunks").mkdir()
    (secret.parent / "chunks" / "0").write_bytes(bytes([SECRET]) * 1200)
    path = ome_zarr(folder / "s.zarr", dimension_separator="/")
    (path / "0" / "0").symlink_to(secret.parent / "chunks")
    return path


@pytest.mark.parametrize(
    "make",
    [
        leads_by_a_quote,
        leads_by_a_default,
        lambda folder, secret: leads_by_a_default(folder, secret, str(secret)),
        lambda folder, secret: leads_by_name(folder, secret, f'FileName="../{secret.name}"'),
        lambda folder, secret: leads_by_name(folder, secret, f'FileName="..&#47;{secret.name}"'),
        leads_by_a_link,
        leads_by_an_index,
        leads_by_a_chunk,
        leads_by_a_folder_of_chunks,
    ],
)
def test_a_file_never_leads_out_of_its_folder(tmp_path, make):
    folder = tmp_path / "folder"
    folder.mkdir()
    secret = ome_file(
        tmp_path / "secret.ome.tif", ome(SET.format(name=""), uuid="urn:uuid:2"), SECRET
    )
    path = make(folder, secret)
    for z in (None, 1):
        with contextlib.suppress(InputError, SettingsError), open_slide(path, z=z) as slide:
            assert SECRET not in slide.read(Box(0, 0, 30, 40))


def test_neighbours_of_a_set_are_read(tmp_path):
    path = leads_by_name(tmp_path, tmp_path, 'FileName="second.ome.tif"')
    ome_file(tmp_path / "second.ome.tif", ome(SET.format(name=""), uuid="urn:uuid:2"), 200)
    pixels = pixels_of(path)
    np.testing.assert_array_equal(pixels[..., 0], GREY)
    assert (pixels[..., 1] == 200).all()


def test_an_index_of_one_file_is_followed(tmp_path):
    ndtiff_index(tmp_path, [({"z": 0}, "s.tif"), ({"z": 1}, "s.tif")])
    with open_slide(ndtiff(tmp_path / "s.tif", 7)) as slide:
        assert slide.size_z == 2
        assert (slide.read(Box(0, 0, 30, 40)) == 7).all()


def test_chunks_behind_links_inside_the_store_are_read(tmp_path):
    path = ome_zarr(tmp_path / "s.zarr")
    (path / "elsewhere").write_bytes(bytes([9]) * 1200)
    (path / "0" / "0.0").symlink_to(path / "elsewhere")
    assert (pixels_of(path) == 9).all()


def test_a_zarr_chunk_is_never_unpickled(tmp_path):
    made = tmp_path / "made"

    class Touch:
        def __reduce__(self):
            return Path.touch, (made,)

    path = ome_zarr(tmp_path / "s.zarr", compressor={"id": "pickle", "protocol": 5})
    (path / "0" / "0.0").write_bytes(pickle.dumps(Touch()))
    with contextlib.suppress(InputError):
        pixels_of(path)
    assert not made.exists()


# --- Claims: refused within seconds and a gigabyte.

HUGE = 10**9


def claims(pixels, image="", tail=""):
    """An OME-TIFF of one page that claims more."""
    xml = ome(pixels, image).replace("</OME>", f"{tail}</OME>")
    return lambda folder: ome_file(folder / "s.ome.tif", xml)


MODULO = (
    '<StructuredAnnotations><XMLAnnotation ID="A:0" Namespace="openmicroscopy.org/omero/'
    'dimension/modulo"><Value><Modulo namespace="http://www.openmicroscopy.org/Schemas/'
    f'Additions/2011-09"><ModuloAlongT Type="phase" Start="0" End="{2 * HUGE}"/></Modulo>'
    "</Value></XMLAnnotation></StructuredAnnotations>"
)
MANY = ome('SizeC="1" SizeZ="900000" SizeT="1"><TiffData/>')
MANY = MANY[MANY.index("<Image") : MANY.index("</OME>")]


def claims_planes_by_index(folder):
    ndtiff_index(folder, [({"z": 0}, "s.tif"), ({"z": 2 * 10**8}, "s.tif")])
    return ndtiff(folder / "s.tif", 7)


def claims_planes_of_a_stack(folder):
    """Micro-Manager's stack of one plane whose summary knows of more."""
    summary = json.dumps({"MicroManagerVersion": "1", "Frames": HUGE}).encode()
    at = 40 + len(summary)
    places = struct.pack("<7I", 3453623, 1, 0, 0, 0, 0, 8)
    head = struct.pack("<8I", 54773648, at, 0, 0, 0, 0, 2355492, len(summary)) + summary + places
    tags = page(30, 40, _273=(LONG, [8 + len(head)]), _51123=(ASCII, b'{"Width": 40}\0'))
    return tiff(folder / "s.tif", tags, head + bytes(1200))


def claims_axes(folder):
    text = json.dumps({"shape": [1] * 100_000 + [30, 40]}).encode() + b"\0"
    return tiff(folder / "s.tif", page(30, 40, _270=(ASCII, text)), bytes(1200))


def claims_samples(folder):
    count = 65_535
    tags = page(2, 2, _277=(SHORT, [count]), _258=(SHORT, [8] * count), _279=(LONG, [4 * count]))
    return tiff(folder / "s.tif", tags, bytes(4 * count))


def one_place_for_all_tiles(folder):
    count = 256 * 256
    packed = zlib.compress(bytes(256 * 256))
    tags = tiled((65_536, 65_536), (256, 256), [8] * count, [len(packed)] * count)
    return tiff(folder / "s.tif", {**tags, 259: (SHORT, [8])}, packed)


def tiles_of_one_pixel(folder):
    count = 400 * 400
    tags = tiled((400, 400), (1, 1), list(range(8, 8 + count)), [1] * count)
    return tiff(folder / "s.tif", tags, bytes(count))


def claims_chunk_axes(folder):
    names = [f"a{n}" for n in range(60_000)]
    path = ome_zarr(folder / "s.zarr", (1,) * 60_000 + (30, 40), (1,) * 60_000 + (30, 40))
    entry = {"version": "0.4", "axes": [*names, "y", "x"], "datasets": [{"path": "0"}]}
    (path / ".zattrs").write_text(json.dumps({"multiscales": [entry]}))
    return path


def zeros_by_zlib():
    """Three gigabytes of zeros, without an end."""
    packer = zlib.compressobj(9)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    return head + (packer.compress(bytes(10_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)) * 300


ZLIB = {"id": "zlib", "level": 9}


def unpacks(data, side=(30, 40), **array):
    """A Zarr 2 store of one chunk."""

    def make(folder):
        path = ome_zarr(folder / "s.zarr", side, side, **array)
        (path / "0" / "0.0").write_bytes(data())
        return path

    return make


def unpacks_zarr_3(folder, codec, data):
    path = folder / "s.zarr"
    entry = {"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    pixels = np.ones((1200, 1200), np.uint8)
    group.create_array("0", data=pixels, chunks=pixels.shape, compressors=[])
    meta = json.loads((path / "0" / "zarr.json").read_text())
    meta["codecs"].append(codec)
    (path / "0" / "zarr.json").write_text(json.dumps(meta))
    (path / "0" / "c" / "0" / "0").write_bytes(data)
    return path


def unpacks_gzip_3(folder):
    data = gzip.compress(bytes(100_000_000)) * 30
    return unpacks_zarr_3(folder, {"name": "gzip", "configuration": {"level": 5}}, data)


def unpacks_zstd_3(folder):
    data = imagecodecs.zstd_encode(bytes(2_000_000_000), level=3)
    codec = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
    return unpacks_zarr_3(folder, codec, data)


def a_pipe(name):
    """A pipe in place of a file of a store."""

    def make(folder):
        path = ome_zarr(folder / "s.zarr")
        (path / "0" / name).unlink(missing_ok=True)
        os.mkfifo(path / "0" / name)
        return path

    return make


def a_huge_png(folder):
    """50,000² pixels of 1 bit, in 304 kB."""
    side = 50_000
    rows = zlib.compress(bytes((side // 8 + 1) * side), 1)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", rows),
             (b"IEND", b"")]  # fmt: skip
    path = folder / "s.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ))  # fmt: skip
    return path


def a_tile_of_a_huge_jpeg(folder):
    data = bytearray(imagecodecs.jpeg_encode(GREY))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    tags = tiled((16, 16), (16, 16), [8], [len(data)])
    return tiff(folder / "s.tif", {**tags, 259: (SHORT, [7])}, bytes(data))


def a_tile_of_a_huge_jpeg_2000(folder):
    data = bytearray(imagecodecs.jpeg2k_encode(GREY, codecformat="j2k"))
    at = data.index(b"\xff\x51")
    data[at + 6 : at + 10] = struct.pack(">I", 1_048_696)
    tags = tiled((16, 16), (16, 16), [8], [len(data)])
    return tiff(folder / "s.tif", {**tags, 259: (SHORT, [34712])}, bytes(data))


def test_a_compression_of_maps_is_refused(tmp_path):
    """Its packed data may claim any size, as here 285 million bands."""
    data = imagecodecs.lerc_encode(GREY)
    tags = page(30, 40, _259=(SHORT, [34887]), _279=(LONG, [len(data)]))
    path = tiff(tmp_path / "s.tif", tags, data)
    with pytest.raises(InputError, match="lerc, is not supported"):
        open_slide(path)


@pytest.fixture(scope="module")
def idle_bytes():
    """What the program takes before it opens a file."""
    return limited("-c", IDLE).peak_bytes


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (claims(f'SizeC="1" SizeZ="{HUGE}" SizeT="1"><TiffData/>'), "1,000,000,000 planes"),
        (claims(f'SizeC="{HUGE}" SizeZ="1" SizeT="1"><TiffData/>'), "1,000,000,000 planes"),
        (claims(f'SizeC="1" SizeZ="1" SizeT="1"><Channel ID="C:0" SamplesPerPixel="{HUGE}"/>'
                "<TiffData/>"), "1,000,000,000 samples a pixel"),
        (claims(f'SizeC="1" SizeZ="1" SizeT="1"><TiffData IFD="0" PlaneCount="{HUGE}"/>'),
         "1,000,000,000 planes"),
        (claims('SizeC="1" SizeZ="1" SizeT="1"><TiffData/>', '<AnnotationRef ID="A:0"/>', MODULO),
         "2,000,000,000 planes"),
        (claims('SizeC="1" SizeZ="900000" SizeT="1"><TiffData/>', tail=MANY * 400),
         "360,900,000 planes"),
        (claims_planes_by_index, "200,000,001 planes"),
        (claims_planes_of_a_stack, "1,000,000,000 planes"),
        (claims_axes, "100,002 dimensions"),
        (claims_samples, "65,535 channels"),
        (lambda folder: tiff(folder / "s.tif", tiled((HUGE, HUGE), (16, 16), [8], [256]),
                             bytes(256)), "pixels (1,000,000,000 × 1,000,000,000)"),
        (one_place_for_all_tiles, "bytes of pixels in a file of"),
        (tiles_of_one_pixel, "160,000 tiles of 1 px"),
        (lambda folder: ome_zarr(folder / "s.zarr", (HUGE, HUGE), (1024, 1024)),
         "pixels (1,000,000,000 × 1,000,000,000)"),
        (lambda folder: ome_zarr(folder / "s.zarr", (4096, 4096), (1, 1)), "tiles of 1 px"),
        (lambda folder: ome_zarr(folder / "s.zarr", (100_000, 8, 8), (1000, 8, 8), "cyx"),
         "100,000 channels"),
        (claims_chunk_axes, "60,002 dimensions"),
        (unpacks(zeros_by_zlib, (1200, 1200), compressor=ZLIB), "unpacks to more"),
        (unpacks(lambda: zlib.compress(zeros_by_zlib(), 9), compressor=ZLIB, filters=[ZLIB]),
         "unpacks to more"),
        (unpacks(lambda: bz2.compress(bytes(100_000_000)) * 30,
                 compressor={"id": "bz2", "level": 9}), "unpacks to more"),
        (unpacks_gzip_3, "unpacks to more"),
        (unpacks_zstd_3, "unpacks to more"),
        (a_pipe("0.0"), "no regular file"),
        (a_pipe(".zarray"), "no regular file"),
        (a_huge_png, "takes 2.5 GB of memory, more than the 1.5 GB"),
        (a_tile_of_a_huge_jpeg, "does not decode"),
        (a_tile_of_a_huge_jpeg_2000, "claims 1048696 × 30 px"),
    ],
)  # fmt: skip
def test_a_small_file_takes_little(tmp_path, idle_bytes, make, says):
    path = make(tmp_path)
    done = limited("-c", PROBE, str(path))
    assert done.code == 4, done
    assert done.said.startswith(path.name), done.said
    assert says in done.said
    assert len(done.said.splitlines()) == 1
    assert done.cpu_s < 10
    assert done.peak_bytes < idle_bytes + 1e9


# --- Damaged JPEG data.


def tissue(side=512):
    """Something that is no flat field: smooth blobs and a little noise."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:side, :side]
    waves = np.sin(y / 9.0) * np.sin(x / 7.0)
    pixels = 180 + 50 * waves[..., None] * [1.0, 0.7, 0.4] + rng.normal(0, 6, (side, side, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def zeroed(data):
    return data[: len(data) // 2] + bytes(400) + data[len(data) // 2 + 400 :]


def half_to_the_end(data):
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def half(data):
    return half_to_the_end(data)[:-2] + data[-2:]


def scrambled(data):
    noise = np.random.default_rng(1).integers(0, 255, 400, dtype=np.uint8).tobytes()
    return data[: len(data) // 2] + noise + data[len(data) // 2 + 400 :]


JPEGS = [{}, {"optimize": True}, {"subsampling": "444"}, {"subsampling": "422", "level": 60}]


@pytest.mark.parametrize("damage", [zeroed, half, scrambled])
@pytest.mark.parametrize("how", JPEGS, ids=str)
def test_a_damaged_jpeg_is_not_read(tmp_path, damage, how):
    good = imagecodecs.jpeg_encode(tissue(), **how)
    path = tmp_path / "field.jpg"
    path.write_bytes(good)
    assert pixels_of(path).std() > 0
    path.write_bytes(damage(good))
    with pytest.raises(RegionError, match=r"^field.jpg: .*does not decode \(damaged JPEG data"):
        pixels_of(path)


@pytest.mark.parametrize("damage", [zeroed, half, half_to_the_end, scrambled])
def test_a_damaged_jpeg_tile_is_named_and_the_rest_is_read(tmp_path, damage):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, tissue(), tile=(256, 256), compression="jpeg", photometric="rgb")
    with open_slide(path) as slide:
        whole = slide.read(Box(0, 0, 512, 512))
    spoil(path, 1, damage)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(Box(256, 0, 512, 512)), whole[256:])
        with pytest.raises(RegionError, match=r"tile at y 0, x 256 .*damaged JPEG data"):
            slide.read(Box(0, 200, 100, 300))


def test_flat_and_padded_jpegs_are_whole(tmp_path):
    """Zero bits mean nothing in a flat image, and some scanners pad."""
    flat = imagecodecs.jpeg_encode(np.full((512, 512, 3), 240, np.uint8), optimize=True)
    good = imagecodecs.jpeg_encode(tissue())
    for data in (flat, good[:-2] + bytes(3) + good[-2:], good + bytes(500)):
        path = tmp_path / "field.jpg"
        path.write_bytes(data)
        assert pixels_of(path).shape == (512, 512, 3)


# --- Axes.


def test_an_unknown_axis_is_said(tmp_path):
    stack = saved(tmp_path, np.stack([GREY] * 2), metadata={"axes": "AYX"})
    for path in (ome_zarr(tmp_path / "s.zarr", (2, 30, 40), (2, 30, 40), "ayx"), stack):
        with open_slide(path) as slide:
            assert [note.lower() for note in slide.notes] == ["axis a of 2: the first is read"]


def test_damaged_exif_is_no_news(tmp_path, recwarn):
    """A picture's camera data may be cut off: it is read unturned, and nothing is printed."""
    drawn = Image.fromarray(GREY)
    exif = drawn.getexif()
    exif[0x0112] = 6
    drawn.save(tmp_path / "whole.jpg", exif=exif)
    data = bytearray((tmp_path / "whole.jpg").read_bytes())
    entry = data.index(struct.pack(">HH", 0x0112, 3))
    data[entry + 4 : entry + 8] = struct.pack(">I", 2**31)
    (tmp_path / "cut.jpg").write_bytes(data)
    assert pixels_of(tmp_path / "whole.jpg").shape[:2] == GREY.shape[::-1]
    assert pixels_of(tmp_path / "cut.jpg").shape[:2] == GREY.shape
    assert not recwarn.list
