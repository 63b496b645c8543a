//! Archives: a registry's storage in tar form, in one or several parts. The format is `docs/archive-format.md`.
//!
//! ```text
//! Contents -> layout -> Writer (Sink) -> seal            Archive (Storage) -> verify, Source
//!             table      chunks, journal                 table, seal, tar
//! ```

pub mod chunks;
pub mod foreign;
mod index;
pub mod journal;
pub mod layout;
mod offers;
mod parts;
pub mod reader;
mod recovery;
pub mod seal;
pub mod table;
pub mod tar;
pub mod verify;
pub mod volume;
pub mod writer;

pub use layout::{Absent, Contents, Item, RepositoryContents};
pub use offers::{Offered, Offers};
pub use reader::Archive;
pub use recovery::{Pending, pending};
pub use volume::{LocalVolume, Volume};
pub use writer::{ArchiveSink, Options, Sealed, Writer};
