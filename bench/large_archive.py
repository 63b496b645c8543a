#!/usr/bin/env python3
"""The first pull from a large archive that is served in place: how long after the start, and in how much memory. Prints Markdown for docs/measurements.md.

The archive is sparse: the layers of all images but the first are holes, everything else (the table, the plan, headers, configurations, manifests,
links) is real, so that 100 GB of it take some hundred MB of disk. Two forms: Airlock's, whose table is an index that was saved when the archive
was written, and oc-mirror's, which has none, so that the headers of all entries are walked. Each form is opened with its file out of the page
cache, and again with what that has left there. The archive is written from docs/archive-format.md, not by Airlock.

    cargo build --release && python3 bench/large_archive.py
"""
import argparse, datetime, hashlib, http.client, json, os, random, shutil, subprocess, sys, tempfile, time

import lab

ROOT = 'docker/registry/v2'
OCI = 'application/vnd.oci.image.'
CREATED = '2026-11-21T06:00:00Z'
CHUNK = 4194304
END = b'\0' * 1024
GOALS = {'ours': 5, 'oc-mirror': 60}
NAMES = {'ours': "Airlock's (with a table)", 'oc-mirror': "oc-mirror's (without)"}


def sha(data):
    return hashlib.sha256(data).hexdigest()


def padded(size):
    return (size + 511) // 512 * 512


def header(path, size):
    """The ustar header of a regular file, as docs/archive-format.md describes it."""
    name, prefix = path.encode(), b''
    if len(name) > 100:
        cut = max(i for i, c in enumerate(name) if c == 47 and i <= 155 and len(name) - i - 1 <= 100)
        prefix, name = name[:cut], name[cut + 1:]
    number = b'%011o\0' % size if size < 8 ** 11 else b'\x80' + size.to_bytes(11, 'big')
    block = bytearray(512)
    for at, field in ((0, name), (100, b'0000644\0'), (108, b'0000000\0'), (116, b'0000000\0'), (124, number), (136, b'00000000000\0'),
                      (148, b' ' * 8), (156, b'0'), (257, b'ustar\x0000'), (345, prefix)):
        block[at:at + len(field)] = field
    block[148:156] = b'%06o\0 ' % sum(block)
    return bytes(block)


def blob_path(digest):
    return f'{ROOT}/blobs/sha256/{digest[:2]}/{digest}/data'


class Image:
    """One image: its names, its manifest, its blobs as (digest, size, bytes or None for a hole)."""

    def __init__(self, number, layers):
        self.repository, self.tag = f'team{number % 40:02}/product{number // 10:04}', f'v{number}'
        config = json.dumps({'architecture': 'amd64', 'os': 'linux', 'config': {'Labels': {'number': str(number), 'text': 'x' * 2000}}}).encode()
        self.config = (sha(config), len(config), config)
        self.layers = layers
        describe = lambda kind, blob: {'mediaType': OCI + kind, 'digest': 'sha256:' + blob[0], 'size': blob[1]}
        self.text = json.dumps({
            'schemaVersion': 2, 'mediaType': OCI + 'manifest.v1+json', 'config': describe('config.v1+json', self.config),
            'layers': [describe('layer.v1.tar+gzip', layer) for layer in layers],
        }).encode()
        self.digest = sha(self.text)


def images(count, total):
    """Images of eight layers, of which three are a base that forty share; `total` bytes in all. The first one's layers are real."""
    chance = random.Random(1)
    own, bases = count * 5, (count + 39) // 40 * 3
    weights = [chance.lognormvariate(0, 1) for _ in range(own + bases)]
    sizes = [max(1, int(weight * total / sum(weights))) for weight in weights]
    hole = lambda number: (sha(b'layer %d' % number), sizes[number], None)
    made = []
    for number in range(count):
        base = own + number // 40 * 3
        layers = [hole(n) for n in [base, base + 1, base + 2, *range(number * 5, number * 5 + 5)]]
        if number == 0:
            real = [chance.randbytes(64 * 1024) for _ in layers]
            layers = [(sha(data), len(data), data) for data in real]
        made.append(Image(number, layers))
    return made


def plan(made):
    """What Airlock's archives carry of the plan."""
    blobs = {blob[0]: {'size': blob[1], 'mediaType': OCI + ('config.v1+json' if blob is image.config else 'layer.v1.tar+gzip')}
             for image in made for blob in [image.config, *image.layers]}
    return json.dumps({
        'apiVersion': 'airlock/v1', 'kind': 'Plan', 'missing': [],
        'images': [{
            'name': f'registry.example.com/{i.repository}:{i.tag}', 'source': f'registry.example.com/{i.repository}:{i.tag}', 'type': 'generic',
            'reasons': [{'file': 'isc.yaml', 'line': 7, 'what': 'additionalImages'}], 'digest': 'sha256:' + i.digest, 'repository': i.repository,
            'tag': i.tag, 'nodes': ['sha256:' + i.digest],
        } for i in made],
        'manifests': {'sha256:' + i.digest: {
            'mediaType': OCI + 'manifest.v1+json', 'size': len(i.text), 'blobs': ['sha256:' + b[0] for b in [i.config, *i.layers]],
        } for i in made},
        'blobs': {'sha256:' + digest: node for digest, node in sorted(blobs.items())},
    }, indent=2).encode()


def links(made):
    """(path, digest) of every link."""
    first, names = {}, []
    for i in made:
        below = f'{ROOT}/repositories/{i.repository}'
        for blob in [i.config, *i.layers]:
            first[f'{below}/_layers/sha256/{blob[0]}/link'] = blob[0]
        first[f'{below}/_manifests/revisions/sha256/{i.digest}/link'] = i.digest
        names.append((f'{below}/_manifests/tags/{i.tag}/index/sha256/{i.digest}/link', i.digest))
        names.append((f'{below}/_manifests/tags/{i.tag}/current/link', i.digest))
    return sorted(first.items()) + names


class Tar:
    """A tar file that is written in order; a hole stays one."""

    def __init__(self, path):
        self.file, self.at = open(path, 'wb', buffering=1 << 20), 0

    def entry(self, path, size, data):
        self.file.write(header(path, size))
        if data is not None:
            self.file.write(data.ljust(padded(size), b'\0'))
        else:
            self.file.seek(padded(size), os.SEEK_CUR)
        self.at += 512 + padded(size)

    def end(self):
        self.file.write(END)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()


def contents(made):
    """(blobs, manifests), each content once, as (path, size, bytes or None)."""
    blobs = {b[0]: b for image in made for b in [image.config, *image.layers]}
    return [(blob_path(d), size, data) for d, size, data in blobs.values()], [(blob_path(i.digest), len(i.text), i.text) for i in made]


def write_ours(folder, made):
    blobs, manifests = contents(made)
    document = plan(made)
    part = lambda table: f'airlock-part 1\nset sha256:{table}\npart 000001 of 000001\n'.encode()
    # (path, size, bytes, how the table says what it is)
    entries = [('airlock/part', len(part('0' * 64)), None, 'self'), ['airlock/table', 0, None, 'self'],
               ('airlock/plan.json', len(document), document, 'sha256:' + sha(document))]
    entries += [(*entry, '-') for entry in blobs + manifests]
    entries += [(path, 71, b'sha256:' + digest.encode(), '=sha256:' + digest) for path, digest in links(made)]
    head = f'airlock-table 1\nsequence 000001\ncreated {CREATED}\nprevious -\n'
    # Every field has a fixed width, so that the size of the table is known before what it says is.
    width = lambda path, content: len(f'entry 000001 {0:016} {0:016} {content} {path}\n')
    size = len(head) + len(f'part 000001 {0:016}\n') + sum(width(e[0], e[3]) for e in entries)
    entries[1][1] = size
    at, lines = 0, []
    for path, length, _, content in entries:
        lines.append(f'entry 000001 {at:016} {length:016} {content} {path}\n')
        at += 512 + padded(length)
    table = (head + f'part 000001 {at:016}\n' + ''.join(lines)).encode()
    assert len(table) == size
    identity = sha(table)
    tar = Tar(os.path.join(folder, 'mirror_000001.tar'))
    for path, length, data, content in entries:
        own = {'airlock/part': part(identity), 'airlock/table': table}
        tar.entry(path, length, own.get(path, data))
    assert tar.at == at
    chunks = ('0' * 64 + '\n') * -(-at // CHUNK)
    seal = f'airlock-seal 1\nset sha256:{identity}\nsequence 000001\ncreated {CREATED}\nchunks blake3 {CHUNK}\npart 000001 {at:016}\n{chunks}'
    seal = f'{seal}identity sha256:{sha(seal.encode())}\n'.encode()
    tar.entry('airlock/seal', len(seal), seal)
    tar.end()
    return len(entries) + 1, size


def write_theirs(folder, made):
    blobs, manifests = contents(made)
    tar, names = Tar(os.path.join(folder, 'mirror_000001.tar')), links(made)
    for path, digest in names:
        tar.entry(path, 71, b'sha256:' + digest.encode())
    for entry in blobs + manifests:
        tar.entry(*entry)
    tar.entry('isc_2026-11-21T06:00:00Z', 2, b'{}')
    tar.end()
    return len(names) + len(blobs) + len(manifests) + 1, 0


def ask(port, path, patience=0):
    """(status, body) of a GET; as long as nobody listens it is tried again."""
    end = time.monotonic() + patience
    while True:
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=120)
        try:
            connection.request('GET', path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise SystemExit('the registry does not start')
            time.sleep(0.002)
        finally:
            connection.close()


def pull(port, image, patience=0):
    """An image as a client pulls it: the manifest by its tag, then every blob, each held against its digest."""
    status, text = ask(port, f'/v2/{image.repository}/manifests/{image.tag}', patience)
    assert (status, text) == (200, image.text), (status, text[:300])
    for digest, _, data in [image.config, *image.layers]:
        status, body = ask(port, f'/v2/{image.repository}/blobs/sha256:{digest}')
        assert status == 200 and body == data, (status, digest)


def forget(path):
    """Has the kernel forget the file, so that the disk is read."""
    with open(path, 'rb') as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cpu(pid):
    fields = open(f'/proc/{pid}/stat').read().rsplit(') ', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def measure(airlock, folder, home, made):
    """Starts the registry and pulls: seconds to the first manifest and image, and what the rest of a first look costs."""
    port, result = lab.free_port(), {}
    command = [airlock, 'registry', 'serve', '--archive', folder, '--plain-http', '--anonymous', '--listen', f'127.0.0.1:{port}']
    with open(os.path.join(home, 'log'), 'w') as log:
        start = time.monotonic()
        server = subprocess.Popen(command, env=lab.clean_env(home), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            pull(port, made[0], patience=300)
            result['first'] = time.monotonic() - start
            result['cpu'], result['opened'] = cpu(server.pid), lab.peak(server.pid) / lab.MIB
            start = time.monotonic()
            for image in made[1::max(1, len(made) // 200)]:
                status, text = ask(port, f'/v2/{image.repository}/manifests/sha256:{image.digest}')
                assert (status, text) == (200, image.text)
            status, text = ask(port, '/v2/_catalog?n=10000')
            assert len(json.loads(text)['repositories']) == len({i.repository for i in made})
            result['more'] = time.monotonic() - start
            start = time.monotonic()
            status, text = ask(port, f'/v2/{made[0].repository}/referrers/sha256:{made[0].digest}')
            assert status == 200 and json.loads(text)['manifests'] == []
            result['referrers'], result['peak'] = time.monotonic() - start, lab.peak(server.pid) / lab.MIB
        except BaseException:
            sys.stderr.write(open(os.path.join(home, 'log')).read()[-2000:])
            raise
        finally:
            lab.kill(server)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--airlock', default=os.path.join(lab.ROOT, 'target/release/airlock'))
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--gigabytes', type=float, default=100)
    parser.add_argument('--work', help='a folder on a disk that knows holes (default: that for temporary files)')
    args = parser.parse_args()
    made = images(args.images, int(args.gigabytes * 1e9))
    print(f'{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC; {lab.machine()}; `python3 bench/large_archive.py '
          f'--images {args.images} --gigabytes {args.gigabytes:g}`.\n')
    print('| archive | entries | size GB | on disk MB | table MB | page cache | to the first image s | CPU s | memory then MiB '
          '| 200 manifests and the catalog s | first referrers s | peak MiB | asked for |\n|' + '---|' * 13)
    missed = False
    for form, write in (('ours', write_ours), ('oc-mirror', write_theirs)):
        folder = tempfile.mkdtemp(prefix='airlock-bench-', dir=args.work)
        try:
            archive, home = os.path.join(folder, 'archive'), os.path.join(folder, 'home')
            os.mkdir(archive), os.mkdir(home)
            entries, table = write(archive, made)
            path = os.path.join(archive, 'mirror_000001.tar')
            stat = os.stat(path)
            for cache in ('cold', 'warm'):
                if cache == 'cold':
                    forget(path)
                m = measure(args.airlock, archive, home, made)
                met = m['first'] <= GOALS[form]
                missed |= not met
                print(f'| {NAMES[form]} | {entries} | {stat.st_size / 1e9:.1f} | {stat.st_blocks * 512 / 1e6:.0f} | {table / 1e6:.1f} | {cache} '
                      f'| {m["first"]:.2f} | {m["cpu"]:.2f} | {m["opened"]:.1f} | {m["more"]:.2f} | {m["referrers"]:.2f} | {m["peak"]:.1f} '
                      f'| <= {GOALS[form]} s: {"met" if met else "**missed**"} |', flush=True)
            assert os.listdir(archive) == ['mirror_000001.tar'], 'nothing is written beside the archive'
        finally:
            shutil.rmtree(folder)
    sys.exit(missed)


if __name__ == '__main__':
    main()
