"The synthetic room: physics, boxes, determinism, the paper's population, and no shortcuts"
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml

from radinet_nb.data.notebooks import checkout
from radinet_nb.errors import InputError
from radinet_nb.synthetic.anatomy import Flesh
from radinet_nb.synthetic.bone_shadows import bone_shadow
from radinet_nb.synthetic.camera import Camera, camera_for
from radinet_nb.synthetic.clinical import (
    TABLE6_COUNTS,
    clinical_hospital,
    expected_rates,
    phantom_calls,
    plainness,
    readers,
    seen_population,
)
from radinet_nb.synthetic.exposure import Exposure, expose
from radinet_nb.synthetic.flesh_shadows import flesh_shadow
from radinet_nb.synthetic.hospital import write_hospital
from radinet_nb.synthetic.injuries import break_limb
from radinet_nb.synthetic.limbs import make_limb, posed
from radinet_nb.synthetic.phantom import fracture_box, radiograph, shadow
from radinet_nb.synthetic.population import Hospital, exams, population


@pytest.mark.parametrize('part', 'finger hand wrist forearm elbow humerus shoulder'.split())
@pytest.mark.parametrize('age', [.3, 6, 40])
def test_every_part_at_every_age(part, age):
    limb = make_limb(part, age, 'F', seed=3)
    for view in ('frontal', 'lateral'):
        im = radiograph(posed(limb, view), camera_for(limb, view, 96))
        assert im.shape[0]==96 and 0<=im.min() and im.max()<=1 and im.std()>.05


# physics

def test_beer_lambert():
    cam = Camera(np.zeros(3), np.array([1., 0, 0]), np.array([0, 0, 1.]), np.array([0, -1., 0]), .5, (32, 32))
    depth, read = [], []
    for r in (5., 10., 20., 40.):
        line = flesh_shadow([Flesh(np.array([0, 0, -90.]), np.array([0, 0, 90.]), r, r)], cam)
        depth.append(2*r); read.append(expose(line, line, Exposure(photons=0, scatter=0, blur=0))[16, 16])
    assert np.allclose(-np.log(read), .0205*np.array(depth), rtol=.006)


def test_photons_are_counted_as_poisson():
    line = np.full((128, 128), 2., np.float32)
    read = expose(line, line, Exposure(photons=3000, scatter=0, blur=0))
    assert abs(read.mean()/np.exp(-2)-1)<.005 and abs(read.var()/(np.exp(-2)/3000)-1)<.05


@pytest.mark.parametrize('name', ['radius', 'ulna'])
def test_views_agree_on_length(name):
    arm, lengths = make_limb('forearm', 40), []
    bone = next(b for b in arm.bones if b.name==name)
    for view in ('frontal', 'oblique', 'lateral'):
        cam = camera_for(arm, view)
        rows = np.nonzero(bone_shadow(bone, cam)[0].max(1)>.1)[0]
        lengths.append(np.ptp(rows)*cam.pixel)
        assert abs(lengths[-1] - abs((bone.end-bone.origin)@cam.up))<9 # caps and styloid
    assert np.ptp(lengths)<2.5*cam.pixel


def test_mass_does_not_depend_on_the_view():
    wrist = make_limb('wrist', 40)
    bone = next(b for b in wrist.bones if b.name=='capitate')
    cameras = [camera_for(wrist, v, 192) for v in ('frontal', 'oblique', 'lateral')]
    mass = [bone_shadow(bone, cam)[0].sum()*cam.pixel**2 for cam in cameras]
    assert np.ptp(mass)/np.mean(mass)<.03


def outside_boxes(limb, cam):
    "Largest change of the image outside all boxes, number of boxes, and widest idle margin of a box in pixels"
    diff = np.abs(radiograph(limb, cam)-radiograph(limb, cam, broken=False))
    boxes, idle = fracture_box(limb, cam), [0]
    for x0, y0, x1, y1 in boxes:
        part = np.argwhere(diff[y0:y1, x0:x1]>.005)
        idle.append(max(*part.min(0), *(np.array([y1-y0, x1-x0])-1-part.max(0))) if len(part) else np.inf)
    for x0, y0, x1, y1 in boxes: diff[max(0, y0-2):y1+2, max(0, x0-2):x1+2] = 0
    return diff.max(), len(boxes), max(idle)


@pytest.mark.parametrize('kind', 'hairline gap step angulated impacted comminuted buckle greenstick avulsion'.split())
def test_box_holds_all_that_changed(kind):
    limb = make_limb('wrist', 40, seed=1)
    break_limb(limb, seed=1, kind=kind, site='radius')
    seen = [outside_boxes(limb, camera_for(limb, view, 192)) for view in ('frontal', 'lateral')]
    assert max(s[0] for s in seen)<.02 and sum(s[1] for s in seen)
    assert max(s[2] for s in seen)<12 # no box is wider than what changed, but for faint ends


@pytest.mark.parametrize('part', 'finger hand forearm elbow humerus shoulder'.split())
@pytest.mark.parametrize('united', [0., .5])
def test_box_holds_all_that_changed_in_every_part(part, united):
    limb = make_limb(part, 40, seed=2)
    break_limb(limb, seed=2, united=united)
    seen = [outside_boxes(posed(limb, view), camera_for(limb, view, 160)) for view in ('frontal',)]
    assert max(s[0] for s in seen)<.02


def test_whole_patient_is_the_broken_one_before():
    whole, broken = make_limb('wrist', 30, seed=4), make_limb('wrist', 30, seed=4)
    break_limb(broken, seed=4, kind='step')
    cam = camera_for(whole, 'lateral', 128)
    diff = np.abs(shadow(whole, cam)[0]-shadow(broken, cam, broken=False)[0])
    assert diff.max()<1e-4
    # and the fracture moves nothing but its own bones: other bones and soft tissue stay to the last bit
    moved = shadow(broken, cam)[0]-shadow(broken, cam, broken=False)[0]
    near = sum(bone_shadow(b, cam, k)[0] for b in broken.bones if b.breaks for k in (True, False))>0
    assert np.abs(moved[near]).max()>.1 and not moved[~near].any() and .5<(~near).mean()<1


def test_a_united_fracture_has_no_box_but_a_scar():
    limb = make_limb('forearm', 40, seed=2)
    break_limb(limb, seed=2, kind='step', site='radius', united=1.)
    cam = camera_for(limb, 'frontal', 160)
    assert fracture_box(limb, cam)==[] and np.abs(radiograph(limb, cam)-radiograph(limb, cam, broken=False)).max()>.05


# the population of karam2021, section 4.2

def karam2021():
    "The knobs of that paper's hospital, from its folder"
    file = checkout()/'nbs'/'papers'/'karam2021'/'paper.yaml'
    return yaml.safe_load(file.read_text(encoding='utf-8'))['hospital']


def within(seen, expected, n, sd=None):
    "Three standard errors; patients come 1.4 times each, so there are fewer of them than of visits"
    return abs(seen-expected)<3*(sd or np.sqrt(expected*(1-expected)))/np.sqrt(n/1.4)


def test_population_is_the_papers():
    pop = population(Hospital(**karam2021(), seed=5))
    n = len(pop)
    assert (n, pop.labelled.sum(), (~pop.labelled).sum())==(11112, 7414, 3698)
    assert within(pop.age.mean(), 36, n, 24) and abs(pop.age.std()-24)<.8 and pop.age.min()<1 and 95<pop.age.max()<=104
    shares = ((pop.age<18, .29), (pop.sex=='F', .43), (pop.fracture==1, .56), (pop.low_resolution, .03),
        (pop.visit=='first', .70), (pop.visit=='follow-up', .25), (pop.visit=='return', .05))
    for seen, expected in shares: assert within(seen.mean(), expected, n), (expected, seen.mean())
    assert abs(pop.views.mean()-21800/7776)<.03
    for k, (_, share) in enumerate(exams): assert within((pop.exam==k).mean(), share, n), k
    gap = pop.gap/365.25
    assert gap[pop.visit=='follow-up'].max()<1 and 2.7<gap[pop.visit=='return'].mean()<3.4


def test_label_of_a_follow_up_is_of_its_own_day():
    pop = population(Hospital(**karam2021(), seed=6))
    again = pop[(pop.visit=='follow-up')&(pop.united>0)]
    assert (again.fracture==(again.united<1)).all() and .05<(again.fracture==0).mean()<.4
    late, soon = again[again.gap>150], again[again.gap<30]
    assert (late.fracture==0).all() and (soon.fracture==1).all()
    for group in (pop.visit, pop.age<14, pop.low_resolution, pop.views, pop.sex):
        shares = pop.groupby(group).fracture.agg(['mean', 'size'])
        assert all(within(r['mean'], .56, r['size']) for _, r in shares.iterrows()), shares


bad_knobs = [dict(severity=5), dict(hairlines=1.2), dict(records=0), dict(noise=0), dict(follow_up=.8, later=.2)]


@pytest.mark.parametrize('knobs', bad_knobs)
def test_bad_knobs(knobs):
    with pytest.raises(InputError): Hospital(**knobs)


def test_jobs_change_no_byte(tmp_path):
    pop = write_hospital(tmp_path/'a', patients=10, pixels=48, exam_mix=1., unlabelled=.4)
    write_hospital(tmp_path/'b', patients=10, pixels=48, exam_mix=1., unlabelled=.4, jobs=2)
    for p in (tmp_path/'a').rglob('*'):
        if p.is_file(): assert p.read_bytes()==(tmp_path/'b'/p.relative_to(tmp_path/'a')).read_bytes()
    # the types say nothing of a study that has no label or no fracture
    types = pd.read_csv(tmp_path/'a'/'types.csv').set_index('StudyInstanceUID')
    pop = pop.set_index('StudyInstanceUID')
    assert set(types.index)==set(pop.index[pop.labelled&(pop.fracture==1)]) and 0<len(types)<len(pop)
    assert (types.kind==pop.kind[types.index]).all() and (types.healing==(pop.united[types.index]>0)).all()
    assert (types.displaced==types.kind.isin(['step', 'angulated', 'comminuted', 'greenstick'])).all()


def test_another_processor_changes_no_byte(tmp_path):
    "On a processor of 2008 numpy, the C library and BLAS take other code: exponentials, sines and products differ"
    old = dict(NPY_DISABLE_CPU_FEATURES='X86_V3 X86_V4 AVX2 FMA3 AVX512F AVX512_SKX AVX512_ICL AVX512_SPR',
        OPENBLAS_CORETYPE='Prescott', GLIBC_TUNABLES='glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F,-AVX2_Usable,-FMA_Usable')
    knobs = dict(patients=9, pixels=64, seed=4, severity=1.8, healing=.5)
    code = 'from radinet_nb.synthetic.hospital import write_hospital; ' \
        f'write_hospital({str(tmp_path/"old")!r}, **{knobs})'
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], env=os.environ | old, check=True)
    write_hospital(tmp_path/'new', **knobs)
    files = [p for p in (tmp_path/'new').rglob('*') if p.is_file()]
    assert sum(p.suffix=='.dcm' for p in files)>=18
    for p in files: assert p.read_bytes()==(tmp_path/'old'/p.relative_to(tmp_path/'new')).read_bytes(), p


def test_command_line_reaches_every_knob(tmp_path, capsys):
    from radinet_nb.cli import main
    options = '--patients 2 --pixels 48 --part wrist --set severity=1.4 --set exam_mix=1'
    assert main(['synthesize', str(tmp_path/'h'), *options.split()])==0 and 'synthetic' in capsys.readouterr().out
    assert len(list((tmp_path/'h').rglob('*.dcm')))>=2
    for wrong in ('colour=3', 'noise=loud', 'difficulty=trivial'):
        assert main(['synthesize', str(tmp_path/wrong), '--set', wrong])==2
        assert len(capsys.readouterr().err.strip().splitlines())==1 and not (tmp_path/wrong).exists()


# no shortcut: what is not bone must not tell the label

def pixels_of(ds):
    a = ds.pixel_array.astype(float)
    return 4095-a if ds.PhotometricInterpretation=='MONOCHROME1' else a


@pytest.fixture(scope='module')
def wrists(tmp_path_factory):
    "A hospital of wrists, a row a study, with what a lazy network could look at"
    out = tmp_path_factory.mktemp('wrists')
    pop, rows = write_hospital(out/'h', patients=120, pixels=48, parts='wrist', seed=8, exam_mix=.2), []
    for folder in sorted({p.parent for p in (out/'h').rglob('*.dcm')}):
        files = sorted(folder.glob('*.dcm'))
        ds, a = pydicom.dcmread(files[0]), pixels_of(pydicom.dcmread(files[0]))
        edge = np.concatenate([a[:3].ravel(), a[:, :2].ravel(), a[:, -2:].ravel(), a[-10:].ravel()])
        rows.append(dict(StudyInstanceUID=ds.StudyInstanceUID, years=float(str(ds.get('PatientAge', '036Y'))[:3]),
            woman=ds.PatientSex=='F', left=ds.Laterality=='L', maker=ds.Manufacturer, view=ds.ViewPosition,
            inverted=ds.PhotometricInterpretation=='MONOCHROME1', year=int(ds.StudyDate[:4]),
            hour=int(ds.StudyTime[:2]), syntax=str(ds.file_meta.TransferSyntaxUID), tags=len(ds), files=len(files),
            size=files[0].stat().st_size, rows=ds.Rows, spacing=float(ds.ImagerPixelSpacing[0]), edge=edge.mean(),
            edge_sd=edge.std(), mark=a[-10:].mean(), mean=a.mean(), sd=a.std(), low=np.percentile(a, 20),
            mid=np.percentile(a, 50), high=np.percentile(a, 95)))
    got = pop.merge(pd.DataFrame(rows), on='StudyInstanceUID')
    # names, one column each: their lengths would say little
    return got.join(pd.get_dummies(got[['object', 'maker', 'view', 'syntax']]).astype(float))


def lowest_auc(X, y, patients, draws=300):
    "Cross-validated AUC by patient, and the lower end of its 99 % interval, drawn by patient"
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    model = make_pipeline(StandardScaler(), LogisticRegression(C=.1))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    p = cross_val_predict(model, X, y, groups=patients, method='predict_proba', cv=folds)[:, 1]
    rng, rows = np.random.default_rng(0), [np.flatnonzero(patients==k) for k in np.unique(patients)]
    drawn = [np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))]) for _ in range(draws)]
    return roc_auc_score(y, p), float(np.quantile([roc_auc_score(y[d], p[d]) for d in drawn], .01))


shortcuts = dict(
    header='years woman left maker_ view_ files inverted year hour syntax_ tags rows spacing'.split(), size=['size'],
    border=['edge', 'edge_sd', 'mark'], statistics=['mean', 'sd', 'low', 'mid', 'high'])


@pytest.mark.parametrize('which', [*shortcuts, 'objects'])
def test_no_shortcut(wrists, which):
    matches = lambda column, o: column==o or o.endswith('_') and column.startswith(o)
    names = [c for o in shortcuts.get(which, ['object_']) for c in wrists if matches(c, o)]
    auc, low = lowest_auc(wrists[names].astype(float).values, wrists.fracture.values.astype(int), wrists.patient.values)
    assert low<=.5, (which, auc, low)


def test_a_shortcut_would_be_caught(wrists):
    leak = wrists.fracture.values+np.random.default_rng(0).normal(0, 1.5, len(wrists))
    assert lowest_auc(leak[:, None], wrists.fracture.values.astype(int), wrists.patient.values)[1]>.5


def test_the_mark_is_the_same_for_all(wrists, tmp_path):
    write_hospital(tmp_path/'h', patients=8, pixels=96, parts='wrist', seed=8)
    files = [pydicom.dcmread(p) for p in (tmp_path/'h').rglob('*.dcm')]
    strips = [pixels_of(ds)[-11:, :40] for ds in files if ds.Rows==96 and ds.SyntheticData=='YES']
    assert len(strips)>=16 and all(np.array_equal(s, strips[0]) for s in strips) and strips[0].max()>3000


def test_template_does_not_tell():
    from types import SimpleNamespace

    from radinet_nb.synthetic.reports import write_report
    shape = lambda r, b: (write_report(r, b).count('\n'), write_report(r, b).isupper())
    rows = [SimpleNamespace(study=k, part='wrist', side='L', visit='first') for k in range(300)]
    for r in rows: assert shape(r, None)==shape(r, dict(bone='radius', kind='gap'))


def test_what_stands_around_the_finding_does_not_tell():
    "Layout, headings, history, remarks on other things and length of a report, to the classifier that reads the rest"
    from radinet_nb.synthetic.report_words import clinical_questions, radiologists, remarks
    from radinet_nb.synthetic.reports import write_reports
    table = write_reports(700, seed=4)
    text = table.report.str.lower().str.replace(r'\b(?:fx|#)', 'fracture', regex=True)
    phrases = (*remarks, *filter(None, clinical_questions))
    frame = {o: text.str.contains(o.lower().rstrip('.'), regex=False) for o in phrases}
    frame |= {f'template {k}': table.template==k for k in range(len(radiologists))}
    frame |= dict(lines=table.report.str.count('\n'), upper=table.report.str.isupper())
    auc, low = lowest_auc(pd.DataFrame(frame).astype(float).values, table.truth.values, table.patient.values)
    assert low<=.5, (auc, low)


# the readers of the clinical case

def test_readers_are_those_of_table_6_whatever_the_fractures():
    "Expected calls on a hospital as documented and on one with the demo's knobs, within 1.96 sampling errors"
    for seed, knobs in ((31, {}), (32, dict(severity=1.8, healing=0.)), (33, dict(difficulty='subtle'))):
        z = plainness(seen_population(clinical_hospital(140, 48, seed, fractured=.9, **knobs)))
        for name, r in readers.items():
            got = expected_rates(z, **r)
            for group, n in (('broken', 104), ('whole', 195)):
                for rule, count in zip(('conjunction', 'disjunction'), TABLE6_COUNTS[name][group], strict=True):
                    share, found = count/n, got.loc[rule, group]
                    assert abs(found-share)<1.96*np.sqrt(share*(1-share)/n), (seed, name, group, rule, found)


def test_calls_scatter_about_their_expectation():
    pop = seen_population(clinical_hospital(60, 48, 34, fractured=.6))
    calls = pd.concat([phantom_calls(pop, seed).assign(seed=seed) for seed in range(60)])
    z = plainness(pop)
    for name, r in readers.items():
        cases = calls[calls.reader==name].groupby(['seed', 'StudyInstanceUID'])
        both = cases.agg(low=('rating', 'min'), high=('rating', 'max'), y=('fracture', 'first'))
        expected = expected_rates(z, **r)
        for group, y in (('broken', 1), ('whole', 0)):
            for rule, column in (('conjunction', 'low'), ('disjunction', 'high')):
                by_seed = both[both.y==y].groupby('seed')[column].mean()
                error = by_seed.std()/np.sqrt(len(by_seed))
                assert abs(by_seed.mean()-expected.loc[rule, group])<3.5*error, (name, group, rule)
