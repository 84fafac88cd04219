"Scrubbed reports keep their medicine and lose their names; what a run keeps names no file of an export"
import gzip
import os
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radinet_nb.annotation.report_tables import read_reports
from radinet_nb.annotation.rules import rule_label
from radinet_nb.annotation.triggers import after_comma, phrase_slots, trigger_kinds
from radinet_nb.data.hospital import read_hospital
from radinet_nb.data.identity import scrub, scrub_counted
from radinet_nb.data.known_names import common_words, report_words
from radinet_nb.data.notebooks import run_alone
from radinet_nb.errors import InputError
from radinet_nb.synthetic.dicom_files import write_dicom

sentences = pd.read_csv(Path(__file__).parents[1]/'nbs'/'annotation'/'fracture_sentences.csv').sentence
awkward = ['NO^JIMIN', 'NO^NAME', 'FRACTURE^TEST', 'HAND^ANN', 'OLD^MAY', 'NOT^AN', 'WITHOUT^SEEN', 'SHAFT^LONG',
           'IN^SO', 'LEFT^WRIST', 'NEW^RADIUS^A', 'Fracture Clinic North', 'Hospital No 5', 'Wrist Street No 5',
           'No Fracture Clinic', 'Radius Health', 'ACUTE^SEEN', 'Bone and Joint Center', '5', '12', 'L4']


@pytest.mark.parametrize('known', awkward)
def test_no_name_takes_finding_or_negation_out_of_a_report(known):
    says = lambda text: str(rule_label(text)[0])
    assert [o for o in sentences if says(o) != says(scrub(o, [known]))] == []


def test_no_word_of_the_rules_is_taken_for_a_name():
    texts = [*trigger_kinds.values(), *phrase_slots.values(), after_comma]
    words = {o.strip("'") for text in texts for o in re.findall(r"[a-z']{2,}", re.sub('[A-Z]+', '', text))}
    assert words-{''} <= report_words | common_words, sorted(words-report_words-common_words)


@pytest.mark.parametrize(('known', 'text'), [
    ('SALTER^ANN', 'Salter-Harris II injury of the distal radius.'), ('HARRIS^ANN', 'Salter-Harris 2 injury.'),
    ('BARTON^CLARA', 'Barton injury of the radius.'), ('BENNETT^AL', 'Bennett lesion of the thumb.'),
    ('CRACK^AL', 'Crack in the radius.'), ('CHIP^AL', 'Bony chip.'), ('MOTHER^AN', 'Mother had a fracture.'),
    ('FAILED^AL', 'Failed to show a fracture.'), ('QUERY^AL', 'Query fracture.'), ('COLLES^AL', "Colles' deformity.")])
def test_a_fracture_that_is_called_after_a_person_stays(known, text):
    assert scrub(text, [known]) == text
    for said in f'{known.title().replace("^", ", ")} was seen.', f'Mrs {known.split("^")[0].title()} fell.':
        assert known.split('^')[0].title() not in scrub(said, [known]), said


left = {'GARCIA-LOPEZ^ANA':['García', 'Lopez', 'Garcia Lopez', 'garcía-lópez', 'LOPEZ', 'García’s'],
        'KRÜGER^INGE':['Krügers', 'Kruegers', 'KRUEGERS'], 'HARTMANN^JO':['Hartmanns'],
        'MCKENZIE^AL':['Mc Kenzie', 'MacKenzie'],
        'LØKKEN^PER':['Loekken', 'Lokken'], 'QR-8841/2':['QR88412', 'QR 8841 2', 'qr_8841_2'],
        "D'ANGELO^LEA":['D’Angelo', 'DAngelo', "d'angelo", 'Angelo'],
        'VAN DER BERG^JAN':['van der Berg', 'Berg', 'BERG_JAN'],
        'STROEBELE^URS':['Ströbele', 'STRÖBELE', 'Strobele'], 'WEISS^INA':['Weiß', 'WEISS', 'Weiss'],
        'NOVÁK^JIŘÍ':['Novak', 'Jiri', 'Nova\u0301k'], 'Li^Na=李^娜':['李娜', '李 娜'],
        'Satou^Hana=佐藤^花子':['佐藤花子', '佐藤', '花子さん'],
        'Park^Jisoo=박^지수':['박지수', '지수씨'], 'ИВАНОВА^АННА':['Иванова', 'иванова'],
        'Иванов^Иван':['Иванова', 'Ивановым', 'ИВАНОВУ'],
        'XQ77-12B':['XQ77-12B', 'xq77-12b'],
        'Løvås^Åse'.encode().decode('cp1252', 'ignore'):['Løvås'], 'Peters, Maria':['Peters', 'maria']}


@pytest.mark.parametrize('known', left)
def test_every_spelling_of_a_name_goes(known):
    for text in left[known]:
        assert scrub(f'Report on {text}; no fracture.', [known]) != f'Report on {text}; no fracture.', text
        assert scrub(f'Report on {text}; no fracture.', [known]).endswith('no fracture.')


forms = ['7. Juni 2021', 'on the 3rd of August, 2020', '14 février 2019', 'Feb. 2018', 'aged 96', '97 yo',
         'dr brown-smith', 'Anna Kern, M.D.', 'ext. 4417', 'Tel 030 4711', 'Prof. Ay', 'signed by Anna Kern',
         '2021-06-07 12:30', '2021-06-07T12:30:11',
         '2021-06-07T12:30Z', 'Dr kern', 'Prof. kern', 'electronically signed: A. Kern',
         'Dr Young', 'Mr Black', 'Mrs King', 'Seen by Dr Brown', 'reported by Green', '03FEB1990', 'J.Smith MD',
         'Signed: J Smith', 'aged ninety-four', 'in her 94th year', 'DOB 3 2 1990', 'passport C01X00T47',
         'x.y@z.co.uk', 'née en 1975', 'Herrn Kern', 'KIS-Nr 4711812']


@pytest.mark.parametrize('text', forms)
def test_plain_patterns_go(text): assert sum(scrub_counted(f'Seen: {text}, normal.')[1].values()) >= 1


units = ['a.', '1.', '1-', 'id:', 'Dr. A', 'roe ', 'ü', 'a@a.', 'X, ', '12 march ', 'tel 1', '(', '王']


@pytest.mark.parametrize('unit', units)
def test_no_report_holds_up_the_scrubbing(unit):
    began = time.process_time()
    text, counts = scrub_counted(unit*(1_000_000//len(unit)), ['ROE^JANE', 'MÜLLER^X', '王^小东'])
    assert time.process_time()-began < 5 and counts['cut'] == 1 and len(text) < 400_000


def test_a_run_names_no_file_of_the_export(tmp_path):
    export, rng = tmp_path/'export', np.random.default_rng(0)
    for n in range(1, 13):
        for view in 'PA', 'LL':
            tags = dict(StudyInstanceUID=f'1.2.{n}', PatientID=f'MRNX{n}', PatientName='ZWANZIGER^ROSA',
                        ViewPosition=view, SOPInstanceUID=f'1.2.{n}.{view == "PA":d}', StudyDate='20200301',
                        BodyPartExamined='WRIST')
            write_dicom(export/f'ZWANZIGER {n}'/f'{view}.dcm', rng.integers(0, 255, (40, 40)).astype(np.uint8), **tags)
    (export/'ZWANZIGER.txt').write_text('no DICOM')
    rows = ''.join(f'1.2.{n},{n % 2},"Frau Zwanziger: no fracture."\n' for n in range(1, 13))
    (export/'labels.csv').write_text('StudyInstanceUID,fracture,x\n'+rows)
    (export/'reports.csv').write_text('StudyInstanceUID,x,report\n'+rows)
    run = run_alone('steps/ingest', data={'hospital':str(export)}, key=str(tmp_path/'key'), pixels=32,
                    shares=[0.5, 0.25, 0.25])
    content = lambda o: o.read_bytes().lower() if o.is_file() else b''
    named = [o for o in run.rglob('*') if 'zwanziger' in o.name.lower() or b'zwanziger' in content(o)]
    assert named == [] and (run/'quarantine_hospital.csv').read_text().count('\n') == 2
    listed = pd.read_csv(tmp_path/'key.files.csv', index_col='code').file
    assert listed[pd.read_parquet(run/'views.parquet').path].str.contains('ZWANZIGER').all()
    assert read_reports(run).report.str.contains('fracture').all()


def test_a_report_loses_the_names_that_other_files_of_its_patient_know(tmp_path):
    export, pixels = tmp_path/'export', np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)
    files = dict(a=('M1', '1.1', ''), b=('M1', '1.2', 'ROE^JANE'), c=('M2', '1.3', 'POE^JIM'))
    for i, (name, (patient, study, person)) in enumerate(files.items()):
        write_dicom(export/f'{name}.dcm', np.roll(pixels, i), PatientID=patient, StudyInstanceUID=study,
                    SOPInstanceUID=f'{study}.1', PatientName=person, BodyPartExamined='WRIST', ViewPosition='PA')
    # no radiograph, and so not used: it knows another name of the same patient
    write_dicom(export/'ct.dcm', pixels, PatientID='M1', StudyInstanceUID='1.1', SOPInstanceUID='1.1.2', Modality='CT',
                PatientName='JANE^OLSEN')
    (export/'reports.csv').write_text('StudyInstanceUID,report\n1.1,"Mrs Roe, born Olsen: no fracture."\n1.2,Olsen\n'
                                      '1.3,Roe and Poe\n')
    reports = read_hospital(export, tmp_path/'key').studies.report
    assert sorted(reports) == ['Mrs [name], born [name]: no fracture.', 'Roe and [name]', '[name]']


def test_odd_tables_of_reports_end_in_a_value_or_a_line(tmp_path):
    text = 'study,report\n1,Fracture déplacée\n2,Normal\n'
    for encoding in ('utf-16', 'utf-16-le', 'utf-16-be', 'utf-8-sig', 'cp1252'):
        (tmp_path/'r.csv').write_bytes(text.encode(encoding))
        assert read_reports(tmp_path/'r.csv').key.tolist() == ['1', '2'], encoding
    for old,new in ((',', ';'), (',', '\t'), ('\n', '\r\n'), ('Normal', 'Normal,')):
        content = text.replace(old, new)
        (tmp_path/'r.csv').write_text(content)
        assert len(read_reports(tmp_path/'r.csv')) == 2
    (tmp_path/'r.csv').write_bytes(gzip.compress(b'study,report\n1,"' + b'Fracture d\xe9plac\xe9e, '*10_000 + b'"\n'))
    assert read_reports(tmp_path/'r.csv').report.str.count('d\udce9plac').tolist() == [10_000] # no cell is too long
    os.mkfifo(tmp_path/'fifo.csv')
    (tmp_path/'wide.csv').write_text(','.join(f'c{i}' for i in range(20_000)))
    (tmp_path/'twice.csv').write_text('study,report,Report\n1,a,b\n')
    (tmp_path/'cut.parquet').write_bytes(b'PAR1'+bytes(90)+b'PAR1')
    for name in ('fifo.csv', 'wide.csv', 'twice.csv', 'cut.parquet'):
        with pytest.raises(InputError) as e: read_reports(tmp_path/name)
        assert '\n' not in str(e.value)
    odd = pd.Series(['\ud800 fracture', ['a', 'b'], np.arange(3), 7, None], dtype=object)
    assert len(read_reports(pd.DataFrame({'study':range(5), 'report':odd}))) == 5
