#!/usr/bin/env python3
"""kill -9 at random moments of both directions; every rerun must end as a run that nothing disturbed. Prints Markdown.

What is carried: an image set of the world (scale small) and one image with layers of 96 MiB and 40 MiB, so that both many small blobs and
the middle of a large one are hit. Judged for registry -> archive: the archive's files are byte-identical, nothing unfinished is left, the
rerun fetches no blob that the journal had as done, and of each other blob at most 16 MiB that lay on the disk already. For archive -> registry: the target holds exactly the same, every byte hashed.
"""
import argparse, datetime, http.client, json, os, random, re, shutil, subprocess, sys, tarfile, time
import lab

REFETCH = 16 * lab.MIB
HOME = 'home'
BIG = 'quay.io/soak/big'
BLOB = re.compile(r'/blobs/(sha256:[0-9a-f]{64})$')


class Soak:
    def __init__(self, a, work, upstream, log):
        self.a, self.work, self.upstream, self.log = a, work, upstream, log
        self.random = random.Random(a.seed)
        self.problems, self.marks = [], 0

    def env(self, home):
        return lab.clean_env(os.path.join(self.work, home), CONTAINERS_REGISTRIES_CONF=os.path.join(self.work, 'registries.conf'), SOURCE_DATE_EPOCH='1700000000')

    def command(self, *arguments):
        return [self.a.airlock, 'mirror', '-c', os.path.join(self.work, 'isc.yaml'), *arguments]

    def run(self, home, *arguments):
        """To the end; gives the seconds it took."""
        log, start = os.path.join(self.work, 'airlock.log'), time.monotonic()
        with open(log, 'w') as out:
            ended = subprocess.run(self.command(*arguments), env=self.env(home), cwd=self.work, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=600)
        if ended.returncode:
            raise Failed(f'exit {ended.returncode}: {open(log).read()[-1500:]}')
        return time.monotonic() - start

    def kill(self, home, after, *arguments):
        """Kills after so many seconds; False when the program was quicker."""
        with open(os.devnull, 'w') as out:
            child = subprocess.Popen(self.command(*arguments), env=self.env(home), cwd=self.work, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            time.sleep(after)
            early = child.poll() is None
            lab.kill(child)
        return early

    def fetched(self, since):
        """{digest: bytes} of blobs that the upstream sent since an offset of its log, and the offset now. Waits until the log has a
        request that is made after all of them, and a second more for those that the registry is slower with."""
        self.marks += 1
        mark, end = f'soak/mark-{self.marks}', time.monotonic() + 120
        asked = http.client.HTTPConnection(self.upstream, timeout=120)
        asked.request('GET', f'/v2/{mark}/tags/list')
        asked.getresponse().read()
        asked.close()
        while True:
            with open(self.log) as f:
                f.seek(since)
                if f'/v2/{mark}/tags/list' in f.read():
                    break
            if time.monotonic() > end:
                raise Failed(f'the log of the upstream never had {mark}')
            time.sleep(0.05)
        time.sleep(1)
        sent = {}
        with open(self.log) as f:
            f.seek(since)
            for line in f:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                found = BLOB.search(entry.get('http.request.uri', ''))
                if found and entry.get('http.request.method') == 'GET' and 'http.response.written' in entry:
                    sent[found[1]] = sent.get(found[1], 0) + entry['http.response.written']
            return sent, f.tell()


class Failed(Exception):
    pass


def files(archive):
    return {f: lab.file_digest(os.path.join(archive, f)) for f in sorted(os.listdir(archive)) if f.endswith('.tar')}


def unfinished(archive):
    return [f for f in os.listdir(archive) if f.endswith('.partial') or f == '.airlock-journal']


def left_behind(archive):
    """What a killed run left (docs/archive-format.md, "While writing"): digests that its journal has as done, and {digest: bytes of it that were
    written without a gap}."""
    journal, part = os.path.join(archive, '.airlock-journal'), os.path.join(archive, '.mirror_000001.tar.partial')
    if not os.path.exists(journal) or not os.path.exists(part):
        return set(), {}
    entries = []
    try:
        with tarfile.open(part) as tar:
            for member in tar:
                if member.name == 'airlock/table':
                    for line in tar.extractfile(member).read().decode().splitlines():
                        if line.startswith('entry '):
                            _, _, offset, size, _, name = line.split(' ', 5)
                            path = name.split('/')
                            entries.append((f'{path[-4]}:{path[-2]}' if path[-1] == 'data' else None, int(offset), int(size)))
                    break
    except (tarfile.TarError, OSError):
        return set(), {}
    done, written = set(), {}
    for line in open(journal, errors='replace').read().split('\n')[:-1]:
        words = line.split(' ')
        if words[0] == 'done' and len(words) == 2 and words[1].isdigit() and int(words[1]) < len(entries):
            done.add(entries[int(words[1])][0])
    with open(part, 'rb') as f:
        for digest, offset, size in entries:
            if digest:
                # The paths of blobs are short: one header.
                start = offset + 512
                try:
                    written[digest] = max(0, min(size, os.lseek(f.fileno(), start, os.SEEK_HOLE) - start))
                except OSError:
                    written[digest] = 0
    return done - {None}, written


def outward(s):
    """registry -> archive. Gives (kills that hit, a line of facts)."""
    whole = fresh(os.path.join(s.work, 'whole'))
    seconds = s.run(fresh_home(s), 'file://' + whole)
    wanted, sizes = files(whole), {}
    _, mark = s.fetched(0)
    hits, before, kept, most = 0, 0, 0, 0
    for i in range(s.a.kills):
        archive, after = fresh(os.path.join(s.work, 'archive')), s.random.uniform(0, seconds * 1.02)
        early = s.kill(fresh_home(s), after, 'file://' + archive)
        hits += early
        if files(archive) and not unfinished(archive):
            # Sealed before the kill: a rerun would begin the next archive of the history, so this one is judged as it is.
            if files(archive) != wanted:
                s.problems.append(f'out, kill {i + 1} after {after:.3f} s: the sealed archive differs')
            _, mark = s.fetched(mark)
            continue
        before += 1
        done, written = left_behind(archive)
        kept += len(done)
        _, mark = s.fetched(mark)
        try:
            s.run(HOME, 'file://' + archive)
        except Failed as e:
            s.problems.append(f'out, kill {i + 1} after {after:.3f} s: {e}')
            continue
        second, mark = s.fetched(mark)
        if files(archive) != wanted:
            s.problems.append(f'out, kill {i + 1} after {after:.3f} s: the archive differs')
        if unfinished(archive):
            s.problems.append(f'out, kill {i + 1} after {after:.3f} s: left over: {unfinished(archive)}')
        again = sorted(done & set(second))
        if again:
            s.problems.append(f'out, kill {i + 1} after {after:.3f} s: {len(again)} blobs fetched although journaled, such as {again[0]}')
        for digest, count in second.items():
            size = sizes.setdefault(digest, os.path.getsize(lab.blob_path(s.a.storage, digest)))
            twice = count - (size - written.get(digest, 0))
            most = max(most, twice)
            if twice > REFETCH:
                s.problems.append(f'out, kill {i + 1} after {after:.3f} s: {twice / lab.MIB:.1f} MiB of {digest} fetched although they were on the disk')
    return hits, f'whole run {seconds:.2f} s; {before} kills before sealing; {kept} blobs in all found done in journals; at most {max(most, 0) / lab.MIB:.1f} MiB of one blob fetched twice'


def inward(s):
    """archive -> registry."""
    archive = os.path.join(s.work, 'whole')

    def load(storage, home, act):
        with lab.registry(storage, s.work) as (target, _):
            return act(home, target)
    arguments = lambda target: ('--from', 'file://' + archive, '--dest-tls-verify=false', 'docker://' + target)
    storage = fresh(os.path.join(s.work, 'target'))
    # The receipt of the first full check lies beside the archive; the seconds of a run with it are those that are hit.
    load(storage, fresh_home(s), lambda home, t: s.run(home, *arguments(t)))
    wanted = lab.held(storage)
    storage = fresh(storage)
    seconds = load(storage, fresh_home(s), lambda home, t: s.run(home, *arguments(t)))
    hits = 0
    for i in range(s.a.kills):
        storage, after = fresh(storage), s.random.uniform(0, seconds * 1.02)

        def act(home, target):
            early = s.kill(home, after, *arguments(target))
            s.run(home, *arguments(target))
            return early
        try:
            hits += load(storage, fresh_home(s), act)
        except Failed as e:
            s.problems.append(f'in, kill {i + 1} after {after:.3f} s: {e}')
            continue
        have = lab.held(storage)
        if have != wanted:
            differs = sorted(set(have.items()) ^ set(wanted.items()))
            s.problems.append(f'in, kill {i + 1} after {after:.3f} s: the target differs in {len(differs)} places, such as {differs[0]}')
    return hits, f'whole run {seconds:.2f} s; {len(wanted)} links and blobs compared each time'


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def fresh_home(s):
    fresh(os.path.join(s.work, HOME))
    return HOME


def upstream_storage(root, work):
    """The world's storage by links, with the large image beside it."""
    storage = fresh(os.path.join(work, 'upstream'))
    lab.put_image(storage, BIG, 'v1', [96 * lab.MIB, 40 * lab.MIB], 'soak')
    subprocess.run(['cp', '-rl', os.path.join(root, 'storage', 'docker'), storage], check=True)
    return storage


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--airlock', default=os.path.join(lab.ROOT, 'target/debug/airlock'))
    p.add_argument('--work', default=os.path.join(lab.ROOT, 'target/bench'))
    p.add_argument('--kills', type=int, default=100, help='in each direction')
    p.add_argument('--set', default='add-10-ai-stack', help='image set of the world to carry with the large image')
    p.add_argument('--seed', type=int, default=1, help='of the random moments')
    a = p.parse_args()
    a.airlock = os.path.abspath(a.airlock)
    if not os.path.exists(a.airlock):
        sys.exit(f'{a.airlock} is not there; build it first')
    base = os.path.abspath(a.work)
    os.makedirs(base, exist_ok=True)
    root, work = lab.world('small', base), fresh(os.path.join(base, 'soak'))
    a.storage = upstream_storage(root, work)
    expected = json.load(open(os.path.join(root, 'expected', a.set + '.json')))
    references = [image['ref'] for image in expected['rules'][expected['primary']]['images']] + [BIG + ':v1']
    lab.image_set(os.path.join(work, 'isc.yaml'), references)
    now = datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d %H:%M UTC')
    print(f'{now}; {lab.machine()}; {len(references)} images ({a.set} and one of 136 MiB), seed {a.seed}.\n', flush=True)
    print('| direction | kills | of these while it ran | reruns unlike an undisturbed run | |\n|---|---|---|---|---|')
    with lab.registry(a.storage, work, readonly=True, log='info') as (upstream, log):
        lab.rewrite(os.path.join(work, 'registries.conf'), upstream, sorted({r.split('/')[0] for r in references}))
        s = Soak(a, work, upstream, log)
        for title, one in (('registry -> archive', outward), ('archive -> registry', inward)):
            before = len(s.problems)
            hits, facts = one(s)
            print(f'| {title} | {a.kills} | {hits} | {len(s.problems) - before} | {facts} |', flush=True)
    for problem in s.problems:
        print(f'\n- {problem}')
    shutil.rmtree(work)
    sys.exit(1 if s.problems else 0)


if __name__ == '__main__':
    main()
