//! Servers that run beside a test: a port of their own, readiness instead of sleeping, and an end when the test ends.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Ports are taken from below the range that the kernel hands to outgoing connections, so that nobody's connection sits on
/// one between our check and the server's bind.
const FIRST_PORT: u16 = 20_000;
/// How many ports there are to choose from.
const PORTS: u32 = 12_000;
/// How long a server may take until it answers. Generous: the machine may be building at the same time.
const READY: Duration = Duration::from_secs(120);
/// How often a server that died at its start (its port was taken after all) is tried again.
const STARTS: usize = 5;

/// A free TCP port of the loopback interface, held against every other user of this type on the machine until dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked as long as the port is ours; the kernel releases it even when the test process is killed.
    _claim: File,
}

/// A server process. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    port: Port,
    log: PathBuf,
}

impl Port {
    /// Claims a free port.
    ///
    /// # Panics
    /// When none of the ports is free.
    pub fn claim() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = std::env::temp_dir().join("airlock-testkit-ports");
        fs::create_dir_all(&folder).expect("create the folder of port claims");
        for _ in 0..PORTS {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST_PORT + (std::process::id().wrapping_mul(37).wrapping_add(step) % PORTS) as u16;
            let claim = File::create(folder.join(number.to_string())).expect("create a port claim");
            match claim.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => panic!("lock a port claim: {error}"),
            }
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _claim: claim };
            }
        }
        panic!("no free port between {FIRST_PORT} and {}", u32::from(FIRST_PORT) + PORTS);
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The loopback address with this port.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

impl Running {
    /// Starts what `command` makes of a fresh port, and waits until something listens there. Its output goes to `log`.
    ///
    /// # Panics
    /// When the server does not come up; the message holds its output.
    pub fn start(log: &Path, mut command: impl FnMut(&Port) -> Command) -> Self {
        for attempt in 1..=STARTS {
            let port = Port::claim();
            let mut running = Self::spawn(command(&port), port, log);
            if running.ready() {
                return running;
            }
            assert!(attempt < STARTS, "the server did not start; its output:\n{}", running.output());
        }
        unreachable!("the last attempt either returned or failed");
    }

    fn spawn(mut command: Command, port: Port, log: &Path) -> Self {
        let output = File::create(log).expect("create the server's log");
        let errors = output.try_clone().expect("share the server's log");
        let name = command.get_program().display().to_string();
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self { child, port, log: log.to_path_buf() }
    }

    fn ready(&mut self) -> bool {
        let end = Instant::now() + READY;
        while Instant::now() < end {
            if self.child.try_wait().expect("ask for the server's state").is_some() {
                return false;
            }
            if TcpStream::connect(self.port.address()).is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    /// The number of its port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is not this type's business.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_differ_and_a_dropped_one_can_be_bound() {
        let (one, two) = (Port::claim(), Port::claim());
        assert_ne!(one.number(), two.number());
        let address = one.address();
        drop(one);
        TcpListener::bind(address).expect("the port is free again");
    }

    #[test]
    fn a_server_ends_with_its_handle() {
        let folder = tempfile::tempdir().unwrap();
        let Some(python) = crate::tools::need("python3") else { return };
        let running = Running::start(&folder.path().join("log"), |port| {
            let mut command = Command::new(&python);
            command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.number().to_string()]);
            command.current_dir(folder.path());
            command
        });
        let address = running.address();
        TcpStream::connect(&address).expect("it listens");
        drop(running);
        assert!(TcpStream::connect(&address).is_err(), "it has ended");
    }
}
