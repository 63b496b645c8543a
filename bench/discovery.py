#!/usr/bin/env python3
"""Finding out what a release set means: our requests and bytes against those that a perfect client would need; prints Markdown.

A perfect client asks for each graph once, for each release's signature once, for each manifest once, looks twice for attachments of each
manifest (a signature, referrers), and reads of each payload only its own layer, the one with `release-manifests/`. Against that stand a dry
run with an empty cache, and the same again with what the first one learned.
"""
import argparse, datetime, gzip, io, json, os, re, sys, tarfile
import lab

RATIO = 1.1


def requests(path):
    """[(method, path, status, bytes of the body)] of an access log."""
    form = re.compile(r'"(GET|HEAD|PUT|POST) (\S+) HTTP/1\.\d" (\d+)(?: (\d+|-))?')
    found = []
    for line in open(path, errors='replace'):
        if hit := form.search(line):
            size = hit.group(4)
            found.append((hit.group(1), hit.group(2), int(hit.group(3)), int(size) if size and size != '-' else 0))
    return found


def own_layer(storage, digest):
    """Bytes of the layer of a payload that has `release-manifests/`, found from the top."""
    manifest = json.load(open(lab.blob_path(storage, digest)))
    for child in manifest.get('manifests', [])[:1]:
        manifest = json.load(open(lab.blob_path(storage, child['digest'])))
    for layer in reversed(manifest['layers']):
        data = open(lab.blob_path(storage, layer['digest']), 'rb').read()
        data = gzip.decompress(data) if data[:2] == b'\x1f\x8b' else data
        if any(n.startswith('release-manifests/') for n in tarfile.open(fileobj=io.BytesIO(data)).getnames()):
            return layer['size']
    raise SystemExit(f'{digest} is no payload')


def perfect(root, scenario, seen):
    """(requests, bytes) to the registry. The answer to a look-up in vain has the size that this registry gives it."""
    expected = json.load(open(os.path.join(root, 'expected', scenario + '.json')))
    images = expected['rules'][expected['primary']]['images']
    storage, found = os.path.join(root, 'storage'), ({}, {})
    for image in images:
        name = image['ref'].split('@')[0]
        lab.walk(storage, name, image['digest'], found)
    manifests = found[0]
    vain = [size for _, path, status, size in seen if status == 404 and '/manifests/' in path]
    answer = sum(vain) / max(1, len(vain))
    payloads = sorted({i['digest'] for i in images if i['type'] == 'release'})
    count = 3 * len(manifests) + len(payloads)
    size = sum(s for s, _, _ in manifests.values()) + 2 * answer * len(manifests) + sum(own_layer(storage, d) for d in payloads)
    return count, size, len(manifests), payloads


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--airlock', default=os.path.join(lab.ROOT, 'target/release/airlock'), help='the program (cargo build --release)')
    p.add_argument('--work', default=os.path.join(lab.ROOT, 'target/bench'))
    p.add_argument('--scale', default='medium', choices=['small', 'medium', 'large'])
    p.add_argument('--set', default='rel-10-eus')
    p.add_argument('--strict', action='store_true', help='exit with 1 when more was asked than allowed')
    a = p.parse_args()
    airlock, work = os.path.abspath(a.airlock), os.path.abspath(a.work)
    os.makedirs(work, exist_ok=True)
    root = lab.world(a.scale, work)
    now = datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d %H:%M UTC')
    print(f'{now}; {lab.machine()}; {a.set}, world {a.scale}.\n')
    folder = os.path.join(work, 'discovery')
    import shutil
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    rows, missed = [], 0
    with lab.registry(os.path.join(root, 'storage'), folder, readonly=True, access=True) as (upstream, log), lab.services(root, folder, upstream) as (services, told):
        env = lab.world_env(os.path.join(folder, 'home'), root, services)
        done = (0, 0)
        for title in ('first dry run', 'second dry run'):
            account = lab.measured([airlock, 'mirror', '-c', os.path.join(root, 'isc', a.set + '.yaml'), '--dry-run', 'file://' + os.path.join(folder, 'archive')],
                                   env=env, cwd=folder, log=os.path.join(folder, 'airlock.log'))
            registry, other = requests(log)[done[0]:], requests(told)[done[1]:]
            done = (done[0] + len(registry), done[1] + len(other))
            rows.append((title, registry, other, account))
        count, size, manifests, payloads = perfect(root, a.set, rows[0][1])
    graphs = len({path for _, path, _, _ in rows[0][2] if 'graph' in path})
    ideal = count + graphs + len(payloads)
    print(f'{len(payloads)} releases, {manifests} manifests, {graphs} graphs.\n')
    print('| | requests to registries | bytes from registries | graphs and signatures | wall s | peak MiB |\n|---|---|---|---|---|---|')
    print(f'| a perfect client | {count} | {size:.0f} | {graphs + len(payloads)} | | |')
    for title, registry, other, account in rows:
        print(f'| {title} | {len(registry)} | {sum(r[3] for r in registry)} | {len(other)} | {account.wall:.2f} | {account.rss / lab.MIB:.1f} |')
    first = rows[0]
    for what, value in (('requests', (len(first[1]) + len(first[2])) / ideal), ('bytes from registries', sum(r[3] for r in first[1]) / size)):
        met = value <= RATIO
        missed += not met
        print(f'\n{what} of the first dry run, to a perfect client: {value:.3f} x (asked for: <= {RATIO} x) {"met" if met else "**missed**"}')
    sys.exit(1 if missed and a.strict else 0)


if __name__ == '__main__':
    main()
