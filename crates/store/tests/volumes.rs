//! Archives on file systems that are full, broken, or fill holes: an injected layer under the writer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use airlock_oci::{ErrorKind, Sink};
use airlock_store::archive::volume::{PartFile, Properties};
use airlock_store::archive::{Archive, ArchiveSink, LocalVolume, Volume, Writer, verify};

mod support;
use support::{Image, Memory, contents, options, some_images};

/// What the injected layer does and notes.
#[derive(Default)]
struct Faults {
    /// Bytes that may still be written.
    room: AtomicU64,
    /// From now on every write fails with EIO.
    broken: AtomicBool,
    /// The next sync fails: the disk is full.
    unsynced: AtomicBool,
    holes_cost: bool,
    max_file: Option<u64>,
    /// Most bytes by which a write began beyond what was written before it.
    gap: AtomicU64,
    written: Mutex<std::collections::HashMap<String, u64>>,
}

struct Injected {
    local: LocalVolume,
    faults: Arc<Faults>,
}

struct InjectedFile {
    name: String,
    file: Arc<dyn PartFile>,
    faults: Arc<Faults>,
}

impl Volume for Injected {
    fn path(&self) -> &Path {
        self.local.path()
    }

    fn properties(&self) -> io::Result<Properties> {
        Ok(Properties {
            free_bytes: u64::MAX,
            max_file_bytes: self.faults.max_file,
            cheap_holes: !self.faults.holes_cost,
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn PartFile>> {
        let file = self.local.open(name)?;
        Ok(Arc::new(InjectedFile { name: name.to_owned(), file, faults: Arc::clone(&self.faults) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.local.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.local.remove(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.local.names()
    }

    fn sync(&self) -> io::Result<()> {
        self.local.sync()
    }
}

impl PartFile for InjectedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.faults.broken.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let len = bytes.len() as u64;
        if self.faults.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |r| r.checked_sub(len)).is_err() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut written = self.faults.written.lock().unwrap();
        let end = written.entry(self.name.clone()).or_default();
        self.faults.gap.fetch_max(offset.saturating_sub(*end), Ordering::Relaxed);
        *end = (*end).max(offset + len);
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn reserve(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        // As the system does: it tells once.
        if self.faults.unsynced.swap(false, Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.sync()
    }
}

fn volume(directory: &Path, faults: Faults) -> (Arc<dyn Volume>, Arc<Faults>) {
    let faults = Arc::new(faults);
    let local = LocalVolume::create(directory).unwrap();
    (Arc::new(Injected { local, faults: Arc::clone(&faults) }), faults)
}

fn roomy() -> Faults {
    Faults { room: AtomicU64::new(u64::MAX), ..Faults::default() }
}

/// Writes every image in the order of the plan; the first failure ends it.
async fn write(writer: &Arc<Writer>, images: &[Image]) -> Result<(), airlock_oci::Error> {
    let sink = ArchiveSink(Arc::clone(writer));
    for image in images {
        for (blob, bytes) in &image.blobs {
            if !sink.has_blob(&image.repository, blob).await? {
                sink.write_blob(&image.repository, blob, &Memory(bytes.clone(), None)).await?;
            }
        }
        sink.put_manifest(&image.repository, &image.manifest, Some(&image.tag)).await?;
    }
    Ok(())
}

async fn reference(images: &[Image], limit: u64) -> Vec<(String, Vec<u8>)> {
    let directory = tempfile::tempdir().unwrap();
    let (volume, _) = volume(directory.path(), roomy());
    let writer = Arc::new(Writer::open(volume, &contents(images), options(limit)).unwrap());
    write(&writer, images).await.unwrap();
    writer.seal(true).unwrap();
    parts(directory.path())
}

fn parts(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut parts: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.file_name().to_str().unwrap().starts_with("mirror_"))
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect();
    parts.sort();
    parts
}

#[tokio::test]
async fn where_holes_cost_bytes_go_in_order_and_come_out_the_same() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let (volume, faults) = volume(directory.path(), Faults { holes_cost: true, ..roomy() });
    let writer = Arc::new(Writer::open(volume, &contents(&images), options(6_000_000)).unwrap());
    assert!(writer.is_ordered());
    write(&writer, &images).await.unwrap();
    writer.seal(true).unwrap();
    // A header is put in place after its data, so within an entry the end may be ahead of its beginning, never further.
    assert!(faults.gap.load(Ordering::Relaxed) <= 1536, "{} bytes ahead", faults.gap.load(Ordering::Relaxed));
    assert!(parts(directory.path()) == reference(&images, 6_000_000).await);
}

#[tokio::test]
async fn where_holes_cost_an_interrupted_run_goes_on_too() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let (first, _) = volume(directory.path(), Faults { holes_cost: true, ..roomy() });
    let writer = Arc::new(Writer::open(first, &contents(&images), options(6_000_000)).unwrap());
    write(&writer, &images[..1]).await.unwrap();
    writer.checkpoint().unwrap();
    drop(writer);
    let (second, _) = volume(directory.path(), Faults { holes_cost: true, ..roomy() });
    let writer = Arc::new(Writer::open(second, &contents(&images), options(6_000_000)).unwrap());
    assert!(writer.reused_bytes() >= 5_000_000);
    write(&writer, &images).await.unwrap();
    writer.seal(true).unwrap();
    assert!(parts(directory.path()) == reference(&images, 6_000_000).await);
}

#[tokio::test]
async fn a_full_disk_ends_the_run_and_the_next_one_goes_on() {
    let images = some_images();
    let expected = reference(&images, u64::MAX).await;
    for room in [100, 100_000, 5_000_000, 9_000_000, 14_000_000] {
        let directory = tempfile::tempdir().unwrap();
        let (small, faults) = volume(directory.path(), Faults { room: AtomicU64::new(room), ..Faults::default() });
        match Writer::open(small, &contents(&images), options(u64::MAX)) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Full, "{room}: {error}"),
            Ok(writer) => {
                let writer = Arc::new(writer);
                let error = match write(&writer, &images).await {
                    Err(error) => error,
                    Ok(()) => writer.seal(true).unwrap_err(),
                };
                assert_eq!(error.kind(), ErrorKind::Full, "{room}: {error}");
            }
        }
        assert!(Archive::open(directory.path()).is_err(), "nothing that is not finished looks finished");
        faults.room.store(u64::MAX, Ordering::Relaxed);
        let (roomy, _) = volume(directory.path(), roomy());
        let writer = Arc::new(Writer::open(roomy, &contents(&images), options(u64::MAX)).unwrap());
        write(&writer, &images).await.unwrap();
        writer.seal(true).unwrap();
        assert!(parts(directory.path()) == expected, "{room}: the same bytes");
    }
}

#[tokio::test]
async fn a_broken_disk_is_an_error_of_the_disk() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let (volume, faults) = volume(directory.path(), roomy());
    let writer = Arc::new(Writer::open(volume, &contents(&images), options(u64::MAX)).unwrap());
    faults.broken.store(true, Ordering::Relaxed);
    let error = write(&writer, &images).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
    assert!(writer.seal(true).is_err());
    assert!(Archive::open(directory.path()).is_err());
}

#[tokio::test]
async fn after_a_sync_that_failed_nothing_is_promised() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let (first, faults) = volume(directory.path(), roomy());
    let writer = Arc::new(Writer::open(first, &contents(&images), options(u64::MAX)).unwrap());
    faults.unsynced.store(true, Ordering::Relaxed);
    // On a slow machine the time for a flush comes while it is written.
    let told = match write(&writer, &images[..1]).await {
        Err(error) => error,
        Ok(()) => writer.checkpoint().unwrap_err(),
    };
    assert_eq!(told.kind(), ErrorKind::Full, "{told}");
    for again in [writer.checkpoint().unwrap_err(), writer.seal(true).unwrap_err()] {
        assert_eq!((again.kind(), again.to_string()), (told.kind(), told.to_string()));
    }
    let journal = std::fs::read_to_string(directory.path().join(".airlock-journal")).unwrap();
    assert!(!journal.contains("done"), "{journal}");
    assert!(Archive::open(directory.path()).is_err());
    drop(writer);
    let (second, _) = volume(directory.path(), roomy());
    let writer = Arc::new(Writer::open(second, &contents(&images), options(u64::MAX)).unwrap());
    write(&writer, &images).await.unwrap();
    writer.seal(true).unwrap();
    assert!(parts(directory.path()) == reference(&images, u64::MAX).await);
}

#[tokio::test]
async fn parts_stay_below_the_largest_file() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let (volume, _) = volume(directory.path(), Faults { max_file: Some(10_000_000), ..roomy() });
    let writer = Arc::new(Writer::open(volume, &contents(&images), options(u64::MAX)).unwrap());
    write(&writer, &images).await.unwrap();
    writer.seal(true).unwrap();
    let parts = parts(directory.path());
    assert!(parts.len() > 1);
    assert!(parts.iter().all(|(_, bytes)| bytes.len() < 10_000_000));
    let archive = Archive::open(directory.path()).unwrap();
    assert_eq!(verify::full(&archive, &|_| {}).unwrap(), []);
}
