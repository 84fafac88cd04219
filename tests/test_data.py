"The data wing: properties of splits and fingerprints, and the reading of real collections where they are at hand"
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radinet_nb.data.dicom import names_in
from radinet_nb.data.gray_values import read_dicom
from radinet_nb.data.guard import check_disjoint
from radinet_nb.data.headers import read_header
from radinet_nb.data.images import pad_resize
from radinet_nb.data.schema import columns, splits
from radinet_nb.data.studies import read_studies, split_studies, study_table, validate, write_studies
from radinet_nb.errors import InputError
from radinet_nb.synthetic.dicom_files import write_dicom

real = Path(os.environ.get('RADINET_DATA', Path(__file__).resolve().parents[2]/'shared'/'data'))
views = st.tuples(st.integers(0, 30), st.integers(0, 2), st.sampled_from(['wrist', 'hand', 'elbow']),
                  st.sampled_from([0, 1, None]))
several_patients = st.lists(views, min_size=3, max_size=80).filter(lambda o: len({r[0] for r in o}) >= 3)


def table(rows, **kwargs):
    return study_table([dict(patient=f'p{p}', study=f'p{p}-{s}-{part}', body_part=part, label=label, path=f'/x/{i}.png')
                        for i,(p, s, part, label) in enumerate(rows)], collection='mine', **kwargs)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(several_patients, st.integers(0, 9))
def test_split_keeps_patients_whole_fills_every_side_and_ignores_row_order(rows, seed):
    cohort = split_studies(table(rows), seed=seed)
    assert cohort.groupby('patient').split.nunique().max() == 1
    assert set(cohort.split) == set(splits)
    again = split_studies(cohort.sample(frac=1, random_state=seed), seed=seed).set_index('path').split
    assert again[cohort.path].tolist() == cohort.split.tolist()


def test_split_holds_shares_and_prevalence_on_a_large_cohort():
    rng = np.random.default_rng(0)
    rows = [(p, s, part, int(rng.random() < rate)) for p in range(3000)
            for part,rate in [[('wrist', .4), ('hand', .2)][p % 3 == 0]] for s in range(1+(p % 5 == 0))]
    cohort = split_studies(table(rows))
    assert np.allclose(cohort.split.value_counts(normalize=True)[list(splits)], [.8, .1, .1], atol=.002)
    rates = cohort.groupby(['body_part', 'split']).label.mean().unstack()
    assert (rates.max(axis=1)-rates.min(axis=1)).max() < .02


def test_a_torn_patient_is_found_by_patient_study_path_and_group():
    base = table([(0, 0, 'wrist', 1), (0, 1, 'wrist', 0), (1, 0, 'wrist', 1)])
    with pytest.raises(InputError, match='1 patient on two sides'):
        validate(base.assign(split=['train', 'test', 'train']))
    other = base.assign(collection='copy', patient=['q', 'r', 's'])
    with pytest.raises(InputError, match='path'): check_disjoint(base.assign(split='train'), other.assign(split='test'))
    with pytest.raises(InputError, match='1 hash'):
        check_disjoint(base.assign(split='train', hash=[1, 2, 3]),
                       other.assign(split='test', hash=[3, 4, 5], path=other.path+'b'), by=['hash'])


def test_tables_survive_the_disk(tmp_path):
    cohort = table([(0, 0, 'wrist', 1), (1, 1, 'hand', None)])
    cohort = validate(cohort.assign(date=pd.Timestamp('2020-02-03'), boxes=['[[0, 1, 2, 3]]', '[]'], side='L'))
    write_studies(cohort, tmp_path/'a'/'studies.parquet')
    back = read_studies(tmp_path/'a'/'studies.parquet')
    pd.testing.assert_frame_equal(back, cohort)
    assert list(back) == [*columns, 'side']


ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
syntaxes = dict(
    implicit=dict(syntax=pydicom.uid.ImplicitVRLittleEndian), explicit=dict(syntax=pydicom.uid.ExplicitVRLittleEndian),
    big=dict(syntax=pydicom.uid.ExplicitVRBigEndian), deflated=dict(syntax=pydicom.uid.DeflatedExplicitVRLittleEndian),
    rle=dict(compress=pydicom.uid.RLELossless), j2k=dict(compress=pydicom.uid.JPEG2000Lossless))


@pytest.mark.parametrize('name', syntaxes)
def test_every_transfer_syntax_gives_the_same_pixels(name, tmp_path):
    file = write_dicom(tmp_path/'x', ramp, BitsStored=12, HighBit=11, **syntaxes[name])
    expected = syntaxes[name].get('compress') or syntaxes[name]['syntax']
    assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == expected
    assert (read_dicom(file) == (ramp/4095*255+.5).astype(np.uint8)).all()


def test_signed_rescaled_inverted_and_windowed_pixels_agree_with_pydicom(tmp_path):
    from pydicom.pixels import apply_modality_lut, apply_voi_lut
    rng = np.random.default_rng(0)
    for i in range(12):
        px = rng.integers(-2000, 2000, (40, 50)).astype(np.int16)
        slope, start = rng.choice([.5, 1, 3]), rng.integers(-500, 500)
        file = write_dicom(tmp_path/f'{i}', px, BitsStored=12, HighBit=11, RescaleSlope=str(slope),
                           RescaleIntercept=str(start), WindowCenter=str(rng.integers(-900, 900)),
                           WindowWidth=str(rng.integers(1, 3000)),
                           VOILUTFunction=['LINEAR', 'LINEAR_EXACT', 'SIGMOID'][i % 3],
                           PhotometricInterpretation=f'MONOCHROME{1+i % 2}')
        ds = pydicom.dcmread(file)
        gray = (apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds)-(-2048*slope+start))/(4095*slope)
        assert np.abs(read_dicom(file)-(gray if i % 2 else 1-gray)*255).max() <= .51


def test_a_voi_lut_is_honored(tmp_path):
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    file, lut = write_dicom(tmp_path/'x', ramp, BitsStored=12, HighBit=11), Dataset()
    lut.LUTDescriptor, lut.LUTData = [4096, 0, 8], [int((i/4095)**2*255) for i in range(4096)]
    lut['LUTDescriptor'].VR, lut['LUTData'].VR = 'US', 'US'
    ds = pydicom.dcmread(file); ds.VOILUTSequence = Sequence([lut]); ds.save_as(file)
    assert (read_dicom(file).ravel() == lut.LUTData).all()


def test_real_files_decode_and_agree_between_codecs():
    if not (real/'dicom').is_dir(): pytest.skip(f'no real DICOM files at {real}/dicom: set RADINET_DATA')
    images = {f.stem: read_dicom(f) for f in (real/'dicom').glob('*.dcm') if f.stem != 'RG2_JPLY'}
    assert len(images) == 9 and all(i.std() > 20 for i in images.values())
    assert (images['RG2_JPLL'] == images['RG2_JLSL']).all()
    assert np.abs(images['RG3_J2KI'].astype(int)-images['RG3_J2KR']).mean() < 1
    with pytest.raises(InputError, match='cannot be decoded'): read_dicom(real/'dicom'/'RG2_JPLY.dcm')
    facts = read_header(real/'dicom'/'HAND_NM_Kakadu44_SOTmarkerincons.dcm', b'key')
    assert (facts['body_part'], facts['view']) == ('hand', 'frontal')


def test_every_one_of_several_names_is_found_and_scrubbed():
    from radinet_nb.data.identity import scrub
    ds = pydicom.Dataset()
    ds.PatientName, ds.OtherPatientNames, ds.OtherPatientIDs = 'Roe^Jane', ['Poe^Jane', 'Loe^Jane'], ['M-1', 'M-2']
    assert names_in(ds) == {'Roe^Jane', 'Poe^Jane', 'Loe^Jane', 'M-1', 'M-2'}
    text = scrub('Poe, formerly Loe (M-2): no fracture.', names_in(ds))
    assert text == '[name], formerly [name] ([name]): no fracture.'


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(8, 64))
def test_padding_keeps_the_aspect(h, w, size):
    out = pad_resize(np.full((h, w), 255, dtype=np.uint8), size)
    rows, cols = (out > 0).any(1).sum(), (out > 0).any(0).sum()
    assert out.shape == (size, size) and max(rows, cols) == size
    assert abs(rows-max(1, h*size/max(h, w))) <= 1 and abs(cols-max(1, w*size/max(h, w))) <= 1


def test_a_cache_is_whole_is_reused_and_lists_what_it_lacks(tmp_path):
    import pickle

    from PIL import Image

    from radinet_nb.data.cache import ImageCache, build_cache, check_disk
    rng = np.random.default_rng(0)
    for i in range(6): Image.fromarray(rng.integers(0, 255, (30, 20+i), dtype=np.uint8)).save(tmp_path/f'{i}.png')
    (tmp_path/'3.png').write_bytes((tmp_path/'2.png').read_bytes()[:200])
    frame = pd.DataFrame(dict(path=[str(tmp_path/f'{i}.png') for i in range(6)]))
    cache = build_cache(frame, tmp_path/'c', 16, jobs=2)
    assert len(cache) == 5 and cache.unreadable.path.tolist() == [str(tmp_path/'3.png')]
    assert cache.rows_of(cache.readable(frame).path).tolist() == [0, 1, 2, 3, 4]
    for p,img in zip(cache.paths, cache.images, strict=True):
        assert (img == pad_resize(np.asarray(Image.open(p)), 16)).all()
    again = pickle.loads(pickle.dumps(cache))
    assert (again[[4, 0]] == cache[[4, 0]]).all()
    with pytest.raises(InputError, match='1 of 6 images are not in the cache'): cache.rows_of(frame.path)
    Image.fromarray(np.full((30, 20), 9, np.uint8)).save(tmp_path/'0.png')
    os.utime(tmp_path/'0.png', (1, 1))
    assert (build_cache(frame, tmp_path/'c', 16, jobs=1)[0] != cache[0]).any()
    with pytest.raises(InputError, match='something else'): build_cache(frame, tmp_path, 16)
    with pytest.raises(InputError, match='are needed'): check_disk(tmp_path, 1 << 60)
    with pytest.raises(InputError, match='no image cache'): ImageCache(tmp_path)
    assert not list(tmp_path.glob('.*'))


def test_the_command_line_ingests_pairs_views_and_refuses_other_options(tmp_path, capsys):
    from PIL import Image

    from radinet_nb.cli import main
    export, out, key = tmp_path/'export', tmp_path/'out', str(tmp_path/'key')
    for i in range(4):
        write_dicom(export/f'{i}', np.roll(ramp, 9*i), StudyInstanceUID=f'1.2.{i//2}', PatientID=f'P{i//2}',
                    ViewPosition=['PA', 'LL'][i % 2], Laterality=['L', None][i % 2])
    write_dicom(export/'detail', ramp[:32], StudyInstanceUID='1.2.0', PatientID='P0', ViewPosition='AP',
                SOPInstanceUID='1.2.3.4')
    call = ['ingest', str(export), str(out), '--key', key, '--pixels', '48', '--format', 'jpeg', '--jobs', '1']
    assert main(call) == 0
    assert 'cases                          2' in capsys.readouterr().out
    cases = read_studies(out/'cases.parquet')
    assert set(cases['view']) == {'pair'} and {Image.open(p).size for p in cases.path} == {(96, 48)}
    first = set(cases.path)
    # a table in the hospital says that the detail stands for its study
    (tmp_path/'views.csv').write_text('SOPInstanceUID,use\n1.2.3.4,1\n')
    assert main([*call, '--views', str(tmp_path/'views.csv')]) == 0
    assert len(set(read_studies(out/'cases.parquet').path)-first) == 1 and len(list((out/'cases').iterdir())) == 2
    assert main([*call[:-6], '--pixels', '32', '--jobs', '1']) == 2
    assert 'an ingest with pixels=48 stands here' in capsys.readouterr().err


def test_the_doctor_names_what_to_download_and_checks_layouts(tmp_path, capsys):
    from radinet_nb.cli import main
    (tmp_path/'mura').mkdir(); (tmp_path/'mura'/'readme').touch()
    assert main(['doctor', '--data', f"mura={tmp_path/'mura'}"]) == 0
    printed = capsys.readouterr().out
    assert 'lacks train, valid' in printed and 'no redistribution' in printed and 'MURA-v1.1' in printed
    assert main(['doctor', '--data', 'muar=.']) == 2
    assert 'did you mean mura?' in capsys.readouterr().err
