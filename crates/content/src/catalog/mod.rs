//! Operator catalogs: read one, choose from it, and build the smaller one (oc-mirror.md 6).
//!
//! ```text
//! image ──read──► Catalog ──select──► Selection ──doctor──► findings, the change that mends them
//!                 (model, spool)         │  ▲
//!                                        │  └── leave_out: what planning found missing
//!                                        ├──related──► images, each with every reason
//!                                        └──rebuild──► an image for every platform, upon the catalog's own
//! ```
//!
//! * [`read()`] streams the catalog out of its image: documents go into a file, what choosing needs into the [`Catalog`]
//! * [`select()`] is pure: the same catalog, [`Filter`] and [`Rule`] give the same [`Selection`]

mod diff;
pub mod doctor;
mod model;
mod range;
mod read;
pub mod rebuild;
mod related;
mod select;
mod shortest;
mod spool;
mod version;

pub use crate::derived::{Base, Derived, DerivedSource, Target};
pub use diff::{Diff, PackageDiff, Side, diff};
pub use model::{Bundle, Catalog, Channel, Entry, Form, Gvk, Needs, Origin, Package, Required, Text};
#[cfg(feature = "sqlite")]
pub use read::read_database;
pub use read::{CONFIGS_LABEL, DATABASE_LABEL, MAX_DOCUMENT_BYTES, read, read_directory};
pub use rebuild::rebuild;
pub use related::{BundleName, InvalidImage, LeftOut, NeededBy, Related, RelatedImage, leave_out, related};
pub use select::{
    Asked, ChannelFilter, Dropped, Filter, Kept, Note, PackageFilter, Rule, SelectError, Selection, Unknown, Wanted,
    Why, select,
};
pub use shortest::shortest;
