"Ways of fine-tuning: each is what its paper says, is recorded, goes on after a kill, and refuses wrong use."
import multiprocessing
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from PIL import Image
from torch.nn.modules.batchnorm import _BatchNorm

from radinet_nb.data.cache import build_cache
from radinet_nb.data.runs import load_run
from radinet_nb.data.studies import split_studies, study_table
from radinet_nb.errors import InputError
from radinet_nb.learning.adapters import linear_layers
from radinet_nb.learning.averages import MovingAverage
from radinet_nb.learning.blocks import blocks
from radinet_nb.learning.learners import make_learner
from radinet_nb.learning.networks import Network, NetworkSpec
from radinet_nb.learning.prediction import network_of
from radinet_nb.learning.regularization import L2SP
from radinet_nb.learning.schedules import Phase, fit_schedule
from radinet_nb.learning.stages import stage_from_parameters
from radinet_nb.learning.transfer import train_stage
from radinet_nb.learning.weights import load_weights

torch.set_num_threads(1)
SMALL = dict(backbone='densenet51', batch_size=8, threads=1, seed=3, device='cpu', lr=.002, warmup=1, epochs=2)


def train(studies, cache, out='', **params):
    "A stage by its flat parameters, as the notebook takes them"
    return train_stage(stage_from_parameters(params), studies, cache, out)


@pytest.fixture(scope='module')
def wrists(tmp_path_factory):
    "60 patients, fractured or not by a bright spot"
    folder, rng = tmp_path_factory.mktemp('wrists'), np.random.default_rng(0)
    rows = []
    for i in range(60):
        x = rng.normal(90, 20, (32, 32))
        if i % 2 == 0: x[8:14, 8:14] += 120
        Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(folder/f'{i:03}.png')
        rows.append(dict(patient=f'p{i}', study=f's{i}', view='frontal', body_part='wrist', label=int(i % 2 == 0),
                         path=str(folder/f'{i:03}.png')))
    studies = split_studies(study_table(rows, collection='toy'), shares=(.6, .2, .2), seed=0)
    return studies, build_cache(studies, folder/'cache', 32, jobs=1)


@pytest.fixture(scope='module')
def sources(wrists, tmp_path_factory):
    "Runs to start from, by backbone"
    made = {}

    def source(backbone='densenet51'):
        if backbone not in made:
            out = tmp_path_factory.mktemp('source')/backbone
            made[backbone] = train(*wrists, out, **SMALL | dict(backbone=backbone, warmup=0, epochs=1)).folder
        return str(made[backbone])
    return source


class KillAfterEpoch(Callback):
    "SIGKILL when so many epochs are done and the checkpoint is written"
    order = 70

    def __init__(self, epochs): self.epochs = epochs

    def after_epoch(self):
        if self.learn.epochs_done == self.epochs: os.kill(os.getpid(), signal.SIGKILL)


def in_child(kill_after, *args, **kwargs):
    "Train in a process of its own that is killed after so many epochs; its exit code"
    def child():
        import radinet_nb.learning.transfer as transfer
        make = transfer.make_learner
        transfer.make_learner = lambda *a, **k: make(*a, **k).add_cb(KillAfterEpoch(kill_after))
        train(*args, **kwargs)
    process = multiprocessing.get_context('fork').Process(target=child, daemon=True)
    process.start()
    process.join()
    return process.exitcode


WAYS = dict(l2sp=dict(l2sp_alpha=.1, l2sp_beta=.01), lp_ft=dict(schedule='lp_ft', head_depth=1),
            auto_rgn=dict(auto_rgn=True), ema=dict(ema=.8),
            lora=dict(backbone='test_vit', lora_rank=4, ema=.8, auto_rgn=True))


@pytest.mark.parametrize('way', WAYS)
def test_killed_in_every_phase_it_ends_the_same(way, wrists, sources, tmp_path):
    kwargs = SMALL | WAYS[way]
    kwargs['source'] = sources(kwargs['backbone'])
    whole = train(*wrists, tmp_path/'whole', **kwargs)
    for at in 1, 2: assert in_child(at, *wrists, tmp_path/'killed', **kwargs) == -signal.SIGKILL
    assert in_child(0, *wrists, tmp_path/'killed', **kwargs) == 0
    killed = load_run(tmp_path/'killed')
    assert killed.record['resumed'] == [1, 2] and whole.record['resumed'] == []
    for one, other in (killed.history, whole.history), (killed.predictions, whole.predictions):
        pd.testing.assert_frame_equal(one.drop(columns='run'), other.drop(columns='run'), check_exact=True)
    assert killed.weights.read_bytes() == whole.weights.read_bytes()


def test_l2sp_is_recorded_and_holds_the_body_near_its_start(wrists, sources, tmp_path):
    found = {}
    for alpha in 0., 100.:
        run = train(*wrists, tmp_path/str(alpha), source=sources(), l2sp_alpha=alpha, **SMALL)
        before, after = load_weights(load_run(sources()).weights), load_weights(run.weights)
        found[alpha] = sum(float((after[k] - before[k]).square().sum()) for k in after
                           if k.startswith('body.') and k.rpartition('.')[2] in ('weight', 'bias'))
    assert found[100.] < found[0.]/2
    told = run.record['l2sp']
    assert (told['alpha'], told['beta']) == (100., 0.)
    assert told['penalty'] == pytest.approx(50*found[100.], rel=1e-4)
    assert 'l2sp' not in load_run(tmp_path/'0.0').record


def test_the_linear_probe_of_a_stage_leaves_the_body_to_the_bit_and_ends_by_its_own_rule(wrists, sources, tmp_path):
    probe = dict(schedule='lp_ft', head_depth=1, warmup=60, epochs=0, probe_lr=.05, stop=3)
    run = train(*wrists, tmp_path/'probe', **SMALL | probe, source=sources())
    before, after = load_weights(load_run(sources()).weights), load_weights(run.weights)
    assert all(torch.equal(before[k], after[k]) for k in after if k.startswith('body.'))
    assert run.record['training']['ended_by'] == 'own rule' and len(run.history) < 60
    assert run.record['schedule'].startswith('linear probe: the head at 5e-02 for up to 60 epochs')


def test_two_processes_penalize_and_average_as_one_does(wrists, sources, tmp_path, forked):
    "In double precision, as in tests/test_training.py"
    kwargs = SMALL | dict(source=sources(), warmup=0, epochs=1, precision='fp64', l2sp_alpha=1., l2sp_beta=.5, ema=.8)
    one = train(*wrists, tmp_path/'one', **kwargs)
    two = train(*wrists, tmp_path/'two', processes=2, **kwargs)
    a, b = (load_weights(o.weights) for o in (one, two))
    assert max((a[k] - b[k]).abs().max().item() for k in a if a[k].is_floating_point()) < 1e-4
    assert two.record['l2sp']['penalty'] == pytest.approx(one.record['l2sp']['penalty'], rel=1e-4)


def test_a_moving_average_says_so_and_is_what_the_predictions_come_from(wrists, sources, tmp_path):
    "The frozen body is the source's to the bit, running statistics and counts too"
    run = train(*wrists, tmp_path/'ema', source=sources(), ema=.9, **SMALL | dict(free='head'))
    assert run.record['weights_kept'].startswith('moving average over steps, decay 0.9')
    before, after = load_weights(load_run(sources()).weights), load_weights(run.weights)
    assert all(torch.equal(before[k], after[k]) for k in after if k.startswith('body.'))
    plain = train(*wrists, tmp_path/'plain', source=sources(), **SMALL | dict(free='head'))
    assert not torch.equal(load_weights(plain.weights)['head.0.weight'], after['head.0.weight'])
    assert (plain.history.train_loss == run.history.train_loss).all() # the average looks on
    valid = run.predictions[run.predictions.split == 'valid']
    loss = -np.log(np.where(valid.target == 1, valid.probability, 1 - valid.probability)).mean()
    assert loss == pytest.approx(run.history.valid_loss.min(), abs=.02)


def test_a_run_with_adapters_holds_merged_weights_and_is_a_start_like_any_other(wrists, sources, tmp_path):
    "Its linear layers moved by matrices of the rank, all else in the body is the source's to the bit"
    vit = SMALL | dict(backbone='test_vit')
    run = train(*wrists, tmp_path/'lora', source=sources('test_vit'), lora_rank=2, **vit)
    before, after = load_weights(load_run(sources('test_vit')).weights), load_weights(run.weights)
    assert list(before) == list(after) and 'lora+head' in run.record['schedule']
    moved = {k for k in after if k.startswith('body.') and not torch.equal(before[k], after[k])}
    assert moved == {f'body.{o}.weight' for o in linear_layers(network_of(run).body)}
    for k in moved: assert torch.linalg.matrix_rank(after[k] - before[k], rtol=1e-3) <= 2
    network, (studies, cache) = network_of(run), wrists
    row = run.predictions.iloc[0]
    x = network.normalize(torch.from_numpy(cache[cache.rows_of(studies[studies.study == row.study].path)]))
    with torch.no_grad(): assert network(x).softmax(1)[0, 1].item() == pytest.approx(row.probability, abs=1e-5)
    again = train(*wrists, tmp_path/'again', source=str(run.folder), **vit)
    assert again.record['carried']['carried'] == len([k for k in after if k.startswith('body.')])


def test_adapters_in_a_body_without_linear_layers_are_refused_before_anything_is_written(wrists, sources, tmp_path):
    with pytest.raises(InputError, match='the body of densenet51 has no linear layers to adapt; choose a transformer'):
        train(*wrists, tmp_path/'run', source=sources(), lora_rank=4, **SMALL)
    assert not list(tmp_path.iterdir())


WRONG = [(dict(source='x', body_init='he'), 'leave it empty, or name no source'),
         (dict(body_init='xavir'), "body_init 'xavir' is unknown; did you mean xavier?"),
         (dict(l2sp_alpha=-1.), 'a penalty of -1.0; choose 0'),
         (dict(l2sp_beta=-1.), 'a penalty of -1.0; choose 0'),
         (dict(schedule='lp_ft', source='x'), 'a linear probe has a head of one layer; set head_depth to 1'),
         (dict(schedule='lp_ft', head_depth=1), 'lp_ft probes what was carried, and nothing is'),
         (dict(lora_rank=-1, source='x'), 'adapters of rank -1'),
         (dict(lora_rank=4), 'nothing is carried, so there is nothing to adapt'),
         (dict(lora_rank=4, source='x', free='head'), 'nothing lets them learn; write lora+head'),
         (dict(lora_rank=4, source='x', schedule='staged'), 'staged decides itself what is free'),
         (dict(ema=1.), 'a decay of 1.0; choose 0'),
         (dict(schedule='staged', auto_rgn=True, source='x'), 'sets the rates of its blocks itself'),
         (dict(l2sp_alpha=.1), 'nothing is carried, so there is no start to stay near')]


@pytest.mark.parametrize('wrong, message', WRONG)
def test_wrong_use_is_told_in_one_line(wrong, message):
    with pytest.raises(InputError) as e: stage_from_parameters(wrong)
    assert message in str(e.value) and '\n' not in str(e.value)


def test_a_collapse_is_said_once_while_it_trains_and_recorded(wrists, tmp_path):
    "At a rate of next to nothing the network stays as it was drawn: one answer in every epoch"
    with pytest.warns(UserWarning, match='one answer for 3 epochs') as said:
        run = train(*wrists, tmp_path/'run', **SMALL | dict(lr=1e-9, warmup=0, epochs=5, stop=9))
    assert len([o for o in said if 'one answer' in str(o.message)]) == 1 and '\n' not in str(said[-1].message)
    told = run.record['training']
    assert told['collapsed'] and told['did_not_train'] and told['collapsed_epochs'] == run.history.collapsed.sum() >= 3


def moved(backbone, free):
    "Names of the tensors that an epoch moved, with everything on that acts on weights; and the network"
    torch.manual_seed(0)
    images = [(torch.randn(3, 32, 32), torch.tensor(i % 2)) for i in range(16)]
    network = Network(NetworkSpec(backbone, depth=2))
    for i, m in enumerate(o for o in network.modules() if isinstance(o, _BatchNorm)): m.num_batches_tracked.fill_(i)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    learn = make_learner(DataLoaders(DataLoader(images, bs=8), DataLoader(images, bs=8)), network)
    carried = [k for k in before if k.startswith('body.')]
    learn.add_cbs([L2SP(network, carried, .1, .1), MovingAverage(.9)])
    fit_schedule(learn, [Phase('one', 1, free, lr=1e-2, auto_rgn=free != 'head')])
    return network, {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}


FREE = {'head': ['head'], 'all': ['stem', 'block1', 'block2', 'block3', 'block4', 'block5', 'block6', 'head'],
        'last 1': ['last', 'head'], 'first 1': ['stem', 'head'], 'first 2': ['stem', 'block1', 'head'],
        'stem+block2': ['stem', 'block2'], 'block1': ['block1']}


@pytest.mark.parametrize('free', [*FREE, 'batch norm+head', 'biases'])
@pytest.mark.parametrize('backbone', ['densenet51', 'mobilenet_v3_small', 'test_resnet', 'test_vit'])
def test_what_is_frozen_stays_to_the_bit_whatever_acts_on_weights(backbone, free):
    "Weights, biases, running statistics and counts; torchvision's and timm's backbones"
    network, names = moved(backbone, free)
    norms = {k for k, m in network.named_modules() if isinstance(m, _BatchNorm)}
    params, groups = dict(network.named_parameters()), blocks(network)
    if free in FREE:
        chosen = [[*groups][-2] if o == 'last' else o for o in FREE[free]]
        ids = {id(p) for k in chosen for p in groups.get(k, [])}
    elif free == 'biases': ids = {id(p) for k, p in params.items() if k.endswith('.bias')}
    else: ids = {id(p) for p in groups['head']} | {id(params[f'{k}.{o}']) for k in norms for o in ('weight', 'bias')}
    free_names = {k for k, p in params.items() if id(p) in ids}
    statistics = {f'{k}.{o}' for k in norms if f'{k}.weight' in free_names
                  for o in ('running_mean', 'running_var', 'num_batches_tracked')}
    assert names <= free_names | statistics
    # timm's ResNets begin with branches of weight 0, which hand no gradient on
    assert statistics <= names and len(names & free_names) > .6*len(free_names)
