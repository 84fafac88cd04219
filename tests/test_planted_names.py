"""Names in every tag of damaged files: every file is accounted for, and no name gets out, whatever the damage

`RADINET_DAMAGED=2000 RADINET_SEED=7 pytest tests/test_planted_names.py` for a large run with a seed of its own."""
import contextlib
import json
import os
import re
import unicodedata
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.sequence import Sequence
from test_damage import count, patience, seed, sources

from radinet_nb.data.convert import header_names
from radinet_nb.data.disk import files_below
from radinet_nb.data.gray_values import read_dicom
from radinet_nb.data.hospital import read_hospital
from radinet_nb.data.identity import read_key
from radinet_nb.data.ingest import ingest
from radinet_nb.data.journal import file_code
from radinet_nb.errors import InputError

name, accented, japanese = 'Zwyrtek^Quandoro', 'Zwÿrßek^Quåndøro', 'Yamada^Tarou=茂吉^龍之介'
ident, day = 'MRN7319', '19310727'
secrets = ('Zwyrtek', 'Quandoro', ident, day, '1931-07-27', 'Zwÿrßek', 'Quåndøro', '茂吉', '龍之介')
written = [o.encode(code) for o in secrets for code in ('utf-8', 'utf-16-le', 'latin-1', 'iso2022_jp', 'unicode-escape')
           if code in ('utf-8', 'unicode-escape') or o.isascii() == (code == 'utf-16-le') and
           (code != 'latin-1' or o.isascii() or max(o) < 'Ā') and (code != 'iso2022_jp' or max(o) > 'Ā')]
texts = dict(PN=name, LO=name, SH=ident, ST=name, LT=name, UT=name, UC=name, UR=f'file:{name}', AE=ident, CS=ident,
             AS=ident, DA=day, DT=day, TM=ident, UI='1.2.'+day, IS=day, DS=day, UN=name.encode(), OB=name.encode(),
             OW=name.encode()+b' ', SL=int(day), UL=int(day), SV=int(day), UV=int(day), FL=float(day), FD=float(day))
# tags without which a file is nobody's radiograph: names stand there in a share of the files only
needed = set(map(pydicom.tag.Tag, '''Modality SOPClassUID SOPInstanceUID StudyInstanceUID Rows Columns NumberOfFrames
    PhotometricInterpretation ImageType RescaleSlope RescaleIntercept WindowCenter WindowWidth PixelAspectRatio
    PixelSpacing ImagerPixelSpacing SpecificCharacterSet'''.split()))
every = [t for t,o in DicomDictionary.items() if o[0].split()[0] in texts and t >> 16 not in (0, 2, 4, 0xFFFE)
         and t != 0x7FE00010]
sequences = [t for t,o in DicomDictionary.items() if o[0] == 'SQ' and t >> 16 not in (0, 4)]


def add(ds, tag, vr, value):
    "Put a value into a tag, where pydicom itself can hold it"
    with contextlib.suppress(Exception): ds.add_new(tag, vr, value)


def plant(ds, rng):
    "Names in many tags of every representation, nested, private, in overlays, and in the file's own header"
    person = [name, name, accented, japanese][rng.integers(4)]
    told = texts | dict.fromkeys(('PN', 'LO', 'LT', 'UT'), person)
    told |= dict(ST=f'"{person}",\n=cmd|{ident}', UC=f'{person}\\{ident}')
    for tag in rng.choice(every, 80, replace=False):
        if tag in needed and rng.random() > .05: continue
        vr = dictionary_VR(int(tag)).split()[0]
        add(ds, int(tag), vr, told[vr])
    inner = pydicom.Dataset()
    inner.PatientName, inner.PatientComments, inner.PatientID = person, f'{name} {ident}', ident
    for tag in rng.choice(sequences, 8, replace=False): add(ds, int(tag), 'SQ', Sequence([inner]))
    block = ds.private_block(0x0019, name, create=True)
    for i,(vr, value) in enumerate(told.items()): block.add_new(i+1, vr, value)
    for tag,vr,value in ((0x60000022, 'LO', person), (0x60001500, 'LO', person), (0x60003000, 'OW', name.encode()),
                         (0x50000022, 'LO', person), (0x00283003, 'LO', person), (0x00281055, 'LO', person),
                         (0xFFFCFFFC, 'OB', name.encode()*9)): add(ds, tag, vr, value)
    ds.SpecificCharacterSet = 'ISO_IR 192'
    ds.PatientName, ds.PatientID, ds.StudyID, ds.AccessionNumber = person, ident, ident, ident
    for key,value in dict(SourceApplicationEntityTitle=ident, ImplementationVersionName='Zwyrtek', PrivateInformation=
                          name.encode(), PrivateInformationCreatorUID='1.2.'+day).items():
        with contextlib.suppress(Exception): setattr(ds.file_meta, key, value)
    return ds


def in_bytes(harm):
    "A harm as a function of the bytes of a file, the place of its pixels in them, and chance"
    return byte_harms.setdefault(harm.__name__, harm)


def in_tags(harm):
    "A harm as a function of a data set and chance"
    return tag_harms.setdefault(harm.__name__, harm)


byte_harms, tag_harms, odd_numbers = {}, {}, [0, 1, 7, 12, 16, 63, 65, 65535]
odd_texts = ['', ' ', name, day, '1e400', '-1', 'nan', '0', '1\\2\\3', 'ZWYRTEK', '\0', '\x1b$B\x1b(B', '9'*200,
             ident*40]
syntaxes = [o for o in pydicom.uid.UID_dictionary if pydicom.uid.UID(o).is_transfer_syntax] + ['1.2.3', '1.2.'+day, '']


@in_bytes
def header(data, at, rng):
    for o in rng.integers(132, max(at, 200), 30): data[o] = rng.integers(256)


@in_bytes
def pixels(data, at, rng):
    for o in rng.integers(at, len(data), 200): data[o] = rng.integers(256)
    del data[len(data)-int(rng.choice([0, 1, 2, 999])):]


@in_bytes
def vr(data, at, rng): # representations that do not fit, or that nobody knows
    places = [o.start() for o in re.finditer(rb'(?:LO|PN|SH|UI|CS|DA|US|SQ|UN)(?=..)', bytes(data[:at]), re.S)]
    other = b'ZZ', b'pn', b'OW', b'SQ', b'AT', b'FD', b'UN'
    for o in rng.choice(places or [140], 3): data[o:o+2] = other[rng.integers(7)]


@in_bytes
def nested(data, at, rng): # sequences in sequences, closed or never closed; a name lies in the innermost
    depth, person = int(rng.choice([3, 60, 900, 20_000])), b'\x10\0\x10\0PN\x10\0'+name.encode()
    start = b'\x08\0\x10\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff'
    stop = b'\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0'
    o = data.find(b'\x10\0\x10\0PN')
    if o > 0: data[o:o] = start*depth+person+stop*int(rng.choice([depth, depth-1]))


@in_bytes
def lengths(data, at, rng):
    places = [o.end() for o in re.finditer(rb'(?:LO|PN|SH|UI|CS|DA|US)(?=..)', bytes(data[:at]), re.S)]
    for o in rng.choice(places or [140], 2): data[o:o+2] = [b'\xff\xff', b'\0\0', b'\1\0', b'\0\x40'][rng.integers(4)]


@in_bytes
def delimiters(data, at, rng): # sequences that never end, or end twice
    for mark in b'\xfe\xff\xdd\xe0', b'\xfe\xff\x0d\xe0', b'\xfe\xff\x00\xe0':
        o = data.find(mark, int(rng.integers(132, max(at, 200))))
        if o > 0: data[o:o+8] = [b'', bytes(data[o:o+8])*2, b'\xfe\xff\x00\xe0\xff\xff\xff\xff'][rng.integers(3)]


@in_bytes
def fragments(data, at, rng): # of a compressed file
    o = data.find(b'\xfe\xff\x00\xe0', at)
    for _ in range(3):
        if o > 0: data[o+4:o+8] = [b'\0\0\0\0', b'\xff\xff\xff\xff', b'\1\0\0\0', b'\xff\xff\0\0'][rng.integers(4)]
        o = data.find(b'\xfe\xff\x00\xe0', o+4)


@in_bytes
def markers(data, at, rng): # of a codestream
    places = [o.start() for o in re.finditer(rb'\xff[\xc0-\xff\x4f-\x93]', bytes(data[at:]))]
    for o in rng.choice(places or [0], 4): data[at+o+1:at+o+6] = rng.bytes(int(rng.integers(1, 6)))


@in_bytes
def cut(data, at, rng): del data[int(rng.integers(132, len(data))):]


@in_bytes
def without_start(data, at, rng): del data[:[128, 132, 144, int(rng.integers(1, 400))][rng.integers(4)]]


@in_bytes
def repeated(data, at, rng):
    o = data.find(b'\x10\x00\x10\x00PN')
    data[o:o] = data[o:o+24]


@in_bytes
def doubled(data, at, rng): data += data[int(rng.choice([0, 132])):]


@in_bytes
def glued(data, at, rng): data[int(rng.integers(200, len(data))):] = data[:400]


@in_bytes
def in_other_letters(data, at, rng): # the same name in bytes that the character set does not hold
    code = ['latin-1', 'cp1252', 'utf-16', 'iso2022_jp', 'shift_jis', 'euc_kr'][rng.integers(6)]
    for o in (accented, japanese):
        new, old = o.encode(code, 'ignore'), o.encode()
        data[:] = bytes(data).replace(old, new[:len(old)].ljust(len(old)))


@in_tags
def whole(ds, rng): pass


@in_tags
def swapped(ds, rng): # numbers of the image that do not fit it
    keys = ['Rows', 'Columns', 'BitsStored', 'HighBit', 'PixelRepresentation', 'BitsAllocated', 'SamplesPerPixel']
    for key in rng.choice(keys, 2): setattr(ds, key, int(rng.choice(odd_numbers)))


@in_tags
def windowed(ds, rng): # numbers that are texts, in the tags that make the gray values
    tags = ['WindowCenter', 'WindowWidth', 'RescaleSlope', 'RescaleIntercept', 'PixelSpacing', 'NumberOfFrames',
            'PixelAspectRatio', 'SmallestImagePixelValue', 'PixelPaddingValue', 'ImagerPixelSpacing']
    for key in rng.choice(tags, 4): add(ds, pydicom.tag.Tag(key), 'UT', odd_texts[rng.integers(len(odd_texts))])


@in_tags
def described(ds, rng): # names in all that is read for the study table
    tags = ['Modality', 'ViewPosition', 'BodyPartExamined', 'PatientSex', 'PatientAge', 'Laterality', 'ImageLaterality',
            'StudyDate', 'PatientBirthDate', 'SeriesDescription', 'StudyDescription', 'SeriesNumber', 'InstanceNumber',
            'PhotometricInterpretation', 'ImageType', 'BurnedInAnnotation', 'PresentationLUTShape', 'VOILUTFunction',
            'SyntheticData', 'SOPClassUID', 'SpecificCharacterSet']
    for key in rng.choice(tags, 5, replace=False):
        add(ds, pydicom.tag.Tag(key), 'LO', odd_texts[rng.integers(len(odd_texts))])


@in_tags
def nobody(ds, rng):
    for key in rng.choice(['PatientID', 'StudyInstanceUID', 'SOPInstanceUID', 'SeriesInstanceUID'], 2):
        setattr(ds, key, [None, '', [ident, name], ident+'\0', f' {ident}\n'][rng.integers(5)])


@in_tags
def tables(ds, rng): # look-up tables of letters
    inner = pydicom.Dataset()
    add(inner, 0x00283002, 'US', [[256, 0, 8], [0, 0, 16], [65535, 65535, 99], [1], []][rng.integers(5)])
    entries = [name.encode()*16, [1, 2], b'', name][rng.integers(4)]
    add(inner, 0x00283006, str(rng.choice(['OW', 'US', 'UN', 'LO'])), entries)
    inner.LUTExplanation = name
    add(ds, int(rng.choice([0x00283000, 0x00283010])), 'SQ', Sequence([inner]*int(rng.integers(3))))


@in_tags
def syntax(ds, rng): ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntaxes[rng.integers(len(syntaxes))])


@in_tags
def emptied(ds, rng):
    tags = [o.tag for o in ds if o.tag != 0x7FE00010]
    for o in rng.choice(len(tags), 20): ds[tags[o]].value = None


@in_tags
def lost(ds, rng):
    tags = [o.tag for o in ds]
    for o in rng.choice(len(tags), 5, replace=False): del ds[tags[o]]


@in_tags
def retyped(ds, rng):
    tags = [o.tag for o in ds if o.tag.group != 2 and o.tag != 0x7FE00010]
    for o in rng.choice(len(tags), 5):
        add(ds, tags[o], str(rng.choice(['UN', 'LO', 'PN', 'UT', 'OB', 'SQ'])), name.encode())


@in_tags
def long(ds, rng): ds.PatientComments, ds.OtherPatientNames = f'{name} {ident} '*20_000, [name]*2_000


@in_tags
def lettered(ds, rng): # pixels that are letters
    if ds.file_meta.TransferSyntaxUID.is_compressed: return
    ds.PixelData = (name.encode()*4000)[:len(ds.PixelData)+int(rng.integers(-9, 9))]


@in_tags
def other_pixels(ds, rng):
    data = ds.PixelData
    del ds.PixelData
    add(ds, *[(0x7FE00008, 'OF', data), (0x7FE00009, 'OD', data), (0x7FE00010, 'OB', b''), (0x7FE00001, 'OV', data),
              (0x7FE00010, 'OB', data[:-1])][rng.integers(5)])


harms = [*byte_harms, *tag_harms]


def damaged(ds, harm, rng):
    "The bytes of a file after a harm; whole where pydicom cannot write the damage"
    plain, out = BytesIO(), BytesIO()
    ds.save_as(plain)
    data = bytearray(plain.getvalue())
    try:
        if harm in byte_harms: byte_harms[harm](data, max(data.rfind(b'\xe0\x7f\x10\x00')+12, 132), rng)
        else:
            tag_harms[harm](ds, rng)
            ds.save_as(out)
            data = out.getvalue()
    except Exception: return plain.getvalue()
    return bytes(data)


def file_name(i, rng):
    "A name of a file as bytes: a person's, in spellings that trouble those who list files"
    odd = [f'Quandoro_{i}.dcm', f'Zwyrtek, "Q" {i}', f' {ident}\n{i} ', f'=cmd|{ident} {i}.csv', f'{accented} {i}',
           unicodedata.normalize('NFD', f'{accented} {i}'), f'茂吉 {i}', f'{name}'*12+f'{i}.PART', f'.{name}.{i}.part',
           f'{ident};{i}|x.png', f'-{ident} {i}']
    one = odd[rng.integers(len(odd))]
    return one.encode('latin-1', 'ignore')+b'\xe9' if rng.random() < .1 else one.encode()


def names_in_folder(out, extra=''):
    "The identifiers that stand in any file or file name below a folder, or in the text beside it"
    found = {o for o in written if o in extra.encode('utf-8', 'surrogateescape')}
    for f in out.rglob('*'):
        data = os.fsencode(f.relative_to(out))
        if f.suffix == '.parquet':
            data += pd.read_parquet(f).drop(columns=['path', 'report'], errors='ignore').to_csv().encode()
        if f.is_file(): data += f.read_bytes() if f.suffix != '.png' else b''
        # chance can write eight digits into a pseudonym and into the time of a file's change
        data = re.sub(rb'[0-9a-f]{16}(-[0-9a-f]{8})*|"stamp": \[\d+, \d+', b'', data)
        found |= {o for o in written if o in data}
    return found


def names_in_reports(studies, header):
    "The names that a report still holds, though the header of a file of its patient knows them, also in another study"
    found, known = set(), {}
    for row in studies.itertuples(): known.setdefault(row.patient, []).extend(header(row.path))
    for row in studies[studies.report.notna()].itertuples():
        left = [o for o in secrets if o in row.report]
        told = ' '.join(known[row.patient]) if left else ''
        found |= {o for o in left if o in told}
    return found


def planted_export(export, good, rng):
    "Write damaged files full of names, their reports and labels"
    for i in range(count):
        folder = export/f'MRN7319_{i % 7}'/['', 'Zwyrtek', '茂吉'][i % 3]
        folder.mkdir(exist_ok=True, parents=True)
        ds = plant(pydicom.dcmread(BytesIO(good[rng.integers(len(good))])), rng)
        ds.SOPInstanceUID, ds.StudyInstanceUID = f'1.2.{i}', f'1.3.{i}'
        with open(os.path.join(os.fsencode(folder), file_name(i, rng)), 'wb') as f:
            f.write(damaged(ds, harms[i % len(harms)], rng))
    told = (f'1.3.{i},"Zwyrtek, Quandoro, MRN7319, seen: no fracture."\n' for i in range(count))
    (export/'reports.csv').write_text('StudyInstanceUID,report\n'+''.join(told))
    (export/'labels.csv').write_text('StudyInstanceUID,fracture,who\n'+''.join(
        f'1.3.{i},{i % 2},{name}\n' for i in range(count)))


table_harms = dict(
    a_name_as_label=lambda o: o.replace(b'1,Zwyrtek^Quandoro', b'Zwyrtek,1', 1),
    no_header=lambda o: o.partition(b'\n')[2],
    another_header=lambda o: o.replace(b'StudyInstanceUID', b'MRN7319', 1),
    a_cell_more=lambda o: o[:-1]+b',Quandoro\n',
    quoted=lambda o: o.replace(b'1.3.2', b'"Zwyrtek', 1),
    zeros=lambda o: o[:40]+b'\0'+o[40:],
    letters=lambda o: o+b'\xff\xfe,Zwyrtek,\n',
    wide=lambda o: o.decode().encode('utf-16'),
    cut=lambda o: o[:len(o)//2],
    header_only=lambda o: o.partition(b'\n')[0],
    wrong_number=lambda o: o.replace(b'1.3.3,', b'19310727E+15,', 1),
    nothing=lambda o: b'')


@pytest.mark.filterwarnings('ignore')
def test_no_name_of_any_tag_gets_out_of_a_damaged_file(tmp_path, capfd):
    rng, export, out = np.random.default_rng([seed, 1]), tmp_path/'Zwyrtek'/'export', tmp_path/'out'
    planted_export(export, sources(tmp_path/'good'), rng)
    account = ingest(export, out, tmp_path/'key', pixels=32, jobs=2, timeout=patience())
    print(json.dumps(dict(files=count, account=account)))
    assert account['seen'] == count == account['converted']+account['quarantined']+account['skipped']
    quarantine = pd.read_csv(out/'quarantine.csv')
    reasons = Counter(quarantine.reason.str.replace(r'\d+', 'N', regex=True))
    said = json.dumps(reasons.most_common(60), indent=1)
    assert not quarantine.reason.str.contains('took longer|crashed').any(), said
    printed = capfd.readouterr()
    assert not names_in_folder(out, printed.out+printed.err)
    key, studies = read_key(tmp_path/'key'), pd.read_parquet(out/'studies.parquet')
    files = {file_code(export, o, key): o for o in files_below(export)}
    assert not names_in_reports(studies, lambda o: header_names(files[Path(o).stem]))
    assert account['converted'] >= count//4, said
    for n,(harm, change) in enumerate(table_harms.items()): # damaged tables: a value or one line, by both readers
        if n >= count//40: break
        table = export/['labels.csv', 'reports.csv'][rng.integers(2)]
        before = table.read_bytes()
        table.write_bytes(change(before))
        line = ''
        try: ingest(export, out, tmp_path/'key', pixels=32, jobs=2, timeout=patience())
        except InputError as e: line = str(e).replace(str(export), '')
        table.write_bytes(before)
        printed = capfd.readouterr()
        assert '\n' not in line and not names_in_folder(out, line+printed.out+printed.err), harm
    print(account, said)


@pytest.mark.filterwarnings('ignore')
def test_no_message_about_one_file_quotes_a_value(tmp_path, capfd):
    rng, export = np.random.default_rng([seed, 2]), tmp_path/'export'
    planted_export(export, sources(tmp_path/'good'), rng)
    files = [o for o in sorted(export.rglob('*')) if o.is_file() and o.suffix != '.csv']
    for f in files[:count//2]:
        try: read_dicom(f)
        except InputError as e: assert not any(o in str(e) for o in secrets) and '\n' not in str(e), str(e)
    reading = read_hospital(export, tmp_path/'key')
    printed = capfd.readouterr()
    (tmp_path/'read').mkdir()
    kept = dict(studies=reading.studies.drop(columns=['path', 'report']), quarantine=reading.quarantine)
    for kind,table in (kept | reading.lists).items(): table.to_csv(tmp_path/'read'/f'{kind}.csv')
    assert not names_in_reports(reading.studies, header_names)
    assert not names_in_folder(tmp_path/'read', printed.out+printed.err+str(reading.account))
