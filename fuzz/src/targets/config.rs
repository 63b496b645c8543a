//! ImageSetConfiguration and DeleteImageSetConfiguration.

use airlock_mirror::config::{self, Problem, Severity};

use super::magnitude;
use crate::{Features, Target};

pub(super) const TARGET: Target = Target {
    name: "config",
    run,
    words: &[
        b"kind: ImageSetConfiguration\n",
        b"kind: DeleteImageSetConfiguration\n",
        b"apiVersion: mirror.openshift.io/v1alpha2\n",
        b"mirror:\n",
        b"delete:\n",
        b"  additionalImages:\n  - name: quay.io/a/b:1\n",
        b"    targetRepo: a/b\n",
        b"    targetTag: c\n",
        b"  operators:\n  - catalog: a.io/b:1\n    packages:\n    - name: p\n",
        b"      channels:\n      - name: c\n",
        b"minVersion: '1.2.3'\n",
        b"platforms: [linux/amd64]\n",
        b"  blockedImages:\n  - name: 'a.*'\n",
        b"  helm:\n    local:\n    - path: x\n",
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"!!str ",
        b"|\n",
        b"? ",
        b"---\n",
        b"{",
        b"[",
        b"\t",
        b"\xEF\xBB\xBF",
        b"\r\n",
    ],
};

fn check(problems: &[Problem], text: &str, features: &mut Features) {
    let lines = u32::try_from(text.len()).unwrap_or(u32::MAX).saturating_add(2);
    for problem in problems {
        assert!(problem.line <= lines && !problem.message.is_empty());
        let shown = problem.to_string();
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "nothing for a terminal to obey");
        assert!(shown.len() < 8 * 1024, "messages stay short");
        // The words before the first value are the kind of the message.
        let kind: Vec<&str> = problem.message.split([' ', '`', '"']).take_while(|w| !w.is_empty()).take(5).collect();
        features.note((problem.code, kind.join(" ").replace(char::is_numeric, ""), problem.hint.is_some()));
    }
    features.note(("problems", magnitude(problems.len())));
}

fn run(input: &[u8], features: &mut Features) {
    let text = String::from_utf8_lossy(input);
    match config::parse("isc.yaml", &text) {
        Ok(loaded) => {
            assert!(loaded.warnings.iter().all(|w| w.severity == Severity::Warning));
            check(&loaded.warnings, &text, features);
            let mirror = &loaded.config.mirror;
            let counts = [mirror.operators.len(), mirror.additional_images.len(), mirror.blocked_images.len()];
            features.note(counts.map(magnitude));
        }
        Err(problems) => {
            assert!(problems.problems.0.iter().any(|p| p.severity == Severity::Error), "an error says why");
            check(&problems.problems.0, &text, features);
        }
    }
    if let Err(problems) = config::parse_delete("disc.yaml", &text) {
        check(&problems.problems.0, &text, features);
    }
}
