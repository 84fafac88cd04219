"Model folders: written, read, refused; files judged by them; the run's own numbers again."
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from radinet_nb.cli import main
from radinet_nb.data.cache import build_cache, pair_views
from radinet_nb.data.hospital import read_hospital
from radinet_nb.data.dicom import names_in, read_dataset
from radinet_nb.data.files import file_table
from radinet_nb.data.studies import split_studies
from radinet_nb.learning.networks import Network
from radinet_nb.learning.stages import stage_from_parameters
from radinet_nb.learning.transfer import train_stage
from radinet_nb.models.card import export_run
from radinet_nb.models.folder import learner_from, load_network, read_config, sha256, write_model
from radinet_nb.models.prediction import predict_files
from radinet_nb.synthetic.hospital import write_hospital

KEY = b'the key of a test'
FACTS = dict(name='Test', version='0', task='fracture', classes=['none', 'fracture'], unit='pair', shape=[32, 64],
             parts=['wrist'], threshold=.5, rule='accuracy', synthetic=True, grouping='patient', run='0', commit=None,
             fingerprint=None)


@pytest.fixture(scope='module')
def hospital(tmp_path_factory):
    folder = tmp_path_factory.mktemp('h')/'export'
    write_hospital(folder, patients=24, pixels=64, parts=['wrist', 'elbow'], seed=5)
    return folder


@pytest.fixture(scope='module')
def runs(hospital, tmp_path_factory):
    "A stage on pairs, and one on single views, of one split"
    folder = tmp_path_factory.mktemp('runs')
    studies = split_studies(read_hospital(hospital, KEY).studies, shares=(.5, .25, .25))
    tables = {'pair': pair_views(studies), 'view': studies}
    small, res = dict(backbone='densenet51', warmup=0, epochs=1, lr=.003), {}
    for unit, t in tables.items():
        stage = stage_from_parameters(small | dict(name=unit, task='fracture' if unit == 'pair' else 'body_part'))
        cache = build_cache(t, folder/f'cache_{unit}', 32, jobs=1)
        res[unit] = train_stage(stage, t, cache, folder/unit, dict(facts=dict(synthetic=True)))
    return res


@pytest.fixture(scope='module')
def models(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    return {unit: export_run(run.folder, folder/unit, resamples=50) for unit, run in runs.items()}


@pytest.fixture(scope='module')
def judged(models, hospital, tmp_path_factory):
    out = tmp_path_factory.mktemp('out')/'result'
    return predict_files(models['pair'], [hospital], out, key=KEY), out


def message_of(capsys, *args):
    "One line on stderr and exit 2"
    code = main([str(o) for o in args])
    line = capsys.readouterr().err.strip()
    assert code == 2 and len(line.splitlines()) == 1 and len(line) < 400, line
    return line


@pytest.mark.slow
def test_a_run_on_its_own_test_images_gives_its_own_predictions(runs, judged):
    "Within 1e-5, through DICOM files that are read anew; decisions as the threshold says"
    own = runs['pair'].predictions
    table = judged[0].table.rename(columns=dict(probability='again'))
    both = own.merge(table, on=['study', 'body_part'])
    assert len(both) == len(own) > 10
    np.testing.assert_allclose(both.again, both.probability, atol=1e-5)
    assert ((both.again >= both.threshold) == (both.decision == 'fracture')).all()


def test_body_parts_come_back_too(runs, models, hospital):
    "A study is judged by the mean over its views"
    own = runs['view'].predictions
    classes = [o for o in own if o.startswith('p_')]
    mean = own.groupby('study')[classes].mean()
    table = predict_files(models['view'], [hospital], key=KEY).table.set_index('study')
    np.testing.assert_allclose(table.loc[mean.index, classes], mean, atol=1e-5)


def test_the_folder_says_what_the_run_was(runs, models):
    config, card = read_config(models['pair']), (models['pair']/'README.md').read_text()
    assert config['unit'] == 'pair' and config['shape'] == [32, 64] and config['synthetic']
    assert config['run'] == runs['pair'].record['id']
    files = ['README.md', 'body.safetensors', 'config.json', 'weights.safetensors']
    assert sorted(o.name for o in models['pair'].iterdir()) == files
    titles = [f'## {o}' for o in ('Intended use', 'Data', 'Numbers', 'Limits')]
    for o in (*titles, 'synthetic', f'{config["threshold"]:.4f}', '| auc |', ' to '): assert o in card
    people = {o for c in ('patient', 'study') for o in runs['pair'].predictions[c]}
    texts = card + (models['pair']/'config.json').read_text()
    assert not [o for o in people if o in texts], 'a model folder names nobody, not even by pseudonym'


def test_the_same_run_gives_the_same_folder(runs, models, tmp_path):
    again = export_run(runs['pair'].folder, tmp_path/'again', resamples=50)
    for o in again.iterdir(): assert o.read_bytes() == (models['pair']/o.name).read_bytes()


def test_a_learner_comes_back_and_learns(models):
    learn = learner_from(models['pair'])
    x = torch.rand(2, 3, 32, 64)
    with torch.no_grad(): assert learn.model(x).shape == (2, 2)
    assert learn.config['backbone'] == 'densenet51' and not learn.model.training
    learn.create_opt()
    learn.model.train()
    learn.loss_func(learn.model(x), torch.tensor([0, 1])).backward()
    learn.opt.step()


def test_others_start_from_the_body(tmp_path):
    "torchvision's and timm's own models take every tensor, and miss only their classifiers"
    import timm
    from torchvision import models as vision
    plain = {'densenet169': lambda: vision.densenet169(), 'mobilenet_v2': lambda: vision.mobilenet_v2(),
             'timm/mobilenetv3_small_050': lambda: timm.create_model('mobilenetv3_small_050')}
    for name, make in plain.items():
        folder = write_model(Network(name), tmp_path/name.replace('/', '-'), **FACTS)
        state = load_file(folder/'body.safetensors')
        model = make()
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert unexpected == [] and missing and all(o.startswith('classifier') for o in missing), (name, missing)
        shutil.rmtree(folder)
    same = timm.create_model('densenet169') # timm's DenseNet has the names of torchvision's
    missing, unexpected = same.load_state_dict(Network('densenet169').body.state_dict(), strict=False)
    assert unexpected == [] and all(o.startswith('classifier') for o in missing)


def test_every_file_is_judged_or_listed(judged, hospital, models, tmp_path):
    res, out = judged
    assert {o.name for o in out.iterdir()} == {'predictions.csv', 'left_out.csv', 'overlays'}
    files = [f for f in hospital.rglob('*') if f.is_file() and f.name not in ('labels.csv', 'reports.csv')]
    named = [*res.table.files.str.split().explode(), *res.left.file]
    assert len(named) == len(set(named)) == len(files)
    assert pd.read_csv(out/'left_out.csv').reason.notna().all()
    owner = file_table([hospital], KEY)[0].set_index('file').study
    for row in res.table.itertuples(): assert {owner[o] for o in row.files.split()} == {row.study}
    for o in ' '.join(res.table.overlay).split(): assert Image.open(out/'overlays'/o).size[0] == 1024


def test_nobody_is_named(judged, hospital):
    _, out = judged
    names = set()
    for f in sorted(hospital.rglob('*.dcm'))[:40]:
        ds = read_dataset(f, pixels=False)
        birth = str(ds.get('PatientBirthDate') or 'x'*20)
        names |= names_in(ds) | {str(ds.StudyInstanceUID), str(ds.SOPInstanceUID), birth, f.stem}
    texts = ' '.join([*(o.read_text() for o in out.glob('*.csv')), *(o.name for o in out.rglob('*'))])
    pictures = b''.join(o.read_bytes() for o in out.rglob('*.png'))
    assert len(names) > 40 and not [o for o in names if o and (o in texts or (len(o) > 3 and o.encode() in pictures))]


def test_torn_files_links_and_others_are_listed(models, hospital, tmp_path):
    folder = tmp_path/'in'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for o in ('a_frontal', 'a_lateral', 'b_frontal', 'c_ap', 'c_lat', 'd_oblique', 'nothing'):
        Image.fromarray(rng.integers(0, 200, (50, 40), dtype=np.uint8)).save(folder/f'{o}.png')
    (folder/'c_lat.png').write_bytes((folder/'c_ap.png').read_bytes()[:200])
    (folder/'notes.pdf').write_bytes(b'%PDF')
    (folder/'link.png').symlink_to(folder/'a_frontal.png')
    torn = sorted(hospital.rglob('*.dcm'))[0].read_bytes()
    (folder/'torn.dcm').write_bytes(torn[:400])
    res = predict_files(models['pair'], [folder], tmp_path/'out', public=True)
    assert res.table.files.tolist() == ['a_frontal.png a_lateral.png'] and res.table.study.tolist() == ['a']
    left = res.left.set_index(res.left.file.str.split().str[0]).reason
    pictures = ['b_frontal', 'c_ap', 'd_oblique', 'nothing', 'link']
    assert set(left.index) == {*(f'{o}.png' for o in pictures), 'notes.pdf', 'torn.dcm'}
    assert 'missing' in left['b_frontal.png'] and 'oblique' in left['d_oblique.png']
    assert left['notes.pdf'] == 'is neither DICOM nor an image file'
    assert [o.name for o in (tmp_path/'out'/'overlays').iterdir()] == ['a.png']


def test_text_in_the_image_is_not_drawn(models, tmp_path):
    from PIL import ImageDraw, ImageFont
    for o in ('a_frontal', 'a_lateral'):
        im = Image.new('L', (512, 512), 40)
        ImageDraw.Draw(im).text((20, 20), 'MUSTERMANN MAX 1950', fill=255, font=ImageFont.load_default(30))
        im.save(tmp_path/f'{o}.png')
    files = [tmp_path/'a_frontal.png', tmp_path/'a_lateral.png']
    res = predict_files(models['pair'], files, tmp_path/'out')
    assert res.table.overlay[0] == 'none: text seems to be burned in'
    assert not list((tmp_path/'out'/'overlays').iterdir())
    assert predict_files(models['pair'], files, tmp_path/'shown', public=True).table.overlay[0] == 'a.png'


def test_another_body_part_is_noted(models, hospital, tmp_path):
    network, config = load_network(models['pair'])
    own = {k: v for k, v in config.items()
           if k not in ('format', 'backbone', 'widths', 'normalization', 'weights_sha256')}
    folder = write_model(network, tmp_path/'model', **own | dict(parts=['wrist']))
    table = predict_files(folder, [hospital], key=KEY).table
    assert set(table.body_part) == {'wrist', 'elbow'} and ((table.note != '') == (table.body_part == 'elbow')).all()


class Code:
    def __reduce__(self): return exec, ('raise SystemExit("code of a weights file ran")',)


def test_wrong_use_is_one_line_and_exit_2(models, runs, hospital, tmp_path, capsys):
    model, picture = models['pair'], tmp_path/'x.png'
    Image.new('L', (20, 20), 90).save(picture)
    (tmp_path/'empty').mkdir()
    assert 'no such folder' in message_of(capsys, 'predict', tmp_path/'no', picture)
    assert 'export it first' in message_of(capsys, 'predict', runs['pair'].folder, picture)
    assert 'no such file or folder' in message_of(capsys, 'predict', model, tmp_path/'no')
    assert 'the folder is empty' in message_of(capsys, 'predict', model, tmp_path/'empty')
    (tmp_path/'empty'/'notes.txt').write_text('nothing')
    assert 'holds no radiograph among 1 files' in message_of(capsys, 'predict', model, tmp_path/'empty')
    assert 'no study has a frontal and a lateral view' in message_of(capsys, 'predict', model, picture)
    assert 'is not written over' in message_of(capsys, 'predict', model, picture, '--out', model)
    assert 'is not written over' in message_of(capsys, 'export', runs['pair'].folder, model)
    assert 'no finished run' in message_of(capsys, 'export', tmp_path, tmp_path/'new')
    assert 'no rule' in message_of(capsys, 'export', runs['pair'].folder, tmp_path/'new', '--rule', 'best')
    assert not (tmp_path/'new').exists() and not list(tmp_path.glob('.*partial*'))


def test_weights_that_hold_code_are_never_run(models, tmp_path, capsys):
    folder = shutil.copytree(models['pair'], tmp_path/'model')
    torch.save({'w': Code()}, folder/'weights.safetensors')
    config = json.loads((folder/'config.json').read_text()) # whoever plants code writes its checksum, too
    (folder/'config.json').write_text(json.dumps(config | dict(weights_sha256=sha256(folder/'weights.safetensors'))))
    assert 'holds code, which is never run' in message_of(capsys, 'predict', folder, tmp_path)
    (folder/'weights.safetensors').rename(folder/'weights.pth')
    assert 'may hold code' in message_of(capsys, 'predict', folder, tmp_path)


def test_other_weights_are_noticed(models, tmp_path, capsys):
    folder = shutil.copytree(models['pair'], tmp_path/'model')
    shutil.copy(models['view']/'weights.safetensors', folder)
    assert 'not those that config.json was written with' in message_of(capsys, 'predict', folder, tmp_path)


def test_predict_prints_csv(models, hospital, tmp_path, capsys):
    from radinet_nb.data.dicom import is_dicom
    files = [f for f in sorted(hospital.rglob('*')) if f.is_file() and is_dicom(f)]
    for f in files[:30]: shutil.copy(f, tmp_path/f'{Path(f).parent.name}-{f.name}')
    assert main(['predict', str(models['view']), str(tmp_path)]) == 0
    out = capsys.readouterr()
    rows = out.out.strip().splitlines()
    assert rows[0].startswith('study,body_part,views,files,probability,decision') and len(rows) > 5
    assert 'thrown away' in out.err
