"""Files as microscopes leave them, each a picture of known pixels and 0.5 µm per pixel."""

import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
import zarr

from cellseg.geometry import Box
from cellseg.slide import open_slide

MPP = 0.5


def rotted(data):
    """What no codec reads."""
    return b"\xff" * len(data)


def spoil(path, tile, damage=rotted, *, page=lambda tif: tif.pages[0]):
    """Damage one tile of a page of a TIFF."""
    with tifffile.TiffFile(path) as tif:
        found = page(tif)
        start, size = found.dataoffsets[tile], found.databytecounts[tile]
    with path.open("r+b") as file:
        file.seek(start)
        data = file.read(size)
        file.seek(start)
        file.write(damage(data))


def saved(folder, pixels, name="image.tif", **options):
    """A TIFF as tifffile writes it."""
    tifffile.imwrite(folder / name, pixels, **options)
    return folder / name


def whole(slide):
    return slide.read(Box(0, 0, slide.height, slide.width))


def pixels_of(path, **options):
    """All pixels of a slide."""
    with open_slide(path, **options) as slide:
        return whole(slide)


def trestle(path, pixels):
    """A Trestle TIFF, which OpenSlide tells by its Software and the overlaps in its text.

    Its pixel size stands in the resolution tags, as OpenSlide has it.
    """
    tifffile.imwrite(
        path, pixels, tile=(128, 128), photometric="rgb", compression="zlib", metadata=None,
        software="MedScan 1.0", description="OverlapsXY=0 0;Objective Power=20",
        resolution=(MPP, MPP), resolutionunit=1,
    )  # fmt: skip
    return path


def philips(path, pixels):
    """A Philips TIFF of one level."""
    size = (
        '<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
        f'PMSVR="IDoubleArray">&quot;{MPP / 1000}&quot; &quot;{MPP / 1000}&quot;</Attribute>'
    )
    description = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray">'  # noqa: E501
        '<Array><DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI</Attribute>'  # noqa: E501
        f"{size}"
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" Element="0x8B01" PMSVR="IDataObjectArray">'  # noqa: E501
        '<Array><DataObject ObjectType="PixelDataRepresentation">'
        f"{size}"
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_COLUMNS" Group="0x2001" Element="0x115E" PMSVR="IUInt32">{pixels.shape[1]}</Attribute>'  # noqa: E501
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_ROWS" Group="0x2001" Element="0x115D" PMSVR="IUInt32">{pixels.shape[0]}</Attribute>'  # noqa: E501
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER" Group="0x1001" Element="0x8B02" PMSVR="IUInt16">0</Attribute>'  # noqa: E501
        "</DataObject></Array></Attribute></DataObject></Array></Attribute></DataObject>"
    )
    tifffile.imwrite(
        path, pixels, tile=(128, 128), photometric="rgb", compression="zlib", metadata=None,
        software="Philips DP v1.0", description=description,
    )  # fmt: skip
    return path


def dicom(path, pixels, *, series="1.2.3.4", tile=128):
    """One level of a whole-slide series, tiles not compressed."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

    height, width = pixels.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.full((rows * tile, columns * tile, 3), 255, np.uint8)
    padded[:height, :width] = pixels
    frames = padded.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2)
    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, f"{series}.{height}"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = "1.2.3", series, "1.2.5"
    one.Modality, one.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 8, 8, 7, 0
    one.Rows, one.Columns, one.NumberOfFrames = tile, tile, rows * columns
    one.TotalPixelMatrixRows, one.TotalPixelMatrixColumns = height, width
    one.TotalPixelMatrixFocalPlanes, one.NumberOfOpticalPaths = 1, 1
    one.ImagedVolumeWidth, one.ImagedVolumeHeight = width * MPP / 1000, height * MPP / 1000
    one.ImagedVolumeDepth, one.FocusMethod, one.ExtendedDepthOfField = 0.001, "AUTO", "NO"
    one.DimensionOrganizationType, one.LossyImageCompression = "TILED_FULL", "00"
    one.BurnedInAnnotation = one.SpecimenLabelInImage = "NO"
    one.VolumetricProperties = "VOLUME"
    spacing, groups = Dataset(), Dataset()
    spacing.PixelSpacing, spacing.SliceThickness = [MPP / 1000, MPP / 1000], 0.001
    groups.PixelMeasuresSequence = [spacing]
    one.SharedFunctionalGroupsSequence = [groups]
    optical = Dataset()
    optical.OpticalPathIdentifier = "0"
    one.OpticalPathSequence = [optical]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    one.TotalPixelMatrixOriginSequence = [origin]
    one.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    one.ContainerIdentifier, one.InstanceNumber = "1", 1
    one.PixelData = np.ascontiguousarray(frames).tobytes()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(exist_ok=True)
    one.save_as(path, enforce_file_format=True)
    return path


def mirax(path, pixels, *, tile=64, overlap=0):
    """A MIRAX of two levels in PNG tiles: the file, and a folder of the same name beside it."""
    rows, columns = (-(-side // tile) for side in pixels.shape[:2])
    rows, columns = rows + rows % 2, columns + columns % 2
    padded = np.full((rows * tile, columns * tile, 3), 255, np.uint8)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    home = path.with_suffix("")
    home.mkdir()
    path.write_bytes(imagecodecs.jpeg_encode(pixels[:16, :16]))
    ident = "0123456789ABCDEF0123456789ABCDEF"
    sections, data, index = "", b"", b"01.02" + ident.encode()
    at = len(index) + 8  # of the pages, behind two roots and a pointer a level
    roots, pages = struct.pack("<ii", at, 0), b""
    for level in range(2):
        step = 2**level
        entries = []
        for y in range(0, rows, step):
            for x in range(0, columns, step):
                box = padded[y * tile : (y + step) * tile, x * tile : (x + step) * tile]
                picture = imagecodecs.png_encode(np.ascontiguousarray(box[::step, ::step]))
                entries.append((y * columns + x, len(data), len(picture), 0))
                data += picture
        first = at + 8 + len(pages)
        roots += struct.pack("<i", first)
        pages += struct.pack("<iiii", 0, first + 8, len(entries), 0)
        pages += b"".join(struct.pack("<iiii", *entry) for entry in entries)
        sections += (
            f"[LAYER_{level}]\nOVERLAP_X = {overlap}\nOVERLAP_Y = {overlap}\n"
            f"MICROMETER_PER_PIXEL_X = {MPP * step}\nMICROMETER_PER_PIXEL_Y = {MPP * step}\n"
            f"IMAGE_FORMAT = PNG\nIMAGE_FILL_COLOR_BGR = 16777215\nDIGITIZER_WIDTH = {tile}\n"
            f"DIGITIZER_HEIGHT = {tile}\nIMAGE_CONCAT_FACTOR = {level}\n"
        )
    (home / "Index.dat").write_bytes(index + roots + pages)
    (home / "Data0000.dat").write_bytes(data)
    (home / "Slidedat.ini").write_text(
        f"[GENERAL]\nSLIDE_VERSION = 01.02\nSLIDE_ID = {ident}\nIMAGENUMBER_X = {columns}\n"
        f"IMAGENUMBER_Y = {rows}\nOBJECTIVE_MAGNIFICATION = 20\nCameraImageDivisionsPerSide = 1\n"
        "[HIERARCHICAL]\nHIER_COUNT = 1\nNONHIER_COUNT = 0\nINDEXFILE = Index.dat\n"
        "HIER_0_NAME = Slide zoom level\nHIER_0_COUNT = 2\nHIER_0_VAL_0_SECTION = LAYER_0\n"
        "HIER_0_VAL_1_SECTION = LAYER_1\n[DATAFILE]\nFILE_COUNT = 1\nFILE_0 = Data0000.dat\n"
        + sections
    )
    return path


def czi(path, pixels, *, corners=((0, 0),)):
    """A scene for each corner (y, x); (h, w, 3) is colour, (channels, h, w) is not."""
    from pylibCZIrw.czi import create_czi

    with create_czi(str(path)) as file:
        for scene, (y, x) in enumerate(corners):
            if pixels.shape[-1] == 3:
                planes = [pixels[..., ::-1]]
            else:
                planes = [plane[..., None] for plane in pixels]
            for number, plane in enumerate(planes):
                file.write(
                    np.ascontiguousarray(plane), (x, y), plane={"C": number, "Z": 0, "T": 0},
                    scene=scene,
                )  # fmt: skip
        names = {n: f"dye {n}" for n in range(len(planes))} if len(planes) > 1 else None
        file.write_metadata(channel_names=names, scale_x=MPP * 1e-6, scale_y=MPP * 1e-6)
    return path


def lif(path, images):
    """Images of (channels, h, w), laid out as Leica describes the format."""
    blocks, elements = b"", ""
    for number, (name, pixels) in enumerate(images.items()):
        item = pixels.dtype.itemsize
        channels, height, width = pixels.shape
        about = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * item}" '
            'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="Gray" IsLUTInverted="0" '
            f'BytesInc="{n * height * width * item}" BitInc="0"/>'
            for n in range(channels)
        )
        sides = "".join(
            f'<DimensionDescription DimID="{n}" NumberOfElements="{size}" Origin="0" '
            f'Length="{(size - 1) * MPP * 1e-6}" Unit="m" BitInc="0" BytesInc="{step}"/>'
            for n, size, step in ((1, width, item), (2, height, width * item))
        )
        elements += (
            f'<Element Name="{name}" UniqueID="{number}"><Memory Size="{pixels.nbytes}" '
            f'MemoryBlockID="MemBlock_{number}"/><Data><Image><ImageDescription><Channels>{about}'
            f"</Channels><Dimensions>{sides}</Dimensions></ImageDescription></Image></Data>"
            "<Children/></Element>"
        )
        title = f"MemBlock_{number}".encode("utf-16-le")
        head = struct.pack("<BQBI", 0x2A, pixels.nbytes, 0x2A, len(title) // 2) + title
        blocks += struct.pack("<II", 0x70, len(head)) + head + pixels.tobytes()
    text = (
        '<LMSDataContainerHeader Version="2"><Element Name="lif" UniqueID="lif"><Data>'
        f"<Experiment/></Data><Memory Size='0' MemoryBlockID='none'/><Children>{elements}"
        "</Children></Element></LMSDataContainerHeader>"
    ).encode("utf-16-le")
    head = struct.pack("<BI", 0x2A, len(text) // 2) + text
    path.write_bytes(struct.pack("<II", 0x70, len(head)) + head + blocks)
    return path


def _lv(name, value):
    """An entry of ND2's metadata: a type, a name and a value; a dict is a level of entries."""
    title = f"{name}\0".encode("utf-16-le")
    kinds = {"b": (1, "<B"), "u": (3, "<I"), "e": (2, "<i"), "d": (6, "<d")}
    if isinstance(value, dict):
        inner = b"".join(_lv(key, entry) for key, entry in value.items())
        head = struct.pack("<BB", 11, len(title) // 2) + title
        length = len(head) + 12 + len(inner)
        return head + struct.pack("<IQ", len(value), length) + inner + bytes(8 * len(value))
    if isinstance(value, str):
        return struct.pack("<BB", 8, len(title) // 2) + title + f"{value}\0".encode("utf-16-le")
    number, form = kinds[name[0]]
    return struct.pack("<BB", number, len(title) // 2) + title + struct.pack(form, value)


def nd2(path, pixels):
    """One frame of (channels, h, w), laid out as Nikon's version 3 is."""
    channels, height, width = pixels.shape
    attributes = {
        "uiWidth": width, "uiWidthBytes": width * channels * pixels.itemsize, "uiHeight": height,
        "uiComp": channels, "uiBpcInMemory": 8 * pixels.itemsize,
        "uiBpcSignificant": 8 * pixels.itemsize, "uiSequenceCount": 1, "eCompression": 2,
    }  # fmt: skip
    planes = {
        f"a{n}": {
            "uiCompCount": 1,
            "uiSampleIndex": n,
            "sDescription": f"dye {n}",
            "uiColor": 0,
            "pFluorescentProbe": {"uiColor": 0},
        }
        for n in range(channels)
    }
    metadata = {
        "bCalibrated": 1, "dCalibration": MPP,
        "sPicturePlanes": {"uiCount": channels, "sPlaneNew": planes},
    }  # fmt: skip
    frame = np.ascontiguousarray(pixels.transpose(1, 2, 0)).tobytes()
    chunks = {
        b"ND2 FILE SIGNATURE CHUNK NAME01!": b"Ver3.0".ljust(64, b"\0"),
        b"ImageAttributesLV!": _lv("SLxImageAttributes", attributes),
        b"ImageMetadataSeqLV|0!": _lv("SLxPictureMetadata", metadata),
        b"ImageDataSeq|0!": bytes(8) + frame,
    }
    out, places = b"", b""
    for name, data in chunks.items():
        # Names are filled up, so that a frame begins 4,096 bytes after its chunk, 8 of them a time.
        title = name.ljust(4072, b"\0") if out else name
        places += name + struct.pack("<QQ", len(out), len(data))
        out += struct.pack("<IIQ", 0x0ABECEDA, len(title), len(data)) + title + data
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", len(out))
    name = b"ND2 FILEMAP SIGNATURE NAME 0001!"
    out += struct.pack("<IIQ", 0x0ABECEDA, len(name), len(places) + len(end)) + name + places + end
    path.write_bytes(out)
    return path


CELLS = 23
"""In :data:`PICTURE`."""


def picture():
    """(400, 530, 3): dark discs on glass, none of its mirror images like itself."""
    rng = np.random.default_rng(3)
    pixels = np.full((400, 530, 3), (240, 235, 242), np.uint8)
    rows, columns = np.indices(pixels.shape[:2])
    for number in range(CELLS):
        y, x = 40 + 80 * (number // 6), 40 + 88 * (number % 6)
        y, x = y + rng.integers(-8, 9), x + rng.integers(-8, 9)
        pixels[(rows - y) ** 2 + (columns - x) ** 2 < 12**2] = (90, 40, 110)
    return pixels + rng.integers(0, 6, pixels.shape, dtype=np.uint8)


PICTURE = picture()


def tiff(path, **options):
    tifffile.imwrite(
        path, PICTURE, tile=(128, 128), photometric="rgb", resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER", **options,
    )  # fmt: skip
    return path


def ome_zarr(path, pixels=PICTURE, chunks=(1, 128, 128)):
    """(h, w, channels) in chunks of (channels, y, x)."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", data=np.ascontiguousarray(pixels.transpose(2, 0, 1)), chunks=chunks)
    axes = [{"name": "c"}, *({"name": a, "unit": "micrometer"} for a in "yx")]
    scale = [{"type": "scale", "scale": [1, MPP, MPP]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return path


def wsidicom_pyramid(folder):
    """As wsidicom writes one: a file a level."""
    from wsidicom import WsiDicom

    source = dicom(folder / "source" / "a.dcm", PICTURE)
    with WsiDicom.open(source) as slide:
        (folder / "slide").mkdir()
        slide.save(folder / "slide", add_missing_levels=True)
    return folder / "slide"


Writer = Callable[[Path], Path]
COLOUR: dict[str, Writer] = {
    "tiff": lambda folder: tiff(folder / "a.tif", compression="zlib"),
    "jpeg 2000": lambda folder: tiff(folder / "a.tif", compression="jpeg2000"),
    "jpeg xl": lambda folder: tiff(
        folder / "a.tif", compression="jpegxl", compressionargs={"lossless": True}
    ),
    "ome-zarr": lambda folder: ome_zarr(folder / "a.ome.zarr"),
    "dicom": lambda folder: dicom(folder / "a.dcm", PICTURE),
    "dicom folder": wsidicom_pyramid,
    "czi": lambda folder: czi(folder / "a.czi", PICTURE),
    "trestle": lambda folder: trestle(folder / "a.tif", PICTURE),
    "philips": lambda folder: philips(folder / "a.tiff", PICTURE),
}
GREY = 255 - PICTURE[..., :1].transpose(2, 0, 1)
DYES = np.concatenate([GREY, GREY // 2]).astype(np.uint16) * 100
GREYS: dict[str, Writer] = {
    "tiff": lambda folder: _grey_tiff(folder / "a.ome.tif"),
    "czi": lambda folder: czi(folder / "a.czi", DYES),
    "nd2": lambda folder: nd2(folder / "a.nd2", DYES),
    "lif": lambda folder: lif(folder / "a.lif", {"first": DYES}),
}


def _grey_tiff(path):
    size = {f"PhysicalSize{a}": MPP for a in "XY"}
    tifffile.imwrite(path, DYES, metadata={"axes": "CYX", **size}, photometric="minisblack")
    return path


AXES = [{"name": axis, "unit": "micrometer"} for axis in "yx"]


def plate(path, version=2):
    """Wells A01 (two fields), B03 (the second field missing) and C07 (missing)."""
    group = zarr.open_group(str(path), mode="w", zarr_format=version)

    def said(where, entry):
        one = group.require_group(where) if where else group
        one.attrs.update({"ome": {"version": "0.5", **entry}} if version == 3 else entry)

    said("", {"plate": {"wells": [{"path": p} for p in ("A/01", "B/03", "C/07")]}})
    for well, fields in (("A/01", (0, 1)), ("B/03", (0,))):
        said(well, {"well": {"images": [{"path": "0"}, {"path": "1"}]}})
        for field in fields:
            value = 10 * ord(well[0]) % 256 + field
            group.create_array(f"{well}/{field}/0", data=np.full((20, 30), value, np.uint8))
            said(f"{well}/{field}", {"multiscales": [
                {"version": "0.4", "axes": AXES, "datasets": [{"path": "0"}]}
            ]})  # fmt: skip
    return path
