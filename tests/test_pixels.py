"""From stored values to gray: windows, tables, padding and bits that are written wrong, against values worked out here

The references are written out value by value, or are pydicom's where pydicom is right."""
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from radinet_nb.data.dicom import read_dataset
from radinet_nb.data.gray_values import image_with_remarks, packed_bits, read_dicom, stored_pixels
from radinet_nb.errors import InputError
from radinet_nb.synthetic.dicom_files import write_dicom

real = Path(os.environ.get('RADINET_DATA', Path(__file__).resolve().parents[2]/'shared'/'data'))/'dicom'
ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
full = (ramp/4095*255+.5).astype(np.uint8)
twelve = dict(BitsStored=12, HighBit=11)


def item(count, first, bits, data, vr='US', data_vr='OW'):
    "One look-up table, with its descriptor and its entries in the representation that is named"
    table = Dataset()
    table.add_new('LUTDescriptor', vr, [count, first, bits])
    data = np.asarray(data)
    table.add_new('LUTData', data_vr, data.astype('<u2').tobytes() if data_vr == 'OW' else data.tolist())
    return table


def image(folder, px=ramp, **tags):
    "The picture of these pixels and tags, and what was left out to get it"
    luts = {k: Sequence([tags.pop(k)]) for k in list(tags) if k.endswith('LUTSequence')}
    ds = read_dataset(write_dicom(folder/'x', px, **tags))
    for k,v in luts.items(): setattr(ds, k, v)
    ds.save_as(folder/'x')
    return image_with_remarks(read_dataset(folder/'x'))


no_picture = dict(
    window_of_width_one=dict(WindowCenter='0', WindowWidth='1'),
    window_above=dict(WindowCenter='40000', WindowWidth='100'), window_below=dict(WindowCenter='-9', WindowWidth='8'),
    exact_window_above=dict(WindowCenter='9000', WindowWidth='100', VOILUTFunction='LINEAR_EXACT'),
    sigmoid_above=dict(WindowCenter='90000', WindowWidth='100', VOILUTFunction='SIGMOID'),
    sigmoid_without_width=dict(WindowCenter='2048', WindowWidth='0', VOILUTFunction='SIGMOID'),
    black_and_white=dict(WindowCenter='2048', WindowWidth='1'), no_width=dict(WindowCenter='2048', WindowWidth='0'),
    negative_width=dict(WindowCenter='2048', WindowWidth='-4096'),
    window_of_sixteen_bits=dict(WindowCenter='32768', WindowWidth='65536'),
    slope_zero=dict(RescaleSlope='0', RescaleIntercept='0'),
    slope_zero_and_window=dict(RescaleSlope='0', RescaleIntercept='9', WindowCenter='9', WindowWidth='2'),
    flat_modality_table=dict(ModalityLUTSequence=item(4096, 0, 12, np.full(4096, 7))),
    flat_voi_table=dict(VOILUTSequence=item(4096, 0, 12, np.full(4096, 7))),
    padding_everything=dict(PixelPaddingValue=0, PixelPaddingRangeLimit=4095),
    padding_nearly_everything=dict(PixelPaddingValue=0, PixelPaddingRangeLimit=4000))


@pytest.mark.parametrize('name', no_picture)
def test_pixels_that_vary_give_a_picture_that_varies_and_it_is_said(name, tmp_path):
    for inverse in False, True:
        img, remarks = image(tmp_path, **no_picture[name], PhotometricInterpretation=f'MONOCHROME{2-inverse}', **twelve)
        assert np.abs(img.astype(int)-(255-full if inverse else full)).max() <= 1
        assert remarks and 'left out' in remarks[0]


def test_stray_pixels_do_not_darken_the_others(tmp_path):
    for stray,at in (65535, 9), (0, 9), (65535, slice(0, 8)):
        px = ramp+(50000 if stray == 0 else 0)
        px.flat[at] = stray
        img, remarks = image(tmp_path, px.astype(np.uint16))
        others = np.delete(img.ravel(), np.r_[at])
        assert np.percentile(others, 1) < 16 and np.percentile(others, 99) > 239 and 'stray' in remarks[0]
    # a small bright object on a plain ground is no stray pixel, and a mask is no lack of contrast
    ground = np.full((64, 64), 100, np.uint16); ground[:3, :3] = 60000
    assert image(tmp_path, ground)[1] == [] and set(np.unique(image(tmp_path, ground)[0])) == {0, 255}
    # a faint picture inside its window stays as the window has it
    faint, remarks = image(tmp_path, ramp//64+400, WindowCenter='2048', WindowWidth='4096')
    assert remarks == [] and 24 <= faint.min() <= faint.max() <= 30


def test_a_window_narrower_than_one_counts_fractions(tmp_path):
    img, remarks = image(tmp_path, RescaleSlope='0.0001', RescaleIntercept='0', WindowCenter='0.2048',
                         WindowWidth='0.4095', **twelve)
    reference = np.clip((ramp*.0001-.2048)/.4095+.5, 0, 1)*255
    assert np.abs(img-reference).max() <= .51 and not remarks


def looked_up(value, first, entries):
    "One value through a table, by the standard: below the first value the first entry, beyond the table the last"
    return entries[min(max(value-first, 0), len(entries)-1)]


@pytest.mark.parametrize('vr', ['US', 'SS'])
def test_the_sign_of_the_first_mapped_value_is_that_of_the_image(vr, tmp_path):
    curve = [round((i/4095)**2*4095) for i in range(4096)]
    for px,intercept,first in ((ramp, -1024, -1024), (ramp, 0, 0), (ramp.astype(np.int16)-2048, 0, -2048),
                               (ramp+60000, 0, 60000), (ramp, 30000, 30000), (ramp, -4096, -4096)):
        written = (first+32768) % 65536-32768 if vr == 'SS' else first % 65536
        img, _ = image(tmp_path, px.astype(px.dtype if px.dtype == np.int16 else np.uint16), RescaleSlope='1',
                       RescaleIntercept=str(intercept), VOILUTSequence=item(4096, written, 12, curve, vr))
        values = px.astype(int)+intercept
        reference = np.vectorize(lambda v, first=first: looked_up(v, first, curve))(values)
        assert (img == (reference/4095*255+.5).astype(np.uint8)).all(), (vr, intercept, first)


def test_entries_and_counts_that_were_written_with_a_sign_are_read_without(tmp_path):
    entries = np.linspace(0, 65535, 4096).round().astype(int)
    for tags in (dict(VOILUTSequence=item(4096, 0, 16, entries.astype(np.uint16).astype(np.int16), data_vr='SS')),
                 dict(ModalityLUTSequence=item(4096, 0, 16, entries.astype(np.uint16).astype(np.int16), data_vr='SS'))):
        assert np.abs(image(tmp_path, **tags, **twelve)[0].astype(int)-full).max() <= 1
    many = item(40000-65536, 0, 16, np.linspace(0, 65535, 40000), vr='SS')
    ds = read_dataset(write_dicom(tmp_path/'x', np.linspace(0, 39999, 4096).astype(np.uint16).reshape(64, 64)))
    ds.VOILUTSequence = Sequence([many])
    assert np.abs(image_with_remarks(ds)[0].astype(int)-full).max() <= 1


def test_tables_with_other_bits_than_they_state(tmp_path):
    for stated,top in (16, 4095), (16, 1023), (12, 4095), (8, 4095), (10, 65535), (16, 255):
        curve = np.linspace(0, top, 4096).round().astype(int)
        img, remarks = image(tmp_path, VOILUTSequence=item(4096, 0, stated, curve), **twelve)
        assert np.abs(img.astype(int)-(curve/top*255+.5).astype(np.uint8).reshape(64, 64)).max() == 0
        assert bool(remarks) == (top != 2**stated-1)


def test_empty_and_torn_tables_leave_the_window(tmp_path):
    empty, window = Dataset(), dict(WindowCenter='2048', WindowWidth='4096')
    empty.add_new('LUTDescriptor', 'US', None); empty.add_new('LUTData', 'OW', None)
    short = item(4096, 0, 16, np.arange(64)); deep = item(4096, 0, 17, np.arange(4096))
    for table in empty, Dataset(), short, deep:
        img, remarks = image(tmp_path, VOILUTSequence=table, **window, **twelve)
        assert (img == full).all() and 'VOI look-up table is left out' in remarks[0]
    for key in 'VOILUTSequence', 'ModalityLUTSequence':
        ds = read_dataset(write_dicom(tmp_path/'x', ramp, **window, **twelve))
        setattr(ds, key, Sequence([]))
        img, remarks = image_with_remarks(ds)
        assert (img == full).all() and 'look-up table is left out' in remarks[0]
    with pytest.raises(InputError, match='64 entries and states 4096'): image(tmp_path, ModalityLUTSequence=short)


@pytest.mark.filterwarnings('ignore:Invalid value')
@pytest.mark.parametrize('stated', [' monochrome1', 'Monochrome1', 'MONOCHROME1 ', 'MONOCHROME 1'])
def test_photometric_interpretation_in_other_spellings(stated, tmp_path):
    assert (image(tmp_path, PhotometricInterpretation=stated, **twelve)[0] == 255-full).all()


@pytest.mark.parametrize('syntax', [None, pydicom.uid.RLELossless, pydicom.uid.JPEG2000Lossless])
def test_bits_outside_the_value_are_no_part_of_it(syntax, tmp_path):
    rng = np.random.default_rng(0)
    for high,signed in (11, False), (15, False), (13, False), (11, True):
        over = rng.integers(0, 65536, ramp.shape).astype(np.uint16)
        mask = 0x0FFF << high-11
        px = (over & ~np.uint16(mask)) | (ramp << high-11)
        ds = read_dataset(write_dicom(tmp_path/'x', px.astype(np.uint16), BitsStored=16, HighBit=15, compress=syntax))
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, high, int(signed)
        ds.save_as(tmp_path/'x')
        values = np.where(ramp > 2047, ramp.astype(int)-4096, ramp) if signed else ramp
        assert (stored_pixels(read_dataset(tmp_path/'x')) == values).all()
        lowest = values.min()
        assert (read_dicom(tmp_path/'x') == ((values-lowest)/4095*255+.5).astype(np.uint8)).all()


def test_bits_above_the_value_in_real_jpeg_ls_and_lossless_jpeg():
    if not real.is_dir(): pytest.skip(f'no real DICOM files at {real}: set RADINET_DATA')
    for name in 'RG2_JLSL', 'RG2_JPLL', 'RG3_J2KR':
        ds = read_dataset(real/f'{name}.dcm')
        before = stored_pixels(ds, packed_bits(ds)).copy()
        assert packed_bits(ds) >= 10 and before.max() >= 512
        ds.BitsStored, ds.HighBit = 9, 8
        assert (stored_pixels(ds, packed_bits(ds)) == before % 512).all()


def predicted(px, selection, bits):
    "What the predictors of lossless JPEG (ITU-T T.81, table H.1) say of each pixel"
    left, above, both = (np.zeros_like(px) for _ in range(3))
    left[:, 1:], above[1:], both[1:, 1:] = px[:, :-1], px[:-1], px[:-1, :-1]
    out = [left, above, both, left+above-both, left+((above-both) >> 1), above+((left-both) >> 1), (left+above) >> 1]
    out = out[selection-1]
    out[0], out[1:, 0], out[0, 0] = left[0], above[1:, 0], 1 << bits-1
    return out


def lossless_jpeg(px, selection, bits):
    "A lossless JPEG of gray values, written here: 17 codes of five bits, one for each length of a difference"
    px, text = px.astype(int), []
    for d in ((px-predicted(px, selection, bits)+32767) % 65536-32767).ravel().tolist():
        size = abs(d).bit_length()
        text.append(f'{size:05b}'+(f'{d if d > 0 else d+(1 << size)-1:0{size}b}' if 0 < size < 16 else ''))
    text = ''.join(text); text += '1'*(-len(text) % 8)
    data = bytes(int(text[i:i+8], 2) for i in range(0, len(text), 8)).replace(b'\xff', b'\xff\0')
    part = lambda mark, body: bytes([0xFF, mark])+(len(body)+2).to_bytes(2, 'big')+body
    frame = bytes([bits])+b''.join(n.to_bytes(2, 'big') for n in px.shape)+b'\x01\x01\x11\0'
    table = bytes([0]+[0]*4+[17]+[0]*11+list(range(17)))
    scan = bytes([1, 1, 0, selection, 0, 0])
    return b'\xff\xd8'+part(0xC3, frame)+part(0xC4, table)+part(0xDA, scan)+data+b'\xff\xd9'


def encapsulated(path, px, frame, syntax, **tags):
    "A file whose pixels are a frame that was encoded here"
    ds = read_dataset(write_dicom(path, px, **tags))
    ds.file_meta.TransferSyntaxUID, ds.PixelData = syntax, pydicom.encaps.encapsulate([frame])
    ds['PixelData'].is_undefined_length, ds['PixelData'].VR = True, 'OB'
    ds.save_as(path)
    return read_dataset(path)


@pytest.mark.parametrize('syntax,selection', [(pydicom.uid.JPEGLosslessSV1, 1)]+[(pydicom.uid.JPEGLossless, o)
                                                                               for o in range(1, 8)])
def test_lossless_jpeg_comes_back_value_by_value(syntax, selection, tmp_path):
    noise = np.random.default_rng(selection).integers(0, 9, ramp.shape)
    for bits in 8, 10, 12, 16:
        px = (ramp.T >> 12-min(bits, 12) << max(bits-12, 0))+noise
        px = np.clip(px, 0, (1 << bits)-1).astype(np.uint16 if bits > 8 else np.uint8)
        tags = dict(BitsStored=bits, HighBit=bits-1)
        ds = encapsulated(tmp_path/'x', px, lossless_jpeg(px, selection, bits), syntax, **tags)
        assert (stored_pixels(ds, packed_bits(ds)) == px).all(), bits
    # signed values of 12 bits: as 12 bits, and as words of 16; and words whose upper four bits are no part of the value
    signed = ramp.astype(np.int16)-2048
    for bits,packed in (12, signed & 0x0FFF), (16, signed.astype(np.uint16)), (16, signed & 0x0FFF | 0x5000):
        frame = lossless_jpeg(packed.astype(np.uint16), selection, bits)
        ds = encapsulated(tmp_path/'x', signed, frame, syntax, **twelve)
        assert (stored_pixels(ds, packed_bits(ds)) == signed).all(), bits


def test_a_cut_or_malformed_jpeg_is_refused(tmp_path):
    frame = lossless_jpeg(ramp, 1, 12)
    strange = frame.replace(bytes([1, 1, 0, 1, 0, 0]), bytes([1, 1, 0, 9, 0, 0]))
    for broken in frame[:len(frame)//2], strange, frame[:100], frame[:30]:
        ds = encapsulated(tmp_path/'x', ramp, broken, pydicom.uid.JPEGLosslessSV1, **twelve)
        with pytest.raises(InputError, match='cannot be decoded'): image_with_remarks(ds)


def test_twelve_bit_jpeg_is_what_the_lossless_film_is():
    if not real.is_dir(): pytest.skip(f'no real DICOM files at {real}: set RADINET_DATA')
    lossy, film = (stored_pixels(read_dataset(real/f'RG2_{o}.dcm')) for o in ('JPLY_fixed', 'JPLL'))
    assert np.abs(lossy.astype(int)-film).mean() < 5 # of 1,024; libjpeg's values lie within 1 of these


@pytest.mark.parametrize('module,syntax', [('gdcm', pydicom.uid.JPEGLosslessSV1),
                                           ('jpeg_ls', pydicom.uid.JPEGLSLossless),
                                           ('openjpeg', pydicom.uid.JPEG2000Lossless)])
def test_a_missing_decoder_is_named(module, syntax, tmp_path, monkeypatch):
    from pydicom.pixels.decoders import base

    from radinet_nb.data import decoders
    if module == 'gdcm': ds = encapsulated(tmp_path/'x', ramp, lossless_jpeg(ramp, 1, 12), syntax, **twelve)
    else: ds = read_dataset(write_dicom(tmp_path/'x', ramp, compress=syntax, **twelve))
    monkeypatch.setattr(decoders, 'is_installed', lambda name: name != module)
    monkeypatch.setattr(base._PIXEL_DATA_DECODERS[syntax][0], '_available', {})
    package = decoders.decoder_of(syntax, 12).package
    with pytest.raises(InputError, match=f'no decoder for it is installed; pip install {package}$'):
        image_with_remarks(ds)


@pytest.mark.parametrize('window', [-1, -2, 2, 99])
def test_a_window_that_is_not_there_is_refused(window, tmp_path):
    px = np.tile(np.arange(64, dtype=np.uint16)*60, (64, 1))
    write_dicom(tmp_path/'a.dcm', px, WindowCenter=[2000, 1000], WindowWidth=[4000, 2000])
    with pytest.raises(InputError, match='has no window'): read_dicom(tmp_path/'a.dcm', window)


def raw(tag, text): return RawDataElement(Tag(tag), 'DS', len(text), text, 0, False, True)


@pytest.mark.parametrize(('elements', 'told'), [
    ({0x00281050: b'2048,0', 0x00281051: b'4096,0'}, ''), ({0x00281050: b'auto', 0x00281051: b'auto'}, 'window'),
    ({0x00281050: b'\\2048 ', 0x00281051: b'\\4096 '}, 'window'), ({0x00281050: b'NaN ', 0x00281051: b'1 '}, 'window'),
    ({0x00281053: b'1,0 ', 0x00281052: b'0,0 '}, ''), ({0x00281053: b'one ', 0x00281052: b'0 '}, 'rescale'),
    ({0x00281053: b'1\\1 ', 0x00281052: b'0 '}, ''), ({0x00280030: b'0,1\\0,1 '}, ''), ({0x00280030: b'x\\y '}, ''),
    ({0x00280002: None, 0x00280103: None}, '')])
def test_a_number_of_the_header_that_is_none_loses_no_image(elements, told, tmp_path):
    ds = read_dataset(write_dicom(tmp_path/'x', ramp, **twelve))
    for tag, text in elements.items():
        if text is None: del ds[tag]
        else: ds[Tag(tag)] = raw(tag, text)
    img, remarks = image_with_remarks(ds)
    assert np.abs(img.astype(int)-full).max() <= 1
    assert bool(remarks) == bool(told) and told in ' '.join(remarks)
