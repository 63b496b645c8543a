//! What goes wrong, when, and how often.

use std::time::Duration;

use bytes::Bytes;

use super::http::matches;

/// A rule: which requests, which of them, and what happens to them.
///
/// ```
/// use airlock_testkit::scripted::Fault;
///
/// // The first two blob downloads are answered with 503.
/// let busy = Fault::on("GET", "/v2/*/blobs/*").first(2).status(503);
/// // The third request of any kind is reset after 1000 bytes of the body.
/// let cut = Fault::on("*", "*").nth(3).reset_after(1000);
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    method: String,
    path: String,
    from: u64,
    to: u64,
    seen: u64,
    effect: Effect,
}

/// Which requests; [`Fault::on`] begins one.
#[derive(Clone, Debug)]
pub struct When {
    method: String,
    path: String,
    from: u64,
    to: u64,
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Answered with this instead.
    Answer { status: u16, headers: Vec<(String, String)>, body: Bytes },
    /// The answer's body breaks off after so many bytes, by RST or by FIN.
    Break { after: usize, reset: bool },
    /// The answer pauses after so many bytes of the body (`None`: before the head).
    Stall { after: Option<usize>, pause: Duration },
    /// The body's first byte is another.
    Flip,
    /// The body is longer or shorter, and says so.
    Length(i64),
    /// A header is missing.
    Without(String),
    /// A header is added or replaced.
    With(String, String),
    /// The range is ignored.
    NoRange,
    /// The request's body is cut off after so many bytes; what came is kept by the session.
    ResetUpload { after: usize },
    /// The upload session is forgotten; the request is answered 404.
    LoseSession,
    /// The request is done, but its answer never comes: the connection is reset.
    LoseAnswer,
    /// Asked to wait, and every token that was issued so far is refused from then on.
    Expire { retry_after: String },
}

impl Fault {
    /// Requests with this method and path; `*` stands for anything, the query does not count.
    pub fn on(method: &str, path: &str) -> When {
        When { method: method.to_owned(), path: path.to_owned(), from: 1, to: u64::MAX }
    }

    /// Counts a request; the effect if it is one of those.
    pub(crate) fn hit(&mut self, method: &str, path: &str) -> Option<Effect> {
        if !matches(&self.method, method) || !matches(&self.path, path) {
            return None;
        }
        self.seen += 1;
        (self.from..=self.to).contains(&self.seen).then(|| self.effect.clone())
    }
}

impl When {
    /// Only the first `n` of them.
    pub fn first(mut self, n: u64) -> Self {
        (self.from, self.to) = (1, n);
        self
    }

    /// Only number `n` (from 1).
    pub fn nth(mut self, n: u64) -> Self {
        (self.from, self.to) = (n, n);
        self
    }

    /// All from number `n` (from 1) on.
    pub fn since(mut self, n: u64) -> Self {
        (self.from, self.to) = (n, u64::MAX);
        self
    }

    fn then(self, effect: Effect) -> Fault {
        Fault { method: self.method, path: self.path, from: self.from, to: self.to, seen: 0, effect }
    }

    /// Answers with this status and an error body.
    pub fn status(self, status: u16) -> Fault {
        self.answer(status, &[], r#"{"errors":[{"code":"UNKNOWN","message":"scripted"}]}"#)
    }

    /// Answers with exactly this.
    pub fn answer(self, status: u16, headers: &[(&str, &str)], body: &str) -> Fault {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.then(Effect::Answer { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    /// 429 with `Retry-After`.
    pub fn too_many_requests(self, retry_after: &str) -> Fault {
        self.answer(
            429,
            &[("Retry-After", retry_after)],
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
        )
    }

    /// 429 with `Retry-After`, and all tokens issued so far expire before the answer is sent.
    pub fn too_many_requests_and_tokens_expire(self, retry_after: &str) -> Fault {
        self.then(Effect::Expire { retry_after: retry_after.to_owned() })
    }

    /// 307 to another address.
    pub fn redirect(self, to: &str) -> Fault {
        self.answer(307, &[("Location", to)], "")
    }

    /// RST after `bytes` of the body.
    pub fn reset_after(self, bytes: usize) -> Fault {
        self.then(Effect::Break { after: bytes, reset: true })
    }

    /// The connection is closed in order after `bytes` of the body, although the head announced all.
    pub fn truncate_after(self, bytes: usize) -> Fault {
        self.then(Effect::Break { after: bytes, reset: false })
    }

    /// Nothing comes for `pause`, or until the registry is healed, after `bytes` of the body.
    pub fn stall_after(self, bytes: usize, pause: Duration) -> Fault {
        self.then(Effect::Stall { after: Some(bytes), pause })
    }

    /// The answer begins only after `pause`, or when the registry is healed.
    pub fn delay(self, pause: Duration) -> Fault {
        self.then(Effect::Stall { after: None, pause })
    }

    /// One byte of the body is wrong.
    pub fn wrong_bytes(self) -> Fault {
        self.then(Effect::Flip)
    }

    /// The body has `by` more (or fewer) bytes, and `Content-Length` agrees with that.
    pub fn wrong_length(self, by: i64) -> Fault {
        self.then(Effect::Length(by))
    }

    /// The answer lacks a header.
    pub fn without_header(self, name: &str) -> Fault {
        self.then(Effect::Without(name.to_ascii_lowercase()))
    }

    /// The answer has this header instead.
    pub fn with_header(self, name: &str, value: &str) -> Fault {
        self.then(Effect::With(name.to_owned(), value.to_owned()))
    }

    /// The whole is sent although a part was asked for.
    pub fn ignore_range(self) -> Fault {
        self.then(Effect::NoRange)
    }

    /// RST after `bytes` of the request's body were taken in; an upload session keeps them.
    pub fn reset_upload_after(self, bytes: usize) -> Fault {
        self.then(Effect::ResetUpload { after: bytes })
    }

    /// The upload session of the request is forgotten first: 404.
    pub fn lose_session(self) -> Fault {
        self.then(Effect::LoseSession)
    }

    /// The request is carried out, and the connection reset instead of an answer.
    pub fn lose_answer(self) -> Fault {
        self.then(Effect::LoseAnswer)
    }
}
