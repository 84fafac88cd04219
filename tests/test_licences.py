"""Whose code is needed, and under which licence: nothing required asks those who use this package for their source

Read from the metadata of what is installed, from each requirement in settings.ini on; where a package states no
licence, from its licence file."""
import re
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

# looked at by name: what the metadata says does not hold for what is installed and used, or holds and may be
JUDGED = {
    'cuda-toolkit': 'names the CUDA libraries of NVIDIA that torch wants, and holds no code',
    'docutils': 'public domain and BSD; the GPL is that of an Emacs mode, which no wheel holds',
    'mlcroissant': 'Apache-2.0 in its repository; its metadata names no licence',
    'numpy': 'BSD; its wheels hold libgfortran, under the GPL with the runtime exception',
    'scipy': 'BSD; its wheels hold libgfortran, under the GPL with the runtime exception'}
# extras that nobody needs: they are named for what they are
APART = {'libjpeg'}
COPYLEFT = re.compile(r'\bA?GPL|\bLGPL|Affero|General Public Licen[sc]e|Lesser General', re.I)
# NVIDIA's own licence is that of CUDA's libraries, which torch brings on Linux: no free one, but it asks for no source
PERMISSIVE = re.compile(r'\bMIT\b|BSD|Apache|ISC|PSF|Python Software|\bMPL\b|Mozilla|Unlicense|public domain|zlib|CC0|'
                        r'NVIDIA|HPND|matplotlib|\bPIL\b|0BSD|CNRI', re.I)


def requirements_of(key):
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini')
    return [o for o in config['DEFAULT'][key].splitlines() if o.strip()]


def keys():
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini')
    return [o for o in config['DEFAULT'] if o.endswith('requirements') and o.removesuffix('_requirements') not in APART]


def installed(requirements):
    "Every distribution that requirements lead to, by name; those that are not installed here are None"
    found, todo = {}, [(Requirement(o), '') for o in requirements]
    while todo:
        asked, extra = todo.pop()
        if asked.marker and not asked.marker.evaluate({'extra': extra}): continue
        for part in {'', *asked.extras}:
            name = canonicalize_name(asked.name)
            if (name, part) in found: continue
            try: found[name, part] = distribution(asked.name)
            except PackageNotFoundError: found[name, part] = None; continue
            todo += [(Requirement(o), part) for o in found[name, part].requires or ()]
    return {name: o for (name, part),o in found.items()}


def licence_of(package):
    "What a distribution says of its licence: the expression, or the classifiers, or the field, or its licence file"
    meta = package.metadata
    if stated := meta.get('License-Expression'): return stated
    classes = '; '.join(o.split('::')[-1].strip() for o in meta.get_all('Classifier') or ()
                        if o.startswith('License ::') and o.count('::') > 1)
    field = (meta.get('License') or '').strip()
    stated = '; '.join(o for o in (classes, field.splitlines()[0] if field else '') if o and o != 'UNKNOWN')
    if stated: return stated
    files = [o for o in package.files or () if re.search(r'(licen[sc]e|copying)', o.name, re.I)]
    return ' '.join(files[0].read_text().split())[:200] if files else ''


def faults(packages, judged=tuple(JUDGED)):
    "The packages whose licence is a copyleft one or is not known"
    licences = {name: licence_of(o) for name,o in packages.items() if o is not None and name not in judged}
    return {name: o for name,o in licences.items() if COPYLEFT.search(o) or not PERMISSIVE.search(o)}


@pytest.mark.parametrize('key', keys())
def test_no_requirement_is_under_the_gpl(key):
    assert faults(installed(requirements_of(key))) == {}


def test_what_was_judged_is_still_needed():
    everything = installed(sum(map(requirements_of, keys()), []))
    assert set(JUDGED)-{'cuda-toolkit'} <= set(everything) # a torch for the CPU has none
    found = {k for k,o in everything.items() if o}
    assert {'torch', 'fastai', 'python-gdcm', 'snakemake', 'pyjpegls', 'rpds-py'} <= found


class Stated:
    "A distribution with this metadata"
    files = ()
    def __init__(self, licence='', classifier='', expression=''):
        self.metadata = self
        self.of = {'License': licence, 'License-Expression': expression}
        self.classifiers = [f'License :: OSI Approved :: {classifier}'] if classifier else []
    def get(self, key): return self.of[key]
    def get_all(self, key): return self.classifiers


def test_the_gpl_decoder_would_be_seen():
    "As pylibjpeg-libjpeg, PyQt6, PyMuPDF and psycopg2 state theirs; a licence that nobody states is a fault too"
    stated = dict(libjpeg=Stated('GPL V3.0', 'GNU General Public License v3 (GPLv3)'),
                  qt=Stated(expression='GPL-3.0-only'),
                  mupdf=Stated('Dual Licensed - GNU AFFERO GPL 3.0 or Artifex Commercial License'),
                  psycopg=Stated('LGPL with exceptions'), nothing=Stated(), other=Stated('All rights reserved'))
    assert set(faults(stated)) == set(stated)
    fine = dict(a=Stated(expression='BSD-3-Clause AND MIT'), b=Stated('', 'Apache Software License'), c=Stated('MIT'))
    assert faults(fine) == {}
    decoder = installed(['pylibjpeg-libjpeg'])
    if decoder['pylibjpeg-libjpeg']: assert list(faults(decoder)) == ['pylibjpeg-libjpeg']
