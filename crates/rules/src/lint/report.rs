//! Findings for other programs: SARIF 2.1.0.

use serde_json::{Value, json};

use super::catalogue::CATALOGUE;
use super::{Finding, catalogue};
use crate::problem::Severity;

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Information => "note",
    }
}

/// A SARIF log of one run.
pub fn sarif(findings: &[Finding], version: &str) -> Value {
    let rules: Vec<Value> = CATALOGUE
        .iter()
        .map(|check| {
            json!({
                "id": check.code,
                "shortDescription": { "text": check.title },
                "fullDescription": { "text": check.why },
                "help": { "text": check.fix },
                "defaultConfiguration": { "level": level(check.severity) },
            })
        })
        .collect();
    let results: Vec<Value> = findings.iter().map(result).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "airlock", "version": version, "rules": rules } },
            "results": results,
        }],
    })
}

fn result(finding: &Finding) -> Value {
    let index = CATALOGUE.iter().position(|check| check.code == finding.id).unwrap_or_default();
    let mut result = json!({
        "ruleId": finding.id,
        "ruleIndex": index,
        "level": level(finding.severity),
        "message": { "text": format!("{}. {}", finding.message, finding.fix) },
    });
    if !finding.file.is_empty() {
        let mut location = json!({ "artifactLocation": { "uri": finding.file } });
        if finding.line > 0 {
            location["region"] = json!({ "startLine": finding.line, "startColumn": finding.column.max(1) });
        }
        result["locations"] = json!([{ "physicalLocation": location }]);
    }
    result
}

/// One finding as people read it: place, code, message, what helps.
pub fn lines(finding: &Finding) -> String {
    let place = match (finding.file.as_str(), finding.line) {
        ("", _) => "rules".to_owned(),
        (file, 0) => file.to_owned(),
        (file, line) => format!("{file}:{line}:{}", finding.column.max(1)),
    };
    let object = finding.object.as_ref().map(|object| format!(" [{object}]")).unwrap_or_default();
    let fix = if finding.fixable { " (`--fix` does it)" } else { "" };
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>();
    format!(
        "{}[{}] {}: {}{object}\n  help: {}{fix}\n",
        finding.severity.as_str(),
        finding.id,
        clean(&place),
        clean(&finding.message),
        clean(&finding.fix)
    )
}

/// What a code means, for `--explain`.
pub fn explanation(code: &str) -> Option<String> {
    catalogue::find(code).map(|check| {
        format!(
            "{} ({}): {}\n\n{}\n\nWhat helps: {}\nLooks at {}.\n",
            check.code,
            check.severity.as_str(),
            check.title,
            check.why,
            check.fix,
            check.needs.describe()
        )
    })
}
