//! What answers a request, by the kind of thing it is about.

pub(crate) mod blobs;
pub(crate) mod lists;
pub(crate) mod manifests;
pub(crate) mod token;
pub(crate) mod uploads;
