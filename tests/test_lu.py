"lu2022: rules of a hit on maps against brute force, the flat floor, and from runs that left maps to verdicts"
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import find_objects, label

from radinet_nb.analysis.froc import froc
from radinet_nb.analysis.froc_floor import binormal_floor, flat_steps
from radinet_nb.analysis.froc_rules import MAP_RULES, HitRule, map_steps
from radinet_nb.analysis.froc_steps import RATES, recall_at, steps_statistic
from radinet_nb.errors import InputError
from radinet_nb.papers.lu2022.checks import CHECKS, OURS
from radinet_nb.papers.lu2022.method_tables import claimed_pairs, paper_scores, read_methods, table_layout
from radinet_nb.results.claims import judge_claims
from radinet_nb.results.localized import read_localized
from radinet_nb.results.localized_tables import (
    curves_table, differences_table, draw_scores, gain_sentence, levels_table, recall_by_size)

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])


def iou(a, b):
    w, h = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    def area(o): return (o[2] - o[0])*(o[3] - o[1])
    return w*h/(area(a) + area(b) - w*h)


def counted(m, boxes, t, rule):
    "Lesions hit and false positives of one map at one threshold, as the rule says it in words"
    if rule.kind == 'peak':
        points = plateaus(m, rule.apart, t)
        on = [[max(b[0] - x, x - b[2], 0)**2 + max(b[1] - y, y - b[3], 0)**2 <= rule.limit**2 for b in boxes]
              for x, y in points]
        return sum(any(o[i] for o in on) for i in range(len(boxes))), sum(not any(o) for o in on)
    found, n = label(m >= t, CROSS if rule.connectivity == 4 else np.ones((3, 3)))
    for i in range(1, n + 1): # what is too small is inactive
        if (found == i).sum() < rule.smallest: found[found == i] = 0
    rects = [(c.start, r.start, c.stop, r.stop) for r, c in filter(None, find_objects(found))]
    if rule.kind == 'overlap':
        on = [[iou(o, b) >= rule.limit for b in boxes] for o in rects]
        return sum(any(o[i] for o in on) for i in range(len(boxes))), sum(not any(o) for o in on)
    def middle(b): return (b[0] + b[2])/2, (b[1] + b[3])/2
    def inside(p, b): return b[0] <= p[0] <= b[2] and b[1] <= p[1] <= b[3]
    hits = sum(found[min(int(middle(b)[1]), m.shape[0] - 1), min(int(middle(b)[0]), m.shape[1] - 1)] > 0 for b in boxes)
    return hits, sum(not any(inside(middle(o), b) for b in boxes) for o in rects)


def plateaus(m, apart, t):
    "Middles of the places that no higher pixel is near"
    h, w = m.shape
    high = np.array([[m[y, x] > 0
                      and m[y, x] == m[max(y - apart, 0):y + apart + 1, max(x - apart, 0):x + apart + 1].max()
                      for x in range(w)] for y in range(h)])
    found, n = label(high, np.ones((3, 3)))
    spots = [np.argwhere(found == i + 1) for i in range(n)]
    return [(o[:, 1].mean() + .5, o[:, 0].mean() + .5) for o in spots if m[tuple(o[0])] >= t]


BRUTE = {**MAP_RULES, 'connected at sides': HitRule(connectivity=4), 'two pixels': HitRule(smallest=2),
         'overlap of two pixels': HitRule('overlap', .2, smallest=2), 'near a peak': HitRule('peak', 1., apart=1)}


@pytest.mark.parametrize('name', BRUTE)
def test_maps_agree_with_brute_force_over_all_thresholds(name):
    rng, rule, rates = np.random.default_rng(len(name)), BRUTE[name], (0., .5, 1., 2.)
    for _ in range(1000 if name in MAP_RULES else 150):
        n, (h, w) = rng.integers(1, 3), rng.integers(3, 6, 2)
        maps = [rng.integers(0, 4, (h, w))/3 for _ in range(n)]
        truths = [[(x, y, min(x + a, w), min(y + b, h)) for x, y, a, b in rng.integers(1, 3, (k, 4))]
                  for k in rng.integers(0, 3, n)]
        truths[0] = truths[0] or [(0, 0, 2, 1)]
        thresholds = np.unique(np.concatenate([o.ravel() for o in maps]))[::-1]
        hits, false = (np.array(o)
                       for o in zip(*[np.sum([counted(m, b, t, rule) for m, b in zip(maps, truths, strict=True)], 0)
                                                  for t in thresholds], strict=True))
        steps = map_steps(maps, truths, np.zeros(n), rule)
        for reading in ('best', 'first'):
            wanted = recall_at(false[None]/n, hits[None]/sum(map(len, truths)), rates, reading)[0]
            assert np.allclose(steps_statistic(steps, rates, reading)[0](np.ones((1, 1)))[0, 1:], wanted)


def test_a_draw_is_the_sample_with_repeated_images():
    rng = np.random.default_rng(3)
    maps = [rng.integers(0, 9, (7, 7))/8 for _ in range(10)]
    truths = [[(1, 1, 4, 4)] if i % 2 else [] for i in range(10)]
    rows = rng.integers(0, 10, 10)
    w = np.bincount(rows, minlength=10)[None].astype(float)
    for rule in MAP_RULES.values():
        drawn = steps_statistic(map_steps(maps, truths, None, rule))[0](w)[0]
        repeated = map_steps([maps[i] for i in rows], [truths[i] for i in rows], np.zeros(10), rule)
        assert froc(repeated).value.tolist() == pytest.approx(drawn.tolist())


def test_the_floors_of_the_printed_auroc():
    assert [f'{binormal_floor(.9767, o).mean():.2f}' for o in (.05, .145, .3, .5)] == ['0.97', '0.90', '0.76', '0.58']
    scores, positive = np.linspace(1, .1, 40), np.arange(40) < 8
    truths = [[(0, 0, 2, 2)] if o else [] for o in positive]
    # every image called costs one false positive, and the eight positives are called first
    flat = [froc(flat_steps(scores, truths, (9, 9), rule=o)).value[0] for o in MAP_RULES.values()]
    assert flat == pytest.approx([np.mean([min(rate*40/8, 1) for rate in RATES]), 0, 0, 0])


@pytest.mark.parametrize(('maps', 'truths', 'problem'), [
    ([np.zeros((4, 4))], [[(3, 3, 1, 1)]], 'x1 < x0'), ([np.zeros((4, 4))], [[(0, 0, 16, 16)]], 'beside the map'),
    ([np.zeros((4, 4))], [[(1, 1, 6, 3)]], 'beyond the map'), ([np.zeros((4, 4))], [], '1 maps, 0'),
    ([np.zeros((4, 4))], [[(1, 1, 2)]], 'not four'), ([[[np.nan]]], [[]], 'no map of numbers')])
def test_boxes_and_maps_that_do_not_fit_are_told(maps, truths, problem):
    with pytest.raises(InputError, match=problem.replace('(', r'\(')): map_steps(maps, truths)


def a_run(folder, name, seed, skill, images=60, side=12):
    "A localization by the contract, with a method's name"
    rng, cases = np.random.default_rng([seed, len(name)]), np.random.default_rng(5)
    target, rows = (np.arange(images) % 5 < 2).astype(int), []
    maps = rng.normal(size=(images, side, side))*.7 - 3
    for i in range(images):
        x, y, size = cases.integers(0, side - 4, 2).tolist() + [int(cases.integers(2, 5))]
        maps[i, y:y + size, x:x + size] += skill*target[i]*rng.random()
        if target[i]:
            rows.append(dict(path=f'{i:02}', x0=x, y0=y, x1=x + size, y1=y + size, width=4*size, height=4*size))
    maps = (1/(1 + np.exp(-maps))).astype('float16')
    frame = pd.DataFrame(dict(collection='chests', patient=[f'{i//2}' for i in range(images)],
                              path=[f'{i:02}' for i in range(images)],
                              split=np.where(np.arange(images) < 20, 'valid', 'test'), target=target,
                              probability=maps.max((1, 2)).astype(float)))
    folder = folder/f'{name}{seed}'.replace(' ', '_')
    folder.mkdir()
    np.save(folder/'maps.npy', maps)
    return SimpleNamespace(folder=folder, record=dict(name=name, seed=seed, fold=0), predictions=frame,
                           table={'boxes.parquet': pd.DataFrame(rows)}.get)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    skills = {'CheXNet': 1., 'Mean Teacher': 6., OURS: 6.5, 'constant sharpening a=4 t=0.2': 6.,
              'Hard threshold at t': 6.}
    return [a_run(folder, name, seed, skill) for name, skill in skills.items() for seed in range(3)]


@pytest.fixture(scope='module')
def found(runs):
    models = read_methods(runs)
    return models, draw_scores(models, 300)


def test_tables_of_methods_hold_floors_gains_and_published_values(found):
    models, drawn = found
    levels = levels_table(models, drawn)
    table = table_layout(paper_scores(levels, 'table1')).set_index('method')
    assert table.loc[OURS, 'published FROC'] == '0.9300' and table.loc['Hard threshold at t', 'published FROC'] == ''
    at = levels.set_index(['model', 'rule', 'reading', 'metric'])
    assert at.value[OURS, 'peak', 'best', 'froc'] > at.value['CheXNet', 'peak', 'best', 'froc'] + .2
    assert np.allclose(levels.gain.dropna(), (levels.value - levels.floor).dropna())
    flat = at.floor.xs('froc', level='metric').unstack(['rule', 'reading'])
    assert (flat['paper', 'best'] > flat['overlap 0.1', 'best']).all()


def test_claims_are_decided_by_the_paired_differences(found):
    _, drawn = found
    gaps = differences_table(drawn, claimed_pairs(drawn))
    judged = judge_claims('lu2022', dict(tables={'methods/differences': gaps}), CHECKS).set_index('id').verdict
    assert judged['lu-location-Mean-Teacher'] == 'reproduced' and judged['lu-table2-6-0.4'] == 'not run yet'
    assert judged['lu-table1-Mean-Teacher-froc'] in ('undecided', 'direction only', 'not reproduced')
    one = differences_table({m: [o._replace(values=o.values[:1], draws=o.draws[:1], seeds=o.seeds[:1]) for o in d]
                             for m, d in drawn.items()}, claimed_pairs(drawn))
    judged = judge_claims('lu2022', dict(tables={'methods/differences': one}), CHECKS).set_index('id').verdict
    assert judged['lu-location-Mean-Teacher'] == 'direction only' # one training decides nothing
    assert 'undecided against Hard threshold at t' in gain_sentence(gaps, OURS, ['Hard threshold at t'])


def test_curves_and_sizes_rest_on_the_same_lesions(runs, found):
    models, _ = found
    curves = curves_table({OURS: models[OURS]}, RATES, resamples=50)
    assert curves.recall.is_monotonic_increasing
    sizes = recall_by_size(models, read_methods(runs, 'valid'), resamples=50)
    assert (sizes.groupby('model').lesions.sum() == sum(map(len, models[OURS][0].truths))).all()


def test_a_damaged_run_of_maps_is_told(runs, tmp_path):
    run = a_run(tmp_path, 'damaged', 0, 5)
    run.predictions = run.predictions.assign(probability=.5)
    with pytest.raises(InputError, match='maximum of a map'): read_localized(run)
    np.save(run.folder/'maps.npy', np.zeros((3, 2)))
    with pytest.raises(InputError, match='holds 3 x 2 float64, not 60 x any x any'): read_localized(run)
    (run.folder/'maps.npy').write_bytes(b'')
    with pytest.raises(InputError, match='is cut short or damaged'): read_localized(run)
