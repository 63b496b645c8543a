"""Reads an archive by docs/archive-format.md alone: `reader.py DIR` prints what it holds as JSON, or says what is wrong and exits with 1."""
import hashlib, json, os, sys

sha = lambda data: 'sha256:' + hashlib.sha256(data).hexdigest()


def header(block):
    """(path, size, type) of a tar header."""
    text = lambda a, b: block[a:b].split(b'\0')[0].decode()
    size = int.from_bytes(block[125:136], 'big') if block[124] == 0x80 else int(text(124, 136).strip() or '0', 8)
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    assert int(text(148, 156).strip(' '), 8) == total, 'a header does not add up'
    return '/'.join(p for p in (text(345, 500), text(0, 100)) if p), size, chr(block[156])


def entry_at(f, offset):
    """(path, size, where the data begins) of the slot at an offset."""
    f.seek(offset)
    path, size, kind = header(f.read(512))
    if kind != 'x':
        return path, size, offset + 512
    record = f.read(-(-size // 512) * 512)[:size].decode()
    _, size, _ = header(f.read(512))
    return record.split(' path=', 1)[1].rstrip('\n'), size, f.tell()


def read(folder):
    names = sorted(n for n in os.listdir(folder) if n.startswith('mirror_') and n.endswith('.tar'))
    parts = [open(os.path.join(folder, n), 'rb') for n in names]
    assert parts, 'there is no part'
    path, size, start = entry_at(parts[0], 0)
    parts[0].seek(start)
    first = parts[0].read(size).decode().split('\n')
    assert (path, first[0]) == ('airlock/part', 'airlock-part 1'), 'not an archive of this version'
    assert int(first[2].split()[3]) == len(parts), f'{len(parts)} parts instead of {first[2]}'
    path, size, start = entry_at(parts[0], start + -(-size // 512) * 512)
    parts[0].seek(start)
    table = parts[0].read(size)
    assert path == 'airlock/table' and 'set ' + sha(table) == first[1], 'the table is not that of the set'
    rows = [line.split(' ', 5) for line in table.decode().splitlines()]
    entries = [(int(r[1]), int(r[2]), int(r[3]), r[4], r[5]) for r in rows if r[0] == 'entry']
    lengths = {int(r[1]): int(r[2]) for r in rows if r[0] == 'part'}
    path, size, start = entry_at(parts[-1], lengths[len(parts)])
    parts[-1].seek(start)
    seal = parts[-1].read(size)
    body, identity = seal.decode().rsplit('identity ', 1)
    assert path == 'airlock/seal' and sha(body.encode()) == identity.strip(), 'the seal is broken'
    assert body.splitlines()[1] == first[1], 'the seal is of another set'
    assert parts[-1].read(-size % 512 + 1024).strip(b'\0') == b'' and not parts[-1].read(1), 'something follows the seal'
    voids, number, chunk = set(), 0, 0
    for line in body.splitlines()[1:]:
        words = line.split(' ')
        if words[0] == 'void':
            voids = {int(w) for w in words[1:]}
        elif words[0] == 'part':
            number, chunk = int(words[1]), 0
        elif len(words) == 1:
            at, end = chunk << 22, lengths[number]
            parts[number - 1].seek(at)
            assert hashlib.sha256(parts[number - 1].read(min(1 << 22, end - at))).hexdigest() == line, f'part {number}, chunk {chunk} was altered'
            chunk += 1
    links, blobs = {}, {}
    for index, (part, offset, length, content, path) in enumerate(entries):
        found, size, start = entry_at(parts[part - 1], offset)
        if index in voids:
            assert found.startswith('airlock/void/'), f'{found} is not void'
            continue
        assert (found, size) == (path, length), f'{found} of {size} bytes instead of {path} of {length}'
        parts[part - 1].seek(start)
        data = parts[part - 1].read(size)
        if content.startswith('='):
            assert data.decode() == content[1:], f'{path} is another link'
            links[path] = content[1:]
        elif content != 'self':
            wanted = content if content != '-' else ':'.join((path.split('/')[-4], path.split('/')[-2]))
            blobs[path] = f"{wanted.split(':')[0]}:{hashlib.new(wanted.split(':')[0], data).hexdigest()}"
            assert blobs[path] == wanted, f'{path} does not match its digest'
    return {'identity': identity.strip(), 'parts': len(parts), 'links': links, 'blobs': sorted(blobs), 'void': len(voids)}


try:
    print(json.dumps(read(sys.argv[1])))
except AssertionError as wrong:
    sys.exit(f'reader: {wrong}')
