//! What channels stand for, case by case: bounds, gaps, intermediate minors, risks, and every way in which a configuration can be wrong.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use airlock_oci::{Error, ErrorKind};
use airlock_updates::{Channel, Failures, Kept, Note, Release, Selection, Service, Wanted, select};
use support::{channel, graph, texts};

fn wanted(channels: Vec<Channel>) -> Wanted {
    Wanted { channels, ..Wanted::default() }
}

fn shortest(channel: Channel) -> Channel {
    Channel { shortest_path: true, ..channel }
}

/// A program chooses releases on whichever of its threads is free.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

async fn chosen(channels: Vec<Channel>, graphs: &Kept) -> Selection {
    sendable(select(&wanted(channels), graphs)).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn refused(channels: Vec<Channel>, graphs: &Kept) -> Failures {
    match select(&wanted(channels), graphs).await {
        Ok(selection) => panic!("{:?} was chosen", versions(&selection)),
        Err(failures) => failures,
    }
}

fn versions(selection: &Selection) -> Vec<String> {
    selection.releases.iter().map(|release| release.version.to_string()).collect()
}

fn why(release: &Release) -> String {
    release.why.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

fn one_minor() -> Kept {
    let stable = graph(
        "4.17.9 4.18.0-rc.1 4.18.1 4.18.2 4.18.3 4.18.10",
        "4.17.9>4.18.1 4.18.1>4.18.2 4.18.2>4.18.3 4.18.1>4.18.3 4.18.3>4.18.10 4.18.2>4.18.10",
    );
    texts(&[("stable-4.18", &stable)])
}

#[tokio::test]
async fn the_table_of_bounds() {
    let graphs = one_minor();
    let full = |channel: Channel| Channel { full: true, ..channel };
    for (wanted, expected) in [
        (channel("stable-4.18", "", ""), "4.18.10"),
        (channel("stable-4.18", "4.18.2", ""), "4.18.2 4.18.3 4.18.10"),
        (channel("stable-4.18", "", "4.18.1"), "4.17.9 4.18.0-rc.1 4.18.1"),
        (channel("stable-4.18", "4.18.1", "4.18.3"), "4.18.1 4.18.2 4.18.3"),
        (full(channel("stable-4.18", "", "")), "4.17.9 4.18.0-rc.1 4.18.1 4.18.2 4.18.3 4.18.10"),
        (full(channel("stable-4.18", "4.18.3", "")), "4.18.3 4.18.10"),
        (shortest(channel("stable-4.18", "4.18.1", "4.18.10")), "4.18.1 4.18.3 4.18.10"),
        (shortest(channel("stable-4.18", "", "")), "4.18.10"),
        (shortest(full(channel("stable-4.18", "", ""))), "4.17.9 4.18.1 4.18.3 4.18.10"),
        (channel("stable-4.18", "v4.18.3", "4.18.3"), "4.18.3"),
        // Neither bound is a version of the channel.
        (channel("stable-4.18", "4.18.0", "4.18.5"), "4.18.1 4.18.2 4.18.3"),
    ] {
        let found = versions(&chosen(vec![wanted.clone()], &graphs).await).join(" ");
        assert_eq!(found, expected, "{wanted:?}");
    }
}

#[tokio::test]
async fn every_release_says_why_it_is_there() {
    let graphs = one_minor();
    let selection = chosen(vec![channel("stable-4.18", "", "")], &graphs).await;
    assert_eq!(why(&selection.releases[0]), "latest of stable-4.18");
    assert_eq!(selection.releases[0].why[0].line, 7);
    assert_eq!(selection.releases[0].tag(), "4.18.10-x86_64");
    let selection = chosen(vec![channel("stable-4.18", "4.18.2", "4.18.3")], &graphs).await;
    assert_eq!(why(&selection.releases[0]), "within 4.18.2 to 4.18.3 in stable-4.18");
    let selection = chosen(vec![shortest(channel("stable-4.18", "4.18.1", "4.18.10"))], &graphs).await;
    let expected = [
        "an end of the update path 4.18.1 to 4.18.10 in stable-4.18",
        "on the shortest update path 4.18.1 to 4.18.10 in stable-4.18",
        "an end of the update path 4.18.1 to 4.18.10 in stable-4.18",
    ];
    assert_eq!(selection.releases.iter().map(why).collect::<Vec<_>>(), expected);
    let json = serde_json::to_value(&selection.releases[1]).unwrap();
    assert_eq!(json["why"][0]["reason"], "on-path");
    assert_eq!(json["payload"], "quay.io/openshift-release-dev/ocp-release:4.18.3");
}

#[tokio::test]
async fn a_bound_beside_the_channel_is_told_with_its_neighbours() {
    let selection = chosen(vec![channel("stable-4.18", "4.18.0", "4.18.10")], &one_minor()).await;
    assert_eq!(
        selection.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["minVersion 4.18.0 is no version of stable-4.18 (nearest: 4.18.0-rc.1 and 4.18.1)"]
    );
}

#[tokio::test]
async fn intermediate_minors_come_from_their_own_channel_where_the_eus_channel_lacks_them() {
    let eus = graph("4.14.10 4.14.20 4.16.5 4.16.9", "4.14.10>4.14.20 4.16.5>4.16.9");
    let odd = graph("4.14.10 4.14.20 4.15.3 4.15.8", "4.14.10>4.15.3 4.14.20>4.15.8 4.14.10>4.15.8 4.15.3>4.15.8");
    let even = graph("4.15.3 4.15.8 4.16.5 4.16.9", "4.15.3>4.16.5 4.15.8>4.16.9 4.16.5>4.16.9");
    let graphs = texts(&[("eus-4.16", &eus), ("stable-4.15", &odd), ("stable-4.16", &even)]);
    for wanted in [shortest(channel("eus-4.16", "4.14.10", "4.16.9")), channel("eus-4.16", "4.14.10", "4.16.9")] {
        let ranges = !wanted.shortest_path;
        let selection = chosen(vec![wanted], &graphs).await;
        let found: Vec<String> = versions(&selection);
        assert_eq!(found.contains(&"4.16.5".to_owned()), ranges);
        let odd = selection.releases.iter().find(|r| r.version.to_string().starts_with("4.15")).unwrap();
        assert_eq!(odd.version.to_string(), "4.15.8");
        assert_eq!(why(odd), "intermediate minor version between 4.14.10 and 4.16.9, from stable-4.15");
        assert_eq!(odd.why[0].line, 7);
        assert!(!selection.notes.iter().any(Note::is_gap), "{:?}", selection.notes);
        let told = selection.notes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told, ["eus-4.16: the update from 4.14.10 to 4.16.9 goes through 4.15.8"]);
        assert_eq!(selection.answers.len(), 3, "what was asked is kept for loading without a network");
    }
    // Without those channels the gap is told.
    let alone = texts(&[("eus-4.16", &eus)]);
    let selection = chosen(vec![shortest(channel("eus-4.16", "4.14.10", "4.16.9"))], &alone).await;
    assert_eq!(versions(&selection), ["4.14.10", "4.16.9"]);
    assert_eq!(
        selection.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["no updates lead from 4.14.10 to 4.16.9 in eus-4.16; both are mirrored, but a cluster cannot go this way"]
    );
}

#[tokio::test]
async fn a_path_over_risks_is_taken_only_when_there_is_no_other_and_told() {
    let text = graph(
        "4.17.1 4.17.2 4.18.1 4.18.2 4.18.3",
        "4.17.1>4.17.2 4.17.1?4.18.2 4.17.2?4.18.1 4.18.1>4.18.3 4.18.2?4.18.3 4.18.2>4.18.3",
    );
    let graphs = texts(&[("stable-4.18", &text)]);
    let wanted = shortest(channel("stable-4.18", "4.17.1", "4.18.3"));
    let selection = chosen(vec![wanted.clone()], &graphs).await;
    // 4.18.2 is two hops, but both have risks: an update that is listed both ways is conditional.
    assert_eq!(versions(&selection), ["4.17.1", "4.17.2", "4.18.1", "4.18.3"]);
    assert_eq!(
        why(&selection.releases[2]),
        "on the shortest update path 4.17.1 to 4.18.3 in stable-4.18; the update to it has known risks: Risk4_18_1"
    );
    assert_eq!(selection.notes.len(), 1, "{:?}", selection.notes);
    assert!(matches!(&selection.notes[0], Note::Risky { risks, .. } if risks == &["Risk4_18_1"]));
    let careful = Wanted { avoid_risks: true, ..self::wanted(vec![wanted]) };
    let selection = select(&careful, &graphs).await.unwrap();
    assert_eq!(versions(&selection), ["4.17.1", "4.18.3"]);
    assert!(matches!(&selection.notes[0], Note::NoPath { avoided: true, .. }), "{:?}", selection.notes);
}

#[tokio::test]
async fn between_channels_a_newest_release_that_cannot_go_on_is_gone_around() {
    // 4.16.9 came out after 4.17.3: nothing leads on from it. oc-mirror stops there with a warning.
    let old = graph("4.16.5 4.16.8 4.16.9", "4.16.5>4.16.8 4.16.8>4.16.9 4.16.5>4.16.9");
    let new = graph("4.16.5 4.16.8 4.17.2 4.17.3", "4.16.5>4.16.8 4.16.8>4.17.3 4.17.2>4.17.3");
    let graphs = texts(&[("stable-4.16", &old), ("stable-4.17", &new)]);
    let channels = vec![channel("stable-4.16", "4.16.5", "4.16.5"), channel("stable-4.17", "4.17.3", "4.17.3")];
    let selection = chosen(channels, &graphs).await;
    assert_eq!(versions(&selection), ["4.16.5", "4.16.8", "4.16.9", "4.17.3"]);
    assert_eq!(why(&selection.releases[1]), "on the update path 4.16.5 to 4.17.3 across channels, from stable-4.16");
    assert!(!selection.notes.iter().any(Note::is_gap), "{:?}", selection.notes);
}

#[tokio::test]
async fn three_minors_apart_the_channels_between_are_asked_although_nobody_listed_them() {
    let a = graph("4.14.1 4.14.9", "4.14.1>4.14.9");
    let b = graph("4.14.9 4.15.5", "4.14.9>4.15.5");
    let c = graph("4.15.5 4.16.2", "4.15.5>4.16.2");
    let graphs = texts(&[("stable-4.14", &a), ("stable-4.15", &b), ("stable-4.16", &c)]);
    let channels = vec![channel("stable-4.14", "4.14.1", "4.14.1"), channel("stable-4.16", "", "")];
    let selection = chosen(channels.clone(), &graphs).await;
    assert_eq!(versions(&selection), ["4.14.1", "4.14.9", "4.15.5", "4.16.2"]);
    let without = texts(&[("stable-4.14", &a), ("stable-4.16", &c)]);
    let selection = chosen(channels, &without).await;
    assert!(selection.notes.iter().any(Note::is_gap), "{:?}", selection.notes);
}

#[tokio::test]
async fn okd_is_asked_at_its_own_service_and_takes_no_part_in_ways_between_channels() {
    let scos = graph("4.19.0-okd-scos.0 4.20.0-okd-scos.3", "4.19.0-okd-scos.0>4.20.0-okd-scos.3");
    let text = graph("4.18.1", "");
    let graphs = texts(&[("4-scos-stable", &scos), ("stable-4.18", &text)]);
    let okd = Channel { service: Service::Okd, ..channel("4-scos-stable", "", "") };
    let selection = chosen(vec![okd, channel("stable-4.18", "", "")], &graphs).await;
    assert_eq!(versions(&selection), ["4.18.1", "4.20.0-okd-scos.3"]);
    assert!(selection.notes.is_empty(), "{:?}", selection.notes);
    assert_eq!(selection.answers.iter().filter(|(query, _)| query.service == Service::Okd).count(), 1);
}

#[tokio::test]
async fn one_payload_of_two_channels_comes_once_with_both_reasons() {
    let text = graph("4.18.1 4.18.2", "4.18.1>4.18.2");
    let graphs = texts(&[("stable-4.18", &text), ("fast-4.18", &text)]);
    let selection = chosen(vec![channel("stable-4.18", "", ""), channel("fast-4.18", "", "")], &graphs).await;
    assert_eq!(versions(&selection), ["4.18.2"]);
    assert!(why(&selection.releases[0]).starts_with("latest of stable-4.18 | latest of fast-4.18"));
}

#[tokio::test]
async fn what_is_wrong_in_the_file_is_told_all_at_once_before_anybody_is_asked() {
    let nobody = Kept::default();
    let failures = refused(
        vec![
            channel("stable-4.18", "4.18", "4.18.x"),
            channel("Stable-4.18", "", ""),
            channel("stable-4.17", "4.17.9", "4.17.3"),
        ],
        &nobody,
    )
    .await;
    let told: Vec<String> = failures.errors().iter().map(ToString::to_string).collect();
    assert_eq!(
        told[0],
        "minVersion of channel `stable-4.18` (line 7): `4.18` is not a version: three numbers are needed, such as 4.18.3"
    );
    assert!(
        told[1].starts_with("maxVersion of channel `stable-4.18` (line 7): `4.18.x` is not a version"),
        "{}",
        told[1]
    );
    assert!(told[2].starts_with("`Stable-4.18` is no name of a channel"), "{}", told[2]);
    assert_eq!(told[3], "channel `stable-4.17` (line 7): minVersion 4.17.9 is above maxVersion 4.17.3");
    assert_eq!(Error::from(failures).kind(), ErrorKind::Invalid);
    let wrong = Wanted { architectures: vec!["arrgh64".into()], ..wanted(vec![channel("stable-4.18", "", "")]) };
    let error = Error::from(select(&wrong, &nobody).await.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.cause().contains("`arrgh64`") && error.hint_text().unwrap().contains("s390x"), "{error}");
}

#[tokio::test]
async fn an_unknown_channel_is_told_with_the_name_that_was_meant() {
    let listed = r#"{"nodes":[{"version":"4.18.1","payload":"quay.io/a/b:1","metadata":
        {"io.openshift.upgrades.graph.release.channels":"candidate-4.18,fast-4.18,stable-4.18,candidate-4.19"}}],"edges":[]}"#;
    let empty = r#"{"nodes":[],"edges":[]}"#;
    let graphs = texts(&[("stable-4.18", listed), ("stabel-4.18", empty), ("nightly-4.18", empty)]);
    let error = Error::from(refused(vec![channel("stabel-4.18", "", "")], &graphs).await);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        "choose releases: channel `stabel-4.18` (line 7): the test knows no release in it for amd64"
    );
    assert_eq!(error.hint_text(), Some("did you mean `stable-4.18`?"));
    let error = Error::from(refused(vec![channel("nightly-4.18", "", "")], &graphs).await);
    assert_eq!(error.hint_text(), Some("known are candidate-4.18, fast-4.18, stable-4.18"));
}

#[tokio::test]
async fn a_channel_without_this_architecture_says_which_it_has() {
    let text = graph("4.18.1", "");
    let files = [("s390x-stable-4.18.json", r#"{"nodes":[],"edges":[]}"#), ("amd64-stable-4.18.json", &text)];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned().into()));
    let graphs = Kept::new("the test", files.into());
    let wanted = Wanted { architectures: vec!["s390x".into()], ..wanted(vec![channel("stable-4.18", "", "")]) };
    let error = Error::from(select(&wanted, &graphs).await.unwrap_err());
    assert_eq!(error.cause(), "channel `stable-4.18` (line 7) has no release for s390x; it has for amd64");
}

#[tokio::test]
async fn versions_that_are_not_there_are_told_with_the_nearest() {
    let graphs = one_minor();
    let missing = refused(vec![shortest(channel("stable-4.18", "4.18.5", "4.18.10"))], &graphs).await;
    assert_eq!(
        missing.to_string(),
        "version 4.18.5 is not in channel `stable-4.18` (line 7); nearest: 4.18.3 and 4.18.10"
    );
    let empty = refused(vec![channel("stable-4.18", "4.18.4", "4.18.9")], &graphs).await;
    assert_eq!(
        empty.to_string(),
        "channel `stable-4.18` (line 7) has no version from 4.18.4 to 4.18.9; nearest: 4.18.3 and 4.18.10"
    );
    let above = refused(vec![channel("stable-4.18", "4.18.99", "")], &graphs).await;
    assert_eq!(
        above.to_string(),
        "channel `stable-4.18` (line 7) has no version from 4.18.99 to 4.18.10; nearest: 4.18.10"
    );
    assert_eq!(Error::from(above).kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_cause_is_never_hidden_behind_another() {
    let text = graph("4.18.1", "");
    let graphs = texts(&[("stable-4.18", &text), ("stable-4.17", "<html><title>Log in</title></html>")]);
    let channels =
        vec![channel("stable-4.18", "4.18.7", ""), channel("stable-4.17", "", ""), channel("stable-4.16", "", "")];
    let failures = refused(channels, &graphs).await;
    assert_eq!(failures.errors().len(), 3, "{failures}");
    let text = failures.to_string();
    for part in ["from 4.18.7 to 4.18.1", "a web page (`Log in`)", "the test holds no such graph"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_payload_that_is_no_reference_is_the_services_fault() {
    for (payload, shown) in [("not a reference", "`not a reference`"), ("", "``")] {
        let text = format!(r#"{{"nodes":[{{"version":"4.18.1","payload":"{payload}"}}],"edges":[]}}"#);
        let error = refused(vec![channel("stable-4.18", "", "")], &texts(&[("stable-4.18", &text)])).await;
        assert!(error.to_string().contains(shown), "{error}");
        assert_eq!(Error::from(error).kind(), ErrorKind::Server);
    }
}
