//! The unit that keeps a registry running, hardened.

use std::path::Path;

use super::settings::{Root, Scope, Settings};

/// Ports below this need a capability.
const FIRST_FREE_PORT: u16 = 1024;
/// Longer than the registry takes to let requests under way finish.
const STOP_SECONDS: u32 = 60;

/// What both kinds of units have: a user's systemd can do this without rights of its own.
const EVERYWHERE: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
";

/// What only the machine's systemd can do.
const SYSTEM: &str = "\
ProtectSystem=strict
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
";

/// The text of the unit's file.
pub fn unit(settings: &Settings, root: &Root) -> String {
    let is_system = settings.service.scope == Scope::System;
    let mut command = vec![quoted(&settings.service.program.display().to_string())];
    command.extend(settings.arguments(root).iter().map(|argument| quoted(argument)));
    let mut out = format!("[Unit]\nDescription=Airlock registry at {}\n", escaped(&settings.url()));
    if is_system {
        out.push_str("Wants=network-online.target\nAfter=network-online.target local-fs.target\n");
    }
    out.push_str(&format!("RequiresMountsFor={} {}\n", path(root.path()), path(&settings.storage)));
    // A disk that comes back after an hour finds a registry that still tries.
    out.push_str("StartLimitIntervalSec=0\n\n[Service]\nType=exec\n");
    out.push_str(&format!("ExecStart={}\n", command.join(" ")));
    out.push_str(&format!(
        "Restart=always\nRestartSec=2\nTimeoutStopSec={STOP_SECONDS}\nLimitNOFILE=65536\nUMask=0027\n"
    ));
    if let Some(user) = &settings.service.user {
        out.push_str(&format!("User={user}\nGroup={user}\n"));
    }
    if is_system {
        if settings.listen.port() < FIRST_FREE_PORT {
            out.push_str("AmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n");
        } else {
            out.push_str("CapabilityBoundingSet=\n");
        }
        out.push_str(SYSTEM);
        let used = [root.path(), &settings.storage, &settings.service.program];
        let is_below = |folders: &[&str]| used.iter().any(|path| folders.iter().any(|folder| path.starts_with(folder)));
        let is_at_home = is_below(&["/home", "/root", "/run/user"]);
        out.push_str(if is_at_home { "ProtectHome=read-only\n" } else { "ProtectHome=yes\n" });
        // A private one would hide what lies there.
        if !is_below(&["/tmp", "/var/tmp"]) {
            out.push_str("PrivateTmp=yes\n");
        }
        out.push_str(&format!("ReadWritePaths={} {}\n", path(&root.tls()), path(&settings.storage)));
    }
    out.push_str(EVERYWHERE);
    let target = if is_system { "multi-user.target" } else { "default.target" };
    out.push_str(&format!("\n[Install]\nWantedBy={target}\n"));
    out
}

/// Whether the text of a unit's file starts the registry of this root. Two registries differ in their folder of certificates for certain:
/// names, ports and even the storage may be shared or may have been another's before.
pub fn is_for(text: &str, root: &Root) -> bool {
    text.contains(&format!(" --tls-folder {} ", quoted(&root.tls().display().to_string())))
}

/// One word of a command for a shell, for those who start it by hand.
pub fn for_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.contains(['[', ']']) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// One word of a command for systemd.
fn quoted(word: &str) -> String {
    let text = escaped(word).replace('$', "$$");
    if text.contains([' ', '\t', '\'', '"', ';', '\\']) || text.is_empty() {
        return format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    }
    text
}

/// A path in a list of paths.
fn path(path: &Path) -> String {
    let text = escaped(&path.display().to_string());
    if text.contains([' ', '\t', '\'', '"', '\\']) {
        return format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    }
    text
}

/// systemd replaces what begins with `%`.
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::settings;
    use super::*;

    fn lines(settings: &Settings) -> Vec<String> {
        unit(settings, &Root::at(Path::new("/var/lib/a registry")).unwrap()).lines().map(str::to_owned).collect()
    }

    fn has(lines: &[String], line: &str) -> bool {
        lines.iter().any(|l| l == line)
    }

    #[test]
    fn the_machines_unit_is_locked_in() {
        let mut settings = settings(Scope::System, Some("airlock-registry"));
        let unit = lines(&settings);
        for line in [
            "User=airlock-registry",
            "CapabilityBoundingSet=",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "NoNewPrivileges=yes",
            "ReadWritePaths=\"/var/lib/a registry/tls\" \"/var/lib/a registry/storage\"",
            "WantedBy=multi-user.target",
        ] {
            assert!(has(&unit, line), "{line} is not in\n{}", unit.join("\n"));
        }
        assert!(unit.iter().any(|line| line.starts_with(
            "ExecStart=/usr/local/bin/airlock-registry registry serve --root \"/var/lib/a registry/storage\" --listen"
        )));
        settings.listen.set_port(443);
        settings.storage = "/root/storage".into();
        assert!(has(&lines(&settings), "PrivateTmp=yes"));
        settings.service.program = "/tmp/airlock".into();
        let unit = lines(&settings);
        assert!(!has(&unit, "PrivateTmp=yes"));
        assert!(has(&unit, "AmbientCapabilities=CAP_NET_BIND_SERVICE") && has(&unit, "ProtectHome=read-only"));
    }

    #[test]
    fn a_users_unit_asks_for_nothing_that_a_user_cannot_have() {
        let unit = lines(&settings(Scope::User, None));
        assert!(has(&unit, "WantedBy=default.target") && has(&unit, "SystemCallFilter=@system-service"));
        for needs_rights in ["ProtectSystem", "PrivateTmp", "User=", "CapabilityBoundingSet", "network-online"] {
            assert!(!unit.iter().any(|line| line.contains(needs_rights)), "{needs_rights}");
        }
    }

    #[test]
    fn a_unit_is_known_by_its_root_and_by_no_part_of_it() {
        let root = |path: &str| Root::at(Path::new(path)).unwrap();
        for path in ["/srv/registry", "/srv/a registry", "/srv/100%"] {
            let text = unit(&settings(Scope::System, None), &root(path));
            assert!(is_for(&text, &root(path)), "{path}");
            for other in ["/registry", "/srv/a", "/srv/registry/tls", "/srv/registry2", "/srv/100%%"] {
                assert!(!is_for(&text, &root(other)), "{path} {other}");
            }
        }
    }

    #[test]
    fn words_stay_words() {
        for (word, systemd, shell) in [
            ("plain-1.0", "plain-1.0", "plain-1.0"),
            ("a b", "\"a b\"", "'a b'"),
            ("50%", "50%%", "'50%'"),
            ("$HOME", "$$HOME", "'$HOME'"),
            ("it's", "\"it's\"", r"'it'\''s'"),
            ("a\"b\\", "\"a\\\"b\\\\\"", "'a\"b\\'"),
            ("", "\"\"", "''"),
            ("[::]:8443", "[::]:8443", "'[::]:8443'"),
        ] {
            assert_eq!((quoted(word).as_str(), for_shell(word).as_str()), (systemd, shell), "{word}");
        }
    }
}
