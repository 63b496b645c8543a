"""Reads an archive directory as docs/archive-format.md describes it, and nothing else. Prints what it holds."""
import glob, hashlib, os, subprocess, sys

CHUNK = 4194304
directory = sys.argv[1]
parts = [open(p, "rb") for p in sorted(glob.glob(os.path.join(directory, "mirror_*.tar")))]
blake3 = lambda b: subprocess.run(["b3sum", "--no-names"], input=b, capture_output=True, check=True).stdout.decode().strip()
sha = lambda b: "sha256:" + hashlib.sha256(b).hexdigest()


def at(part, offset, size):
    parts[part].seek(offset)
    data = parts[part].read(size)
    assert len(data) == size, "short read"
    return data


def number(field):
    return int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field.rstrip(b"\0 ") or b"0", 8)


def header(part, offset):
    """(path, offset of the data, size) of the entry at an offset."""
    path = None
    while True:
        h = at(part, offset, 512)
        assert int(h[148:154], 8) == sum(h[:148]) + 8 * 32 + sum(h[156:]), "checksum"
        size = number(h[124:136])
        if h[156:157] == b"x":
            record = at(part, offset + 512, size).decode()
            path = record.split("path=", 1)[1][:-1]
            offset += 512 + (size + 511) // 512 * 512
            continue
        name, prefix = (f.rstrip(b"\0").decode() for f in (h[:100], h[345:500]))
        return path or (prefix + "/" + name if prefix else name), offset + 512, size


own = [at(i, 512, header(i, 0)[2]).decode().split("\n") for i in range(len(parts))]
table_path, data, size = header(0, 1024)
table = at(0, data, size)
assert table_path == "airlock/table"
for i, lines in enumerate(own):
    assert lines[1] == "set " + sha(table) and lines[2] == f"part {i + 1:06} of {len(parts):06}"
lines = [line.split(" ") for line in table.decode().splitlines()]
lengths = [int(f[2]) for f in lines if f[0] == "part"]
entries = [f for f in lines if f[0] == "entry"]

last = len(parts) - 1
path, data, size = header(last, lengths[last])
seal = at(last, data, size).decode()
assert path == "airlock/seal"
body, identity = seal[: seal.rindex("identity ")], seal.split()[-1]
assert sha(body.encode()) == identity
voids, part = set(), -1
for line in body.splitlines():
    if line.startswith("void "):
        voids = {int(n) for n in line.split()[1:]}
    elif line.startswith("part "):
        part, offset = part + 1, 0
    elif len(line) == 64:
        chunk = at(part, offset, min(CHUNK, lengths[part] - offset))
        assert blake3(chunk) == line, "chunk"
        offset += CHUNK

print("identity", identity)
print("void", sum(entries[v][4] == "-" for v in voids), "blobs")
for n, (_, part, offset, size, content, path) in enumerate(entries):
    found, data, length = header(int(part) - 1, int(offset))
    if n in voids:
        assert found.startswith("airlock/void/"), found
        continue
    assert (found, length) == (path, int(size)), (found, path)
    raw = at(int(part) - 1, data, length)
    if content == "-":
        assert sha(raw) == "sha256:" + path.split("/")[-2]
    elif content.startswith("="):
        assert raw.decode() == content[1:]
        if path.endswith("/current/link"):
            repository, tag = path[len("docker/registry/v2/repositories/"):-len("/current/link")].split("/_manifests/tags/")
            print("tag", f"{repository}:{tag}", content[1:])
    elif content != "self":
        assert sha(raw) == content
