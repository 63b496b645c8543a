//! `airlock rules undo`.

use std::slice::from_ref;

use airlock_oci::Error;
use airlock_rules::undo::{Undo, undo};

use crate::args::rules::UndoArgs;
use crate::commands::rules::input;
use crate::exit::Failure;
use crate::output;

/// Runs the verb.
pub(crate) fn run(args: &UndoArgs) -> Result<u8, Failure> {
    let old = input::objects(from_ref(&args.old), None)?;
    let new = input::objects(from_ref(&args.new), None)?;
    let way = undo(&old, &new);
    if let Some(directory) = &args.to {
        for (name, text) in [("delete.yaml", way.delete_yaml()), ("restore.yaml", way.restore_yaml())] {
            if text.is_empty() {
                continue;
            }
            let path = directory.join(name);
            input::write(&path, &text)
                .map_err(|e| Failure::from(Error::io(format!("write `{}`", path.display()), &e)))?;
            eprintln!("wrote {}", path.display());
        }
    }
    if output::value(args.output, &way)? {
        return Ok(0);
    }
    if way.delete.is_empty() && way.restore.is_empty() {
        output::text("nothing to undo\n")?;
    } else if args.to.is_none() {
        output::text(&commands(&way))?;
    }
    Ok(0)
}

/// Restoring comes first, so that no pull goes without a rule meanwhile.
fn commands(way: &Undo) -> String {
    let mut out = String::new();
    if !way.restore.is_empty() {
        out.push_str(&format!("oc apply -f - <<'EOF'\n{}EOF\n", way.restore_yaml()));
    }
    for object in &way.delete {
        out.push_str(&format!("oc delete {} {}\n", Undo::resource(object.kind), object.name));
    }
    out
}
