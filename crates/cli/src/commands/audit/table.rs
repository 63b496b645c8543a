//! An audit for people.

use airlock_rules::audit::{Audit, Finding};
use airlock_rules::node::Report;
use airlock_rules::usage::Images;

use crate::exit::Failure;
use crate::output::{self, table};

/// Users of an image that are named; the rest is counted.
const MAX_USERS: usize = 3;

/// Rules that serve nothing and are named; the rest is counted.
const MAX_UNUSED: usize = 10;

/// Prints everything, or only what is not as it should be.
pub(super) fn print(
    audit: &Audit,
    images: &Images,
    node: Option<&Report>,
    gaps_only: bool,
    checked: bool,
) -> Result<(), Failure> {
    let mut text = String::new();
    if let Some(node) = node {
        text.push_str(&of_node(node));
    }
    let shown: Vec<&Finding> = audit.findings().iter().filter(|f| !gaps_only || f.verdict().is_gap()).collect();
    if !shown.is_empty() {
        let rows: Vec<Vec<String>> = shown.iter().map(|finding| row(finding, images)).collect();
        text.push_str(&table(&["VERDICT", "IMAGE", "PULLED FROM", "USED BY", "WHY"], &rows));
    }
    if !audit.findings().is_empty() {
        let summary = audit.summary(images);
        let by: Vec<String> = summary.by_verdict.iter().map(|(v, count)| format!("{count} {}", v.as_str())).collect();
        text.push_str(&format!("\n{} images in {} places: {}\n", summary.images, summary.uses, by.join(", ")));
        if !audit.unused().is_empty() {
            let more = audit.unused().len().saturating_sub(MAX_UNUSED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let named: Vec<&str> = audit.unused().iter().take(MAX_UNUSED).map(String::as_str).collect();
            text.push_str(&format!("rules that serve none of them: {}{more}\n", named.join(", ")));
        }
        if !checked {
            text.push_str("whether the mirrors have them was not asked (--check-mirror)\n");
        }
    }
    output::text(&text)
}

fn row(finding: &Finding, images: &Images) -> Vec<String> {
    let image = &images.images()[finding.image];
    let from = finding.endpoints.iter().find(|e| !e.blocked).map_or("-", |e| e.reference.as_str());
    let mut why = finding.detail.clone();
    if let Some(check) = &finding.check {
        let said = match (&check.running, check.detail.as_str()) {
            (Some(running), detail) => format!("{detail}: {running}"),
            (None, detail) => detail.to_owned(),
        };
        why = [why, said].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
    }
    vec![
        finding.verdict().as_str().to_owned(),
        clean(image.text()),
        from.to_owned(),
        clean(&users(images, finding.image)),
        clean(&why),
    ]
}

fn users(images: &Images, image: usize) -> String {
    let image = &images.images()[image];
    let mut named: Vec<String> = Vec::new();
    for user in images.users(image) {
        let text = user.to_string();
        if !named.contains(&text) {
            named.push(text);
        }
        if named.len() == MAX_USERS {
            break;
        }
    }
    let more = image.uses().saturating_sub(named.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

fn of_node(node: &Report) -> String {
    let present = |yes: bool| if yes { "present" } else { "absent" }.to_owned();
    let rows: Vec<Vec<String>> = node
        .items
        .iter()
        .map(|item| vec![item.item.to_owned(), present(item.present), format!("/{}", item.path), clean(&item.holds)])
        .collect();
    let mut text = table(&["NODE", "IS", "WHERE", "HOLDS"], &rows);
    if !node.mirrors.is_empty() {
        let rows: Vec<Vec<String>> = node
            .mirrors
            .iter()
            .map(|mirror| {
                let certificates =
                    if mirror.insecure { "not checked" } else { mirror.certificates.as_deref().unwrap_or("-") };
                vec![mirror.host.clone(), clean(mirror.credential.as_deref().unwrap_or("-")), certificates.to_owned()]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(&["MIRROR", "CREDENTIAL", "CERTIFICATES"], &rows));
    }
    text.push('\n');
    for finding in &node.findings {
        let (severity, code) = (finding.severity.as_str(), finding.code);
        text.push_str(&format!("{severity}[{code}]: /{}: {}\n", finding.path, clean(&finding.message)));
        if !finding.hint.is_empty() {
            text.push_str(&format!("help: {}\n", finding.hint));
        }
    }
    if !node.findings.is_empty() {
        text.push('\n');
    }
    text
}

/// A terminal must not obey what a dump says.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
