"Localizers: every method trains on tiny data, hidden boxes stay hidden, a killed run goes on, wrong use is told."
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback  # noqa: F401 - patches no_bar into Learner
from PIL import Image

from radinet_nb.data.boxed import read_chests
from radinet_nb.data.cache import build_cache
from radinet_nb.data.loaders import Batches
from radinet_nb.data.sizes import image_sizes
from radinet_nb.data.studies import split_studies
from radinet_nb.errors import InputError
from radinet_nb.learning.localization.batches import MapLoader
from radinet_nb.learning.localization.localizer import Localizer, LocalizerSpec, localizer_from_weights
from radinet_nb.learning.localization.methods import method_named
from radinet_nb.learning.localization.names import METHODS
from radinet_nb.learning.localization.teaching import MapLoss, Teach, in_evaluation
from radinet_nb.learning.localization.training import Localization, localize, map_data, map_learner

TINY = Localization('tiny', network=LocalizerSpec('densenet51', channels=8, prior=.2), epochs=1, lr=1e-3, batch_size=8,
                    boxes=.5, negatives=.5, threads=1, device='cpu')


@pytest.fixture(scope='module')
def chests(tmp_path_factory, spotted):
    "Gray squares of 32 pixels with a bright spot where the fracture is"
    folder = tmp_path_factory.mktemp('chests')
    studies = split_studies(spotted(folder), (.6, .2, .2))
    return studies, image_sizes(studies), build_cache(studies, folder/'views', 32, jobs=1)


def same(*runs):
    "Whether two runs end with the same weights, to the bit"
    first, second = (localizer_from_weights(o.weights).state_dict() for o in runs)
    return all(torch.equal(v, second[k]) for k, v in first.items())


@pytest.mark.parametrize('method', METHODS)
def test_every_method_trains_an_epoch_with_finite_gradients_and_none_for_the_teacher(method, chests):
    "What is drawn by the teacher has no gradient, what the student learns from it has one, and a step changes weights"
    one = replace(TINY, method=method, settings={'ema': .9} if method == 'mean_teacher' else {})
    torch.manual_seed(0)
    network = Localizer(one.network)
    learn, teach, history = map_learner(one, network, map_data(one, *chests)[0], torch.device('cpu'))
    before, seen = {k: v.clone() for k, v in network.state_dict().items()}, []

    class Watch(Callback):
        order = 30

        def before_batch(self):
            if self.training and 'target' in self.yb[0]: seen.append(self.yb[0]['target'])

        def before_step(self):
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            assert grads and all(o.isfinite().all() for o in grads)
            if teach.teacher is not self.model: assert all(p.grad is None for p in teach.teacher.parameters())
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3, cbs=[Watch(), history])
    assert bool(seen) == teach.method.teaches and not any(o.requires_grad for o in seen)
    assert all(o.min() >= 0 and o.max() <= 1 for o in seen)
    assert any(not torch.equal(v, before[k]) for k, v in network.state_dict().items())
    row = history.rows[0]
    assert np.isfinite([row[k] for k in ('train_loss', 'supervised_loss', 'weak_loss', 'valid_auroc')]).all()
    assert np.isfinite(row['m']) == teach.method.ever_teaches # nothing is drawn where nobody is taught


@pytest.mark.parametrize('method', ['dynamic_sharpening', 'temporal_ensembling', 'mean_teacher', 'cam_self_training'])
def test_a_killed_run_goes_on_to_the_same_bit(method, chests, tmp_path, monkeypatch):
    "Killed after the second of three epochs, the same call ends with the same weights, history and maps"
    from radinet_nb.learning.localization import teaching
    one = replace(TINY, method=method, epochs=3)
    whole = localize(one, *chests, tmp_path/'whole')

    def killed(self):
        if self.epoch == 2: raise KeyboardInterrupt
        return plain(self)
    plain = teaching.MapHistory.epoch_row
    with monkeypatch.context() as m:
        m.setattr(teaching.MapHistory, 'epoch_row', killed)
        with pytest.raises(KeyboardInterrupt): localize(one, *chests, tmp_path/'again')
    assert not (tmp_path/'again').exists()
    again = localize(one, *chests, tmp_path/'again')
    assert again.record['resumed'] == [2] and whole.record['resumed'] == []
    pd.testing.assert_frame_equal(again.history, whole.history)
    assert same(whole, again)
    assert np.array_equal(*(np.load(o.folder/'maps.npy') for o in (whole, again)))


def test_a_trainer_never_receives_a_hidden_box(chests):
    "Hidden boxes moved elsewhere change no batch and no weight; those that are shown do"
    studies, sizes, cache = chests
    data = map_data(TINY, *chests)[0]
    weak = data.rows.path[data.roles == 'weak']
    moved = studies.assign(boxes=studies.boxes.mask(studies.path.isin(weak), '[[1, 1, 30, 30]]'))
    first, second = (localize(TINY, o, sizes, cache) for o in (studies, moved))
    assert same(first, second)
    assert (first.history.pseudo_recall != second.history.pseudo_recall).any() # measured, not trained on
    for x, known in MapLoader(data.shown('train'), Batches(36), training=True):
        assert x.isfinite().all() and known['boxes'][known['role'] == 2].isnan().all()


def test_the_oracle_sees_all_boxes_and_supervised_some(chests):
    roles = {o: map_data(replace(TINY, method=o), *chests)[0].roles.value_counts() for o in ('oracle', 'supervised')}
    assert set(roles['oracle'].index) == {'', 'boxed', 'negative', 'public'} # its negatives are those of the others
    assert abs(roles['supervised']['boxed'] - roles['supervised']['weak']) <= 1


def test_a_missing_detach_is_caught(chests, monkeypatch):
    "A teacher that keeps the gradient is refused by every method that makes targets of its map"
    one = replace(TINY, method='dynamic_sharpening')
    learn, teach, history = map_learner(one, Localizer(one.network), map_data(one, *chests)[0], torch.device('cpu'))
    plain = Teach.draw.__wrapped__

    def attached(self, images):
        with torch.enable_grad(): return plain(self, images)
    monkeypatch.setattr(Teach, 'draw', attached)
    with learn.no_bar(), learn.no_logging(), pytest.raises(Exception, match='detach it'):
        learn.fit(1, 1e-3, cbs=[history])


def test_the_teacher_leaves_the_student_in_its_mode(chests):
    network = Localizer(TINY.network)
    frozen = next(o for o in network.modules() if isinstance(o, torch.nn.BatchNorm2d))
    network.train(), frozen.eval()
    with in_evaluation(network): assert not any(o.training for o in network.modules())
    assert not frozen.training and network.training


def test_it_learns_a_bright_spot(chests):
    "The positive control: with all boxes, a spot that anybody sees is found in images that were not learned from"
    run = localize(replace(TINY, method='oracle', negatives=1., epochs=12, lr=3e-3, augmentation=.3), *chests)
    assert run.history.valid_auroc.max() > .9 and run.history.valid_froc.max() > .6
    found, maps = run.predictions, np.load(run.folder/'maps.npy')
    boxes = pd.read_parquet(run.folder/'boxes.parquet')
    at = ((boxes[['x0', 'y0']].to_numpy() + boxes[['x1', 'y1']].to_numpy())/2).astype(int)
    centre = maps[boxes.row, at[:, 1], at[:, 0]].astype(float)
    own = maps[boxes.row].astype(float)
    assert centre.mean() > 1.4*own.mean() and len(found) == len(maps)


@pytest.mark.parametrize('changes, message', [
    (dict(boxes=0.), 'no training image keeps its boxes'), (dict(method='dynamic'), 'did you mean'),
    (dict(settings=dict(b=1.)), 'has no setting'), (dict(folds=2, fold=2), 'choose 0 to 1'),
    (dict(network=LocalizerSpec('vit_tiny_patch16_224')), 'gives no maps'), (dict(free='block9'), 'is no block'),
    (dict(median_of='all'), 'write train'), (dict(reduction='max'), 'write sum or mean'), (dict(boxes=2.), '0 to 1')])
def test_wrong_use_is_told_in_one_line(changes, message, chests):
    with pytest.raises(InputError, match=message) as e: localize(replace(TINY, **changes), *chests)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('box, message', [
    ('[[1, 1, 60, 20]]', 'outside the image of 40 x 32'), ('[[20, 20, 38, 40]]', 'outside the image'),
    ('[[-9, 2, 8, 9]]', 'outside the image')])
def test_a_box_outside_the_image_is_told(box, message, chests):
    studies, sizes, cache = chests
    wrong = studies.assign(boxes=studies.boxes.where(studies.label == 0, box))
    with pytest.raises(InputError, match=message): localize(TINY, wrong, sizes, cache)


@pytest.mark.parametrize('row, message', [
    ('a.png,1,p,"[[30, 20, 5, 8]]"', 'x, y, width, height'), ('a.png,1,p,"[[1, 2, 3]]"', 'four numbers'),
    ('a.png,1,p,"[[1, 2, 99, 9]]"', 'outside the image'), ('a.png,1,p,oops', 'no JSON')])
def test_a_table_with_wrong_boxes_is_told(row, message, tmp_path):
    Image.new('L', (40, 32)).save(tmp_path/'a.png')
    (tmp_path/'chests.csv').write_text(f'path,label,patient,boxes\n{row}\n')
    with pytest.raises(InputError, match=message): read_chests(tmp_path)


def test_a_target_of_another_size_is_told(chests):
    data = map_data(TINY, *chests)[0].shown('train')
    loss = MapLoss(method_named('supervised'), data)
    _, batch = next(iter(MapLoader(data, Batches(8))))
    with pytest.raises(InputError, match='for a map of'): loss(torch.zeros(8, 16, 16), batch)


def test_polygons_are_learned_where_they_are_known_and_hidden_with_their_boxes(chests):
    "The mask of a polygon lies in that of its box, a weak image has none, and a table without polygons is told"
    studies, sizes, cache = chests
    rings = [json.dumps([[[b[0], b[1], b[2], b[1], b[0], b[3]]] for b in json.loads(o)]) for o in studies.boxes]
    one, outlined = replace(TINY, mask='polygon'), studies.assign(polygons=rings)
    data = [map_data(*o, sizes, cache)[0].shown('train') for o in ((one, outlined), (TINY, studies))]
    (_, drawn), (_, boxed) = (next(iter(MapLoader(o, Batches(36)))) for o in data)
    assert (drawn['mask'] <= boxed['mask']).all() and 0 < drawn['mask'].sum() <= boxed['mask'].sum()
    assert drawn['polygons'][drawn['role'] == 2].isnan().all() and drawn['boxes'].isnan().all()
    for x, known in MapLoader(data[0], Batches(36), training=True): # moved with the image
        assert x.isfinite().all() and known['mask'][known['role'] == 1].sum() > 0
        assert known['mask'][known['role'] != 1].sum() == 0
    with pytest.raises(InputError, match='no polygon is known'): map_data(one, studies, sizes, cache)
    outside = studies.assign(polygons=studies.boxes.where(studies.boxes == '[]', '[[[0, 0, 39, 0, 0, 31]]]'))
    with pytest.raises(InputError, match='leaves the box'): map_data(one, outside, sizes, cache)
    with pytest.raises(InputError, match='write box or polygon'): replace(TINY, mask='circle')
