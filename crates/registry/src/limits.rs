//! Every limit of the server, in one place.

use std::time::Duration;

/// Connections at once; further ones wait to be accepted. Fewer where the system allows fewer open files.
pub(crate) const MAX_CONNECTIONS: usize = 4096;
/// Open files that a connection may need: its socket, a blob that is sent or received, and a share of everything else.
pub(crate) const FILES_PER_CONNECTION: usize = 3;
/// Bytes of all headers of a request; more are answered with 431.
pub(crate) const MAX_HEADER_BYTES: usize = 32 * 1024;
/// The read buffer of an HTTP/1 connection at most (bytes); it grows to this only while a body comes in.
pub(crate) const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes that each of the allocator's pools keeps of what was freed (glibc: twice the largest block of which it saw the end).
pub(crate) const FREED_BYTES_KEPT: usize = 2 * 1024 * 1024;
/// Bytes of a path with its query; longer ones are answered with 414.
pub(crate) const MAX_URL_BYTES: usize = 8 * 1024;
/// How long a TLS handshake may take.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long the first request of a connection may take until its headers are whole, from when the connection is made or its handshake done.
pub(crate) const FIRST_HEAD_TIME: Duration = Duration::from_secs(10);
/// How long the headers of a later request may take, and how long a kept connection may be idle.
pub(crate) const HEADER_TIME: Duration = Duration::from_secs(75);
/// While all places are taken: how long a connection that never asked for anything keeps its place, and how long one that is between requests does.
pub(crate) const SILENT_GRACE: Duration = Duration::from_secs(1);
pub(crate) const IDLE_GRACE: Duration = Duration::from_secs(10);
/// How often one is looked for that gives way.
pub(crate) const ROOM_INTERVAL: Duration = Duration::from_millis(100);
/// How long a connection that has to go may take to say so.
pub(crate) const LEAVE_TIME: Duration = Duration::from_secs(1);
/// How long a client may send nothing in the middle of a body.
pub(crate) const BODY_STALL_TIME: Duration = Duration::from_secs(60);
/// How slowly a client may send a body: fewer bytes than this, in so long a time of waiting for them, end it.
pub(crate) const SLOWEST_BODY_BYTES: u64 = 60 * 1024;
pub(crate) const SLOWEST_BODY_TIME: Duration = Duration::from_secs(60);
/// How long a client may take nothing of an answer.
pub(crate) const WRITE_STALL_TIME: Duration = Duration::from_secs(60);
/// How long requests under way may take to finish when the server is shut down.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(30);
/// What is read of a body that is refused, so that the connection can be kept.
pub(crate) const MAX_DRAINED_BYTES: usize = 256 * 1024;
/// How long that may take.
pub(crate) const BODY_DRAIN_TIME: Duration = Duration::from_secs(5);
/// How long a connection that is closed while its client still sends stays half open, so that the client hears the answer instead of a reset.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(1);
/// Tags that one manifest may be pushed with.
pub(crate) const MAX_TAGS_PER_PUSH: usize = 64;
/// How deep the JSON of a manifest may be nested; deeper is no manifest but an attack on whoever reads it.
pub(crate) const MAX_JSON_DEPTH: usize = 64;
/// Blobs of a pushed manifest that are looked for at once.
pub(crate) const CHECKED_AT_ONCE: usize = 16;
/// Descriptors that a manifest may hold.
pub(crate) const MAX_DESCRIPTORS: usize = 100_000;
/// Names on a page of the catalog when the client names no number.
pub(crate) const CATALOG_PAGE: usize = 1000;
/// Names on a page that a client may ask for.
pub(crate) const MAX_PAGE: usize = 10_000;
/// Bytes of one answer about referrers; the rest is on the next page.
pub(crate) const REFERRERS_PAGE_BYTES: usize = 3 * 1024 * 1024;
/// Bytes that are left free on the disk: an upload that announces more than the rest is refused before it begins.
pub(crate) const RESERVED_DISK_BYTES: u64 = 16 * 1024 * 1024;
/// Uploads that announce less than this are not worth asking for the free space.
pub(crate) const CHECKED_UPLOAD_BYTES: u64 = 1024 * 1024;
/// How often expired uploads are looked for.
pub(crate) const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(10);
