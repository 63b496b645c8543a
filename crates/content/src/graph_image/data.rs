//! The update graph's data, as a `tar.gz` from upstream, made into one layer (updates-and-releases.md 3.8).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use airlock_oci::{Error, ErrorKind};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use crate::layers::tar::{Kind, Reader};
use crate::layers::tree::normal_path;
use crate::layers::writer::{Layer, Writer};

/// Most bytes of graph data, unpacked; upstream's are 1 MB. They are in memory while the layer is made.
pub const MAX_BYTES: u64 = 32 * 1024 * 1024;
/// Most files; upstream has about 1800.
pub const MAX_FILES: usize = 100_000;
/// Where the image has them.
pub const DIRECTORY: &str = "var/lib/cincinnati-graph-data";
/// Every file was changed at the beginning of 1970, so that the same data give the same image.
const MODIFIED: u64 = 0;

/// Graph data as a layer.
#[derive(Clone, Debug)]
pub struct GraphData {
    /// The compressed layer.
    pub bytes: Bytes,
    /// Its names.
    pub layer: Layer,
    /// What `version` says, such as `1.1.0`.
    pub version: String,
    /// Number of channels.
    pub channels: usize,
    /// Number of files about blocked updates.
    pub blocked_edges: usize,
}

impl GraphData {
    /// Reads `graph-data.tar.gz` (or the tar without compression). `what` names it in errors. Blocks.
    pub fn read(packed: impl Read, what: &str) -> Result<Self, Error> {
        let fail = |cause: String| {
            Error::new(ErrorKind::Content, format!("read the graph data `{what}`"), cause)
                .hint("they come from https://api.openshift.com/api/upgrades_info/graph-data, as a tar.gz with `version` and `channels/`")
        };
        let files = files(packed, &fail)?;
        let root = root_of(&files).ok_or_else(|| fail("there is no `version` file: these are no graph data".into()))?;
        let inside: BTreeMap<&str, &Vec<u8>> =
            files.iter().filter_map(|(path, data)| Some((path.strip_prefix(&root)?, data))).collect();
        let version = String::from_utf8_lossy(inside["version"]).trim().to_owned();
        let major = version.split('.').next().unwrap_or_default();
        if major != "1" {
            return Err(fail(format!("their version is `{version}`; update services understand 1.x")));
        }
        let count =
            |folder: &str| inside.keys().filter(|path| path.starts_with(folder) && path.ends_with(".yaml")).count();
        let (channels, blocked_edges) = (count("channels/"), count("blocked-edges/"));
        if channels == 0 {
            return Err(fail("there is no file in `channels/`: no update would be found".into()));
        }

        let mut writer = Writer::new(Vec::new(), MODIFIED);
        let mut folders = BTreeSet::new();
        for path in inside.keys() {
            folders.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
        }
        writer.directory(DIRECTORY)?;
        for folder in folders {
            writer.directory(&format!("{DIRECTORY}/{folder}"))?;
        }
        for (path, data) in inside {
            writer.file(&format!("{DIRECTORY}/{path}"), data.len() as u64, &mut &data[..])?;
        }
        let (bytes, layer) = writer.finish()?;
        Ok(Self { bytes: bytes.into(), layer, version, channels, blocked_edges })
    }
}

/// Every file by its path, sorted: the order in the tar is upstream's accident.
fn files(packed: impl Read, fail: &dyn Fn(String) -> Error) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut head = [0; 2];
    let mut packed = packed;
    let mut filled = 0;
    while filled < head.len() {
        match packed.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(crate::layers::broken(e, "read graph data")),
        }
    }
    let whole = Read::chain(&head[..filled], packed);
    let plain: Box<dyn Read + '_> =
        if head == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
    // One more than allowed, so that going over is seen.
    let mut tar = Reader::new(plain.take(MAX_BYTES + 1));
    let (mut files, mut total) = (BTreeMap::new(), 0_u64);
    while let Some(entry) = tar.next_entry().map_err(|e| fail(e.to_string()))? {
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        match entry.kind {
            Kind::File => {}
            Kind::Directory => continue,
            _ => return Err(fail(format!("`{shown}` is neither a file nor a directory"))),
        }
        total = total.saturating_add(entry.size);
        if total > MAX_BYTES || files.len() >= MAX_FILES {
            return Err(fail(format!("they are more than {MAX_BYTES} bytes or {MAX_FILES} files")));
        }
        let path = normal_path(&entry.path).filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| fail(format!("`{shown}` is no path within them")))?;
        let mut data = Vec::new();
        tar.content().read_to_end(&mut data).map_err(|e| fail(e.to_string()))?;
        if files.insert(path, data).is_some() {
            return Err(fail(format!("`{shown}` occurs twice")));
        }
    }
    Ok(files)
}

/// What stands before `version`: nothing, or the one directory of an archive of the repository.
fn root_of(files: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    if files.contains_key("version") {
        return Some(String::new());
    }
    let first = files.keys().next()?.split_once('/')?.0;
    let root = format!("{first}/");
    let whole = files.contains_key(&format!("{root}version")) && files.keys().all(|path| path.starts_with(&root));
    whole.then_some(root)
}
