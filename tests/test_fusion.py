"Fused features: scikit-learn's own checks with inner folds, groups that stay together, and speed of the second time"
import json
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from radinet_nb.data.cache import ImageCache, build_cache
from radinet_nb.errors import InputError
from radinet_nb.learning.features import feature_network, features_of_images
from radinet_nb.learning.fused import fit_fused, save_fused
from radinet_nb.learning.fusion import FusionClassifier, inner_folds
from radinet_nb.models.prediction import predict_files


@pytest.mark.parametrize('options', [dict(fusion='pca', components=2, classifiers=('lda', 'svm')),
                                     dict(fusion='stack', classifiers=('logistic', 'neighbours'))])
def test_the_estimator_passes_the_checks_of_sklearn(options):
    checks = check_estimator(FusionClassifier(folds=2, **options), on_fail=None)
    assert not [o['check_name'] for o in checks if o['status'] == 'failed']


def test_inner_folds_are_not_fooled_by_images_of_one_patient():
    "Labels by patient, features that know the patient and nothing of the label: only folds by group see that"
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 6)
    y = rng.integers(0, 2, 60)[groups]
    X = rng.normal(size=(60, 12))[groups] + .05*rng.normal(size=(360, 12))
    found = {o: FusionClassifier(classifiers=('neighbours', 'forest')).fit(X, y, g).scores_['forest']
             for o, g in (('by group', groups), ('by image', None))}
    assert found['by image'] > .95 and abs(found['by group'] - .5) < .15


def test_it_takes_part_in_cross_validation_of_sklearn():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    X = rng.normal(size=(120, 6)) + y[:, None]
    model = FusionClassifier((2, 4), 'average', ('logistic',))
    assert cross_val_score(model, X, y, cv=3).mean() > .7
    for bad in (2, 3), (6, 1): # more columns than there are, or fewer
        with pytest.raises(InputError, match='the matrix has 6'):
            FusionClassifier(bad, classifiers=('lda',)).fit(X, y)


def test_a_class_that_is_absent_in_a_fold_is_told():
    code, groups = np.array([1, 1, 0, 0, 0, 0]), np.array([0, 0, 1, 2, 3, 4])
    with pytest.raises(InputError, match='2 folds, and a class has rows of 1 group;'): inner_folds(code, groups, 2)
    with pytest.raises(InputError, match='a class has rows of 1 group;'):
        FusionClassifier(fusion='stack', folds=2).fit(np.eye(6), code, groups)


def test_features_come_from_disk_the_second_time(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path/'cache').mkdir()
    np.save(tmp_path/'cache/images.npy', rng.integers(0, 255, (1500, 32, 32), dtype=np.uint8))
    about = dict(shape=[1500, 32, 32], paths=[f'{i}.png' for i in range(1500)], unreadable=[])
    (tmp_path/'cache/cache.json').write_text(json.dumps(about))
    cache, network, took = ImageCache(tmp_path/'cache'), feature_network('test_convnext'), []
    for _ in range(2):
        began = time.process_time()
        found = features_of_images(network, cache, cache.paths, tmp_path/'kept', device='cpu')
        took.append(time.process_time() - began)
    assert found.values.shape[0] == 1500 and took[1] < took[0]/2
    assert len(list((tmp_path/'kept').iterdir())) == 1


def test_a_fused_model_predicts_files_like_any_other(tmp_path):
    "From networks to a folder without pickles, and from PNG files to probabilities and pictures"
    rng, networks, features = np.random.default_rng(0), [], []
    (tmp_path/'files').mkdir()
    for i in range(16):
        picture = rng.integers(0, 90, (32, 32), dtype=np.uint8)
        if i % 2: picture[8:20, 8:20] = 250
        Image.fromarray(picture).save(tmp_path/f'files/{i:02d}.png')
    paths = sorted(str(o) for o in (tmp_path/'files').iterdir())
    cache = build_cache(pd.DataFrame(dict(path=paths)), tmp_path/'cache', 32, jobs=1)
    for name in 'densenet51', 'test_convnext':
        networks.append(feature_network(name))
        features.append(features_of_images(networks[-1], cache, paths, device='cpu'))
    facts = dict(name='fused', task='fracture', classes=['normal', 'fracture'], unit='view', shape=[32, 32],
                 parts=['wrist'], threshold=.5, synthetic=True)
    plain = FusionClassifier(classifiers=('logistic', 'boosting'), folds=2)
    made = fit_fused(networks, features, np.arange(16) % 2, np.arange(16), plain, **facts)
    save_fused(made, tmp_path/'model')
    assert not [o for o in (tmp_path/'model').iterdir() if o.suffix != '.safetensors']
    found = predict_files(tmp_path/'model', [tmp_path/'files'], tmp_path/'out', public=True)
    expected = made.predict_images(cache, paths, device='cpu')[:, 1]
    assert np.allclose(found.table.probability.sort_values(), np.sort(expected), atol=1e-5)
    assert len(list((tmp_path/'out'/'overlays').glob('*.png'))) == 16
