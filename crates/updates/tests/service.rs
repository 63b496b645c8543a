//! The client against a web server that answers well, badly, late and never.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use airlock_oci::{Error, ErrorKind};
use airlock_updates::{GraphClient, GraphData, Graphs, Options, Service, Wanted, select};
use support::{Reply, Server, channel, client, graph, graph_client, query};

const JSON: &str = "application/json";

fn ok(body: impl Into<Vec<u8>>) -> Reply {
    Reply::Status(200, JSON, body.into())
}

async fn ask(server: &Server) -> Result<usize, Error> {
    let client = graph_client(&format!("{}/api/upgrades_info/v1/graph", server.url));
    client.answer(&query("stable-4.18")).await.map(|answer| answer.graph.nodes().len())
}

#[tokio::test]
async fn a_question_is_what_every_update_service_understands() {
    let server = Server::start(|_, _| ok(graph("4.18.1", "")));
    let options = Options {
        url: Some(format!("{}/api/upgrades_info/v1/graph?tenant=a", server.url)),
        okd_url: Some(format!("{}/graph", server.url)),
        id: Some("01234567-0123-4123-8123-0123456789ab".into()),
        ..Options::default()
    };
    let client = GraphClient::new(client(0), &options).unwrap();
    let answer = client.answer(&query("stable-4.18")).await.unwrap();
    assert_eq!(answer.bytes, graph("4.18.1", ""));
    client.answer(&airlock_updates::Query { service: Service::Okd, ..query("4-scos-stable") }).await.unwrap();
    let log = server.log();
    let id = "id=01234567-0123-4123-8123-0123456789ab";
    let first = format!("GET /api/upgrades_info/v1/graph?tenant=a&arch=amd64&channel=stable-4.18&{id} HTTP/1.1");
    assert!(log[0].starts_with(&first), "{}", log[0]);
    assert!(log[0].to_lowercase().contains("\r\naccept: application/json\r\n"), "{}", log[0]);
    assert!(log[1].starts_with(&format!("GET /graph?arch=amd64&channel=4-scos-stable&{id} ")), "{}", log[1]);
}

#[tokio::test]
async fn passing_faults_are_tried_again_and_lasting_ones_are_not() {
    let server = Server::start(|number, _| match number {
        1 => Reply::Status(503, "text/plain", b"later".to_vec()),
        2 => Reply::Cut(graph("4.18.1", "").into()),
        _ => ok(graph("4.18.1", "")),
    });
    assert_eq!(ask(&server).await.unwrap(), 1);
    assert_eq!(server.log().len(), 3);

    let server = Server::start(|_, _| {
        let body = r#"{"kind":"invalid_params","value":"channel 'x' does not match regex"}"#;
        Reply::Status(400, JSON, body.into())
    });
    let error = ask(&server).await.unwrap_err();
    assert_eq!(server.log().len(), 1);
    let host = server.url.trim_start_matches("http://");
    assert_eq!(error.kind(), ErrorKind::Refused);
    let expected = format!("`{host}` answered 400 Bad Request: channel 'x' does not match regex");
    assert_eq!(error.cause(), expected);
    assert_eq!(error.what(), "read the update graph of channel `stable-4.18` for amd64");

    let server = Server::start(|_, _| Reply::Status(500, "text/plain", b"broken".to_vec()));
    let error = ask(&server).await.unwrap_err();
    assert_eq!((server.log().len(), error.kind()), (3, ErrorKind::Server));
    assert!(error.cause().contains("500 Internal Server Error: broken"), "{error}");
}

#[tokio::test]
async fn what_is_no_graph_is_named() {
    let server =
        Server::start(|_, _| Reply::Status(200, "text/html", b"<!doctype html><title>Proxy login</title>".to_vec()));
    let error = ask(&server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert!(error.cause().contains("web page (`Proxy login`)"), "{error}");
    assert!(error.hint_text().unwrap().contains("UPDATE_URL_OVERRIDE"));

    let server = Server::start(|_, _| Reply::Status(404, "text/plain", b"no such page".to_vec()));
    let error = ask(&server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server, "an address that is wrong is no missing channel");
    assert!(error.cause().contains("404 Not Found"), "{error}");

    let server = Server::start(|_, _| ok(vec![b' '; 33 * 1024 * 1024]));
    let error = ask(&server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.cause().contains("more than 33554432 bytes"), "{error}");
}

#[tokio::test]
async fn a_host_that_nobody_reaches_is_named_soon_and_asked_once_for_all_channels() {
    let dead = graph_client("http://127.0.0.1:1/graph");
    let wanted =
        Wanted { channels: vec![channel("stable-4.17", "", ""), channel("stable-4.18", "", "")], ..Wanted::default() };
    let error = Error::from(select(&wanted, &dead).await.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.cause().contains("127.0.0.1:1"), "{error}");
    assert!(error.what().contains("stable-4.17"), "{error}");
}

#[tokio::test]
async fn a_host_that_never_answers_is_given_up_within_half_a_minute() {
    let server = Server::start(|_, _| Reply::Silence);
    let client = graph_client(&format!("{}/graph", server.url));
    let error = client.answer(&query("stable-4.18")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    let host = server.url.trim_start_matches("http://");
    assert!(error.cause().contains(&format!("`{host}` gave no answer within 25 s")), "{error}");
    // The next question does not wait again: it is not asked.
    let asked = server.log().len();
    client.answer(&query("stable-4.17")).await.unwrap_err();
    assert_eq!(server.log().len(), asked);
}

#[tokio::test]
async fn addresses_that_cannot_be_asked_are_refused_at_once() {
    for bad in ["not an address", "ftp://host/graph", "https://", "/graph"] {
        let options = Options { url: Some(bad.into()), ..Options::default() };
        let error = GraphClient::new(client(0), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
        assert!(error.what().contains("UPDATE_URL_OVERRIDE"), "{error}");
    }
    let empty = GraphClient::new(client(0), &Options { url: Some(" ".into()), ..Options::default() }).unwrap();
    assert!(!empty.is_own());
    assert_eq!(empty.describe(), "https://api.openshift.com/api/upgrades_info/v1/graph");
}

#[tokio::test]
async fn graph_data_come_from_beside_the_graph_or_the_place_is_an_enclave() {
    let archive = [&[0x1F, 0x8B][..], b"rest"].concat();
    let body = archive.clone();
    let server = Server::start(move |_, path| match path {
        "/api/upgrades_info/graph-data" => Reply::Status(200, "application/gzip", body.clone()),
        _ => Reply::Status(404, "text/plain", Vec::new()),
    });
    // At the same scheme and host, whatever the path of the graph.
    let GraphData::Archive { bytes, from } = graph_client(&format!("{}/graph", server.url)).graph_data().await.unwrap()
    else {
        panic!("no archive")
    };
    assert_eq!((bytes.to_vec(), from), (archive.clone(), format!("{}/api/upgrades_info/graph-data", server.url)));

    let without = Server::start(|_, _| Reply::Status(404, "text/plain", Vec::new()));
    let own = graph_client(&format!("{}/graph", without.url)).graph_data().await.unwrap();
    assert!(matches!(own, GraphData::Enclave { cause } if cause.kind() == ErrorKind::NotFound));
    let unreachable = graph_client("http://127.0.0.1:1/graph").graph_data().await.unwrap();
    assert!(matches!(unreachable, GraphData::Enclave { cause } if cause.kind() == ErrorKind::Network));

    let with = |place: &str| {
        let options = Options { url: Some(without.url.clone()), graph_data: Some(place.into()), ..Options::default() };
        GraphClient::new(client(0), &options).unwrap()
    };
    // What was asked for by name must be there.
    assert_eq!(with(&format!("{}/x", without.url)).graph_data().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(with("/no/such/file").graph_data().await.unwrap_err().kind(), ErrorKind::NotFound);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("graph-data.tar.gz");
    std::fs::write(&file, &archive).unwrap();
    let path = file.display().to_string();
    for place in [path.clone(), format!("file://{path}")] {
        let GraphData::Archive { from, .. } = with(&place).graph_data().await.unwrap() else { panic!("no archive") };
        assert_eq!(from, path);
    }
    let page = Server::start(|_, _| Reply::Status(200, "text/html", b"\n<html>".to_vec()));
    let error = with(&format!("{}/graph-data", page.url)).graph_data().await.unwrap_err();
    assert!(error.cause().contains("a web page came instead"), "{error}");
}
