#!/usr/bin/env python3
"""Airlock against skopeo and against a bare loop, on one machine and in one run; prints Markdown.

The list: the world's release set rel-10-eus, for us as the image set that it is (update graph, signatures, payloads included) or, with --plain, as
references by digest; skopeo and the loop get the references. The blob: one image with
one layer of 4 GiB. Both go registry -> disk -> registry; docker-registry 2.8.2 at both ends, an empty target each time.
The floor is crates/testkit/examples/floor.rs: one thread that receives, hashes and writes (or reads, hashes and sends) the same bytes: blobs, manifests
and, on the way out, the answers to the two look-ups of attachments that each manifest needs.
"""
import argparse, contextlib, datetime, json, os, shutil, subprocess, sys
import lab

GIB = 1 << 30
# What is asked for: (title, value of the results, most that is allowed).
WRITTEN, MEMORY, CPU, WALL, BLOB_WALL = 1.02, 64 << 20, 1.5, 0.5, 1.15
NO_WRITES = 1 << 20      # reports and logs of a load, in bytes


class Case:
    """One list of images to carry."""

    def __init__(self, name, storage, references, hosts, root=None, scenario=None):
        self.name, self.storage, self.references, self.hosts = name, storage, references, hosts
        # Of an image set of the world: where that is, and which.
        self.root, self.scenario = root, scenario
        found = ({}, {})
        for reference in references:
            repository, digest = reference.split('@')
            lab.walk(storage, repository, digest, found)
        self.manifests, self.blobs = found
        self.bytes = sum(size for size, _, _ in self.manifests.values()) + sum(size for size, _ in self.blobs.values())
        # A link for each manifest and each blob of a repository, and a tag for each image with two links of its own.
        self.links = len(self.manifests) + len(self.blobs) + 2 * len(references)

    def allowed(self):
        return self.bytes + 1024 * (self.links + len(self.blobs) + len(self.manifests))


def world_case(work, scale, scenario, plain):
    root = lab.world(scale, work)
    expected = json.load(open(os.path.join(root, 'expected', scenario + '.json')))
    images = expected['rules'][expected['primary']]['images']
    references = sorted({f'{image["ref"].split("@")[0].rsplit(":", 1)[0] if "@" not in image["ref"] else image["ref"].split("@")[0]}@{image["digest"]}' for image in images})
    what = 'plain references' if plain else 'an image set'
    case = Case(f'{scenario}, {scale}: {len(references)} images as {what}', os.path.join(root, 'storage'), references, sorted({r.split('/')[0] for r in references}))
    if not plain:
        case.root, case.scenario = root, scenario
    return case


def blob_case(work, size):
    storage = os.path.join(work, f'blob-{size}')
    mark = os.path.join(storage, 'image')
    if not os.path.exists(mark):
        shutil.rmtree(storage, ignore_errors=True)
        digest = lab.put_image(storage, 'quay.io/bench/blob', 'v1', [size], 'bench')
        with open(mark, 'w') as f:
            f.write(digest)
    return Case(f'one blob of {size / GIB:g} GiB', storage, ['quay.io/bench/blob@' + open(mark).read()], ['quay.io'])


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def floor_pull(a, case, work, upstream):
    """The same bytes as ours: every blob, every manifest, and the two look-ups of attachments for each manifest (signature, referrers)."""
    listing, out = os.path.join(work, 'pull.txt'), os.path.join(work, 'floor.bin')
    with open(listing, 'w') as f:
        for digest, (_, repository, _) in case.manifests.items():
            tag = digest.replace(':', '-')
            f.write(f'/v2/{repository}/manifests/{digest} {digest}\n/v2/{repository}/manifests/{tag}.sig -\n/v2/{repository}/manifests/{tag} -\n')
        for digest, (_, repository) in case.blobs.items():
            f.write(f'/v2/{repository}/blobs/{digest} {digest}\n')
    return lab.measured([a.floor, 'pull', upstream, out], stdin=open(listing), log=os.path.join(work, 'floor.log'))


def floor_push(a, case, work, target):
    """Every blob and manifest, into one repository, so that none has to be mounted elsewhere."""
    listing = os.path.join(work, 'push.txt')
    offset = sum(size for size, _, _ in case.manifests.values())
    with open(listing, 'w') as f:
        for digest, (size, _) in case.blobs.items():
            f.write(f'bench/all {digest} {offset} {size} -\n')
            offset += size
        offset, lines = 0, []
        for digest, (size, _, kind) in case.manifests.items():
            lines.append(f'bench/all {digest} {offset} {size} {kind}\n')
            offset += size
        f.writelines(reversed(lines))   # children before the indexes that name them
    return lab.measured([a.floor, 'push', target, os.path.join(work, 'floor.bin')], stdin=open(listing), log=os.path.join(work, 'floor.log'))


def disk_alone(case, work):
    """Seconds to write the case's bytes to the disk and have them there: `dd` from memory."""
    out = os.path.join(work, 'disk.bin')
    account = lab.measured(['dd', 'if=/dev/zero', 'of=' + out, 'bs=1M', f'count={max(1, case.bytes // lab.MIB)}', 'conv=fsync'])
    os.remove(out)
    return account


def skopeo_out(case, work, upstream):
    """registry -> dir, by one `skopeo sync` (one process, as our one)."""
    listing, out = os.path.join(work, 'sync.yaml'), fresh(os.path.join(work, 'skopeo'))
    images = {}
    for reference in case.references:
        repository, digest = reference.split('@')
        images.setdefault(repository, []).append(digest)
    with open(listing, 'w') as f:
        f.write(f'{upstream}:\n  tls-verify: false\n  images:\n')
        for repository, digests in images.items():
            f.write(f'    {repository}:\n' + ''.join(f'    - "{digest}"\n' for digest in digests))
    return lab.measured(['skopeo', '--insecure-policy', 'sync', '--all', '--preserve-digests', '--scoped', '--src', 'yaml', '--dest', 'dir', listing, out],
                        env=lab.clean_env(os.path.join(work, 'skopeo-home')), log=os.path.join(work, 'skopeo.log'))


def skopeo_in(work, target):
    return lab.measured(['skopeo', '--insecure-policy', 'sync', '--all', '--preserve-digests', '--src', 'dir', '--dest', 'docker', '--dest-tls-verify=false', os.path.join(work, 'skopeo'), target],
                        env=lab.clean_env(fresh(os.path.join(work, 'skopeo-home'))), log=os.path.join(work, 'skopeo.log'))


def airlock(a, case, work, upstream, arguments, home, services=None):
    conf = lab.rewrite(os.path.join(work, 'registries.conf'), upstream, case.hosts)
    isc = lab.image_set(os.path.join(work, 'isc.yaml'), case.references)
    env = lab.clean_env(fresh(os.path.join(work, home)), CONTAINERS_REGISTRIES_CONF=conf)
    if case.root:
        isc = os.path.join(case.root, 'isc', case.scenario + '.yaml')
        if services:
            env = lab.world_env(fresh(os.path.join(work, home)), case.root, services)
    return lab.measured([a.airlock, 'mirror', '-c', isc, *arguments], env=env, cwd=work, log=os.path.join(work, 'airlock.log'))


def one_round(a, case, work):
    """{name: Account} of one pass over everything."""
    results = {}
    with lab.registry(case.storage, work, readonly=True) as (upstream, _):
        results['disk'] = disk_alone(case, work)
        results['floor out'] = floor_pull(a, case, work, upstream)
        if not a.no_skopeo:
            results['skopeo out'] = skopeo_out(case, work, upstream)
        archive = fresh(os.path.join(work, 'archive'))
        with lab.services(case.root, work, upstream) if case.root else contextlib.nullcontext((None, None)) as (services, _):
            results['airlock out'] = airlock(a, case, work, upstream, ['file://' + archive], 'home-out', services)
        results['archive size'] = sum(os.path.getsize(os.path.join(archive, f)) for f in os.listdir(archive) if f.endswith('.tar'))
    pushes = [('floor in', lambda t: floor_push(a, case, work, t))]
    if not a.no_skopeo:
        pushes.append(('skopeo in', lambda t: skopeo_in(work, t)))
    # The home of a machine on the other side, and a registries.conf that leads nowhere: a load needs no network.
    pushes.append(('airlock in', lambda t: airlock(a, case, work, '127.0.0.1:1', ['--from', 'file://' + archive, '--dest-tls-verify=false', 'docker://' + t], 'home-in')))
    for name, push in pushes:
        storage = fresh(os.path.join(work, 'target'))
        with lab.registry(storage, work) as (target, _):
            results[name] = push(target)
            if name != 'floor in':
                present(case, storage, name)
        shutil.rmtree(storage)
    for name in ('floor.bin', 'skopeo', 'archive'):
        path = os.path.join(work, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.path.exists(path) and os.remove(path)
    return results


def present(case, storage, who):
    absent = [d for d in [*case.manifests, *case.blobs] if not os.path.exists(lab.blob_path(storage, d))]
    if absent:
        raise SystemExit(f'{who}: {len(absent)} of {len(case.manifests) + len(case.blobs)} did not arrive, such as {absent[0]}')


def report(case, rounds, big):
    names = [n for n in rounds[0] if n != 'archive size']
    mid = {n: lab.Account.median([r[n] for r in rounds]) for n in names}
    print(f'### {case.name}\n')
    print(f'{len(case.manifests)} manifests, {len(case.blobs)} blobs, {case.bytes / 1e6:.1f} MB unique; archive {rounds[0]["archive size"] / 1e6:.1f} MB; median of {len(rounds)}.\n')
    print('| | wall s | CPU s | peak MiB | to disk MB | write calls MB |\n|---|---|---|---|---|---|')
    title = {'disk': 'disk alone (dd, fsync)', 'floor out': 'loop: receive, hash, write', 'skopeo out': 'skopeo registry -> dir', 'airlock out': 'airlock registry -> archive',
             'floor in': 'loop: read, hash, send', 'skopeo in': 'skopeo dir -> registry', 'airlock in': 'airlock archive -> registry'}
    for n in title:
        if n in mid:
            m = mid[n]
            print(f'| {title[n]} | {m.wall:.2f} | {m.cpu:.2f} | {m.rss / lab.MIB:.1f} | {m.disk / 1e6:.1f} | {m.wchar / 1e6:.1f} |')
    out, back = mid['airlock out'], mid['airlock in']
    rows = [('bytes to disk by registry -> archive, to unique bytes + 1 KiB a link and blob', out.disk / case.allowed(), WRITTEN, 'x'),
            ('bytes to disk by archive -> registry, MB', back.disk / 1e6, NO_WRITES / 1e6, ''),
            ('peak memory, MiB', max(out.rss, back.rss) / lab.MIB, MEMORY / lab.MIB, ''),
            ('CPU of registry -> archive, to the loop', out.cpu / mid['floor out'].cpu, CPU, 'x'),
            ('CPU of archive -> registry, to the loop', back.cpu / mid['floor in'].cpu, CPU, 'x')]
    if 'skopeo out' in mid:
        theirs, ours = lab.Account.both(mid['skopeo out'], mid['skopeo in']), lab.Account.both(out, back)
        rows.append(('wall time of both ways, to skopeo', ours.wall / theirs.wall, None if big else WALL, 'x'))
        rows += [('CPU of both ways, to skopeo', ours.cpu / theirs.cpu, None, 'x'), ('peak memory, to skopeo', ours.rss / theirs.rss, None, 'x'),
                 ('bytes to disk of both ways, to skopeo', ours.disk / theirs.disk, None, 'x')]
    if big:
        rows.append(('wall of registry -> archive, to the slower of disk and loop', out.wall / max(mid['disk'].wall, mid['floor out'].wall), BLOB_WALL, 'x'))
        rows.append(('wall of archive -> registry, to the loop', back.wall / mid['floor in'].wall, BLOB_WALL, 'x'))
    print('\n| ratio | measured | asked for | |\n|---|---|---|---|')
    missed = 0
    for what, value, most, unit in rows:
        met = '' if most is None else 'met' if value <= most else '**missed**'
        missed += met == '**missed**'
        asked = '' if most is None else f'<= {most:g} {unit}'.strip()
        print(f'| {what} | {value:.3g} {unit} | {asked} | {met} |')
    print(flush=True)
    return missed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--airlock', default=os.path.join(lab.ROOT, 'target/release/airlock'), help='the program (cargo build --release)')
    p.add_argument('--floor', default=os.path.join(lab.ROOT, 'target/release/examples/floor'), help='the loop (cargo build --release -p airlock-testkit --example floor)')
    p.add_argument('--work', default=os.path.join(lab.ROOT, 'target/bench'), help='working folder, on the disk to be measured; generated content stays there')
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--scale', default='medium', choices=['small', 'medium', 'large'])
    p.add_argument('--blob-gib', type=float, default=4.0, help='size of the one blob; 0 leaves it out')
    p.add_argument('--only-blob', action='store_true', help='leave the list out')
    p.add_argument('--plain', action='store_true', help='the list as plain references')
    p.add_argument('--no-skopeo', action='store_true', help='leave skopeo out')
    p.add_argument('--strict', action='store_true', help='exit with 1 when something asked for is missed')
    a = p.parse_args()
    for program in (a.airlock, a.floor):
        if not os.path.exists(program):
            sys.exit(f'{program} is not there; build it first')
    a.airlock, a.floor, work = os.path.abspath(a.airlock), os.path.abspath(a.floor), os.path.abspath(a.work)
    os.makedirs(work, exist_ok=True)
    now = datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d %H:%M UTC')
    skopeo = '' if a.no_skopeo else subprocess.run(['skopeo', '--version'], capture_output=True, text=True).stdout.strip() + '; '
    print(f'{now}; {lab.machine()}; {skopeo}docker-registry 2.8.2 at both ends, loopback; the program is {os.path.relpath(a.airlock, lab.ROOT)}.\n', flush=True)
    cases = [] if a.only_blob else [(world_case(work, a.scale, 'rel-10-eus', a.plain), False)]
    if a.blob_gib:
        cases.append((blob_case(work, int(a.blob_gib * GIB)), True))
    missed = 0
    for case, big in cases:
        folder = fresh(os.path.join(work, 'run'))
        missed += report(case, [one_round(a, case, folder) for _ in range(a.rounds)], big)
        shutil.rmtree(folder)
    sys.exit(1 if missed and a.strict else 0)


if __name__ == '__main__':
    main()
