"A localizer as a model folder: its own maps and boxes again, from DICOM and image files; odd folders end in one line."
import json
import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from radinet_nb.analysis.froc_maps import boxes_above
from radinet_nb.cli import main
from radinet_nb.data.cache import build_cache
from radinet_nb.data.files import file_table
from radinet_nb.data.frames import from_frame
from radinet_nb.data.sizes import image_sizes
from radinet_nb.data.studies import split_studies
from radinet_nb.errors import InputError
from radinet_nb.learning.localization.localizer import STRIDE, LocalizerSpec
from radinet_nb.learning.localization.training import Localization, localize
from radinet_nb.models.folder import learner_from, load_network
from radinet_nb.models.found import find_boxes
from radinet_nb.models.localizers import export_localizer, load_localizer
from radinet_nb.models.prediction import predict_files
from radinet_nb.synthetic.hospital import write_hospital

ONE = Localization('Spots', network=LocalizerSpec('densenet51', channels=8, prior=.2), method='oracle', epochs=8,
                   lr=3e-3, batch_size=8, augmentation=.3, threads=1, device='cpu')


@pytest.fixture(scope='module')
def trained(tmp_path_factory, spotted):
    "A localizer that learned from gray images of 40 x 32 pixels with a bright spot as fracture; the images"
    folder = tmp_path_factory.mktemp('chests')
    studies = split_studies(spotted(folder), (.5, .25, .25))
    run = localize(ONE, studies, image_sizes(studies), build_cache(studies, folder/'views', 32, jobs=1), folder/'run')
    (folder/'chests.csv').unlink()
    return run, folder


@pytest.fixture(scope='module')
def model(trained, tmp_path_factory):
    return export_localizer(trained[0].folder, tmp_path_factory.mktemp('models')/'spots', rate=.5, resamples=50)


def radinet(capsys, *args):
    code = main([str(o) for o in args])
    out = capsys.readouterr()
    return code, out.out, out.err.strip()


def test_a_run_on_its_own_images_gives_its_own_maps_and_boxes(trained, model, tmp_path):
    "Scores within half precision, boxes as the run's maps have them above the threshold, in pixels of the radiograph"
    run, folder = trained
    own, maps = run.predictions, np.load(run.folder/'maps.npy')
    res = predict_files(model, list(own.path), tmp_path/'out', public=True)
    place = {o.rsplit('/', 1)[-1]: i for i, o in enumerate(own.path)}
    at = [place[o] for o in res.table.files]
    np.testing.assert_allclose(res.table.probability, own.probability.iloc[at], atol=1e-5)
    np.testing.assert_allclose(res.maps, maps[at], atol=1e-3)
    for o, n in zip(res.table.files, at, strict=True):
        cells, scores = boxes_above(res.maps[res.table.files.tolist().index(o)], load_localizer(model)[1]['threshold'])
        boxes = res.boxes[res.boxes.file == o]
        np.testing.assert_allclose(boxes[['x0', 'y0', 'x1', 'y1']], from_frame(cells*STRIDE, (40, 32), 32))
        np.testing.assert_allclose(boxes.score, scores)
        assert (boxes.score <= own.probability.iloc[n] + 1e-5).all()
    assert len(res.boxes) > 3
    back = pd.read_csv(tmp_path/'out'/'boxes.csv', dtype=dict(study=str))
    pd.testing.assert_frame_equal(back, res.boxes, check_dtype=False)
    table = pd.read_csv(tmp_path/'out'/'predictions.csv')
    assert table.boxes.sum() == len(back) and table.overlay.str.endswith('.png').all()
    for o in table.overlay: assert Image.open(tmp_path/'out'/'overlays'/o).size[0] == 512


def test_the_boxes_find_what_it_learned(trained, model):
    "The positive control: of the validation part, recall and false positives are those that the folder states"
    run, config = trained[0], load_localizer(model)[1]
    own = run.predictions[run.predictions.split == 'valid']
    res, lesions = predict_files(model, list(own.path), public=True), pd.read_parquet(run.folder/'boxes.parquet')
    hit, false = set(), 0
    for o in res.boxes.itertuples():
        found = False
        for n, a in lesions[lesions.path.str.endswith(f'/{o.file}')].iterrows():
            x0, y0, x1, y1 = from_frame(a[['x0', 'y0', 'x1', 'y1']].to_numpy(float)*STRIDE, (40, 32), 32)[0]
            w, h = min(x1, o.x1) - max(x0, o.x0), min(y1, o.y1) - max(y0, o.y0)
            both = max(w, 0)*max(h, 0)
            if both >= .1*((x1 - x0)*(y1 - y0) + (o.x1 - o.x0)*(o.y1 - o.y0) - both): hit.add(n), (found := True)
        false += not found
    lesions = lesions[lesions.path.isin(own.path)]
    assert len(hit)/len(lesions) == pytest.approx(config['recall']) and config['recall'] > .5
    assert false/len(own) == pytest.approx(config['false']) and config['false'] <= .5


class Bright(torch.nn.Module):
    "Draws where an image is bright"
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def normalize(self, images): return images.float()

    def forward(self, x): return (torch.nn.functional.avg_pool2d(x[:, None], STRIDE)[:, 0] - 200)/10


@pytest.mark.parametrize('size', [(300, 120), (90, 333), (128, 128)])
def test_a_spot_in_a_radiograph_of_any_shape_is_told_where_it_is(tmp_path, size):
    "Known corners in a tall, a wide and a square image come back within a cell of the map, from PNG and DICOM alike"
    w, h = size
    image, spot = np.full((h, w), 20, np.uint8), np.array([w//2, h//3, w//2 + w//4, h//3 + h//4])
    image[spot[1]:spot[3], spot[0]:spot[2]] = 250
    Image.fromarray(image).save(tmp_path/'spot.png')
    write_hospital(tmp_path/'export', patients=1, pixels=64)
    ds = pydicom.dcmread(next((tmp_path/'export').rglob('*.dcm')))
    if ds.file_meta.TransferSyntaxUID.is_compressed: ds.decompress()
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = h, w, 8, 8, 7, 0
    ds.PhotometricInterpretation, ds.PixelData = 'MONOCHROME2', image.tobytes() + b'\0'*(image.size % 2)
    for o in ('WindowCenter', 'WindowWidth', 'VOILUTSequence', 'RescaleSlope', 'RescaleIntercept',
              'ModalityLUTSequence', 'PresentationLUTShape'):
        if o in ds: delattr(ds, o)
    ds.save_as(tmp_path/'spot.dcm')
    config = dict(name='Bright', task='map', unit='view', shape=[128, 128], parts=['chest'], threshold=.5,
                  activates=False)
    for name in ('spot.png', 'spot.dcm'):
        res = find_boxes(Bright(), config, file_table([tmp_path/name], b'key')[0])
        assert res.boxes[['width', 'height']].to_numpy().tolist() == [[w, h]], name
        box = res.boxes[['x0', 'y0', 'x1', 'y1']].to_numpy()[0]
        assert np.abs(box - spot).max() <= STRIDE*max(size)/128, (name, box, spot)


def test_the_command_line_exports_and_prints_boxes(trained, model, tmp_path, capsys):
    run, folder = trained
    code, out, err = radinet(capsys, 'export', run.folder, tmp_path/'model', '--rate', 1)
    assert code == 0 and load_localizer(tmp_path/'model')[1]['rate'] == 1, err
    files = [folder/f'{i}.png' for i in range(4)]
    code, out, err = radinet(capsys, 'predict', model, *files, '--public')
    lines = [o.split(',') for o in out.splitlines()]
    assert code == 0 and lines[0][:4] == ['study', 'file', 'box', 'x0']
    assert {o[1] for o in lines[1:]} == {o.name for o in files}
    code, out, err = radinet(capsys, 'predict', model, *files, '--public', '--out', tmp_path/'out')
    assert code == 0 and ' boxes in 4 images, 0 files left out' in out
    for args, message in ((('export', run.folder, tmp_path/'x', '--timm'), 'takes --rate'),
                          (('export', run.folder, tmp_path/'x', '--rate', 0), 'a rate of 0'),
                          (('export', run.folder, model), 'not written over')):
        code, _, err = radinet(capsys, *args)
        assert code == 2 and message in err and len(err.splitlines()) == 1 and not (tmp_path/'x').exists()


def test_another_program_is_told_that_it_is_a_localizer(model, tmp_path):
    for load in (load_network, learner_from):
        with pytest.raises(InputError, match='folder of a localizer'): load(model)
    files = sorted(o.name for o in model.iterdir())
    assert files == ['README.md', 'config.json', 'weights.safetensors']


ODD = [None, True, 0, -1, 2, float('nan'), float('inf'), '', 'x'*5000, [], {}, [32, 64], [30, 30], 'pair', 'vgg11']


def test_odd_folders_end_in_one_line(model, tmp_path):
    "Every key of the configuration lost, renamed or with another value; weights that are cut, renamed or no numbers"
    odd = tmp_path/'odd'
    shutil.copytree(model, odd)
    config = json.loads((model/'config.json').read_text())
    Image.new('L', (40, 32)).save(tmp_path/'a.png')

    def told():
        with pytest.raises(InputError) as e: predict_files(odd, [tmp_path/'a.png'], public=True)
        assert '\n' not in str(e.value) and len(str(e.value)) < 600
    free = {'version', 'rule', 'run', 'commit', 'fingerprint', 'grouping', 'method', 'rate', 'recall', 'false'}
    for key in config:
        (odd/'config.json').write_text(json.dumps({k: v for k, v in config.items() if k != key}))
        told()
        for value in ODD if key not in free else ():
            if value == config[key]: continue
            (odd/'config.json').write_text(json.dumps(config | {key: value}))
            told()
    shutil.copy(model/'config.json', odd)
    whole = (model/'weights.safetensors').read_bytes()
    for data in (b'', whole[:1000], whole[:-7], whole[:-4] + b'\0\0\xc0\x7f'): # the last: NaN, and another hash
        (odd/'weights.safetensors').write_bytes(data)
        told()
    state = load_file(model/'weights.safetensors')
    for changed in ({}, {f'x{k}': v for k, v in state.items()}, state | {'head.logit.weight': torch.zeros(1, 9, 1, 1)}):
        save_file(changed, odd/'weights.safetensors', metadata={'radinet_nb': json.dumps(dict(localizer={}))})
        told()
    (odd/'weights.safetensors').unlink()
    told()


def test_a_run_that_locates_nothing_is_told(trained, tmp_path):
    run, folder = trained
    shutil.copytree(run.folder, tmp_path/'run')
    np.save(tmp_path/'run'/'maps.npy', np.ones_like(np.load(run.folder/'maps.npy')))
    with pytest.raises(InputError, match='no threshold keeps to 0.1'):
        export_localizer(tmp_path/'run', tmp_path/'m', .1)
    (tmp_path/'run'/'maps.npy').unlink()
    with pytest.raises(InputError, match='no trained localizer'): export_localizer(tmp_path/'run', tmp_path/'m')
    assert not (tmp_path/'m').exists()
