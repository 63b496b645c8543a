//! The update graph of OpenShift: model, wire format, client, and what a configuration of channels means on it.
//!
//! * [`Graph`] is what an update service answers for one channel and architecture; [`Graphs`] is whoever can answer, over the network
//!   ([`GraphClient`]) or from what was kept ([`Kept`])
//! * [`select()`] turns the channels of a configuration into releases, each with the reasons for it
//! * [`route()`] finds the way of one cluster from one release to another

mod answers;
mod architecture;
mod channel;
mod client;
mod graph;
mod route;
mod select;
mod version;

pub use airlock_document::nearest;
pub use answers::{Answer, Graphs, Kept, Query, Service};
pub use architecture::{Architecture, UnknownArchitecture};
pub use channel::{ChannelName, InvalidChannel};
pub use client::{GraphClient, GraphData, Options, PUBLIC_GRAPH_DATA_URL, PUBLIC_GRAPH_URL, PUBLIC_OKD_GRAPH_URL};
pub use graph::{
    CHANNELS_KEY, ConditionalEdges, Edges, Graph, GraphError, MAX_GRAPH_BYTES, MatchingRule, Node, PromQl, Risk,
    URL_KEY, VersionPair,
};
pub use route::{Hop, Route, route};
pub use select::{
    Channel, Failures, Note, Range, Reason, Release, SelectError, Selection, Wanted, Why, across_channels, select,
};
pub use version::{InvalidVersion, Minor, Version};
