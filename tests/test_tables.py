"Foreign tables: right values, and lines that name file, row and column; nothing falls out unsaid"
import gzip

import numpy as np
import pandas as pd
import pytest
from test_damaged_tables import chexpert, fracatlas, hospital, key, mimic, mura, padchest, picture, ramp

from radinet_nb.analysis.froc import froc, tally
from radinet_nb.data.chests import read_chexpert, read_mimic_cxr, read_padchest
from radinet_nb.data.class_folders import read_classes
from radinet_nb.data.fracatlas import read_fracatlas
from radinet_nb.data.hospital import hospital_column, read_hospital
from radinet_nb.data.mura import read_mura
from radinet_nb.data.visits import visit_types
from radinet_nb.errors import InputError
from radinet_nb.synthetic.dicom_files import write_dicom


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
