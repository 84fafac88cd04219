"""An ingest that is disturbed: same ids, no radiographs, hidden files, withdrawn patients, torn notes, full disks

`RADINET_KILLS=10 pytest tests/test_ingest.py -k killed` for more moments of a kill."""
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radinet_nb.data.hospital import hospital_key, read_hospital
from radinet_nb.data.ingest import ingest
from radinet_nb.data.journal import file_code
from radinet_nb.errors import InputError
from radinet_nb.synthetic.dicom_files import write_dicom

key = b'k'*32
ramp = np.arange(1024, dtype=np.uint16).reshape(32, 32)


def film(export, name, n=0, **tags):
    "A file of one study of one patient"
    return write_dicom(export/name, np.roll(ramp, 7*n), **dict(StudyInstanceUID=f'1.2.{n}', PatientID=f'P{n}') | tags)


def taken(export, out, **kwargs):
    "The account of an ingest, its table, and the reasons in its quarantine"
    account = ingest(export, out, key, pixels=32, jobs=1, **kwargs)
    assert account['converted']+account['skipped']+account['quarantined'] == account['seen']
    assert len(list((out/'images').iterdir())) == account['converted']
    lost = pd.read_csv(out/'quarantine.csv')
    return account, pd.read_parquet(out/'studies.parquet'), dict(zip(lost.file, lost.reason, strict=True))


def test_no_label_stands_on_the_picture_of_another_patient(tmp_path):
    export, out = tmp_path/'export', tmp_path/'out'
    for n in range(8): film(export, f'{n}.dcm', n, SOPInstanceUID='1.9' if n in (1, 2) else f'1.8.{n}')
    shutil.copy(export/'3.dcm', export/'copy of 3.dcm')
    # the same pixels under the same image id, for another patient and another study
    write_dicom(export/'9.dcm', np.roll(ramp, 7*4), SOPInstanceUID='1.8.4', StudyInstanceUID='1.2.9', PatientID='P9')
    (export/'labels.csv').write_text('StudyInstanceUID,fracture\n'+''.join(f'1.2.{n},{n % 2}\n' for n in range(10)))
    account, studies, lost = taken(export, out)
    assert account['converted'] == len(studies) == 6 and account['patients'] == 6
    # each picture is the one of the file whose label stands beside it
    def picture(n): return np.roll(ramp, 7*n)
    for row in studies.itertuples():
        shown = np.asarray(Image.open(row.path)).astype(int)
        n, = [n for n in range(8) if np.abs(shown-picture(n)/1023*255).max() <= .51]
        assert row.label == n % 2 and n not in (1, 2)
    assert sorted(lost.values()) == sorted(['holds the same image id as another file, and other pixels']*2 + [
        'holds the same image id as another file, and the same pixels',
        'holds the same image id as another file, and the same pixels, under another patient or study'])
    before = (out/'journal.jsonl').read_bytes()
    assert taken(export, out)[0] == account and (out/'journal.jsonl').read_bytes() == before
    # where the first of two equal files goes, the second takes its place
    (export/'3.dcm').unlink()
    account, studies, lost = taken(export, out)
    assert account['converted'] == 6 and account['withdrawn'] == 1 and len(lost) == 3
    # in place, too
    reading = read_hospital(export, key)
    assert reading.account['used'] == 6 and len(reading.quarantine) == 3


@pytest.mark.filterwarnings('ignore:Invalid value')
@pytest.mark.parametrize('tags', [
    dict(Modality='CT'), dict(Modality='MR'), dict(Modality='US'), dict(Modality='NM'), dict(Modality='MG'),
    dict(Modality='ct'), dict(Modality='SC'), dict(Modality='OT'), dict(Modality='RTIMAGE'), dict(Modality='XA'),
    dict(Modality='Roe'), dict(SOPClassUID='1.2.840.10008.5.1.4.1.1.7'), dict(SOPClassUID='1.2.840.10008.5.1.4.1.1.2'),
    dict(SOPClassUID='1.2.840.10008.5.1.4.1.1.481.1'), dict(SOPClassUID='1.2.3.4'),
    dict(SOPClassUID='1.2.840.10008.5.1.4.1.1.7', Modality=''), dict(SOPClassUID='', Modality=''),
    dict(SOPClassUID='1.2.840.10008.5.1.4.1.1.1.2', Modality=None),
    dict(ImageType=['DERIVED', 'SECONDARY', 'SCREEN SAVE'])], ids=str)
def test_what_is_no_radiograph_is_no_view(tags, tmp_path):
    from radinet_nb.data.convert import safe_facts
    from radinet_nb.data.dicom import read_dataset
    ds = read_dataset(film(tmp_path, 'x'))
    for k,v in tags.items(): setattr(ds, k, v)
    if 'SOPClassUID' in tags: ds.file_meta.MediaStorageSOPClassUID = tags['SOPClassUID']
    with pytest.raises(InputError, match='is no radiograph') as e: safe_facts(ds, key)
    assert 'Roe' not in str(e.value) and '1.2.3.4' not in str(e.value)
    if tags.get('Modality') in ('CT', 'XA', 'ct'): assert f"modality {tags['Modality'].upper()}" in str(e.value)


def test_radiographs_of_every_kind_are_views_and_others_are_counted(tmp_path):
    export, out = tmp_path/'export', tmp_path/'out'
    dx, capture, fluoroscopy = (f'1.2.840.10008.5.1.4.1.1.{o}' for o in ('1.1', '7', '12.2'))
    for n,tags in enumerate([{}, dict(Modality='DX', SOPClassUID=dx), dict(Modality='DX', SOPClassUID=f'{dx}.1'),
                             dict(Modality='DR'), dict(Modality='RG', SOPClassUID=capture), dict(Modality=''),
                             dict(Modality='RF', SOPClassUID=fluoroscopy), dict(Modality='CT'), dict(Modality='US')]):
        film(export, f'{n}', n, **tags)
    account, _, lost = taken(export, out)
    assert (account['converted'], account['no_radiographs']) == (6, 3) and account['patients'] == 6
    assert sorted(lost.values()) == [f'is no radiograph: modality {o}' for o in ('CT', 'RF', 'US')]
    assert taken(export, tmp_path/'rf', modalities='CR DX RG RF')[0]['converted'] == 6
    with pytest.raises(InputError, match='are no radiographs'): ingest(export, tmp_path/'x', key, modalities='CT')


def test_hidden_files_and_archives_are_named_for_what_they_are(tmp_path):
    export, out = tmp_path/'export', tmp_path/'out'
    film(export, 'a/1.dcm', 1)
    for name in 'a/._1.dcm', '__MACOSX/a/._1.dcm', '.DS_Store', 'Thumbs.db':
        (export/name).parent.mkdir(parents=True, exist_ok=True)
        (export/name).write_bytes(b'\0\5\x16\7'+b'x'*50)
    film(export, '.Trash/2.dcm', 2)
    for suffix in 'zip', 'gztar', 'tar': shutil.make_archive(str(export/suffix), suffix, export/'a')
    (export/'notes.txt').write_text('Jane Roe')
    account, _, lost = taken(export, out)
    assert (account['converted'], account['skipped'], account['quarantined']) == (1, 5, 4)
    assert sorted(lost.values()) == ['is a hidden file', 'is an archive (gzip)', 'is an archive (tar)',
                                     'is an archive (zip)']
    skipped = pd.read_csv(out/'skipped.csv')
    assert sorted(skipped.reason) == ['is a hidden file']*4+['is no DICOM file']
    assert file_code(export, export/'notes.txt', key) in set(skipped.file)


def test_a_withdrawn_patient_is_gone_and_it_is_said(tmp_path):
    export, out = tmp_path/'export', tmp_path/'out'
    for n in range(3):
        for view in 'PA', 'LL': film(export, f'P{n}/{view}', n, ViewPosition=view)
    first, studies, _ = taken(export, out)
    gone = set(studies.patient)
    shutil.rmtree(export/'P1')
    account, studies, _ = taken(export, out)
    gone = (gone-set(studies.patient)).pop()
    assert (account['withdrawn'], account['cases'], first['withdrawn']) == (2, 2, 0)
    written = [f for f in out.rglob('*') if f.is_file()]
    assert not any(gone in str(f) for f in written) and len(list((out/'cases').iterdir())) == 2
    for f in written: assert gone.encode() not in f.read_bytes()
    # a file that now holds another patient takes its old picture along
    film(export, 'P2/PA', 9)
    assert taken(export, out)[0]['patients'] == 3
    # nobody is left: nothing is
    shutil.rmtree(export); export.mkdir(); (export/'notes').touch()
    with pytest.raises(InputError, match='no usable DICOM radiograph among 1 files'): taken(export, out)
    assert not list((out/'images').iterdir()) and not list(out.glob('*.parquet')) and not list(out.glob('*.csv'))
    assert (out/'journal.jsonl').read_text().count('patient') == 0


def test_torn_notes_stop_no_ingest(tmp_path):
    export, out = tmp_path/'export', tmp_path/'out'
    for n in range(5): film(export, f'{n}', n)
    account, studies, _ = taken(export, out)
    whole = (out/'journal.jsonl').read_bytes()
    lines = whole.splitlines(keepends=True)
    for torn in (b'\xff\xfe'+whole[:-20], lines[0]+lines[1][:40]+lines[2]+lines[3].replace(b'"image"', b'"imago"'),
                 b'[]\n7\nnull\n{}\n["a"]\n'+whole, whole+whole, whole.replace(b'\n', b'\n\n')):
        (out/'journal.jsonl').write_bytes(torn)
        again = taken(export, out)
        assert again[0] == account and again[1].equals(studies)
        assert len((out/'journal.jsonl').read_bytes().splitlines()) == 5
    for torn in b'', b'{"pix', b'\xff', b'[]', b'null':
        (out/'options.json').write_bytes(torn)
        assert taken(export, out)[0] == account
    with pytest.raises(InputError, match='an ingest with pixels=32 stands here'): ingest(export, out, key, pixels=64)


def test_files_that_vanish_are_slow_or_cannot_be_opened_are_tried_again(tmp_path, monkeypatch):
    from radinet_nb.data import journal
    export, out = tmp_path/'export', tmp_path/'out'
    for n in range(6): film(export, f'Roe_{n}', n)
    really = journal.run_isolated
    def disturbed(function, jobs, *args, **kwargs):
        jobs = list(jobs)
        Path(jobs[0][0]).rename(tmp_path/'away')
        for i, ok, what in really(function, jobs, *args, **kwargs):
            yield i, ok and i not in (1, 2), {1: 'took longer than 30 s', 2: 'failed (OSError)'}.get(i, what)
    monkeypatch.setattr(journal, 'run_isolated', disturbed)
    account = ingest(export, out, key, pixels=32, jobs=1)
    assert (account['converted'], account['quarantined']) == (3, 3)
    assert sorted(pd.read_csv(out/'quarantine.csv').reason) == ['failed (OSError)', 'took longer than 30 s', 'vanished']
    monkeypatch.setattr(journal, 'run_isolated', really)
    (tmp_path/'away').rename(export/'Roe_0')
    assert taken(export, out)[0]['converted'] == 6


def test_one_real_file_among_synthetic_ones_needs_a_key(tmp_path):
    for n in range(3): film(tmp_path/'made up', f'{n}', n, SyntheticData='YES')
    assert hospital_key(tmp_path/'made up') == b'a synthetic hospital'
    for name,tags in dict(a={}, z={}, m=dict(SyntheticData='NO')).items():
        real = film(tmp_path/'made up', f'{name}', 7, **tags)
        with pytest.raises(InputError, match='needs a key file'): hospital_key(tmp_path/'made up')
        assert read_hospital(tmp_path/'made up', key).account['synthetic_files'] == 3
        real.unlink()
    (tmp_path/'none').mkdir()
    with pytest.raises(InputError, match='needs a key file'): hospital_key(tmp_path/'none')


def test_one_real_file_makes_an_ingest_real_and_a_killed_one_says_nothing(tmp_path, monkeypatch):
    import radinet_nb.data.ingest as room
    from radinet_nb.data.journal import journal_line, read_journal
    from radinet_nb.data.runs import synthetic_table
    export, out = tmp_path/'export', tmp_path/'out'
    for n in range(2): film(export, f'{n}', n, SyntheticData='YES')
    account = taken(export, out)[0]
    assert account['synthetic'] and account['synthetic_files'] == 2 and synthetic_table(out/'studies.parquet')
    # the journal of an earlier version does not know it
    journal = (out/'journal.jsonl').read_bytes()
    old = {c: {k: v for k,v in o.items() if k != 'synthetic'} for c,o in read_journal(out/'journal.jsonl')[0].items()}
    (out/'journal.jsonl').write_text(''.join(journal_line(*o) for o in old.items()))
    assert not taken(export, out)[0]['synthetic'] and not synthetic_table(out/'studies.parquet')
    (out/'journal.jsonl').write_bytes(journal)
    assert taken(export, out)[0]['synthetic']
    # killed after the new table is written: the earlier account is not of this one
    film(export, 'real', 7)
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(room, 'write_cases', stop)
        taken(export, out)
    assert len(pd.read_parquet(out/'studies.parquet')) == 3 and not synthetic_table(out/'studies.parquet')
    account = taken(export, out)[0]
    assert account['synthetic_files'] == 2 and not account['synthetic'] and not synthetic_table(out/'studies.parquet')


script = """
import os, resource, signal, sys
from pathlib import Path
from radinet_nb.data.ingest import ingest
export, out, how, n = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
def kill(): os.kill(os.getpid(), signal.SIGKILL)
if how == 'full': # no file may grow beyond n bytes: what a full disk is to a writer
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
if how == 'table': # killed before the n-th file of the parent is renamed to its name
    really, count = os.replace, []
    def replace(*args):
        count.append(1)
        if len(count) == n: kill()
        return really(*args)
    os.replace = replace
def progress(done, total):
    if how == 'file' and done == n: kill()
try: ingest(export, out, b'k'*32, pixels=32, jobs=1, progress=progress)
except ValueError as e: sys.exit(str(e))
"""


def written(out):
    "Everything that stands in the folder of an ingest, but for the order of the journal"
    return {str(f.relative_to(out)): b''.join(sorted(f.read_bytes().splitlines())) if f.suffix == '.jsonl' else
            f.read_bytes() for f in sorted(out.rglob('*')) if f.is_file()}


def disturb(export, out, *how):
    "Run an ingest that is disturbed, in a process of its own"
    return subprocess.run([sys.executable, '-c', script, str(export), str(out), *map(str, how)], capture_output=True,
                          text=True, env=os.environ | dict(OMP_NUM_THREADS='1'))


moments = [('file', 5), ('table', 4), ('table', 2), ('file', 1), ('table', 1), ('table', 3), ('table', 5), ('file', 11),
           ('table', 7), ('table', 8)][:int(os.environ.get('RADINET_KILLS', 2))]


def test_a_killed_or_full_ingest_ends_with_the_same_files(tmp_path):
    export, out = tmp_path/'export', tmp_path/'out'
    for n in range(6):
        for view in 'PA', 'LL': film(export, f'Roe_{n}/{view}', n, ViewPosition=view)
    (export/'labels.csv').write_text('StudyInstanceUID,fracture\n1.2.0,1\n')
    ingest(export, out, key, pixels=32, jobs=1)
    expected = written(out)
    for how in moments:
        shutil.rmtree(out)
        assert disturb(export, out, *how).returncode == -signal.SIGKILL, how
        ingest(export, out, key, pixels=32, jobs=1)
        assert written(out) == expected, how
    # smaller than a picture, than the journal, and than the largest table
    sizes = [max(len(v) for k,v in expected.items() if k.endswith(o))-1 for o in ('.png', '.jsonl', '.parquet')]
    for size in sizes[:1] if len(moments) < 10 else sizes:
        shutil.rmtree(out)
        run = disturb(export, out, 'full', size)
        assert run.returncode == 1 and 'File too large' in run.stderr and run.stderr.count('\n') == 1, run.stderr
        assert 'Roe' not in run.stderr and 'Traceback' not in run.stderr
        ingest(export, out, key, pixels=32, jobs=1)
        assert written(out) == expected, size
    assert json.loads(expected['account.json'])['converted'] == 12


def test_two_ingests_do_not_write_one_folder(tmp_path):
    from radinet_nb.data.ingest import only_writer
    film(tmp_path/'export', '1')
    with only_writer(tmp_path/'out'), pytest.raises(InputError, match='another ingest is writing here'):
        ingest(tmp_path/'export', tmp_path/'out', key)
    assert not list((tmp_path/'out').iterdir())


def test_what_stands_in_the_way_is_one_line(tmp_path):
    film(tmp_path/'export', 'Roe_Jane')
    for name in 'images', 'cases', 'studies.parquet', 'journal.jsonl', 'account.json':
        out = tmp_path/f'out {name}'
        out.mkdir(); (out/'options.json').touch()
        if name in ('images', 'cases'): (out/name).touch()
        else: (out/name).mkdir()
        odd = 'cannot be written|is a folder' # a journal is read before it is written
        with pytest.raises(InputError, match=odd) as e: ingest(tmp_path/'export', out, key, jobs=1)
        assert 'Roe' not in str(e.value) and '\n' not in str(e.value)
    (tmp_path/'file').touch()
    with pytest.raises(InputError, match='cannot be written'): ingest(tmp_path/'export', tmp_path/'file', key)
