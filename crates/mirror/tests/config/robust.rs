//! Files that are none, that are too much, and that mean harm; the world's image sets.

use std::path::PathBuf;

use super::*;

#[test]
fn aliases_and_merge_keys_are_resolved() {
    let loaded = good(&isc(
        "additionalImages:\n- &a\n  name: quay.io/a/b:1\n  platforms: &p [linux/amd64]\n- <<: *a\n  targetTag: two\n- name: quay.io/a/c:1\n  platforms: *p",
    ));
    let images = &loaded.config.mirror.additional_images;
    assert_eq!((images.len(), images[1].name.text.as_str(), images[2].platforms.len()), (3, "quay.io/a/b:1", 1));
    let bomb: String = (1..40).map(|n| format!("- &a{n} [*a{0}, *a{0}]\n", n - 1)).collect();
    assert_eq!(one(&isc(&format!("samples:\n- &a0 [x]\n{bomb}"))).code, code::SYNTAX);
    assert_eq!(one(&isc("samples: &a [*a]")).code, code::SYNTAX);
}

#[test]
fn files_that_cannot_be_read_are_problems_too() {
    let folder = std::env::temp_dir().join(format!("airlock-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let missing = config::load(&folder.join("none.yaml")).unwrap_err();
    assert_eq!((missing.problems.0[0].code, missing.problems.0[0].line), (code::UNREADABLE, 0));
    assert!(missing.to_string().contains("none.yaml") && missing.to_string().contains("check the path"));
    let latin = folder.join("latin.yaml");
    std::fs::write(&latin, b"kind: x\nname: \xe9\n").unwrap();
    assert!(
        config::load(&latin).unwrap_err().to_string().contains("not UTF-8 text: the first wrong byte is in line 2")
    );
    let fine = folder.join("isc.yaml");
    std::fs::write(&fine, isc("helm:")).unwrap();
    let loaded = config::load(&fine).unwrap();
    assert_eq!((loaded.path, loaded.text), (fine, isc("helm:")));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn thousands_of_problems_are_cut_but_never_lost() {
    let untagged: String = (0..5_000).map(|n| format!("- name: quay.io/a/b{n}\n")).collect();
    let problems = bad(&isc(&format!("additionalImages:\n{untagged}"))).problems.0;
    assert_eq!(problems.len(), 501);
    assert!(problems[500].message.contains("there are 4500 errors more"));
    // Warnings beyond the limit do not hide an error that comes after them.
    let late = v1(&format!("additionalImages:\n{untagged}")) + "hlem: {}\n";
    assert_eq!(one(&late).line, 5_005);
    assert_eq!(good(&v1(&format!("additionalImages:\n{untagged}"))).warnings.len(), 501);
}

#[test]
fn a_value_as_long_as_the_file_is_not_repeated_in_full() {
    let long = "x".repeat(100_000);
    for text in
        [format!("additionalImages:\n- name: quay.io/{long}"), format!("{long}: 1"), format!("samples:\n- {long}")]
    {
        assert!(bad(&isc(&text)).to_string().len() < 4_000);
    }
}

#[test]
fn deep_nesting_is_refused_and_not_walked() {
    let deep = |n: usize| isc(&format!("samples: {}{}", "[".repeat(n), "]".repeat(n)));
    assert_eq!(one(&deep(200)).code, code::SYNTAX);
    assert_eq!(one(&deep(100_000)).code, code::SYNTAX);
    let by_alias: String = (1..200).map(|n| format!("- &a{n} [[[[[*a{}]]]]]\n", n - 1)).collect();
    let problem = one(&isc(&format!("samples:\n- &a0 x\n{by_alias}")));
    assert!(problem.message.contains("levels deep"), "{problem}");
}

#[test]
fn control_characters_of_a_file_never_reach_a_terminal() {
    let shown = bad(&isc("\"a\\e[31m\": \"\\e[2J\"")).to_string() + &bad("kind: \"\\e[2Jx\"\nmirror: {}").to_string();
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
}

fn shared(folder: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var_os("AIRLOCK_SHARED").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let path = shared.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    let demanded = std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_some_and(|v| v == "1");
    assert!(!demanded, "no {}", path.display());
    println!("skipped: no {}", path.display());
    None
}

#[test]
fn the_worlds_image_sets_parse_or_fail_as_expected() {
    let Some(folder) = shared("world/isc") else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        seen += 1;
        let id = path.file_stem().unwrap().to_str().unwrap();
        let refused = if id.starts_with("del-") {
            config::load_delete(&path).err().map(|e| e.to_string())
        } else {
            config::load(&path).err().map(|e| e.to_string())
        };
        // The errors that are expected of some need the catalog.
        assert_eq!(refused, None, "{id}");
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn ten_thousand_images_load() {
    let images: String = (0..10_000).map(|n| format!("- name: quay.io/team{}/app{n}:v1.{n}\n", n % 97)).collect();
    let loaded = good(&isc(&format!("additionalImages:\n{images}")));
    assert_eq!(loaded.config.mirror.additional_images[9_999].line, 10_004);
}

#[test]
fn mutated_configurations_never_panic() {
    let seed = isc(
        "platform:\n  channels:\n  - name: a\n    minVersion: 4.1.1\noperators:\n- catalog: a.io/b:1\n  packages: [{name: p}]\nadditionalImages:\n- &x {name: 'é/b:1'}\n- *x\nblockedImages:\n- name: a.*\n",
    );
    let bits: [&[u8]; 16] = [
        b":", b"- ", b"\n", b"  ", b"{", b"[", b"&x ", b"*x", b"|", b"\"", b"\t", b"<<: ", b"\xff", b"\0", b"!!str ",
        b"---\n",
    ];
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..20_000 {
        let mut bytes = seed.clone().into_bytes();
        for _ in 0..=random(6) {
            let at = random(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match random(3) {
                0 if !bytes.is_empty() => drop(bytes.remove(at)),
                0 => {}
                1 => drop(bytes.splice(at..at, bits[random(bits.len())].iter().copied())),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(problems) = config::parse("fuzz.yaml", &text) {
            assert!(!problems.to_string().is_empty());
        }
        let _ = config::parse_delete("fuzz.yaml", &text);
    }
}
