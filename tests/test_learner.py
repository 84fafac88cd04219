"fastai's own calls on what `learner_from_frame` gives, and fastai's own DataBlock on radiographs"
import io
import json
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.schedule import *  # noqa: F403 - lr_find and fine_tune
from fastai.interpret import ClassificationInterpretation
from fastai.learner import load_learner
from PIL import Image

from radinet_nb.cli import main
from radinet_nb.errors import InputError
from radinet_nb.learning.transfer import learner_from_frame
from radinet_nb.models.learners import export_learner

matplotlib.use('Agg')


def frame_of(folder, n=40):
    "Noise of patients; a fracture has a bright square"
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        img = rng.integers(0, 120, (40, 30), dtype=np.uint8)
        if i % 2: img[10:20, 10:20] = 250
        Image.fromarray(img).save(folder/f'{i}.png')
        rows.append(dict(path=str(folder/f'{i}.png'), label=i % 2, patient=f'p{i}'))
    return pd.DataFrame(rows)


def learner(frame, folder):
    learn = learner_from_frame(frame, folder, backbone='densenet51', pixels=32, batch_size=8, shares=(.6, .2, .2))
    learn.remove_cbs([o for o in learn.cbs if o.name == 'progress'])
    return learn


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('learner')
    frame = frame_of(folder)
    learn = learner(frame, folder/'cache')
    learn.path = folder
    return frame, learn


def test_what_is_given_is_scored_and_nothing_else(made):
    frame, learn = made
    paths = list(frame.path[::-1][:7])
    p, _ = learn.get_preds(dl=learn.dls.test_dl(paths))
    assert p.shape == (7, 2)
    for i in 0, 6: assert torch.allclose(learn.predict(paths[i])[2], p[i], atol=1e-6)
    labelled, targets = learn.get_preds(dl=learn.dls.test_dl(frame.iloc[::-1].head(7), with_labels=True))
    assert torch.equal(labelled, p) and targets.tolist() == frame.label[::-1][:7].tolist()
    # what the cache holds and what is read now are the same picture
    rows = learn.dls.valid.items
    assert torch.allclose(learn.get_preds()[0], learn.get_preds(dl=learn.dls.test_dl(list(rows.path)))[0], atol=1e-6)
    for strange in '/missing.png', str(learn.path), f'{paths[0]}|{paths[1]}':
        with pytest.raises(InputError): learn.dls.test_dl([paths[0], strange])


def test_showing_changes_no_training_batch(tmp_path):
    frame, seen = frame_of(tmp_path, 30), []
    for look in False, True:
        learn = learner(frame, tmp_path/'cache')
        if look: learn.dls.show_batch(max_n=2); learn.show_results(max_n=2); learn.tta(n=1)
        seen.append(list(learn.dls.train))
    assert all(torch.equal(a, b) for one, other in zip(*seen, strict=True) for a, b in zip(one, other, strict=True))


def test_interpretation_names_the_worst(made):
    frame, learn = made
    found = ClassificationInterpretation.from_learner(learn)
    losses, at = found.top_losses(3)
    p, y = learn.get_preds()
    each = torch.nn.functional.cross_entropy(p.log(), y, reduction='none')
    assert list(found.vocab) == ['none', 'fracture'] and at[0] == each.argmax()
    by_hand = np.zeros((2, 2), int)
    for true, said in zip(y.tolist(), p.argmax(1).tolist(), strict=True): by_hand[true, said] += 1
    assert (found.confusion_matrix() == by_hand).all()
    found.plot_top_losses(3)
    found.plot_confusion_matrix()


def test_export_takes_no_patient_along(made, tmp_path):
    frame, learn = made
    learn.export('model.pkl')
    content = (learn.path/'model.pkl').read_bytes()
    assert not any(path.encode() in content for path in frame.path)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loaded = load_learner(learn.path/'model.pkl')
    with loaded.no_bar(): assert torch.equal(loaded.predict(frame.path[0])[2], learn.predict(frame.path[0])[2])
    assert len(learn.studies) == len(frame) and list(loaded.dls.vocab) == ['none', 'fracture']


def test_the_command_line_predicts_with_an_exported_learner(made, tmp_path, capsys):
    "What `learn.get_preds` says of the validation images, `radinet predict` says of their files, within 1e-5"
    frame, learn = made
    model = export_learner(learn, tmp_path/'Squares', resamples=50)
    valid = learn.studies[learn.studies.split == 'valid']
    capsys.readouterr()
    assert main(['predict', str(model), *valid.path, '--public']) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out)).set_index('files')
    again = table.probability[[Path(o).name for o in valid.path]]
    with learn.no_bar(): np.testing.assert_allclose(again, learn.get_preds()[0][:, 1], atol=1e-5)
    card, config = (model/'README.md').read_text(), json.loads((model/'config.json').read_text())
    assert 'On the validation part alone' in card and 'not from a recorded run' in card and not config['synthetic']
    assert f'| train | {(learn.studies.split == "train").sum()} |' in card
    assert not any(o in card+str(config) for o in [*frame.patient[10:], str(tmp_path), str(learn.path)])


def test_a_learner_that_predict_cannot_use_is_refused_and_nothing_written(made, tmp_path):
    frame, learn = made
    with pytest.raises(InputError, match='no rule best'): export_learner(learn, tmp_path/'new', rule='best')
    with pytest.raises(InputError, match='a wrong value: name'): export_learner(learn, tmp_path/'new', name='../x')
    both = frame.assign(study=[f's{i//2}' for i in range(len(frame))], patient=[f'p{i//2}' for i in range(len(frame))])
    with pytest.raises(InputError, match='hold images of several classes'):
        export_learner(learner(both, tmp_path/'cache'), tmp_path/'new')
    assert [o.name for o in tmp_path.iterdir()] == ['cache']
