//! Deleting manifests and tags of a directory: what goes goes at once and for good, what is killed or finds the disk full leaves every tag
//! whole or gone, and what is left of it is collected.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod images;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, Manifest, Tag};
use airlock_store::Storage;
use airlock_store::distribution::{Directory, Durability, Expected, Writer};
use images::*;

const NAME: &str = "a/b";
/// Set for the process that deletes and is killed at it: the folder in which the storage is.
const FOLDER: &str = "AIRLOCK_DELETION_TEST_FOLDER";
/// How often it is killed, and tags of the manifest that it deletes.
const KILLS: u32 = 10;
const MANY: usize = 1200;

fn writer(root: &Path) -> Writer {
    Writer::open(root, Durability::Image).unwrap()
}

fn tags_folder(root: &Path) -> PathBuf {
    root.join("docker/registry/v2/repositories").join(NAME).join("_manifests/tags")
}

/// Sets tags as docker-registry does it: at once, and without waiting for the disk.
fn set_tags(root: &Path, tags: impl IntoIterator<Item = String>, digest: &Digest) {
    for tag in tags {
        for folder in ["current".to_owned(), format!("index/{}/{}", digest.algorithm(), digest.hex())] {
            let folder = tags_folder(root).join(&tag).join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("link"), digest.to_string()).unwrap();
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What was removed and still takes room: the trees of each deletion.
fn left(root: &Path) -> Vec<Vec<String>> {
    let removed = root.join(".airlock/removed");
    names(&removed).iter().map(|deletion| names(&removed.join(deletion))).collect()
}

fn tags(storage: &dyn Storage) -> Vec<String> {
    let tags = storage.tags(&repository(NAME)).unwrap().unwrap_or_default();
    tags.iter().map(|tag| tag.as_str().to_owned()).collect()
}

fn at(storage: &dyn Storage, tag: &Tag) -> Option<Digest> {
    let found = storage.manifest(&repository(NAME), &ManifestName::Tag(tag.clone())).unwrap();
    found.map(|manifest| manifest.digest().clone())
}

async fn put_images(writer: &Writer, count: u8) -> Vec<Manifest> {
    let mut manifests = Vec::new();
    for seed in 0..count {
        let image = image(seed, 5_000);
        put(writer, &repository(NAME), &image, None).await;
        manifests.push(image.manifest);
    }
    manifests
}

#[tokio::test]
async fn a_manifest_goes_with_its_tags_and_what_is_left_is_collected_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let open = || writer(root.path());
    let first = open();
    let manifests = put_images(&first, 2).await;
    let (gone, kept) = (&manifests[0], &manifests[1]);
    set_tags(root.path(), ["x1", "x2", "x3"].map(String::from), gone.digest());
    set_tags(root.path(), ["y1", "y2"].map(String::from), kept.digest());
    // One that pointed at it once, one that points at it again, and a link that was cut short.
    first.put_manifest(&repository(NAME), gone, &[tag("y3"), tag("x4")]).unwrap();
    first.put_manifest(&repository(NAME), kept, &[tag("y3"), tag("x4")]).unwrap();
    first.put_manifest(&repository(NAME), gone, &[tag("x4")]).unwrap();
    fs::write(tags_folder(root.path()).join("x3/current/link"), "").unwrap();
    assert_eq!(tags(&first), ["x1", "x2", "x3", "x4", "y1", "y2", "y3"]);
    assert!(Writer::delete_manifest(&first, &repository(NAME), gone.digest()).unwrap());
    assert!(!Writer::delete_manifest(&first, &repository(NAME), gone.digest()).unwrap());
    let assert_gone = |storage: &dyn Storage| {
        assert_eq!(tags(storage), ["y1", "y2", "y3"]);
        for tag in ["y1", "y2", "y3"].map(tag) {
            assert_eq!(at(storage, &tag).as_ref(), Some(kept.digest()));
        }
        let digest = ManifestName::Digest(gone.digest().clone());
        assert!(storage.manifest(&repository(NAME), &digest).unwrap().is_none());
    };
    assert_gone(&first);
    assert_eq!(names(&tags_folder(root.path())), ["y1", "y2", "y3"], "nothing is left where others look");
    assert_eq!(left(root.path()), [["x1", "x2", "x3", "x4"]]);
    drop(first);

    // The start does not wait for it. What lies there is no content to anybody.
    let second = open();
    assert_eq!(left(root.path()).len(), 1);
    assert_gone(&second);
    assert_gone(&Directory::open(root.path()).unwrap());
    let scrubbed = second.scrub(None).unwrap();
    assert_eq!((scrubbed.manifests, scrubbed.damage.len()), (1, 0));
    assert_eq!(second.repair(true, &|_| None).unwrap().left, []);
    second.collect_garbage(true).unwrap();
    assert_eq!(left(root.path()).len(), 1, "a trial removes nothing");
    second.maintain().unwrap();
    assert_eq!(left(root.path()), [[""; 0]; 0]);
    assert_gone(&second);

    // The same by the next collection. The tags can come back, and go one by one.
    second.put_manifest(&repository(NAME), gone, &[tag("x1"), tag("x2")]).unwrap();
    assert_eq!(tags(&second), ["x1", "x2", "y1", "y2", "y3"]);
    assert!(second.delete_tag(&repository(NAME), &tag("x1")).unwrap());
    assert!(!second.delete_tag(&repository(NAME), &tag("x1")).unwrap());
    assert!(Writer::delete_manifest(&second, &repository(NAME), gone.digest()).unwrap());
    assert_gone(&second);
    assert_eq!(left(root.path()).iter().map(Vec::len).sum::<usize>(), 2);
    second.collect_garbage(false).unwrap();
    assert_eq!(left(root.path()), [[""; 0]; 0]);
    drop(second);

    if have("docker-registry") && have("skopeo") {
        let stock = DockerRegistry::start(root.path());
        let image = format!("docker://{}/{NAME}", stock.address);
        let listed = run("skopeo", &["list-tags", "--tls-verify=false", &image]);
        assert!(listed.contains("y3") && !listed.contains('x'), "{listed}");
        let digest = run("skopeo", &["inspect", "--tls-verify=false", "--format={{.Digest}}", &format!("{image}:y3")]);
        assert_eq!(digest.trim(), kept.digest().to_string());
    }
}

#[tokio::test]
async fn a_tag_goes_in_one_step_with_its_history() {
    let root = tempfile::tempdir().unwrap();
    let writer = writer(root.path());
    let manifests = put_images(&writer, 12).await;
    for manifest in &manifests {
        writer.put_manifest(&repository(NAME), manifest, &[tag("latest")]).unwrap();
    }
    assert!(writer.delete_tag(&repository(NAME), &tag("latest")).unwrap());
    assert_eq!((tags(&writer), left(root.path())), (vec![], vec![vec!["latest".to_owned()]]));
    let removed = root.path().join(".airlock/removed");
    let tree = removed.join(&names(&removed)[0]).join("latest");
    assert!(tree.join("current/link").is_file(), "it was moved whole");
    assert_eq!(names(&tree.join("index/sha256")).len(), 12);
    // The history of the one that comes next is its own.
    writer.put_manifest(&repository(NAME), &manifests[0], &[tag("latest")]).unwrap();
    assert_eq!(at(&writer, &tag("latest")).as_ref(), Some(manifests[0].digest()));
    assert_eq!(names(&tags_folder(root.path()).join("latest/index/sha256")).len(), 1);
    writer.maintain().unwrap();
    assert_eq!((tags(&writer), left(root.path()).len()), (vec!["latest".to_owned()], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_that_are_pushed_while_their_manifest_is_deleted_stay_with_what_was_pushed() {
    for round in 0..5 {
        let root = tempfile::tempdir().unwrap();
        let writer = writer(root.path());
        let manifests = put_images(&writer, 2).await;
        let (gone, new) = (&manifests[0], &manifests[1]);
        let tags_of = |kind: &str| (0..40).map(|i| format!("{kind}{i:02}")).collect::<Vec<_>>();
        for kind in ["moved", "forced", "again", "quiet"] {
            set_tags(root.path(), tags_of(kind), gone.digest());
        }
        let name = &repository(NAME);
        let put_if = |text: &String, manifest: &Manifest, expected: &Expected| {
            writer.put_manifest_if(name, manifest, &[tag(text)], expected).unwrap()
        };
        let (moved, again) = std::thread::scope(|scope| {
            let moved = scope.spawn(|| {
                let expected = Expected::OneOf(vec![gone.digest().clone()]);
                tags_of("moved").into_iter().filter(|tag| put_if(tag, new, &expected)).collect::<Vec<_>>()
            });
            scope.spawn(|| tags_of("forced").iter().for_each(|tag| assert!(put_if(tag, new, &Expected::Anything))));
            let again = scope.spawn(|| {
                let tags = tags_of("again").into_iter().take(10);
                tags.filter(|tag| put_if(tag, gone, &Expected::Absent)).collect::<Vec<_>>()
            });
            std::thread::sleep(Duration::from_millis(round * 15));
            assert!(Writer::delete_manifest(&writer, name, gone.digest()).unwrap());
            (moved.join().unwrap(), again.join().unwrap())
        });
        drop(writer);
        // Also after a restart.
        let writer = self::writer(root.path());
        writer.collect_garbage(false).unwrap();
        let mut expected: Vec<String> = moved.into_iter().chain(tags_of("forced")).collect();
        for tag in &expected {
            assert_eq!(at(&writer, &self::tag(tag)).as_ref(), Some(new.digest()), "round {round}: {tag}");
        }
        // What had been absent when it was pushed is there again, with its manifest.
        for tag in &again {
            assert_eq!(at(&writer, &self::tag(tag)).as_ref(), Some(gone.digest()), "round {round}: {tag}");
        }
        expected.extend(again);
        expected.sort();
        assert_eq!(tags(&writer), expected, "round {round}: every other tag is gone");
    }
}

/// A small ext4 of its own; `None` where this user may not mount one.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (image, at) = (folder.path().join("image"), folder.path().join("disk"));
        fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        fs::create_dir(&at).unwrap();
        let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = done(Command::new("mkfs.ext4").args(["-q", "-b", "1024", "-m", "0", "-N", "2000"]).arg(&image));
        if made && done(Command::new("mount").args(["-o", "loop"]).args([&image, &at])) {
            return Some(Self(folder));
        }
        println!("skipped: a file system cannot be mounted here");
        None
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    /// Writes until nothing more goes in, down to the last block.
    fn fill(&self) {
        let mut file = fs::File::create(self.root().join("filler")).unwrap();
        for piece in [1 << 16, 1024, 1] {
            while file.write_all(&vec![1; piece]).and_then(|()| file.sync_data()).is_ok() {}
        }
        assert!(fs::create_dir(self.root().join("one more")).is_err(), "it is full");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.root()).status();
    }
}

#[tokio::test]
async fn a_full_disk_takes_deletions() {
    let Some(disk) = Disk::mount() else { return };
    let root = disk.root();
    let writer = writer(&root);
    let manifests = put_images(&writer, 2).await;
    // So long that few of them fit into a block of the folder to which they are moved: it has to grow again and again.
    let long = |i| format!("t{i:03}-{}", "x".repeat(110));
    set_tags(&root, (0..60).map(long), manifests[0].digest());
    set_tags(&root, ["kept".to_owned(), "single".to_owned()], manifests[1].digest());
    disk.fill();
    assert!(writer.delete_tag(&repository(NAME), &tag("single")).unwrap());
    assert_eq!(left(&root), [[""; 0]; 0], "there was no room to move it");
    disk.fill();
    assert!(Writer::delete_manifest(&writer, &repository(NAME), manifests[0].digest()).unwrap());
    assert_eq!(tags(&writer), ["kept"]);
    assert_eq!(names(&tags_folder(&root)), ["kept"]);
    let moved: usize = left(&root).iter().map(Vec::len).sum();
    assert!(moved > 0 && moved < 60, "what could not be moved made room for others: {moved}");
    // And is given back.
    assert!(writer.collect_garbage(false).unwrap().removed_files > 0);
    assert_eq!(left(&root), [[""; 0]; 0]);
    writer.put_manifest(&repository(NAME), &manifests[0], &[tag("again")]).unwrap();
    assert_eq!(tags(&writer), ["again", "kept"]);
}

/// Not a test, but the deletion of the one below, in a process of its own.
#[test]
fn deletion_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let writer = writer(&folder.join("store"));
    let digest: Digest = fs::read_to_string(folder.join("digest")).unwrap().parse().unwrap();
    fs::write(folder.join("begun"), "").unwrap();
    assert!(Writer::delete_manifest(&writer, &repository(NAME), &digest).unwrap());
    fs::write(folder.join("acknowledged"), "").unwrap();
    // It is killed all the same.
    std::thread::sleep(Duration::from_secs(60));
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(path: &Path) {
    let end = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < end, "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn a_deletion_that_is_killed_leaves_every_tag_whole_or_gone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let (mut whole, mut interrupted) = (Duration::ZERO, 0);
    for kill in 0..=KILLS {
        let writer = writer(&root);
        let gone = put_images(&writer, 1).await.remove(0);
        drop(writer);
        set_tags(&root, (0..MANY).map(|i| format!("t{i:04}")), gone.digest());
        for name in ["begun", "acknowledged"] {
            let _ = fs::remove_file(folder.path().join(name));
        }
        fs::write(folder.path().join("digest"), gone.digest().to_string()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "deletion_that_is_killed"]).env(FOLDER, folder.path()).stdout(Stdio::null());
        let child = Killed(command.spawn().unwrap());
        wait_for(&folder.path().join("begun"));
        let begun = Instant::now();
        if kill == 0 {
            // How long it takes here and now.
            wait_for(&folder.path().join("acknowledged"));
            whole = begun.elapsed();
        } else {
            std::thread::sleep(whole * kill / KILLS);
        }
        drop(child);
        let acknowledged = folder.path().join("acknowledged").exists();
        let directory = Directory::open(&root).unwrap();
        let left = tags(&directory);
        let manifest = directory.manifest(&repository(NAME), &ManifestName::Digest(gone.digest().clone())).unwrap();
        if acknowledged {
            assert_eq!((left.len(), manifest.is_some()), (0, false));
        }
        // Those that are there lead somewhere, and there are no halves.
        assert_eq!(left, names(&tags_folder(&root)));
        for name in &left {
            assert_eq!(at(&directory, &tag(name)).as_ref(), Some(gone.digest()), "{name}");
            let past = tags_folder(&root).join(name).join("index/sha256").join(gone.digest().hex()).join("link");
            assert_eq!(fs::read_to_string(past).unwrap(), gone.digest().to_string(), "{name}");
        }
        interrupted += u32::from(!left.is_empty() && left.len() < MANY);
        // The next one finishes it, and its own leftovers go with those of the killed one.
        let writer = self::writer(&root);
        let goes = Writer::delete_manifest(&writer, &repository(NAME), gone.digest()).unwrap();
        assert_eq!(goes, manifest.is_some());
        assert_eq!(tags(&writer), [""; 0]);
        writer.collect_garbage(false).unwrap();
        assert_eq!(self::left(&root), [[""; 0]; 0]);
    }
    println!("killed in the middle: {interrupted} of {KILLS}");
}
