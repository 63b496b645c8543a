//! Which files count (mirror-rules 2.1), as a pure function of the environment.

use std::path::{Path, PathBuf};

/// What decides: taken from the environment and the flags by the caller.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// `$CONTAINERS_REGISTRIES_CONF`, or its older name `$REGISTRIES_CONFIG_PATH`, or a flag.
    pub main: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF_DIR`, or a flag.
    pub dropin_dir: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
}

/// A main file and the directories of its drop-ins. Files of a later directory win over those of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The main file.
    pub main: PathBuf,
    /// It was asked for by name: if it is missing, that is an error.
    pub required: bool,
    /// Missing ones are ignored; any other trouble with one is an error.
    pub dropin_dirs: Vec<PathBuf>,
}

impl Lookup {
    /// In order of precedence: the first whose main file exists counts. The last counts even when its main file is missing.
    pub fn order(&self) -> Vec<Files> {
        let system = Path::new("/etc/containers");
        let user = self.home.as_ref().map(|home| home.join(".config/containers"));
        let dropins = |folders: &[Option<&Path>]| match &self.dropin_dir {
            Some(only) => vec![only.clone()],
            None => folders.iter().flatten().map(|folder| folder.join("registries.conf.d")).collect(),
        };
        let both = || dropins(&[Some(system), user.as_deref()]);
        if let Some(main) = &self.main {
            return vec![Files { main: main.clone(), required: true, dropin_dirs: both() }];
        }
        let mut order = Vec::new();
        if let Some(user) = &user {
            // A user's own file hides the system's drop-ins too.
            let dropin_dirs = dropins(&[Some(user)]);
            order.push(Files { main: user.join("registries.conf"), required: false, dropin_dirs });
        }
        order.push(Files { main: system.join("registries.conf"), required: false, dropin_dirs: both() });
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lookup: &Lookup) -> Vec<String> {
        let show = |f: &Files| {
            let dirs: Vec<_> = f.dropin_dirs.iter().map(|d| d.display().to_string()).collect();
            format!("{}{} {}", f.main.display(), if f.required { "!" } else { "" }, dirs.join(","))
        };
        lookup.order().iter().map(show).collect()
    }

    #[test]
    fn the_order_is_that_of_containers_image() {
        let home = Some(PathBuf::from("/h"));
        let system = "/etc/containers/registries.conf /etc/containers/registries.conf.d";
        let user = "/h/.config/containers/registries.conf.d";
        assert_eq!(shown(&Lookup::default()), [system]);
        assert_eq!(
            shown(&Lookup { home: home.clone(), ..Lookup::default() }),
            [format!("/h/.config/containers/registries.conf {user}"), format!("{system},{user}")]
        );
        let explicit = Lookup { main: Some("/x.conf".into()), home: home.clone(), ..Lookup::default() };
        assert_eq!(shown(&explicit), [format!("/x.conf! /etc/containers/registries.conf.d,{user}")]);
        let dir = Lookup { dropin_dir: Some("/d".into()), home, ..Lookup::default() };
        assert_eq!(shown(&dir), ["/h/.config/containers/registries.conf /d", "/etc/containers/registries.conf /d"]);
    }
}
