#!/usr/bin/env python3
"""Checks a catalog as `opm validate` does, knowing nothing of the code it judges. Standard library only.

    catalog_validate.py DIRECTORY|OCI-LAYOUT

A directory holds a catalog's JSON files. Of an OCI layout the index is followed to every image, and its last layer must hold `configs/`, with
the layer below it taking away what was there. Prints what the catalog holds as JSON; ends with 1 and one sentence a line when something is wrong.
"""
import gzip, hashlib, io, json, os, re, sys, tarfile

problems = []
SEMVER = re.compile(r'^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$')


def bad(text):
    problems.append(text)


def documents(text, where):
    decoder, at = json.JSONDecoder(), 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return
        value, at = decoder.raw_decode(text, at)
        if not isinstance(value, dict) or not value.get('schema'):
            bad(f'{where}: a document without schema')
            continue
        yield value


def check_channel(name, entries):
    by = {}
    for e in entries:
        if not e.get('name'):
            bad(f'{name}: an entry without name')
        if e['name'] in by:
            bad(f'{name}: entry {e["name"]} twice')
        by[e['name']] = e
        if e.get('replaces') == e['name']:
            bad(f'{name}: {e["name"]} replaces itself')
        if any(not s for s in e.get('skips') or []):
            bad(f'{name}: {e["name"]} has an empty skip')
    if not by:
        bad(f'{name}: channel must contain at least one bundle')
        return
    incoming = {}
    for e in by.values():
        for o in ([e['replaces']] if e.get('replaces') else []) + (e.get('skips') or []):
            incoming[o] = incoming.get(o, 0) + 1
    heads = [n for n in by if n not in incoming]
    if len(heads) != 1:
        bad(f'{name}: {len(heads)} channel heads: {sorted(heads)}')
        return
    chain, current = {heads[0]}, by[heads[0]]
    while current is not None:
        older = current.get('replaces') or ''
        if older in chain:
            bad(f'{name}: cycle in the replaces chain at {older}')
            return
        chain.add(older)
        current = by.get(older)
    skipped = {s for e in by.values() for s in e.get('skips') or []}
    stranded = set(by) - chain - skipped
    if stranded:
        bad(f'{name}: stranded bundles: {sorted(stranded)}')


def check_bundle(package, b):
    where = f'{package}: bundle {b.get("name")}'
    props = b.get('properties') or []
    for p in props:
        if not p.get('type') or 'value' not in p:
            bad(f'{where}: a property without type or value')
    own = [p['value'] for p in props if p.get('type') == 'olm.package']
    if len(own) != 1:
        bad(f'{where}: {len(own)} properties olm.package')
    else:
        if own[0].get('packageName') != package:
            bad(f'{where}: olm.package names {own[0].get("packageName")}')
        if not SEMVER.match(own[0].get('version') or ''):
            bad(f'{where}: version {own[0].get("version")!r}')
    if not b.get('image') and not any(p.get('type') == 'olm.bundle.object' for p in props):
        bad(f'{where}: bundle image must be set')
    for r in b.get('relatedImages') or []:
        if not r.get('image'):
            bad(f'{where}: a related image without image')
    return own[0].get('version') if own else None


def check(files):
    packages, channels, bundles, deprecations, others = {}, {}, {}, {}, []
    for path in sorted(files):
        for d in documents(files[path].decode(), path):
            schema, package = d['schema'], d.get('package') or ''
            if schema == 'olm.package':
                if d['name'] in packages:
                    bad(f'{path}: package {d["name"]} twice')
                packages[d['name']] = d
            elif schema == 'olm.channel':
                if d['name'] in channels.setdefault(package, {}):
                    bad(f'{path}: channel {d["name"]} twice')
                channels[package][d['name']] = d
            elif schema == 'olm.bundle':
                if d['name'] in bundles.setdefault(package, {}):
                    bad(f'{path}: bundle {d["name"]} twice')
                bundles[package][d['name']] = d
            elif schema == 'olm.deprecations':
                deprecations.setdefault(package, []).append(d)
            else:
                others.append(d)
    for kind, found in (('channel', channels), ('bundle', bundles), ('deprecations', deprecations)):
        for package in found:
            if package not in packages:
                bad(f'{kind} of unknown package {package}')
    for name, p in packages.items():
        own = channels.get(name, {})
        if not own:
            bad(f'{name}: package must contain at least one channel')
        if not p.get('defaultChannel'):
            bad(f'{name}: default channel must be set')
        elif p['defaultChannel'] not in own:
            bad(f'{name}: default channel {p["defaultChannel"]} not found in channels')
        listed = set()
        for channel, c in own.items():
            check_channel(f'{name}: channel {channel}', c.get('entries') or [])
            listed |= {e['name'] for e in c.get('entries') or []}
        have = set(bundles.get(name, {}))
        for b in sorted(have - listed):
            bad(f'{name}: bundle {b} not found in any channel entries')
        for b in sorted(listed - have):
            bad(f'{name}: no olm.bundle blob found for channel entry {b}')
        versions = {}
        for b in bundles.get(name, {}).values():
            versions.setdefault(check_bundle(name, b), []).append(b['name'])
        for version, names in versions.items():
            if len(names) > 1:
                bad(f'{name}: duplicate version {version}: {sorted(names)}')
        for d in deprecations.get(name, []):
            if not d.get('entries'):
                bad(f'{name}: deprecations without entries')
            for e in d.get('entries') or []:
                schema, of = e['reference']['schema'], e['reference'].get('name')
                if (schema == 'olm.channel' and of not in own) or (schema == 'olm.bundle' and of not in have):
                    bad(f'{name}: deprecation of {schema} {of}, which is not there')
    return {
        'packages': {n: {'default': p.get('defaultChannel'), 'bundles': sorted(bundles.get(n, {})),
                         'channels': {c: sorted(e['name'] for e in d['entries']) for c, d in channels.get(n, {}).items()}}
                     for n, p in packages.items()},
        'others': sorted(f'{d["schema"]}/{d.get("package") or ""}' for d in others),
    }


def of_directory(root):
    files = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, 'rb') as f:
                files[os.path.relpath(path, root)] = f.read()
    return files


def blob(root, descriptor):
    algorithm, digest = descriptor['digest'].split(':')
    with open(os.path.join(root, 'blobs', algorithm, digest), 'rb') as f:
        data = f.read()
    if hashlib.new(algorithm, data).hexdigest() != digest or len(data) != descriptor['size']:
        bad(f'{digest}: wrong bytes')
    return data


def of_image(root, manifest):
    config = json.loads(blob(root, manifest['config']))
    run = config['config']
    if run['Cmd'] != ['serve', '/configs']:
        bad(f'Cmd is {run["Cmd"]}')
    if run['Labels'].get('operators.operatorframework.io.index.configs.v1') != '/configs':
        bad('the label names another directory')
    if len(config['rootfs']['diff_ids']) != len(manifest['layers']):
        bad('another number of diff_ids than of layers')
    plain = []
    for number in (-2, -1):
        data = gzip.decompress(blob(root, manifest['layers'][number]))
        if config['rootfs']['diff_ids'][number] != 'sha256:' + hashlib.sha256(data).hexdigest():
            bad(f'layer {number}: wrong diff_id')
        plain.append(tarfile.open(fileobj=io.BytesIO(data)))
    if '.wh.configs' not in plain[0].getnames():
        bad('the old catalog is not taken away')
    files = {}
    for member in plain[1].getmembers():
        want = 0o755 if member.isdir() else 0o644
        if (member.uid, member.gid, member.mode, member.mtime) != (0, 0, want, 0):
            bad(f'{member.name}: owner, mode or time')
        if not (member.name == 'configs' or member.name.startswith('configs/')):
            bad(f'{member.name}: not in configs/')
        if member.isfile():
            files[member.name[len('configs/'):]] = plain[1].extractfile(member).read()
    return files


def main(root):
    if not os.path.exists(os.path.join(root, 'index.json')):
        return check(of_directory(root))
    with open(os.path.join(root, 'index.json')) as f:
        top = json.load(f)['manifests']
    index = json.loads(blob(root, next(d for d in top if 'org.opencontainers.image.ref.name' in (d.get('annotations') or {}))))
    if 'manifests' not in index:
        bad('the image is no index')
        return {}
    found, platforms = [], []
    for child in index['manifests']:
        platforms.append('/'.join([child['platform']['os'], child['platform']['architecture']]))
        manifest = json.loads(blob(root, child))
        if ('docker' in index['mediaType']) != ('docker' in manifest['mediaType']):
            bad('an index and an image of different families')
        found.append(of_image(root, manifest))
    if any(files != found[0] for files in found):
        bad('the platforms have different catalogs')
    result = check(found[0])
    result['platforms'] = platforms
    return result


if __name__ == '__main__':
    print(json.dumps(main(sys.argv[1])))
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)
