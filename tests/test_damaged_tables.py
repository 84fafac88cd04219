"""Damaged tables: every reader ends in a value, or in one line that shows no cell, whatever the damage

`RADINET_DAMAGED_TABLES=500 RADINET_SEED=7 pytest tests/test_damaged_tables.py` for many, with a seed of their own."""
import contextlib
import gzip
import json
import os
import random
import time
import zipfile
from io import BytesIO
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radinet_nb.annotation.annotator import Annotator, load_annotator, save_annotator
from radinet_nb.annotation.report_tables import read_reports
from radinet_nb.data.boxed import read_chests, with_drawn_boxes
from radinet_nb.data.cache import ImageCache, build_cache
from radinet_nb.data.chests import read_chexpert, read_mimic_cxr, read_padchest
from radinet_nb.data.ct import read_ct
from radinet_nb.data.file_codes import keep_codes
from radinet_nb.data.fracatlas import read_fracatlas
from radinet_nb.data.grazpedwri import read_grazpedwri
from radinet_nb.data.hospital import hospital_choices, hospital_column, read_hospital
from radinet_nb.data.identity import read_key
from radinet_nb.data.mura import read_mura
from radinet_nb.data.readings import by_pseudonym, read_readings, read_types
from radinet_nb.data.runs import load_run
from radinet_nb.data.studies import read_studies, study_table, write_studies
from radinet_nb.data.table_files import read_csv
from radinet_nb.data.text_files import read_json
from radinet_nb.errors import InputError
from radinet_nb.evidence import published
from radinet_nb.evidence.metrics_tables import read_table
from radinet_nb.learning.features import MADE_BY, Features, read_features, write_features
from radinet_nb.results import claims
from radinet_nb.results.run_differences import compare_runs
from radinet_nb.synthetic.dicom_files import write_dicom
from radinet_nb.workflow.profiles import load_profile

key, secret = b'k'*32, 'Roe^Jane'
ramp = np.tile(np.arange(64, dtype=np.uint16)*60, (64, 1))
many, seed = int(os.environ.get('RADINET_DAMAGED_TABLES', 8)), int(os.environ.get('RADINET_SEED', 0))


def picture(path, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', size).save(path)


def hospital(root):
    for i in range(3): write_dicom(root/f'{i}', ramp+i, StudyInstanceUID=f'1.2.{i}', AccessionNumber=f'A{i}')
    (root/'labels.csv').write_text('StudyInstanceUID,fracture,who\n1.2.0,1,Roe^Jane\n1.2.1,0,Roe^Jane\n1.2.2,,x\n')
    (root/'reports.csv').write_text('AccessionNumber,report\nA0,"Roe^Jane, no fracture"\nA1,fracture\n')
    (root/'views.csv').write_text('file,view,use\n0,lateral,1\n1,,\n')


def mura(root):
    for part,first in ('train', 1), ('valid', 9):
        studies = [f'MURA-v1.1/{part}/XR_WRIST/patient0000{first+i}/study1_positive/' for i in range(3)]
        for o in studies: picture(root/o.removeprefix('MURA-v1.1/')/'image1.png')
        (root/f'{part}_image_paths.csv').write_text(''.join(f'{o}image1.png\n' for o in studies))
        (root/f'{part}_labeled_studies.csv').write_text(''.join(f'{o},1\n' for o in studies))


def chexpert(root):
    for part in 'train', 'valid':
        files = [f'{part}/patient{part[0]}{i}/study1/view1_frontal.jpg' for i in range(4)]
        for o in files: picture(root/o)
        rows = [f'CheXpert-v1.0-small/{o},Female,6{i},Frontal,AP,,{i % 2}.0\n' for i,o in enumerate(files)]
        (root/f'{part}.csv').write_text('Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Fracture\n'+''.join(rows))


def mimic(root):
    tables = dict(metadata='dicom_id,subject_id,study_id,ViewPosition,StudyDate\n', split='dicom_id,split\n',
                  chexpert='subject_id,study_id,No Finding,Fracture\n')
    for i in range(3):
        picture(root/f'files/p10/p1000000{i}/s5000000{i}/d{i}.jpg')
        tables['metadata'] += f'd{i},1000000{i},5000000{i},PA,2180010{i+1}\n'
        tables['split'] += f'd{i},{["train", "validate", "test"][i]}\n'
        tables['chexpert'] += f'1000000{i},5000000{i},,{i % 2}.0\n'
    for k,v in tables.items(): (root/f'mimic-cxr-2.0.0-{k}.csv.gz').write_bytes(gzip.compress(v.encode()))


def padchest(root):
    lines = ['ImageID,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,MethodLabel,'
             'Labels,Report']
    for i in range(4):
        picture(root/'0'/f'{i}.png')
        lines.append(f'{i}.png,2010030{i+1},S{i},P{i},195{i},F,PA,Physician,"[\'rib fracture\', \'x\']",Roe^Jane')
    (root/'PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv').write_text('\n'.join(lines))


def graz(root):
    lines = ['filestem,patient_id,study_number,gender,age,projection,fracture_visible,laterality']
    for i in range(3):
        picture(root/f'{i}.png', (20, 30)); lines.append(f'{i},{i},1,F,9.5,1,{i % 2},L')
        (root/f'{i}.txt').write_text('3 0.5 0.5 0.2 0.1\n8 .1 .1 .1 .1\n')
    (root/'dataset.csv').write_text('\n'.join(lines))


def fracatlas(root):
    lines = ['image_id,hand,leg,hip,shoulder,fractured,frontal,lateral,oblique']
    annotations = root/'Annotations'
    for o in annotations/'COCO JSON', annotations/'YOLO': o.mkdir(parents=True)
    for i in range(4):
        kind = ['Non_fractured', 'Fractured'][i % 2]
        picture(root/'images'/kind/f'{i}.jpg', (30, 40)); lines.append(f'{i}.jpg,1,0,0,0,{i % 2},1,0,0')
        if i % 2: (annotations/'YOLO'/f'{i}.txt').write_text('0 .2 .2 .4 .2 .4 .4 .2 .4\n')
    images = [dict(id=i, file_name=f'{i}.jpg', width=30, height=40) for i in range(4)]
    boxes = [dict(id=i, image_id=i, bbox=[3, 4, 10, 12]) for i in (1, 3)]
    coco = json.dumps(dict(images=images, annotations=boxes))
    (annotations/'COCO JSON'/'COCO_fracture_masks.json').write_text(coco)
    groups = ''.join(f'{i}.jpg,{i},False\n' for i in range(4))
    (root/'provenance.csv').write_text('image_id,dupgroup,truncated\n'+groups)
    (root/'dataset.csv').write_text('\n'.join(lines))


def calls(root):
    (root/'readings.csv').write_text('StudyInstanceUID,reader,rating\n1.2.0,Roe^Jane,1\n1.2.1,b,0\n')


def stored(root):
    write_studies(study_table(dict(patient=['a', 'b'], path=['/x/1', '/x/2'], label=[1, 0])), root/'s.parquet')


def left(root):
    for name in 'record', 'params': (root/f'{name}.json').write_text('{}')
    table = pd.DataFrame(dict(epoch=[0, 1], lr=[.1, .01], who=['Roe^Jane', 'a, "b"']))
    table.to_csv(root/'history.csv', index=False)
    table.to_parquet(root/'predictions.parquet')


def noted(root):
    (root/'labels.csv').write_text('AccessionNumber,fracture\nA0,0\nA1,1\n')
    (root/'reports.csv').write_text('AccessionNumber,report,mrn\nA0,"Roe^Jane, no fracture",1\nA1,fracture,2\n')


def metrics(root):
    (root/'m.csv').write_text('model,accuracy,recall,n\nRoe^Jane,79.71,69.78,563\nb,66.96,55.76,563\n')


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


readers = dict( # name: what writes it, what reads it, the files to damage
    labels=(hospital, lambda o: hospital_column(o/'labels.csv', 'fracture', key), ['labels.csv']),
    reports=(hospital, lambda o: hospital_column(o/'reports.csv', 'report', key), ['reports.csv']),
    views=(hospital, lambda o: hospital_choices(o/'views.csv', key), ['views.csv']),
    hospital=(hospital, lambda o: read_hospital(o, key), ['labels.csv', 'reports.csv', 'views.csv']),
    readings=(calls, lambda o: by_pseudonym(o/'readings.csv', ('reader', 'rating'), key), ['readings.csv']),
    mura=(mura, lambda o: read_mura(o, valid='valid'), ['train_image_paths.csv', 'valid_labeled_studies.csv']),
    chexpert=(chexpert, lambda o: read_chexpert(o, valid='valid'), ['train.csv', 'valid.csv']),
    mimic=(mimic, lambda o: read_mimic_cxr(o, partial=True),
           [f'mimic-cxr-2.0.0-{o}.csv.gz' for o in ('metadata', 'split', 'chexpert')]),
    padchest=(padchest, lambda o: read_padchest(o, partial=True),
              ['PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv']),
    grazpedwri=(graz, lambda o: read_grazpedwri(o, partial=True), ['dataset.csv', '1.txt']),
    fracatlas=(fracatlas, lambda o: read_fracatlas(o, 'dupgroup'),
               ['dataset.csv', 'provenance.csv', 'Annotations/COCO JSON/COCO_fracture_masks.json']),
    yolo=(fracatlas, lambda o: read_fracatlas(o, 'image', boxes='yolo'), ['dataset.csv', 'Annotations/YOLO/1.txt']),
    csv=(hospital, lambda o: read_csv(o/'labels.csv', 'StudyInstanceUID'), ['labels.csv']),
    json=(fracatlas, lambda o: read_json(o/'Annotations/COCO JSON/COCO_fracture_masks.json', dict),
          ['Annotations/COCO JSON/COCO_fracture_masks.json']),
    annotated=(noted, read_reports, ['reports.csv', 'labels.csv']),
    metrics=(metrics, lambda o: read_table(o/'m.csv'), ['m.csv']),
    run=(left, lambda o: (load_run(o).history, load_run(o).predictions), ['history.csv', 'predictions.parquet']),
    parquet=(stored, lambda o: read_studies(o/'s.parquet'), ['s.parquet']),
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

cells = ['', ' ', 'x', secret, f'"{secret}"', '1e999', '9'*400, '-1', '0.5', '1,5', '7', 'nan', 'None', 'True', 'true',
         '²', '½', '𝟙', '٣', 'ä', '\0', '\ud800', '\u202e', '[', '[[[', '[[1, 2, 3]]', '[[NaN, 1, 2, 3]]', "['a'", '{}',
         '[[1, 2, 1e400, 9]]', '['*3000, '"', '""', "'", '\\', '\r', '\r\n', ';', 'a|b', '|', '2020-13-45',
         '2010-03-04', '20101304', '1E+15', '1_0', '1_000', '0x1', '0x10', '+1', '1 ', '0', '1', '2', '0.png',
         '../../../etc/passwd', '../../x', '/dev/zero', '=1+1', '=HYPERLINK("x")', '\x1b[31m', '\x1b]0;x\x07']
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
    i, j, kind = rng.randrange(len(rows)), rng.randrange(max(len(rows[0]), 1)), rng.randrange(25)
    if kind < 8: rows[i][min(j, len(rows[i])-1)] = rng.choice(cells)
    elif kind == 8: rows = [o+o for o in rows] # every column twice
    elif kind == 9: rows = [o[:j]+o[j+1:] for o in rows]
    elif kind == 10: rows.insert(i, [rng.choice(cells) for _ in rows[0]])
    elif kind == 11: rows[1:] = [o[::-1] for o in rows[1:]]
    elif kind == 12: rows = rows+rows[1:]
    elif kind == 13: rows = rows[1:] or [[secret]]
    elif kind == 14: rows[1:] = [[rng.choice(cells)]*len(o) for o in rows[1:]]
    elif kind == 15: rows[0] = [o*2000 for o in rows[0]]
    elif kind == 16: rows = [o*rng.choice([1, 50, 3000]) for o in rows]
    elif kind == 17: rows = [rows[0]]
    elif kind == 18: rows[i] = rows[i]+['']*rng.randint(1, 3)
    elif kind == 19: rows[i] = rows[i][:-1]
    elif kind == 20: rows.insert(i, rows[i])
    elif kind == 21: rows[0] = [o.upper() for o in rows[0]]
    elif kind == 22: rows = [o[::-1] for o in rows]
    elif kind == 23: rows = [[';'.join(o)] for o in rows]
    elif kind == 24: rows = [[*o[:-1], o[-1]+'\r'] for o in rows]
    return '\n'.join(map(','.join, rows)).encode('utf-8', 'surrogatepass')


def flipped(data, rng):
    "Some bits turned"
    bad = bytearray(data)
    for _ in range(5):
        if bad: bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    return bytes(bad)


def harm_bytes(data, rng):
    "Bytes in another encoding, packing or order, cut, or exchanged"
    kind, at = rng.randrange(17), rng.randrange(len(data)+1)
    text, mark = data.decode('latin-1'), b'\xef\xbb\xbf'
    whole = [lambda: data[:at], lambda: data[at:], lambda: mark+data, lambda: mark*2+data,
             lambda: data[:at]+mark+data[at:], lambda: flipped(data, rng),
             lambda: data.decode('utf-8', 'replace').encode('latin-1', 'replace'),
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


def tried(read, root, public=False):
    "One line of an error, or '' for a value; anything else ends the test"
    begin = time.process_time()
    try: read(root); line = ''
    except InputError as e: line = str(e)
    assert time.process_time()-begin < 5
    assert '\n' not in line and (public or secret not in line) and len(line) < 600
    return line


def lines_of(name, reader, folder, harm=damaged, public=False):
    "What a reader says of a folder, each time one of its files is damaged; a file that it fails on is kept beside"
    write, read, files = reader
    write(folder)
    whole = {f: (folder/f).read_bytes() for f in files}
    assert tried(read, folder) == ''
    rng, lines = random.Random(f'{name} {seed}'), []
    for i in range(many):
        f = files[i % len(files)]
        bad = harm(f, whole[f], rng)
        (folder/f).write_bytes(bad)
        try: lines.append(tried(read, folder, public))
        except BaseException:
            with contextlib.suppress(OSError): (folder.parent/f'{name}.{i}').write_bytes(bad)
            print(name, f, i, bad[:2000])
            raise
        (folder/f).write_bytes(whole[f])
    return lines


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', readers)
def test_a_damaged_file_is_a_value_or_one_line(name, tmp_path, capfd):
    lines = lines_of(name, readers[name], tmp_path, public=name in ('papers', 'profile'))
    assert any(lines) or name == 'record' and many < 50 # it holds any JSON
    out = capfd.readouterr()
    assert secret not in out.out+out.err


own = dict(key=['is no key file'], cache=['with build_cache']) # what stands there is said in these words


@pytest.mark.parametrize('name', readers)
def test_what_stands_where_a_table_should_is_one_line(name, tmp_path):
    write, read, files = readers[name]
    write(tmp_path)
    read(tmp_path) # what is remembered is not read again
    for place in [tmp_path/o for o in files]:
        whole = place.read_bytes()
        place.unlink(); place.mkdir()
        assert own.get(name, ['is a folder, not a file'])[0] in tried(read, tmp_path), place
        place.rmdir(); os.mkfifo(place)
        assert own.get(name, ['is a pipe or device, not a file'])[0] in tried(read, tmp_path), place
        place.unlink(); place.symlink_to('nowhere')
        line, missing = tried(read, tmp_path), ('there is no such file', f'lacks {place.name}', f'left no {place.name}',
                                                'no finished run', 'no run and no kept record')
        assert any(o in line for o in own.get(name, missing)), line
        place.unlink(); place.write_bytes(whole)
    (tmp_path/files[0]).write_bytes(b'')
    assert tried(read, tmp_path) or name == 'codes' # no file has a code yet


@pytest.mark.parametrize('name', ['boxes', 'coco', 'ct', 'readers', 'papers'])
def test_an_optional_table_is_passed_over_only_where_nothing_has_its_name(name, tmp_path):
    write, read, files = readers[name]
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
