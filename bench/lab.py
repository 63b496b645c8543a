"""What the bench and the soak stand on: registries on loopback, the world, images of a given size, and the account of a process.

Python's standard library only. Everything is started here and ended here, by handle.
"""
import contextlib, hashlib, http.client, json, os, platform, random, shutil, signal, socket, subprocess, sys, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHARED = os.environ.get('AIRLOCK_SHARED') or os.path.join(os.path.dirname(ROOT), 'shared')
WORLD = os.path.join(SHARED, 'world', 'world.py')
MIB = 1 << 20
LOOK = 0.003      # seconds between two looks at a running process


class Account:
    """What one process used: seconds, seconds, bytes, bytes, bytes."""

    def __init__(self, wall, cpu, rss, disk, wchar):
        self.wall, self.cpu, self.rss, self.disk, self.wchar = wall, cpu, rss, disk, wchar

    @staticmethod
    def median(accounts):
        mid = lambda name: sorted(getattr(a, name) for a in accounts)[len(accounts) // 2]
        return Account(*(mid(name) for name in ('wall', 'cpu', 'rss', 'disk', 'wchar')))

    @staticmethod
    def both(a, b):
        return Account(a.wall + b.wall, a.cpu + b.cpu, max(a.rss, b.rss), a.disk + b.disk, a.wchar + b.wchar)


def proc_io(pid):
    with open(f'/proc/{pid}/io') as f:
        return {k: int(v) for k, v in (line.split(': ') for line in f)}


def peak(pid):
    """The most memory that the process has held since it became the program that it is, in bytes."""
    with open(f'/proc/{pid}/status') as f:
        return next((int(line.split()[1]) * 1024 for line in f if line.startswith('VmHWM:')), 0)


def measured(command, env=None, stdin=None, cwd=None, log=None, codes=(0,)):
    """Runs a command and returns its Account. The kernel's account of bytes is read when it has ended and before it is reaped.

    Dirty pages of what ran before go to the disk first. `disk` is what the process caused to be written to a disk, `wchar` what it
    handed to write calls of any kind (pipes and, where a program uses writev, sockets too).
    """
    os.sync()
    out = open(log or os.devnull, 'w')
    start = time.monotonic()
    child = subprocess.Popen(command, env=env, cwd=cwd, stdin=stdin or subprocess.DEVNULL, stdout=out, stderr=out)
    # Not the kernel's ru_maxrss: that begins with the memory of the Python process which was forked.
    rss = 0
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        rss = max(rss, peak(child.pid))
        time.sleep(LOOK)
    wall = time.monotonic() - start
    io = proc_io(child.pid)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    out.close()
    if child.returncode not in codes:
        tail = open(log).read()[-4000:] if log else ''
        raise SystemExit(f'{" ".join(command[:6])} ... ended with {child.returncode}\n{tail}')
    return Account(wall, usage.ru_utime + usage.ru_stime, rss, io['write_bytes'], io['wchar'])


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(('127.0.0.1', port)) == 0


@contextlib.contextmanager
def services(root, folder, registry):
    """The world's graph, signatures and charts for a registry at an address; gives (HOST:PORT, path of its log), the configurations written for both."""
    for _ in range(5):
        port = free_port()
        path = os.path.join(folder, f'services-{port}.log')
        with open(path, 'w') as out:
            child = subprocess.Popen([sys.executable, WORLD, 'serve', '--dir', root, '--port', str(port), '--log'], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        while child.poll() is None and not listens(port):
            time.sleep(0.01)
        if child.poll() is None:
            break
    else:
        raise SystemExit('the world is not served: ' + open(path).read())
    subprocess.run([sys.executable, WORLD, 'render', '--dir', root, '--registry', registry, '--http-port', str(port)], check=True, stdout=subprocess.DEVNULL)
    try:
        yield f'127.0.0.1:{port}', path
    finally:
        child.kill()
        child.wait()


def world_env(folder, root, services):
    """The environment in which the world goes by its real names."""
    return clean_env(folder, CONTAINERS_REGISTRIES_CONF=os.path.join(root, 'registries-rewrite.conf'), UPDATE_URL_OVERRIDE=f'http://{services}/graph',
                     OCP_SIGNATURE_URL=f'http://{services}/signatures/openshift/release/', OCP_SIGNATURE_VERIFICATION_PK=os.path.join(root, 'keys/release-pk.asc'))


@contextlib.contextmanager
def registry(storage, folder, readonly=False, log='error', access=False):
    """Debian's docker-registry over `storage`; gives (HOST:PORT, path of its log) and ends it."""
    os.makedirs(folder, exist_ok=True)
    for _ in range(5):
        port = free_port()
        config, path = os.path.join(folder, f'registry-{port}.yml'), os.path.join(folder, f'registry-{port}.log')
        mode = 'readonly: {enabled: true}, ' if readonly else ''
        with open(config, 'w') as f:
            f.write(f'version: 0.1\nlog: {{level: {log}, formatter: json, accesslog: {{disabled: {str(not access).lower()}}}}}\nstorage:\n'
                    f'  filesystem: {{rootdirectory: {storage}}}\n  delete: {{enabled: true}}\n'
                    f'  maintenance: {{{mode}uploadpurging: {{enabled: false}}}}\nhttp: {{addr: "127.0.0.1:{port}"}}\n'
                    'validation:\n  manifests: {urls: {allow: ["^https?://"]}}\n')
        with open(path, 'w') as out:
            child = subprocess.Popen(['docker-registry', 'serve', config], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        while child.poll() is None and not listens(port):
            time.sleep(0.01)
        if child.poll() is None:
            break
    else:
        raise SystemExit('docker-registry does not start: ' + open(path).read())
    try:
        yield f'127.0.0.1:{port}', path
    finally:
        child.kill()
        child.wait()


def world(scale, work):
    """The generated world at this scale, kept below `work` between runs."""
    if not os.path.exists(WORLD):
        raise SystemExit(f'the world generator is not at {WORLD} (set AIRLOCK_SHARED)')
    root = os.path.join(work, f'world-{scale}')
    if not os.path.exists(os.path.join(root, 'summary-done')):
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run([sys.executable, WORLD, 'build', '--quiet', '--scale', scale, '--out', root], check=True)
        open(os.path.join(root, 'summary-done'), 'w').close()
    return root


def rewrite(path, upstream, hosts):
    """A registries.conf that sends these hosts to the upstream and nowhere else."""
    with open(path, 'w') as f:
        for host in hosts:
            f.write(f'[[registry]]\nprefix = "{host}"\nlocation = "{upstream}/{host}"\ninsecure = true\n\n')
        f.write(f'[[registry]]\nprefix = "{upstream}"\nlocation = "{upstream}"\ninsecure = true\n')
    return path


def image_set(path, references):
    with open(path, 'w') as f:
        f.write('kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n')
        f.writelines(f'  - name: {reference}\n' for reference in references)
    return path


def blob_path(storage, digest):
    hex = digest[7:]
    return os.path.join(storage, 'docker/registry/v2/blobs/sha256', hex[:2], hex, 'data')


def put_blob(storage, size, seed):
    """A blob of `size` random but repeatable bytes in docker-distribution storage; gives its digest."""
    os.makedirs(storage, exist_ok=True)
    source, digest = random.Random(seed), hashlib.sha256()
    beside = os.path.join(storage, '.blob-' + seed.replace('/', '-'))
    with open(beside, 'wb') as f:
        left = size
        while left:
            piece = source.randbytes(min(left, 8 * MIB))
            digest.update(piece)
            f.write(piece)
            left -= len(piece)
    name = 'sha256:' + digest.hexdigest()
    path = blob_path(storage, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.replace(beside, path)
    return name


def put_image(storage, repository, tag, sizes, seed):
    """An image with layers of these sizes in docker-distribution storage; gives its digest."""
    def write(path, data):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'wb') as f:
            f.write(data)

    def small(data):
        name = 'sha256:' + hashlib.sha256(data).hexdigest()
        write(blob_path(storage, name), data)
        return name
    layers = [(put_blob(storage, size, f'{seed}/{i}'), size) for i, size in enumerate(sizes)]
    config = json.dumps({'architecture': 'amd64', 'os': 'linux', 'config': {}, 'rootfs': {'type': 'layers', 'diff_ids': [d for d, _ in layers]}}).encode()
    config_digest = small(config)
    manifest = json.dumps({
        'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',
        'config': {'mediaType': 'application/vnd.oci.image.config.v1+json', 'digest': config_digest, 'size': len(config)},
        'layers': [{'mediaType': 'application/vnd.oci.image.layer.v1.tar', 'digest': d, 'size': s} for d, s in layers]}).encode()
    digest = small(manifest)
    base = os.path.join(storage, 'docker/registry/v2/repositories', repository)
    for d in [config_digest] + [d for d, _ in layers]:
        write(os.path.join(base, '_layers/sha256', d[7:], 'link'), d.encode())
    for place in (f'revisions/sha256/{digest[7:]}', f'tags/{tag}/current', f'tags/{tag}/index/sha256/{digest[7:]}'):
        write(os.path.join(base, '_manifests', place, 'link'), digest.encode())
    return digest


def walk(storage, repository, digest, found):
    """Collects (manifests, blobs) below a manifest as {digest: (size, repository, media type)} and {digest: (size, repository)}."""
    manifests, blobs = found
    if digest in manifests:
        return
    data = open(blob_path(storage, digest), 'rb').read()
    value = json.loads(data)
    kind = 'application/vnd.oci.image.' + ('index' if 'manifests' in value else 'manifest') + '.v1+json'
    manifests[digest] = (len(data), repository, value.get('mediaType', kind))
    for child in value.get('manifests', []):
        walk(storage, repository, child['digest'], found)
    for blob in value.get('layers', []) + [b for b in [value.get('config')] if b]:
        if os.path.exists(os.path.join(storage, 'docker/registry/v2/repositories', repository, '_layers/sha256', blob['digest'][7:])):
            blobs.setdefault(blob['digest'], (blob['size'], repository))


def held(storage):
    """Everything in docker-distribution storage but unfinished uploads: {repository: {tag or manifest or layer: digest}}, blobs re-hashed."""
    base, found = os.path.join(storage, 'docker/registry/v2'), {}
    for folder, folders, files in os.walk(os.path.join(base, 'repositories')):
        if '_uploads' in folders:
            folders.remove('_uploads')
        if 'link' in files:
            found[os.path.relpath(folder, base)] = open(os.path.join(folder, 'link')).read()
    for folder, _, files in os.walk(os.path.join(base, 'blobs')):
        if 'data' in files:
            found[os.path.relpath(folder, base)] = file_digest(os.path.join(folder, 'data'))
    return found


def file_digest(path):
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        while piece := f.read(MIB):
            digest.update(piece)
    return digest.hexdigest()


def machine():
    """One line about the machine, for the record."""
    model = next((line.split(': ')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')), platform.machine())
    memory = int(next(line.split()[1] for line in open('/proc/meminfo') if line.startswith('MemTotal'))) // (1 << 20)
    return f'{os.cpu_count()} x {model}, {memory} GiB, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}'


def clean_env(folder, **more):
    """A home of its own, below `folder`."""
    env = {'PATH': os.environ['PATH']}
    for name, part in (('HOME', 'home'), ('TMPDIR', 'tmp'), ('XDG_CACHE_HOME', 'cache'), ('XDG_CONFIG_HOME', 'config'), ('XDG_RUNTIME_DIR', 'run')):
        env[name] = os.path.join(folder, part)
        os.makedirs(env[name], exist_ok=True)
    return {**env, **more}


def kill(child):
    child.send_signal(signal.SIGKILL)
    child.wait()
