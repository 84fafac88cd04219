"The synthetic room: physics, boxes, determinism, and no shortcuts"
import numpy as np
import pytest

from radinet_nb.synthetic.fractures import break_limb
from radinet_nb.synthetic.hospital import write_hospital
from radinet_nb.synthetic.limbs import make_limb
from radinet_nb.synthetic.phantom import camera_for, fracture_box, radiograph


@pytest.mark.parametrize('part', 'finger hand wrist forearm elbow humerus shoulder'.split())
@pytest.mark.parametrize('age', [.3, 6, 40])
def test_every_part_at_every_age(part, age):
    limb = make_limb(part, age, 'F', seed=3)
    for view in ('frontal', 'lateral'):
        im = radiograph(limb, camera_for(limb, view, 96))
        assert im.shape[0]==96 and 0<=im.min() and im.max()<=1 and im.std()>.05


@pytest.mark.parametrize('kind', 'hairline gap step angulated impacted comminuted buckle greenstick avulsion'.split())
def test_box_holds_all_that_changed(kind):
    limb = make_limb('wrist', 40, seed=1)
    break_limb(limb, seed=1, kind=kind, site='radius')
    seen = 0
    for view in ('frontal', 'lateral'):
        cam = camera_for(limb, view, 192)
        diff = np.abs(radiograph(limb, cam)-radiograph(limb, cam, broken=False))
        for x0, y0, x1, y1 in fracture_box(limb, cam): diff[y0-2:y1+2, x0-2:x1+2] = 0; seen += 1
        assert diff.max()<.02
    assert seen


def test_jobs_change_no_byte(tmp_path):
    write_hospital(tmp_path/'a', patients=24, pixels=48)
    write_hospital(tmp_path/'b', patients=24, pixels=48, jobs=2)
    for p in (tmp_path/'a').rglob('*'):
        if p.is_file(): assert p.read_bytes()==(tmp_path/'b'/p.relative_to(tmp_path/'a')).read_bytes()


def held_out_auc(X, y, seed=0):
    "Cross-validated AUC with the half-width of its 99 % interval under no information"
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    p = cross_val_predict(make_pipeline(StandardScaler(), LogisticRegression(C=.1)), X, y, cv=5, method='predict_proba')[:, 1]
    n1, n0 = y.sum(), (1-y).sum()
    return roc_auc_score(y, p), 2.6*np.sqrt((n1+n0+1)/(12*n1*n0))


def test_no_shortcut(tmp_path):
    import pandas as pd
    import pydicom
    pop = write_hospital(tmp_path/'h', patients=170, pixels=48, parts='wrist', seed=8)
    rows = []
    for _, g in pd.DataFrame([(str(p.parent), p) for p in sorted((tmp_path/'h').rglob('*.dcm'))]).groupby(0):
        ds = pydicom.dcmread(g[1].iloc[0])
        a = ds.pixel_array.astype(float)
        if ds.PhotometricInterpretation=='MONOCHROME1': a = 4095-a
        edge = np.concatenate([a[:3].ravel(), a[:, :2].ravel(), a[:, -2:].ravel(), a[-10:].ravel()])
        rows.append(dict(StudyInstanceUID=ds.StudyInstanceUID, age=float(ds.get('PatientAge', '036Y')[:3]), female=ds.PatientSex=='F',
            left=ds.Laterality=='L', maker=len(ds.Manufacturer), view=ds.ViewPosition=='AP',
            inverted=ds.PhotometricInterpretation=='MONOCHROME1',
            year=int(ds.StudyDate[:4]), syntax=len(ds.file_meta.TransferSyntaxUID), size=g[1].iloc[0].stat().st_size, rows=ds.Rows,
            edge=edge.mean(), edge_sd=edge.std(), mean=a.mean(), sd=a.std(), low=np.percentile(a, 20), high=np.percentile(a, 95)))
    got = pop.merge(pd.DataFrame(rows), on='StudyInstanceUID', suffixes=('_', ''))
    y = got.fracture.values.astype(int)
    header = 'age female left maker view inverted year syntax size rows'.split()
    for names in (header, ['edge', 'edge_sd'], ['mean', 'sd', 'low', 'high']):
        auc, half = held_out_auc(got[names].astype(float).values, y)
        assert auc<.5+half, (names, auc)
    auc, half = held_out_auc(pd.get_dummies(got.thing).astype(float).values, y)
    assert auc<.5+half


def test_template_does_not_tell():
    from types import SimpleNamespace

    from radinet_nb.synthetic.reports import write_report
    shape = lambda r, b: (write_report(r, b).count('\n'), write_report(r, b).isupper())
    rows = [SimpleNamespace(study=k, part='wrist', side='L', visit='first') for k in range(300)]
    for r in rows: assert shape(r, None)==shape(r, dict(bone='radius', kind='gap'))
