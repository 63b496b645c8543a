//! Which files an image has: whiteouts, links, compressions, what is fetched, and tar files that lie.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::process::Command;
use std::sync::{Arc, Mutex};

use airlock_client::{Client, Options, RegistriesConf, RegistrySource};
use airlock_content::image::{config, instance};
use airlock_content::layers::{self, Collect, File, Image, Limits, Wanted};
use airlock_oci::{Error, ErrorKind, Source};
use airlock_testkit::fixture::Blob;
use airlock_testkit::tools;
use airlock_testkit::world::{Faults, Scale, Serving, World};
use support::{Memory, directory, file, gzip, hard_link, header, image, layer, name, padded, seal, symlink, tar};

const MOST: u64 = 1 << 20;

fn tree(path: &str) -> Wanted {
    Wanted::new().tree(path).unwrap()
}

fn one(path: &str) -> Wanted {
    Wanted::new().file(path).unwrap()
}

/// The wanted files, and the numbers of the layers that were fetched, from the top.
async fn read_with(
    layers: Vec<Blob>,
    wanted: &Wanted,
    limits: Limits,
) -> Result<(BTreeMap<String, String>, Vec<usize>), Error> {
    let order: Vec<_> = layers.iter().map(|l| l.descriptor.digest.clone()).collect();
    let mut source = Memory::new();
    source.add("x", &image(layers));
    let name = name("x");
    let manifest = source.manifest(&name).await.unwrap().value;
    let image = Image { source: &source, name: &name, manifest: &manifest, near: None };
    let files = layers::files(image, wanted, limits, Collect::new(MOST)).await?.into_files();
    let files = files.into_iter().map(|(p, b)| (p, String::from_utf8(b).unwrap())).collect();
    let fetched = source.fetched().iter().map(|d| order.iter().position(|o| o == d).unwrap()).collect();
    Ok((files, fetched))
}

async fn read(layers: Vec<Blob>, wanted: &Wanted) -> Result<(BTreeMap<String, String>, Vec<usize>), Error> {
    read_with(layers, wanted, Limits::default()).await
}

async fn files(layers: Vec<Blob>, wanted: &Wanted) -> BTreeMap<String, String> {
    read(layers, wanted).await.unwrap().0
}

async fn fails(layers: Vec<Blob>, wanted: &Wanted) -> Error {
    read(layers, wanted).await.unwrap_err()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(p, c)| ((*p).to_owned(), (*c).to_owned())).collect()
}

fn plain(items: &[support::Item<'_>]) -> Blob {
    layer(tar(items))
}

#[tokio::test]
async fn upper_layers_hide_what_lower_ones_have() {
    let bottom = || {
        plain(&[
            directory("d/"),
            file("d/kept", b"1"),
            file("d/replaced", b"1"),
            file("d/gone", b"1"),
            file("d/sub/a", b"1"),
            file("d/turned/a", b"1"),
            file("other", b"1"),
        ])
    };
    let top = plain(&[
        file("./d/replaced", b"2"),
        file("d/.wh.gone", b""),
        file("d/.wh.sub", b""),
        file("/d//turned", b"2"),
        file("d/sub/b", b"2"),
    ]);
    let expected = map(&[("d/kept", "1"), ("d/replaced", "2"), ("d/turned", "2"), ("d/sub/b", "2")]);
    assert_eq!(files(vec![bottom(), top], &tree("d")).await, expected);
    let opaque =
        plain(&[directory("d"), file("d/new", b"3"), file("d/.wh..wh..opq", b""), file("d/.wh..wh.plnk", b"")]);
    assert_eq!(files(vec![bottom(), opaque], &tree("/d/")).await, map(&[("d/new", "3")]));
    // A directory over a file hides the file, and only that; what the file hid stays hidden.
    let over = plain(&[directory("d/turned"), directory("d/kept")]);
    let middle = plain(&[file("d/turned", b"2")]);
    let found = files(vec![bottom(), middle, over], &tree("d")).await;
    assert!(!found.contains_key("d/kept") && !found.keys().any(|k| k.starts_with("d/turned")), "{found:?}");
}

#[tokio::test]
async fn no_more_layers_are_fetched_than_can_matter() {
    let layers = || {
        vec![
            plain(&[file("d/a", b"0"), file("f", b"0")]),
            plain(&[file("d/a", b"1"), file("g", b"1")]),
            plain(&[directory("d"), file("d/b", b"2"), file("f", b"2")]),
        ]
    };
    let fetched = async |wanted: Wanted| read(layers(), &wanted).await.unwrap().1;
    assert_eq!(fetched(one("f")).await, [2]);
    assert_eq!(fetched(one("g").file("f").unwrap()).await, [2, 1]);
    assert_eq!(fetched(one("absent")).await, [2, 1, 0]);
    assert_eq!(fetched(tree("d")).await, [2, 1, 0], "any layer may have more of a directory");
    assert_eq!(fetched(tree("d").until("f").unwrap()).await, [2]);
    assert_eq!(fetched(one("f/below")).await, [2], "below a file there is nothing");
    let mut gone = layers();
    gone.push(plain(&[file(".wh.d", b"")]));
    assert_eq!(read(gone, &tree("d")).await.unwrap(), (map(&[]), vec![3]));
    let mut opaque = layers();
    opaque.push(plain(&[file("x", b""), file(".wh..wh..opq", b"")]));
    assert_eq!(read(opaque, &one("f")).await.unwrap(), (map(&[]), vec![3]));
    assert_eq!(read(layers(), &Wanted::new()).await.unwrap().1, [0_usize; 0]);
}

#[tokio::test]
async fn links_lead_to_what_is_there() {
    let bottom = plain(&[
        file("data/x", b"x"),
        file("data/configs/p/c", b"c"),
        symlink("configs", "/data/./configs"),
        symlink("up", "data/../../../data"),
    ]);
    let top = plain(&[
        file("data/y", b"y"),
        hard_link("hard", "data/y"),
        hard_link("hard2", "./data/y"),
        symlink("soft", "data/x"),
        symlink("data/rel", "../data/x"),
        symlink("chain", "soft"),
        symlink("dangling", "nowhere"),
        file("data/configs/p/d", b"d"),
    ]);
    let layers = || vec![bottom.clone(), top.clone()];
    let want = ["hard", "hard2", "soft", "data/rel", "chain", "dangling"];
    let wanted = want.iter().fold(Wanted::new(), |w, p| w.file(p).unwrap());
    let expected = [("hard", "y"), ("hard2", "y"), ("soft", "x"), ("data/rel", "x"), ("chain", "x")];
    assert_eq!(files(layers(), &wanted).await, map(&expected));
    assert_eq!(files(layers(), &tree("configs")).await, map(&[("configs/p/c", "c"), ("configs/p/d", "d")]));
    assert_eq!(files(layers(), &one("up/x")).await, map(&[("up/x", "x")]), "`..` stops at the image's root");
    let all = files(layers(), &tree("/")).await;
    assert_eq!(all.len(), 4 + 5, "files and links to files, not what lies behind linked directories: {all:?}");
}

#[tokio::test]
async fn a_hard_link_keeps_what_it_was_made_from() {
    let bottom = plain(&[file("a", b"old"), hard_link("b", "a")]);
    let top = plain(&[file("a", b"new"), file("c", b"")]);
    assert_eq!(files(vec![bottom, top.clone()], &one("b")).await, map(&[("b", "old")]));
    let error = fails(vec![plain(&[hard_link("b", "zz")]), top], &one("b")).await;
    assert!(error.to_string().contains("zz") && error.kind() == ErrorKind::Content, "{error}");
}

#[tokio::test]
async fn links_in_a_circle_end() {
    for layers in [
        vec![plain(&[symlink("a", "b"), symlink("b", "a")])],
        vec![plain(&[symlink("a", "a/x")])],
        vec![plain(&[hard_link("a", "a")])],
    ] {
        let result = read(layers, &one("a")).await;
        assert!(result.as_ref().is_err_and(|e| e.to_string().contains("links follow one another")), "{result:?}");
    }
}

#[tokio::test]
async fn many_links_are_followed_and_too_many_refused() {
    let names: Vec<String> = (0..150).map(|n| format!("d/link{n}")).collect();
    let links = |count: usize| {
        let mut items = vec![file("f", b"content")];
        items.extend(names[..count].iter().map(|name| hard_link(name, "f")));
        vec![plain(&items)]
    };
    assert_eq!(files(links(50), &tree("d")).await.len(), 50);
    let error = fails(links(150), &tree("d")).await;
    assert!(error.to_string().contains("more than 100 times"), "{error}");
}

#[tokio::test]
async fn compressions_are_told_by_their_bytes() {
    let bytes = tar(&[file("f", &b"content ".repeat(5000))]);
    let zstd = zstd::encode_all(&bytes[..], 3).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &zstd].concat();
    let two = [gzip(&bytes[..700]), gzip(&bytes[700..])].concat();
    for packed in [bytes.clone(), gzip(&bytes), zstd, skippable, two] {
        assert_eq!(files(vec![layer(packed)], &one("f")).await["f"].len(), 40_000);
    }
    for (bytes, says) in [(&b"BZh91AY"[..], "bzip2"), (b"\xfd7zXZ\0", "xz"), (&[7; 2000], "checksum")] {
        let error = fails(vec![layer(bytes.to_vec())], &one("f")).await;
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn what_came_is_what_the_manifest_says_or_an_error() {
    let good = plain(&[file("f", b"content")]);
    let mut wrong = good.bytes.to_vec();
    wrong[520] ^= 1;
    let damaged = vec![0x55; good.bytes.len()];
    let cases = [
        (wrong, "have the digest"),
        (damaged, "have the digest"),
        (good.bytes[..600].to_vec(), "only 600 bytes"),
        ([&good.bytes[..], b"x"].concat(), "more bytes"),
    ];
    for (bytes, says) in cases {
        let mut source = Memory::new();
        source.add("x", &image(vec![good.clone()]));
        source.replace(&good.descriptor.digest, bytes);
        let (name, manifest) = (name("x"), source.manifest(&name("x")).await.unwrap().value);
        let image = Image { source: &source, name: &name, manifest: &manifest, near: None };
        let result = layers::files(image, &one("f"), Limits::default(), Collect::new(MOST)).await;
        let error = result.unwrap_err();
        assert!(error.to_string().contains(says) && error.kind() == ErrorKind::Content, "{says}: {error}");
    }
}

#[tokio::test]
async fn bombs_are_put_out() {
    let zeros = vec![0_u8; 8 << 20];
    let small = Limits { file: 1 << 20, unpacked: 4 << 20 };
    let packed = layer(gzip(&tar(&[file("other", &zeros), file("f", b"")])));
    let error = read_with(vec![packed], &one("f"), small).await.unwrap_err();
    assert!(error.to_string().contains("unpack to more than 4194304 bytes"), "{error}");
    let many: Vec<Blob> = (0..5).map(|n| layer(gzip(&tar(&[file(&format!("o{n}"), &zeros[..1 << 20])])))).collect();
    assert!(read_with(many, &one("f"), small).await.is_err(), "all layers count together");
    let error = read_with(vec![plain(&[file("f", &zeros[..2 << 20])])], &one("f"), small).await.unwrap_err();
    assert!(error.to_string().contains("at most 1048576"), "{error}");
    // A frame that claims a window of 2 GiB.
    let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8][..], &[0; 64]].concat();
    let error = fails(vec![layer(frame)], &one("f")).await;
    assert!(error.to_string().contains("memory"), "{error}");
    let record = format!("{} comment={}\n", 4 << 20, "x".repeat((4 << 20) - 17));
    let pax = [&header(b"pax", b'x', record.len() as u64, b"")[..], record.as_bytes()].concat();
    let error = fails(vec![layer(gzip(&pax))], &one("f")).await;
    assert!(error.to_string().contains("too large"), "{error}");
}

#[tokio::test]
async fn a_tar_that_lies_is_refused() {
    let entry = |kind, size, data: &[u8]| [&header(b"f", kind, size, b"")[..], &padded(data)].concat();
    let pax = |record: &str| [&header(b"p", b'x', record.len() as u64, b"")[..], &padded(record.as_bytes())].concat();
    let global =
        |record: &str| [&header(b"g", b'g', record.len() as u64, b"")[..], &padded(record.as_bytes())].concat();
    let gnu = |kind, text: &str| {
        [&header(b"././@LongLink", kind, text.len() as u64, b"")[..], &padded(text.as_bytes())].concat()
    };
    let good = entry(b'0', 3, b"abc");
    let mut negative = header(b"f", b'0', 0, b"");
    negative[124..136].fill(0xff);
    seal(&mut negative);
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    let mut sign = header(b"f", b'0', 0, b"");
    sign[124..136].copy_from_slice(b"-0000000001\0");
    seal(&mut sign);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("longer than the tar", entry(b'0', 1 << 19, b"abc"), "ends inside"),
        ("cut in a header", good[..300].to_vec(), "ends inside"),
        ("negative size", negative.to_vec(), "size"),
        ("a sign", sign.to_vec(), "size"),
        ("damage", flipped, "checksum"),
        ("no entry after its extension", pax("10 a=bcde\n"), "ends inside"),
        ("end after an extension", [pax("10 a=bcde\n"), vec![0; 1024]].concat(), "without its entry"),
        ("record length", [pax("99 path=x\n"), good.clone()].concat(), "PAX record"),
        ("record size", [pax("11 size=-1\n"), good.clone()].concat(), "PAX size"),
        ("two PAX headers", [pax("9 path=a\n"), pax("9 path=f\n"), good.clone()].concat(), "two PAX"),
        ("two names", [gnu(b'L', "a"), pax("9 path=f\n"), good.clone()].concat(), "GNU and a PAX"),
        ("global name", [global("9 path=f\n"), good.clone()].concat(), "global"),
        ("lone zero block", [vec![0; 512], good.clone()].concat(), "zero block"),
        ("climbing", tar(&[file("../f", b"")]), "`..`"),
        ("climbing inside", tar(&[file("a/../f", b"")]), "`..`"),
        ("climbing link", tar(&[hard_link("f", "../../etc/shadow")]), "climbs out"),
        ("twice", tar(&[file("f", b"1"), file("./f", b"2")]), "twice"),
        ("whiteout of nothing", tar(&[file("d/.wh...", b"")]), "names nothing"),
        ("sparse", entry(b'S', 3, b"abc"), "sparse"),
        ("sparse by PAX", [pax("22 GNU.sparse.major=1\n"), good.clone()].concat(), "sparse"),
        ("name not text", [&header(b"\xff\xfe", b'0', 0, b"")[..], &[0; 1024]].concat(), "UTF-8"),
    ];
    for (case, bytes, says) in cases {
        for packed in [bytes.clone(), gzip(&bytes)] {
            let result = read(vec![layer(packed)], &tree("/")).await;
            let error = result.map(|found| panic!("{case}: {found:?}")).unwrap_err();
            assert!(error.to_string().contains(says), "{case}: {error}");
        }
    }
}

#[tokio::test]
async fn odd_but_honest_tars_are_read() {
    let pax = |record: &str| [&header(b"p", b'x', record.len() as u64, b"")[..], &padded(record.as_bytes())].concat();
    let entry =
        |name: &[u8], kind, data: &[u8]| [&header(name, kind, data.len() as u64, b"")[..], &padded(data)].concat();
    let cases = [
        ("no end blocks", entry(b"f", b'0', b"abc")),
        ("old", entry(b"f", 0, b"abc")),
        ("contiguous", entry(b"f", b'7', b"abc")),
        ("PAX size", [pax("9 size=3\n"), header(b"f", b'0', 0, b"").to_vec(), padded(b"abc")].concat()),
        ("PAX name", [pax("9 path=f\n"), entry(b"cut", b'0', b"abc")].concat()),
        ("PAX name taken back", [pax("8 path=\n"), entry(b"f", b'0', b"abc")].concat()),
        // A directory has no data whatever it claims; an unknown kind has.
        ("directory with a size", [&header(b"d", b'5', 700, b"")[..], &entry(b"f", b'0', b"abc")].concat()),
        ("unknown kind", [entry(b"v", b'Z', &[1; 700]), entry(b"f", b'0', b"abc")].concat()),
        (
            "unwanted twice",
            [tar(&[file("x", b"1")])[..1024].to_vec(), tar(&[file("x", b"2"), file("f", b"abc")])].concat(),
        ),
    ];
    for (case, bytes) in cases {
        assert_eq!(files(vec![layer(bytes)], &one("f")).await, map(&[("f", "abc")]), "{case}");
    }
}

#[tokio::test]
async fn what_real_tools_write_is_read() {
    let long = format!("{}/{}/f", "d".repeat(120), "e".repeat(120));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(&long);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "long").unwrap();
    std::fs::write(folder.path().join("short"), "short").unwrap();
    std::fs::hard_link(folder.path().join("short"), folder.path().join("same")).unwrap();
    std::os::unix::fs::symlink(&long, folder.path().join("soft")).unwrap();
    let expected = map(&[(&long, "long"), ("short", "short"), ("same", "short"), ("soft", "long")]);
    for tool in ["tar", "bsdtar", "python3"] {
        let Some(program) = tools::find(tool) else { continue };
        for format in ["gnu", "pax"] {
            let mut command = Command::new(&program);
            command.current_dir(folder.path());
            let script = format!(
                "import sys,tarfile;t=tarfile.open(fileobj=sys.stdout.buffer,mode='w|',format=tarfile.{}_FORMAT);t.add('.')\nt.close()",
                format.to_uppercase()
            );
            match tool {
                "python3" => command.args(["-c", &script]),
                "bsdtar" => {
                    command.args(["-cf", "-", "--format", if format == "gnu" { "gnutar" } else { format }, "."])
                }
                _ => command.args(["-cf", "-", "--format", format, "."]),
            };
            let made = command.output().unwrap();
            assert!(made.status.success(), "{tool} {format}");
            assert_eq!(files(vec![layer(made.stdout)], &tree("")).await, expected, "{tool} {format}");
        }
    }
}

#[tokio::test]
async fn catalogs_of_the_world_give_their_files_one_at_a_time() {
    let Some(world) = World::get(Scale::Small) else { return };
    let Some(upstream) = world.start(Serving::Scripted(Faults::default())) else { return };
    let options = Options {
        registries_conf: RegistriesConf::File { path: upstream.registries_conf(), dropins: None },
        anonymous: true,
        ..Options::default()
    };
    let source = RegistrySource::new(Client::new(options).unwrap());
    let name = "registry.redhat.io/redhat/redhat-operator-index:v4.18".parse().unwrap();
    let found = source.manifest(&name).await.unwrap();
    let manifest = instance(&source, &name, &found, None).await.unwrap();
    let config = config(&source, &name, &manifest, Some(&found.place)).await.unwrap();
    let folder = &config.labels["operators.operatorframework.io.index.configs.v1"];
    let image = Image { source: &source, name: &name, manifest: &manifest, near: Some(&found.place) };
    let (count, bytes) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let (files_seen, bytes_seen) = (Arc::clone(&count), Arc::clone(&bytes));
    let visitor = move |file: &File<'_>, content: &mut dyn Read| {
        assert!(file.path.starts_with("configs/"), "{}", file.path);
        *files_seen.lock().unwrap() += 1;
        // Each is a stream, as whoever parses it wants.
        let read = std::io::copy(content, &mut std::io::sink()).map_err(|e| layers::broken(e, "read"))?;
        assert_eq!(read, file.size);
        *bytes_seen.lock().unwrap() += read;
        Ok(())
    };
    drop(layers::files(image, &tree(folder), Limits::default(), visitor).await.unwrap());
    let (count, bytes) = (*count.lock().unwrap(), *bytes.lock().unwrap());
    assert!(count > 5 && bytes > 100_000, "{count} files of {bytes} bytes");
}

#[tokio::test]
async fn a_visitor_may_leave_a_file_unread_and_may_stop() {
    let items = [file("d/a", &[b'a'; 3000]), file("d/b", b"b"), file("d/c", b"c")];
    let mut source = Memory::new();
    source.add("x", &image(vec![plain(&items)]));
    let (name, manifest) = (name("x"), source.manifest(&name("x")).await.unwrap().value);
    let image = Image { source: &source, name: &name, manifest: &manifest, near: None };
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = std::sync::Arc::clone(&seen);
    let visitor = move |file: &File<'_>, content: &mut dyn Read| {
        note.lock().unwrap().push((file.path.to_owned(), file.size, file.mode));
        if file.path == "d/c" {
            return Err(Error::new(ErrorKind::Invalid, "look at a file", "it is not liked"));
        }
        let mut first = [0; 1];
        content.read_exact(&mut first).map_err(|e| layers::broken(e, "read"))?;
        Ok(())
    };
    let result = layers::files(image, &tree("d"), Limits::default(), visitor).await;
    assert!(result.is_err_and(|e| e.to_string().contains("not liked")));
    let sizes: Vec<u64> = seen.lock().unwrap().iter().map(|(_, size, _)| *size).collect();
    assert_eq!(sizes, [3000, 1, 1]);
}

#[tokio::test]
async fn the_memory_of_names_is_bounded() {
    // Names of 100 bytes, enough of them for the limit; each once, in one layer.
    let count = airlock_content::layers::tree::MAX_REMEMBERED_BYTES / 160 + 1;
    let mut bytes = Vec::with_capacity(count * 512);
    for number in 0..count {
        bytes.extend(header(format!("{number:0>97}").as_bytes(), b'0', 0, b""));
    }
    let packed = layer(gzip(&bytes));
    let error = fails(vec![packed.clone()], &tree("/")).await;
    assert!(error.to_string().contains("names of its files"), "{error}");
    assert_eq!(files(vec![packed], &one("f")).await, map(&[]), "names that do not matter are not remembered");
}
