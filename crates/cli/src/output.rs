//! Data on stdout: tables, JSON, YAML.

use std::io::Write;

use airlock_oci::{Error, ErrorKind};
use serde::Serialize;

use crate::exit::Failure;

/// The forms in which data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One document.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Writes text to stdout. A reader that has gone (`| head`) ends the output without an error.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    told(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

fn told(done: std::io::Result<()>) -> Result<(), Failure> {
    match done {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("write to stdout", &e).into()),
        _ => Ok(()),
    }
}

/// Writes a value as JSON or YAML; `false` for [`Format::Table`], which the caller makes.
pub(crate) fn value(format: Format, value: &impl Serialize) -> Result<bool, Failure> {
    let failed = |e: String| Failure::from(Error::new(ErrorKind::Invalid, "write the result", e));
    match format {
        Format::Table => return Ok(false),
        Format::Json => {
            // Straight to where it goes: the plan of a large catalog is hundreds of megabytes of text.
            let mut out = std::io::BufWriter::with_capacity(64 * 1024, std::io::stdout().lock());
            let written = serde_json::to_writer_pretty(&mut out, value).map_err(std::io::Error::from);
            match written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Err(failed(e.to_string())),
                done => told(done)?,
            }
        }
        Format::Yaml => text(&serde_saphyr::to_string(value).map_err(|e| failed(e.to_string()))?)?,
    }
    Ok(true)
}

/// Columns of text, two spaces apart.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (number, cell) in cells.iter().enumerate() {
            text.push_str(cell);
            if number + 1 < cells.len() {
                text.push_str(&" ".repeat(widths[number] - cell.chars().count() + 2));
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(header.to_vec());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
    out
}

/// A size for people, in binary units.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_tables() {
        assert_eq!(
            (size(0), size(1023), size(1024), size(5 << 30)),
            ("0 B".into(), "1023 B".into(), "1.0 KiB".into(), "5.0 GiB".into())
        );
        let rows = vec![vec!["a".into(), "long cell".into(), "x".into()], vec!["bb".into(), "c".into(), String::new()]];
        assert_eq!(table(&["A", "B", "C"], &rows), "A   B          C\na   long cell  x\nbb  c\n");
    }
}
