"Explanations against independent packages, and what a score says of a map that knows nothing or everything"
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from radinet_nb.analysis.explain import grad_cam, last_maps, layer_cam, log_odds
from radinet_nb.analysis.explain_methods import METHODS, explain
from radinet_nb.analysis.explain_scores import LESION_SCORES, chance_levels, score_maps
from radinet_nb.analysis.explain_truth import attainable, box_mask
from radinet_nb.errors import InputError
from radinet_nb.learning.networks import Network
from radinet_nb.synthetic.lesions import lesion_cases
from radinet_nb.synthetic.population import Hospital


@pytest.fixture(scope='module')
def phantom():
    "Frontal wrists with the exact place of the fracture"
    return lesion_cases(Hospital(patients=80, pixels=64, seed=3, parts='wrist', severity=1.8, healing=0.), 16, 48)


@pytest.fixture(scope='module')
def resnet():
    torch.manual_seed(0)
    return Network('resnet18').eval()


class Odds(nn.Module):
    "A network that puts out log-odds"
    def __init__(self, network): super().__init__(); self.network = network
    def forward(self, x): return log_odds(self.network(x))


@pytest.mark.parametrize(('name', 'ours'), [('GradCAM', grad_cam), ('LayerCAM', layer_cam)])
def test_maps_are_those_of_pytorch_grad_cam(resnet, name, ours):
    "With the explicit target of several classes, as its binary one is wrong; its maps are scaled to their own range"
    package = pytest.importorskip('pytorch_grad_cam')
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    x = torch.randn(3, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    layer = last_maps(resnet.body, (96, 128))
    kinds = [0, 1, 1]
    with getattr(package, name)(Odds(resnet), [layer]) as method:
        theirs = method(x, [ClassifierOutputTarget(o) for o in kinds])
    found = ours(resnet, x, kinds)
    assert (found.max((1, 2)) > 0).sum() >= 2 and ((found.max((1, 2)) > 0) == (theirs.max((1, 2)) > 0)).all()
    for a, b in zip(found, theirs, strict=True):
        if not a.max(): continue
        scaled = [(o - o.min())/np.ptp(o) for o in (a, b)]
        assert np.abs(scaled[0] - scaled[1]).max() < 1e-3


def test_a_layer_that_is_changed_in_place_is_read_before_the_change():
    "torchvision's DenseNet applies ReLU to the last maps in place; a map of what is left would lose the negative part"
    torch.manual_seed(0)
    net, x = Network('densenet51').eval(), torch.randn(2, 3, 64, 64)
    maps = net.body.features(x)
    gradient, = torch.autograd.grad(log_odds(net.head(torch.relu(maps).mean((2, 3))))[:, 1].sum(), maps)
    by_hand = torch.relu((gradient.mean((2, 3), keepdim=True)*maps).sum(1, keepdim=True))
    by_hand = nn.functional.interpolate(by_hand, (64, 64), mode='bilinear')[:, 0].detach().numpy()
    np.testing.assert_allclose(grad_cam(net, x, 1), by_hand, atol=1e-6)


def test_scores_are_those_of_quantus():
    quantus = pytest.importorskip('quantus')
    rng = np.random.default_rng(0)
    maps = rng.exponential(size=(12, 20, 24))
    masks = np.stack([box_mask([x, y, x + 7, y + 5], (20, 24)) for x, y in rng.integers(0, 15, (12, 2))])
    class Any(nn.Module):
        def forward(self, x): return torch.zeros(len(x), 2)
    given = dict(model=Any(), x_batch=np.zeros((12, 1, 20, 24)), y_batch=np.zeros(12, int), a_batch=maps[:, None],
                 s_batch=masks[:, None].astype(int), device='cpu', channel_first=True)
    kw = dict(abs=False, normalise=False, disable_warnings=True, display_progressbar=False)
    for ours, theirs in (('pointing game', quantus.PointingGame), ('mass in the box', quantus.RelevanceMassAccuracy),
                         ('relevance rank', quantus.RelevanceRankAccuracy)):
        np.testing.assert_allclose(LESION_SCORES[ours](maps, masks), np.array(theirs(**kw)(**given), float), atol=1e-9)


def test_the_lesion_itself_scores_one_and_an_empty_map_scores_chance(phantom):
    perfect = score_maps(phantom.masks.astype(float), phantom.masks)
    assert (perfect.value == 1).all() and perfect.chance.between(0, .3).all()
    nothing = score_maps(np.zeros(phantom.masks.shape), phantom.masks, tolerance=2)
    np.testing.assert_allclose(nothing.value, nothing.chance)


@pytest.mark.parametrize('method', ['Grad-CAM', 'LayerCAM', 'integrated gradients', 'occlusion'])
def test_random_weights_score_at_chance(phantom, method):
    "Lesions are moved around the image's edge at random, so that no place is special"
    rng, scores = np.random.default_rng(5), []
    images, options = torch.from_numpy(phantom.images), {'Grad-CAM': dict(least=4), 'LayerCAM': dict(least=4)}
    few = {'integrated gradients': dict(steps=4), 'occlusion': dict(share=.4)}
    for seed in range(2):
        torch.manual_seed(seed)
        net = Network('densenet51').eval()
        masks = np.stack([np.roll(o, rng.integers(0, 48, 2), (0, 1)) for o in phantom.masks])
        maps = explain(method, net, net.normalize(images), 1, **(options | few)[method])
        scores.append(score_maps(maps, masks).assign(seed=seed))
    above = pd.concat(scores).assign(above=lambda d: d.value - d.chance)
    for name, d in above.groupby('metric'):
        # a coin's spread for scores that are mostly 0: no hit in some dozens is no proof of being below chance
        spread = d.above.std() if name == 'mass in the box' else (d.chance*(1 - d.chance)).mean()**.5
        assert abs(d.above.mean()) < 3.5*spread/len(d)**.5, (method, name)


def test_chance_is_the_area():
    masks = np.stack([box_mask([0, 0, 4, 8], (8, 16)), box_mask([0, 0, 16, 8], (8, 16))])
    for values in chance_levels(masks).values(): np.testing.assert_allclose(values, [.25, 1])


def test_a_lesion_smaller_than_a_cell_cannot_be_filled():
    "A box of 12 pixels at 224, as FracAtlas has them, under 7 x 7 cells: at most a fifth, most often less"
    places = np.random.default_rng(0).integers(0, 212, (60, 2))
    best = attainable(np.stack([box_mask([x, y, x + 12, y + 12], (224, 224)) for x, y in places]), (7, 7))
    assert best.mass.max() < .2 and best.cells.max() < .15
    assert 0 < best.pointing.mean() < .5


def test_every_method_explains_any_backbone():
    x = torch.rand(1, 3, 64, 64)
    few = {'LIME': dict(samples=6, segments=9), 'occlusion': dict(share=.5), 'integrated gradients': dict(steps=2)}
    for backbone in ('mobilenet_v2', 'timm/test_convnext', 'vit_tiny_patch16_224'):
        torch.manual_seed(0)
        net = Network(backbone).eval()
        for method in METHODS:
            if backbone.startswith('vit') and 'CAM' in method: continue
            if method == 'LIME': pytest.importorskip('lime')
            maps = explain(method, net, x, 1, **few.get(method, {}))
            assert maps.shape == (1, 64, 64) and np.isfinite(maps).all(), (backbone, method)


def test_wrong_use_is_told(resnet):
    x = torch.rand(2, 3, 64, 64)
    for problem, call in {
            'no method': lambda: explain('SHAP', resnet, x), 'classes': lambda: explain('occlusion', resnet, x, 5),
            'has no positions': lambda: grad_cam(resnet, x, 1, layer=resnet.head),
            'has no lesion': lambda: score_maps(np.zeros((1, 8, 8)), np.zeros((1, 8, 8), bool)),
            'lies outside': lambda: box_mask([0, 0, 9, 9], (8, 8)),
            'takes no images of 64 x 64': lambda: explain('occlusion', nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), x)
            }.items():
        with pytest.raises(InputError, match=problem): call()
