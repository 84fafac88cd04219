"""Similarity of representations against references in full, public implementations, and inputs on which those fail"""
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radinet_nb.analysis.activations import activation_batches, activations, frequencies, memory_ahead
from radinet_nb.analysis.bases import decompose
from radinet_nb.analysis.grids import bootstrap_grid, grid_difference, jackknife, permutation_null, split_half
from radinet_nb.analysis.layers import layers_of
from radinet_nb.analysis.similarity import MEASURES, correlations, null_cca, null_level, similarity, strong_directions
from radinet_nb.analysis.similarity_grid import similarity_grid
from radinet_nb.analysis.streamed_cka import cka_streamed
from radinet_nb.errors import InputError

torch.set_num_threads(1)


def pair(n=300, p=12, q=9, noise=1., seed=0, dtype='float64'):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))*np.geomspace(3, .3, p) + 2
    y = x@rng.normal(size=(p, q)) + noise*rng.normal(size=(n, q))*3 - 1
    return x.astype(dtype), y.astype(dtype)


def rotation(p, seed=1): return np.linalg.qr(np.random.default_rng(seed).normal(size=(p, p)))[0]


# ---- references in float64, each computed in another way than the library's

def ref_correlations(x, y):
    "Square roots of the eigenvalues of Sxx^-1 Sxy Syy^-1 Syx"
    x, y = x-x.mean(0), y-y.mean(0)
    left, right = np.linalg.solve(x.T@x, x.T@y), np.linalg.solve(y.T@y, y.T@x)
    val = np.linalg.eigvals(left@right).real
    return np.sqrt(np.clip(np.sort(val)[::-1][:min(x.shape[1], y.shape[1])], 0, 1))


def ref(measure, x, y):
    x, y = x-x.mean(0), y-y.mean(0)
    if measure == 'cca': return ref_correlations(x, y).mean()
    if measure == 'svcca':
        def top(a):
            u, s, _ = np.linalg.svd(a, full_matrices=False)
            k = np.searchsorted(np.cumsum(s**2)/np.sum(s**2), .99) + 1
            return u[:, :k]*s[:k]
        return ref_correlations(top(x), top(y)).mean()
    if measure == 'pwcca': # Morcos et al. 2018, eq. 2: canonical variables of x, weighted by their share of x's neurons
        val, vec = np.linalg.eig(np.linalg.solve(x.T@x, x.T@y)@np.linalg.solve(y.T@y, y.T@x))
        order = np.argsort(-val.real)[:min(x.shape[1], y.shape[1])]
        h = x@vec.real[:, order]
        weight = np.abs((h/np.linalg.norm(h, axis=0)).T@x).sum(1)
        return (weight*np.sqrt(np.clip(val.real[order], 0, 1))).sum()/weight.sum()
    if measure == 'procrustes': # from the distance that the best rotation leaves (Schönemann 1966)
        x, y = x/np.linalg.norm(x), y/np.linalg.norm(y)
        d = max(x.shape[1], y.shape[1])
        x, y = (np.pad(a, ((0, 0), (0, d-a.shape[1]))) for a in (x, y))
        u, _, vt = np.linalg.svd(x.T@y)
        return 1 - np.linalg.norm(x@(u@vt)-y)**2/2
    k, l, n = x@x.T, y@y.T, len(x)  # noqa: E741
    if measure == 'cka': return (k*l).sum()/np.sqrt((k*k).sum()*(l*l).sum())

    def hsic(k, l):  # noqa: E741
        k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
        return np.trace(k@l) + k.sum()*l.sum()/((n-1)*(n-2)) - 2/(n-2)*(k@l).sum()
    return hsic(k, l)/np.sqrt(hsic(k, k)*hsic(l, l))


@pytest.mark.parametrize('measure', MEASURES)
@pytest.mark.parametrize('dtype', ['float64', 'float32'])
@pytest.mark.parametrize('shape', [(12, 9), (5, 14), (8, 8)])
def test_agrees_with_reference(measure, dtype, shape):
    x, y = pair(p=shape[0], q=shape[1], dtype=dtype)
    if shape == (5, 14): y = y + np.random.default_rng(9).normal(size=y.shape).astype(dtype)
    assert similarity(x, y, measure).value == pytest.approx(ref(measure, x.astype(float), y.astype(float)), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(list(MEASURES)))
def test_order_of_samples_and_of_features_does_not_matter(seed, measure):
    x, y = pair(n=90, p=7, q=6, seed=seed)
    rng = np.random.default_rng(seed)
    at, cols = rng.permutation(90), rng.permutation(7)
    expected = similarity(x, y, measure).value
    assert similarity(x[at], y[at], measure).value == pytest.approx(expected, abs=1e-9)
    assert similarity(x[:, cols], y, measure).value == pytest.approx(expected, abs=1e-9)
    assert -1e-9 <= expected <= 1 + 1e-9 or measure == 'cka_debiased'


@pytest.mark.parametrize('measure', MEASURES)
def test_rotated_scaled_shifted_is_one(measure):
    x, _ = pair()
    assert similarity(x, 7*x@rotation(12)-100, measure).value == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize('measure', ['cca', 'pwcca'])
def test_invertible_mixing_is_one_even_when_badly_conditioned(measure):
    x, _ = pair()
    mix = rotation(12)*np.geomspace(1, 1e-5, 12)@rotation(12, 2)
    assert similarity(x, x@mix, measure).value == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize('measure', ['cca', 'svcca', 'cka', 'cka_debiased', 'procrustes'])
def test_symmetric(measure):
    x, y = pair()
    assert similarity(x, y, measure).value == pytest.approx(similarity(y, x, measure).value, abs=1e-9)


def test_gaussian_with_given_covariance():
    "Population values: canonical correlations rho; CKA and Procrustes from the cross-covariance"
    rho, n = np.array([.95, .6, .3, 0.]), 400_000
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 4))
    y = rho*z + np.sqrt(1-rho**2)*rng.normal(size=(n, 4))
    a, b = np.array([2, 1, 1, .5]), np.array([1, 1, 3, 1.])
    x, y = z*a@rotation(4), y*b@rotation(4, 5)
    assert correlations(decompose(x), decompose(y)).numpy() == pytest.approx(rho, abs=.006)
    expected = (a**2*b**2*rho**2).sum()/np.sqrt((a**4).sum()*(b**4).sum())
    assert similarity(x, y, 'cka').value == pytest.approx(expected, abs=.005)
    expected = (a*b*rho).sum()/np.sqrt((a**2).sum()*(b**2).sum())
    assert similarity(x, y, 'procrustes').value == pytest.approx(expected, abs=.005)


# ---- public implementations

def test_agrees_with_statsmodels():
    cancorr = pytest.importorskip('statsmodels.multivariate.cancorr')
    x, y = pair(n=800)
    assert correlations(decompose(x), decompose(y)).numpy() == pytest.approx(cancorr.CanCorr(y, x).cancorr, abs=1e-9)


def test_agrees_with_sklearn():
    from sklearn.cross_decomposition import CCA
    x, y = pair(n=500, p=6, q=4)
    u, v = CCA(4, max_iter=5000, tol=1e-12).fit(x, y).transform(x, y)
    theirs = [np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(4)]
    assert correlations(decompose(x), decompose(y)).numpy() == pytest.approx(theirs, abs=1e-5)


# ---- inputs on which public implementations fail; the docstring of each test says what they give

def test_two_rotations_of_the_same_data_are_one():
    "google/svcca robust_cca_similarity passes its threshold as epsilon, and gives .15 to .28 here"
    x, _ = pair(n=2000, p=20)
    assert similarity(x@rotation(20), x@rotation(20, 2)).value == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_rank_deficient(dtype):
    "google/svcca: SVD did not converge; statsmodels: endog is collinear"
    x, y = pair(dtype=dtype)
    more = np.column_stack([x, x[:, :3], x[:, 0]+x[:, 1], 2*x[:, 4]-x[:, 5]])
    assert decompose(more).directions == 12
    assert similarity(more, y).value == pytest.approx(similarity(x, y).value, abs=1e-5)
    assert similarity(more, x).value == pytest.approx(1, abs=1e-5)


def test_identical_features_only():
    x, y = pair()
    assert similarity(np.repeat(x[:, :1], 5, axis=1), x).value == pytest.approx(1, abs=1e-9)
    assert similarity(np.repeat(x[:, :1], 5, axis=1), y).directions == (1, 9)


def test_constant_feature_changes_nothing():
    "a constant in float32 whose mean rounds is no constant to those who look at its variance"
    x, y = pair(dtype='float32')
    dead = np.column_stack([x, *(np.full(len(x), o, 'float32') for o in (.1, 0, 1e6))])
    for measure in MEASURES:
        assert similarity(dead, y, measure).value == pytest.approx(similarity(x, y, measure).value, abs=1e-9)


def test_features_in_very_different_units():
    "google/svcca: SVD did not converge"
    x, _ = pair(p=20)
    assert similarity(x*np.geomspace(1, 1e-9, 20), x).value == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize('condition', [1e2, 1e4, 1e5])
def test_nearly_dependent_features_keep_their_digits(condition):
    "columns from one Cholesky factorization are orthonormal to 1e-16 times the condition number squared"
    x, y = pair(n=800, p=40, q=30)
    mixed = x@(rotation(40)*np.geomspace(1, 1/condition, 40))@rotation(40, 2)
    d = decompose(mixed)
    assert d.directions == 40 and torch.linalg.norm(d.u.T@d.u - torch.eye(40), 2) < 1e-11
    assert similarity(mixed, y).value == pytest.approx(similarity(x, y).value, abs=1e-9)


def test_single_precision_of_directions_is_good_to_seven_digits():
    rng = np.random.default_rng(0)
    x = {f'l{i}': rng.normal(size=(2000, p)).astype('float32') for i, p in enumerate((64, 200, 390))}
    def normal(*shape): return rng.normal(size=shape).astype('float32')
    y = {k: v@normal(v.shape[1], v.shape[1]) + 5*normal(*v.shape) for k, v in x.items()}
    exact, single = (similarity_grid(x, y, precise=o).value for o in (True, False))
    assert 0 < (exact-single).abs().max() < 1e-7


def test_products_are_in_double_where_torch_is_set_to_round_them():
    x, y = ({'l': o} for o in pair())
    was = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision('medium')
        assert similarity_grid(x, y).equals(similarity_grid(x, y, precise=True))
    finally: torch.set_float32_matmul_precision(was)


def test_pwcca_with_a_narrower_second_layer():
    "google/svcca compute_pwcca indexes the first layer with the second's columns: IndexError"
    x, y = pair(p=12, q=5)
    assert similarity(x, y, 'pwcca').value == pytest.approx(ref('pwcca', x, y), abs=1e-6)


def test_pwcca_does_not_change_with_mixing_of_the_second():
    x, y = pair()
    expected, mix = similarity(x, y, 'pwcca').value, np.random.default_rng(3).normal(size=(9, 9))
    assert similarity(x, y@mix, 'pwcca').value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('measure', MEASURES)
def test_no_nan_comes_out(measure):
    "CKA of a dead layer is 0/0 in public code, and NaN in float32 for features far from zero"
    x, y = pair(dtype='float32')
    with pytest.raises(InputError, match='no feature varies'): similarity(np.full_like(x, .1), y, measure)
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match='1 of 300 samples'):
            similarity(np.where(np.arange(300)[:, None] == 7, bad, x), y, measure)
    far = (x + np.float32(3000)).astype('float32')
    assert similarity(far, y, measure).value == pytest.approx(similarity(far.astype(float), y, measure).value, abs=1e-9)
    # float32 loses digits at 3000
    assert similarity(far, y, measure).value == pytest.approx(similarity(x, y, measure).value, abs=2e-3)


def test_streamed_cka_of_features_far_from_zero():
    x, y = (a+1e6 for a in pair())
    got = cka_streamed({'x': x}, {'y': y}).set_index('measure').value
    for measure in ('cka', 'cka_debiased'): assert got[measure] == pytest.approx(ref(measure, x, y), abs=1e-8)
    constant, missing = np.full((50, 3), .1, 'float32'), np.where(x > x.max()-1, np.nan, x)
    with pytest.raises(InputError, match='no feature varies'): cka_streamed({'x': constant}, {'y': y[:50]})
    with pytest.raises(InputError, match='not finite'): cka_streamed({'x': missing}, {'y': y})


def test_one_sample_that_carries_everything():
    x = np.zeros((40, 3)); x[5] = 1e3
    y, _ = pair(n=40, p=3)
    with pytest.raises(InputError, match='one sample carries all'): similarity(x, y, 'cka_debiased')
    with pytest.raises(InputError, match='one sample carries all'): cka_streamed({'x': x}, {'y': y})
    assert np.isfinite(similarity(x, y, 'cka').value)


# ---- too few samples, and the level of unrelated data

def test_refuses_too_few_samples_unless_allowed():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 40)), rng.normal(size=(100, 60))
    with pytest.raises(InputError, match='give 300 samples'): similarity(x, y)
    allowed = similarity(x, y, min_ratio=1.6)
    assert allowed.value == pytest.approx(allowed.null, abs=.03) and allowed.null > .7
    assert similarity(x, y, 'cka_debiased').value == pytest.approx(0, abs=.1)
    with pytest.raises(InputError, match='100 samples for'): similarity(x, y, 'svcca')


@pytest.mark.parametrize('measure', MEASURES)
def test_null_level_is_what_unrelated_data_give(measure):
    rng = np.random.default_rng(0)
    scale = np.geomspace(1, .1, 20)
    pairs = [(rng.normal(size=(200, 20))*scale, rng.normal(size=(200, 30))) for _ in range(12)]
    got = np.mean([similarity(x, y, measure).value for x, y in pairs])
    assert similarity(*pairs[0], measure).null == pytest.approx(got, abs=.015)


def test_only_pairs_that_are_too_wide_are_left_blank():
    rng = np.random.default_rng(0)
    a = {f'l{p}': rng.normal(size=(120, p)) for p in (10, 20, 30)}
    who = np.arange(120)
    for got in (similarity_grid(a, a, few='blank'), permutation_null(a, a, who, times=3, few='blank')):
        assert (got.value.isna() == (got.layer_a.eq('l30') | got.layer_b.eq('l30'))).all() and got.null.notna().all()
    assert permutation_null(a, a, who, times=3, few='blank').p.isna().sum() == 5
    with pytest.raises(InputError, match='l10 and l30: 120 samples for 30'): permutation_null(a, a, who, times=3)
    with pytest.raises(InputError, match="few='drop'"): similarity_grid(a, a, few='drop')
    assert similarity_grid(a, a, 'cka_debiased', few='blank').value.notna().all()


def test_null_of_cka_is_the_mean_over_all_pairings():
    from itertools import permutations
    x, y = pair(n=6, p=2, q=3)
    mean = np.mean([ref('cka', x, y[list(o)]) for o in permutations(range(6))])
    assert null_level('cka', decompose(x), decompose(y)) == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize('shape', [(5, 4, 4), (10, 9, 2), (10, 3, 8), (4000, 1, 1)])
def test_null_at_the_edges(shape): assert 0 <= null_cca(*shape) <= 1


def test_svcca_keeps_the_stated_variance():
    x = np.random.default_rng(0).normal(size=(500, 10))*np.geomspace(1, .01, 10)
    s = np.linalg.svd(x-x.mean(0), compute_uv=False)**2
    for share in (.5, .9, .99, 1.):
        assert strong_directions(decompose(x), share) == np.searchsorted(s.cumsum()/s.sum(), share-1e-9)+1


# ---- spectra, hooks, grids

def test_spectra_against_a_full_transform():
    "over all shifts of all images, whole maps have the canonical correlations of all frequencies (Raghu et al. 2017)"
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 2, 3, 3))
    other = np.einsum('ncij,cd->ndij', base, rng.normal(size=(2, 2))) + .7*rng.normal(size=base.shape)
    def shifts(m): return np.concatenate([np.roll(m, (i, j), (2, 3)) for i in range(3) for j in range(3)])
    x, y = shifts(base), shifts(other)
    whole = correlations(decompose(x.reshape(360, -1)), decompose(y.reshape(360, -1))).mean().item()
    f, g = (frequencies(torch.from_numpy(m), 3).numpy() for m in (x, y))
    grid = similarity_grid({'x': f}, {'y': g})
    assert grid.value[0] == pytest.approx(whole, abs=1e-6)
    expected = similarity(x.mean((2, 3)), y.mean((2, 3))).value
    assert similarity(f[0].real, g[0].real).value == pytest.approx(expected, abs=1e-9)


def net(seed=0):
    torch.manual_seed(seed)
    relu = torch.nn.ReLU(inplace=True)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6), relu, torch.nn.Conv2d(6, 9, 3))


def test_hooks_come_off_and_modes_come_back():
    model, images = net().train(), torch.randn(12, 3, 9, 9)
    def hooks(): return sum(len(m._forward_hooks) for m in model.modules())
    state = {k: v.clone() for k, v in model.state_dict().items()}
    activations(model, images.split(4), ['0', '3'])
    with pytest.raises(RuntimeError): activations(model, [images[:, :1]], ['0'])
    with pytest.raises(InputError): activations(model, [images], ['0', 'gone'])
    for _ in activation_batches(model, images.split(4), ['0']): break
    import gc; gc.collect()
    assert hooks() == 0 and all(m.training for m in model.modules())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()), 'running statistics moved'


def test_batches_do_not_matter():
    model, images = net(), torch.randn(30, 3, 9, 9)
    one, many = (activations(model, images.split(o), ['0', '3']) for o in (30, 7))
    for k in one: assert one[k] == pytest.approx(many[k], abs=1e-6)


def test_activations_are_those_before_what_follows_in_place():
    model, images = net().eval(), torch.randn(8, 3, 9, 9)
    with torch.no_grad(): expected = model[1](model[0](images)).mean((2, 3))
    assert activations(model, [images], ['1'])['1'] == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize('name', ['densenet169', 'densenet51', 'resnet18'])
def test_layers_of_the_networks_here(name):
    from radinet_nb.learning.networks import Network
    whole = Network(name)
    layers = layers_of(whole)
    assert len(set(layers)) == 16 and layers == [f'body.{o}' for o in layers_of(whole.body)]
    assert not any('head' in o for o in layers)


def test_memory_ahead_is_what_a_grid_takes():
    a = {f'l{i}': np.random.default_rng(i).normal(size=(400, p)).astype('float32') for i, p in enumerate((40, 60, 30))}
    ahead = memory_ahead([40, 60, 30], [40, 60, 30], 400)
    assert ahead['activations'] == 2*sum(v.nbytes for v in a.values())
    # the second network's layers, and the widest of the first
    held = [decompose(v, principal=False, single=True) for v in (*a.values(), a['l1'])]
    assert ahead['bases'] == sum(o.u.nbytes + o.t.nbytes for o in held)


def patients(n=60, seed=0):
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n), 2)
    z = np.repeat(rng.normal(size=(n, 4)), 2, axis=0) + .3*rng.normal(size=(2*n, 4))
    a = {f'l{i}': z@rng.normal(size=(4, 4)) + .3*rng.normal(size=(2*n, 4)) for i in range(2)}
    b = {f'm{i}': z@rng.normal(size=(4, 4)) + s*rng.normal(size=(2*n, 4)) for i, s in enumerate((.3, 3))}
    return a, b, who


def test_unrelated_networks_are_not_significant():
    a, _, who = patients(seed=1)
    _, b, _ = patients(seed=2)
    got = permutation_null(a, b, who, times=60)
    assert (got.p > .02).all() and (got.value < got.null_95 + .05).all()


def test_intervals_surround_and_are_repeatable():
    a, b, who = patients()
    one, two = (bootstrap_grid(a, b, who, times=20, measure='cka_debiased') for _ in range(2))
    assert one.equals(two) and ((one.low < one.value) & (one.value < one.high)).all()
    gap = grid_difference((a, b), (a, {k: v for k, v in zip(b, reversed(b.values()), strict=True)}), who, times=20)
    assert gap.difference[0] > 0 and gap.low[0] > 0 and gap.high[1] < 0
    assert (split_half(a, b, who, times=4).noise > 0).all()


def test_leaving_patients_out_gives_their_standard_error():
    "against the spread of the same number over other patients"
    def drawn(seed):
        rng = np.random.default_rng(seed)
        z = np.repeat(rng.normal(size=(150, 3)), 2, axis=0) + .5*rng.normal(size=(300, 3))
        return {'x': z + .5*rng.normal(size=z.shape)}, {'y': z + rng.normal(size=z.shape)}
    who = np.repeat(np.arange(150), 2)
    def read(grid): return dict(value=grid.value[0])
    found = pd.concat([jackknife(*drawn(i), who, read, folds=10) for i in range(12)])
    true = np.std([similarity_grid(*drawn(i)).value[0] for i in range(100, 160)], ddof=1)
    half = 2.262*true # of Student's t with nine degrees of freedom
    assert .7 < ((found.high-found.low)/2).mean()/half < 1.4


def test_patients_in_any_order_give_the_same_null():
    a, b, who = patients()
    at = np.random.default_rng(0).permutation(len(who))
    mixed = permutation_null(*({k: v[at] for k, v in o.items()} for o in (a, b)), who[at], times=40)
    assert mixed.value.to_numpy() == pytest.approx(permutation_null(a, b, who, times=40).value.to_numpy(), abs=1e-7)
    assert mixed.null.to_numpy() == pytest.approx(permutation_null(a, b, who, times=40).null.to_numpy(), abs=.04)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@pytest.mark.parametrize('measure', MEASURES)
def test_gpu_gives_what_the_cpu_gives(measure):
    x, y = pair()
    assert similarity(x, y, measure, device='cuda').value == pytest.approx(similarity(x, y, measure).value, abs=1e-7)
