//! Every target over its corpus and a moment of mutation, so that a broken property shows in an ordinary test run.

use std::time::Duration;

use airlock_fuzz::{Features, Target, corpus, corpus_folder, run, targets};

const MOMENT: Duration = Duration::from_millis(300);

#[test]
fn no_target_fails_in_a_moment() {
    for target in &targets::ALL {
        let inputs = corpus(&corpus_folder(target)).unwrap();
        assert!(inputs.len() >= 3, "{} has {} inputs", target.name, inputs.len());
        let report = run(target, &inputs, 1, MOMENT);
        assert!(report.finding.is_none(), "{}: {:?}", target.name, report.finding);
        assert!(report.executions > inputs.len() as u64, "{}: {} executions", target.name, report.executions);
    }
}

#[test]
fn a_failing_target_is_noticed_and_its_input_kept() {
    let run_one = |input: &[u8], features: &mut Features| {
        assert!(!input.windows(3).any(|w| w == b"bad"), "it is bad");
        features.note(input.first());
    };
    let target = Target { name: "none", run: run_one, words: &[b"bad"] };
    let report = run(&target, &[b"good".to_vec()], 7, Duration::from_secs(20));
    let finding = report.finding.unwrap();
    assert!(finding.input.windows(3).any(|w| w == b"bad") && finding.message.contains("it is bad"));
}
