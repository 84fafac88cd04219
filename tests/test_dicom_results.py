"Reports and captures that `radinet predict --dicom` writes, read by pydicom and checked by dicom3tools"
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import dcmread

from radinet_nb.synthetic.dicom_files import write_dicom

pytest.importorskip('highdicom')
CONFIG = dict(name='Lesson', version='1', task='fracture', classes=['none', 'fracture'], synthetic=True, run='abc',
              unit='pair', weights_sha256='0')
MARK = 'Research use only. Not for diagnosis.'


@pytest.fixture(scope='module', params=['pseudonyms', 'public'])
def written(request, tmp_path_factory):
    "Report and capture of a pair of views, and their key"
    from radinet_nb.models.dicom_results import write_dicom_results
    folder = tmp_path_factory.mktemp('dicom')
    tags = dict(PatientID='MRN17', PatientName='Roe^Jane', PatientBirthDate='19700101', PatientSex='F',
                StudyDate='20200102', StudyTime='101112', StudyID='55', StudyInstanceUID='1.2.3', Modality='DX',
                AccessionNumber='ACC9', SeriesInstanceUID='1.2.4')
    paths = [write_dicom(folder/f'{i}.dcm', np.zeros((40, 30), 'uint16'), **tags, SOPInstanceUID=f'1.2.5.{i}')
             for i in (1, 2)]
    (folder/'overlays').mkdir()
    Image.fromarray(np.arange(24*20*3, dtype='uint8').reshape(24, 20, 3)).save(folder/'overlays'/'s1.png')
    table = pd.DataFrame(dict(study=['s1'], probability=.8123, threshold=.5, decision='fracture', note=''))
    cases = pd.DataFrame(dict(study=['s1'], patient='p1', path='|'.join(map(str, paths))))
    key = bytes(32) if request.param == 'pseudonyms' else None
    names = write_dicom_results(CONFIG, SimpleNamespace(table=table, cases=cases), ['s1.png'], folder, key)
    assert names == ['00001.report.dcm']
    return folder/'dicom', key


def test_both_are_marked_and_belong_to_one_study(written):
    folder, key = written
    report, capture = (dcmread(folder/o) for o in ('00001.report.dcm', '00001.overlay1.dcm'))
    assert report.SeriesDescription == capture.SeriesDescription == capture.ImageComments == MARK
    assert (report.VerificationFlag, report.PreliminaryFlag) == ('UNVERIFIED', 'PRELIMINARY') and MARK in str(report)
    assert report.StudyInstanceUID == capture.StudyInstanceUID and report.PatientID == capture.PatientID
    assert report.ContentTemplateSequence[0].TemplateIdentifier == '1500'
    of = [o.ReferencedSOPInstanceUID for o in capture.SourceImageSequence]
    assert len(of) == 2 and all(o in str(report) for o in of) # both views stand behind both
    assert capture.pixel_array.shape == (24, 20, 3)
    if key is None: assert (report.PatientID, report.StudyInstanceUID, of[0]) == ('MRN17', '1.2.3', '1.2.5.1')


def test_nobody_is_named_without_public(written):
    folder, key = written
    if key is None: pytest.skip('these files identify nobody')
    for path in folder.iterdir():
        data = path.read_bytes()
        named = b'MRN17', b'Roe', b'19700101', b'20200102', b'ACC9', b'1.2.5.1'
        assert [o for o in named if o in data] == [], path.name


@pytest.mark.skipif(not shutil.which('dciodvfy'), reason='dicom3tools is not installed')
def test_a_validator_accepts_them(written):
    for path in written[0].iterdir():
        res = subprocess.run(['dciodvfy', '-new', path], capture_output=True, text=True)
        assert [o for o in (res.stderr + res.stdout).splitlines() if o.startswith('Error')] == [], path.name
