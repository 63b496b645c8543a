//! The floor under blob downloads: a server that does nothing but `sendfile`, a thread for each connection.
//!
//! ```text
//! send_floor FILE       prints the address that it listens on; every request is answered with the whole file
//! ```
#![allow(clippy::print_stdout, reason = "its output is the address")]

use std::fs::File;
use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> Result<()> {
    let path = std::env::args().nth(1).ok_or_else(|| std::io::Error::other("usage: send_floor FILE"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, path) = (stream?, path.clone());
        std::thread::spawn(move || answer(stream, &path));
    }
    Ok(())
}

fn answer(mut stream: TcpStream, path: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        loop {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
        }
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n")?;
        let mut sent = 0;
        while sent < len {
            sent += rustix::fs::sendfile(&stream, &file, None, (len - sent) as usize)? as u64;
        }
    }
}
