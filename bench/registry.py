#!/usr/bin/env python3
"""Our registry against docker-registry 2.8.2 (with --with-zot: zot 1.4.3 too) and against a bare sendfile, on one machine and in one run; prints Markdown.

Both serve the same contents from a directory of their own, over plain HTTP, one after the other for each row, so that a busy neighbour disturbs both.
Beside every rate stands the processor time that the server took for a request (or a MiB): client and server share the cores, and where they fill them
the rate says more about the client. Goals are those of the project's specification of the registry. The load comes from
crates/registry/examples/load.rs, the floor is examples/send_floor.rs: `cargo build --release -p airlock-cli -p airlock-registry --examples --bin airlock`.
"""
import argparse, contextlib, datetime, hashlib, http.client, json, random, os, shutil, signal, statistics, subprocess, tempfile, time
import lab

MIB = 1 << 20
TICKS = os.sysconf('SC_CLK_TCK')


class Server:
    """A registry that runs: where, as which process, whether over TLS, and with which password."""

    def __init__(self, name, address, pid, tls=False, auth=None):
        self.name, self.address, self.pid, self.tls, self.auth = name, address, pid, tls, auth

    def cpu(self):
        fields = open(f'/proc/{self.pid}/stat').read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def status(self, name):
        with open(f'/proc/{self.pid}/status') as f:
            return next((int(line.split()[1]) * 1024 for line in f if line.startswith(name + ':')), 0)


@contextlib.contextmanager
def ours(binary, root, folder, name='airlock', tls=False, htpasswd=None, durability='image'):
    port = lab.free_port()
    command = [binary, 'registry', 'serve', '--root', root, '--listen', f'127.0.0.1:{port}', '--durability', durability]
    command += [] if tls else ['--plain-http']
    command += ['--htpasswd', htpasswd] if htpasswd else ['--anonymous']
    log = os.path.join(folder, f'airlock-{port}.log')
    begun = time.monotonic()
    with open(log, 'w') as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=lab.clean_env(folder))
    try:
        while not lab.listens(port):
            if child.poll() is not None or time.monotonic() - begun > 20:
                raise SystemExit('it does not start: ' + open(log).read())
            time.sleep(0.001)
        server = Server(name, f'127.0.0.1:{port}', child.pid, tls, 'anna:secret' if htpasswd else None)
        server.start = time.monotonic() - begun
        yield server
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


@contextlib.contextmanager
def theirs(root, folder):
    with lab.registry(root, folder) as (address, _):
        port = address.rsplit(':', 1)[1]
        pid = next(int(p) for p in os.listdir('/proc') if p.isdigit() and holds(p, f'registry-{port}.yml'))
        yield Server('docker-registry', address, pid)


@contextlib.contextmanager
def zot(root, folder):
    port = lab.free_port()
    config, log = os.path.join(folder, f'zot-{port}.json'), os.path.join(folder, f'zot-{port}.log')
    with open(config, 'w') as f:
        json.dump({'distSpecVersion': '1.0.1-dev', 'storage': {'rootDirectory': root, 'gc': False},
                   'http': {'address': '127.0.0.1', 'port': str(port)}, 'log': {'level': 'error'}}, f)
    with open(log, 'w') as out:
        child = subprocess.Popen(['zot', 'serve', config], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        while not lab.listens(port):
            if child.poll() is not None:
                raise SystemExit('zot does not start: ' + open(log).read())
            time.sleep(0.01)
        yield Server('zot', f'127.0.0.1:{port}', child.pid)
    finally:
        child.kill()
        child.wait()


def as_zot(storage, root, digests):
    """The two images as zot stores them: a layout each, with files that are the same. Its many repositories and tags it does not get: it reads all
    tags of a repository for every request, and nobody would keep ten thousand of them there."""
    for name in ('one', 'big'):
        folder, digest = os.path.join(root, 'bench', name), digests[name + ' manifest']
        os.makedirs(os.path.join(folder, 'blobs/sha256'))
        with open(lab.blob_path(storage, digest)) as f:
            manifest = json.load(f)
        for d in [digest, manifest['config']['digest']] + [layer['digest'] for layer in manifest['layers']]:
            os.link(lab.blob_path(storage, d), os.path.join(folder, 'blobs/sha256', d[7:]))
        entry = {'mediaType': manifest['mediaType'], 'digest': digest, 'size': os.path.getsize(lab.blob_path(storage, digest)),
                 'annotations': {'org.opencontainers.image.ref.name': 'v1'}}
        for file, value in (('oci-layout', {'imageLayoutVersion': '1.0.0'}), ('index.json', {'schemaVersion': 2, 'manifests': [entry]})):
            with open(os.path.join(folder, file), 'w') as f:
                json.dump(value, f)


def holds(pid, word):
    with contextlib.suppress(OSError):
        return word in open(f'/proc/{pid}/cmdline').read()
    return False


class Bench:
    def __init__(self, examples, seconds, with_zot=False):
        self.examples, self.seconds, self.with_zot, self.rows = examples, seconds, with_zot, []

    def load(self, server, verb, *words):
        command = [os.path.join(self.examples, 'load'), verb, server.address, *map(str, words)]
        command += ['--tls'] if server.tls else []
        command += ['--auth', server.auth] if server.auth else []
        before = server.cpu() if server.pid else 0
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=180).stdout)
        result['cpu'] = (server.cpu() - before) if server.pid else 0
        if result['bad'] and server.name in ('airlock', 'floor'):
            raise SystemExit(f'{server.name}: {result["bad"]} of {result["requests"]} requests were refused: {command}')
        return result

    def get(self, server, path, conns, head=False):
        self.load(server, 'get', path, '--conns', conns, '--secs', 1, *(['--head'] if head else []))     # warm
        return self.load(server, 'get', path, '--conns', conns, '--secs', self.seconds, *(['--head'] if head else []))

    def row(self, title, cells, third='–'):
        """`third` is zot's cell, where it takes part."""
        if self.with_zot:
            cells = cells[:2] + [third] + cells[2:]
        self.rows.append((title, cells))
        print(f'| {title} | ' + ' | '.join(cells) + ' |', flush=True)


def rate(result):
    return result['requests'] / result['seconds']


def mib(result):
    return result['bytes'] / MIB / result['seconds']


def micros(result):
    return result['cpu'] * 1e6 / result['requests']


def micros_per_mib(result):
    return result['cpu'] * 1e6 / (result['bytes'] / MIB)


def small(result):
    return f'{rate(result):,.0f}/s, {micros(result):.0f} µs CPU, p99 {result["p99_us"] / 1000:.1f} ms'


def large(result):
    return f'{mib(result):,.0f} MiB/s' + (f', {micros_per_mib(result):.0f} µs CPU per MiB' if result['cpu'] else '')


def verdict(value, bound, at_least=True):
    good = value >= bound if at_least else value <= bound
    return f'{value:,.2f} (goal {"≥" if at_least else "≤"} {bound:g}) {"✓" if good else "✗"}'


def contents(root):
    """A repository with a small image of 1 MiB, one with 64 MiB, 2000 repositories, 10 000 tags; their digests."""
    digests = {}
    for name, size in (('one', MIB), ('big', 64 * MIB)):
        digest = lab.put_image(root, f'bench/{name}', 'v1', [size], f'bench-{name}')
        with open(lab.blob_path(root, digest)) as f:
            digests[name] = json.load(f)['layers'][0]['digest']
        digests[name + ' manifest'] = digest
    base = os.path.join(root, 'docker/registry/v2/repositories')
    alg, hexa = digests['one manifest'].split(':')
    for i in range(2000):
        link(os.path.join(base, f'many/r{i:04}/_manifests/revisions/{alg}/{hexa}/link'), digests['one manifest'])
    for i in range(10000):
        tag = os.path.join(base, f'bench/one/_manifests/tags/t{i:05}')
        link(os.path.join(tag, 'current/link'), digests['one manifest'])
        link(os.path.join(tag, f'index/{alg}/{hexa}/link'), digests['one manifest'])
    return digests


def layout(folder, seed, images=20, layers=20, shared=4):
    """OCI layouts of images with layers of 1 MiB, of which some are in all of them."""
    source = random.Random(seed)
    common = [source.randbytes(MIB) for _ in range(shared)]
    for i in range(images):
        blobs = os.path.join(folder, str(i), 'blobs/sha256')
        os.makedirs(blobs)

        def put(data, kind):
            digest = hashlib.sha256(data).hexdigest()
            with open(os.path.join(blobs, digest), 'wb') as f:
                f.write(data)
            return {'mediaType': f'application/vnd.oci.image.{kind}', 'digest': 'sha256:' + digest, 'size': len(data)}

        parts = common + [source.randbytes(MIB) for _ in range(layers - shared)]
        config = {'architecture': 'amd64', 'os': 'linux', 'rootfs': {'type': 'layers', 'diff_ids': ['sha256:' + hashlib.sha256(p).hexdigest() for p in parts]}}
        manifest = {'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json', 'config': put(json.dumps(config).encode(), 'config.v1+json'),
                    'layers': [put(part, 'layer.v1.tar+gzip') for part in parts]}
        index = {'schemaVersion': 2, 'manifests': [put(json.dumps(manifest).encode(), 'manifest.v1+json')]}
        for name, value in (('oci-layout', {'imageLayoutVersion': '1.0.0'}), ('index.json', index)):
            with open(os.path.join(folder, str(i), name), 'w') as f:
                json.dump(value, f)
    return folder


def skopeo(folder, address, at_once):
    """Seconds that skopeo takes to push all of a folder's images, so many at a time."""
    begun = time.monotonic()
    command = f'ls {folder} | xargs -P {at_once} -I I skopeo --insecure-policy copy -q --preserve-digests --dest-tls-verify=false oci:{folder}/I docker://{address}/images/I:v1'
    subprocess.run(command, shell=True, check=True)
    return time.monotonic() - begun


def link(path, digest):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        f.write(digest)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--airlock', default=os.path.join(lab.ROOT, 'target/release/airlock'))
    parser.add_argument('--examples', default=os.path.join(lab.ROOT, 'target/release/examples'))
    parser.add_argument('--seconds', type=int, default=5, help='of each measurement')
    parser.add_argument('--only', default='', help='rows whose title holds this; some are made of others, so that `memory` alone says little')
    parser.add_argument('--with-zot', action='store_true', help='a third column; the program is looked for on PATH')
    arguments = parser.parse_args()
    bench = Bench(arguments.examples, arguments.seconds, arguments.with_zot)
    more = (' zot 1.4.3 |', '---|') if arguments.with_zot else ('', '')
    print(f'{datetime.date.today()}, {lab.machine()}\n\n| what | Airlock | docker-registry 2.8.2 |{more[0]} goal |\n|---|---|---|{more[1]}---|')
    third = lambda root, work: zot(root, work) if arguments.with_zot else contextlib.nullcontext()
    with tempfile.TemporaryDirectory(prefix='bench-registry-') as work:
        a, b = os.path.join(work, 'a'), os.path.join(work, 'b')
        digests = contents(a)
        shutil.copytree(a, b)
        c = os.path.join(work, 'c')
        as_zot(a, c, digests)
        wanted = lambda title: arguments.only in title
        manifest, blob = '/v2/bench/one/manifests/v1', f'/v2/bench/one/blobs/{digests["one"]}'
        big = f'/v2/bench/big/blobs/{digests["big"]}'
        with ours(arguments.airlock, a, work) as we, theirs(b, work) as they, third(c, work) as others:
            idle = we.status('VmRSS'), they.status('VmRSS')
            for title, path, conns, head in (
                    ('GET manifest by tag, 1 connection', manifest, 1, False),
                    ('GET manifest by tag, 16 connections', manifest, 16, False),
                    ('GET manifest by digest, 16 connections', f'/v2/bench/one/manifests/{digests["one manifest"]}', 16, False),
                    ('HEAD blob, 16 connections', blob, 16, True)):
                if wanted(title):
                    mine, other = bench.get(we, path, conns, head), bench.get(they, path, conns, head)
                    last = small(bench.get(others, path, conns, head)) if others else '–'
                    bench.row(title, [small(mine), small(other), f'rate {verdict(rate(mine) / rate(other), 10)}, CPU {verdict(micros(mine), 60, False)}'], last)
            for title, path, size, conns, share in (('GET 1 MiB, 4 connections', blob, 'one', 4, 0.6), ('GET 64 MiB, 4 connections', big, 'big', 4, 0.9)):
                if wanted(title):
                    file = lab.blob_path(a, digests[size])
                    bare = subprocess.Popen([os.path.join(arguments.examples, 'send_floor'), file], stdout=subprocess.PIPE, text=True)
                    floor = Server('floor', bare.stdout.readline().strip(), bare.pid)
                    # In turn, since the kernel's choice of cores for two programs that fill them makes a factor of two from one second to the next.
                    pairs = [(bench.get(floor, path, conns), bench.get(we, path, conns)) for _ in range(7)]
                    bare.kill()
                    bare.wait()
                    middle = lambda results: sorted(results, key=mib)[len(results) // 2]
                    base, mine = middle([floor for floor, _ in pairs]), middle([ours for _, ours in pairs])
                    other, last = bench.get(they, path, conns), large(bench.get(others, path, conns)) if others else '–'
                    ratio = statistics.median(mib(ours) / mib(floor) for floor, ours in pairs)
                    bench.row(title, [large(mine), large(other), f'of the floor ({large(base)}), median of 7 in turn {verdict(ratio, share)}, CPU per MiB {verdict(micros_per_mib(mine), 250, False)}'], last)
            for title, path in (('last page of the catalog, 2002 repositories', '/v2/_catalog?n=10&last=many/r1990'), ('a page of 10 000 tags', '/v2/bench/one/tags/list?n=100&last=t05000')):
                if wanted(title):
                    mine, other = bench.get(we, path, 1), bench.get(they, path, 1)
                    bench.row(title, [small(mine), small(other), f'median ms {verdict(mine["p50_us"] / 1000, 1, False)}'])
            if wanted('memory'):
                last = f'{others.status("VmHWM") / MIB:.0f} MiB at most' if others else '–'
                bench.row('memory: idle; most, so far', [f'{idle[0] / MIB:.0f}; {we.status("VmHWM") / MIB:.0f} MiB', f'{idle[1] / MIB:.0f}; {they.status("VmHWM") / MIB:.0f} MiB', f'most {verdict(we.status("VmHWM") / MIB, 48, False)}'], last)
            plain = {'manifest': bench.get(we, manifest, 16), 'one': bench.get(we, blob, 4), 'big': bench.get(we, big, 4)} if wanted('TLS') or wanted('password') else None
        if wanted('TLS'):
            with ours(arguments.airlock, a, work, tls=True) as we:
                for title, path, size in (('TLS: GET 1 MiB, 4 connections', blob, 'one'), ('TLS: GET 64 MiB, 4 connections', big, 'big')):
                    mine = bench.get(we, path, 4)
                    bench.row(title, [large(mine), '–', f'of our plain HTTP {verdict(mib(mine) / mib(plain[size]), 0.6)}'])
        if wanted('password'):
            htpasswd = os.path.join(work, 'htpasswd')
            with open(htpasswd, 'w') as f:
                # `secret`, at cost 10
                f.write(subprocess.run([os.path.join(arguments.examples, 'hash'), 'anna', 'secret'], check=True, capture_output=True, text=True).stdout)
            with ours(arguments.airlock, a, work, htpasswd=htpasswd) as we:
                mine = bench.get(we, manifest, 16)
                bench.row('password, bcrypt of cost 10: GET manifest, 16 connections', [small(mine), '–', f'of without {verdict(rate(mine) / rate(plain["manifest"]), 0.9)}'])
        for title, size, count, conns, durability, times in (
                ('push 1 MiB, 1 connection, durability image', MIB, 100, 1, 'image', 3), ('push 1 MiB, 1 connection, durability each', MIB, 100, 1, 'each', 2),
                ('push 16 KiB, 8 connections', 16384, 800, 8, 'image', 4), ('push 64 MiB, 4 connections', 64 * MIB, 16, 4, 'image', 1)):
            if not wanted(title):
                continue
            results = {'airlock': [], 'docker-registry': [], **({'zot': []} if arguments.with_zot else {})}
            for _ in range(2):
                for folder in ('p', 'q', 'z'):
                    shutil.rmtree(os.path.join(work, folder), ignore_errors=True)
                    os.makedirs(os.path.join(work, folder))
                with ours(arguments.airlock, os.path.join(work, 'p'), work, durability=durability) as we, theirs(os.path.join(work, 'q'), work) as they, third(os.path.join(work, 'z'), work) as others:
                    for server in filter(None, (we, they, others)):
                        os.sync()
                        results[server.name].append(bench.load(server, 'push', 'bench/push', '--size', size, '--count', count, '--conns', conns))
            mine, other, *last = (max(r, key=rate) for r in results.values())
            show = lambda r: f'{rate(r):,.0f}/s, {mib(r):,.0f} MiB/s, {micros_per_mib(r) / 1000:.1f} ms CPU per MiB'
            bench.row(title, [show(mine), show(other), f'times {verdict(rate(mine) / rate(other), times)}'], *map(show, last))
        for at_once, most in ((1, 0.6), (4, 0.75)):
            title = f'skopeo pushes 20 images of 20 layers of 1 MiB, {at_once} at a time'
            if not wanted(title):
                continue
            times = {'airlock': [], 'docker-registry': []}
            for turn in range(3):
                for folder in ('p', 'q', 'images'):
                    shutil.rmtree(os.path.join(work, folder), ignore_errors=True)
                images = layout(os.path.join(work, 'images'), f'{at_once} {turn}')
                with ours(arguments.airlock, os.path.join(work, 'p'), work) as we, theirs(os.path.join(work, 'q'), work) as they:
                    for server in (we, they):
                        os.sync()
                        # What it remembers of other places would make it mount instead of pushing.
                        shutil.rmtree('/var/lib/containers/cache', ignore_errors=True)
                        times[server.name].append(skopeo(images, server.address, at_once))
            mine, other = (statistics.median(t) for t in times.values())
            bench.row(title, [f'{mine:.1f} s', f'{other:.1f} s', f'times {verdict(mine / other, most, False)}'])
        if wanted('delete'):
            with ours(arguments.airlock, a, work) as we, theirs(b, work) as they:
                times = []
                for server in (we, they):
                    connection, begun = http.client.HTTPConnection(server.address), time.monotonic()
                    connection.request('DELETE', f'/v2/bench/one/manifests/{digests["one manifest"]}')
                    status = connection.getresponse().status
                    times.append(time.monotonic() - begun)
                    if status != 202:
                        raise SystemExit(f'{server.name} answers {status} to the deletion')
            bench.row('delete a manifest with 10 000 tags', [f'{times[0]:.2f} s', f'{times[1]:.2f} s', f's {verdict(times[0], 1, False)}'])
        if wanted('start'):
            with tempfile.TemporaryDirectory(prefix='empty-', dir=work) as empty, ours(arguments.airlock, empty, work) as we:
                bench.row('start to first connection, empty', [f'{we.start * 1000:.0f} ms', '–', f'ms {verdict(we.start * 1000, 20, False)}'])
            for i in range(100_000):
                hexa = hashlib.sha256(str(i).encode()).hexdigest()
                folder = os.path.join(a, 'docker/registry/v2/blobs/sha256', hexa[:2], hexa)
                os.makedirs(folder)
                with open(os.path.join(folder, 'data'), 'w') as f:
                    f.write(str(i))
            with ours(arguments.airlock, a, work) as we:
                bench.row('start to first connection, 2002 repositories and 100 000 blobs', [f'{we.start * 1000:.0f} ms', '–', f'ms {verdict(we.start * 1000, 500, False)}'])


if __name__ == '__main__':
    main()
