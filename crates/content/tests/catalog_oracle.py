#!/usr/bin/env python3
"""Asks the world's own rules, for many filters, which bundles each stands for.

    catalog_oracle.py WORLD-FOLDER < {"catalogs": {name: [documents]}, "questions": [{"catalog", "rule", "operator"}]}

Prints a list of answers: a list of bundle names, or null where the rules say error.
"""
import json, sys

sys.path.insert(0, sys.argv[1])
from lib.rules import Fail, head_filter, table_filter  # noqa: E402


def catalog(documents):
    packages = {d['name']: {'name': d['name'], 'package': d, 'channels': [], 'bundles': []} for d in documents if d['schema'] == 'olm.package'}
    for d in documents:
        if d['schema'] == 'olm.channel':
            packages[d['package']]['channels'].append(d)
        elif d['schema'] == 'olm.bundle':
            packages[d['package']]['bundles'].append(d)
    return {'packages': list(packages.values())}


asked = json.load(sys.stdin)
catalogs = {name: catalog(documents) for name, documents in asked['catalogs'].items()}
answers = []
for question in asked['questions']:
    rules = table_filter if question['rule'] == 'table' else head_filter
    try:
        found = rules(catalogs[question['catalog']], question['operator'])
        answers.append(sorted({b['name'] for b in found}))
    except Fail:
        answers.append(None)
print(json.dumps(answers))
