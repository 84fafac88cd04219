"""Damaged exports: every file is accounted for, nothing hangs, nothing is written outside, nothing large is allocated

`RADINET_DAMAGED=2000 RADINET_SEED=7 pytest tests/test_damage.py` for a large run with a seed of its own; real files
take part where they are at hand."""
import json
import os
import struct
import time
import zipfile
import zlib
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from radinet_nb.data.gray_values import read_dicom
from radinet_nb.data.images import read_picture
from radinet_nb.data.ingest import ingest
from radinet_nb.data.runs import peak_memory
from radinet_nb.errors import InputError
from radinet_nb.synthetic.dicom_files import write_dicom

count, seed = int(os.environ.get('RADINET_DAMAGED', 100)), int(os.environ.get('RADINET_SEED', 0))
real = Path(os.environ.get('RADINET_DATA', Path(__file__).resolve().parents[2]/'shared'/'data'))/'dicom'
ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
harms = ('truncated', 'bits', 'length', 'cut', 'tag', 'tail', 'zip', 'text', 'empty', 'whole')


def patience():
    "Seconds after which a file hangs: those that it may take alone, times the processes that share a core now"
    return 30*max(1, os.getloadavg()[0]/os.cpu_count())


def sources(folder):
    "Bytes of good files: every way of packing that can be written here, and the real ones in a large run"
    ways = dict(plain={}, implicit=dict(syntax=pydicom.uid.ImplicitVRLittleEndian),
                big=dict(syntax=pydicom.uid.ExplicitVRBigEndian),
                deflated=dict(syntax=pydicom.uid.DeflatedExplicitVRLittleEndian),
                rle=dict(compress=pydicom.uid.RLELossless), j2k=dict(compress=pydicom.uid.JPEG2000Lossless))
    made = [write_dicom(folder/f'{k}{i}', ramp, BitsStored=12, HighBit=11, StudyDate='20200301', **v).read_bytes()
            for k,v in ways.items() for i in range(max(1, count//50))]
    return made + [f.read_bytes() for f in sorted(real.glob('RG*.dcm')) if count > 500 and f.stat().st_size < 10**6]


def without_a_tag(data, rng):
    "The file without one of its elements, or as it is where it cannot be parsed and written"
    ds, out = pydicom.dcmread(BytesIO(data), force=True), BytesIO()
    tags = list(ds.keys())
    del ds[tags[rng.integers(len(tags))]]
    ds.save_as(out)
    return out.getvalue()


def damaged(data, harm, rng):
    "The bytes of a file after that harm"
    data, at = bytearray(data), int(rng.integers(132, 900))
    if harm == 'truncated': del data[rng.integers(len(data)):]
    if harm == 'tail': del data[-int(rng.integers(1, 2000)):]
    if harm == 'bits':
        for o in rng.integers(0, len(data), 20): data[o] ^= 1 << rng.integers(8)
    if harm == 'length':
        lengths = [[255, 255, 255, 127], [255, 255, 255, 255], [0, 0, 0, 0], [255, 255, 0, 0]]
        data[at:at+4] = bytes(rng.choice(lengths).tolist())
    if harm == 'cut': del data[at:at+int(rng.integers(1, 60))]
    if harm == 'tag': return without_a_tag(bytes(data), rng)
    if harm == 'text': return b'Jane Roe, MRN0815'*int(rng.integers(1, 50))
    return b'' if harm == 'empty' else bytes(data)


def test_every_damaged_file_is_accounted_for(tmp_path):
    rng, export, out = np.random.default_rng(seed), tmp_path/'export', tmp_path/'out'
    export.mkdir()
    good, kinds = sources(tmp_path/'good'), {}
    for i in range(count):
        harm, file = harms[i % len(harms)], export/f'{i}'
        kinds[file.name] = harm
        data = damaged(good[rng.integers(len(good))], harm, rng)
        if harm == 'zip':
            with zipfile.ZipFile(file, 'w') as z: z.writestr('x.dcm', data)
        else: file.write_bytes(data)
    start = time.perf_counter()
    account = ingest(export, out, tmp_path/'key', pixels=32, jobs=2, timeout=patience())
    took = time.perf_counter()-start
    assert account['seen'] == count == account['converted']+account['quarantined']+account['skipped']
    quarantine = pd.read_csv(out/'quarantine.csv')
    assert not quarantine.reason.str.contains('took longer').any(), 'a file hung'
    assert not quarantine.reason.str.contains('Jane|MRN').any() and quarantine.reason.str.len().max() < 120
    reasons = Counter(quarantine.reason.str.replace(r'\d+', 'N', regex=True))
    summary = dict(files=count, seconds=round(took, 1), account=account, reasons=reasons.most_common(40))
    print(json.dumps(summary, indent=1))
    assert account['converted'] >= count//20 and len(list((out/'images').iterdir())) == account['converted']


@pytest.mark.filterwarnings('ignore:Invalid value')
def test_nothing_is_written_outside(tmp_path):
    export, out, elsewhere = tmp_path/'export', tmp_path/'out', tmp_path/'elsewhere'
    elsewhere.mkdir()
    for i,evil in enumerate(['../../elsewhere/x', '/tmp/x', '..', 'a\\..\\b', '~']):
        write_dicom(export/f'{i}', ramp, PatientID=evil, StudyInstanceUID=evil, SeriesInstanceUID=evil,
                    SOPInstanceUID=evil, ViewPosition=['PA', 'LL'][i % 2])
    (export/'folder').symlink_to(elsewhere); (export/'loop').symlink_to(export)
    account = ingest(export, out, tmp_path/'key', pixels=32, jobs=1)
    assert account['converted'] == 5 and account['quarantined'] == 2 and not list(elsewhere.iterdir())
    assert {f.parent for f in out.rglob('*') if f.is_file()} <= {out, out/'images', out/'cases'}
    for name in 'images', 'cases', 'journal.jsonl', 'studies.parquet':
        trap = tmp_path/f'trap {name}'
        trap.mkdir(); (trap/'options.json').write_text('{}'); (trap/name).symlink_to(elsewhere/name)
        with pytest.raises(InputError, match='is a link, or holds one'):
            ingest(export, trap, tmp_path/'key', pixels=32, jobs=1)
    # a link in the place of an image is replaced, not followed
    image = next((out/'images').iterdir())
    image.unlink(); image.symlink_to(elsewhere/'x.png')
    ingest(export, out, tmp_path/'key', pixels=32, jobs=1)
    assert not image.is_symlink() and not list(elsewhere.iterdir())


def huge_png(path, side):
    "A PNG that claims side x side pixels and holds none"
    def chunk(kind, data): return struct.pack('>I', len(data))+kind+data+struct.pack('>I', zlib.crc32(kind+data))
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0))
    path.write_bytes(b'\x89PNG\r\n\x1a\n'+head+chunk(b'IDAT', b'')+chunk(b'IEND', b''))
    return path


def test_a_claim_of_ten_thousand_million_pixels_takes_no_memory(tmp_path):
    side = 100_000
    packed = write_dicom(tmp_path/'j2k', ramp, BitsStored=12, HighBit=11, compress=pydicom.uid.JPEG2000Lossless)
    data, before = bytearray(packed.read_bytes()), peak_memory()
    at = data.find(b'\xff\x4f\xff\x51')+8
    data[at:at+8] = struct.pack('>II', side, side)
    packed.write_bytes(data)
    told = 'states 64 x 64 pixels, but more than 65535 x more than 65535 x 1 inside'
    with pytest.raises(InputError, match=told): read_dicom(packed)
    # Rows and Columns hold 16 bits: no header can claim more
    with pytest.raises(InputError, match='claims 65535 x 65535 pixels'):
        read_dicom(write_dicom(tmp_path/'rows', ramp, Rows=65535, Columns=65535))
    with pytest.raises(InputError, match='claims more pixels than any radiograph has'):
        read_picture(huge_png(tmp_path/'x.png', side))
    with pytest.raises(InputError, match='claims 9000 x 9000 pixels'): read_picture(huge_png(tmp_path/'y.png', 9000))
    assert peak_memory()-before < 60
