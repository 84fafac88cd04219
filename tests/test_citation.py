"""CITATION.cff says what the Citation File Format 1.2.0 allows

The schema beside this file is that of the format (Druskat et al., citation-file-format.github.io, CC-BY-4.0)."""
import json
from configparser import ConfigParser
from datetime import date
from pathlib import Path

import jsonschema
import pytest
import yaml

from radinet_nb.data.notebooks import paper_folders
from radinet_nb.workflow.papers import load_paper

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads(Path(__file__).with_name('citation_schema.json').read_text(encoding='utf-8'))


@pytest.fixture
def citation():
    "As the schema sees it: dates are texts"
    held = yaml.safe_load((ROOT/'CITATION.cff').read_text(encoding='utf-8'))
    return {k: v.isoformat() if isinstance(v, date) else v for k, v in held.items()}


def test_the_citation_is_valid(citation):
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert [o.message for o in jsonschema.Draft7Validator(SCHEMA).iter_errors(citation)] == []


@pytest.mark.parametrize('change', [dict(title=''), dict(authors=[]), dict(licence='MIT'), {'cff-version': '1.3'},
                                    dict(references=[dict(type='article')])])
def test_an_invalid_one_is_noticed(citation, change):
    assert list(jsonschema.Draft7Validator(SCHEMA).iter_errors(citation | change))


def test_it_names_this_version_and_every_paper(citation):
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini')
    assert (citation['version'], citation['license']) == (config['DEFAULT']['version'], config['DEFAULT']['license'])
    named = {o['title'].casefold() for o in citation['references']}
    # a folder without claims reproduces no paper
    papers = [o for o, folder in paper_folders().items() if (folder/'claims.csv').read_text().count('\n') > 1]
    assert len(papers) >= 4 and [o for o in papers if load_paper(o).title.casefold() not in named] == []
