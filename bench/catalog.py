#!/usr/bin/env python3
"""A catalog as large as Red Hat's (400 packages, 9,000 bundles, 150 MB of documents): what planning its mirroring costs, against the real
`opm render` of the same catalog from the same registry. Prints Markdown for docs/measurements.md.

Planned are three image sets: the heads of all packages, twenty packages from a version on, and the whole catalog. Each once with an empty
cache and once with what the first left. The promise: read, filter and plan within 256 MiB; a fifth of the time and a quarter of the memory
of `opm render`.

    cargo build --release && python3 bench/catalog.py
"""
import argparse, os, subprocess, sys, tempfile, time

import lab

EXAMPLE = ['cargo', 'build', '--release', '-q', '-p', 'airlock-content', '--example', 'catalog_size']
NAME = 'registry.redhat.io/redhat/catalog:latest'


def image_set(folder, name, text):
    path = os.path.join(folder, name + '.yaml')
    with open(path, 'w') as f:
        f.write(f'kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  operators:\n  - catalog: {NAME}\n{text}')
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--airlock', default=os.path.join(lab.ROOT, 'target/release/airlock'))
    parser.add_argument('--catalog', help='a folder that keeps the generated catalog')
    parser.add_argument('--opm', default='opm')
    args = parser.parse_args()
    subprocess.run(EXAMPLE, cwd=lab.ROOT, check=True)
    example = os.path.join(lab.ROOT, 'target/release/examples/catalog_size')
    with tempfile.TemporaryDirectory(prefix='airlock-bench-') as folder:
        catalog = args.catalog or os.path.join(folder, 'catalog')
        if not os.path.exists(os.path.join(catalog, 'oci-layout')):
            subprocess.run([example, 'generate', catalog], check=True, stdout=subprocess.DEVNULL)
        port = lab.free_port()
        server = subprocess.Popen([example, 'serve', catalog, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not lab.listens(port):
                if server.poll() is not None:
                    raise SystemExit('the registry did not start')
                time.sleep(0.1)
            measure(args, folder, f'127.0.0.1:{port}')
        finally:
            server.kill()
            server.wait()


def measure(args, folder, registry):
    conf = os.path.join(folder, 'registries.conf')
    with open(conf, 'w') as f:
        f.write(f'[[registry]]\nprefix = "registry.redhat.io"\nlocation = "{registry}"\ninsecure = true\n')
    some = ''.join(f'    - name: operator-{n:03}\n      minVersion: 1.2.0\n' for n in range(0, 400, 20))
    sets = [('heads of 400 packages', image_set(folder, 'heads', '')),
            ('20 packages from 1.2.0 on', image_set(folder, 'some', '    packages:\n' + some)),
            ('the whole catalog', image_set(folder, 'whole', '    full: true\n'))]
    print(lab.machine())
    print()
    print('| what | wall | CPU | peak memory | of `opm render` (wall, memory) |')
    print('|---|---|---|---|---|')
    env = lab.clean_env(folder, CONTAINERS_REGISTRIES_CONF='/dev/null')
    log = os.path.join(folder, 'log')
    opm = lab.measured([args.opm, 'render', '--use-http', '-o', 'json', f'{registry}/redhat/catalog:latest'], env=env, log=log)
    row('`opm render`', opm, opm)
    env = lab.clean_env(folder, CONTAINERS_REGISTRIES_CONF=conf)
    for what, more in (('all packages and channels', []), ('the bundles of a package', ['--package', 'operator-010'])):
        command = [args.airlock, 'catalog', 'list', NAME, *more]
        row(f'`catalog list`, {what}', lab.measured(command, env=env, log=log), opm)
    for what, isc in sets:
        for turn in ('empty cache', 'again'):
            own = os.path.join(folder, os.path.basename(isc)[:-5])
            os.makedirs(own, exist_ok=True)
            env = lab.clean_env(own, CONTAINERS_REGISTRIES_CONF=conf)
            command = [args.airlock, 'plan', '-c', isc, '-o', 'json']
            row(f'plan, {what}, {turn}', lab.measured(command, env=env, log=log), opm)
            with open(log) as f:
                said = [line.strip() for line in f if line.startswith(('planned', 'warning', 'error'))]
            print('\n'.join(said[:5]), file=sys.stderr)


def row(what, one, base):
    print(f'| {what} | {one.wall:.1f} s | {one.cpu:.1f} s | {one.rss / lab.MIB:.0f} MiB | {one.wall / base.wall:.2f}, {one.rss / base.rss:.2f} |', flush=True)


if __name__ == '__main__':
    main()
