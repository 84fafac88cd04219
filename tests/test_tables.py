"Foreign tables: a value, or one line that names file, row and column and shows no cell; nothing falls out unsaid"
import gzip
import json
import os
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radinet_nb.analysis.froc import froc, tally
from radinet_nb.annotation.report_tables import read_reports
from radinet_nb.data.chests import read_chexpert, read_mimic_cxr, read_padchest
from radinet_nb.data.class_folders import read_classes
from radinet_nb.data.fracatlas import read_fracatlas
from radinet_nb.data.grazpedwri import read_grazpedwri
from radinet_nb.data.hospital import hospital_choices, hospital_column, read_hospital
from radinet_nb.data.mura import read_mura
from radinet_nb.data.readings import by_pseudonym
from radinet_nb.data.runs import load_run
from radinet_nb.data.studies import read_studies, study_table, write_studies
from radinet_nb.data.table_files import read_csv
from radinet_nb.data.text_files import read_json
from radinet_nb.data.visits import visit_types
from radinet_nb.errors import InputError
from radinet_nb.evidence.metrics_tables import read_table
from radinet_nb.synthetic.dicom_files import write_dicom

key, secret = b'k'*32, 'Roe^Jane'
ramp = np.tile(np.arange(64, dtype=np.uint16)*60, (64, 1))
many = int(os.environ.get('RADINET_DAMAGED_TABLES', 8)) # of each reader; 500 were tried once


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


def published(root):
    (root/'m.csv').write_text('model,accuracy,recall,n\nRoe^Jane,79.71,69.78,563\nb,66.96,55.76,563\n')


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
    metrics=(published, lambda o: read_table(o/'m.csv'), ['m.csv']),
    run=(left, lambda o: (load_run(o).history, load_run(o).predictions), ['history.csv', 'predictions.parquet']),
    parquet=(stored, lambda o: read_studies(o/'s.parquet'), ['s.parquet']))

odd_cells = ['', ' ', 'x', '1e999', '-1', '7', '1,5', '0.5', '²', 'nan', 'None', '"', '""', '[', "['a'", '20101304',
             '1E+15', '2010-03-04', '../../x', '\u202e', 'ä', '=1+1', '9'*400, '\x1b[31m', 'True', '1_000', '0x10', '٣',
             '\r', ';', '{}']


def damaged(content, rng):
    "One of the ways in which a table comes to harm"
    packed = content[:2] == b'\x1f\x8b'
    text = (gzip.decompress(content) if packed else content).decode('latin-1')
    lines, kind = text.split('\n'), rng.integers(18)
    at = int(rng.integers(len(lines)))
    cells = lines[at].split(',')
    if kind < 6: cells[rng.integers(len(cells))] = odd_cells[rng.integers(len(odd_cells))]; lines[at] = ','.join(cells)
    elif kind == 6: lines[at] += ','*int(rng.integers(1, 4))
    elif kind == 7: lines[at] = ','.join(cells[:-1])
    elif kind == 8: del lines[0]
    elif kind == 9: lines.insert(at, lines[at])
    elif kind == 10: lines[0] = lines[0].upper()
    elif kind == 11: lines = [o.replace(',', ';') for o in lines]
    elif kind == 12: lines = [o+'\r' for o in lines]
    elif kind == 13: lines = [','.join(o.split(',')[::-1]) for o in lines]
    elif kind == 14: lines = lines[:1]
    code = ['utf-8', 'utf-16', 'utf-8-sig', 'latin-1'][rng.integers(4)] if kind == 15 else 'utf-8'
    new = '\n'.join(lines).encode(code, 'replace')
    if packed and kind != 16: new = gzip.compress(new)
    if kind == 16: new = content[:rng.integers(len(content)+1)]
    if kind == 17:
        new = bytearray(content)
        for o in rng.integers(0, len(new), 5): new[o] ^= 1 << int(rng.integers(8))
    return bytes(new)


def tried(read, root, public=False):
    "One line of an error, or '' for a value; anything else ends the test"
    begin = time.process_time()
    try: read(root); line = ''
    except InputError as e: line = str(e)
    assert time.process_time()-begin < 5
    assert '\n' not in line and (public or secret not in line) and len(line) < 600
    return line


@pytest.mark.parametrize('name', readers)
def test_a_damaged_table_is_a_value_or_one_line(name, tmp_path, capfd):
    write, read, files = readers[name]
    write(tmp_path)
    whole = {f: (tmp_path/f).read_bytes() for f in files}
    assert tried(read, tmp_path) == ''
    rng, lines = np.random.default_rng([ord(o) for o in name]), []
    for i in range(many):
        f = files[i % len(files)]
        (tmp_path/f).write_bytes(damaged(whole[f], rng))
        lines.append(tried(read, tmp_path))
        (tmp_path/f).write_bytes(whole[f])
    assert any(lines)
    out = capfd.readouterr()
    assert secret not in out.out+out.err


@pytest.mark.parametrize('name', readers)
def test_what_stands_where_a_table_should_is_one_line(name, tmp_path):
    write, read, files = readers[name]
    write(tmp_path)
    for place in [tmp_path/o for o in files]:
        whole = place.read_bytes()
        place.unlink(); place.mkdir()
        assert 'is a folder, not a file' in tried(read, tmp_path)
        place.rmdir(); os.mkfifo(place)
        assert 'is a pipe or device, not a file' in tried(read, tmp_path)
        place.unlink(); place.symlink_to('nowhere')
        line, missing = tried(read, tmp_path), ('there is no such file', f'lacks {place.name}', f'left no {place.name}')
        assert any(o in line for o in missing), line
        place.unlink(); place.write_bytes(whole)
    (tmp_path/files[0]).write_bytes(b'')
    assert tried(read, tmp_path)


@pytest.mark.parametrize('text, found', [
    ('StudyInstanceUID,fracture\n1.2.0,1,\n1.2.1,0,\n', 2), ('StudyInstanceUID,fracture\n1.2.0,1,\n1.2.1,0\n', 2),
    ('STUDYINSTANCEUID, Fracture\n1.2.0,1\n1.2.1,0\n', 2), ('studyinstanceuid;fracture\n1.2.0;1\n1.2.1;0\n;\n', 2),
    ('StudyInstanceUID,fracture\n1.2.0,1\n\n1.2.1,0\n,\n', 2), ('StudyInstanceUID,fracture,\n1.2.0,1,\n1.2.1,0,\n', 2),
    ('StudyInstanceUID,fracture\n1.2.0,1\n1.2.1\n', 'row 3 has 1 cells'),
    ('StudyInstanceUID,fracture\n1.2.0,Roe, Jane\n', 'row 2 has 3 cells'),
    ('StudyInstanceUID,fracture\n1.2.0,Roe\n', 'row 2, column fracture: is neither 0 nor 1'),
    ('1.2.0,Roe^Jane\n1.2.1,0\n', 'lacks the column fracture'),
    ('StudyInstanceUID,fracture\n1.2.0,\n', 'states no fracture'),
    ('StudyInstanceUID,fracture\n', 'states no fracture'),
    ('StudyInstanceUID,fracture\n1.2E+15,1\n', 'rounded by a spreadsheet'),
    ('StudyInstanceUID,fracture,Fracture\n1.2.0,1,0\n', 'two columns fracture'),
    ('StudyInstanceUID,fracture\n1.2.0,"1\n1.2.1,0\n', 'a quotation mark')])
def test_labels_are_read_or_refused_with_their_row(text, found, tmp_path):
    (tmp_path/'labels.csv').write_text(text)
    if isinstance(found, int): assert len(hospital_column(tmp_path/'labels.csv', 'fracture', key)) == found; return
    with pytest.raises(InputError, match=found) as e: hospital_column(tmp_path/'labels.csv', 'fracture', key)
    assert 'Roe' not in str(e.value)


def test_a_table_that_labels_nothing_is_an_error(tmp_path):
    hospital(tmp_path)
    (tmp_path/'labels.csv').write_text('AccessionNumber,fracture\nB0,1\n')
    with pytest.raises(InputError, match='none of the 1 ids in labels.csv'): read_hospital(tmp_path, key)
    (tmp_path/'labels.csv').rename(tmp_path/'Labels.csv')
    with pytest.raises(InputError, match='is called Labels.csv here'): read_hospital(tmp_path, key)
    (tmp_path/'m').mkdir(); mura(tmp_path/'m')
    labels = tmp_path/'m'/'train_labeled_studies.csv'
    whole = labels.read_text()
    labels.write_text(whole.replace('study1', 'study2'))
    with pytest.raises(InputError, match='labels none of the images'): read_mura(tmp_path/'m')
    for text in whole.replace('/,', ',').replace('/', '\\'), whole+whole:
        labels.write_text(text)
        assert read_mura(tmp_path/'m', valid='valid').account['studies_without_label'] == 0
    (tmp_path/'c').mkdir(); chexpert(tmp_path/'c')
    table = pd.read_csv(tmp_path/'c'/'train.csv')
    table.astype(object).assign(Fracture=[1, 0, 'present', 1]).to_csv(tmp_path/'c'/'train.csv', index=False)
    with pytest.raises(InputError, match='train.csv: row 4, column Fracture: is no number'): read_chexpert(tmp_path/'c')


def test_dates_that_are_no_whole_numbers_are_counted(tmp_path):
    (tmp_path/'m').mkdir(); mimic(tmp_path/'m')
    table = tmp_path/'m'/'mimic-cxr-2.0.0-metadata.csv.gz'
    text = gzip.decompress(table.read_bytes()).decode()
    table.write_bytes(text.replace('21800101', '21800101.5').replace('21800102', 'May').encode()) # and unpacked
    studies, _, account = read_mimic_cxr(tmp_path/'m')[:3]
    assert account['dates_unread'] == 2 and studies.date.isna().tolist() == [True, True, False]
    (tmp_path/'p').mkdir(); padchest(tmp_path/'p')
    table = next((tmp_path/'p').glob('*.csv'))
    table.write_text(table.read_text().replace('20100301', '20100301.5').replace('1951', 'long ago'))
    studies, _, account = read_padchest(tmp_path/'p')[:3]
    assert account['dates_unread'] == 2 and studies.age.isna().tolist() == [True, True, False, False]


def test_polygons_are_boxes_and_lines_without_a_box_are_refused(tmp_path):
    fracatlas(tmp_path)
    boxes = read_fracatlas(tmp_path, 'image', boxes='yolo').studies.boxes.tolist()
    assert boxes[1] == '[[6.0, 8.0, 12.0, 16.0]]' and boxes[0] == '[]'
    for line in '0 .5 .5 .2', '0 .5 .5 0 .2', '0 15 20 3 4', '0 nan .5 .2 .2', 'x .5 .5 .2 .2':
        (tmp_path/'Annotations/YOLO/1.txt').write_text('0 .5 .5 .2 .2\n'+line)
        with pytest.raises(InputError, match='1.txt: line 2 is no box'): read_fracatlas(tmp_path, 'image', boxes='yolo')


def test_hidden_files_are_no_images_and_equal_names_no_study(tmp_path):
    for name in 'Hand/p1/image1.png', 'Hand/p2/image1.png', 'Hand/p2/image1.jpg', 'Hip/image1.png':
        picture(tmp_path/name)
    for name in 'Hand/p1/._image1.png', '__MACOSX/Hand/._a.png', 'Hand/.cache/a.png', 'Hand/Thumbs.db':
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True); (tmp_path/name).write_bytes(b'\0\5\x16\7')
    reading = read_classes(tmp_path, 'image')
    assert reading.account == dict(images=4, used=4, other_files=0, Hand=3, Hip=1)
    assert reading.studies.patient.nunique() == 4 and reading.studies.study.nunique() == 4


def person(export, n, patient, day, **tags):
    tags = dict(PatientName='Poe^Ann', PatientBirthDate='19700102') | tags
    write_dicom(export/f'{n}', ramp+n, PatientID=patient, StudyInstanceUID=f'1.{n}', StudyDate=day, **tags)


@pytest.mark.parametrize('ids', [('mrn0001', 'MRN0001'), ('0012', '12'), ('MRN 7', 'MRN7'), ('A-12', 'a12')])
def test_one_person_in_two_spellings_is_one_patient_with_right_days(ids, tmp_path):
    for n,(patient, day) in enumerate(zip([*ids, ids[0]], ['20200101', '20200115', '20200129'], strict=True)):
        person(tmp_path, n, patient, day)
    person(tmp_path, 3, '99', '20200101', PatientName='Roe^Jane')
    studies, _, account = read_hospital(tmp_path, key)[:3]
    assert studies.patient.nunique() == 2 and account['ids_merged'] == 1
    assert visit_types(studies).days.dropna().tolist() == [14, 14]
    with pytest.raises(InputError, match='1 pairs of patient ids are probably one person'):
        read_hospital(tmp_path, key, persons='refuse')


def test_other_persons_stay_apart_and_suspicions_are_counted(tmp_path):
    person(tmp_path, 0, '12', '20200101'); person(tmp_path, 1, '0012', '20200101', PatientBirthDate='19800102')
    person(tmp_path, 2, 'X9', '20200115')
    studies, _, account = read_hospital(tmp_path, key)[:3]
    assert studies.patient.nunique() == 3 and (account['ids_merged'], account['ids_suspected']) == (0, 1)
    assert read_hospital(tmp_path, key, persons='merge').studies.patient.nunique() == 2


def test_views_that_contradict_each_other_are_counted(tmp_path):
    person(tmp_path, 0, '1', '20200101', ViewPosition='PA', SeriesDescription='Wrist lateral')
    person(tmp_path, 1, '2', '20200101', ViewPosition=None, SeriesDescription='Wrist seitl.', PatientAge='000Y',
           PatientName='Roe^Jane')
    studies, _, account = read_hospital(tmp_path, key)[:3]
    assert account['views_contradict'] == 1 and sorted(studies['view']) == ['frontal', 'lateral']
    assert account['ages_contradict'] == 1 and studies.age.min() > 49


@pytest.mark.parametrize('detections, truths, problem', [
    ([([[10, 10, 5, 5]], [.9])], [[[10, 10, 15, 15]]], 'x1 < x0'),
    ([([[0, 0, 2, 2]], [.9])], [[[10, 10, 5, 5]]], 'x1 < x0'),
    ([([[np.nan, 0, 2, 2]], [.9])], [[]], 'no place'), ([([[0, 0, 2, 2]]*2, [.9])], [[]], '2 boxes, scores of shape'),
    ([([[0, 0, 2, 2]], [np.nan])], [[]], 'empty or infinite'), ([([[0, 0, 2]], [.9])], [[]], 'not four numbers'),
    ([([[0, 0, 2, 2]], .9)], [[]], '1 boxes, scores of shape'), ([[[0, 0, 2, 2]]], [[]], 'no pair'),
    ([], [[]], '0 images')])
def test_boxes_in_another_form_are_said(detections, truths, problem):
    with pytest.raises(InputError, match=problem): tally(detections, truths)


def test_good_boxes_are_found():
    assert froc(tally([([[10, 10, 15, 15]], [.9])]*5, [[[10, 10, 15, 15]]]*5), resamples=20).value[0] == 1
