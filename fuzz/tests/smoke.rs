//! Every target over its corpus and a moment of mutation, so that a broken property shows in an ordinary test run.

use std::time::Duration;

use airlock_fuzz::{Features, MAX_INPUT_TIME, Target, corpus, corpus_folder, run, targets};

const MOMENT: Duration = Duration::from_millis(300);

#[test]
fn no_target_fails_in_a_moment() {
    for target in &targets::ALL {
        let inputs = corpus(&corpus_folder(target)).unwrap();
        assert!(inputs.len() >= 3, "{} has {} inputs", target.name, inputs.len());
        let report = run(target, &inputs, 1, MOMENT);
        assert!(report.finding.is_none(), "{}: {:?}", target.name, report.finding);
        assert!(report.executions >= inputs.len() as u64, "{}: {} executions", target.name, report.executions);
    }
}

#[test]
fn a_failing_target_is_noticed_and_its_input_kept() {
    let run_one = |input: &[u8], features: &mut Features| {
        assert!(!input.windows(3).any(|w| w == b"bad"), "it is bad");
        features.note(input.first());
    };
    let target = Target { name: "none", run: run_one, words: &[b"bad"] };
    let report = run(&target, &[b"good".to_vec()], 7, Duration::from_secs(120));
    let finding = report.finding.unwrap();
    assert!(finding.input.windows(3).any(|w| w == b"bad") && finding.message.contains("it is bad"));
}

#[test]
fn an_input_that_computes_too_long_is_a_finding_and_one_that_only_waits_is_not() {
    let waiting = |_: &[u8], _: &mut Features| std::thread::sleep(MAX_INPUT_TIME + Duration::from_millis(100));
    let target = Target { name: "waiting", run: waiting, words: &[] };
    assert!(run(&target, &[b"x".to_vec()], 7, Duration::ZERO).finding.is_none());
    // By this thread's clock: that of the wall would let it off where others compute at the same time.
    fn used() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }
    let computing = |_: &[u8], _: &mut Features| {
        let begun = used();
        while used().saturating_sub(begun) < MAX_INPUT_TIME + Duration::from_millis(100) {}
    };
    let target = Target { name: "computing", run: computing, words: &[] };
    let finding = run(&target, &[b"x".to_vec()], 7, Duration::ZERO).finding.unwrap();
    assert!(finding.message.contains("took"), "{}", finding.message);
}
