use super::*;

fn auth(text: &str) -> String {
    STANDARD.encode(text)
}

fn secret(entries: &[(&str, &str)]) -> PullSecret {
    let entries: Vec<String> = entries.iter().map(|(k, v)| format!("\"{k}\": {{\"auth\": \"{}\"}}", auth(v))).collect();
    PullSecret::parse("secret.json", &format!("{{\"auths\": {{{}}}}}", entries.join(", "))).ok().unwrap()
}

fn problems(text: &str) -> Vec<Problem> {
    PullSecret::parse("f.json", text).err().map(|p| p.0).unwrap_or_default()
}

/// The character under the first caret of what is shown.
fn under_caret(problem: &Problem) -> char {
    let shown = problem.to_string();
    let lines: Vec<&str> = shown.lines().collect();
    let caret = lines[4].find('^').unwrap();
    lines[3].chars().nth(caret).unwrap_or('$')
}

#[test]
fn mistakes_of_the_trade_are_shown_at_their_place() {
    let a = auth("user:hunter2");
    let cases = [
        (format!(r#"{{"auths":{{"quay.io":{{"auth":"{a}"}},"m.lab:5000"{{"auth":"{a}"}}}}}}"#), '{', "colon"),
        (format!(r#"{{"auths":{{"quay.io":{{"auth":"{a}"}} "m.lab":{{"auth":"{a}"}}}}}}"#), '"', "comma is missing"),
        (format!(r#"{{"auths":{{"quay.io":{{"auth":"{a}"}},}}}}"#), ',', "comma after the last"),
        (format!(r#"{{"auths":{{"quay.io":{{"auth":"{a}"}}}}}},"m.lab":{{"auth":"{a}"}}}}"#), ',', "too many"),
        (format!(r#"{{"auths":{{"quay.io":{{"auth":"{a}"}}}}}}}}"#), '}', "too many"),
        (r#"{"auths":{"brew.registry.redhat.io":{"xx=="}}}"#.to_owned(), '"', "no value"),
        (format!(r#"{{"auths":{{"quay.io":{{"auth":{a}}}}}}}"#), '*', "double quotes"),
        (format!(r#"{{'auths':{{"quay.io":{{"auth":"{a}"}}}}}}"#), '*', "double quotes"),
        (r#"{"auths":{"quay.io":"#.to_owned(), '$', "missing"),
        (format!(r#"{{"auths":{{"quay.io":{{"auth":"{a}}}}}}}"#), '*', "not closed"),
        (format!(r#"$ {{"auths":{{"quay.io":{{"auth":"{a}"}}}}}}"#), '$', "begin with"),
        (r#"["auths"]"#.to_owned(), '[', "begin with"),
        (r#"{"auths":[]}"#.to_owned(), '[', "must be an object"),
        (r#"{"auths":{"quay.io":"x"}}"#.to_owned(), '"', "must be an object"),
        (r#"{"items":{}}"#.to_owned(), '{', "no `auths`"),
    ];
    for (text, sign, word) in cases {
        let found = problems(&text);
        let first = found.first().unwrap_or_else(|| panic!("{text} was taken"));
        assert!(first.message.contains(word), "{text}: {first}");
        assert_eq!(under_caret(first), sign, "{first}");
        for problem in found {
            let shown = problem.to_string();
            assert!(!shown.contains(&a) && !shown.contains("hunter2"), "{shown}");
        }
    }
}

#[test]
fn a_break_in_base64_is_one_mistake_and_shows_nothing() {
    let a = auth("user:a-very-long-password-that-base64-wraps-when-it-is-not-told-otherwise");
    let (one, two) = a.split_at(40);
    let found = problems(&format!("{{\"auths\":{{\"m.lab\":{{\"auth\":\"{one}\n{two}\"}}}}}}"));
    assert_eq!(found.len(), 1);
    assert!(found[0].hint.as_deref().unwrap().contains("base64 -w0"));
    assert!(!found[0].to_string().contains(&one[..8]) && !found[0].to_string().contains(&two[..8]));
    // Broken further on: the second line begins within a text.
    let found = problems(&format!("{{\"auths\":{{\"m.lab\":{{\"auth\":\"{one}\n{two}\" \"email\":\"x\"}}}}}}"));
    assert!(found.iter().all(|p| !p.to_string().contains(&two[..8])), "{found:?}");
}

#[test]
fn several_mistakes_are_told_at_once() {
    let a = auth("u:p");
    let text = format!("{{\"auths\":{{\n\"a.io\"{{\"auth\":\"{a}\"}}\n\"b.io\":{{\"auth\":\"{a}\"}},\n}}}}");
    let lines: Vec<_> = problems(&text).iter().map(|p| (p.line, p.column)).collect();
    assert_eq!(lines, [(2, 7), (3, 1), (3, 23)]);
}

#[test]
fn keys_are_looked_up_from_the_longest() {
    let secret = secret(&[("m.lab:5000", "a:b"), ("m.lab:5000/team/", "c:d"), ("https://index.docker.io/v1/", "e:f")]);
    assert_eq!(secret.key_for("m.lab:5000/team/app").unwrap(), "m.lab:5000/team/");
    assert_eq!(secret.key_for("m.lab:5000/other/app").unwrap(), "m.lab:5000");
    assert_eq!(secret.key_for("docker.io/library/busybox").unwrap(), "https://index.docker.io/v1/");
    assert_eq!(secret.key_for("m.lab/team/app"), None);
}

#[test]
fn adding_and_removing_leaves_the_rest() {
    let text = r#"{"credHelpers": {"x.io": "h"}, "auths": {"quay.io": {"email": "me@x", "auth": "YTpi"}}, "extra": [1.50, null]}"#;
    let mut secret = PullSecret::parse("f", text).ok().unwrap();
    let change = secret.add("https://m.lab:5000/", "robot", "hunter2:x", None).unwrap();
    assert_eq!((change.registry.as_str(), change.action), ("m.lab:5000", Action::Added));
    let change = secret.add("quay.io", "a", "new", None).unwrap();
    assert_eq!((change.action, change.fields), (Action::Changed, vec!["password".to_owned()]));
    let written = secret.to_json();
    assert!(written.contains("\"extra\": [\n    1.50,\n    null\n  ]") && written.contains("me@x"), "{written}");
    assert!(written.contains(&auth("robot:hunter2:x")));
    assert!(secret.remove("m.lab:5000").is_some() && secret.remove("m.lab:5000").is_none());
    let mut back = PullSecret::parse("f", &secret.to_json()).ok().unwrap();
    back.add("quay.io", "a", "b", None).unwrap();
    assert!(back.diff(&PullSecret::parse("f", text).ok().unwrap()).is_empty());
    for bad in ["", "HOST NAME", "m.lab/Team", "-x"] {
        assert!(secret.add(bad, "u", "p", None).is_err(), "{bad}");
    }
    assert!(secret.add("m.lab", "u:v", "p", None).is_err());
}

#[test]
fn merging_refuses_what_differs_unless_told() {
    let base = secret(&[("a.io", "u:1"), ("b.io", "u:1")]);
    let more = secret(&[("b.io/", "u:2"), ("c.io", "u:1")]);
    let Err(Conflicts(conflicts)) = base.clone().merge(&more, Conflict::Refuse) else { panic!("it was merged") };
    assert_eq!(
        (conflicts[0].registry.as_str(), conflicts[0].fields.as_slice()),
        ("b.io", &["password".to_owned()][..])
    );
    let mut replaced = base.clone();
    let changes = replaced.merge(&more, Conflict::Replace).unwrap();
    assert_eq!(
        changes.iter().map(|c| (c.registry.as_str(), c.action)).collect::<Vec<_>>(),
        [("b.io", Action::Changed), ("c.io", Action::Added)]
    );
    assert!(replaced.diff(&secret(&[("a.io", "u:1"), ("b.io", "u:2"), ("c.io", "u:1")])).is_empty());
    let mut kept = base.clone();
    assert_eq!(kept.merge(&more, Conflict::Keep).unwrap().len(), 1);
    assert!(kept.diff(&secret(&[("a.io", "u:1"), ("b.io", "u:1"), ("c.io", "u:1")])).is_empty());
}

#[test]
fn what_will_not_work_is_said() {
    let text = format!(
        r#"{{"auths": {{"a.io": {{"auth": "!"}}, "b.io": {{"auth": "{}"}}, "c.io": {{}}, "d.io": {{"username": "u", "password": "hunter2"}},
"https://e.io/v1/": {{"auth": "{}"}}, "e.io": {{"auth": "{}"}}, "f.io/ns/": {{"auth": "{}"}}}}}}"#,
        auth("nocolon"),
        auth("u:1"),
        auth("u:2"),
        auth("push:hunter2")
    );
    let secret = PullSecret::parse("f.json", &text).ok().unwrap();
    let codes = |pushes: Option<&PullSecret>| secret.check(pushes).iter().map(|p| (p.code, p.line)).collect::<Vec<_>>();
    let expected = [
        (code::AUTH, 1),
        (code::AUTH, 1),
        (code::EMPTY, 1),
        (code::NO_AUTH, 1),
        (code::SPELLING, 2),
        (code::TWICE, 2),
        (code::SPELLING, 2),
    ];
    assert_eq!(codes(None), expected);
    let pushes = super::tests::secret(&[("m.lab", "push:hunter2")]);
    assert_eq!(codes(Some(&pushes)).last(), Some(&(code::PUSHES, 2)));
    let all = secret.check(Some(&pushes)).iter().map(ToString::to_string).collect::<String>();
    assert!(!all.contains("hunter2") && !all.contains(&auth("push:hunter2")));
    let clean = super::tests::secret(&[("a.io", "u:1"), ("b.io:5000/x", "u:2")]);
    assert!(clean.check(None).is_empty());
    assert_eq!(super::tests::secret(&[("a.io", "u:1"), ("b.io", "u:1")]).listings()[0].same_as, ["b.io"]);
}

#[test]
fn a_secret_object_is_opened() {
    let plain = secret(&[("m.lab:5000", "u:p")]);
    let yaml = PullSecret::parse("s.yaml", &plain.to_secret()).ok().unwrap();
    assert!(yaml.diff(&plain).is_empty() && yaml.listings().len() == 1);
    let json =
        format!("{{\"kind\":\"Secret\",\"data\":{{\".dockerconfigjson\":\"{}\"}}}}", STANDARD.encode(plain.to_json()));
    assert!(PullSecret::parse("s.json", &json).ok().unwrap().diff(&plain).is_empty());
    let broken = format!("kind: Secret\ndata:\n  .dockerconfigjson: {}\n", STANDARD.encode("{\"auths\":{\"a.io\"{}}}"));
    let problem = &PullSecret::parse("s.yaml", &broken).err().unwrap().0[0];
    assert_eq!((&*problem.file, problem.column), ("s.yaml (.dockerconfigjson)", 17));
    assert!(PullSecret::parse("s.yaml", "kind: Secret\ndata: {}\n").is_err());
}

#[test]
fn the_example_of_the_book_is_shown_with_its_missing_colon() {
    let shared = std::env::var("AIRLOCK_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").to_owned());
    let path = std::path::Path::new(&shared).join("seeds/002_9e849fe5bee6e29f.txt");
    let Ok(book) = std::fs::read_to_string(&path) else {
        assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "{} is missing", path.display());
        eprintln!("skipped: {} is missing", path.display());
        return;
    };
    let line = book.lines().find(|l| l.starts_with("$ {\"auths\":")).unwrap();
    let literal = &line[2..];
    let wanted =
        literal.find("\"registry.connect.redhat.com\"{").unwrap() + "\"registry.connect.redhat.com\"".len() + 1;
    let found = problems(literal);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].line, found[0].column as usize, under_caret(&found[0])), (1, wanted, '{'));
    // With the shell prompt in front both are told.
    assert_eq!(problems(line).iter().map(|p| p.column as usize).collect::<Vec<_>>(), [1, wanted + 2]);
    let template = book.lines().find_map(|l| l.find("{\"auths\":{\"<local_registry>\"").map(|at| &l[at..])).unwrap();
    let found = problems(template);
    assert!(found[0].message.contains("too many"), "{}", found[0]);
    assert_eq!(under_caret(&found[0]), ',');
}

proptest::proptest! {
    #[test]
    fn whatever_is_written_comes_back(
        entries in proptest::collection::vec(("[a-z]{1,8}\\.io(:[0-9]{2,4})?", "[a-z]{1,5}:\\PC{0,12}"), 0..6)
    ) {
        let mut made = PullSecret::empty();
        for (key, value) in &entries {
            let (user, password) = value.split_once(':').unwrap();
            made.add(key, user, password, None).unwrap();
        }
        let back = PullSecret::parse("f", &made.to_json()).ok().unwrap();
        proptest::prop_assert!(made.diff(&back).is_empty() && back.to_json() == made.to_json());
        let json: serde_json::Value = serde_json::from_str(&made.to_json()).unwrap();
        proptest::prop_assert_eq!(json["auths"].as_object().unwrap().len(), made.listings().len());
    }

    #[test]
    fn what_serde_json_takes_we_take_and_the_reverse(text in "[\\[\\]{}:,\"a1.\\\\ \n-]{0,40}") {
        let ours = json::parse(&text);
        let whole = format!("{{\"auths\":{{}},\"x\":{text}}}");
        if serde_json::from_str::<serde_json::Value>(&whole).is_ok() {
            proptest::prop_assert!(json::parse(&whole).1.is_empty(), "{}", whole);
        }
        if ours.1.is_empty() {
            proptest::prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn no_mistake_shows_a_secret(cut in 0usize..200, sign in "[\\[\\]{}:,\"' \nx]{0,2}") {
        const SECRET: &str = "Q29ycmVjdEhvcnNlQmF0dGVyeVN0YXBsZQ==";
        let text = format!("{{\"auths\": {{\"quay.io\": {{\"auth\": \"{SECRET}\", \"email\": \"me@x.io\"}}, \"m.lab:5000/ns\": {{\"auth\": \"{SECRET}\"}}}}}}");
        let cut = cut.min(text.len());
        let broken = format!("{}{sign}{}", &text[..cut], &text[cut..]);
        for problem in problems(&broken) {
            let shown = problem.to_string();
            for piece in SECRET.as_bytes().windows(8) {
                proptest::prop_assert!(!shown.contains(std::str::from_utf8(piece).unwrap()), "{}", shown);
            }
        }
    }
}
