//! The way of one cluster: across minors, over risks, and through the stream that knows both ends.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use airlock_oci::{Error, ErrorKind};
use airlock_updates::{Architecture, ChannelName, Edges, Kept, Route, Service, route};
use support::{graph, texts};

async fn way(graphs: &Kept, channel: Option<&str>, from: &str, to: &str, edges: Edges) -> Result<Route, Error> {
    let channel = channel.map(|name| ChannelName::new(name).unwrap());
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    route(graphs, Service::Ocp, Architecture::Amd64, channel.as_ref(), &from, &to, edges).await
}

fn steps(route: &Route) -> String {
    let mut steps = route.from.to_string();
    for hop in &route.hops {
        steps.push_str(&format!(" {}{}", if hop.risks.is_empty() { "" } else { "?" }, hop.to));
    }
    steps
}

fn three_minors() -> Kept {
    let odd = graph("4.14.1 4.15.3 4.15.9", "4.14.1>4.15.3 4.15.3>4.15.9 4.14.1?4.15.9");
    let even = graph("4.15.3 4.15.9 4.16.2", "4.15.9>4.16.2 4.15.3?4.16.2");
    let fast = graph("4.15.9 4.16.2 4.16.3", "4.15.9>4.16.3 4.16.2>4.16.3");
    let candidate = graph("4.16.3 4.16.4-rc.1", "4.16.3>4.16.4-rc.1");
    texts(&[
        ("stable-4.15", &odd),
        ("stable-4.16", &even),
        ("fast-4.15", &odd),
        ("fast-4.16", &fast),
        ("candidate-4.16", &candidate),
    ])
}

#[tokio::test]
async fn minors_are_crossed_and_risks_avoided_where_they_can_be() {
    let graphs = three_minors();
    let found = way(&graphs, None, "4.14.1", "4.16.2", Edges::All).await.unwrap();
    assert_eq!(steps(&found), "4.14.1 4.15.3 4.15.9 4.16.2");
    assert_eq!(found.channels, ["stable-4.15", "stable-4.16"]);
    // In this channel alone the plain way is not known.
    let found = way(&graphs, Some("stable-4.16"), "4.15.3", "4.16.2", Edges::All).await.unwrap();
    assert_eq!(steps(&found), "4.15.3 ?4.16.2");
    assert_eq!(found.hops[0].risks[0].name, "Risk4_16_2");
    let refused = way(&graphs, Some("stable-4.16"), "4.15.3", "4.16.2", Edges::Recommended).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(refused.hint_text().unwrap().contains("known risks"), "{refused}");
    assert_eq!(steps(&way(&graphs, None, "4.16.2", "4.16.2", Edges::All).await.unwrap()), "4.16.2");
}

#[tokio::test]
async fn the_most_careful_stream_that_knows_both_ends_is_taken() {
    let graphs = three_minors();
    let found = way(&graphs, None, "4.14.1", "4.16.3", Edges::All).await.unwrap();
    assert_eq!(
        (steps(&found), found.channels.join(" ")),
        ("4.14.1 4.15.3 4.15.9 4.16.3".into(), "fast-4.15 fast-4.16".into())
    );
    let found = way(&graphs, None, "4.16.3", "4.16.4-rc.1", Edges::All).await.unwrap();
    assert_eq!(found.channels, ["candidate-4.16"]);
}

#[tokio::test]
async fn what_cannot_be_gone_says_why() {
    let graphs = three_minors();
    for (channel, from, to, kind, said) in [
        (None, "4.16.2", "4.15.3", ErrorKind::Invalid, "no update leads to an older release"),
        (None, "4.14.1", "5.0.0", ErrorKind::Invalid, "different major versions"),
        (None, "4.14.7", "4.16.2", ErrorKind::NotFound, "4.14.7 is not in stable-4.15, stable-4.16"),
        (Some("fast-4.16"), "4.15.9", "4.16.9", ErrorKind::NotFound, "4.16.9 is not in fast-4.16"),
        (Some("stable-4.13"), "4.13.1", "4.13.2", ErrorKind::NotFound, "holds no such graph"),
        (Some("stable-4.15"), "4.15.3", "4.15.9", ErrorKind::NotFound, ""),
    ] {
        match way(&graphs, channel, from, to, Edges::All).await {
            Err(error) => {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains(said), "{error}");
            }
            Ok(found) => assert_eq!((said, steps(&found)), ("", "4.15.3 4.15.9".into())),
        }
    }
}
