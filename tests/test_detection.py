"Detectors learn a spot and its box, a killed run goes on, folds become one folder that predicts, wrong use is told."
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file

from radinet_nb.analysis.detected import detection_scores, out_of_fold, together
from radinet_nb.analysis.detection_choice import Choice, choose, image_probability, scored_boxes
from radinet_nb.cli import main
from radinet_nb.data.cache import build_cache
from radinet_nb.data.sizes import image_sizes
from radinet_nb.data.studies import split_studies
from radinet_nb.errors import InputError
from radinet_nb.learning.detection import training
from radinet_nb.learning.detection.detector import DetectorSpec
from radinet_nb.learning.detection.training import Detection, detect, detection_from_parameters
from radinet_nb.models.detectors import export_detectors, load_detectors
from radinet_nb.models.folder import load_network
from radinet_nb.models.prediction import predict_files

ONE = Detection('Spots', network=DetectorSpec('densenet51', channels=8, prior=.1), frozen=0, epochs=60, lr=3e-3,
                spread=1., weight_decay=0., batch_size=8, augmentation=.3, average=0., folds=2, threads=1, device='cpu')


@pytest.fixture(scope='module')
def images(tmp_path_factory, spotted):
    folder = tmp_path_factory.mktemp('spots')
    studies = split_studies(spotted(folder), (.5, .25, .25))
    (folder/'chests.csv').unlink()
    return folder, (studies, image_sizes(studies), build_cache(studies, folder/'views', 64, jobs=1))


@pytest.fixture(scope='module')
def trained(images, tmp_path_factory):
    "The networks of two folds, on gray images of 40 x 32 pixels with a bright spot as fracture"
    out = tmp_path_factory.mktemp('runs')
    return [detect(replace(ONE, fold=o), *images[1], out/f'fold{o}') for o in range(2)]


@pytest.fixture(scope='module')
def model(trained, tmp_path_factory):
    return export_detectors([o.folder for o in trained], tmp_path_factory.mktemp('models')/'spots', resamples=50)


def test_it_learns_whether_and_where(trained):
    "The positive control: chosen out of fold, on test images nearly all spots are told and boxed"
    rest, test = out_of_fold(trained), together(trained)
    assert len(rest.frame) == rest.frame.path.nunique() and not set(rest.frame.path) & set(test.frame.path)
    choice, _ = choose(rest.found, rest.frame.target.to_numpy(), rest.truths)
    scores = detection_scores(test, choice, resamples=50).set_index('metric').value
    assert scores.auc > .9 and scores.top_box > .7 and scores.ap50 > .7, scores


def test_a_killed_run_goes_on_to_the_same_bit(images, tmp_path, monkeypatch):
    windows = replace(ONE.network, window=48)
    one = replace(ONE, epochs=3, frozen=1, average=.5, network=windows, sound=1., free='last 1')
    whole = detect(one, *images[1], tmp_path/'whole')
    state = training.DetectionHistory.after_epoch

    def killed(self):
        state(self)
        if self.epoch == 2: raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(training.DetectionHistory, 'after_epoch', killed)
        with pytest.raises(KeyboardInterrupt): detect(one, *images[1], tmp_path/'again')
    again = detect(one, *images[1], tmp_path/'again')
    assert again.record['resumed'] == [2] and whole.record['resumed'] == []
    a, b = load_file(whole.weights), load_file(again.weights)
    assert all((a[k] == b[k]).all() for k in a) and whole.history.equals(again.history)


def test_the_folder_gives_the_answers_of_its_runs(trained, model, images, tmp_path):
    test, config = together(trained), load_detectors(model)[1]
    res = predict_files(model, list(test.frame.path), tmp_path/'out', public=True)
    choice = Choice(**config['choice'])
    place = {o.rsplit('/', 1)[-1]: i for i, o in enumerate(test.frame.path)}
    at = [place[o] for o in res.table.files]
    p = image_probability(test.found, choice)
    np.testing.assert_allclose(res.table.probability, p[at], atol=1e-2)
    assert (res.table.decision == np.where(res.table.probability >= config['threshold'], 'fracture', 'none')).all()
    drawn = scored_boxes(test.found, p, choice.power, choice.overlap)
    assert abs(len(res.boxes) - sum((s >= choice.box_threshold).sum() for _, s in drawn)) <= 2
    back = pd.read_csv(tmp_path/'out'/'boxes.csv', dtype=dict(study=str))
    pd.testing.assert_frame_equal(back, res.boxes, check_dtype=False)
    assert (back[['x1', 'y1']].to_numpy() <= [40, 32]).all()
    for o in res.table.overlay: assert Image.open(tmp_path/'out'/'overlays'/o).size[0] == 512


def test_the_command_line_exports_folds_and_predicts(trained, images, tmp_path, capsys):
    folders = [str(o.folder) for o in trained]
    assert main(['export', *folders, str(tmp_path/'model')]) == 0
    assert load_detectors(tmp_path/'model')[1]['members'] == 2
    assert main(['predict', str(tmp_path/'model'), str(images[0]/'1.png'), '--public']) == 0
    assert 'image_score' in capsys.readouterr().out
    wrong = ((*folders, '--rule', 'f1'), 'chosen out of fold'), ((folders[0], folders[0]), 'same images')
    for args, message in wrong:
        assert main(['export', *args[:2], str(tmp_path/'x'), *args[2:]]) == 2
        assert message in capsys.readouterr().err and not (tmp_path/'x').exists()
    with pytest.raises(InputError, match='which give boxes'): load_network(tmp_path/'model')


@pytest.mark.parametrize('wrong', [dict(epochs=0), dict(batch_size=1), dict(spread=.5), dict(average=1.),
                                   dict(cells=-1.), dict(precision='int8'), dict(dropout=1.), dict(ephocs=3),
                                   dict(channels=0), dict(window=50), dict(sound=-1.)])
def test_wrong_settings_are_told_in_one_line(wrong):
    with pytest.raises(InputError) as e: detection_from_parameters(dict(backbone='densenet51') | wrong)
    assert '\n' not in str(e.value)


def test_no_box_no_such_block_and_too_wide_a_window_are_told(images):
    studies, sizes, cache = images[1]
    wide = replace(ONE, network=replace(ONE.network, window=128))
    with pytest.raises(InputError, match='window of 128 pixels in images of 64'): detect(wide, studies, sizes, cache)
    with pytest.raises(InputError, match='is no block'): detect(replace(ONE, free='block9'), studies, sizes, cache)
    with pytest.raises(InputError, match='holds no box'): detect(ONE, studies.assign(boxes=None), sizes, cache)


ODD = [None, True, 0, -1, 2, math.nan, math.inf, '', 'x'*5000, [], {}, [32, 64], [30, 30], 'pair', 'vgg11']


def test_odd_folders_end_in_one_line(model, images, tmp_path):
    "Every key of the configuration and of the choice lost or with another value"
    odd = tmp_path/'odd'
    shutil.copytree(model, odd)
    config = json.loads((model/'config.json').read_text())

    def told(changed):
        (odd/'config.json').write_text(json.dumps(changed))
        with pytest.raises(InputError) as e: predict_files(odd, [images[0]/'1.png'], public=True)
        assert '\n' not in str(e.value) and len(str(e.value)) < 600
    free = {'version', 'rule', 'run', 'commit', 'fingerprint', 'grouping'}
    for key in config:
        told({k: v for k, v in config.items() if k != key})
        for value in ODD if key not in free else ():
            if value != config[key] or isinstance(value, bool): told(config | {key: value})
    for key in config['choice']:
        told(config | dict(choice={k: v for k, v in config['choice'].items() if k != key}))
        for value in ODD:
            if value != config['choice'][key]: told(config | dict(choice=config['choice'] | {key: value}))
