//! The promise: damage to an archive is found and named before anything is pushed, whichever byte it is, and a damaged journal
//! costs time and nothing else.

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::contents::Contents;
use airlock_testkit::target::Target;
use airlock_testkit::tools;
use airlock_testkit::world::{Faults, Scale, Serving, Upstream, World};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const SET: &str = "add-07-signed";
const PART: &str = "mirror_000001.tar";
/// Something is missing or altered.
const DAMAGED: i32 = 4;
/// Bytes of a tar block.
const BLOCK: u64 = 512;

/// An archive, the other side of the gap, and what judges it.
struct Gap {
    upstream: Upstream,
    binary: Binary,
    archive: PathBuf,
    isc: String,
}

/// An entry of a tar file, as GNU tar sees it.
struct Entry {
    path: String,
    size: u64,
    /// Offset of its header.
    offset: u64,
}

impl Gap {
    fn new() -> Option<Self> {
        let upstream = World::get(Scale::Small)?.start(Serving::DockerRegistry)?;
        let binary = Binary::new(AIRLOCK).envs(upstream.env());
        let archive = binary.folder().join("archive");
        let isc = upstream.isc(SET).display().to_string();
        let gap = Self { upstream, binary, archive, isc };
        gap.write(SET, &gap.archive).expect_code(0);
        Some(gap)
    }

    fn write(&self, set: &str, archive: &Path) -> Outcome {
        let isc = self.upstream.isc(set).display().to_string();
        self.binary.run(["mirror", "-c", &isc, &format!("file://{}", archive.display())])
    }

    fn verify(&self, archive: &Path) -> Outcome {
        self.binary.run(["archive", "verify", &archive.display().to_string()])
    }

    fn load(&self, archive: &Path, target: &Target) -> Outcome {
        let from = format!("file://{}", archive.display());
        let to = format!("docker://{}", target.address());
        self.binary.run(["mirror", "-c", &self.isc, "--from", &from, "--dest-tls-verify=false", &to])
    }

    /// Verification and loading both refuse, with `names` in their words, and nothing was pushed.
    #[track_caller]
    fn refuses(&self, archive: &Path, target: &Target, names: &[&str], what: &str) {
        for outcome in [self.verify(archive), self.load(archive, target)] {
            assert_eq!(outcome.code, Some(DAMAGED), "{what}\n{}\n{}", outcome.stdout, outcome.stderr);
            let said = outcome.stdout + &outcome.stderr;
            for name in names {
                assert!(said.contains(name), "{what}: `{name}` is not named in\n{said}");
            }
        }
        assert_eq!(target.contents(), Contents::default(), "{what}: something was pushed");
    }
}

/// The entries of a tar file by `tar tvR`, which says in which block each begins.
fn entries(tar: &Path, archive: &Path) -> Vec<Entry> {
    let listed = Command::new(tar).args(["--numeric-owner", "-tvRf"]).arg(archive).output().expect("run tar");
    assert!(listed.status.success());
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let entry = |line: &str| {
        let (block, rest) = line.strip_prefix("block ")?.split_once(": ")?;
        let words: Vec<_> = rest.split_whitespace().collect();
        let [_mode, _owner, size, _day, _hour, path] = words.as_slice() else { return None };
        Some(Entry { path: (*path).to_owned(), size: size.parse().ok()?, offset: block.parse::<u64>().ok()? * BLOCK })
    };
    text.lines().filter_map(entry).collect()
}

/// Flips one bit of a file.
fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("open the part");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read a byte of the part");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, offset).expect("write a byte of the part");
}

#[test]
fn one_flipped_bit_of_any_kind_of_byte_is_found() {
    let Some(tar) = tools::need("tar") else { return };
    let (Some(gap), Some(target)) = (Gap::new(), Target::docker_registry()) else { return };
    let part = gap.archive.join(PART);
    let entries = entries(&tar, &part);
    let find = |what: &str, wanted: &dyn Fn(&Entry) -> bool| {
        entries.iter().find(|entry| wanted(entry)).unwrap_or_else(|| panic!("the archive has no {what}"))
    };
    let is_blob = |entry: &Entry| entry.path.ends_with("/data");
    let expected = gap.upstream.expected(SET);
    let top = expected.images[0].digest.split_once(':').expect("a digest has a colon").1.to_owned();
    let blob =
        find("blob with padding", &|entry| is_blob(entry) && entry.size % BLOCK != 0 && !entry.path.contains(&top));
    let manifest = find("manifest", &|entry| is_blob(entry) && entry.path.contains(&top));
    let link = find("link", &|entry| entry.path.ends_with("/current/link"));
    let table = find("table", &|entry| entry.path == "airlock/table");
    let plan = find("plan", &|entry| entry.path == "airlock/plan.json");
    let first = find("part file", &|entry| entry.path == "airlock/part");
    let seal = find("seal", &|entry| entry.path == "airlock/seal");
    let data = |entry: &Entry| entry.offset + BLOCK;
    let length = fs::metadata(&part).expect("the part is there").len();
    for (what, offset) in [
        ("header of a blob", blob.offset + 3),
        ("mode in a header", blob.offset + 103),
        ("blob", data(blob) + blob.size / 2),
        ("padding", data(blob) + blob.size),
        ("manifest", data(manifest) + 10),
        ("header of a link", link.offset + 10),
        ("link", data(link) + link.size - 1),
        ("table", data(table) + table.size / 2),
        ("plan", data(plan) + plan.size / 2),
        ("part file", data(first) + 20),
        ("seal", data(seal) + seal.size / 2),
        ("identity in the seal", data(seal) + seal.size - 5),
        ("header of the seal", seal.offset + 2),
        ("end blocks", length - 100),
    ] {
        flip(&part, offset);
        gap.refuses(&gap.archive, &target, &[PART], what);
        flip(&part, offset);
    }
    gap.verify(&gap.archive).expect_code(0);
    gap.load(&gap.archive, &target).expect_code(0);
}

#[test]
fn a_truncated_a_missing_and_a_foreign_part_are_named() {
    let (Some(gap), Some(target)) = (Gap::new(), Target::docker_registry()) else { return };
    let part = gap.archive.join(PART);
    let whole = fs::read(&part).expect("read the part");
    for length in [whole.len() - 1, whole.len() - 1024, whole.len() / 2, 512, 0] {
        fs::write(&part, &whole[..length]).expect("truncate the part");
        gap.refuses(&gap.archive, &target, &[PART], &format!("cut to {length} bytes"));
    }
    fs::write(&part, &whole).expect("mend the part");

    let other = gap.binary.folder().join("other");
    gap.write("add-01-tags", &other).expect_code(0);
    let second = gap.archive.join("mirror_000002.tar");
    fs::copy(other.join(PART), &second).expect("mix two archives");
    gap.refuses(&gap.archive, &target, &["mirror_000002.tar"], "a part of another archive");
    fs::remove_file(&second).expect("separate the archives");
    gap.load(&gap.archive, &target).expect_code(0);
}

#[test]
fn an_archive_whose_predecessor_nobody_has_is_refused_and_both_together_load() {
    let (Some(mut gap), Some(target)) = (Gap::new(), Target::docker_registry()) else { return };
    let first = gap.binary.folder().join("kept");
    fs::create_dir(&first).expect("create a folder for the first archive");
    fs::copy(gap.archive.join(PART), first.join(PART)).expect("keep the first archive");
    // The second archive of the history asks for the first set and more, and carries only what is new.
    let more = serde_json::json!([{
        "id": "grown", "title": "more than before", "notes": "", "doc": "",
        "body": {"additionalImages": [{"name": "quay.io/world/signed:v1"}, {"name": "quay.io/world/app3:v1.3"}]},
    }]);
    gap.upstream.add_sets(&more);
    gap.isc = gap.upstream.isc("grown").display().to_string();
    gap.write("grown", &gap.archive).expect_code(0);

    let refused = gap.load(&gap.archive, &target);
    assert_eq!(refused.code, Some(DAMAGED), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("archive number 1"),
        "the archive that has the rest is not named:\n{}",
        refused.stderr
    );
    assert_eq!(target.contents(), Contents::default());

    let from = |folder: &Path| format!("file://{}", folder.display());
    let to = format!("docker://{}", target.address());
    let both =
        ["--from", &from(&gap.archive), "--from", &from(&first), "--dest-tls-verify=false", &to].map(str::to_owned);
    gap.binary.run(["mirror", "-c", &gap.isc].map(str::to_owned).iter().chain(&both)).expect_code(0);
    gap.upstream.check("grown", target.address());
}

#[test]
fn a_damaged_journal_costs_nothing_but_time() {
    let Some(world) = World::get(Scale::Small) else { return };
    let Some(upstream) = world.start(Serving::Scripted(Faults { slow: 0.02, ..Faults::default() })) else { return };
    let isc = upstream.isc("add-10-ai-stack").display().to_string();
    let arguments =
        |archive: &Path| ["mirror", "-c", &isc, &format!("file://{}", archive.display())].map(str::to_owned);
    let run = |binary: &Binary| {
        let archive = binary.folder().join("archive");
        binary.run(arguments(&archive)).expect_code(0);
        archive
    };
    // Killed when something has been written down as done; `None` when it had ended before that was seen.
    let killed = |binary: &Binary| {
        let archive = binary.folder().join("archive");
        let journal = archive.join(".airlock-journal");
        let started = binary.start(arguments(&archive));
        let end = Instant::now() + Duration::from_secs(120);
        while !fs::read_to_string(&journal).is_ok_and(|text| text.contains("done ")) {
            if archive.join(PART).exists() {
                return None;
            }
            assert!(Instant::now() < end, "nothing was written:\n{}", started.stderr());
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(started);
        (journal.exists() && !archive.join(PART).exists()).then_some(archive)
    };
    let binary = || Binary::new(AIRLOCK).envs(upstream.env()).env("SOURCE_DATE_EPOCH", "1700000000");
    let undisturbed = binary();
    let wanted = fs::read(run(&undisturbed).join(PART)).expect("read the archive");

    for (step, garbage) in
        [&b"done 99999999\nat x\n"[..], b"\0\0\0\0", b"", b"airlock-journal 7\n"].into_iter().enumerate()
    {
        let (binary, archive) = (0..20)
            .map(|_| binary())
            .find_map(|binary| killed(&binary).map(|archive| (binary, archive)))
            .expect("no run was caught writing");
        let journal = archive.join(".airlock-journal");
        let text = fs::read(&journal).expect("read the journal");
        let kept = if garbage.is_empty() || step == 3 { text.len() / 2 } else { text.len() };
        fs::write(&journal, [&text[..kept], garbage].concat()).expect("damage the journal");
        run(&binary);
        assert!(
            fs::read(archive.join(PART)).expect("read the archive") == wanted,
            "the archive differs after damage {step}"
        );
        assert!(!journal.exists(), "the journal is left over after damage {step}");
    }
}

/// A run of several parts, verified and loaded by [`support`].
fn in_parts(gap: &support::Gap, isc: &str, folder: &Path) -> Vec<String> {
    support::write_in_parts(gap, isc, folder, 800_000).expect_code(0);
    let names = support::parts(folder);
    assert!(names.len() >= 3, "too few parts: {names:?}");
    names
}

/// Verification and loading both name `words` and end alike, and the target gets no request that writes.
#[track_caller]
fn refused(gap: &support::Gap, isc: &str, folder: &Path, words: &[&str], what: &str) {
    let target = airlock_testkit::scripted::Registry::start();
    for outcome in [gap.verify(folder), gap.load(isc, &[folder], &target, &[])] {
        assert_eq!(outcome.code, Some(DAMAGED), "{what}\n{}\n{}", outcome.stdout, outcome.stderr);
        support::says(&outcome, words);
    }
    assert_eq!(support::pushes(&target), Vec::<String>::new(), "{what}: something was pushed");
}

#[test]
fn parts_that_are_missing_cut_mixed_or_altered_are_named() {
    let gap = support::Gap::new();
    let third = airlock_testkit::fixture::image(3).layers(&[600_000, 500_000]).build();
    gap.upstream.put("team/third", &third, Some("v1"));
    let isc = gap.isc(&["team/good:v1", "team/bad:v1", "team/third:v1"]);
    let names = in_parts(&gap, &isc, &gap.archive());
    gap.verify(&gap.archive()).expect_code(0);
    // The same plan at another time: the same layout, another archive.
    let other = gap.folder("other");
    let later = support::Gap {
        binary: Binary::new(AIRLOCK).env("SOURCE_DATE_EPOCH", "1800000000"),
        upstream: airlock_testkit::scripted::Registry::start(),
        good: gap.good.clone(),
        bad: gap.bad.clone(),
    };
    assert_eq!(in_parts(&later, &isc, &other), names);

    let place = |name: &str| gap.archive().join(name);
    for name in &names {
        let whole = fs::read(place(name)).expect("read a part");
        fs::remove_file(place(name)).expect("lose a part");
        refused(&gap, &isc, &gap.archive(), &[name], &format!("{name} is missing"));
        fs::copy(other.join(name), place(name)).expect("mix two archives");
        refused(&gap, &isc, &gap.archive(), &[name], &format!("{name} is of another archive"));
        for length in [whole.len() - 1, whole.len() - 1024, whole.len() / 2, 1024, 0] {
            fs::write(place(name), &whole[..length]).expect("cut a part");
            refused(&gap, &isc, &gap.archive(), &[name], &format!("{name} is cut to {length} bytes"));
        }
        for offset in [whole.len() / 3, whole.len() / 2, whole.len() - 600] {
            fs::write(place(name), &whole).expect("mend a part");
            flip(&place(name), offset as u64);
            refused(&gap, &isc, &gap.archive(), &[name], &format!("{name} has a flipped bit at {offset}"));
        }
        fs::write(place(name), [&whole[..], &[0; 512]].concat()).expect("lengthen a part");
        refused(&gap, &isc, &gap.archive(), &[name], &format!("{name} is longer"));
        fs::write(place(name), &whole).expect("mend a part");
    }
    // Two parts under each other's names.
    fs::rename(place(&names[0]), place("kept")).expect("rename");
    fs::rename(place(&names[1]), place(&names[0])).expect("rename");
    fs::rename(place("kept"), place(&names[1])).expect("rename");
    refused(&gap, &isc, &gap.archive(), &["mirror_00000"], "two parts are swapped");
    fs::rename(place(&names[0]), place("kept")).expect("rename");
    fs::rename(place(&names[1]), place(&names[0])).expect("rename");
    fs::rename(place("kept"), place(&names[1])).expect("rename");

    gap.is_complete(&isc, &gap.archive());
    // A receipt of that does not hide what happens afterwards.
    flip(&place(&names[1]), 200_000);
    refused(&gap, &isc, &gap.archive(), &[&names[1]], "altered after it was found whole");
}
