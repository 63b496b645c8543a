//! The promise: the disk is looked at before anything is written to it. One that is too small is refused, and one without cheap holes
//! (vfat) gets the same archive. Needs the right to mount and a kernel that knows vfat; without
//! them a test says so and passes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::tools;
use airlock_testkit::world::{Scale, Serving, Upstream, World};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const PART: &str = "mirror_000001.tar";
const NO_SPACE: i32 = 6;

/// A mounted file system. Dropping it unmounts it.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`, with a printed line, where the right to mount or the kernel's support is absent.
    fn new(arguments: &[&str], folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).expect("create a folder to mount at");
        let mount = tools::need("mount")?;
        let done = Command::new(mount).args(arguments).arg(folder).output().expect("run mount");
        if !done.status.success() {
            tools::skipped(&format!("cannot mount here: {}", String::from_utf8_lossy(&done.stderr).trim()));
            return None;
        }
        Some(Self(folder.to_path_buf()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

fn upstream() -> Option<Upstream> {
    World::get(Scale::Small)?.start(Serving::DockerRegistry)
}

fn write(upstream: &Upstream, folder: &Path) -> Outcome {
    let binary = Binary::new(AIRLOCK).envs(upstream.env()).env("SOURCE_DATE_EPOCH", "1700000000");
    let isc = upstream.isc("add-10-ai-stack").display().to_string();
    binary.run(["mirror", "-c", &isc, &format!("file://{}", folder.display())])
}

#[test]
fn a_disk_that_is_too_small_is_refused_before_the_first_byte() {
    let Some(upstream) = upstream() else { return };
    let folder = upstream.folder().join("small");
    let Some(_mounted) = Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &folder) else { return };
    let archive = folder.join("archive");
    let outcome = write(&upstream, &archive).expect_code(NO_SPACE);
    assert!(outcome.stderr.contains("space"), "{}", outcome.stderr);
    let written: u64 = fs::read_dir(&archive)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|file| file.blocks())
        .sum();
    assert_eq!(written, 0, "something was written");
}

#[test]
fn vfat_gets_the_same_archive() {
    let (Some(mkfs), Some(upstream)) = (tools::need("mkfs.vfat"), upstream()) else { return };
    let image = upstream.folder().join("stick.img");
    fs::File::create(&image).and_then(|file| file.set_len(96 << 20)).expect("create an empty stick");
    let made = Command::new(mkfs).args(["-F", "32"]).arg(&image).output().expect("run mkfs.vfat");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let stick = upstream.folder().join("stick");
    let Some(_mounted) = Mounted::new(&["-o", "loop", &image.display().to_string()], &stick) else { return };

    let here = upstream.folder().join("here");
    write(&upstream, &here).expect_code(0);
    let there = stick.join("archive");
    write(&upstream, &there).expect_code(0);
    let read = |folder: &Path| fs::read(folder.join(PART)).expect("read the archive");
    assert!(read(&here) == read(&there), "the archive on vfat differs");
}
