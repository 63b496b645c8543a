//! A line of an htpasswd file, for the bench: `hash NAME PASSWORD` (bcrypt, cost 10).
#![allow(clippy::print_stdout, reason = "its output is the result")]

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, password] = &arguments[..]
        && let Ok(hash) = bcrypt::hash(password, 10)
    {
        println!("{name}:{hash}");
    }
}
