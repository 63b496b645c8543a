//! Connections: requests in, answers out, and the faults in between.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fault::Effect;
use super::http::{Answer, Head, Wire, read_body};
use super::protocol::{Route, refuse, respond, route};
use super::{Request, Shared};

/// How often a request that stalls looks whether it may go on.
const LOOK: Duration = Duration::from_millis(10);

/// Serves one connection until it ends.
pub(super) fn connection(
    shared: &Arc<Shared>,
    stream: TcpStream,
    tls: Option<&Arc<rustls::ServerConfig>>,
) -> io::Result<()> {
    let mut wire = BufReader::with_capacity(64 * 1024, Wire::accept(stream, tls)?);
    while let Some(head) = Head::read(&mut wire)? {
        // To a proxy the whole address is sent.
        let target = match head.target.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..])) {
            Some(path) => path,
            None => &head.target,
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (effect, number, healed) = {
            let mut state = shared.state();
            state.requests += 1;
            // Every rule counts what it matches; the first that applies has its way.
            let effects: Vec<Effect> = state.faults.iter_mut().filter_map(|f| f.hit(&head.method, path)).collect();
            (effects.into_iter().next(), state.requests, state.healed)
        };
        let mut request = Request {
            method: head.method.clone(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: head.headers.clone(),
            status: 0,
            received: 0,
            sent: 0,
            number,
            healed,
        };
        shared.state().log.push(request.clone());
        let going_on = exchange(shared, &mut wire, &head, effect, &mut request);
        shared.update(&request);
        if !going_on? {
            break;
        }
    }
    Ok(())
}

/// One request and its answer. `false`: the connection is over.
fn exchange(
    shared: &Arc<Shared>,
    wire: &mut BufReader<Wire>,
    head: &Head,
    effect: Option<Effect>,
    request: &mut Request,
) -> io::Result<bool> {
    let (path, query) = (request.path.clone(), request.query.clone());
    if let Some(Effect::Expire { retry_after }) = &effect {
        let answer = Answer::error(429, "TOOMANYREQUESTS", "slow down").with("Retry-After", retry_after);
        shared.state().tokens.expire();
        return send(shared, wire, head, &answer, None, request);
    }
    if let Some(Effect::Answer { status, headers, body }) = &effect {
        read_body(wire, head, |bytes| {
            request.received += bytes.len() as u64;
            true
        })?;
        let mut answer = Answer::new(*status).body(body.clone());
        answer.headers = headers.clone();
        return send(shared, wire, head, &answer, None, request);
    }
    if let Some(Effect::LoseSession) = &effect {
        shared.state().content.uploads.clear();
    }
    if let Some(Effect::ResetUpload { after }) = &effect {
        let mut kept = Vec::new();
        read_body(wire, head, |bytes| {
            kept.extend_from_slice(bytes);
            kept.len() < *after
        })?;
        kept.truncate(*after);
        request.received = kept.len() as u64;
        if let Route::Session(_, id) = route(&path)
            && let Some(upload) = shared.state().content.uploads.get_mut(id)
        {
            upload.data.extend_from_slice(&kept);
        }
        wire.get_ref().abort();
        return Ok(false);
    }
    // Refused before the body is read, as servers do that ask who it is first; a bounded rest of it is drained.
    let early = { refuse(&mut shared.state(), head, &path) };
    let answer = match early {
        Some(answer) => {
            // As Go's server does it: a small rest of the body is read, before a large one the connection is ended.
            let small = head.header("content-length").is_none_or(|l| l.parse().is_ok_and(|l: u64| l <= 256 * 1024));
            if small {
                read_body(wire, head, |bytes| {
                    request.received += bytes.len() as u64;
                    true
                })?;
                return send(shared, wire, head, &answer, None, request);
            }
            send(shared, wire, head, &answer.with("Connection", "close"), None, request)?;
            wire.get_ref().finish();
            let end = Instant::now() + Duration::from_millis(500);
            let _ = read_body(wire, head, |_| Instant::now() < end);
            return Ok(false);
        }
        None => {
            let mut body = Vec::new();
            let length: usize = head.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
            body.reserve(length.min(1 << 30));
            let whole = read_body(wire, head, |bytes| {
                body.extend_from_slice(bytes);
                true
            });
            request.received = body.len() as u64;
            if let Err(error) = whole {
                // What came of an interrupted upload stays in its session.
                if let Route::Session(_, id) = route(&path)
                    && let Some(upload) = shared.state().content.uploads.get_mut(id)
                {
                    upload.data.extend_from_slice(&body);
                }
                return Err(error);
            }
            let ignore_range = matches!(effect, Some(Effect::NoRange));
            respond(&mut shared.state(), head, &path, &query, body.into(), ignore_range)
        }
    };
    if let Some(Effect::LoseAnswer) = &effect {
        wire.get_ref().abort();
        return Ok(false);
    }
    send(shared, wire, head, &answer, effect, request)
}

/// Does nothing for a time, or until the registry is healed or ends.
fn stall(shared: &Shared, request: &Request, pause: Duration) {
    let end = Instant::now() + pause;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.stop.load(Ordering::Relaxed) || shared.state().healed != request.healed {
            return;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// Sends an answer, or what a fault leaves of it.
fn send(
    shared: &Shared,
    wire: &mut BufReader<Wire>,
    head: &Head,
    answer: &Answer,
    effect: Option<Effect>,
    request: &mut Request,
) -> io::Result<bool> {
    let mut answer = answer.clone();
    let mut stop_after = None;
    match effect {
        Some(Effect::Flip) if !answer.body.is_empty() => {
            let mut bytes = answer.body.to_vec();
            bytes[0] ^= 1;
            answer.body = bytes.into();
        }
        Some(Effect::Length(by)) => {
            let mut bytes = answer.body.to_vec();
            bytes.resize((bytes.len() as i64 + by).max(0) as usize, b' ');
            answer.length = answer.length.map(|l| l.saturating_add_signed(by));
            answer.body = bytes.into();
        }
        Some(Effect::Without(name)) => answer.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(&name)),
        Some(Effect::With(name, value)) => {
            answer.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(&name));
            answer.headers.push((name, value));
        }
        Some(Effect::Break { after, reset }) => stop_after = Some((after.min(answer.body.len()), Some(reset), None)),
        Some(Effect::Stall { after: Some(after), pause }) => {
            stop_after = Some((after.min(answer.body.len()), None, Some(pause)));
        }
        Some(Effect::Stall { after: None, pause }) => stall(shared, request, pause),
        _ => {}
    }
    let body = if head.method == "HEAD" { Bytes::new() } else { answer.body.clone() };
    let stream = wire.get_mut();
    request.status = answer.status;
    shared.update(request);
    stream.write_all(&answer.head())?;
    if let Some((at, end, pause)) = stop_after {
        let at = at.min(body.len());
        request.sent = at as u64;
        shared.update(request);
        stream.write_all(&body[..at])?;
        stream.flush()?;
        if let Some(pause) = pause {
            stall(shared, request, pause);
        }
        match end {
            Some(reset) => {
                // What was sent must arrive before the end does.
                stream.delivered();
                if reset {
                    stream.abort();
                }
                return Ok(false);
            }
            None => {
                request.sent = body.len() as u64;
                shared.update(request);
                stream.write_all(&body[at..])?;
            }
        }
    } else {
        for piece in body.chunks(256 * 1024) {
            request.sent += piece.len() as u64;
            shared.update(request);
            stream.write_all(piece)?;
        }
    }
    stream.flush()?;
    Ok(true)
}
