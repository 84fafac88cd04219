"""More foreign files and more damage: every reader ends in a value or in one line, for names in any cell as well

`RADINET_DAMAGED_TABLES=500 RADINET_SEED=7 pytest tests/test_more_tables.py` for many, with a seed of their own."""
import contextlib
import gzip
import json
import os
import random
import zipfile
from io import BytesIO
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from test_tables import calls, hospital, key, left, picture, ramp, readers, secret, tried

from radinet_nb.annotation.annotator import Annotator, load_annotator, save_annotator
from radinet_nb.data.boxed import read_chests, with_drawn_boxes
from radinet_nb.data.cache import ImageCache, build_cache
from radinet_nb.data.ct import read_ct
from radinet_nb.data.file_codes import keep_codes
from radinet_nb.data.hospital import read_hospital
from radinet_nb.data.identity import read_key
from radinet_nb.data.readings import read_readings, read_types
from radinet_nb.data.runs import load_run
from radinet_nb.evidence import published
from radinet_nb.learning.features import MADE_BY, Features, read_features, write_features
from radinet_nb.results import claims
from radinet_nb.results.run_differences import compare_runs
from radinet_nb.synthetic.dicom_files import write_dicom
from radinet_nb.workflow.profiles import load_profile

many, seed = int(os.environ.get('RADINET_DAMAGED_TABLES', 6)), int(os.environ.get('RADINET_SEED', 0))


def chests(root):
    for i in range(4): picture(root/f'{i}.png', (20, 30))
    (root/'chests.csv').write_text('path,label,patient,age,sex,boxes\n0.png,1,Roe^Jane,70,F,"[[1, 2, 9, 9]]"\n'
                                   '1.png,0,b,80,M,[]\n2.png,1,c,,,\n3.png,,d,5,F,\n')


def drawn(root):
    hospital(root)
    (root/'boxes.csv').write_text('path,x0,y0,x1,y1\n0,1,2,9,9\n')


def drawn_coco(root):
    hospital(root)
    (root/'boxes.json').write_text(json.dumps(dict(images=[dict(id=0, file_name='0', width=64, height=64)],
                                                   annotations=[dict(id=0, image_id=0, bbox=[1, 2, 9, 9])])))


def slices(root):
    for i in range(3):
        write_dicom(root/f'{i}', ramp+i, Modality='CT', StudyInstanceUID='1.2', SeriesInstanceUID='1.3',
                    ImagePositionPatient=[0, 0, i], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    (root/'slices.csv').write_text('file,label,boxes\n0,1,"[[1, 2, 9, 9]]"\n1,0,[]\n2,,\n')


def read(root):
    hospital(root); calls(root)
    (root/'readings.csv').write_text('StudyInstanceUID,reader,view,rating\n1.2.0,Roe^Jane,frontal,1\n'
                                     '1.2.1,b,frontal,0\n')
    (root/'difficulty.csv').write_text('StudyInstanceUID,difficult\n1.2.0,1\n')
    (root/'types.csv').write_text('StudyInstanceUID,bone,kind,healing,displaced\n1.2.0,radius,buckle,0,1\n')


def readings_of(root):
    studies = hospital_of(root)
    return read_readings(root, key, studies), read_types(root, key, studies)


def hospital_of(root):
    if root not in studies_of: studies_of[root] = read_hospital(root, key).studies
    return studies_of[root]


studies_of = {}


def two_runs(root):
    for o in 'a', 'b': (root/o).mkdir(); left(root/o)
    (root/'b'/'record.json').write_text(json.dumps(dict(versions=dict(a='1'), parents=dict(b='2'), seed=1, commit='x')))
    (root/'b'/'params.json').write_text(json.dumps(dict(seed=1, data=dict(hospital='synthetic'))))


def annotated(root):
    save_annotator(Annotator(['fracture', 'no'], np.ones(2), 0., .2, .8), root)


def profile(root):
    (root/'own.yaml').write_text('what: mine\nseeds: [0, 1]\ndata: {hospital: synthetic}\n'
                                 'karam2021:\n  ingest: {pixels: 64}\n')


def cached(root):
    for i in range(3): picture(root/f'{i}.png')
    build_cache(pd.DataFrame(dict(path=[str(root/f'{i}.png') for i in range(3)])), root/'cache', 16, jobs=1)


def cache_of(root):
    cache = ImageCache(root/'cache')
    return cache.shape, len(cache), cache.rows_of(cache.paths), cache[[0]]


def papers(root):
    (root/'published.csv').write_text('paper,item,dataset,model,metric,value,unit,note\np,t1,d,m,auc,0.9,,\n')
    (root/'claims.csv').write_text('id,paper,where,claim,test,settings\na,p,t1,one is better,audit,check=x\n')


def papers_of(root):
    "Tables of a paper are public: an error may quote them"
    with patch.object(published, 'paper_folder', lambda o: root), patch.object(claims, 'paper_folder', lambda o: root):
        return published.read_published.__wrapped__('p'), claims.read_claims('p').settings.map(claims.settings_of)


def made_features(root):
    about = dict.fromkeys((*MADE_BY, 'images'), 'x')
    write_features(Features(np.ones((2, 3), np.float32), about), root/'f.safetensors')


more = dict( # name: what writes it, what reads it, the files to damage
    chests=(chests, read_chests, ['chests.csv']),
    boxes=(drawn, lambda o: with_drawn_boxes(hospital_of(o), o), ['boxes.csv']),
    coco=(drawn_coco, lambda o: with_drawn_boxes(hospital_of(o), o), ['boxes.json']),
    ct=(slices, lambda o: read_ct(o, key), ['slices.csv']),
    readers=(read, readings_of, ['readings.csv', 'difficulty.csv', 'types.csv']),
    runs=(two_runs, lambda o: compare_runs(o/'a', o/'b'),
          ['b/record.json', 'b/params.json', 'b/history.csv', 'b/predictions.parquet']),
    record=(two_runs, lambda o: load_run(o/'b').record, ['b/record.json', 'b/params.json']),
    annotator=(annotated, load_annotator, ['annotator.json', 'vocabulary.json', 'weights.safetensors']),
    profile=(profile, lambda o: load_profile(str(o/'own.yaml')), ['own.yaml']),
    key=(lambda o: read_key(o/'key'), lambda o: read_key(o/'key'), ['key']),
    codes=(lambda o: keep_codes({str(o/'a'): '0'*16}, o, o/'key'),
           lambda o: keep_codes({str(o/'b'): '1'*16}, o, o/'key'), ['key.files.csv']),
    cache=(cached, cache_of, ['cache/cache.json', 'cache/images.npy']),
    papers=(papers, papers_of, ['published.csv', 'claims.csv']),
    features=(made_features, lambda o: read_features(o/'f.safetensors'), ['f.safetensors']))

cells = ['', secret, f'"{secret}"', '1e999', '9'*400, '-1', '0.5', 'nan', '\0', '\ud800', '[[[', '[[1, 2, 3]]', '{}',
         '[[NaN, 1, 2, 3]]', '[[1, 2, 1e400, 9]]', '['*3000, '2020-13-45', '../../../etc/passwd', '/dev/zero', 'a|b',
         '|', '0.png', '0', '1', '2', 'true', '=HYPERLINK("x")', "'", '\\', '\r\n', '\x1b]0;x\x07', '½', '𝟙', '1_0',
         '0x1', '+1', '1 ']
values = [None, True, -1, 0, 1e308, float('nan'), 10**400, '', secret, [], {}, [[]], {'a': {}}, '\ud800', [secret],
          'x'*9999]


def other_json(value, rng):
    "A value of JSON with one of its parts exchanged, lost or repeated"
    if isinstance(value, dict) and value and rng.random() < .9:
        k = rng.choice(list(value))
        if rng.random() < .2: return {o: v for o,v in value.items() if o != k}
        return value | {k: other_json(value[k], rng)}
    if isinstance(value, list) and value and rng.random() < .9:
        i = rng.randrange(len(value))
        return value[:i]+[other_json(value[i], rng)]*rng.choice([0, 1, 2])+value[i+1:]
    return rng.choice(values)


def zipped(data, names):
    out = BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        for o in names: z.writestr(o, data)
    return out.getvalue()


def harm_table(data, rng):
    "A CSV or text with a cell, a column, a row or its bytes damaged"
    rows = [o.split(',') for o in data.decode('latin-1').rstrip('\n').split('\n')]
    i, j, kind = rng.randrange(len(rows)), rng.randrange(max(len(rows[0]), 1)), rng.randrange(16)
    if kind < 6: rows[i][min(j, len(rows[i])-1)] = rng.choice(cells)
    elif kind == 6: rows = [o+o for o in rows] # every column twice
    elif kind == 7: rows = [o[:j]+o[j+1:] for o in rows]
    elif kind == 8: rows.insert(i, [rng.choice(cells) for _ in rows[0]])
    elif kind == 9: rows[1:] = [o[::-1] for o in rows[1:]]
    elif kind == 10: rows = rows+rows[1:]
    elif kind == 11: rows = rows[1:] or [[secret]]
    elif kind == 12: rows[1:] = [[rng.choice(cells)]*len(o) for o in rows[1:]]
    elif kind == 13: rows[0] = [o*2000 for o in rows[0]]
    elif kind == 14: rows = [o*rng.choice([1, 50, 3000]) for o in rows]
    elif kind == 15: rows = [rows[0]]
    return '\n'.join(map(','.join, rows)).encode('utf-8', 'surrogatepass')


def harm_bytes(data, rng):
    "Bytes in another encoding, packing or order, cut, or exchanged"
    kind, at = rng.randrange(14), rng.randrange(len(data)+1)
    text, mark = data.decode('latin-1'), b'\xef\xbb\xbf'
    whole = [lambda: data[:at], lambda: data[at:], lambda: mark*2+data, lambda: data[:at]+mark+data[at:],
             lambda: text.encode('utf-16'), lambda: text.encode('utf-32'), lambda: text.encode('utf-7'),
             lambda: data[:at]+bytes(rng.randrange(1, 99))+data[at:], lambda: gzip.compress(data)[:-1-at % 9],
             lambda: gzip.compress(gzip.compress(data)), lambda: zipped(data, ['a']), lambda: zipped(data, ['a', 'b']),
             lambda: data.replace(b'\n', rng.choice([b'\r', b'\x85', b'\0\n', b'\n\n'])), lambda: rng.randbytes(at)]
    return whole[kind]()


def damaged(name, data, rng):
    "One of the ways in which such a file comes to harm"
    if name.endswith('.json') and rng.random() < .6: return json.dumps(other_json(json.loads(data), rng)).encode()
    if name.endswith(('.safetensors', '.npy', '.parquet')):
        bad = bytearray(data)
        for _ in range(rng.randrange(4)): bad[rng.randrange(min(len(bad), 400))] = rng.randrange(256)
        return bytes(bad) if rng.random() < .7 else harm_bytes(data, rng)
    if data[:2] == b'\x1f\x8b' and rng.random() < .8: return gzip.compress(damaged('', gzip.decompress(data), rng), 1)
    return harm_bytes(data, rng) if rng.random() < .3 else harm_table(data, rng)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', [*more, *readers])
def test_a_damaged_file_is_a_value_or_one_line(name, tmp_path, capfd):
    write, read, files = (more | readers)[name]
    write(tmp_path)
    whole = {f: (tmp_path/f).read_bytes() for f in files}
    assert tried(read, tmp_path) == ''
    rng = random.Random(f'{name} {seed}')
    for i in range(many if name in more else many//3 if many < 100 else many):
        f = files[i % len(files)]
        bad = damaged(f, whole[f], rng)
        (tmp_path/f).write_bytes(bad)
        try: tried(read, tmp_path, public=name in ('papers', 'profile'))
        except BaseException:
            with contextlib.suppress(OSError): (tmp_path.parent/f'{name}.{i}').write_bytes(bad)
            print(name, f, i, bad[:2000])
            raise
        (tmp_path/f).write_bytes(whole[f])
    out = capfd.readouterr()
    assert secret not in out.out+out.err


@pytest.mark.parametrize('name', more)
def test_what_is_no_file_is_one_line(name, tmp_path):
    write, read, files = more[name]
    write(tmp_path)
    read(tmp_path) # what is remembered is not read again
    for place in [tmp_path/o for o in files]:
        whole = place.read_bytes()
        place.unlink(); place.mkdir()
        assert tried(read, tmp_path), place
        place.rmdir(); os.mkfifo(place)
        assert tried(read, tmp_path), place
        place.unlink(); place.write_bytes(whole)


@pytest.mark.parametrize('name', ['boxes', 'coco', 'ct', 'readers', 'papers'])
def test_an_optional_table_is_passed_over_only_where_nothing_has_its_name(name, tmp_path):
    write, read, files = more[name]
    write(tmp_path)
    for place in [tmp_path/o for o in files if o != 'readings.csv']: # a reader study has its readings
        place.rename(tmp_path/'aside')
        assert tried(read, tmp_path) == ''
        place.symlink_to('nowhere')
        assert 'there is no such file' in tried(read, tmp_path)
        place.unlink()
        other = place.with_suffix(place.suffix.upper())
        (tmp_path/'aside').rename(other)
        assert f'is called {other.name} here' in tried(read, tmp_path)
        other.rename(place)
