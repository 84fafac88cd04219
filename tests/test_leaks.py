"Leaks planted between three collections of a chain: each kind is found, removed, and counted; a clean chain passes"
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from radinet_nb.data.leaks import audit_chain, find_leaks
from radinet_nb.data.studies import study_table
from radinet_nb.errors import InputError

pseudonym = '0123456789abcdef'


def film(rng):
    "A picture with structure on a black margin"
    y, x = np.mgrid[:100, :80]
    waves = sum(np.sin(x*rng.uniform(.02, .3)+y*rng.uniform(-.3, .3)+rng.uniform(0, 6)) for _ in range(6))
    return Image.fromarray(np.pad(((waves-waves.min())/np.ptp(waves)*200+40).astype(np.uint8), 8))


@pytest.fixture(scope='module')
def chain(tmp_path_factory):
    "MURA, FracAtlas and a hospital: eight studies of two views each, of eight patients, in a clean chain"
    folder, rng, res = tmp_path_factory.mktemp('films'), np.random.default_rng(0), {}
    for name in 'mura', 'atlas', 'hospital':
        rows = []
        for s in range(8):
            for view in 'frontal', 'lateral':
                film(rng).save(folder/f'{name}{s}{view}.png')
                rows.append(dict(patient=f'{name} p{s}', study=f'{name} s{s}', view=view, path=str(folder/f'{name}{s}{view}.png'),
                                 split=['train', 'train', 'train', 'train', 'train', 'train', 'valid', 'test'][s]))
        res[name] = study_table(rows, collection=name)
    return folder, res


def planted(chain, kind):
    "The chain with one leak of that kind: a training study of MURA that is tested on in the hospital"
    folder, tables = chain
    tables = {k: t.copy() for k,t in tables.items()}
    m, h = tables['mura'], tables['hospital']
    test = h.index[h.split == 'test']
    if kind == 'patient': m.loc[m.study == 'mura s2', 'patient'] = h.loc[test, 'patient'] = pseudonym
    if kind == 'study': m.loc[m.study == 'mura s2', 'study'] = h.loc[test, 'study'] = pseudonym
    for i,view in zip(test, ('frontal', 'lateral'), strict=True):
        im, out = Image.open(folder/f'mura2{view}.png'), folder/f'{kind}{view}.jpg'
        if kind == 'study under two ids': im.resize((70, 84)).save(out, quality=70)
        elif kind == 'image' and view == 'lateral': im.save(out, quality=60)
        elif kind == 'mirrored image' and view == 'lateral': ImageOps.mirror(im).point(lambda v: v*.9).save(out, quality=75)
        else: continue
        h.loc[i, 'path'] = str(out)
    return tables


def test_a_clean_chain_passes(chain):
    kept, said = audit_chain(chain[1], jobs=2)
    assert said == dict(leak_audit=dict(leaks={}, removed=dict(mura=0, atlas=0, hospital=0), images_compared=True, grouped_by_likeness=[]))
    for k,t in chain[1].items(): pd.testing.assert_frame_equal(kept[k], t)


@pytest.mark.parametrize('kind', ['patient', 'study', 'study under two ids', 'image', 'mirrored image'])
def test_a_planted_leak_is_found_refused_and_removed_on_the_training_side(chain, kind):
    tables = planted(chain, kind)
    ids_only = kind in ('patient', 'study')
    found = find_leaks(*tables.values(), images=not ids_only, jobs=2)
    assert kind in set(found.kind) and set(found.table) | set(found.other_table) == {0, 2}
    if ids_only or kind == 'image':
        with pytest.raises(InputError, match=f'1 {kind}.*two sides of the split'): audit_chain(tables, images=not ids_only, jobs=2)
    kept, said = audit_chain(tables, remove=True, images=not ids_only, jobs=2)
    assert said['leak_audit']['removed'] == dict(mura=2, atlas=0, hospital=0) and said['leak_audit']['leaks'][kind] == 1
    assert len(kept['hospital']) == 16 and 'mura s2' not in set(kept['mura'].study)


def test_without_patients_a_grouping_is_demanded_and_can_be_computed(chain):
    tables = planted(chain, 'mirrored image')
    for t in tables.values(): t['grouping'], t['patient'] = 'image', t['path']
    with pytest.raises(InputError, match='atlas, hospital, mura knows no patients.*likeness'): audit_chain(tables)
    with pytest.raises(InputError, match="grouping='age' is unknown"): audit_chain(tables, grouping='age')
    kept, said = audit_chain(tables, remove=True, grouping='likeness', jobs=2)
    assert said['leak_audit']['grouped_by_likeness'] == ['atlas', 'hospital', 'mura']
    assert said['leak_audit']['leaks']['mirrored image'] == 1 and said['leak_audit']['removed']['mura'] == 1
    assert set(kept['mura'].grouping) == {'likeness'}
