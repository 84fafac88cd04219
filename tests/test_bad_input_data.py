"Bad input to the data wing: one clear line each, nothing half-written, nobody identified"
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radinet_nb.data.disk import whole_file
from radinet_nb.data.gray_values import read_dicom
from radinet_nb.data.guard import check_disjoint
from radinet_nb.data.headers import read_header
from radinet_nb.data.studies import read_studies, split_studies, study_table, validate
from radinet_nb.errors import InputError
from radinet_nb.synthetic.dicom_files import write_dicom

rows = pd.DataFrame(dict(patient=['a', 'b', 'c'], body_part='wrist', label=[1, 0, 0],
                         path=['/x/1.png', '/x/2.png', '/x/3.png']))


@pytest.mark.parametrize('change, message', [
    (dict(label=[1, 7, 0]), 'row 1, column label: 7 is not one of 0, 1'),
    (dict(label=[1, 'yes', 0]), "row 1, column label: a value is not of type Int8"),
    (dict(label=[1, .5, 0]), 'row 1, column label: 0.5 is not of type Int8'),
    (dict(patient=['a', None, 'c']), 'row 1, column patient: an empty cell is not allowed'),
    (dict(patient=['a', ' ', 'c']), 'row 1, column patient: a value is empty'),
    (dict(body_part='knee'), "row 0, column body_part: a value is not one of finger"),
    (dict(view='side'), "row 0, column view: a value is not one of frontal"),
    (dict(age=[1, 2, 230]), 'row 2, column age: 230.0 is no age'),
    (dict(sex='female'), "row 0, column sex: a value is not one of F, M"),
    (dict(date=['2020-01-01', '2020-02-02', 'last week']), 'row 2, column date: a value is not of type datetime'),
    (dict(boxes='[[3, 1, 2, 9]]'), 'row 0, column boxes: a value is no JSON list of boxes'),
    (dict(boxes='{'), 'row 0, column boxes'),
    (dict(split='training'), "a value is not one of train, valid, test"),
    (dict(path='/x/1.png'), 'row 0, column path: a value stands there twice'),
    (dict(path=['/x/1.png', None, '/x/2.png']), 'row 1, column path: an empty cell'),
])
def test_a_bad_value_is_one_line_with_row_and_column(change, message):
    with pytest.raises(InputError) as e: study_table(rows.assign(**change), where='table.csv')
    assert message in str(e.value) and str(e.value).startswith('table.csv: ') and '\n' not in str(e.value)


def test_errors_show_no_identifier():
    bad = rows.assign(patient=['Roe^Jane', 'Roe^Jane', None], report='Jane Roe, born 1970', label=9, study='Jane')
    with pytest.raises(InputError) as e: study_table(bad)
    assert 'Jane' not in str(e.value) and '1970' not in str(e.value)


def test_missing_patients_are_refused_until_a_grouping_is_named():
    with pytest.raises(InputError, match='name the column to group by'): study_table(rows.drop(columns='patient'))
    grouped = rows.drop(columns='patient').assign(dupgroup=[1, 2, 2])
    assert set(study_table(grouped, group='dupgroup').grouping) == {'dupgroup'}


def test_tables_that_are_none(tmp_path):
    with pytest.raises(InputError, match='no rows'): study_table(rows.iloc[:0])
    with pytest.raises(InputError, match='column collection is missing'): validate(rows.drop(columns='patient'))
    with pytest.raises(InputError, match='is a data frame, not a list'): validate([])
    with pytest.raises(InputError, match='no such file'): read_studies(tmp_path/'x.parquet')
    (tmp_path/'x.parquet').write_text('not parquet')
    with pytest.raises(InputError, match='is no Parquet file'): read_studies(tmp_path/'x.parquet')


def test_splits_that_cannot_be():
    cohort = study_table(rows)
    with pytest.raises(InputError, match='add up to 1'): split_studies(cohort, shares=(.8, .3, .1))
    with pytest.raises(InputError, match='patients cannot fill'): split_studies(cohort.iloc[:2])
    with pytest.raises(InputError, match='no column age_group'): split_studies(cohort, stratify=['age_group'])
    with pytest.raises(InputError, match='has no column dupgroup'): check_disjoint(cohort, by=['dupgroup'])


def test_a_writer_that_dies_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), whole_file(tmp_path/'a.txt') as tmp:
        tmp.write_text('half'); raise RuntimeError
    assert not list(tmp_path.iterdir())


ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)


@pytest.mark.parametrize('tags, message', [
    (dict(Rows=100, Columns=100), 'is truncated: 11808 bytes'),
    (dict(Rows=60000, Columns=60000), 'claims 60000 x 60000 pixels'),
    (dict(NumberOfFrames='7'), 'holds 7 frames'),
    (dict(PhotometricInterpretation='RGB', SamplesPerPixel=3), 'is a color image'),
    (dict(BitsAllocated=32), 'unknown depth'),
    (dict(BitsStored=0), 'unknown depth'),
    (dict(Rows=None), 'states no size'),
    (dict(PixelSpacing=['9', '1']), 'times as high as wide'),
    (dict(RescaleSlope='1e999'), 'no numbers'),
])
def test_a_dicom_file_that_cannot_be_used_says_why(tags, message, tmp_path):
    with pytest.raises(InputError, match=message) as e: read_dicom(write_dicom(tmp_path/'Roe_Jane.dcm', ramp, **tags))
    assert 'Jane' not in str(e.value) and 'MRN' not in str(e.value)


def damaged(data, rng):
    "One of the ways in which files come to harm"
    data, kind, at = bytearray(data), rng.integers(4), int(rng.integers(132, 900))
    if kind == 0: del data[rng.integers(len(data)):]
    if kind == 1:
        for o in rng.integers(0, len(data), 20): data[o] ^= 1 << rng.integers(8)
    if kind == 2: data[at:at+4] = b'\xff\xff\xff\x7f'
    if kind == 3: del data[at:at+int(rng.integers(1, 60))]
    return bytes(data)


def test_damaged_files_give_an_image_or_one_clear_line(tmp_path, capfd):
    import pydicom
    rng = np.random.default_rng(0)
    sources = [write_dicom(tmp_path/f's{i}', ramp, **kw).read_bytes() for i,kw in enumerate([
        {}, dict(compress=pydicom.uid.RLELossless), dict(syntax=pydicom.uid.DeflatedExplicitVRLittleEndian),
        dict(syntax=pydicom.uid.ImplicitVRLittleEndian)])]
    good = bad = 0
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for i in range(200):
            file = tmp_path/'damaged'
            file.write_bytes(damaged(sources[i % 4], rng))
            try: assert read_dicom(file).dtype == np.uint8; read_header(file, b'key'); good += 1
            except InputError as e: assert '\n' not in str(e) and 'Jane' not in str(e); bad += 1
    assert good+bad == 200 and min(good, bad) > 20
    out = capfd.readouterr()
    assert 'Jane' not in out.out+out.err and 'MRN' not in out.out+out.err


def test_collections_that_are_not_there(tmp_path):
    from radinet_nb.data.collections import read_collection, sources
    (tmp_path/'empty').mkdir()
    for name in sources:
        grouped, keyed = name in ('fracatlas', 'mednist', 'classes'), name in ('hospital', 'ct')
        options = dict(grouping='image') if grouped else dict(key=b'k'*16) if keyed else {}
        with pytest.raises(InputError, match='there is no such folder'):
            read_collection(name, tmp_path/'none', **options)
        with pytest.raises(InputError, match='the folder is empty'): read_collection(name, tmp_path/'empty', **options)
    with pytest.raises(InputError, match='did you mean fracatlas'): read_collection('fracatlass', tmp_path)
    with pytest.raises(InputError, match='no patient ids'): read_collection('mednist', tmp_path)
    with pytest.raises(InputError, match='no grouping called patient'):
        read_collection('fracatlas', tmp_path, grouping='patient')


def test_a_hospital_export_loses_nothing_and_names_nobody(tmp_path):
    from radinet_nb.data.hospital import read_hospital
    export = tmp_path/'export'
    for i in range(6):
        write_dicom(export/f'{i}', ramp, StudyInstanceUID=f'1.2.{i//2}', PatientID=f'MRN{i//4}', StudyDate='20210304',
                    PatientAge='095Y')
    write_dicom(export/'nobody', ramp, PatientID=None); write_dicom(export/'film', ramp, NumberOfFrames='3')
    write_dicom(export/'twice', ramp, StudyInstanceUID='1.2.0', PatientID='MRN9')
    (export/'readme.txt').write_text('for Jane Roe')
    (export/'labels.csv').write_text('StudyInstanceUID,fracture\n1.2.0,1\n1.2.1,\n1.2.2,0\n')
    report = 'Roe, Jane (MRN0) on 4.3.2021 seen by Dr. Smith: fracture of the radius'
    (export/'reports.csv').write_text(f'StudyInstanceUID,report\n1.2.0,"{report}"\n')
    studies, quarantine, account = read_hospital(export, tmp_path/'key')[:3]
    assert account['used']+account['quarantined'] == account['files'] == 10
    assert sorted(quarantine.reason) == ['has no patient id', 'holds 3 frames', 'is no DICOM file']
    assert account['studies_under_two_patients'] == 1 and studies.groupby('study').patient.nunique().max() == 1
    assert studies.label.isna().sum() == 2 and studies.age.max() == 90
    text = studies.drop(columns='path').to_csv()
    assert not any(o in text for o in ('Roe', 'Jane', 'MRN', '1.2.', '2021', 'Smith'))
    assert 'fracture of the radius' in text


def test_ingest_accounts_for_every_file_resumes_and_names_nobody(tmp_path, capfd):
    import json

    from radinet_nb.data.ingest import ingest
    rng, export, out = np.random.default_rng(1), tmp_path/'export', tmp_path/'out'
    for i in range(8):
        write_dicom(export/f'Roe_{i}.dcm', ramp+i, StudyInstanceUID=f'1.2.{i//2}', PatientID=f'MRN{i//4}',
                    StudyDate='20200301', PatientBirthDate='19201224', InstitutionName='Saint Nowhere',
                    StudyDescription='Jane wrist')
    good = (export/'Roe_0.dcm').read_bytes()
    for i in range(30): (export/f'Jane_{i}').write_bytes(damaged(good, rng))
    write_dicom(export/'huge', ramp, Rows=65535, Columns=65535)
    (export/'archive.zip').write_bytes(b'PK\x03\x04'+bytes(100)); (export/'link').symlink_to('/etc/hostname')
    report = 'Jane Roe of Saint Nowhere, born 24.12.1920, MRN0: fracture'
    (export/'reports.csv').write_text(f'StudyInstanceUID,report\n1.2.0,"{report}"\n')
    account = ingest(export, out, tmp_path/'key', pixels=32, jobs=2)
    assert account['converted']+account['skipped']+account['quarantined'] == account['seen'] == 41
    assert account['converted'] >= 8 and account['studies_under_two_patients'] == 0
    assert {'claims 65535 x 65535 pixels', 'is a link'} <= set(pd.read_csv(out/'quarantine.csv').reason)
    printed = capfd.readouterr()
    written = printed.out+printed.err+' '.join(str(f.relative_to(out)) for f in out.rglob('*'))
    for f in out.rglob('*'):
        if f.suffix == '.png': assert not Image.open(f).info
        elif f.is_file(): written += pd.read_parquet(f).to_csv() if f.suffix == '.parquet' else f.read_text()
    # chance writes 1920 into a pseudonym, and into the time of a file's change, once in a dozen runs
    written = re.sub(r'[0-9a-f]{16}(-[0-9a-f]{8})*|"stamp": \[\d+, \d+', '', written.replace(str(out), ''))
    for secret in 'Roe', 'Jane', 'MRN', 'Nowhere', '1.2.0', '2020-03-01', '20200301', '1920', '24.12':
        assert secret not in written
    studies = (out/'studies.parquet').read_bytes()
    # as if killed: half the journal, its last line torn
    lines = (out/'journal.jsonl').read_text().splitlines()
    (out/'journal.jsonl').write_text('\n'.join(lines[:20])+'\n'+lines[20][:30])
    next((out/'images').iterdir()).unlink()
    assert ingest(export, out, tmp_path/'key', pixels=32, jobs=2) == account
    assert json.loads((out/'account.json').read_text()) == account
    assert (out/'studies.parquet').read_bytes() == studies
