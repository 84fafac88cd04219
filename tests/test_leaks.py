"Leaks planted between three collections of a chain: each kind is found, removed, and counted; a clean chain passes"
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from radinet_nb.data import leaks, likeness
from radinet_nb.data.cache import build_cache, pair_views
from radinet_nb.data.images import image_thumbs
from radinet_nb.data.leaks import audit_chain, audit_stage, find_leaks
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
                rows.append(dict(patient=f'{name} p{s}', study=f'{name} s{s}', view=view,
                                 path=str(folder/f'{name}{s}{view}.png'),
                                 split=['train', 'train', 'train', 'train', 'train', 'train', 'valid', 'test'][s]))
        res[name] = study_table(rows, collection=name)
    return folder, res


@pytest.fixture
def in_process(monkeypatch):
    "Thumbs are read here, without processes: those are tested by the clean chain and where they are made"
    def read_thumbs(paths, jobs=None):
        paths = list(dict.fromkeys(paths))
        return paths, np.stack([image_thumbs(p) for p in paths])
    for room in leaks, likeness: monkeypatch.setattr(room, 'read_thumbs', read_thumbs)


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
        elif kind == 'mirrored image' and view == 'lateral':
            ImageOps.mirror(im).point(lambda v: v*.9).save(out, quality=75)
        else: continue
        h.loc[i, 'path'] = str(out)
    return tables


def test_a_clean_chain_passes(chain):
    kept, record = audit_chain(chain[1], jobs=1)
    assert record == dict(leak_audit=dict(leaks={}, removed=dict(mura=0, atlas=0, hospital=0), images_compared=True,
                                          grouped_by_likeness=[]))
    for k,t in chain[1].items(): pd.testing.assert_frame_equal(kept[k], t)


@pytest.mark.parametrize('kind', ['patient', 'study', 'study under two ids', 'image', 'mirrored image'])
def test_a_planted_leak_is_found_refused_and_removed_on_the_training_side(chain, kind, in_process):
    tables = planted(chain, kind)
    ids_only = kind in ('patient', 'study')
    found = find_leaks(*tables.values(), images=not ids_only, jobs=1)
    assert kind in set(found.kind) and set(found.table) | set(found.other_table) == {0, 2}
    if ids_only or kind == 'image':
        with pytest.raises(InputError, match=f'1 {kind}.*two sides of the split'):
            audit_chain(tables, images=not ids_only, jobs=1)
    kept, record = audit_chain(tables, remove=True, images=not ids_only, jobs=1)
    assert record['leak_audit']['removed'] == dict(mura=2, atlas=0, hospital=0)
    assert record['leak_audit']['leaks'][kind] == 1
    assert len(kept['hospital']) == 16 and 'mura s2' not in set(kept['mura'].study)


def test_without_patients_a_grouping_is_demanded_and_can_be_computed(chain, in_process):
    tables = planted(chain, 'mirrored image')
    for t in tables.values(): t['grouping'], t['patient'] = 'image', t['path']
    with pytest.raises(InputError, match='atlas, hospital, mura knows no patients.*likeness'): audit_chain(tables)
    with pytest.raises(InputError, match="grouping='age' is unknown"): audit_chain(tables, grouping='age')
    kept, record = audit_chain(tables, remove=True, grouping='likeness', jobs=1)
    assert record['leak_audit']['grouped_by_likeness'] == ['atlas', 'hospital', 'mura']
    assert record['leak_audit']['leaks']['mirrored image'] == 1 and record['leak_audit']['removed']['mura'] == 1
    assert set(kept['mura'].grouping) == {'likeness'}


@pytest.mark.parametrize('kind', ['nothing', 'patient', 'study', 'image', 'mirrored image'])
def test_a_stage_is_held_against_what_its_chain_learned_from(chain, kind, tmp_path):
    tables = planted(chain, kind)
    mura, cases = tables['mura'][tables['mura'].split == 'train'], pair_views(tables['hospital'])
    learned = mura.assign(cache=str(build_cache(mura, tmp_path/'learned', 16, jobs=1).folder))
    cache = build_cache(cases, tmp_path/'cases', 16, jobs=1)
    by_ids = dict(nothing={}, patient=dict(patient=1), study=dict(study=1)).get(kind, {})
    if kind == 'nothing':
        stays, record = audit_stage(learned, cases, cache)
        assert record == dict(learned_from=len(mura), leaks={}, removed=dict(valid=0, test=0), images_compared=True)
        assert len(stays) == 8
        # who only validated may validate again, and may not be tested on
        again = cases[cases.split == 'valid'].assign(cache=str(cache.folder))
        assert audit_stage(again, cases, cache)[1]['leaks'] == {}
        with pytest.raises(InputError, match='1 row by patient, 1 row by study, 1 row by path'):
            audit_stage(again, cases.assign(split='test'), cache, leaks='ids')
        with pytest.raises(InputError, match='the thumbs of the images .* are gone'):
            audit_stage(learned.assign(cache=str(tmp_path/'x')), cases, cache)
        return
    with pytest.raises(InputError, match=f'1 row by {kind}'): audit_stage(learned, cases, cache, where='wrist')
    stays, record = audit_stage(learned, cases, cache, leaks='remove')
    assert record['leaks'] == {kind: 1} and record['removed'] == dict(valid=0, test=1) and len(stays) == 7
    if kind in by_ids:
        with pytest.raises(InputError, match=f'1 row by {kind}'): audit_stage(learned, cases, cache, leaks='ids')
    else: assert audit_stage(learned, cases, cache, leaks='ids')[1]['leaks'] == {}
