//! The programs that a release ships: in which component's image each lies, and what is written into it (updates-and-releases.md 7.3).
//!
//! An installer or client taken out of the *mirrored* release must name that release: so the release's name is written into slots that the
//! program keeps for it.

use std::io::{self, Read, Write};

use airlock_oci::{Error, ErrorKind};

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// The client.
    Oc,
    /// The client for this RHEL.
    OcRhel(u8),
    /// The installer.
    Install,
    /// The installer with libvirt, for bare metal.
    BaremetalInstall,
    /// The installer that uses the system's certified cryptography.
    FipsInstall,
    /// Credentials in clouds.
    Ccoctl,
    /// The same, for this RHEL.
    CcoctlRhel(u8),
}

/// Where a program is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The operating system.
    pub os: Os,
    /// Go's name of the architecture; `None`: the release's.
    pub architecture: Option<String>,
}

/// The operating systems that programs are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Os {
    /// Linux.
    Linux,
    /// macOS.
    Mac,
    /// Windows.
    Windows,
}

/// Where a program lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The component.
    pub component: &'static str,
    /// Go's name of the architecture of the image that is meant, where its index has several.
    pub architecture: Option<String>,
    /// The file in it.
    pub path: String,
    /// What it is called outside.
    pub file_name: String,
}

/// A place that a program keeps for something that is known only when the release is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The release image, by digest.
    Image,
    /// The version.
    Version,
    /// The platform.
    Architecture,
}

/// Bytes that are read at once while a program is copied.
const BUFFER_BYTES: usize = 256 * 1024;

impl Tool {
    /// All programs, by the names that `oc adm release extract --command` takes.
    pub const ALL: [(&'static str, Self); 9] = [
        ("oc", Self::Oc),
        ("oc.rhel8", Self::OcRhel(8)),
        ("oc.rhel9", Self::OcRhel(9)),
        ("openshift-install", Self::Install),
        ("openshift-baremetal-install", Self::BaremetalInstall),
        ("openshift-install-fips", Self::FipsInstall),
        ("ccoctl", Self::Ccoctl),
        ("ccoctl.rhel8", Self::CcoctlRhel(8)),
        ("ccoctl.rhel9", Self::CcoctlRhel(9)),
    ];

    /// The program of this name.
    pub fn named(name: &str) -> Result<Self, Error> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, tool)| *tool).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            Error::new(ErrorKind::Invalid, format!("extract `{name}`"), "releases have no program of this name")
                .hint(format!("one of {}", known.join(", ")))
        })
    }

    /// What `--command` calls it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, tool)| *tool == self).map_or("oc", |(name, _)| *name)
    }

    /// What is written into it.
    pub fn slots(self) -> &'static [Slot] {
        match self {
            Self::Oc | Self::OcRhel(_) => &[Slot::Version],
            Self::Install | Self::BaremetalInstall | Self::FipsInstall => {
                &[Slot::Image, Slot::Version, Slot::Architecture]
            }
            Self::Ccoctl | Self::CcoctlRhel(_) => &[],
        }
    }

    /// Where the program for a system lies in a release for `release_architecture` (Go's name).
    pub fn location(self, system: &System, release_architecture: &str) -> Result<Location, Error> {
        let architecture = system.architecture.as_deref().unwrap_or(match system.os {
            Os::Linux => release_architecture,
            // The programs for people's machines are made for the common one.
            Os::Mac | Os::Windows => "amd64",
        });
        let own = system.os == Os::Linux && architecture == release_architecture;
        let none = || {
            let os = match system.os {
                Os::Linux => "linux",
                Os::Mac => "mac",
                Os::Windows => "windows",
            };
            let cause =
                format!("a release for {release_architecture} has no `{}` for {os}/{architecture}", self.name());
            Error::new(ErrorKind::NotFound, format!("extract `{}`", self.name()), cause)
                .hint("choose another --command-os, or the release for that architecture")
        };
        let folder = match (system.os, architecture) {
            (Os::Linux, architecture) => format!("linux_{architecture}"),
            (Os::Mac, "amd64") => "mac".to_owned(),
            (Os::Mac, "arm64") => "mac_arm64".to_owned(),
            (Os::Windows, "amd64") => "windows".to_owned(),
            _ => return Err(none()),
        };
        let (component, path) = match self {
            Self::Oc if own => ("cli", "usr/bin/oc".to_owned()),
            Self::Oc if system.os == Os::Windows => ("cli-artifacts", format!("usr/share/openshift/{folder}/oc.exe")),
            Self::Oc => ("cli-artifacts", format!("usr/share/openshift/{folder}/oc")),
            Self::OcRhel(_) if system.os == Os::Linux => {
                ("cli-artifacts", format!("usr/share/openshift/{folder}/{}", self.name()))
            }
            Self::Install if own => ("installer", "usr/bin/openshift-install".to_owned()),
            Self::Install if system.os != Os::Windows => {
                ("installer-artifacts", format!("usr/share/openshift/{folder}/openshift-install"))
            }
            Self::BaremetalInstall | Self::FipsInstall if own => {
                ("baremetal-installer", "usr/bin/openshift-install".to_owned())
            }
            Self::Ccoctl | Self::CcoctlRhel(_) if own => {
                ("cloud-credential-operator", format!("usr/bin/{}", self.name()))
            }
            _ => return Err(none()),
        };
        let extension = if system.os == Os::Windows { ".exe" } else { "" };
        // The artifacts are the same in every image; the programs themselves are of the image's architecture.
        let image = (!component.ends_with("-artifacts")).then(|| architecture.to_owned());
        Ok(Location { component, architecture: image, path, file_name: format!("{}{extension}", self.name()) })
    }
}

impl std::str::FromStr for System {
    type Err = Error;

    /// `linux`, `mac`, `darwin` or `windows`, optionally with `/arch`. `linux` alone is amd64, as `oc` has it.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (os, architecture) = match text.split_once('/') {
            Some((os, architecture)) => (os, Some(architecture.to_owned())),
            None => (text, Some("amd64".to_owned())),
        };
        let os = match os {
            "linux" => Os::Linux,
            "mac" | "darwin" => Os::Mac,
            "windows" => Os::Windows,
            _ => {
                let cause = format!("`{text}` is no system that programs are made for");
                return Err(Error::new(ErrorKind::Invalid, "choose a system", cause)
                    .hint("linux, mac or windows, optionally with an architecture: linux/arm64"));
            }
        };
        Ok(Self { os, architecture: architecture.filter(|a| !a.is_empty()) })
    }
}

impl Slot {
    fn marker(self) -> (&'static [u8], usize) {
        match self {
            Self::Image => (b"\0_RELEASE_IMAGE_LOCATION_\0", 300),
            Self::Version => (b"\0_RELEASE_VERSION_LOCATION_\0", 64),
            Self::Architecture => (b"\0_RELEASE_ARCHITECTURE_LOCATION_\0", 64),
        }
    }

    /// How many bytes of the program it takes in all.
    pub fn size(self) -> usize {
        let (marker, filling) = self.marker();
        marker.len() + filling + 1
    }

    /// The bytes by which an empty slot is known.
    pub fn empty(self) -> Vec<u8> {
        let (marker, filling) = self.marker();
        [marker, &vec![b'X'; filling], b"\0"].concat()
    }

    /// What it is for, in words.
    pub fn what(self) -> &'static str {
        match self {
            Self::Image => "release image",
            Self::Version => "version",
            Self::Architecture => "architecture",
        }
    }
}

/// Checks that a value fits its slot, with the NUL that ends it.
pub fn fits(slot: Slot, value: &str) -> Result<(), Error> {
    let most = slot.size() - 1;
    if value.len() > most || value.contains('\0') || value.is_empty() {
        let what = format!("write the {} into a program", slot.what());
        let cause = format!("`{value}` has {} bytes; there is room for 1 to {most}", value.len());
        return Err(Error::new(ErrorKind::Invalid, what, cause).hint("mirror the release to a shorter name"));
    }
    Ok(())
}

/// Copies a program, writing each value into the first slot of its kind. Answers the slots that were not there.
///
/// Needs one buffer, however large the program is: a slot is never longer than what is kept of the bytes before.
pub fn copy(content: &mut dyn Read, out: &mut dyn Write, values: &[(Slot, String)]) -> io::Result<Vec<Slot>> {
    let mut open: Vec<(Slot, Vec<u8>, &str)> = values.iter().map(|(s, v)| (*s, s.empty(), v.as_str())).collect();
    let longest = open.iter().map(|(_, empty, _)| empty.len()).max().unwrap_or(0);
    let mut buffer = Vec::with_capacity(BUFFER_BYTES + longest);
    loop {
        let read = content.take(BUFFER_BYTES as u64).read_to_end(&mut buffer)?;
        open.retain(|(_, empty, value)| match find(&buffer, empty) {
            Some(at) => {
                buffer[at..at + value.len()].copy_from_slice(value.as_bytes());
                buffer[at + value.len()] = 0;
                false
            }
            None => true,
        });
        if read == 0 {
            out.write_all(&buffer)?;
            return Ok(open.into_iter().map(|(slot, ..)| slot).collect());
        }
        // A slot may begin in what is kept and end in what comes.
        let done = buffer.len().saturating_sub(longest);
        out.write_all(&buffer[..done])?;
        buffer.drain(..done);
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    // The second byte is rare in programs, the first is the commonest.
    let mark = *wanted.get(1)?;
    let mut from = 1;
    while let Some(at) = bytes.get(from..)?.iter().position(|b| *b == mark) {
        let start = from + at - 1;
        if bytes[start..].starts_with(wanted) {
            return Some(start);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives its bytes in pieces of this size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1).min(self.0.len());
            buffer[..most].copy_from_slice(&self.0[..most]);
            self.0 = &self.0[most..];
            Ok(most)
        }
    }

    #[test]
    fn slots_have_the_sizes_of_the_programs() {
        assert_eq!([Slot::Image, Slot::Version, Slot::Architecture].map(Slot::size), [327, 93, 98]);
        assert_eq!(Slot::Image.empty().len(), 327);
    }

    #[test]
    fn a_value_takes_its_slot_and_no_byte_more() {
        for len in [1, 326] {
            assert!(fits(Slot::Image, &"v".repeat(len)).is_ok());
        }
        for bad in [String::new(), "v".repeat(327), "a\0b".into()] {
            assert!(fits(Slot::Image, &bad).is_err());
        }
        let value = "v".repeat(326);
        let (mut out, program) = (Vec::new(), [&b"ab"[..], &Slot::Image.empty(), b"cd"].concat());
        assert!(copy(&mut &program[..], &mut out, &[(Slot::Image, value.clone())]).unwrap().is_empty());
        assert_eq!(out, [b"ab", value.as_bytes(), b"\0cd"].concat());
    }

    proptest! {
        #[test]
        fn slots_are_found_wherever_they_lie(before in 0..3 * BUFFER_BYTES, piece in 1..70_000_usize, gap in 0..400_usize) {
            let program = [
                vec![b'_'; before], Slot::Version.empty(), vec![0; gap], Slot::Image.empty(), Slot::Image.empty(), vec![7; gap],
            ].concat();
            let mut out = Vec::new();
            let values = [(Slot::Image, "q.io/r@x".to_owned()), (Slot::Version, "4.1.0".into()), (Slot::Architecture, "a".into())];
            let missing = copy(&mut Pieces(&program, piece), &mut out, &values).unwrap();
            prop_assert_eq!(missing, [Slot::Architecture]);
            let mut expected = program;
            expected[before..before + 6].copy_from_slice(b"4.1.0\0");
            let image = before + Slot::Version.size() + gap;
            expected[image..image + 9].copy_from_slice(b"q.io/r@x\0");
            prop_assert!(out == expected);
        }
    }

    #[test]
    fn programs_lie_where_the_reference_says() {
        let at = |tool: &str, system: &str, release: &str| {
            let system =
                if system.is_empty() { System { os: Os::Linux, architecture: None } } else { system.parse().unwrap() };
            Tool::named(tool)
                .unwrap()
                .location(&system, release)
                .map(|l| format!("{}:{} {}", l.component, l.path, l.file_name))
        };
        for (tool, system, release, expected) in [
            ("oc", "", "arm64", "cli:usr/bin/oc oc"),
            ("oc", "linux", "arm64", "cli-artifacts:usr/share/openshift/linux_amd64/oc oc"),
            ("oc", "mac/arm64", "amd64", "cli-artifacts:usr/share/openshift/mac_arm64/oc oc"),
            ("oc", "windows", "s390x", "cli-artifacts:usr/share/openshift/windows/oc.exe oc.exe"),
            ("oc.rhel9", "", "s390x", "cli-artifacts:usr/share/openshift/linux_s390x/oc.rhel9 oc.rhel9"),
            ("openshift-install", "", "amd64", "installer:usr/bin/openshift-install openshift-install"),
            (
                "openshift-install",
                "darwin",
                "amd64",
                "installer-artifacts:usr/share/openshift/mac/openshift-install openshift-install",
            ),
            (
                "openshift-install-fips",
                "",
                "amd64",
                "baremetal-installer:usr/bin/openshift-install openshift-install-fips",
            ),
            ("ccoctl.rhel8", "linux/amd64", "amd64", "cloud-credential-operator:usr/bin/ccoctl.rhel8 ccoctl.rhel8"),
        ] {
            assert_eq!(at(tool, system, release).unwrap(), expected, "{tool} {system} {release}");
        }
        for (tool, system, release) in [
            ("openshift-install", "windows", "amd64"),
            ("oc", "windows/arm64", "amd64"),
            ("ccoctl", "linux/arm64", "amd64"),
        ] {
            assert!(at(tool, system, release).is_err(), "{tool} {system}");
        }
        assert!(Tool::named("kubectl").is_err() && "beos".parse::<System>().is_err());
    }
}
