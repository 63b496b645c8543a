//! Answers that say no: the protocol's codes for the client, the cause for the log. No path of this machine is ever sent.

use airlock_oci::{Error, ErrorKind};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::body::Body;

/// A code of the protocol (distribution-spec, "Error Codes", and docker-registry's own).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    #[serde(rename = "TOOMANYREQUESTS")]
    TooManyRequests,
    TagInvalid,
    RangeInvalid,
    PaginationNumberInvalid,
    Unavailable,
    Unknown,
}

/// An answer that says no.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    items: Vec<Item>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What only the log may know.
    log: Option<String>,
    /// The disk failed.
    disk: bool,
}

#[derive(Debug, Serialize)]
struct Item {
    code: Code,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Document<'a> {
    errors: &'a [Item],
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        let items = vec![Item { code, message: message.into(), detail: None }];
        Self { status, items, headers: Vec::new(), log: None, disk: false }
    }

    /// The disk does not take anything; pulls go on.
    pub(crate) fn read_only() -> Self {
        let text = "the registry's disk failed; until it works again, only reading is possible";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, text).header(RETRY_AFTER, "30")
    }

    /// What a write that the disk has failed is answered with: the same as the writes after it, so that the client tries it again.
    pub(crate) fn for_a_while(self) -> Self {
        Self { log: self.log, disk: self.disk, ..Self::read_only() }
    }

    /// Adds to the first item what exactly is meant.
    pub(crate) fn detail(mut self, detail: serde_json::Value) -> Self {
        if let Some(item) = self.items.first_mut() {
            item.detail = Some(detail);
        }
        self
    }

    /// One item for each detail.
    pub(crate) fn each(
        status: StatusCode,
        code: Code,
        message: &str,
        details: impl IntoIterator<Item = serde_json::Value>,
    ) -> Self {
        let items = details.into_iter().map(|d| Item { code, message: message.to_owned(), detail: Some(d) }).collect();
        Self { status, items, headers: Vec::new(), log: None, disk: false }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// For a page: the status and one sentence; a line in the log when the fault is ours.
    pub(crate) fn for_people(self) -> (StatusCode, String) {
        if let Some(log) = &self.log {
            tracing::error!(status = self.status.as_u16(), cause = %log, "a page cannot be shown");
        }
        let text = self.items.first().map(|item| item.message.clone()).unwrap_or_default();
        let mut letters = text.chars();
        let sentence = letters.next().map(|first| format!("{}{}.", first.to_uppercase(), letters.as_str()));
        (self.status, sentence.unwrap_or_default())
    }

    /// Whether the disk failed.
    pub(crate) fn is_of_disk(&self) -> bool {
        self.disk
    }

    /// The answer, and a line in the log when the fault is ours.
    pub(crate) fn into_response(self) -> Response<Body> {
        if let Some(log) = &self.log {
            tracing::error!(status = self.status.as_u16(), cause = %log, "a request failed");
        }
        let bytes = serde_json::to_vec(&Document { errors: &self.items }).unwrap_or_default();
        let mut response = Response::new(Body::Full(Bytes::from(bytes)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// The storage failed. What the client can do something about is said; the rest is for the log.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let mut refusal = match error.kind() {
            ErrorKind::Full => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, Code::Unavailable, "the registry's storage is full")
            }
            ErrorKind::TooManyRequests => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::TooManyRequests,
                "too many uploads are under way; try again later",
            )
            .header(RETRY_AFTER, "10"),
            ErrorKind::Locked => {
                Self::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, "another request is sending the same upload")
            }
            // The client went away or fell silent; mostly nobody is there to read this.
            ErrorKind::Network => {
                return Self::new(StatusCode::REQUEST_TIMEOUT, Code::BlobUploadInvalid, error.cause());
            }
            // An object store, behind this registry; its errors' causes are written for anybody.
            ErrorKind::Server | ErrorKind::Unauthorized | ErrorKind::Denied => {
                let text = format!("the registry's storage does not work at the moment: {}", error.cause());
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, text).header(RETRY_AFTER, "5")
            }
            _ => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Code::Unknown,
                "the registry's storage failed; its log says why",
            ),
        };
        refusal.log = Some(error.to_string());
        refusal.disk = error.kind() == ErrorKind::Io;
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelt_as_in_the_specification() {
        for (code, text) in [
            (Code::BlobUploadUnknown, "BLOB_UPLOAD_UNKNOWN"),
            (Code::TooManyRequests, "TOOMANYREQUESTS"),
            (Code::ManifestBlobUnknown, "MANIFEST_BLOB_UNKNOWN"),
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), text);
        }
    }

    #[test]
    fn a_failure_of_the_storage_does_not_tell_where_it_lies() {
        let error = Error::new(ErrorKind::Io, "read `/secret/place`", "input/output error");
        let Body::Full(bytes) = Refusal::from(error).into_response().into_body() else { panic!() };
        assert!(!String::from_utf8(bytes.to_vec()).unwrap().contains("secret"));
    }
}
